//! ipc-channel: a pair of channels for each call under way, large bodies in the message or in its shared
//! memory.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory};
use lpc_cli::measure::{produce, sum};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::threads::{Blocking, Threads};
use crate::compare::work::{Job, Mixed, Work};

#[derive(Serialize, Deserialize)]
enum Request {
    Add(u64, u64),
    Upload(ByteBuf),
    UploadShared(IpcSharedMemory),
    Download(usize, u8),
    DownloadShared(usize, u8),
    Mixed(Mixed),
}

#[derive(Serialize, Deserialize)]
enum Reply {
    Number(u64),
    Bytes(ByteBuf),
    Shared(IpcSharedMemory),
}

/// What the service gets of each pair of channels.
type Served = (IpcReceiver<Request>, IpcSender<Reply>);

/// What the caller keeps.
type Called = (IpcSender<Request>, IpcReceiver<Reply>);

struct IpcChannel {
    name: &'static str,
    /// Bodies are in shared memory.
    shares: bool,
}

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(IpcChannel { name: "ipc-channel", shares: false }),
        Box::new(IpcChannel { name: "ipc-channel shared", shares: true }),
    ]
}

impl Peer for IpcChannel {
    fn name(&self) -> &str {
        self.name
    }

    fn does(&self, job: Job) -> bool {
        !self.shares || matches!(job.work, Work::Upload | Work::Download)
    }

    /// One client comes by the name that the library chose, and brings a pair of channels for each that is to
    /// be served.
    fn serve(&self, place: &Path) -> Result<()> {
        let (door, name) = IpcOneShotServer::<IpcReceiver<Served>>::new()?;
        let draft = place.with_extension("draft");
        fs::write(&draft, name)?;
        fs::rename(draft, place)?;
        let (_door, pairs) = door.accept()?;
        while let Ok((requests, replies)) = pairs.recv() {
            thread::spawn(move || {
                while let Ok(request) = requests.recv() {
                    if replies.send(answer(request)).is_err() {
                        break;
                    }
                }
            });
        }
        // Until it is killed, as all are.
        loop {
            thread::park();
        }
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let door = IpcSender::connect(fs::read_to_string(place)?)?;
        let (pairs, served) = ipc::channel()?;
        door.send(served)?;
        let shares = self.shares;
        Ok(Box::new(Threads::new(move || {
            Ok(Client { pairs: Mutex::new(pairs.clone()), free: Mutex::default(), shares })
        })?))
    }
}

fn answer(request: Request) -> Reply {
    match request {
        Request::Add(a, b) => Reply::Number(a.wrapping_add(b)),
        Request::Upload(bytes) => Reply::Number(sum(&bytes)),
        Request::UploadShared(bytes) => Reply::Number(sum(&bytes)),
        Request::Download(len, seed) => Reply::Bytes(vec![seed; len].into()),
        Request::DownloadShared(len, seed) => Reply::Shared(IpcSharedMemory::from_byte(seed, len)),
        Request::Mixed(mixed) => Reply::Number(mixed.digest()),
    }
}

struct Client {
    pairs: Mutex<IpcSender<Served>>,
    /// Pairs that no call uses at the moment.
    free: Mutex<Vec<Called>>,
    shares: bool,
}

impl Client {
    fn call(&self, request: Request) -> Result<u64> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (requests, replies) = match free {
            Some(pair) => pair,
            None => {
                let (requests, served) = ipc::channel()?;
                let (answers, replies) = ipc::channel()?;
                self.pairs.lock().unwrap_or_else(PoisonError::into_inner).send((served, answers))?;
                (requests, replies)
            }
        };
        requests.send(request)?;
        let answer = match replies.recv()? {
            Reply::Number(number) => number,
            Reply::Bytes(bytes) => sum(&bytes),
            Reply::Shared(bytes) => sum(&bytes),
        };
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push((requests, replies));
        Ok(answer)
    }
}

impl Blocking for Client {
    fn add(&self, a: u64, b: u64) -> Result<u64> {
        self.call(Request::Add(a, b))
    }

    fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        if self.shares {
            // It is made as a copy.
            produce(own, seed);
            return self.call(Request::UploadShared(IpcSharedMemory::from_bytes(own)));
        }
        let mut bytes = vec![0; own.len()];
        produce(&mut bytes, seed);
        self.call(Request::Upload(bytes.into()))
    }

    fn download(&self, len: usize, seed: u8) -> Result<u64> {
        self.call(if self.shares { Request::DownloadShared(len, seed) } else { Request::Download(len, seed) })
    }

    fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        self.call(Request::Mixed(mixed.clone()))
    }
}
