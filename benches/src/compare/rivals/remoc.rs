//! remoc's remote traits over a Unix socket, with its default codec.

use std::path::Path;
use std::sync::Arc;

use lpc_cli::measure::{produce, sum};
use remoc::prelude::{ConnectExt, ServerShared};
use remoc::{Cfg, Connect, codec};
use tokio::net::{UnixListener, UnixStream};

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::work::{Job, Mixed};

mod service {
    use lpc_cli::measure::sum;
    use remoc::rtc::{self, CallError};
    use serde_bytes::ByteBuf;

    use crate::compare::work::Mixed;

    #[rtc::remote]
    pub(super) trait Work {
        async fn add(&self, a: u64, b: u64) -> Result<u64, CallError>;
        async fn upload(&self, bytes: ByteBuf) -> Result<u64, CallError>;
        async fn download(&self, len: u64, seed: u8) -> Result<ByteBuf, CallError>;
        async fn mixed(&self, mixed: Mixed) -> Result<u64, CallError>;
    }

    pub(super) struct Worker;

    impl Work for Worker {
        async fn add(&self, a: u64, b: u64) -> Result<u64, CallError> {
            Ok(a.wrapping_add(b))
        }

        async fn upload(&self, bytes: ByteBuf) -> Result<u64, CallError> {
            Ok(sum(&bytes))
        }

        async fn download(&self, len: u64, seed: u8) -> Result<ByteBuf, CallError> {
            Ok(vec![seed; len as usize].into())
        }

        async fn mixed(&self, mixed: Mixed) -> Result<u64, CallError> {
            Ok(mixed.digest())
        }
    }
}

use service::{Work, WorkClient, WorkServerShared, Worker};

struct Remoc(&'static str, Flavour);

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Remoc("remoc current", Flavour::CurrentThread)),
        Box::new(Remoc("remoc multi", Flavour::MultiThread)),
    ]
}

impl Peer for Remoc {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, job: Job) -> bool {
        // What one item may have.
        job.bytes() < remoc::rch::DEFAULT_MAX_ITEM_SIZE
    }

    fn serve(&self, place: &Path) -> Result<()> {
        self.1.runtime()?.block_on(async {
            let listener = UnixListener::bind(place)?;
            loop {
                let (receives, sends) = listener.accept().await?.0.into_split();
                tokio::spawn(async move {
                    let (server, client) = WorkServerShared::<_, codec::Default>::new(Arc::new(Worker));
                    // A client that goes away is no news.
                    if Connect::io(Cfg::default(), receives, sends).provide(client).await.is_ok() {
                        let _ = server.serve().await;
                    }
                });
            }
        })
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = place.to_owned();
        Ok(Box::new(Tasks::new(self.1, move || {
            let connect = UnixStream::connect(place.clone());
            async move {
                let (receives, sends) = connect.await?.into_split();
                Ok(Client(Connect::io(Cfg::default(), receives, sends).consume().await?))
            }
        })?))
    }
}

struct Client(WorkClient);

impl Async for Client {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(self.0.add(a, b).await?)
    }

    async fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        let mut bytes = vec![0; own.len()];
        produce(&mut bytes, seed);
        Ok(self.0.upload(bytes.into()).await?)
    }

    async fn download(&self, len: usize, seed: u8) -> Result<u64> {
        Ok(sum(&self.0.download(len as u64, seed).await?))
    }

    async fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        Ok(self.0.mixed(mixed.clone()).await?)
    }
}
