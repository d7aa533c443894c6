//! tonic: gRPC over HTTP/2 on a Unix socket, with windows as large as the largest body.

use std::path::Path;

use futures::stream::try_unfold;
use lpc_cli::measure::{produce, sum};
use tokio::net::UnixListener;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::work::{self, Job, Mixed};

mod service {
    #![allow(missing_docs, unreachable_pub, clippy::all)]

    tonic::include_proto!("work");
}

use service::work_client::WorkClient;
use service::work_server::{Work, WorkServer};
use service::{Ask, Bytes, MixedFields, Number, Pair, Point};

/// Bytes of a message, and of what may be under way without the other side's consent.
const ROOM: u32 = 1 << 30;

type Answer<T> = std::result::Result<Response<T>, Status>;

struct Worker;

#[tonic::async_trait]
impl Work for Worker {
    async fn add(&self, pair: Request<Pair>) -> Answer<Number> {
        let Pair { a, b } = pair.into_inner();
        Ok(Response::new(Number { number: a.wrapping_add(b) }))
    }

    async fn upload(&self, bytes: Request<Bytes>) -> Answer<Number> {
        Ok(Response::new(Number { number: sum(&bytes.into_inner().bytes) }))
    }

    async fn download(&self, ask: Request<Ask>) -> Answer<Bytes> {
        let Ask { len, seed } = ask.into_inner();
        Ok(Response::new(Bytes { bytes: vec![seed as u8; len as usize].into() }))
    }

    async fn mixed(&self, fields: Request<MixedFields>) -> Answer<Number> {
        let MixedFields { id, price, active, name, note, tags, counts, points } = fields.into_inner();
        let points = points.into_iter().map(|Point { x, y }| work::Point { x, y }).collect();
        let mixed = Mixed { id, price, active, name, note, tags, counts, points };
        Ok(Response::new(Number { number: mixed.digest() }))
    }
}

struct Tonic(&'static str, Flavour);

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Tonic("tonic current", Flavour::CurrentThread)),
        Box::new(Tonic("tonic multi", Flavour::MultiThread)),
    ]
}

impl Peer for Tonic {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, _job: Job) -> bool {
        true
    }

    fn serve(&self, place: &Path) -> Result<()> {
        self.1.runtime()?.block_on(async {
            let clients = try_unfold(UnixListener::bind(place)?, async |listener| {
                let (stream, _) = listener.accept().await?;
                Ok::<_, std::io::Error>(Some((stream, listener)))
            });
            let service = WorkServer::new(Worker)
                .max_decoding_message_size(ROOM as usize)
                .max_encoding_message_size(ROOM as usize);
            let mut server =
                Server::builder().initial_stream_window_size(ROOM).initial_connection_window_size(ROOM);
            Ok(server.add_service(service).serve_with_incoming(clients).await?)
        })
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = format!("unix://{}", place.display());
        Ok(Box::new(Tasks::new(self.1, move || {
            let endpoint = Endpoint::from_shared(place.clone());
            async move {
                let endpoint =
                    endpoint?.initial_stream_window_size(ROOM).initial_connection_window_size(ROOM);
                let client = WorkClient::new(endpoint.connect().await?)
                    .max_decoding_message_size(ROOM as usize)
                    .max_encoding_message_size(ROOM as usize);
                Ok(Client(client))
            }
        })?))
    }
}

struct Client(WorkClient<Channel>);

impl Async for Client {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        // A clone is the way to call from a shared client; all have one connection.
        Ok(self.0.clone().add(Pair { a, b }).await?.into_inner().number)
    }

    async fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        let mut bytes = vec![0; own.len()];
        produce(&mut bytes, seed);
        Ok(self.0.clone().upload(Bytes { bytes: bytes.into() }).await?.into_inner().number)
    }

    async fn download(&self, len: usize, seed: u8) -> Result<u64> {
        let ask = Ask { len: len as u64, seed: seed.into() };
        Ok(sum(&self.0.clone().download(ask).await?.into_inner().bytes))
    }

    async fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        let Mixed { id, price, active, name, note, tags, counts, points } = mixed.clone();
        let points = points.into_iter().map(|work::Point { x, y }| Point { x, y }).collect();
        let fields = MixedFields { id, price, active, name, note, tags, counts, points };
        Ok(self.0.clone().mixed(fields).await?.into_inner().number)
    }
}
