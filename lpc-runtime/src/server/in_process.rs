//! The service of a client in its own process, on the driver that the implementation asks for, which need not
//! be the client's.

use std::os::unix::net::UnixStream;
use std::thread;

use lpc_core::{Result, Service};

#[cfg(feature = "tokio")]
use crate::asynchronous::Tokio;
use crate::blocking::Blocking;
use crate::config::{Config, ServerBuilder};
#[cfg(feature = "tokio")]
use crate::generated::AsyncDispatch;
use crate::generated::{Dispatch, Dispatcher};

/// How an implementation `S` of the service `M` is served beside its client: by the driver `D`.
#[diagnostic::on_unimplemented(
    message = "`{S}` cannot be served in process",
    label = "implements no trait of this service, or is not `Send + Sync + 'static`",
    note = "of a service `Documents` it implements `Documents` or, in the other colour, `DocumentsAsync` or \
            `DocumentsBlocking`"
)]
pub trait InProcess<M: Service, S, D> {
    /// Serves one connection: on a thread, or in a task of the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// That of the system which has no thread.
    #[doc(hidden)]
    fn start(beside: Beside<'_>, stream: UnixStream, service: S) -> Result<()>;
}

/// The client that the service is to run beside.
#[doc(hidden)]
#[derive(Debug)]
pub struct Beside<'a> {
    /// The server has the client's settings.
    pub(crate) config: &'a Config,
    /// Whether it is one of the tasks of the current runtime. (If not, its calls block a thread.)
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "there are no tasks"))]
    pub(crate) is_task: bool,
}

impl<M: Service, S: Send + Sync + 'static> InProcess<M, S, Blocking> for Dispatcher
where
    Dispatcher: Dispatch<M, S>,
{
    fn start(beside: Beside<'_>, stream: UnixStream, service: S) -> Result<()> {
        let server = ServerBuilder::<Blocking>::with_config(beside.config.clone());
        spawn(move || ended(server.serve_stream::<M, S>(stream, service)))
    }
}

#[cfg(feature = "tokio")]
impl<M: Service, S: Send + Sync + 'static> InProcess<M, S, Tokio> for Dispatcher
where
    Dispatcher: AsyncDispatch<M, S>,
{
    fn start(beside: Beside<'_>, stream: UnixStream, service: S) -> Result<()> {
        let server = ServerBuilder::<Tokio>::with_config(beside.config.clone());
        let serve = async move { ended(server.serve_stream::<M, S>(stream, service).await) };
        if beside.is_task {
            tokio::spawn(serve);
            return Ok(());
        }
        // A runtime that the caller may be in is not asked: its threads may be those that the client blocks.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        spawn(move || runtime.block_on(serve))
    }
}

fn spawn(serve: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().name("lpc-server".into()).spawn(serve)?;
    Ok(())
}

fn ended(served: Result<()>) {
    if let Err(error) = served {
        tracing::warn!(%error, "connection in process ended");
    }
}
