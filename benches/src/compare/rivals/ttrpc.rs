//! ttrpc over a Unix socket: its blocking client and server, and its async ones on tokio.

use std::future;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use lpc_cli::measure::{produce, sum};
use ttrpc::context::Context;
use ttrpc::proto::MESSAGE_LENGTH_MAX;
use ttrpc::{Result as Answer, TtrpcContext, asynchronous as tokio_side};

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::threads::{Blocking, Threads};
use crate::compare::work::{self, Job, Mixed};

mod blocking {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

    include!(concat!(env!("OUT_DIR"), "/ttrpc_blocking/mod.rs"));
}

mod asynchronous {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

    pub use super::blocking::work;

    include!(concat!(env!("OUT_DIR"), "/ttrpc_async/mod.rs"));
}

use asynchronous::work_ttrpc as async_service;
use blocking::work::{Ask, Bytes, MixedFields, Number, Pair, Point};
use blocking::work_ttrpc as service;

struct Worker;

impl service::Work for Worker {
    fn add(&self, _: &TtrpcContext, pair: Pair) -> Answer<Number> {
        Ok(number(pair.a.wrapping_add(pair.b)))
    }

    fn upload(&self, _: &TtrpcContext, bytes: Bytes) -> Answer<Number> {
        Ok(number(sum(&bytes.bytes)))
    }

    fn download(&self, _: &TtrpcContext, ask: Ask) -> Answer<Bytes> {
        Ok(Bytes { bytes: vec![ask.seed as u8; ask.len as usize], ..Bytes::default() })
    }

    fn mixed(&self, _: &TtrpcContext, mixed: MixedFields) -> Answer<Number> {
        Ok(number(read(mixed).digest()))
    }
}

#[async_trait]
impl async_service::Work for Worker {
    async fn add(&self, _: &tokio_side::TtrpcContext, pair: Pair) -> Answer<Number> {
        Ok(number(pair.a.wrapping_add(pair.b)))
    }

    async fn upload(&self, _: &tokio_side::TtrpcContext, bytes: Bytes) -> Answer<Number> {
        Ok(number(sum(&bytes.bytes)))
    }

    async fn download(&self, _: &tokio_side::TtrpcContext, ask: Ask) -> Answer<Bytes> {
        Ok(Bytes { bytes: vec![ask.seed as u8; ask.len as usize], ..Bytes::default() })
    }

    async fn mixed(&self, _: &tokio_side::TtrpcContext, mixed: MixedFields) -> Answer<Number> {
        Ok(number(read(mixed).digest()))
    }
}

fn number(number: u64) -> Number {
    Number { number, ..Number::default() }
}

fn pair(a: u64, b: u64) -> Pair {
    Pair { a, b, ..Pair::default() }
}

fn ask(len: usize, seed: u8) -> Ask {
    Ask { len: len as u64, seed: seed.into(), ..Ask::default() }
}

fn produced(len: usize, seed: u8) -> Bytes {
    let mut bytes = vec![0; len];
    produce(&mut bytes, seed);
    Bytes { bytes, ..Bytes::default() }
}

fn fields(mixed: &Mixed) -> MixedFields {
    let Mixed { id, price, active, name, note, tags, counts, points } = mixed.clone();
    let point = |work::Point { x, y }| Point { x, y, ..Point::default() };
    let points = points.into_iter().map(point).collect();
    MixedFields { id, price, active, name, note, tags, counts, points, ..MixedFields::default() }
}

fn read(fields: MixedFields) -> Mixed {
    let MixedFields { id, price, active, name, note, tags, counts, points, .. } = fields;
    let points = points.into_iter().map(|Point { x, y, .. }| work::Point { x, y }).collect();
    Mixed { id, price, active, name, note, tags, counts, points }
}

/// Of a message, beside its body: what it is of, and how long.
const HEADS: usize = 256;

/// `None`: with threads.
struct Ttrpc(&'static str, Option<Flavour>);

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Ttrpc("ttrpc blocking", None)),
        Box::new(Ttrpc("ttrpc current", Some(Flavour::CurrentThread))),
        Box::new(Ttrpc("ttrpc multi", Some(Flavour::MultiThread))),
    ]
}

impl Peer for Ttrpc {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, job: Job) -> bool {
        // What one message may have: 4 MiB, which cannot be set.
        job.bytes() + HEADS <= MESSAGE_LENGTH_MAX
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let place = address(place);
        let Some(flavour) = self.1 else {
            let service = service::create_work(Arc::new(Worker));
            let mut server = ttrpc::Server::new().bind(&place)?.register_service(service);
            server.start()?;
            loop {
                thread::park();
            }
        };
        flavour.runtime()?.block_on(async {
            let service = async_service::create_work(Arc::new(Worker));
            let mut server = tokio_side::Server::new().bind(&place)?.register_service(service);
            server.start().await?;
            future::pending().await
        })
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = address(place);
        let Some(flavour) = self.1 else {
            return Ok(Box::new(Threads::new(move || {
                Ok(service::WorkClient::new(ttrpc::Client::connect(&place)?))
            })?));
        };
        Ok(Box::new(Tasks::new(flavour, move || {
            let place = place.clone();
            async move { Ok(async_service::WorkClient::new(tokio_side::Client::connect(&place).await?)) }
        })?))
    }
}

fn address(place: &Path) -> String {
    format!("unix://{}", place.display())
}

impl Blocking for service::WorkClient {
    fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(self.add(Context::default(), &pair(a, b))?.number)
    }

    fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        Ok(self.upload(Context::default(), &produced(own.len(), seed))?.number)
    }

    fn download(&self, len: usize, seed: u8) -> Result<u64> {
        Ok(sum(&self.download(Context::default(), &ask(len, seed))?.bytes))
    }

    fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        Ok(self.mixed(Context::default(), &fields(mixed))?.number)
    }
}

impl Async for async_service::WorkClient {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(self.add(Context::default(), &pair(a, b)).await?.number)
    }

    async fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        Ok(self.upload(Context::default(), &produced(own.len(), seed)).await?.number)
    }

    async fn download(&self, len: usize, seed: u8) -> Result<u64> {
        Ok(sum(&self.download(Context::default(), &ask(len, seed)).await?.bytes))
    }

    async fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        Ok(self.mixed(Context::default(), &fields(mixed)).await?.number)
    }
}
