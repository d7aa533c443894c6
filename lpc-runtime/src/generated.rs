//! The functions that generated code calls: a stub encodes a call with them, and a dispatcher answers one.
//!
//! Users see [`Service`](lpc_core::Service) and the clients. The rest is for the expansion of `#[service]`.

mod crossing;
mod stays;

use std::time::Duration;

use lpc_core::codec::{
    ArgumentCodings, Coding, Codings, DecodeError, DecodeErrorKind, Decoder, EncodeError, Lend, encode_as,
};
use lpc_core::form::{self, Form};
use lpc_core::{Error, ErrorKind, Method, Progress, Service, Threshold, frame, handshake};
use serde::de::DeserializeOwned;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use crate::body::arrived::Arrived;
use crate::body::outgoing::{Encoded, Missing, Outgoing, WhenFull};
use crate::connection::link::Link;

pub use self::crossing::{Crossing, Made, Uncrossable};
pub use self::stays::{Crosses, Stays};

/// The description of a service as values, without its type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) methods: &'static [Method],
    /// The forms of its methods.
    pub(crate) forms: &'static [Option<Form>],
    /// Whether any of their arguments or results is described.
    is_described: bool,
}

impl Description {
    /// The first one of a service traces the forms of its methods, which may take some time.
    pub(crate) fn of<M: Service>() -> Self {
        let forms = form::of::<M>();
        let is_described = forms.iter().flatten().any(|form| form.codings() != Codings::default());
        Self { name: M::NAME, methods: M::METHODS, forms, is_described }
    }

    /// One whose methods take nothing and return nothing.
    #[cfg(test)]
    pub(crate) const fn plain(name: &'static str, methods: &'static [Method]) -> Self {
        Self { name, methods, forms: &[], is_described: false }
    }

    pub(crate) fn method(&self, method: u32) -> &'static str {
        self.methods.get(method as usize).map_or("?", Method::name)
    }

    /// The method's form, if it is known.
    pub(crate) fn form(&self, method: u32) -> Option<&'static Form> {
        self.forms.get(method as usize)?.as_ref()
    }

    /// How the method's arguments and result are written.
    #[inline]
    pub(crate) fn codings(&self, method: u32) -> Codings {
        if !self.is_described {
            return Codings::default();
        }
        self.form(method).map_or_else(Codings::default, Form::codings)
    }

    /// The same of a call with this number, which may be the question for a form, on behalf of a method.
    #[inline]
    pub(crate) fn codings_of_call(&self, method: u32, number: u16) -> Codings {
        if number == handshake::FORM { Codings::default() } else { self.codings(method) }
    }

    /// Checks that all methods can be called, and logs the types that cannot be traced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`], naming the method, its argument, and what to change.
    pub(crate) fn check_forms(&self) -> Result<(), Error> {
        for (method, form) in self.methods.iter().zip(self.forms) {
            if let Some(why) = form.as_ref().and_then(Form::unsupported) {
                let message = format!("{}.{}: {why}", self.name, method.name());
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            for form::Opaque { name, why, .. } in form.iter().flat_map(Form::opaque) {
                tracing::debug!(service = self.name, method = method.name(), name, %why, "opaque: known by its name");
            }
        }
        Ok(())
    }

    /// The fingerprints of the methods' forms, for a handshake.
    pub(crate) fn fingerprints(&self) -> Vec<u64> {
        self.forms.iter().map(|form| form::fingerprint(form.as_ref())).collect()
    }

    /// The error of a call, with the method's name if it is the connection's error.
    pub(crate) fn context(&self, method: u32, error: Error) -> Error {
        if error.is_disconnected() {
            return error.with_context(format_args!("{}.{}", self.name, self.method(method)));
        }
        error
    }

    /// The error of a call whose method the server does not have.
    pub(crate) fn unknown_method(&self, method: u32) -> Error {
        let message = format!("the server's {} has no method `{}`", self.name, self.method(method));
        Error::new(ErrorKind::UnknownMethod, message)
    }
}

