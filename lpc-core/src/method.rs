//! What a service is, as both sides know it.

use crate::Threshold;

/// The description of a service; `#[service]` on a trait `Documents` implements it for the type `DocumentsService`.
pub trait Service: Send + Sync + 'static {
    /// The trait's name.
    const NAME: &'static str;
    /// The methods that cross the process boundary, in the order of their declaration. A method's index here is its
    /// number in the stubs; on the wire it is known by its name, so that adding, removing and reordering methods
    /// keeps two builds compatible.
    const METHODS: &'static [Method];
}

/// One method of a [`Service`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    name: &'static str,
    threshold: Option<Threshold>,
}

impl Method {
    /// A method of this name, with the connection's threshold.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, threshold: None }
    }

    /// The same with a threshold of its own, for its arguments and its result.
    #[must_use]
    pub const fn with_threshold(self, threshold: Threshold) -> Self {
        Self { threshold: Some(threshold), ..self }
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
}
