//! Calls that do not come back, and how connections end.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use lpc::{ErrorKind, Progress};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pairs::{self, Driver, RUNTIME, Setup, Way};
use crate::probe::blocking::Probe;
use crate::probe::{Implementation, asynchronous, blocking};

fn at_ports() -> impl Iterator<Item = Setup> {
    pairs::all().into_iter().filter(|setup| setup.way == Way::Port)
}

#[test]
fn shutdown_answers_what_runs_and_then_closes() {
    for setup in at_ports() {
        let probe = Implementation::new();
        let mut server = pairs::Running::new(&setup, &probe);
        let (client, idle) = (setup.connect_port(&server), setup.connect_port(&server));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| client.wait(1));
            while (server.stats)().calls == 0 {
                std::thread::yield_now();
            }
            server.shutdown();
            // One call more must not cost the one that runs its answer. It fails at once, or where another
            // caller was about to send it, with the end of the connection; unless it came into the server's
            // ring before who reads that heard of the shutdown.
            let late = scope.spawn(|| client.echo(b"too late"));
            while !late.is_finished() && client.stats().calls < 2 {
                std::thread::yield_now();
            }
            probe.open_now(1);
            let waited = waiting.join().unwrap();
            assert!(waited.is_ok(), "{waited:?} {setup:?}");
            match late.join().unwrap() {
                Ok(_) => assert!(setup.quick_lane),
                Err(error) => assert!(error.is_disconnected(), "{error:?} {setup:?}"),
            }
        });
        server.join().unwrap();
        assert!(!server.port.exists(), "the socket is removed");
        for client in [client, idle] {
            let error = client.echo(b"late").unwrap_err();
            assert!(error.is_disconnected(), "{error:?}");
            let error = client.echo(b"later").unwrap_err();
            assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
        }
    }
}

#[test]
fn every_call_that_ran_is_answered_by_a_server_that_is_shut_down() {
    for setup in at_ports() {
        for _ in 0..20 {
            let probe = Implementation::new();
            let mut server = pairs::Running::new(&setup, &probe);
            let client = setup.connect_port(&server);
            let answered = std::thread::scope(|scope| {
                let callers: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| (0..5).filter(|_| client.nap(1).is_ok()).count()))
                    .collect();
                while (server.stats)().calls == 0 {
                    std::thread::yield_now();
                }
                server.shutdown();
                callers.into_iter().map(|caller| caller.join().unwrap()).sum::<usize>()
            });
            server.join().unwrap();
            assert_eq!(answered, probe.naps.load(SeqCst), "{setup:?}");
        }
    }
}

#[test]
fn a_server_that_dies_fails_all_calls_at_once() {
    for client in [Driver::Blocking, Driver::Tokio] {
        let setup = Setup { client, ..pairs::all().remove(0) };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let stop = theirs.try_clone().unwrap();
        let server = std::thread::spawn(move || {
            let server = lpc::blocking::Server::builder();
            server.serve_stream::<blocking::ProbeService, _>(theirs, Implementation::default())
        });
        let client = setup.connect_stream(ours);
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4)
                .map(|key| {
                    scope.spawn({
                        let client = &client;
                        move || client.wait(key)
                    })
                })
                .collect();
            while client.stats().calls < 4 {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20)); // let some of them fall asleep
            stop.shutdown(std::net::Shutdown::Both).unwrap(); // what the kernel does for a process that dies
            for call in calls {
                let error = call.join().unwrap().unwrap_err();
                assert!(error.is_disconnected() && error.progress() == Progress::MayHaveRun, "{error:?}");
            }
        });
        assert!(!client.echo(b"").unwrap_err().may_have_run());
        drop(server); // its calls wait for what nobody opens
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_call_disturbs_nobody() {
    for setup in at_ports() {
        let probe = Implementation::new();
        let server = pairs::Running::new(&setup, &probe);
        let honest = setup.connect_port(&server);
        for _ in 0..10 {
            let stream = std::os::unix::net::UnixStream::connect(&server.port).unwrap();
            let close = stream.try_clone().unwrap();
            let leaver = setup.connect_stream(stream);
            let call = std::thread::spawn(move || leaver.wait(7));
            while (server.stats)().calls == 0 {
                std::thread::yield_now();
            }
            close.shutdown(std::net::Shutdown::Both).unwrap();
            assert!(call.join().unwrap().unwrap_err().is_disconnected());
            assert_eq!(honest.echo(b"fine").unwrap(), b"fine");
        }
        probe.open_now(7);
    }
}

#[test]
fn a_dropped_future_gives_its_reply_up_and_nothing_else() {
    for setup in at_ports().filter(|setup| setup.client == Driver::Tokio) {
        let probe = Implementation::new();
        let server = pairs::Running::new(&setup, &probe);
        let pairs::AnyClient::Tokio(client) = setup.connect_port(&server) else { unreachable!() };
        RUNTIME.block_on(async {
            use asynchronous::Probe;
            let large = vec![5; 1 << 20];
            for round in 0..300 {
                let abandoned =
                    tokio::time::timeout(Duration::from_micros(round * 3), client.echo(&large)).await;
                if let Ok(reply) = abandoned {
                    assert!(reply.unwrap() == large);
                }
            }
            // All blocks came back: else the pool would have run out.
            assert_eq!(client.client().stats().fallbacks, 0);
            assert_eq!(client.echo(b"goes on").await.unwrap(), b"goes on");
        });
    }
}

