//! The parts of a value that is being encoded: elements, fields and entries.

use serde::ser::{self, Serialize};

use super::ser::Encoder;
use super::sink::Sink;
use super::{EncodeError, bytes};

/// The elements of a sequence or the entries of a map. There must be as many as were announced before them.
pub(super) struct Elements<'s, S: ?Sized> {
    pub(super) encoder: Encoder<'s, S>,
    pub(super) announced: usize,
    pub(super) missing: usize,
    /// How many bytes there were before them.
    pub(super) start: u64,
}

impl<S: Sink + ?Sized> Elements<'_, S> {
    #[inline]
    fn begin_one(&mut self) -> Result<(), EncodeError> {
        self.missing = self.missing.checked_sub(1).ok_or_else(|| too_many(self.announced))?;
        Ok(())
    }

    #[inline]
    pub(super) fn finish(self) -> Result<(), EncodeError> {
        if self.missing > 0 {
            return Err(too_few(self.announced, self.missing));
        }
        // Not all of them that there may be: what is left over fails at the receiver.
        let empty = (self.announced as u64).saturating_sub(self.encoder.sink.written() - self.start);
        if empty == 0 { Ok(()) } else { self.encoder.sink.count_empty(empty) }
    }
}

#[cold]
pub(super) fn too_many(announced: usize) -> EncodeError {
    EncodeError::new(format!("Serialize of a sequence or map announced {announced} elements and gave more"))
}

#[cold]
pub(super) fn too_few(announced: usize, missing: usize) -> EncodeError {
    let given = announced - missing;
    EncodeError::new(format!(
        "Serialize of a sequence or map announced {announced} elements and gave {given}"
    ))
}

impl<S: Sink + ?Sized> ser::SerializeSeq for Elements<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.begin_one()?;
        self.encoder.again().emit(value)
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

impl<S: Sink + ?Sized> ser::SerializeMap for Elements<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.begin_one()?;
        self.encoder.again().emit(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.encoder.again().emit(value)
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

/// The elements of a tuple or array. Bytes among them are gathered into runs: that is how `Box<[u8; N]>`, and
/// an array that another crate walks through, reach the sink.
pub(super) struct Tuple<'s, S: ?Sized> {
    pub(super) encoder: Encoder<'s, S>,
    pub(super) pending: [u8; 32],
    pub(super) filled: usize,
}

impl<S: Sink + ?Sized> Tuple<'_, S> {
    #[inline]
    fn flush(&mut self) -> Result<(), EncodeError> {
        match std::mem::take(&mut self.filled) {
            0 => Ok(()),
            1 => self.encoder.sink.push(self.pending[0]),
            filled => self.encoder.sink.extend(&self.pending[..filled]),
        }
    }
}

impl<S: Sink + ?Sized> ser::SerializeTuple for Tuple<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let Some(byte) = bytes::as_u8(value) else {
            self.flush()?;
            return self.encoder.again().emit(value);
        };
        if self.filled == self.pending.len() {
            self.flush()?;
        }
        self.pending[self.filled] = byte;
        self.filled += 1;
        Ok(())
    }

    #[inline]
    fn end(mut self) -> Result<(), EncodeError> {
        self.flush()
    }
}

/// The fields of a struct, or of a variant with several.
pub(super) struct Fields<'s, S: ?Sized> {
    pub(super) encoder: Encoder<'s, S>,
    /// The names of the type and, in an enum, of the variant: for an error.
    pub(super) of: (&'static str, &'static str),
}

impl<S: Sink + ?Sized> ser::SerializeTupleStruct for Fields<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.encoder.again().emit(value)
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<S: Sink + ?Sized> ser::SerializeTupleVariant for Fields<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.encoder.again().emit(value)
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<S: Sink + ?Sized> ser::SerializeStruct for Fields<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.encoder.again().emit(value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), EncodeError> {
        Err(skipped(self.of, key))
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<S: Sink + ?Sized> ser::SerializeStructVariant for Fields<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.encoder.again().emit(value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), EncodeError> {
        Err(skipped(self.of, key))
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

#[cold]
fn skipped((name, variant): (&str, &str), key: &'static str) -> EncodeError {
    let dots = if variant.is_empty() { "" } else { "::" };
    EncodeError::new(format!(
        "field `{key}` of `{name}{dots}{variant}` was left out (`#[serde(skip_serializing_if = \"…\")]`) for a \
         value that none of those was like with which the type was tried, so the receiver could not tell: let \
         the condition be one that holds for `None`, an empty, zero or default value, or make the field an \
         `Option`"
    ))
}
