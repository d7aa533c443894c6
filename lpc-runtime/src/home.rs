//! [`Home`]: the runtime of this process in which the server of a connection is polled.
//!
//! Where that runtime has one thread, a blocking call on it would wait for what this very thread was to do:
//! it fails at once instead. Nothing is said of other runtimes, nor of threads that have merely entered that
//! one (`Handle::enter`, `spawn_blocking`), from which a call is answered.

#[cfg(feature = "tokio")]
pub(crate) use known::{Home, Noted};

#[cfg(not(feature = "tokio"))]
pub(crate) use unknown::Home;

#[cfg(not(feature = "tokio"))]
mod unknown {
    use std::os::fd::AsFd;

    use lpc_core::Result;

    use crate::port::Port;

    /// There are no runtimes.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Home;

    impl Home {
        pub(crate) const NOWHERE: Self = Self;

        pub(crate) fn of(_port: &Port, _stream: impl AsFd) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "as with runtimes")]
        pub(crate) fn check(self) -> Result<()> {
            Ok(())
        }
    }
}

#[cfg(feature = "tokio")]
mod known {
    use std::collections::BTreeMap;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::task::{Context, Wake, Waker};

    use lpc_core::{Error, ErrorKind, Result};
    use tokio::runtime::{Handle, Id, RuntimeFlavor};
    use tokio::task::yield_now;

    use crate::credentials::Credentials;
    use crate::port::Port;
    use crate::sys::fork::PerProcess;

    /// The runtimes of one thread in which this process serves ports.
    static HOMES: PerProcess<Mutex<BTreeMap<PathBuf, Id>>> = PerProcess::new(Mutex::default);

    fn homes() -> MutexGuard<'static, BTreeMap<PathBuf, Id>> {
        HOMES.get().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a server is polled, if that is known, and a runtime of one thread in this process.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Home(Option<Id>);

    impl Home {
        pub(crate) const NOWHERE: Self = Self(None);

        /// That of the server to which this stream leads.
        pub(crate) fn of(port: &Port, stream: impl AsFd) -> Self {
            let known = homes().get(port.path()).copied();
            // Another process may have taken the port from a server that still runs here.
            let is_here = || {
                Credentials::of_peer(stream)
                    .is_ok_and(|peer| u32::try_from(peer.pid()).is_ok_and(|pid| pid == std::process::id()))
            };
            Self(known.filter(|_| is_here()))
        }

        /// Makes sure that this thread does not drive it.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::InvalidInput`].
        #[inline]
        pub(crate) fn check(self) -> Result<()> {
            match self.0 {
                Some(home) if is_driven_here(home) => {
                    Err(Error::new(ErrorKind::InvalidInput, WAITS_FOR_ITSELF))
                }
                _ => Ok(()),
            }
        }
    }

    const WAITS_FOR_ITSELF: &str = "a blocking call on the only thread of the tokio runtime in which its server runs \
                                    would wait for itself: use the async client, or tokio::task::spawn_blocking";

    /// As long as it lives, the server of a port is polled in a runtime of one thread.
    #[derive(Debug)]
    pub(crate) struct Noted {
        path: PathBuf,
        home: Id,
    }

    impl Noted {
        /// A server of this port is polled here.
        pub(crate) fn here(path: &Path) -> Option<Self> {
            let home = Handle::try_current().ok().filter(is_of_one_thread)?.id();
            homes().insert(path.to_owned(), home);
            Some(Self { path: path.to_owned(), home })
        }
    }

    impl Drop for Noted {
        fn drop(&mut self) {
            let mut homes = homes();
            if homes.get(&self.path) == Some(&self.home) {
                homes.remove(&self.path);
            }
        }
    }

    fn is_of_one_thread(handle: &Handle) -> bool {
        handle.runtime_flavor() == RuntimeFlavor::CurrentThread
    }

    /// Whether this thread drives that runtime now, and not merely has entered it.
    fn is_driven_here(home: Id) -> bool {
        Handle::try_current().is_ok_and(|handle| is_of_one_thread(&handle) && handle.id() == home)
            && is_driving()
    }

    /// Whether this thread drives a runtime: that keeps the waker of a task that yields until the others had
    /// their turn, where otherwise it is woken at once.
    fn is_driving() -> bool {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, SeqCst);
            }
        }
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let is_ready = pin!(yield_now()).poll(&mut Context::from_waker(&waker)).is_ready();
        !is_ready && !woken.0.load(SeqCst)
    }

    #[cfg(test)]
    mod tests {
        use tokio::runtime::Builder;

        use super::*;

        #[test]
        fn a_thread_that_drives_a_runtime_is_told_from_one_that_has_entered_it() {
            let runtime = Builder::new_current_thread().build().unwrap();
            let other = Builder::new_current_thread().build().unwrap();
            let home = runtime.handle().id();
            assert!(!is_driven_here(home));
            {
                let _entered = runtime.enter();
                assert!(!is_driven_here(home));
            }
            assert!(runtime.block_on(async { is_driven_here(home) }));
            assert!(
                runtime.block_on(async { tokio::spawn(async move { is_driven_here(home) }).await.unwrap() })
            );
            let local = tokio::task::LocalSet::new();
            assert!(runtime.block_on(local.run_until(async { is_driven_here(home) })));
            let aside = async { tokio::task::spawn_blocking(move || is_driven_here(home)).await.unwrap() };
            assert!(!runtime.block_on(aside));
            assert!(!other.block_on(async { is_driven_here(home) }));
            assert!(!other.block_on(async {
                let _entered = runtime.enter();
                is_driven_here(other.handle().id())
            }));
        }
    }
}
