//! lpc's lanes: a client and a service whose thresholds allow no other.

use std::process::Command;

use lpc::blocking::Server;
use lpc_cli::measure::{Service, produce, sum};

use super::carrier::{Carrier, Opened};
use super::route::{Bodies, Lane, Receiver, Route};
use super::trust;
use crate::Result;

#[lpc::service]
trait Work {
    /// Bytes there, every one of them read.
    fn upload(&self, bytes: &[u8]) -> lpc::Result<u64>;
    /// Bytes back, every one of them written.
    fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>>;
}

struct Worker;

impl Work for Worker {
    fn upload(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(sum(bytes))
    }

    fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>> {
        Ok(vec![seed; len as usize])
    }
}

/// Of both limits: enough for the largest body and what is encoded beside it.
const ROOM: u64 = 1 << 30;

/// Is the other process, until the caller's end of standard input is gone.
pub(super) fn serve(route: Route) -> Result<()> {
    let builder = Server::builder().threshold(route.server_threshold()).max_message(ROOM).pool_limit(ROOM);
    let builder = if route.receiver == Receiver::Trusting { trust::server(builder) } else { builder };
    Ok(builder.serve_parent::<WorkService, _>(Worker)?)
}

/// Starts `command`, which is this program as the service of `route`.
pub(super) fn open(route: Route, command: &mut Command) -> Result<Opened> {
    let builder = WorkClient::builder();
    let builder = builder.threshold(route.client_threshold()).max_message(ROOM).pool_limit(ROOM);
    let builder = if route.receiver == Receiver::Trusting { trust::client(builder) } else { builder };
    let (client, child) = builder.spawn(command)?;
    Ok(Opened { carrier: Box::new(Client { client, route }), service: Service::of(child) })
}

struct Client {
    client: WorkClient,
    route: Route,
}

impl Carrier for Client {
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64> {
        match self.route.bodies {
            Bodies::Requests => {
                produce(own, seed);
                Ok(self.client.upload(own)?)
            }
            Bodies::Replies => Ok(sum(&self.client.download(own.len() as u64, seed)?)),
        }
    }

    fn check(&self) -> Result<()> {
        let stats = self.client.client().stats();
        let lanes = match self.route.bodies {
            Bodies::Requests => stats.sent,
            Bodies::Replies => stats.received,
        };
        let strays = match self.route.lane {
            Lane::Socket => lanes.mapping.messages,
            Lane::Mapping => lanes.socket.messages,
        };
        if strays == 0 {
            return Ok(());
        }
        let Route { bodies, lane, .. } = self.route;
        Err(format!("{strays} {bodies} could not take the {lane} lane: is shared memory limited here?")
            .into())
    }
}
