//! Ports by name, among processes.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Uid;

use crate::process::{PORT, Process, other, text, through_shell, until};
use crate::service::{AnyClient, DRIVERS, Driver};

const NAME: &str = "documents";

fn in_runtime_directory(role: &str, driver: Driver, directory: &Path) -> Command {
    let mut command = other(role, driver);
    command.env("XDG_RUNTIME_DIR", directory).env(PORT, NAME).stdin(Stdio::piped());
    command
}

fn server(driver: Driver, directory: &Path) -> Process {
    let mut server = Process::start(&mut in_runtime_directory("serve", driver, directory));
    assert_eq!(server.line(), "ready");
    server.tell("bind");
    server
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_name_is_a_socket_in_the_runtime_directory_that_only_this_user_can_enter() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let server = server(driver, directory.path());
        assert_eq!(server.line(), "bound");
        let socket = directory.path().join("lpc/documents.sock");
        assert_eq!(mode(socket.parent().unwrap()), 0o700);
        assert_eq!(mode(&socket), 0o600);
        for client in DRIVERS {
            let caller = Process::start(&mut in_runtime_directory("call", client, directory.path()));
            assert_eq!(caller.rest(), ["10", "100000", "ended"]);
            // By its path the port is the same.
            let client = AnyClient::connect(client, text(&socket)).unwrap();
            assert_eq!(client.length(b"by path").unwrap(), 7);
        }
    }
}

#[test]
fn a_name_that_nobody_serves_is_an_error_that_says_where_it_would_be() {
    let directory = tempfile::tempdir().unwrap();
    for driver in DRIVERS {
        let caller = Process::start(&mut in_runtime_directory("call", driver, directory.path()));
        let line = caller.line();
        let socket = directory.path().join("lpc/documents.sock");
        assert!(line.starts_with("error NotFound: ") && line.contains(text(&socket)), "{line}");
    }
}

/// Also of root, who may enter and write everywhere: it calls as another user.
#[test]
fn a_port_that_a_user_may_not_use_is_an_error_that_says_what_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let chmod = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    chmod(directory.path(), 0o755);
    let closed = directory.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let (inside, unwritable) = (closed.join("port"), directory.path().join("port"));
    let _listeners = [UnixListener::bind(&inside).unwrap(), UnixListener::bind(&unwritable).unwrap()];
    chmod(&closed, 0);
    chmod(&unwritable, 0);
    for driver in DRIVERS {
        for (port, text) in [(&inside, "may not enter"), (&unwritable, "may not write to its socket")] {
            let mut command = other("call", driver);
            command.env(PORT, port);
            if Uid::effective().is_root() {
                command.uid(65_534);
            }
            let line = Process::start(&mut command).line();
            assert!(line.starts_with("error PermissionDenied: ") && line.contains(text), "{line}");
            assert!(line.contains("mode 0"), "{line}");
        }
    }
    chmod(&closed, 0o700);
}

#[test]
fn a_name_that_a_server_holds_is_not_free_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let first = server(Driver::Blocking, directory.path());
    assert_eq!(first.line(), "bound");
    for driver in DRIVERS {
        let second = server(driver, directory.path());
        let line = second.line();
        assert!(line.starts_with("error AddrInUse: ") && line.contains("`documents`"), "{line}");
        drop(second);
        let caller = Process::start(&mut in_runtime_directory("call", driver, directory.path()));
        assert_eq!(caller.rest(), ["10", "100000", "ended"], "the first goes on");
    }
}

#[test]
fn a_name_is_free_again_as_soon_as_its_server_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lpc/documents.sock");
    for driver in [Driver::Blocking, Driver::Tokio, Driver::Blocking] {
        let mut server = server(driver, directory.path());
        assert_eq!(server.line(), "bound");
        let caller = Process::start(&mut in_runtime_directory("call", driver, directory.path()));
        assert_eq!(caller.rest(), ["10", "100000", "ended"]);
        server.kill();
        assert!(socket.exists(), "a killed server leaves its socket behind");
        let caller = Process::start(&mut in_runtime_directory("call", driver, directory.path()));
        let line = caller.line();
        assert!(line.starts_with("error NotFound: "), "{line}");
    }
}