/// Encodes the arguments of a call.
pub struct Encoder<'e> {
    outgoing: Outgoing<'e>,
    service: &'e Description,
    method: u32,
    codings: ArgumentCodings,
}

impl<'e> Encoder<'e> {
    #[inline]
    pub(crate) fn new(
        link: &'e Link,
        service: &'e Description,
        method: u32,
        number: u16,
        threshold: Threshold,
        hint: u64,
    ) -> Self {
        let begin = |frame: &mut Vec<u8>| frame::begin_call(frame, number);
        let codings = service.codings_of_call(method, number).arguments();
        let mut encoder = Self {
            outgoing: Outgoing::new(link, threshold, WhenFull::Stop, begin),
            service,
            method,
            codings,
        };
        encoder.outgoing.expect(hint);
        encoder
    }

    /// Encodes the argument called `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Encode`], naming argument and method.
    pub fn push<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        encode_as(self.codings.next(), value, &mut self.outgoing).map_err(|error| {
            let place =
                format!("argument `{name}` of {}.{}", self.service.name, self.service.method(self.method));
            refused(error, &place, self.outgoing.limit_name())
        })
    }

    /// What the connection had no room for, if encoding failed because of that.
    pub(crate) fn missing(&self) -> Option<Missing> {
        self.outgoing.missing()
    }

    /// The complete body of a call that is made within so many others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ResourceExhausted`]: there is no memory to keep it in where it has to wait.
    #[inline]
    pub(crate) fn finish(self, nesting: u32) -> Result<Encoded, Error> {
        if let Err(error) = self.outgoing.make_room() {
            let method = self.service.method(self.method);
            return Err(refused(error, &format!("the arguments of {}.{method}", self.service.name), ""));
        }
        Ok(self.outgoing.finish().nested(nesting))
    }
}

/// Encodes a call's arguments. It is a `dyn` type, so that the code of a call is compiled once and not once
/// for each method of each service.
pub(crate) type Encode<'a> = dyn Fn(&mut Encoder<'_>) -> Result<(), Error> + 'a;

/// The same for a call that may move to another thread while it is made.
#[cfg(feature = "tokio")]
pub(crate) type SyncEncode<'a> = dyn Fn(&mut Encoder<'_>) -> Result<(), Error> + Sync + 'a;

/// The error of a value that could not be encoded, or is over a limit.
fn refused(error: EncodeError, place: &str, knob: &str) -> Error {
    let (kind, knob) = match &error {
        EncodeError::TooLarge { .. } => (ErrorKind::TooLarge, knob),
        EncodeError::TooDeep { .. } => (ErrorKind::Encode, " (max_depth of client or server)"),
        EncodeError::OutOfMemory { .. } => (ErrorKind::ResourceExhausted, ""),
        _ => (ErrorKind::Encode, ""),
    };
    Error::new(kind, format!("{place}: {error}{knob}"))
}

