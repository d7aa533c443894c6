//! The rows: ways to get bytes from one process to the other.

use std::process::Command;

use clap::ValueEnum;
use lpc_cli::measure::Pinning;

use super::loans;
use super::raw::{self, Way};
use super::{Direction, bodies};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Row {
    /// Through a Unix stream socket into a kept buffer
    RawSocket,
    /// Copied into shared memory, and out of it
    RawCopyCopy,
    /// The same with a new `Vec` in each process for each call
    RawVec,
    /// Copied into shared memory, read there
    RawCopyPlace,
    /// Produced in shared memory, copied out of it
    RawPlaceCopy,
    /// Produced in shared memory, read there
    RawPlacePlace,
    /// `&[u8]` there, `Vec<u8>` back, as lpc is by default
    LpcCopy,
    /// The same, where the receiver trusts the sender
    LpcTrust,
    /// A loan there, a loan back, where the receiver trusts the sender
    LpcLoan,
    /// The same, as lpc is by default
    LpcLoanCopied,
}

/// One way to get bytes across. A call begins before the first byte is produced and ends when the last has been read
/// and the caller knows it.
pub(super) trait Carrier {
    /// Produces `len` bytes of `seed` here, has the service read them, and returns the sum that it answers.
    fn upload(&mut self, len: usize, seed: u8) -> lpc::Result<u64>;

    /// Has the service produce `len` bytes of `seed`, reads them here, and returns their sum.
    fn download(&mut self, len: usize, seed: u8) -> lpc::Result<u64>;

    /// Asserts that the bytes went the way that the row is named for.
    fn check(&self);
}

/// Requests and sums are this long at most. They go through the socket in every row.
pub(super) const SMALL: u64 = 64;

impl Direction {
    /// For each row of lpc the one that does the same without it. What comes back as a `Vec<u8>` is in private memory, and
    /// new, whoever is trusted.
    pub(super) fn floors(self) -> [(Row, Row); 4] {
        let (copy, trust) = match self {
            Self::Upload => (Row::RawCopyCopy, Row::RawCopyPlace),
            Self::Download => (Row::RawVec, Row::RawVec),
        };
        [
            (Row::LpcCopy, copy),
            (Row::LpcTrust, trust),
            (Row::LpcLoan, Row::RawPlacePlace),
            (Row::LpcLoanCopied, Row::RawPlaceCopy),
        ]
    }
}

impl Row {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RawSocket => "raw socket",
            Self::RawCopyCopy => "raw copy-copy",
            Self::RawVec => "raw vec",
            Self::RawCopyPlace => "raw copy-place",
            Self::RawPlaceCopy => "raw place-copy",
            Self::RawPlacePlace => "raw place-place",
            Self::LpcCopy => "lpc copy",
            Self::LpcTrust => "lpc trust",
            Self::LpcLoan => "lpc loan",
            Self::LpcLoanCopied => "lpc loan copied",
        }
    }

    /// Starts the service's process and connects to it.
    pub(super) fn open(self, pin: Pinning, largest: usize) -> lpc::Result<Box<dyn Carrier>> {
        let mut command = self.command(pin, largest)?;
        Ok(match self.kind() {
            Kind::Raw(way) => Box::new(raw::Caller::spawn(way, &mut command, largest)?),
            Kind::Bodies { trust } => Box::new(bodies::Caller::spawn(trust, &mut command, largest)?),
            Kind::Loans { trust } => Box::new(loans::Caller::spawn(trust, &mut command)?),
        })
    }

    /// Is the service's process.
    pub(super) fn serve(self, largest: usize) -> lpc::Result<()> {
        match self.kind() {
            Kind::Raw(way) => Ok(raw::serve(way, largest)?),
            Kind::Bodies { trust } => bodies::serve(trust),
            Kind::Loans { trust } => loans::serve(trust),
        }
    }

    /// This program as the service's process.
    pub(super) fn command(self, pin: Pinning, largest: usize) -> lpc::Result<Command> {
        let row = self.to_possible_value().expect("no row is hidden");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve-row", "--row", row.get_name(), "--largest", &largest.to_string()]);
        if let [_, Some(cpu)] = super::cpus(pin)? {
            command.args(["--cpu", &cpu.to_string()]);
        }
        Ok(command)
    }

    fn kind(self) -> Kind {
        match self {
            Self::RawSocket => Kind::Raw(Way::Socket),
            Self::RawCopyCopy => Kind::Raw(Way::CopyCopy),
            Self::RawVec => Kind::Raw(Way::Vec),
            Self::RawCopyPlace => Kind::Raw(Way::CopyPlace),
            Self::RawPlaceCopy => Kind::Raw(Way::PlaceCopy),
            Self::RawPlacePlace => Kind::Raw(Way::PlacePlace),
            Self::LpcCopy => Kind::Bodies { trust: false },
            Self::LpcTrust => Kind::Bodies { trust: true },
            Self::LpcLoan => Kind::Loans { trust: true },
            Self::LpcLoanCopied => Kind::Loans { trust: false },
        }
    }
}

/// Which module has a row, and whether both sides trust each other there.
enum Kind {
    Raw(Way),
    Bodies { trust: bool },
    Loans { trust: bool },
}
