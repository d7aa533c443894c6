//! What this program does as the other process.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lpc::Threshold;

use crate::process::{DRIVER, PORT, end_with_parent, holdings, other, say, settled, until, variable};
use crate::service::{AnyClient, Driver, Implementation, RUNTIME, asynchronous, blocking};
use crate::{
    children, environment, failing, files, forks, frozen, killed, manager, passing, rings, scarce, steady,
    threads, users, vault,
};

/// Plays a role to its end, which is the process's.
pub fn play(role: &str) -> ! {
    let driver = match variable(DRIVER).as_str() {
        "Blocking" => Driver::Blocking,
        "Tokio" => Driver::Tokio,
        other => panic!("no driver is called {other}"),
    };
    if !role.starts_with("serve_parent") {
        end_with_parent();
    }
    let result = match role {
        "serve_parent" => serve_parent(driver),
        "serve_parent_without_files" => children::serve_without_files(driver),
        "spawn" => spawn(driver),
        "spawn_until_death" => children::spawn_until_death(driver),
        "serve" => serve(driver),
        "serve_inherited" => serve_inherited(driver, false),
        "serve_by_name" => serve_by_name(driver),
        "serve_one_call" => serve_inherited(driver, true),
        "call" => call(driver),
        "path" => path(),
        "lanes" => lanes(driver),
        "nonsense" => nonsense(driver),
        "rounds" => rounds(driver),
        "full" => full(driver),
        "vault" => vault::serve(driver),
        "failing_server" => failing::serve(driver),
        "failing_client" => failing::call(driver),
        "seal" => failing::seal(driver),
        "failing_quick_client" => rings::call(driver),
        "unpassed_client" => passing::call(driver),
        "client_without_threads" => threads::call(driver),
        "client_in_time" => passing::call_in_time(driver),
        "quick_client_without_descriptors" => rings::call_without_descriptors(driver),
        "client_without_descriptors" => scarce::client_without_descriptors(driver),
        "client_of_small_files" => scarce::client_of_small_files(driver),
        "client_without_memory" => scarce::client_without_memory(driver),
        "hungry_client" => scarce::hungry_client(driver),
        "traffic" => killed::traffic(driver),
        "pass_file" => files::pass_file(driver),
        "steady" => steady::steady(driver),
        "forked" => forks::forked(driver),
        "serve_impatiently" => frozen::serve_impatiently(driver),
        "call_impatiently" => frozen::call_impatiently(driver),
        "daemon" => forks::daemon(driver),
        "forked_busily" => forks::forked_busily(driver),
        "serve_until_told" => manager::serve_until_told(driver),
        "serve_a_stranger" => users::serve_a_stranger(driver),
        "call_as_a_stranger" => users::call_as_a_stranger(driver),
        "believe" => environment::believe(driver),
        "serve_as_nobody" => users::serve_as_nobody(driver),
        "call_as_somebody" => users::call_as_somebody(driver),
        "serve_everybody" => users::serve_everybody(driver),
        "besiege" => users::besiege(driver),
        other => panic!("no role is called {other}"),
    };
    match result {
        Ok(()) => say("ended"),
        Err(error) => say(format_args!("error {:?}: {error}", error.kind())),
    }
    std::process::exit(0);
}

pub fn serve_parent(driver: Driver) -> lpc::Result<()> {
    match driver {
        Driver::Blocking => lpc::blocking::serve_parent::<blocking::ProbeService, _>(Implementation),
        Driver::Tokio => RUNTIME.block_on(lpc::serve_parent::<asynchronous::ProbeService, _>(Implementation)),
    }
}

/// A parent with a child of its own, to which this process's standard output is passed on.
fn spawn(driver: Driver) -> lpc::Result<()> {
    let mut command = other("serve_parent", driver);
    command.stdout(std::process::Stdio::inherit());
    let (client, _child) = blocking::ProbeClient::builder().spawn(&mut command)?;
    blocking::Probe::echo(&client, &vec![1; 100_000])?;
    say("spawned");
    loop {
        std::thread::park();
    }
}

