//! What happens to a server's socket while it serves.

use std::fs;
use std::path::Path;

use lpc::ErrorKind;

use crate::eventually;
use crate::pairs::{self, AnyClient, Driver, RUNTIME, Running, Setup, Way};
use crate::probe::blocking::Probe;
use crate::probe::{Implementation, asynchronous, blocking};

fn at_ports() -> impl Iterator<Item = Setup> {
    pairs::all().into_iter().filter(|setup| setup.way == Way::Port && !setup.quick_lane)
}

fn connect(driver: Driver, port: &Path) -> lpc::Result<AnyClient> {
    match driver {
        Driver::Blocking => blocking::ProbeClient::connect(port).map(AnyClient::Blocking),
        Driver::Tokio => RUNTIME.block_on(asynchronous::ProbeClient::connect(port)).map(AnyClient::Tokio),
    }
}

fn is_served(driver: Driver, port: &Path) -> bool {
    connect(driver, port).is_ok_and(|client| client.echo(b"new").unwrap() == b"new")
}

fn lock_of(port: &Path) -> std::path::PathBuf {
    let mut name = port.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// What a client of this driver, and then a server, is told of a path.
fn refusals(driver: Driver, port: &Path) -> [lpc::Error; 2] {
    let bound = match driver {
        Driver::Blocking => lpc::blocking::Server::bind(port).map(drop),
        Driver::Tokio => lpc::Server::bind(port).map(drop),
    };
    [connect(driver, port).map(drop).unwrap_err(), bound.unwrap_err()]
}

#[test]
fn what_stands_in_the_way_of_a_port_is_told_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (file, link) = (at("file"), at("link"));
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let refused = [
        (directory.path().to_owned(), ErrorKind::InvalidInput, "is a directory: the path of a port is"),
        (file, ErrorKind::InvalidInput, "is a file, not a socket: choose another path"),
        (at("none/at/all"), ErrorKind::NotFound, "none\" does not exist"),
        (at("file/in/it"), ErrorKind::InvalidInput, "file\", which should be a directory, is a file"),
    ];
    for driver in [Driver::Blocking, Driver::Tokio] {
        for (path, kind, text) in &refused {
            for error in refusals(driver, path) {
                assert_eq!(error.kind(), *kind, "{error}");
                let message = error.to_string();
                assert!(message.contains(text) && message.contains(path.to_str().unwrap()), "{message}");
            }
            assert!(!lock_of(path).exists(), "nothing is left of a server that could not bind");
        }
        let missing = connect(driver, &at("missing")).map(drop).unwrap_err();
        assert!(
            missing.is_not_found() && missing.to_string().contains("there is no socket; start the server")
        );
        let stale = at("stale");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let error = connect(driver, &stale).map(drop).unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("a server that has ended"), "{error}");
        fs::remove_file(stale).unwrap();
        let datagrams = at("datagrams");
        let _bound = std::os::unix::net::UnixDatagram::bind(&datagrams).unwrap();
        let error = connect(driver, &datagrams).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("of another type"), "{error}");
        fs::remove_file(datagrams).unwrap();
    }
}

#[test]
fn a_server_whose_socket_is_removed_binds_it_again() {
    type Removal = (&'static str, fn(&Path));
    let removals: [Removal; 5] = [
        ("removed", |port| fs::remove_file(port).unwrap()),
        ("moved", |port| fs::rename(port, port.with_extension("moved")).unwrap()),
        ("removed with its lock", |port| {
            fs::remove_file(lock_of(port)).unwrap();
            fs::remove_file(port).unwrap();
        }),
        ("removed with its directory", |port| {
            // The server is quick to put something into it again.
            eventually("it is empty", || fs::remove_dir_all(port.parent().unwrap()).is_ok());
            fs::create_dir(port.parent().unwrap()).unwrap();
        }),
        ("moved with its directory", |port| {
            let directory = port.parent().unwrap();
            fs::rename(directory, directory.with_extension("moved")).unwrap();
            fs::create_dir(directory).unwrap();
        }),
    ];
    for setup in at_ports() {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("ports/probe");
        fs::create_dir(port.parent().unwrap()).unwrap();
        let mut server = Running::at(&setup, &Implementation::new(), &port);
        let old = connect(setup.client, &port).unwrap();
        for (what, remove) in removals {
            for _ in 0..2 {
                remove(&port);
                eventually(what, || is_served(setup.client, &port));
                assert_eq!(old.echo(b"old").unwrap(), b"old");
                let second = lpc::blocking::Server::bind(&port).map(drop).unwrap_err();
                assert_eq!(second.kind(), ErrorKind::AddrInUse, "{what}");
                let _ = fs::remove_dir_all(port.parent().unwrap().with_extension("moved"));
            }
        }
        server.shutdown();
        server.join().unwrap();
        assert!(!port.exists(), "its socket is removed");
        drop(lpc::blocking::Server::bind(&port).unwrap());
    }
}

#[test]
fn what_stands_in_the_place_of_a_removed_socket_is_left_alone_and_the_port_is_back_after_it() {
    for setup in at_ports() {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let mut server = Running::at(&setup, &Implementation::new(), &port);
        let old = connect(setup.client, &port).unwrap();

        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        fs::rename(&precious, &port).unwrap();
        assert_eq!(old.echo(b"old").unwrap(), b"old");
        assert_eq!(fs::read(&port).unwrap(), b"precious");
        fs::remove_file(&port).unwrap();
        eventually("the file is gone", || is_served(setup.client, &port));

        // Another server, which could take the port since the lock file was removed as well.
        fs::create_dir(directory.path().join("other")).unwrap();
        let elsewhere = directory.path().join("other/probe");
        let other = std::os::unix::net::UnixListener::bind(&elsewhere).unwrap();
        fs::rename(&elsewhere, &port).unwrap();
        assert_eq!(old.echo(b"old").unwrap(), b"old");
        drop(other);
        eventually("the other server is gone", || is_served(setup.client, &port));
        server.shutdown();
        server.join().unwrap();
    }
}

#[test]
fn a_server_whose_socket_is_removed_before_it_serves_binds_it_again() {
    for driver in [Driver::Blocking, Driver::Tokio] {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let probe = Implementation::new();
        let (stop, thread): (Box<dyn Fn()>, _) = match driver {
            Driver::Blocking => {
                let server = lpc::blocking::Server::bind(&port).unwrap();
                fs::remove_file(&port).unwrap();
                let second = lpc::blocking::Server::bind(&port).map(drop).unwrap_err();
                assert!(second.to_string().contains("its socket is gone"), "{second}");
                let handle = server.handle();
                let thread = std::thread::spawn(move || server.serve_arc::<blocking::ProbeService, _>(probe));
                (Box::new(move || handle.shutdown()), thread)
            }
            Driver::Tokio => {
                let server = lpc::Server::bind(&port).unwrap();
                fs::remove_file(&port).unwrap();
                let handle = server.handle();
                let thread = std::thread::spawn(move || {
                    RUNTIME.block_on(server.serve_arc::<asynchronous::ProbeService, _>(probe))
                });
                (Box::new(move || handle.shutdown()), thread)
            }
        };
        eventually("it serves", || is_served(driver, &port));
        stop();
        thread.join().unwrap().unwrap();
        assert!(!port.exists());
    }
}
