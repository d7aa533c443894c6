//! Generated code in a crate that makes it hard: strict lints, names of the prelude and of the generated
//! code's own taken for other things, the runtime under another name.
#![cfg(feature = "tokio")]
#![deny(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused,
    unused_qualifications,
    nonstandard_style,
    unused_lifetimes,
    single_use_lifetimes,
    deprecated,
    rustdoc::all,
    clippy::all,
    clippy::pedantic
)]
#![forbid(unsafe_code)]

extern crate lpc as renamed;

/// A module of the user's that is called as the crate.
mod lpc {
    pub(crate) type Error = ();
}

/// The names of the prelude are the user's.
mod shadowed {
    use ::lpc::service;

    macro_rules! shadow {
        ($($name:ident)*) => { $(#[expect(dead_code, reason = "it is there to be in the way")] struct $name;)* };
    }

    shadow!(Result Ok Err Some None Vec String Option Send Sync Sized Clone Copy Debug Default);
    shadow!(Into From Iterator IntoIterator AsRef Drop Fn FnOnce Box ToString ToOwned Future Path);

    macro_rules! unreachable {
        () => {};
    }
    unreachable!();

    /// A service.
    #[service]
    pub(crate) trait Shadowed {
        /// All shapes that make code.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn take(
            &self,
            text: &str,
            paths: &[&::std::path::Path],
            maybe: ::std::option::Option<&::std::path::Path>,
            pair: (&::std::path::Path, u32),
        ) -> ::std::result::Result<u64, ::lpc::Error>;
    }

    /// The same without a prelude.
    #[service]
    pub(crate) trait AsyncShadowed {
        /// All shapes that make code.
        ///
        /// # Errors
        ///
        /// Those of calls.
        async fn take(&self, paths: &[&::std::path::Path]) -> ::std::result::Result<u64, ::lpc::Error>;

        /// A local method.
        async fn local(&self) -> u32 {
            3
        }
    }
}

/// Not even the prelude is there.
#[no_implicit_prelude]
mod bare {
    /// A service.
    #[::lpc::service]
    pub(crate) trait Bare {
        /// A method.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn take(&self, paths: &[&::std::path::Path]) -> ::lpc::Result<u64>;
    }
}

/// The crate under another name.
mod other_name {
    /// Found by a path from here.
    #[renamed::service(crate = "renamed")]
    pub(crate) trait Relative {
        /// A method.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn take(&self) -> renamed::Result<u64>;
    }

    /// Found by a path from anywhere.
    #[renamed::service(crate = "::renamed")]
    pub(crate) trait Absolute {
        /// A method.
        ///
        /// # Errors
        ///
        /// Those of calls.
        async fn take(&self) -> renamed::Result<u64>;
    }

    /// Found by a path from the crate.
    #[renamed::service(crate = "crate::other_name::reexport")]
    pub(crate) trait Inside {
        /// A method.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn take(&self) -> renamed::Result<u64>;
    }

    pub(crate) mod reexport {
        pub(crate) use ::lpc::*;
    }
}

/// Names of the generated code's own, as arguments, types and constants of the user's.
mod taken {
    use ::lpc::service;
    use serde::{Deserialize, Serialize};

    /// A type.
    #[derive(Debug, Serialize, Deserialize)]
    pub struct S(pub u8);

    /// A type.
    #[derive(Debug, Serialize, Deserialize)]
    pub struct Index;

    /// A type.
    #[derive(Debug, Serialize, Deserialize)]
    pub struct Method;

    /// A service.
    #[service]
    pub trait Taken {
        /// Locals of the client.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn client_locals(
            &self,
            client: u8,
            encoder: u8,
            self_: u8,
            argument_1: u8,
            item: u8,
        ) -> ::lpc::Result<u8>;

        /// Locals of the server.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn server_locals(
            &self,
            service: u8,
            request: u8,
            arguments: u8,
            outcome: u8,
            method: u8,
            _: u8,
        ) -> ::lpc::Result<u8>;

        /// Raw identifiers.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn r#match(&self, r#type: u8, r#fn: &[u8]) -> ::lpc::Result<u8>;

        /// Types.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn types(&self, s: &S, index: Index, method: &[Method]) -> ::lpc::Result<S>;

        /// The runtime's own functions.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn call(&self) -> ::lpc::Result<u8>;

        /// The runtime's own functions.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn dispatch(&self) -> ::lpc::Result<u8>;

        /// The runtime's own functions.
        ///
        /// # Errors
        ///
        /// Those of calls.
        #[allow(clippy::wrong_self_convention)]
        fn from_client(&self) -> ::lpc::Result<u8>;

        /// What pedants do not like in functions of one's own.
        ///
        /// # Errors
        ///
        /// Those of calls.
        #[allow(clippy::fn_params_excessive_bools, clippy::ptr_arg, clippy::too_many_arguments)]
        #[allow(clippy::trivially_copy_pass_by_ref)]
        fn pedantry(
            &self,
            a: bool,
            b: bool,
            c: bool,
            d: bool,
            e: &u32,
            f: &Vec<u8>,
            g: &String,
            h: Option<&Option<u8>>,
        ) -> ::lpc::Result<u8>;
    }
}

