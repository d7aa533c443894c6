//! zbus: D-Bus between two peers, without a bus, on tokio.

use std::path::Path;

use lpc_cli::measure::{produce, sum};
use serde_bytes::ByteBuf;
use tokio::net::{UnixListener, UnixStream};
use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::{Guid, interface, proxy};

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::work::{Job, Mixed, Work};

#[proxy(interface = "lpc.benches.Work", default_path = "/work")]
trait Calls {
    fn add(&self, a: u64, b: u64) -> zbus::Result<u64>;
    fn upload(&self, bytes: &ByteBuf) -> zbus::Result<u64>;
    fn download(&self, len: u64, seed: u8) -> zbus::Result<ByteBuf>;
}

struct Worker;

#[interface(name = "lpc.benches.Work")]
impl Worker {
    async fn add(&self, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }

    async fn upload(&self, bytes: ByteBuf) -> u64 {
        sum(&bytes)
    }

    async fn download(&self, len: u64, seed: u8) -> ByteBuf {
        vec![seed; len as usize].into()
    }
}

struct Zbus(&'static str, Flavour);

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Zbus("zbus current", Flavour::CurrentThread)),
        Box::new(Zbus("zbus multi", Flavour::MultiThread)),
    ]
}

impl Peer for Zbus {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, job: Job) -> bool {
        // D-Bus has no options.
        job.work != Work::Mixed
    }

    fn serve(&self, place: &Path) -> Result<()> {
        self.1.runtime()?.block_on(async {
            let listener = UnixListener::bind(place)?;
            let guid = Guid::generate();
            loop {
                let stream = listener.accept().await?.0.into_std()?;
                let builder = Builder::unix_stream(stream).server(guid.clone()).p2p();
                tokio::spawn(async move {
                    // A client that goes away is no news.
                    if let Ok(connection) = builder.serve_at("/work", Worker).build().await {
                        connection.closed().await;
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
                let connection = Builder::unix_stream(connect.await?.into_std()?).p2p().build().await?;
                let proxy = CallsProxy::builder(&connection).cache_properties(CacheProperties::No);
                Ok(Client(proxy.destination("lpc.benches").build().await?))
            }
        })?))
    }
}

struct Client(CallsProxy<'static>);

impl Async for Client {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(self.0.add(a, b).await?)
    }

    async fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        let mut bytes = ByteBuf::from(vec![0; own.len()]);
        produce(&mut bytes, seed);
        Ok(self.0.upload(&bytes).await?)
    }

    async fn download(&self, len: usize, seed: u8) -> Result<u64> {
        let bytes = self.0.download(len as u64, seed).await?;
        Ok(sum(&bytes))
    }

    async fn mixed(&self, _mixed: &Mixed) -> Result<u64> {
        unreachable!("it does not do that")
    }
}