/// Binds when it is told to, says so, and serves.
fn serve(driver: Driver) -> lpc::Result<()> {
    say("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let port = variable(PORT);
    match driver {
        Driver::Blocking => {
            let server = lpc::blocking::Server::bind(port)?;
            say("bound");
            server.serve::<blocking::ProbeService, _>(Implementation)
        }
        Driver::Tokio => {
            let server = lpc::Server::bind(port)?;
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
        }
    }
}

/// Serves the listening socket that the environment names; for good, or until one call was answered.
fn serve_inherited(driver: Driver, is_for_one_call: bool) -> lpc::Result<()> {
    fn after_one_call(calls: impl Fn() -> u64 + Send + 'static, shutdown: impl Fn() + Send + 'static) {
        std::thread::spawn(move || {
            while calls() == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            shutdown();
        });
    }
    match driver {
        Driver::Blocking => {
            let server = lpc::blocking::Server::from_env()?;
            if is_for_one_call {
                let (stats, stop) = (server.handle(), server.handle());
                after_one_call(move || stats.stats().calls, move || stop.shutdown());
            }
            say("bound");
            server.serve::<blocking::ProbeService, _>(Implementation)
        }
        Driver::Tokio => {
            let server = lpc::Server::from_env()?;
            if is_for_one_call {
                let (stats, stop) = (server.handle(), server.handle());
                after_one_call(move || stats.stats().calls, move || stop.shutdown());
            }
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
        }
    }
}

/// Serves the sockets that the service manager calls `documents`.
fn serve_by_name(driver: Driver) -> lpc::Result<()> {
    let mut sockets = lpc::ActivatedSockets::from_env()?;
    say(sockets.names().collect::<Vec<_>>().join(" "));
    let error = sockets.take("none").expect_err("there is none");
    say(format_args!("{:?}: {error}", error.kind()));
    let documents = sockets.take("documents")?;
    drop(sockets);
    match driver {
        Driver::Blocking => {
            let server = lpc::blocking::Server::builder().from_listeners(documents)?;
            say("bound");
            server.serve::<blocking::ProbeService, _>(Implementation)
        }
        Driver::Tokio => {
            let server = lpc::Server::builder().from_listeners(documents)?;
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
        }
    }
}

fn call(driver: Driver) -> lpc::Result<()> {
    let client = AnyClient::connect(driver, &variable(PORT))?;
    for len in [10, 100_000] {
        say(client.length(&vec![3; len])?);
    }
    Ok(())
}

fn path() -> lpc::Result<()> {
    say(lpc::Port::new(variable(PORT))?.path().display());
    Ok(())
}

/// A client of a server in this process.
fn in_process(driver: Driver, threshold: Option<Threshold>) -> lpc::Result<AnyClient> {
    match driver {
        Driver::Blocking => {
            let builder = blocking::ProbeClient::builder();
            let builder = match threshold {
                Some(threshold) => builder.threshold(threshold),
                None => builder,
            };
            builder.in_process(Implementation).map(AnyClient::Blocking)
        }
        Driver::Tokio => {
            let builder = blocking::ProbeAsyncClient::builder();
            let builder = match threshold {
                Some(threshold) => builder.threshold(threshold),
                None => builder,
            };
            let (ours, theirs) = UnixStream::pair()?;
            let server = lpc::Server::builder();
            let server = match threshold {
                Some(threshold) => server.threshold(threshold),
                None => server,
            };
            RUNTIME.spawn(async move {
                server.serve_stream::<asynchronous::ProbeService, _>(theirs, Implementation).await
            });
            RUNTIME.block_on(builder.connect_stream(ours)).map(AnyClient::Tokio)
        }
    }
}

/// Which lane bodies of 1, 99, 100 and 20,000 bytes take.
fn lanes(driver: Driver) -> lpc::Result<()> {
    const LENGTHS: [usize; 4] = [1, 99, 100, 20_000];
    let lane = |before: u64, after: u64| if after > before { 'm' } else { 's' };
    let settings =
        [("environment", None), ("off", Some(Threshold::OFF)), ("always", Some(Threshold::ALWAYS))];
    for (name, threshold) in settings {
        let client = in_process(driver, threshold)?;
        let sent = |call: &dyn Fn() -> lpc::Result<u64>| -> lpc::Result<char> {
            let before = client.stats().sent.mapping.messages;
            call()?;
            Ok(lane(before, client.stats().sent.mapping.messages))
        };
        let mut lanes = String::new();
        for len in LENGTHS {
            lanes.push(sent(&|| client.length(&vec![1; len]))?);
        }
        lanes.push(' ');
        for len in LENGTHS {
            let before = client.stats().received.mapping.messages;
            client.make(len as u64)?;
            lanes.push(lane(before, client.stats().received.mapping.messages));
        }
        lanes.push(' ');
        lanes.push(sent(&|| client.length_by_socket(&[1; 20_000]))?);
        lanes.push(sent(&|| client.length_by_mapping(&[1]))?);
        say(format_args!("{name} {lanes}"));
    }
    Ok(())
}

/// What each side says of a threshold in the environment that is none.
fn nonsense(driver: Driver) -> lpc::Result<()> {
    let report = |error: lpc::Error| say(format_args!("{:?}: {error}", error.kind()));
    report(in_process(driver, None).expect_err("no threshold"));
    let (_ours, theirs) = UnixStream::pair()?;
    let port = variable(PORT);
    match driver {
        Driver::Blocking => {
            let server = lpc::blocking::Server::builder();
            let served = server.serve_stream::<blocking::ProbeService, _>(theirs, Implementation);
            report(served.expect_err("no threshold"));
            report(lpc::blocking::Server::bind(port).map(drop).expect_err("no threshold"));
        }
        Driver::Tokio => RUNTIME.block_on(async {
            let server = lpc::Server::builder();
            let served = server.serve_stream::<asynchronous::ProbeService, _>(theirs, Implementation).await;
            report(served.expect_err("no threshold"));
            report(lpc::Server::bind(port).map(drop).expect_err("no threshold"));
            Ok::<(), lpc::Error>(())
        })?,
    }
    // Where code sets one, nobody reads the environment's.
    say(in_process(driver, Some(Threshold::OFF))?.length(b"fine")?);
    Ok(())
}

/// Connects, calls and disconnects 200 times, and says what this process held after the first time and the
/// last.
fn rounds(driver: Driver) -> lpc::Result<()> {
    let port = variable(PORT);
    let round = || -> lpc::Result<()> {
        let client = AnyClient::connect(driver, &port)?;
        let bytes = vec![9; 100_000];
        assert!(client.echo(&bytes)? == bytes);
        let stats = client.stats();
        assert_eq!((stats.sent.mapping.messages, stats.received.mapping.messages), (1, 1));
        Ok(())
    };
    let id = std::process::id();
    round()?;
    let first = settled(id);
    say("first");
    std::io::stdin().read_line(&mut String::new())?;
    for _ in 1..200 {
        round()?;
    }
    until("the client holds no more than after its first round", || {
        let (descriptors, mappings) = holdings(id);
        (descriptors <= first && mappings == 0).then_some(())
    });
    Ok(())
}

/// Calls while this process has no descriptor left.
fn full(driver: Driver) -> lpc::Result<()> {
    let client = AnyClient::connect(driver, &variable(PORT))?;
    let other_client = AnyClient::connect(driver, &variable(PORT))?;
    client.length(b"a call before")?;
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    let large = vec![5; 1 << 20];
    let len = client.length(&large)?;
    let stats = client.stats();
    say(format_args!("{len} by {} fallbacks, {} mapped", stats.fallbacks, stats.sent.mapping.messages));
    // A large result comes with a descriptor that finds no place here, and then again without.
    let made = other_client.make(1 << 20)?;
    let stats = other_client.stats();
    say(format_args!("{} made, {} mapped", made.len(), stats.received.mapping.messages));
    drop(held);
    let len = client.length(&large)?;
    let stats = client.stats();
    say(format_args!("{len} by {} fallbacks, {} mapped", stats.fallbacks, stats.sent.mapping.messages));
    Ok(())
}
