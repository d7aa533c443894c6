//! How a server is asked for a form: method [`FORM`](crate::handshake::FORM) takes a question and returns an
//! answer, each a control message, as bytes.

use serde::{Deserialize, Serialize};

use super::{Form, MAX_LEN};
use crate::control::{self, Malformed};
use crate::{Error, ErrorKind, Result};

/// Which method's form a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The method's number at the server.
    pub method: u16,
}

impl Question {
    /// The question as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        control::encode(self, &mut bytes);
        bytes
    }

    /// The question that `bytes` are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] where they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        control::decode(bytes).map_err(|error| undecodable("the question for a form", error))
    }
}

/// What the server says of the method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The text of its form.
    pub text: String,
}

impl Answer {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.text.len() + 10);
        control::encode(self, &mut bytes);
        bytes
    }

    /// The answer that `bytes` are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] where they are none, or one that is longer than any form.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let answer: Self = control::decode(bytes).map_err(|error| undecodable("a form", error))?;
        if answer.text.len() > MAX_LEN {
            let message = format!("a form of {} bytes, the limit is {MAX_LEN}", answer.text.len());
            return Err(Error::new(ErrorKind::Decode, message));
        }
        Ok(answer)
    }
}

impl From<&Form> for Answer {
    fn from(form: &Form) -> Self {
        Self { text: form.text().to_owned() }
    }
}

fn undecodable(what: &str, error: Malformed) -> Error {
    Error::new(ErrorKind::Decode, format!("{what} that does not decode")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_and_answer_say_the_same_on_the_other_side() {
        let question = Question { method: 300 };
        assert_eq!(Question::decode(&question.encode()).unwrap(), question);
        let answer = Answer { text: "() -> ()".into() };
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_no_answer() {
        let whole = Answer { text: "() -> ()".into() }.encode();
        let longest = Answer { text: "_".repeat(MAX_LEN) }.encode();
        assert!(Answer::decode(&longest).is_ok());
        let longer = Answer { text: "_".repeat(MAX_LEN + 1) }.encode();
        for bytes in [&whole[1..], &whole[..whole.len() - 1], &[&whole[..], &[0]].concat(), &longer, &[]] {
            assert_eq!(Answer::decode(bytes).unwrap_err().kind(), ErrorKind::Decode);
        }
        for bytes in [&[][..], &[0x80], &[1, 1], &[0xff, 0xff, 0x7f]] {
            assert_eq!(Question::decode(bytes).unwrap_err().kind(), ErrorKind::Decode);
        }
    }
}
