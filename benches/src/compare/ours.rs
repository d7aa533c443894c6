//! lpc: both drivers, with the quick lane and without, bodies that are copied, read in place, or lent.
#![allow(unsafe_code)] // The promise that `trust` asks for.

use std::path::Path;

use lpc::{Shared, SharedMut};
use lpc_cli::measure::{produce, sum};

use super::peer::{Caller, Peer, Result};
use super::tasks::{Async, Flavour, Tasks};
use super::threads::{Blocking, Threads};
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
}

#[derive(Clone, Copy)]
struct Lpc {
    name: &'static str,
    /// `None` for the blocking driver.
    tokio: Option<Flavour>,
    trusts: bool,
    lends: bool,
    quick: bool,
}

/// Of every limit on bytes: enough for the largest body, and what is encoded beside it.
const ROOM: u64 = 1 << 30;

pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    let copying = |name, tokio| Lpc { name, tokio, trusts: false, lends: false, quick: false };
    let blocking = copying("lpc blocking", None);
    let current = copying("lpc tokio current", Some(Flavour::CurrentThread));
    let multi = copying("lpc tokio multi", Some(Flavour::MultiThread));
    let with = |name, lpc, lends| Lpc { name, trusts: true, lends, ..lpc };
    let quick = |name, lpc| Lpc { name, quick: true, ..lpc };
    [
        blocking,
        quick("lpc blocking quick", blocking),
        with("lpc blocking trust", blocking, false),
        with("lpc blocking loan", blocking, true),
        current,
        quick("lpc tokio current quick", current),
        with("lpc tokio current trust", current, false),
        with("lpc tokio current loan", current, true),
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
        !self.trusts || matches!(job.work, Work::Upload | Work::Download)
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
                Ok(Client { client, lends: lpc.lends })
            })?));
        };
        Ok(Box::new(Tasks::new(flavour, move || {
            let builder = configured!(asynchronous::WorkClient::builder(), lpc);
            let place = place.clone();
            async move { Ok(Client { client: builder.connect(&place).await?, lends: lpc.lends }) }
        })?))
    }
}

struct Client<C> {
    client: C,
    lends: bool,
}

impl Blocking for Client<blocking::WorkClient> {
    fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(blocking::Work::add(&self.client, a, b)?)
    }

    fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64> {
        use blocking::Work;
        if self.lends {
            let mut bytes = self.client.client().loan::<u8>(own.len())?;
            produce(&mut bytes, seed);
            return Ok(self.client.upload_loan(bytes.freeze())?);
        }
        produce(own, seed);
        Ok(Work::upload(&self.client, own)?)
    }

    fn download(&self, len: usize, seed: u8) -> Result<u64> {
        use blocking::Work;
        if self.lends {
            return Ok(sum(&self.client.download_loan(len as u64, seed)?));
        }
        Ok(sum(&Work::download(&self.client, len as u64, seed)?))
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
        if self.lends {
            let mut bytes = self.client.client().loan::<u8>(own.len()).await?;
            produce(&mut bytes, seed);
            return Ok(self.client.upload_loan(bytes.freeze()).await?);
        }
        produce(own, seed);
        Ok(Work::upload(&self.client, own).await?)
    }

    async fn download(&self, len: usize, seed: u8) -> Result<u64> {
        use asynchronous::Work;
        if self.lends {
            return Ok(sum(&self.client.download_loan(len as u64, seed).await?));
        }
        Ok(sum(&Work::download(&self.client, len as u64, seed).await?))
    }

    async fn mixed(&self, mixed: &Mixed) -> Result<u64> {
        Ok(asynchronous::Work::mixed(&self.client, mixed).await?)
    }
}
