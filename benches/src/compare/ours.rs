//! lpc: both drivers, with the quick lane and without, bodies that are copied, read in place, lent, or lent
//! and left alone.
#![allow(unsafe_code)] // The promise that `trust` asks for.

use std::path::Path;

use lpc::{Shared, SharedMut};
use lpc_cli::measure::{produce, sum, sum_of};

use super::peer::{Caller, Peer, Result};
use super::tasks::{Async, Flavour, Tasks};
use super::threads::{Blocking, Threads, check};
use super::work::{Job, Mixed, Work};

mod blocking {
    /// The work, as blocking calls.
    #[lpc::service]
    pub(super) trait Work {
        fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
        fn upload(&self, bytes: &[u8]) -> lpc::Result<u64>;
        fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>>;
        fn mixed(&self, mixed: &super::Mixed) -> lpc::Result<u64>;
        fn upload_loan(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
        fn download_loan(&self, len: u64, seed: u8) -> lpc::Result<lpc::Shared<[u8]>>;
        fn pass_loan(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
        fn return_loan(&self, len: u64) -> lpc::Result<lpc::Shared<[u8]>>;
    }
}

mod asynchronous {
    /// The same as async calls.
    #[lpc::service]
    pub(super) trait Work {
        async fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
        async fn upload(&self, bytes: &[u8]) -> lpc::Result<u64>;
        async fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>>;
        async fn mixed(&self, mixed: &super::Mixed) -> lpc::Result<u64>;
        async fn upload_loan(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
        async fn download_loan(&self, len: u64, seed: u8) -> lpc::Result<lpc::Shared<[u8]>>;
        async fn pass_loan(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
        async fn return_loan(&self, len: u64) -> lpc::Result<lpc::Shared<[u8]>>;
    }
}

struct Worker;

impl blocking::Work for Worker {
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a.wrapping_add(b))
    }

    fn upload(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(sum(bytes))
    }

    fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>> {
        Ok(vec![seed; len as usize])
    }

    fn mixed(&self, mixed: &Mixed) -> lpc::Result<u64> {
        Ok(mixed.digest())
    }

    fn upload_loan(&self, bytes: Shared<[u8]>) -> lpc::Result<u64> {
        Ok(sum(&bytes))
    }

    fn download_loan(&self, len: u64, seed: u8) -> lpc::Result<Shared<[u8]>> {
        let mut bytes = SharedMut::<[u8]>::for_caller(len as usize);
        produce(&mut bytes, seed);
        Ok(bytes.freeze())
    }

    fn pass_loan(&self, bytes: Shared<[u8]>) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }

    fn return_loan(&self, len: u64) -> lpc::Result<Shared<[u8]>> {
        Ok(SharedMut::<[u8]>::for_caller(len as usize).freeze())
    }
}

impl asynchronous::Work for Worker {
    async fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        blocking::Work::add(self, a, b)
    }

    async fn upload(&self, bytes: &[u8]) -> lpc::Result<u64> {
        blocking::Work::upload(self, bytes)
    }

    async fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>> {
        blocking::Work::download(self, len, seed)
    }

    async fn mixed(&self, mixed: &Mixed) -> lpc::Result<u64> {
        blocking::Work::mixed(self, mixed)
    }

    async fn upload_loan(&self, bytes: Shared<[u8]>) -> lpc::Result<u64> {
        blocking::Work::upload_loan(self, bytes)
    }

    async fn download_loan(&self, len: u64, seed: u8) -> lpc::Result<Shared<[u8]>> {
        blocking::Work::download_loan(self, len, seed)
    }

    async fn pass_loan(&self, bytes: Shared<[u8]>) -> lpc::Result<u64> {
        blocking::Work::pass_loan(self, bytes)
    }

    async fn return_loan(&self, len: u64) -> lpc::Result<Shared<[u8]>> {
        blocking::Work::return_loan(self, len)
    }
}

/// What carries the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// `&[u8]` there, `Vec<u8>` back.
    Owned,
    /// Loans.
    Lent,
    /// Loans whose bytes are neither written nor read: only their number is checked.
    Untouched,
}

#[derive(Clone, Copy)]
struct Lpc {
    name: &'static str,
    /// `None` for the blocking driver.
    tokio: Option<Flavour>,
    trusts: bool,
    bodies: Bodies,
    quick: bool,
}

/// Of every limit on bytes: enough for a body of 1 GiB, and what is encoded or in use beside it.
const ROOM: u64 = 2 << 30;

pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    let of = |name, tokio| Lpc { name, tokio, trusts: false, bodies: Bodies::Owned, quick: false };
    let blocking = of("lpc blocking", None);
    let current = of("lpc tokio current", Some(Flavour::CurrentThread));
    let multi = of("lpc tokio multi", Some(Flavour::MultiThread));
    let trusting = |name, bodies, lpc| Lpc { name, trusts: true, bodies, ..lpc };
    let quick = |name, lpc| Lpc { name, quick: true, ..lpc };
    [
        blocking,
        quick("lpc blocking quick", blocking),
        trusting("lpc blocking trust", Bodies::Owned, blocking),
        trusting("lpc blocking loan", Bodies::Lent, blocking),
        Lpc { name: "lpc blocking loan copied", bodies: Bodies::Lent, ..blocking },
        trusting("lpc blocking loan untouched", Bodies::Untouched, blocking),
        current,
        quick("lpc tokio current quick", current),
        trusting("lpc tokio current trust", Bodies::Owned, current),
        trusting("lpc tokio current loan", Bodies::Lent, current),
        multi,
        quick("lpc tokio multi quick", multi),
    ]
    .into_iter()
    .map(|lpc| Box::new(lpc) as Box<dyn Peer>)
    .collect()
}

