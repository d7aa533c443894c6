//! Calls of all sorts while clients and servers are killed: what those hold that are not must stay what it
//! is.
//!
//! Two servers. The steady one is never killed, nor is one of its clients; its other clients are, and come
//! back. The mortal one is killed and started again, and its client connects anew. Every reply is checked, by
//! the clients.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lpc::ErrorKind;

use lpc_cli::measure::{Service, sum};

use crate::server;
use crate::service::blocking::Work as _;
use crate::service::{self, asynchronous, blocking};
use crate::setup::Setup;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long, for each driver
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Of what is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The drivers of all processes
    #[arg(long, value_enum, default_value_t = Drivers::Both)]
    drivers: Drivers,
    /// The table as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Drivers {
    Blocking,
    Tokio,
    Both,
}

/// A client's process.
#[derive(clap::Args)]
pub(crate) struct Calling {
    #[arg(long)]
    port: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    tokio: bool,
}

/// Clients of the steady server that are killed.
const MORTALS: u64 = 3;

/// Between two looks at a process.
const PERIOD: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &Arguments) -> lpc::Result<()> {
    let mut has_grown = false;
    for (tokio, only) in [(false, Drivers::Blocking), (true, Drivers::Tokio)] {
        if arguments.drivers == only || arguments.drivers == Drivers::Both {
            has_grown |= soak(arguments, tokio)?;
        }
    }
    if has_grown { Err(lpc::Error::other("something grew")) } else { Ok(()) }
}

/// Whether something grew.
fn soak(arguments: &Arguments, tokio: bool) -> lpc::Result<bool> {
    let driver = if tokio { "tokio" } else { "blocking" };
    let time = Duration::try_from_secs_f64(arguments.minutes * 60.0).map_err(lpc::Error::other)?;
    let directory = tempfile::tempdir()?;
    let ports = ["steady", "mortal"].map(|name| directory.path().join(name));
    let mut random = Random(arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let steady = server::start(&ports[0], Setup::of(tokio), None)?;
    let mut mortal = server::start(&ports[1], Setup::of(tokio), None)?;
    let mut lasting = [client(&ports[0], random.next(), tokio)?, client(&ports[1], random.next(), tokio)?];
    let mut mortals =
        (0..MORTALS).map(|_| client(&ports[0], random.next(), tokio)).collect::<lpc::Result<Vec<_>>>()?;
    let (mut server, mut long_lived) = (Vec::new(), Vec::new());
    let (mut clients_killed, mut servers_killed) = (0, 0);
    let started = Instant::now();
    // A look at each quarter, at least.
    let period = PERIOD.min(time / 12);
    while started.elapsed() < time || server.len() < 8 {
        thread::sleep(period);
        for child in lasting.iter_mut().chain(&mut mortals) {
            if let Some(status) = child.ended()? {
                return Err(lpc::Error::other(format!("a client ended by itself: {status}")));
            }
        }
        server.push(Figures::of(steady.id())?);
        long_lived.push(Figures::of(lasting[0].id())?);
        let (now, its) = (server[server.len() - 1], long_lived[long_lived.len() - 1]);
        eprintln!("{driver} {:>5} s: server {now}; client {its}", started.elapsed().as_secs());
        let at = (random.next() % MORTALS) as usize;
        // Dropping kills.
        mortals[at] = client(&ports[0], random.next(), tokio)?;
        clients_killed += 1;
        if random.next().is_multiple_of(5) {
            drop(mortal);
            mortal = server::start(&ports[1], Setup::of(tokio), None)?;
            servers_killed += 1;
        }
    }
    if !arguments.json {
        println!(
            "\n{driver}: {clients_killed} clients and {servers_killed} servers killed, seed {}",
            arguments.seed
        );
    }
    let mut has_grown = false;
    for (process, figures) in [("server", &server), ("client", &long_lived)] {
        let table = Table::of(figures);
        has_grown |= table.has_grown();
        if arguments.json {
            println!("{}", table.json(driver, process));
        } else {
            println!("\n{process}\n{table}");
        }
    }
    Ok(has_grown)
}

fn client(port: &Path, seed: u64, tokio: bool) -> lpc::Result<Service> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("soak-client").arg("--port").arg(port).args(["--seed", &seed.to_string()]);
    if tokio {
        command.arg("--tokio");
    }
    Ok(Service::of(command.stdin(Stdio::null()).spawn()?))
}

