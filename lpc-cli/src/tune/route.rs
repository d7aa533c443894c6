//! What is measured of lpc: bodies of requests and of replies, on either lane, to a receiver of either kind.

use std::fmt;

use clap::ValueEnum;
use lpc::Threshold;

/// One way for bodies, forced by thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(super) struct Route {
    #[arg(long, value_enum)]
    pub(super) bodies: Bodies,
    #[arg(long, value_enum)]
    pub(super) receiver: Receiver,
    #[arg(long, value_enum)]
    pub(super) lane: Lane,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Bodies {
    /// Arguments, written by the caller and read by the service
    Requests,
    /// Results, written by the service and read by the caller
    Replies,
}

impl Bodies {
    /// What lpc's benchmarks call the same work.
    pub(super) fn work(self) -> &'static str {
        match self {
            Self::Requests => "upload",
            Self::Replies => "download",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Receiver {
    /// Bodies are copied out of shared memory before they are read, which is the default
    Copying,
    /// The sender is trusted (`trust` of the builders): borrowed arguments are read where they are
    Trusting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Lane {
    Socket,
    Mapping,
}

impl Lane {
    /// Of the side that sends the bodies: no body takes another lane.
    fn threshold(self) -> Threshold {
        match self {
            Self::Socket => Threshold::OFF,
            Self::Mapping => Threshold::ALWAYS,
        }
    }
}

impl Route {
    /// What is sent back for a body, or to ask for one, is small and takes the socket, whatever the body
    /// takes.
    pub(super) fn client_threshold(self) -> Threshold {
        if self.bodies == Bodies::Requests { self.lane.threshold() } else { Threshold::OFF }
    }

    pub(super) fn server_threshold(self) -> Threshold {
        if self.bodies == Bodies::Replies { self.lane.threshold() } else { Threshold::OFF }
    }

    /// What it is called in records.
    pub(super) fn peer(self) -> &'static str {
        match (self.lane, self.receiver) {
            (Lane::Socket, Receiver::Copying) => "lpc socket",
            (Lane::Mapping, Receiver::Copying) => "lpc mapping",
            (Lane::Socket, Receiver::Trusting) => "lpc socket trust",
            (Lane::Mapping, Receiver::Trusting) => "lpc mapping trust",
        }
    }
}

macro_rules! named_as_arguments {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = self.to_possible_value().expect("no value is hidden");
                f.pad(value.get_name())
            }
        }
    )*};
}

named_as_arguments!(Bodies, Receiver, Lane);
