//! What a user might pick instead of lpc. Each is one file, and one line of [`all`].

mod capnp_rpc;
mod iceoryx2;
mod ipc_channel;
mod remoc;
mod tarpc;
mod tonic;
mod ttrpc;
mod zbus;

use super::peer::Peer;

pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    [
        tarpc::all(),
        tonic::all(),
        ttrpc::all(),
        capnp_rpc::all(),
        remoc::all(),
        zbus::all(),
        ipc_channel::all(),
        iceoryx2::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