/// A call for a service to answer.
pub struct Request<'a> {
    link: &'a Link,
    service: &'a Description,
    method: u32,
    arguments: &'a Arrived,
    threshold: Threshold,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        link: &'a Link,
        service: &'a Description,
        method: u32,
        arguments: &'a Arrived,
        threshold: Threshold,
    ) -> Self {
        Self { link, service, method, arguments, threshold }
    }

    /// The method's index in the service's table.
    #[must_use]
    pub fn method(&self) -> u32 {
        self.method
    }

    /// The arguments, to be decoded in order.
    #[must_use]
    pub fn arguments(&self) -> Arguments<'a> {
        let Self { service, method, .. } = *self;
        let codings = service.codings(method).arguments();
        let decoder = self.arguments.decoder().with_max_depth(self.link.limits().max_depth);
        Arguments { decoder, service, method, codings }
    }

    /// Encodes what the method returned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Encode`], naming the method.
    pub fn reply<R: Outcome>(self, outcome: &R) -> Result<Reply, Error> {
        let mut outgoing = Outgoing::new(self.link, self.threshold, WhenFull::Socket, frame::begin_reply);
        let codings = self.service.codings(self.method);
        let encoded = encode_as(codings.result(), outcome, &mut outgoing);
        match encoded.and_then(|()| outgoing.make_room()) {
            Ok(()) => Ok(Reply(outgoing.finish())),
            Err(error) => {
                let place = format!("result of {}.{}", self.service.name, self.service.method(self.method));
                Err(refused(error, &place, outgoing.limit_name()).with_progress(Progress::Ran))
            }
        }
    }

    /// Answers a call of a method that the service does not have. It may be the question for the form of
    /// another method; otherwise it is an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownMethod`], unless it is that question.
    pub fn unknown_method(self) -> Result<Reply, Error> {
        if self.method == u32::from(handshake::FORM) {
            let mut arguments = self.arguments();
            let question = arguments.next::<Vec<u8>>("question")?;
            arguments.end()?;
            let form::Question { method } = form::Question::decode(&question)?;
            if let Some(form) = self.service.form(method.into()) {
                return self.reply(&Ok::<_, Error>(form::Answer::from(form).encode()));
            }
        }
        let message = format!("{} has no method of number {}", self.service.name, self.method);
        Err(Error::new(ErrorKind::UnknownMethod, message))
    }
}

/// The encoded answer to a call.
#[derive(Debug)]
pub struct Reply(pub(crate) Encoded);

/// The arguments of a call, decoded one by one.
pub struct Arguments<'a> {
    decoder: Decoder<'a>,
    service: &'a Description,
    method: u32,
    codings: ArgumentCodings,
}

impl<'a> Arguments<'a> {
    /// Decodes the next argument, which is called `name`. It may borrow from the received bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`], naming argument and method.
    pub fn next<T: Deserialize<'a>>(&mut self, name: &'static str) -> Result<T, Error> {
        self.decoder.next_as(self.codings.next()).map_err(|error| {
            let method = self.service.method(self.method);
            undecodable(error, &format!("argument `{name}` of {}.{method}", self.service.name))
        })
    }

    /// Checks that no further argument follows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`], naming the method.
    pub fn end(self) -> Result<(), Error> {
        let Self { decoder, service, method, .. } = self;
        decoder.end().map_err(|error| {
            let place = format!("the arguments of {}.{}", service.name, service.method(method));
            undecodable(error, &place)
        })
    }
}

fn undecodable(error: DecodeError, place: &str) -> Error {
    if error.kind() == DecodeErrorKind::OutOfMemory {
        return Error::new(ErrorKind::ResourceExhausted, format!("{place}: {}", error.message()));
    }
    // The type's own word is reason enough.
    if error.kind() == DecodeErrorKind::Custom {
        return Error::new(ErrorKind::Decode, format!("{place}: its type refuses the value: {error}"));
    }
    let hint = "are client and server built from the same trait and types?";
    Error::new(ErrorKind::Decode, format!("{place}: it cannot be decoded: {error} ({hint})"))
}

/// Decodes the result of a call.
pub(crate) fn decode_outcome<R: Outcome>(
    body: &Arrived,
    service: &Description,
    method: u32,
    coding: Coding,
    max_depth: u32,
) -> Result<R, Error> {
    let mut decoder = body.owned_decoder().with_max_depth(max_depth);
    let decoded = decoder.next_as(coding).and_then(|outcome| decoder.end().map(|()| outcome));
    decoded.map_err(|error| {
        let error = undecodable(error, &format!("result of {}.{}", service.name, service.method(method)));
        body.explain(error.with_progress(Progress::Ran))
    })
}