#[test]
fn of_servers_that_race_for_a_name_one_wins() {
    for round in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        if round > 0 {
            // As a killed server leaves it: all of them would like to remove it.
            std::fs::create_dir(directory.path().join("lpc")).unwrap();
            std::fs::set_permissions(directory.path().join("lpc"), PermissionsExt::from_mode(0o700)).unwrap();
            let socket = directory.path().join("lpc/documents.sock");
            drop(UnixListener::bind(socket).unwrap());
        }
        let mut servers: Vec<Process> = (0..20)
            .map(|at| {
                let driver = DRIVERS[at % 2];
                Process::start(&mut in_runtime_directory("serve", driver, directory.path()))
            })
            .collect();
        for server in &servers {
            assert_eq!(server.line(), "ready");
        }
        for server in &mut servers {
            server.tell("bind");
        }
        let lines: Vec<String> = servers.iter().map(Process::line).collect();
        let won = lines.iter().filter(|line| *line == "bound").count();
        let lost = lines.iter().filter(|line| line.starts_with("error AddrInUse: ")).count();
        assert_eq!((won, lost), (1, 19), "{lines:?}");
        let caller = Process::start(&mut in_runtime_directory("call", Driver::Blocking, directory.path()));
        assert_eq!(caller.rest(), ["10", "100000", "ended"]);
    }
}

#[test]
fn without_a_runtime_directory_a_name_is_below_run_user_or_home() {
    let home = tempfile::tempdir().unwrap();
    for directory in [None, Some("relative/directory")] {
        let at_home = |role| {
            let mut command = in_runtime_directory(role, Driver::Blocking, home.path());
            command.env("HOME", home.path()).env_remove("XDG_RUNTIME_DIR");
            if let Some(directory) = directory {
                command.env("XDG_RUNTIME_DIR", directory);
            }
            command
        };
        let path = Process::start(&mut at_home("path")).line();
        let fallback = home.path().join(".local/state/lpc/documents.sock");
        if path != text(&fallback) {
            // It exists here, and comes before: nothing of the user's is touched.
            let run_user = path.strip_suffix("/lpc/documents.sock").unwrap();
            assert!(run_user.starts_with("/run/user/") && Path::new(run_user).is_dir(), "{path}");
            continue;
        }
        let mut server = Process::start(&mut at_home("serve"));
        assert_eq!(server.line(), "ready");
        server.tell("bind");
        assert_eq!(server.line(), "bound");
        assert_eq!(mode(fallback.parent().unwrap()), 0o700);
        assert_eq!(Process::start(&mut at_home("call")).rest(), ["10", "100000", "ended"]);
    }
}

/// A server to which a service manager hands its listening socket.
fn activated(role: &str, driver: Driver, listener: UnixListener) -> Process {
    let script = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@" 3<&0 </dev/null"#;
    let mut command = through_shell(script, &other(role, driver));
    Process::start(command.stdin(Stdio::from(OwnedFd::from(listener))))
}

#[test]
fn a_listening_socket_of_the_service_manager_is_served() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("activated");
        let listener = UnixListener::bind(&port).unwrap();
        let server = activated("serve_inherited", driver, listener);
        // Clients that come before the server is ready are served, too.
        for client in DRIVERS {
            let client = AnyClient::connect(client, text(&port)).unwrap();
            let bytes = vec![4; 1 << 20];
            assert!(client.echo(&bytes).unwrap() == bytes);
            assert_eq!(client.length(b"small").unwrap(), 5);
        }
        assert_eq!(server.line(), "bound");
        drop(server);
        assert!(port.exists(), "the socket is the service manager's");
    }
}

/// The service manager keeps it open, and starts a server again when the next client comes.
fn outlives_its_server(driver: Driver) {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("activated");
    let listener = UnixListener::bind(&port).unwrap();
    for _ in 0..3 {
        let mut server = activated("serve_one_call", driver, listener.try_clone().unwrap());
        let client = AnyClient::connect(Driver::Blocking, text(&port)).unwrap();
        assert_eq!(client.length(b"the one call").unwrap(), 12);
        assert_eq!(server.rest(), ["bound", "ended"]);
        assert!(server.wait().success());
    }
}

#[test]
fn a_listening_socket_of_the_service_manager_outlives_its_async_server() {
    outlives_its_server(Driver::Tokio);
}

#[test]
fn a_listening_socket_of_the_service_manager_outlives_its_blocking_server() {
    outlives_its_server(Driver::Blocking);
}

