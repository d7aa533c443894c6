//! The rows of lpc whose bytes are `&[u8]` there and `Vec<u8>` back.

use std::process::Command;

use lpc::Threshold;
use lpc_cli::measure::{Service, produce, sum};

use super::row::{Carrier, SMALL};
use super::trust;
use crate::service::Worker;
use crate::service::blocking::{Work, WorkClient, WorkService};

/// Of both knobs: enough for 256 MiB and what is encoded beside them.
pub(super) const ROOM: u64 = 1 << 30;

pub(super) struct Caller {
    client: WorkClient,
    /// What the caller has, as its own memory.
    kept: Vec<u8>,
    _child: Service,
}

impl Caller {
    pub(super) fn spawn(trusts: bool, command: &mut Command, largest: usize) -> lpc::Result<Self> {
        let builder =
            WorkClient::builder().threshold(Threshold::bytes(SMALL)).max_message(ROOM).pool_limit(ROOM);
        let builder = if trusts { trust::client(builder) } else { builder };
        let (client, child) = builder.spawn(command)?;
        Ok(Self { client, kept: vec![0; largest], _child: Service::of(child) })
    }
}

impl Carrier for Caller {
    fn upload(&mut self, len: usize, seed: u8) -> lpc::Result<u64> {
        let bytes = &mut self.kept[..len];
        produce(bytes, seed);
        self.client.upload(bytes)
    }

    fn download(&mut self, len: usize, seed: u8) -> lpc::Result<u64> {
        Ok(sum(&self.client.download(len as u64, seed)?))
    }

    fn check(&self) {
        let stats = self.client.client().stats();
        for lanes in [stats.sent, stats.received] {
            let in_socket = lanes.socket.sizes.iter().map(|(sizes, _)| *sizes.end());
            assert!(in_socket.max() <= Some(SMALL), "a large body took the socket: {stats:#?}");
        }
    }
}

pub(super) fn serve(trusts: bool) -> lpc::Result<()> {
    let builder = lpc::blocking::Server::builder();
    let builder = builder.threshold(Threshold::bytes(SMALL)).max_message(ROOM).pool_limit(ROOM);
    let builder = if trusts { trust::server(builder) } else { builder };
    builder.serve_parent::<WorkService, _>(Worker)
}
