//! A client's methods at its server: which number each has there, and why a call of one that is different
//! fails.

use std::sync::OnceLock;

use lpc_core::form::{self, Form};
use lpc_core::handshake::Found;
use lpc_core::{Error, ErrorKind, Progress, Result};

use crate::generated::Description;

/// The methods of a service, as the server of one connection has them.
#[derive(Debug)]
pub(crate) struct Methods {
    service: Description,
    found: Box<[Found]>,
    /// For each method that differs, where it does, once the server was asked: `None` where it did not say.
    differences: Box<[OnceLock<Option<Box<str>>>]>,
}

impl Methods {
    pub(crate) fn new(service: Description, found: Vec<Found>) -> Self {
        let differences = found.iter().map(|_| OnceLock::new()).collect();
        Self { service, found: found.into(), differences }
    }

    /// The method's number at the server; `None` where it cannot be called there, and [`error`](Self::error)
    /// says why.
    pub(crate) fn number(&self, method: u32) -> Option<u16> {
        match self.found[method as usize] {
            Found::Same(number) => Some(number),
            Found::Different(_) | Found::Nowhere => None,
        }
    }

    /// The number of a method which the server has in another form that it has not been asked for yet.
    pub(crate) fn unasked(&self, method: u32) -> Option<u16> {
        match self.found[method as usize] {
            Found::Different(number) if self.differences[method as usize].get().is_none() => Some(number),
            _ => None,
        }
    }

    /// Takes down what the server said of the method when it was asked. It is asked again only if it was not
    /// reached.
    pub(crate) fn learn(&self, method: u32, answer: Result<Vec<u8>>) {
        let difference = match answer {
            // What does not decode tells nothing.
            Ok(answer) => form::Answer::decode(&answer).ok().map(|theirs| {
                let ours = self.service.form(method).map_or("", Form::text);
                form::difference(ours, &theirs.text).into()
            }),
            Err(error)
                if error.progress() == Progress::NotSent && error.kind() != ErrorKind::UnknownMethod =>
            {
                return;
            }
            Err(_) => None,
        };
        // Of several that ask at once, any may be first.
        let _ = self.differences[method as usize].set(difference);
    }

    /// Why the method cannot be called.
    pub(crate) fn error(&self, method: u32) -> Error {
        let (service, name) = (self.service.name, self.service.method(method));
        if self.found[method as usize] == Found::Nowhere {
            return self.service.unknown_method(method);
        }
        let details = match self.differences[method as usize].get() {
            Some(Some(difference)) => format!(": {difference}"),
            _ => String::new(),
        };
        let message = format!(
            "{service}.{name} differs between client and server{details} (are they built from the same trait and types?)"
        );
        Error::new(ErrorKind::Incompatible, message)
    }
}

#[cfg(test)]
mod tests {
    use lpc_core::Method;

    use super::*;

    fn methods(found: Vec<Found>) -> Methods {
        static METHODS: [Method; 2] = [Method::new("put"), Method::new("get")];
        Methods::new(Description::plain("Documents", &METHODS), found)
    }

    #[test]
    fn a_method_is_asked_for_once_even_of_a_server_that_does_not_know_the_question() {
        let methods = methods(vec![Found::Different(5), Found::Same(3)]);
        assert_eq!((methods.number(0), methods.number(1)), (None, Some(3)));
        assert_eq!((methods.unasked(0), methods.unasked(1)), (Some(5), None));
        methods.learn(0, Err(Error::new(ErrorKind::ResourceExhausted, "no room")));
        assert_eq!(methods.unasked(0), Some(5), "the question was not sent");
        methods.learn(0, Err(Error::new(ErrorKind::UnknownMethod, "no such method")));
        assert_eq!(methods.unasked(0), None);
        let error = methods.error(0);
        assert!(error.is_incompatible() && !error.may_have_run());
        assert!(
            error.to_string().starts_with("Documents.put differs between client and server ("),
            "{error}"
        );
    }

    #[test]
    fn what_a_server_says_of_a_method_is_shown_in_short() {
        let methods = methods(vec![Found::Nowhere, Found::Different(0)]);
        let text = format!("\x1b[2J{}", "x".repeat(60_000));
        methods.learn(1, Ok(form::Answer { text }.encode()));
        let text = methods.error(1).to_string();
        assert!(text.len() < 2000 && !text.contains('\x1b'), "{text}");
        assert_eq!(methods.error(0).kind(), ErrorKind::UnknownMethod);
    }

    #[test]
    fn a_form_that_is_too_long_is_not_shown() {
        let methods = methods(vec![Found::Nowhere, Found::Different(0)]);
        methods.learn(1, Ok(form::Answer { text: "(_, ".repeat(form::MAX_LEN) }.encode()));
        assert_eq!(methods.unasked(1), None);
        assert!(!methods.error(1).to_string().contains("(_"), "{}", methods.error(1));
    }
}
