//! What a server tells the service manager (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Stdio;

use crate::process::{GUARD, PORT, Process, other, say, text, variable};
use crate::service::{AnyClient, DRIVERS, Driver, Implementation, RUNTIME, asynchronous, blocking};

/// Role: serves until it is told to stop; without a word to the service manager if the environment says so.
pub fn serve_until_told(driver: Driver) -> lpc::Result<()> {
    let port = variable(PORT);
    let notify = std::env::var_os("LPC_TEST_SILENT").is_none();
    fn when_told(shutdown: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_line(&mut String::new());
            shutdown();
        });
    }
    match driver {
        Driver::Blocking => {
            let server = lpc::blocking::Server::builder().systemd_notify(notify).bind(port)?;
            let handle = server.handle();
            when_told(move || handle.shutdown());
            say("bound");
            server.serve::<blocking::ProbeService, _>(Implementation)
        }
        Driver::Tokio => {
            let server = lpc::Server::builder().systemd_notify(notify).bind(port)?;
            let handle = server.handle();
            when_told(move || handle.shutdown());
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
        }
    }
}

fn said(manager: &UnixDatagram) -> String {
    let mut space = [0; 100];
    let len = manager.recv(&mut space).expect("the server says something in time");
    String::from_utf8(space[..len].to_vec()).unwrap()
}

fn start(driver: Driver, port: &str, address: &str) -> Process {
    let mut command = other("serve_until_told", driver);
    let server = Process::start(command.env(PORT, port).env("NOTIFY_SOCKET", address).stdin(Stdio::piped()));
    assert_eq!(server.line(), "bound");
    server
}

#[test]
fn the_service_manager_is_told_when_serving_begins_and_when_it_ends() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let path = directory.path().join("manager");
        let name = path.as_os_str().as_encoded_bytes();
        let in_files = (UnixDatagram::bind(&path).unwrap(), text(&path).to_owned());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let by_name = (UnixDatagram::bind_addr(&address).unwrap(), format!("@{}", text(&path)));
        for (manager, address) in [in_files, by_name] {
            manager.set_read_timeout(Some(GUARD)).unwrap();
            let mut server = start(driver, text(&port), &address);
            assert_eq!(said(&manager), "READY=1");
            assert_eq!(AnyClient::connect(driver, text(&port)).unwrap().length(b"ready").unwrap(), 5);
            server.tell("stop");
            assert_eq!(said(&manager), "STOPPING=1");
            assert_eq!(server.rest(), ["ended"]);
        }
    }
}

#[test]
fn a_server_that_shall_not_say_anything_does_not() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let (port, path) = (directory.path().join("port"), directory.path().join("manager"));
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut command = other("serve_until_told", driver);
        command.env(PORT, &port).env("NOTIFY_SOCKET", &path).env("LPC_TEST_SILENT", "1");
        let mut server = Process::start(command.stdin(Stdio::piped()));
        assert_eq!(server.line(), "bound");
        assert_eq!(AnyClient::connect(driver, text(&port)).unwrap().length(b"ready").unwrap(), 5);
        server.tell("stop");
        assert_eq!(server.rest(), ["ended"]);
        assert!(manager.recv(&mut [0]).is_err());
    }
}

#[test]
fn a_service_manager_that_cannot_be_told_is_no_reason_not_to_serve() {
    for driver in DRIVERS {
        for address in ["/no/such/socket", "relative", "@", "vsock:2:1"] {
            let directory = tempfile::tempdir().unwrap();
            let port = directory.path().join("port");
            let mut server = start(driver, text(&port), address);
            assert_eq!(AnyClient::connect(driver, text(&port)).unwrap().length(b"served").unwrap(), 6);
            server.tell("stop");
            assert_eq!(server.rest(), ["ended"]);
        }
    }
}