/// Calls until it is killed. A wrong reply, or an error that no kill explains, ends it.
pub(crate) fn call(calling: &Calling) -> lpc::Result<()> {
    let mut random = Random(calling.seed | 1);
    let runtime = calling.tokio.then(service::runtime).transpose()?;
    loop {
        let ended = match &runtime {
            None => blocking::WorkClient::connect(&calling.port).and_then(|client| {
                loop {
                    round(&client, |len| client.client().loan::<u8>(len), &mut random)?;
                }
            }),
            Some(runtime) => runtime.block_on(rounds(&calling.port, &mut random)),
        };
        match ended {
            Ok(never) => match never {},
            // The server was killed, or is not there yet.
            Err(error)
                if error.is_disconnected() || error.is_not_found() || error.kind() == ErrorKind::Io =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// One call of each sort, of a size that is often near the default threshold and at times large.
fn round(
    client: &blocking::WorkClient,
    loan: impl Fn(usize) -> lpc::Result<lpc::SharedMut<[u8]>>,
    random: &mut Random,
) -> lpc::Result<()> {
    let (len, fill) = random.body();
    let bytes = vec![fill; len];
    assert_eq!(client.add(len as u64, 1)?, len as u64 + 1, "another sum");
    assert!(client.echo(&bytes)? == bytes, "other bytes came back");
    assert_eq!(client.upload(&bytes)?, sum(&bytes), "other bytes arrived");
    assert!(client.download(len as u64, fill)? == bytes, "other bytes came");
    let mut lent = loan(len)?;
    lent.fill(fill);
    assert_eq!(client.read(lent.freeze())?, sum(&bytes), "other bytes were lent");
    Ok(())
}

/// The same as tasks do it, for as long as the connection lasts.
async fn rounds(port: &Path, random: &mut Random) -> lpc::Result<std::convert::Infallible> {
    use asynchronous::Work;
    let client = asynchronous::WorkClient::connect(port).await?;
    loop {
        let (len, fill) = random.body();
        let bytes = vec![fill; len];
        assert_eq!(client.add(len as u64, 1).await?, len as u64 + 1, "another sum");
        assert!(client.echo(&bytes).await? == bytes, "other bytes came back");
        assert_eq!(client.upload(&bytes).await?, sum(&bytes), "other bytes arrived");
        assert!(client.download(len as u64, fill).await? == bytes, "other bytes came");
        let mut lent = client.client().loan::<u8>(len).await?;
        lent.fill(fill);
        assert_eq!(client.read(lent.freeze()).await?, sum(&bytes), "other bytes were lent");
    }
}

/// xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A length, and what to fill the bytes with.
    fn body(&mut self) -> (usize, u8) {
        let most = if self.next().is_multiple_of(16) { 4 << 20 } else { 16 << 10 };
        ((self.next() % most) as usize, self.next() as u8)
    }
}

/// What is counted, with what it may vary by besides a tenth.
const COUNTED: [(&str, u64); 5] = [
    ("descriptors", 6),
    ("mappings", 24),
    ("threads", 6),
    ("VmRSS, KiB", 16 << 10),
    ("RssAnon, KiB", 8 << 10),
];

/// What a process holds, in the order of [`COUNTED`].
#[derive(Clone, Copy)]
struct Figures([u64; COUNTED.len()]);

impl Figures {
    fn of(id: u32) -> lpc::Result<Self> {
        let process = PathBuf::from(format!("/proc/{id}"));
        let status = std::fs::read_to_string(process.join("status"))?;
        let line = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok());
            value.ok_or_else(|| lpc::Error::other(format!("process {id} has no {name}: it has gone")))
        };
        Ok(Self([
            std::fs::read_dir(process.join("fd"))?.count() as u64,
            std::fs::read_to_string(process.join("maps"))?.lines().count() as u64,
            line("Threads")?,
            line("VmRSS")?,
            line("RssAnon")?,
        ]))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [descriptors, mappings, threads, resident, anonymous] = self.0;
        write!(
            f,
            "{descriptors} fd, {mappings} maps, {threads} threads, {resident} KiB, {anonymous} KiB anon"
        )
    }
}

/// Of each figure the first, and the medians of the second, the third and the last quarter.
///
/// One has grown where its median of the last quarter is above that of the second, which is after the
/// warm-up, by more than a tenth and what it may vary by.
struct Table([[u64; 4]; COUNTED.len()]);

impl Table {
    fn of(looks: &[Figures]) -> Self {
        let quarter = looks.len() / 4;
        Self(std::array::from_fn(|row| {
            let median = |from: usize| {
                let mut values: Vec<_> = looks[from..from + quarter].iter().map(|look| look.0[row]).collect();
                values.sort_unstable();
                values[quarter / 2]
            };
            [looks[0].0[row], median(quarter), median(2 * quarter), median(looks.len() - quarter)]
        }))
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, [u64; 4], bool)> {
        COUNTED
            .iter()
            .zip(self.0)
            .map(|((name, slack), row)| (*name, row, row[3] > row[1] + row[1] / 10 + slack))
    }

    fn has_grown(&self) -> bool {
        self.rows().any(|(_, _, has_grown)| has_grown)
    }

    fn json(&self, driver: &str, process: &str) -> String {
        let rows: Vec<_> = self
            .rows()
            .map(|(name, row, has_grown)| {
                format!(r#"{{"name":"{name}","at":{row:?},"has_grown":{has_grown}}}"#)
            })
            .collect();
        format!(r#"{{"driver":"{driver}","process":"{process}","figures":[{}]}}"#, rows.join(","))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {:>12} | {:>8} | {:>8} | {:>8} | {:>8} | verdict |",
            "", "start", "warm", "middle", "end"
        )?;
        writeln!(f, "|-------------:|---------:|---------:|---------:|---------:|:--------|")?;
        for (name, [start, warm, middle, end], has_grown) in self.rows() {
            let verdict = if has_grown { "grew" } else { "steady" };
            writeln!(f, "| {name:>12} | {start:>8} | {warm:>8} | {middle:>8} | {end:>8} | {verdict:<7} |")?;
        }
        Ok(())
    }
}
