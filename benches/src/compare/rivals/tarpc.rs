//! tarpc over a Unix socket, with bincode: the fastest of the codecs that it comes with.

use std::future::ready;
use std::path::Path;

use futures::StreamExt;
use lpc_cli::measure::{produce, sum};
use serde_bytes::ByteBuf;
use tarpc::client::Config;
use tarpc::context::{self, Context};
use tarpc::serde_transport::unix;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::work::{Job, Mixed};

mod service {
    use serde_bytes::ByteBuf;

    use crate::compare::work::Mixed;

    #[tarpc::service]
    pub(super) trait Work {
        async fn add(a: u64, b: u64) -> u64;
        async fn upload(bytes: ByteBuf) -> u64;
        async fn download(len: u64, seed: u8) -> ByteBuf;
        async fn mixed(mixed: Mixed) -> u64;
    }
}

use service::{Work, WorkClient};

#[derive(Clone)]
struct Worker;

impl Work for Worker {
    async fn add(self, _: Context, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }

    async fn upload(self, _: Context, bytes: ByteBuf) -> u64 {
        sum(&bytes)
    }

    async fn download(self, _: Context, len: u64, seed: u8) -> ByteBuf {
        vec![seed; len as usize].into()
    }

    async fn mixed(self, _: Context, mixed: Mixed) -> u64 {
        mixed.digest()
    }
}

struct Tarpc(&'static str, Flavour);

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Tarpc("tarpc current", Flavour::CurrentThread)),
        Box::new(Tarpc("tarpc multi", Flavour::MultiThread)),
    ]
}

/// Of the default's 8 MiB a body of 64 MiB would be too much.
const MAX_FRAME: usize = 1 << 30;

impl Peer for Tarpc {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, _job: Job) -> bool {
        true
    }

    fn serve(&self, place: &Path) -> Result<()> {
        self.1.runtime()?.block_on(async {
            let mut incoming = unix::listen(place, Bincode::default).await?;
            incoming.config_mut().max_frame_length(MAX_FRAME);
            let clients = incoming.filter_map(|client| ready(client.ok()));
            clients
                .for_each(|client| {
                    let calls = BaseChannel::with_defaults(client).execute(Worker.serve());
                    tokio::spawn(calls.for_each(|call| {
                        tokio::spawn(call);
                        ready(())
                    }));
                    ready(())
                })
                .await;
            Ok(())
        })
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = place.to_owned();
        Ok(Box::new(Tasks::new(self.1, move || {
            let mut connect = unix::connect(place.clone(), Bincode::default);
            connect.config_mut().max_frame_length(MAX_FRAME);
            async move { Ok(Client(WorkClient::new(Config::default(), connect.await?).spawn())) }
        })?))
    }
}

struct Client(WorkClient);

impl Async for Client {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(self.0.add(context::current(), a, b).await?)
    }

    async fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        let mut bytes = vec![0; own.len()];
        produce(&mut bytes, seed);
        Ok(self.0.upload(context::current(), bytes.into()).await?)
    }

    async fn download(&self, len: usize, seed: u8) -> Result<u64> {
        Ok(sum(&self.0.download(context::current(), len as u64, seed).await?))
    }

    async fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        Ok(self.0.mixed(context::current(), mixed.clone()).await?)
    }
}