/// Sets what both builders of both drivers have.
macro_rules! configured {
    ($builder:expr, $lpc:expr) => {{
        let builder = $builder.max_message(ROOM).pool_limit(ROOM).quick_lane($lpc.quick);
        if $lpc.trusts {
            // SAFETY: the other process is this same program, and lpc alone writes to what it sends.
            unsafe { builder.trust(|_peer| true) }
        } else {
            builder
        }
    }};
}

impl Peer for Lpc {
    fn name(&self) -> &str {
        self.name
    }

    fn does(&self, job: Job) -> bool {
        // Trust and loans are about bodies.
        let is_about_bodies = self.trusts || self.bodies != Bodies::Owned;
        !is_about_bodies || matches!(job.work, Work::Upload | Work::Download)
    }

    fn serve(&self, place: &Path) -> Result<()> {
        if let Some(flavour) = self.tokio {
            return Ok(flavour.runtime()?.block_on(async {
                let server = configured!(lpc::Server::builder(), self).bind(place)?;
                server.serve::<asynchronous::WorkService, _>(Worker).await
            })?);
        }
        let server = configured!(lpc::blocking::Server::builder(), self).bind(place)?;
        Ok(server.serve::<blocking::WorkService, _>(Worker)?)
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let (lpc, place) = (*self, place.to_owned());
        let Some(flavour) = self.tokio else {
            return Ok(Box::new(Threads::new(move || {
                let client = configured!(blocking::WorkClient::builder(), lpc).connect(&place)?;
                Ok(Client { client, bodies: lpc.bodies })
            })?));
        };
        Ok(Box::new(Tasks::new(flavour, move || {
            let builder = configured!(asynchronous::WorkClient::builder(), lpc);
            let place = place.clone();
            async move { Ok(Client { client: builder.connect(&place).await?, bodies: lpc.bodies }) }
        })?))
    }
}

struct Client<C> {
    client: C,
    bodies: Bodies,
}

/// The sum that bytes would have that nobody has looked at, if all of them came.
fn as_if_summed(came: u64, len: usize, seed: u8) -> Result<u64> {
    check(came, len as u64)?;
    Ok(sum_of(len, seed))
}

impl Blocking for Client<blocking::WorkClient> {
    fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(blocking::Work::add(&self.client, a, b)?)
    }

    fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        use blocking::Work;
        if self.bodies == Bodies::Owned {
            produce(own, seed);
            return Ok(Work::upload(&self.client, own)?);
        }
        let mut bytes = self.client.client().loan::<u8>(own.len())?;
        if self.bodies == Bodies::Untouched {
            let passed = self.client.pass_loan(bytes.freeze())?;
            return as_if_summed(passed, own.len(), seed);
        }
        produce(&mut bytes, seed);
        Ok(self.client.upload_loan(bytes.freeze())?)
    }

    fn download(&self, len: usize, seed: u8) -> Result<u64> {
        use blocking::Work;
        Ok(match self.bodies {
            Bodies::Owned => sum(&Work::download(&self.client, len as u64, seed)?),
            Bodies::Lent => sum(&self.client.download_loan(len as u64, seed)?),
            Bodies::Untouched => {
                let returned = self.client.return_loan(len as u64)?;
                as_if_summed(returned.len() as u64, len, seed)?
            }
        })
    }

    fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        Ok(blocking::Work::mixed(&self.client, mixed)?)
    }
}

impl Async for Client<asynchronous::WorkClient> {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(asynchronous::Work::add(&self.client, a, b).await?)
    }

    async fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        use asynchronous::Work;
        if self.bodies == Bodies::Owned {
            produce(own, seed);
            return Ok(Work::upload(&self.client, own).await?);
        }
        let mut bytes = self.client.client().loan::<u8>(own.len()).await?;
        if self.bodies == Bodies::Untouched {
            let passed = self.client.pass_loan(bytes.freeze()).await?;
            return as_if_summed(passed, own.len(), seed);
        }
        produce(&mut bytes, seed);
        Ok(self.client.upload_loan(bytes.freeze()).await?)
    }

    async fn download(&self, len: usize, seed: u8) -> Result<u64> {
        use asynchronous::Work;
        Ok(match self.bodies {
            Bodies::Owned => sum(&Work::download(&self.client, len as u64, seed).await?),
            Bodies::Lent => sum(&self.client.download_loan(len as u64, seed).await?),
            Bodies::Untouched => {
                let returned = self.client.return_loan(len as u64).await?;
                as_if_summed(returned.len() as u64, len, seed)?
            }
        })
    }

    async fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        Ok(asynchronous::Work::mixed(&self.client, mixed).await?)
    }
}