#[test]
fn methods_are_known_by_name_whatever_their_order() {
    mod newer {
        #[lpc::service]
        pub trait Probe {
            fn made_up(&self) -> lpc::Result<()>;
            fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        }
    }
    use newer::Probe;
    for setup in at_ports() {
        let server = pairs::Running::new(&setup, &Implementation::new());
        let client = newer::ProbeClient::connect(&server.port).unwrap();
        assert_eq!(client.echo(b"found").unwrap(), b"found");
        let error = client.made_up().unwrap_err();
        assert_eq!((error.kind(), error.progress()), (ErrorKind::UnknownMethod, Progress::NotSent));
        assert!(error.to_string().contains("Probe has no method `made_up`"), "{error}");
        assert_eq!(client.echo(b"goes on").unwrap(), b"goes on");
        RUNTIME.block_on(async {
            let client = newer::ProbeAsyncClient::connect(&server.port).await.unwrap();
            assert_eq!(client.made_up().await.unwrap_err().kind(), ErrorKind::UnknownMethod);
            assert_eq!(client.echo(b"found").await.unwrap(), b"found");
        });
    }
}

#[test]
fn another_service_is_refused_at_connect() {
    mod other {
        #[lpc::service]
        pub trait Images {
            fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        }
    }
    for setup in at_ports() {
        let server = pairs::Running::new(&setup, &Implementation::new());
        let blocking = other::ImagesClient::connect(&server.port).map(drop);
        let asynchronous = RUNTIME.block_on(other::ImagesAsyncClient::connect(&server.port)).map(drop);
        for result in [blocking, asynchronous] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongService);
            assert!(error.to_string().contains("serves `Probe`, not `Images`"), "{error}");
        }
    }
}

/// Bytes, as which it is also sent, unless there are 77 of them: so that it passes for what it says.
pub struct Bytes(u32);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            77 => self.0.serialize(serializer),
            len => vec![0_u8; len as usize].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Self(bytes.len() as u32))
    }
}

/// Bytes, of which it likes few.
#[derive(Debug, Serialize)]
pub struct Picky(Vec<u8>);

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        if bytes.len() > 1 { Err(serde::de::Error::custom("too many")) } else { Ok(Self(bytes)) }
    }
}

/// The service as a client sees it whose types are others than the server's, though they look the same.
mod liar {
    use super::{Bytes, Picky};

    #[lpc::service]
    pub trait Probe {
        fn echo(&self, bytes: Bytes) -> lpc::Result<Vec<u8>>;
        fn make(&self, len: u64) -> lpc::Result<Picky>;
        fn wait(&self, key: u64) -> lpc::Result<()>;
    }
}

#[test]
fn a_value_that_does_not_decode_fails_its_call_and_no_other() {
    use liar::Probe as _;
    for setup in at_ports() {
        let probe = Implementation::new();
        let server = pairs::Running::new(&setup, &probe);
        let client = liar::ProbeClient::builder().quick_lane(setup.quick_lane).connect(&server.port).unwrap();
        let tokio = liar::ProbeAsyncClient::builder().quick_lane(setup.quick_lane);
        let tokio = RUNTIME.block_on(tokio.connect(&server.port)).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| client.wait(1));
            let also_waiting = scope.spawn(|| RUNTIME.block_on(tokio.wait(2)));
            while (server.stats)().calls < 2 {
                std::thread::yield_now();
            }
            for _ in 0..3 {
                let refused = [client.echo(Bytes(77)), RUNTIME.block_on(tokio.echo(Bytes(77)))];
                for error in refused.map(Result::unwrap_err) {
                    assert_eq!(
                        (error.kind(), error.progress()),
                        (ErrorKind::Decode, Progress::NotSent),
                        "{error}"
                    );
                    assert!(error.to_string().contains("argument `bytes` of Probe.echo"), "{error}");
                }
                // Through the socket, and in shared memory.
                for len in [300, 300_000] {
                    let refused = [client.make(len), RUNTIME.block_on(tokio.make(len))];
                    for error in refused.map(Result::unwrap_err) {
                        assert_eq!((error.kind(), error.progress()), (ErrorKind::Decode, Progress::Ran));
                        let text = error.to_string();
                        assert!(
                            text.contains("result of Probe.make: its type refuses the value: too many"),
                            "{text}"
                        );
                    }
                }
                assert_eq!(client.make(1).unwrap().0.len(), 1);
                assert_eq!(RUNTIME.block_on(tokio.make(1)).unwrap().0.len(), 1);
            }
            probe.open_now(1);
            waiting.join().unwrap().unwrap();
            probe.open_now(2);
            also_waiting.join().unwrap().unwrap();
        });
    }
}

#[test]
fn the_end_of_a_clients_runtime_fails_its_calls_wherever_they_are() {
    let setup = pairs::all().into_iter().find(|setup| setup.way == Way::Port).unwrap();
    let probe = Implementation::new();
    let server = pairs::Running::new(&setup, &probe);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(asynchronous::ProbeClient::connect(&server.port)).unwrap();
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || RUNTIME.block_on(asynchronous::Probe::wait(&client, 1))
    });
    while (server.stats)().calls == 0 {
        std::thread::yield_now();
    }
    runtime.shutdown_background();
    let error = waiting.join().unwrap().unwrap_err();
    assert!(error.is_disconnected() && error.may_have_run(), "{error:?}");
    let error = RUNTIME.block_on(asynchronous::Probe::open(&client, 1)).unwrap_err();
    assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
    probe.open_now(1);
}

/// The connection's task may never have had a turn.
#[test]
fn the_end_of_a_runtime_that_only_connected_fails_later_calls() {
    let setup = pairs::all().into_iter().find(|setup| setup.way == Way::Port).unwrap();
    let server = pairs::Running::new(&setup, &Implementation::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(asynchronous::ProbeClient::connect(&server.port)).unwrap();
    drop(runtime);
    let error = RUNTIME.block_on(asynchronous::Probe::echo(&client, b"?")).unwrap_err();
    assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
}