/// A server to which a service manager hands these sockets, in this order, with these names.
#[allow(unsafe_code, reason = "a descriptor gets its number between fork and exec")]
fn activated_with(role: &str, driver: Driver, sockets: &[(&str, OwnedFd)]) -> Process {
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    let (count, names) = (sockets.len(), names.join(":"));
    let script =
        format!(r#"export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}; exec "$0" "$@" "#);
    let mut command = through_shell(&script, &other(role, driver));
    // Beyond the numbers that they get.
    let high = |(_, fd): &(&str, OwnedFd)| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
    let high: Vec<_> = sockets.iter().map(high).collect();
    let given = high.clone();
    let give = move || {
        for (from, to) in given.iter().zip(3..) {
            // SAFETY: nobody but the shell that is about to start owns a descriptor of this number here.
            Errno::result(unsafe { nix::libc::dup2(*from, to) })?;
        }
        Ok(())
    };
    // SAFETY: it makes nothing but system calls.
    unsafe { command.pre_exec(give) };
    let process = Process::start(&mut command);
    high.into_iter().for_each(|high| nix::unistd::close(high).unwrap());
    process
}

fn listeners(directory: &Path, names: &[&'static str]) -> Vec<(&'static str, OwnedFd)> {
    let listen = |(at, name): (usize, &&'static str)| {
        (*name, UnixListener::bind(directory.join(format!("{at}"))).unwrap().into())
    };
    names.iter().enumerate().map(listen).collect()
}

#[test]
fn all_listening_sockets_of_the_service_manager_are_served() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let sockets = listeners(directory.path(), &["documents", "index", "documents", ""]);
        let server = activated_with("serve_inherited", driver, &sockets);
        assert_eq!(server.line(), "bound");
        for at in 0..sockets.len() {
            let client = AnyClient::connect(driver, text(&directory.path().join(at.to_string()))).unwrap();
            assert_eq!(client.length(b"served").unwrap(), 6);
        }
    }
}

#[test]
fn listening_sockets_of_the_service_manager_are_found_by_name_and_the_others_closed() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let at = |at: usize| directory.path().join(at.to_string());
        let sockets = listeners(directory.path(), &["documents", "other", "documents", "spare"]);
        let server = activated_with("serve_by_name", driver, &sockets);
        assert_eq!(server.line(), "documents other spare");
        let error = server.line();
        assert!(error.starts_with("NotFound: ") && error.contains("`none`"), "{error}");
        assert!(error.contains("`documents`, `other`, `spare`"), "{error}");
        assert_eq!(server.line(), "bound");
        // The manager has its own; what the server does not serve it does not keep.
        drop(sockets);
        for served in [0, 2] {
            let client = AnyClient::connect(driver, text(&at(served))).unwrap();
            assert_eq!(client.length(b"served").unwrap(), 6);
        }
        for closed in [1, 3] {
            // A process that another test is starting may have it, too, until it runs its program.
            until("it is closed", || {
                let error = AnyClient::connect(driver, text(&at(closed))).map(drop).unwrap_err();
                error.is_not_found().then_some(())
            });
        }
    }
}

#[test]
fn a_connection_of_the_service_manager_is_refused_with_the_setting_to_change() {
    for driver in DRIVERS {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let server = activated_with("serve_inherited", driver, &[("connection", theirs.into())]);
        let line = server.line();
        assert!(line.starts_with("error InvalidInput: ") && line.contains("Accept=no"), "{line}");
    }
}

#[test]
fn without_a_listening_socket_of_the_service_manager_there_is_none_to_serve() {
    let scripts = [
        r#"exec "$0" "$@""#,
        r#"export LISTEN_FDS=1; exec "$0" "$@""#,
        r#"export LISTEN_PID=1 LISTEN_FDS=1; exec "$0" "$@""#, // meant for another process
        r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@" 3</dev/null"#, // no socket
        r#"export LISTEN_PID=$$ LISTEN_FDS=0; exec "$0" "$@""#,
    ];
    for driver in DRIVERS {
        for script in scripts {
            let server = Process::start(&mut through_shell(script, &other("serve_inherited", driver)));
            let line = server.line();
            assert!(
                line.starts_with("error InvalidInput: ") && line.contains("LISTEN_FDS"),
                "{script}: {line}"
            );
        }
    }
}
