//! How an argument `&T` crosses: it is sent by reference, and lent on the other side.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::bytes;

/// A type that can be an argument `&T`.
///
/// ```
/// use lpc_core::codec::{Decoder, Lend, encode};
///
/// let mut bytes = Vec::new();
/// encode(&"a few words".sent(), &mut bytes)?;
///
/// let held: <str as Lend>::Held<'_> = Decoder::new(&bytes).next()?; // borrows from `bytes`
/// assert_eq!(<str as Lend>::lend(&held), "a few words");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `str`, `Path`, `OsStr` and `[u8]` are lent from the received bytes, without a copy. `CStr`, other slices
/// and all other types that are `Serialize` and `DeserializeOwned` are decoded for the call and lent from
/// there.
#[diagnostic::on_unimplemented(
    message = "`&{Self}` cannot be an argument",
    label = "neither `Serialize + DeserializeOwned` nor a type that is lent",
    note = "derive `serde::Serialize` and `serde::Deserialize` for `{Self}` and what it contains, \
            with no borrowed fields"
)]
pub trait Lend {
    /// What the receiver decodes and holds during the call.
    type Held<'de>: Deserialize<'de>;

    /// What the sender encodes.
    type Sent<'a>: Serialize
    where
        Self: 'a;

    /// What to encode for this value.
    fn sent(&self) -> Self::Sent<'_>;

    /// The value in `held`.
    fn lend<'h>(held: &'h Self::Held<'_>) -> &'h Self;
}

impl<T: Serialize + DeserializeOwned> Lend for T {
    type Held<'de> = T;
    type Sent<'a>
        = &'a T
    where
        T: 'a;

    #[inline]
    fn sent(&self) -> &T {
        self
    }

    #[inline]
    fn lend(held: &T) -> &T {
        held
    }
}

impl Lend for str {
    type Held<'de> = &'de str;
    type Sent<'a> = &'a str;

    #[inline]
    fn sent(&self) -> &str {
        self
    }

    #[inline]
    fn lend<'h>(held: &'h &str) -> &'h str {
        held
    }
}

impl<T: Serialize + DeserializeOwned> Lend for [T] {
    type Held<'de> = HeldSlice<'de, T>;
    type Sent<'a>
        = &'a [T]
    where
        T: 'a;

    #[inline]
    fn sent(&self) -> &[T] {
        self
    }

    #[inline]
    fn lend<'h>(held: &'h HeldSlice<'_, T>) -> &'h [T] {
        held.as_slice()
    }
}

impl Lend for CStr {
    type Held<'de> = CString;
    type Sent<'a> = &'a CStr;

    #[inline]
    fn sent(&self) -> &CStr {
        self
    }

    #[inline]
    fn lend(held: &CString) -> &CStr {
        held
    }
}

/// Sent as its bytes, so that a name that is not UTF-8 can be sent, too.
impl Lend for OsStr {
    type Held<'de> = HeldOsStr<'de>;
    type Sent<'a> = SentBytes<'a>;

    #[inline]
    fn sent(&self) -> SentBytes<'_> {
        SentBytes(self.as_bytes())
    }

    #[inline]
    fn lend<'h>(held: &'h HeldOsStr<'_>) -> &'h OsStr {
        held.0
    }
}

/// Sent as its bytes, so that a name that is not UTF-8 can be sent, too.
impl Lend for Path {
    type Held<'de> = HeldPath<'de>;
    type Sent<'a> = SentBytes<'a>;

    #[inline]
    fn sent(&self) -> SentBytes<'_> {
        SentBytes(self.as_os_str().as_bytes())
    }

    #[inline]
    fn lend<'h>(held: &'h HeldPath<'_>) -> &'h Path {
        held.0
    }
}

/// A slice as its receiver holds it: borrowed from the received bytes if it is a byte slice, else decoded.
pub struct HeldSlice<'de, T>(Slice<'de, T>);

enum Slice<'de, T> {
    /// Only if `T` is `u8`.
    Borrowed(&'de [u8]),
    Owned(Vec<T>),
}

impl<T> HeldSlice<'_, T> {
    fn as_slice(&self) -> &[T] {
        match &self.0 {
            Slice::Borrowed(bytes) => bytes::as_slice_of(bytes).unwrap_or_default(),
            Slice::Owned(values) => values,
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for HeldSlice<'de, T> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bytes::is_u8::<T>() {
            <&[u8]>::deserialize(deserializer).map(|bytes| Self(Slice::Borrowed(bytes)))
        } else {
            Vec::deserialize(deserializer).map(|values| Self(Slice::Owned(values)))
        }
    }
}

/// As its sender does: by this its form is found.
impl<T: Serialize> Serialize for HeldSlice<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

impl<T: fmt::Debug> fmt::Debug for HeldSlice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// An [`OsStr`] as its receiver holds it.
#[derive(Clone, Copy, Debug)]
pub struct HeldOsStr<'de>(&'de OsStr);

impl<'de> Deserialize<'de> for HeldOsStr<'de> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|bytes| Self(OsStr::from_bytes(bytes)))
    }
}

impl Serialize for HeldOsStr<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.sent().serialize(serializer)
    }
}

/// A [`Path`] as its receiver holds it.
#[derive(Clone, Copy, Debug)]
pub struct HeldPath<'de>(&'de Path);

impl<'de> Deserialize<'de> for HeldPath<'de> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HeldOsStr::deserialize(deserializer).map(|held| Self(Path::new(held.0)))
    }
}

impl Serialize for HeldPath<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.sent().serialize(serializer)
    }
}

/// Bytes as their sender encodes them.
#[derive(Clone, Copy, Debug)]
pub struct SentBytes<'a>(&'a [u8]);

impl Serialize for SentBytes<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}
