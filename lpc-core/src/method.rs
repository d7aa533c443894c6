//! What a service is, as both sides know it.

use core::time::Duration;

use crate::Threshold;
use crate::form::{Form, Signature};

/// The description of a service; `#[service]` on a trait `Documents` implements it for the type
/// `DocumentsService`.
pub trait Service: Send + Sync + 'static {
    /// The trait's name.
    const NAME: &'static str;
    /// The methods that cross the process boundary, in the order of their declaration. A method's index here
    /// is its number in the stubs; on the wire it is known by its name, so that adding, removing and
    /// reordering methods keeps two builds compatible.
    const METHODS: &'static [Method];
}

/// One method of a [`Service`].
#[derive(Clone, Copy, Debug)]
pub struct Method {
    name: &'static str,
    threshold: Option<Threshold>,
    deadline: Option<Duration>,
    is_idempotent: bool,
    form: Option<fn(Signature) -> Form>,
}

impl Method {
    /// A method of this name, with the threshold of its connection and an unknown form.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, threshold: None, deadline: None, is_idempotent: false, form: None }
    }

    /// The same method with a threshold of its own, for its arguments and its result.
    #[must_use]
    pub const fn with_threshold(self, threshold: Threshold) -> Self {
        Self { threshold: Some(threshold), ..self }
    }

    /// The same method with a deadline of its own: how long each call may take.
    #[must_use]
    pub const fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The same method, marked as idempotent: to call it twice is as good as to call it once.
    #[must_use]
    pub const fn idempotent(self) -> Self {
        Self { is_idempotent: true, ..self }
    }

    /// The same method with a known form.
    #[must_use]
    pub const fn with_form(self, form: fn(Signature) -> Form) -> Self {
        Self { form: Some(form), ..self }
    }

    /// The name in the trait.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The threshold set by `#[lpc(threshold = "…")]`.
    #[must_use]
    pub const fn threshold(&self) -> Option<Threshold> {
        self.threshold
    }

    /// The deadline set by `#[lpc(deadline = "…")]`.
    #[must_use]
    pub const fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether it may be called again after a call that may have run (`#[lpc(idempotent)]`).
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// Traces the form of the method; `None` if it is unknown. [`form::of`](crate::form::of) does so once and
    /// keeps it.
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        self.form.map(|form| form(Signature::new()))
    }
}