/// Attributes of the user's that are carried over, or do no harm.
mod attributes {
    use std::fmt::Debug;

    use ::lpc::service;

    /// A service that is not there, of types that are not there.
    #[service]
    #[cfg(any())]
    pub trait Absent {
        /// A method.
        fn take(&self, absent: NotThere) -> NotThere;
    }

    /// A service with methods that are not there.
    #[service]
    pub trait Present: Debug {
        /// Its type is not there.
        #[cfg(any())]
        #[lpc(threshold = "1KiB")]
        fn absent(&self, absent: NotThere) -> NotThere;

        /// There.
        ///
        /// # Errors
        ///
        /// Those of calls.
        #[cfg(unix)]
        #[must_use = "it is asked for"]
        #[lpc(threshold = "1KiB")]
        fn present(&self) -> ::lpc::Result<u8>;

        /// Its type is not there.
        #[cfg_attr(unix, cfg(any()))]
        fn absent_too(&self, absent: NotThere) -> NotThere;

        /// A constant.
        const KNOWN: u8 = 3;

        /// A local method.
        fn local<T: Debug>(&self, value: T) -> String
        where
            Self: Sized,
        {
            format!("{value:?} {:?} {}", self.present().unwrap_or_default(), Self::KNOWN)
        }
    }

    /// All of its methods are absent.
    #[service]
    pub trait Empty {
        /// Not there.
        #[cfg(any())]
        fn absent(&self) -> NotThere;
    }

    /// It has no methods.
    #[service]
    pub trait Nothing {}

    /// An old service.
    #[service]
    #[deprecated = "there is a better one"]
    pub trait Old {
        /// An old method.
        ///
        /// # Errors
        ///
        /// Those of calls.
        #[deprecated]
        fn old(&self) -> ::lpc::Result<u8>;
    }

    /// A hidden service.
    #[service]
    #[doc(hidden)]
    pub trait Hidden {
        /// A method.
        ///
        /// # Errors
        ///
        /// Those of calls.
        fn take<'a>(&'a self, one: &'a str, other: &'a str) -> ::lpc::Result<u8>;
    }
}

/// An async trait, where code that is generic over it may spawn.
mod asynchronous {
    use std::rc::Rc;
    use std::sync::Arc;

    use ::lpc::service;

    /// A service.
    #[service]
    pub(super) trait Spawned: Send + 'static {
        /// A remote method.
        ///
        /// # Errors
        ///
        /// Those of calls.
        async fn remote(&self, text: &str, owned: Vec<String>) -> ::lpc::Result<u64>;

        /// A local method.
        async fn local(&self, mut times: u32, _guard: Arc<()>) -> u64 {
            let mut sum = 0;
            while times > 0 {
                times -= 1;
                sum += self.remote("one", Vec::new()).await.unwrap_or_default();
            }
            sum
        }

        /// A generic local method.
        async fn generic<T: Into<String> + Send>(&self, text: T) -> u64 {
            self.remote(&text.into(), Vec::new()).await.unwrap_or_default()
        }

        /// A short local method.
        async fn short(&self) -> u64 {
            self.local(1, Arc::new(())).await
        }

        /// Of the other colour, and of what cannot be sent.
        fn blocking(&self) -> Rc<u32> {
            Rc::new(3)
        }
    }

    fn require_send<T: Send>(value: T) -> T {
        value
    }

    pub(super) async fn all(spawned: impl Spawned) -> u64 {
        let (guard, text) = (Arc::new(()), "two");
        let local = require_send(spawned.local(2, Arc::clone(&guard)));
        assert_eq!(Arc::strong_count(&guard), 2, "an argument lives as long as the future");
        let local = local.await;
        assert_eq!(Arc::strong_count(&guard), 1);
        local + require_send(spawned.generic(text)).await + u64::from(*spawned.blocking())
    }
}

struct Object;

impl asynchronous::Spawned for Object {
    async fn remote(&self, text: &str, owned: Vec<String>) -> ::lpc::Result<u64> {
        Ok((text.len() + owned.len()) as u64)
    }
}

#[test]
fn local_methods_of_an_async_trait_are_futures_that_can_be_spawned() {
    let mut future = std::pin::pin!(asynchronous::all(Object));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(future.as_mut().poll(&mut context), std::task::Poll::Ready(3 + 3 + 3 + 3));
}

#[test]
fn methods_are_numbered_as_if_absent_ones_were_not_written() {
    use ::lpc::Service;
    assert_eq!(attributes::PresentService::METHODS.len(), 1);
    assert_eq!(attributes::EmptyService::METHODS.len(), 0);
    assert_eq!(taken::TakenService::METHODS.len(), 8);
    assert_eq!(taken::TakenService::NAME, "Taken");
}

#[test]
fn the_module_of_that_name_is_the_users() {
    let () = lpc::Error::default();
}

#[test]
fn a_service_may_be_declared_in_a_function() {
    #[::lpc::service]
    trait Inner {
        fn take(&self) -> ::lpc::Result<u8>;
    }
    impl Inner for Object {
        fn take(&self) -> ::lpc::Result<u8> {
            Ok(3)
        }
    }
    fn requires(inner: &impl Inner) -> u8 {
        inner.take().unwrap_or_default()
    }
    assert_eq!(requires(&Object), 3);
}
