//! capnp-rpc: Cap'n Proto between two parties over a Unix socket, on a current-thread runtime, since nothing
//! of it is `Send`.

use std::path::Path;
use std::rc::Rc;

use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::{VatId, VatNetwork};
use capnp_rpc::{RpcSystem, new_client};
use futures::io::{BufReader, BufWriter};
use lpc_cli::measure::{produce, sum};
use send_wrapper::SendWrapper;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::work::{self, Job, Mixed};

mod work_capnp {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    #![allow(clippy::semicolon_if_nothing_returned, clippy::unwrap_used)]

    include!(concat!(env!("OUT_DIR"), "/work_capnp.rs"));
}

use work_capnp::work as service;

/// Words of a message that may be read: the default is 64 MiB, and a body may be as long as that by itself.
const ROOM: usize = (1 << 30) / 8;

struct Worker;

type Answer = std::result::Result<(), capnp::Error>;

impl service::Server for Worker {
    async fn add(self: Rc<Self>, asked: service::AddParams, mut answer: service::AddResults) -> Answer {
        let asked = asked.get()?;
        answer.get().set_number(asked.get_a().wrapping_add(asked.get_b()));
        Ok(())
    }

    async fn upload(
        self: Rc<Self>,
        asked: service::UploadParams,
        mut answer: service::UploadResults,
    ) -> Answer {
        answer.get().set_number(sum(asked.get()?.get_bytes()?));
        Ok(())
    }

    async fn download(
        self: Rc<Self>,
        asked: service::DownloadParams,
        mut answer: service::DownloadResults,
    ) -> Answer {
        let asked = asked.get()?;
        produce(answer.get().init_bytes(asked.get_len()), asked.get_seed());
        Ok(())
    }

    async fn mixed(self: Rc<Self>, asked: service::MixedParams, mut answer: service::MixedResults) -> Answer {
        answer.get().set_number(read(asked.get()?.get_mixed()?)?.digest());
        Ok(())
    }
}

fn read(mixed: work_capnp::mixed::Reader<'_>) -> std::result::Result<Mixed, capnp::Error> {
    let points = mixed.get_points()?.iter().map(|point| work::Point { x: point.get_x(), y: point.get_y() });
    Ok(Mixed {
        id: mixed.get_id(),
        price: mixed.get_price(),
        active: mixed.get_active(),
        name: mixed.get_name()?.to_string()?,
        note: if mixed.has_note() { Some(mixed.get_note()?.to_string()?) } else { None },
        tags: mixed.get_tags()?.iter().map(|tag| Ok(tag?.to_string()?)).collect::<capnp::Result<_>>()?,
        counts: mixed.get_counts()?.iter().collect(),
        points: points.collect(),
    })
}

fn write(mixed: &Mixed, mut to: work_capnp::mixed::Builder<'_>) -> capnp::Result<()> {
    to.set_id(mixed.id);
    to.set_price(mixed.price);
    to.set_active(mixed.active);
    to.set_name(&mixed.name);
    if let Some(note) = &mixed.note {
        to.set_note(note);
    }
    to.set_tags(&mixed.tags[..])?;
    to.set_counts(&mixed.counts[..])?;
    let mut points = to.init_points(mixed.points.len() as u32);
    for (at, point) in (0..).zip(&mixed.points) {
        let mut to = points.reborrow().get(at);
        to.set_x(point.x);
        to.set_y(point.y);
    }
    Ok(())
}

fn network(stream: UnixStream, side: Side) -> Box<VatNetwork<BufReader<impl futures::AsyncRead + Unpin>>> {
    let (reads, writes) = stream.into_split();
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(ROOM));
    let (reads, writes) = (BufReader::new(reads.compat()), BufWriter::new(writes.compat_write()));
    Box::new(VatNetwork::new(reads, writes, side, options))
}

struct CapnpRpc;

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![Box::new(CapnpRpc)]
}

impl Peer for CapnpRpc {
    fn name(&self) -> &str {
        "capnp-rpc current"
    }

    fn does(&self, _job: Job) -> bool {
        true
    }

    fn serve(&self, place: &Path) -> Result<()> {
        LocalSet::new().block_on(&Flavour::CurrentThread.runtime()?, async {
            let listener = UnixListener::bind(place)?;
            let worker: service::Client = new_client(Worker);
            loop {
                let network = network(listener.accept().await?.0, Side::Server);
                // A client that goes away is no news.
                spawn_local(RpcSystem::new(network, Some(worker.clone().client)));
            }
        })
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = place.to_owned();
        Ok(Box::new(Tasks::new(Flavour::CurrentThread, move || {
            let connect = UnixStream::connect(place.clone());
            async move {
                let mut system = RpcSystem::new(network(connect.await?, Side::Client), None);
                let client = SendWrapper::new(system.bootstrap::<service::Client>(VatId::Server));
                let system = tokio::spawn(SendWrapper::new(system)).abort_handle();
                Ok(Client { client, system })
            }
        })?))
    }
}

/// The runtime has one thread: what is not `Send` stays there, though its tasks are told that it is.
struct Client {
    client: SendWrapper<service::Client>,
    system: AbortHandle,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.system.abort();
    }
}

impl Async for Client {
    fn add(&self, a: u64, b: u64) -> impl Future<Output = Result<u64>> + Send {
        SendWrapper::new(async move {
            let mut request = self.client.add_request();
            request.get().set_a(a);
            request.get().set_b(b);
            Ok(request.send().promise.await?.get()?.get_number())
        })
    }

    fn upload(&self, own: &mut [u8], seed: u8) -> impl Future<Output = Result<u64>> + Send {
        SendWrapper::new(async move {
            let mut request = self.client.upload_request();
            produce(request.get().init_bytes(own.len() as u32), seed);
            Ok(request.send().promise.await?.get()?.get_number())
        })
    }

    fn download(&self, len: usize, seed: u8) -> impl Future<Output = Result<u64>> + Send {
        SendWrapper::new(async move {
            let mut request = self.client.download_request();
            request.get().set_len(len as u32);
            request.get().set_seed(seed);
            Ok(sum(request.send().promise.await?.get()?.get_bytes()?))
        })
    }

    fn mixed(&self, mixed: &Mixed) -> impl Future<Output = Result<u64>> + Send {
        SendWrapper::new(async move {
            let mut request = self.client.mixed_request();
            write(mixed, request.get().init_mixed())?;
            Ok(request.send().promise.await?.get()?.get_number())
        })
    }
}