/// The return type of a service's method: a `Result<T, E>` of serializable types with `E: From<lpc::Error>`.
#[diagnostic::on_unimplemented(
    message = "a method of a service returns `Result<T, E>`, and `{Self}` is none that can cross a process",
    label = "write `lpc::Result<{Self}>`, or a `Result` with an error of your own",
    note = "`T` and `E` must be `Serialize + DeserializeOwned`, and `E: From<lpc::Error>`: any call may fail"
)]
pub trait Outcome: Serialize + DeserializeOwned {
    /// The result of a call that failed on its way.
    fn failed(error: Error) -> Self;
}

impl<T, E> Outcome for Result<T, E>
where
    T: Serialize + DeserializeOwned,
    E: Serialize + DeserializeOwned + From<Error>,
{
    fn failed(error: Error) -> Self {
        Err(error.into())
    }
}

/// The type for which generated code implements dispatch: for each service `M`, over every `S` that
/// implements its trait.
#[derive(Debug)]
pub struct Dispatcher;

/// How a blocking server calls the implementation `S` of the service `M`.
#[diagnostic::on_unimplemented(
    message = "`{S}` cannot be served by a blocking server",
    label = "implements no `fn` trait marked `#[service]`, or is not `Send + Sync + 'static`",
    note = "an `async fn` service is served by `lpc::Server`"
)]
pub trait Dispatch<M: Service, S> {
    /// Decodes the request, calls the method, encodes its result.
    ///
    /// # Errors
    ///
    /// The error that prevented the call of the method, or the encoding of its result.
    fn dispatch(service: &S, request: Request<'_>) -> Result<Reply, Error>;
}

/// How an async server calls the implementation `S` of the service `M`.
#[diagnostic::on_unimplemented(
    message = "`{S}` cannot be served by an async server",
    label = "implements no `async fn` trait marked `#[service]`, or is not `Send + Sync + 'static`",
    note = "an `fn` service is served by `lpc::blocking::Server`"
)]
pub trait AsyncDispatch<M: Service, S> {
    /// Decodes the request, calls the method, encodes its result.
    ///
    /// # Errors
    ///
    /// The error that prevented the call of the method, or the encoding of its result.
    fn dispatch<'a>(
        service: &'a S,
        request: Request<'a>,
    ) -> impl Future<Output = Result<Reply, Error>> + Send + 'a;
}

/// How an argument `&T` is encoded.
#[derive(Debug)]
pub struct ByRef<'a, T: ?Sized>(pub &'a T);

impl<T: Lend + ?Sized> Serialize for ByRef<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.sent().serialize(serializer)
    }
}

/// The type that is decoded for an argument `&T`.
pub type Held<'de, T> = <T as Lend>::Held<'de>;

/// A sequence of the items that a function returns, encoded like a slice of them.
#[derive(Debug)]
pub struct Each<F>(pub F);

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: IntoIterator<Item: Serialize, IntoIter: ExactSizeIterator>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items = (self.0)().into_iter();
        let mut sequence = serializer.serialize_seq(Some(items.len()))?;
        for item in items {
            sequence.serialize_element(&item)?;
        }
        sequence.end()
    }
}

/// The threshold of `#[lpc(threshold = "…")]`.
///
/// # Panics
///
/// At compile time, if the text is no threshold.
#[must_use]
#[track_caller]
pub const fn threshold(text: &str) -> Threshold {
    match Threshold::parse(text) {
        Some(threshold) => threshold,
        None => {
            panic!("a threshold is \"off\", \"always\" or a size such as \"4096\", \"64KiB\" or \"1MiB\"")
        }
    }
}

/// The deadline of `#[lpc(deadline = "…")]`.
///
/// # Panics
///
/// At compile time, if the text is no deadline.
#[must_use]
#[track_caller]
pub const fn deadline(text: &str) -> Duration {
    match lpc_core::deadline::parse(text) {
        Some(deadline) => deadline,
        None => panic!("a deadline is a whole number and a unit, such as \"250ms\", \"5s\" or \"2min\""),
    }
}
