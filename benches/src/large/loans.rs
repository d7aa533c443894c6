//! The rows of lpc whose bytes are produced in the memory that they travel in.

use std::process::Command;
use std::time::{Duration, Instant};

use lpc::Threshold;
use lpc_cli::measure::{Pinning, Service, produce, sum};

use super::report::{Figures, Samples, Sink};
use super::row::{Carrier, Row, SMALL};
use super::{bodies, trust};

/// The work, as loans.
#[lpc::service]
pub(crate) trait Loans {
    /// Two integers there, one back.
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
    /// Bytes there, every one of them read.
    fn upload(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
    /// Bytes back, every one of them written.
    fn download(&self, len: u64, seed: u8) -> lpc::Result<lpc::Shared<[u8]>>;
    /// Bytes there, none of which is read.
    fn measure(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
}

struct Worker;

impl Loans for Worker {
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a.wrapping_add(b))
    }

    fn upload(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64> {
        Ok(sum(&bytes))
    }

    fn download(&self, len: u64, seed: u8) -> lpc::Result<lpc::Shared<[u8]>> {
        let mut bytes = lpc::SharedMut::<[u8]>::for_caller(len as usize);
        produce(&mut bytes, seed);
        Ok(bytes.freeze())
    }

    fn measure(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
}

pub(super) struct Caller {
    client: LoansClient,
    _child: Service,
}

impl Caller {
    pub(super) fn spawn(trusts: bool, command: &mut Command) -> lpc::Result<Self> {
        let builder = LoansClient::builder();
        let builder = builder.threshold(Threshold::bytes(SMALL)).max_message(bodies::ROOM).pool_limit(POOL);
        let builder = if trusts { trust::client(builder) } else { builder };
        let (client, child) = builder.spawn(command)?;
        Ok(Self { client, _child: Service::of(child) })
    }

    fn loan(&self, len: usize) -> lpc::Result<lpc::SharedMut<[u8]>> {
        self.client.client().loan::<u8>(len)
    }
}

impl Carrier for Caller {
    fn upload(&mut self, len: usize, seed: u8) -> lpc::Result<u64> {
        let mut bytes = self.loan(len)?;
        produce(&mut bytes, seed);
        self.client.upload(bytes.freeze())
    }

    fn download(&mut self, len: usize, seed: u8) -> lpc::Result<u64> {
        Ok(sum(&self.client.download(len as u64, seed)?))
    }

    fn check(&self) {
        let stats = self.client.client().stats();
        for lanes in [stats.sent, stats.received] {
            let bodies = lanes.socket.sizes.iter().chain(lanes.mapping.sizes.iter());
            let largest = bodies.map(|(sizes, _)| *sizes.end()).max();
            assert!(largest <= Some(SMALL), "the bytes of a loan were in a body: {stats:#?}");
        }
    }
}

pub(super) fn serve(trusts: bool) -> lpc::Result<()> {
    let builder = lpc::blocking::Server::builder();
    let builder = builder.threshold(Threshold::bytes(SMALL)).max_message(bodies::ROOM).pool_limit(POOL);
    let builder = if trusts { trust::server(builder) } else { builder };
    builder.serve_parent::<LoansService, _>(Worker)
}

/// Room for a loan of 1 GiB, whatever stands beside it.
const POOL: u64 = 2 << 30;

/// The loan whose bytes nobody touches.
const UNTOUCHED: usize = 1 << 30;

/// Calls of each kind in a round of [`untouched`].
const CALLS: usize = 2000;

/// A loan of 1 GiB, had, passed and given back, beside a call of two integers.
pub(super) fn untouched(pin: Pinning, rounds: usize, sink: &mut Sink) -> lpc::Result<()> {
    let caller = Caller::spawn(true, &mut Row::LpcLoan.command(pin, UNTOUCHED)?)?;
    super::pin_caller(pin)?;
    let (mut adds, mut loans) = (Samples::default(), Samples::default());
    adds.reserve(rounds * CALLS);
    loans.reserve(rounds * CALLS);
    for round in 0..=rounds {
        eprint!("\rround {round} of {rounds} ");
        let add: fn(&Caller) -> lpc::Result<Duration> = Caller::add;
        for (samples, call) in [(&mut adds, add), (&mut loans, Caller::pass)] {
            for _ in 0..CALLS {
                let time = call(&caller)?;
                if round > 0 {
                    samples.push(time);
                }
            }
        }
    }
    eprintln!();
    caller.check();
    println!("{pin:?}: microseconds a call, of all calls in {rounds} interleaved rounds\n");
    println!("| {:<24} | {:>8} | {:>8} |", "", "p50", "p99");
    println!("|:{:-<24}-|-{:->8}:|-{:->8}:|", "", "", "");
    let (adds, loans) = (adds.figures(), loans.figures());
    for (what, row, len, Figures { p50, p99 }) in [
        ("call of two integers", "lpc add", 0, &adds),
        ("loan of 1 GiB, untouched", "lpc loan", UNTOUCHED, &loans),
    ] {
        println!("| {what:<24} | {:>8.1} | {:>8.1} |", p50.as_secs_f64() * 1e6, p99.as_secs_f64() * 1e6);
        sink.line("large untouched", row, len, &Figures { p50: *p50, p99: *p99 })?;
    }
    println!("\nratio: {:.2}", loans.p50.as_secs_f64() / adds.p50.as_secs_f64());
    Ok(())
}

impl Caller {
    fn add(&self) -> lpc::Result<Duration> {
        let started = Instant::now();
        let sum = self.client.add(1, 2)?;
        let time = started.elapsed();
        assert_eq!(sum, 3);
        Ok(time)
    }

    fn pass(&self) -> lpc::Result<Duration> {
        let started = Instant::now();
        let len = self.client.measure(self.loan(UNTOUCHED)?.freeze())?;
        let time = started.elapsed();
        assert_eq!(len, UNTOUCHED as u64);
        Ok(time)
    }
}
