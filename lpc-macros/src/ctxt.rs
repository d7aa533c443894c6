//! [`Ctxt`]: a collection of errors, so that a user sees all mistakes of a trait at once.

use std::cell::RefCell;
use std::fmt::Display;

use proc_macro2::TokenStream;
use quote::ToTokens;

/// The errors found so far.
pub(crate) struct Ctxt {
    errors: RefCell<Vec<syn::Error>>,
}

impl Ctxt {
    pub(crate) fn new() -> Self {
        Self { errors: RefCell::new(Vec::new()) }
    }

    /// Reports `message` under all of `tokens`.
    pub(crate) fn error(&self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    /// Takes over an error of the parser.
    pub(crate) fn push(&self, error: syn::Error) {
        self.errors.borrow_mut().push(error);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    /// The number of errors, from which a caller can tell whether a step added one.
    pub(crate) fn len(&self) -> usize {
        self.errors.borrow().len()
    }

    /// All errors as `compile_error!`s.
    pub(crate) fn into_errors(self) -> TokenStream {
        self.errors.into_inner().into_iter().map(syn::Error::into_compile_error).collect()
    }
}
