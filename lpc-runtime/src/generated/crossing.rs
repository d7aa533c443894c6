//! So that a type which cannot cross is not reported again by each function that is generated for it.
//!
//! The compiler reports such a type where the client that implements the trait encodes and decodes it, and
//! where the server decodes it. All else that needs the same bounds is called by way of [`Crossing`], where
//! they hold, and where they do not of [`Uncrossable`], which is never run.

use std::fmt;
use std::marker::PhantomData;

use lpc_core::Error;
use lpc_core::codec::Lend;
use serde::{Deserialize, Serialize};

use super::{Arguments, Encoder, Held, Outcome, Reply, Request};
use crate::blocking;

/// What is done with values of the type `T`.
pub struct Crossing<T: ?Sized>(PhantomData<T>);

impl<R: Outcome> Crossing<R> {
    /// [`Request::reply`].
    ///
    /// # Errors
    ///
    /// Its own.
    #[inline]
    pub fn reply(request: Request<'_>, outcome: &R) -> Result<Reply, Error> {
        request.reply(outcome)
    }

    /// [`blocking::Client::call`].
    #[inline]
    pub fn call_blocking(
        client: &blocking::Client,
        method: u32,
        encode: impl Fn(&mut Encoder<'_>) -> Result<(), Error>,
    ) -> R {
        client.call(method, encode)
    }

    /// [`Client::call`](crate::Client::call).
    #[cfg(feature = "tokio")]
    #[inline]
    pub fn call_async(
        client: &crate::Client,
        method: u32,
        encode: impl Fn(&mut Encoder<'_>) -> Result<(), Error> + Sync,
    ) -> impl Future<Output = R> {
        client.call(method, encode)
    }
}

impl<'a, T: Deserialize<'a>> Crossing<T> {
    /// [`Arguments::next`].
    ///
    /// # Errors
    ///
    /// Its own.
    #[inline]
    pub fn next(arguments: &mut Arguments<'a>, name: &'static str) -> Result<T, Error> {
        arguments.next(name)
    }
}

impl<T: Lend + ?Sized> Crossing<T> {
    /// [`Lend::lend`].
    #[inline]
    pub fn lend<'h>(held: &'h Held<'_, T>) -> &'h T {
        T::lend(held)
    }
}

impl<T: ?Sized> fmt::Debug for Crossing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crossing")
    }
}

/// An argument that is made of others, as it is sent.
#[derive(Debug)]
pub struct Made<'a, T>(pub &'a T);

impl<T: Serialize> Made<'_, T> {
    /// [`Encoder::push`].
    ///
    /// # Errors
    ///
    /// Its own.
    #[inline]
    pub fn push_to(&self, encoder: &mut Encoder<'_>, name: &'static str) -> Result<(), Error> {
        encoder.push(name, self.0)
    }
}

/// Stands in for what [`Crossing`] and [`Made`] do, where the compiler has an error anyway.
pub trait Uncrossable {
    /// In place of [`Crossing::reply`].
    ///
    /// # Errors
    ///
    /// Never.
    fn reply<R>(_: Request<'_>, _: &R) -> Result<Reply, Error> {
        unreachable!("it does not compile")
    }

    /// In place of [`Crossing::next`].
    ///
    /// # Errors
    ///
    /// Never.
    fn next<T>(_: &mut Arguments<'_>, _: &'static str) -> Result<T, Error> {
        unreachable!("it does not compile")
    }

    /// In place of [`Crossing::lend`].
    fn lend<H, T: ?Sized>(_: &H) -> &T {
        unreachable!("it does not compile")
    }

    /// In place of [`Crossing::call_blocking`].
    fn call_blocking<R>(
        _: &blocking::Client,
        _: u32,
        _: impl Fn(&mut Encoder<'_>) -> Result<(), Error>,
    ) -> R {
        unreachable!("it does not compile")
    }

    /// In place of [`Crossing::call_async`].
    #[cfg(feature = "tokio")]
    fn call_async<R>(
        _: &crate::Client,
        _: u32,
        _: impl Fn(&mut Encoder<'_>) -> Result<(), Error> + Sync,
    ) -> impl Future<Output = R> + Send {
        async { unreachable!("it does not compile") }
    }

    /// In place of [`Made::push_to`].
    ///
    /// # Errors
    ///
    /// Never.
    fn push_to(&self, _: &mut Encoder<'_>, _: &'static str) -> Result<(), Error> {
        unreachable!("it does not compile")
    }
}

impl<T: ?Sized> Uncrossable for Crossing<T> {}
impl<T> Uncrossable for Made<'_, T> {}
