//! Recognises bytes by their types, so that they move in one piece, paths, which need not be UTF-8, and loans,
//! so that they do not move at all: the one file of the codec with `unsafe`.
//!
//! Every function here compares ids of types that are known when the caller is compiled. An optimised build
//! keeps nothing of a comparison that fails.

#![allow(unsafe_code)]

use std::any::TypeId;
use std::borrow::Cow;
use std::cell::Cell;
use std::mem::{ManuallyDrop, size_of, transmute_copy};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::slice;
use std::sync::{Arc, OnceLock};

use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::loan::{Loan, Received, Token};

/// Serde implements its traits for arrays up to this length.
const LONGEST_ARRAY: usize = 32;

/// Calls the macro `$then` with the lengths of all arrays that serde knows, but for the empty one.
macro_rules! with_array_lengths {
    ($then:ident) => {
        $then!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
    };
}

// ---- Encoding

/// The byte that `value` is, if its type is `u8`.
#[inline]
pub(super) fn as_u8<T: ?Sized>(value: &T) -> Option<u8> {
    // SAFETY: `T` is `u8`: that type has no lifetimes, so the comparison of ids is exact.
    is_u8::<T>().then(|| unsafe { *(&raw const *value).cast::<u8>() })
}

/// The bytes of `value`, if its type is `[u8; N]` with an N that serde knows.
#[inline]
pub(super) fn as_array<T: ?Sized>(value: &T) -> Option<&[u8]> {
    let len = size_of_val(value);
    if size_of::<&T>() != size_of::<usize>() || !is_array_of::<T>(len) {
        return None;
    }
    // SAFETY: `T` is `[u8; len]`: that type has no lifetimes, so the comparison of ids is exact.
    Some(unsafe { slice::from_raw_parts((&raw const *value).cast::<u8>(), len) })
}

/// What an iterator has yet to yield, if it goes over a slice of bytes or of arrays of bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Run<'a> {
    /// How many elements the slice has.
    pub(super) count: usize,
    /// All of them, end to end.
    pub(super) bytes: &'a [u8],
}

/// The bytes that `iter` goes over, if its type is `slice::Iter<u8>` or `slice::Iter<[u8; N]>`.
///
/// That is what `&[u8]`, `&Vec<u8>` and `[u8]::iter` turn into.
#[inline]
pub(super) fn as_run<I>(iter: &I) -> Option<Run<'_>> {
    if size_of::<I>() != size_of::<slice::Iter<'_, u8>>() {
        return None;
    }
    let id = typeid::of::<I>();
    if id == TypeId::of::<slice::Iter<'static, u8>>() {
        // SAFETY: `I` is `slice::Iter<'x, u8>`. Ids leave out lifetimes, and 'x outlives this borrow.
        let iter = unsafe { &*(&raw const *iter).cast::<slice::Iter<'_, u8>>() };
        return Some(Run { count: iter.len(), bytes: iter.as_slice() });
    }
    macro_rules! try_arrays {
        ($($len:literal)*) => {$(
            if id == TypeId::of::<slice::Iter<'static, [u8; $len]>>() {
                // SAFETY: `I` is `slice::Iter<'x, [u8; $len]>`, where 'x outlives this borrow, as above.
                let iter = unsafe { &*(&raw const *iter).cast::<slice::Iter<'_, [u8; $len]>>() };
                return Some(Run { count: iter.len(), bytes: iter.as_slice().as_flattened() });
            }
        )*};
    }
    with_array_lengths!(try_arrays);
    None
}

/// The bytes that `iter` goes over, if its type is `slice::Iter<u8>`.
pub(super) fn as_octets<I>(iter: &I) -> Option<&[u8]> {
    if typeid::of::<I>() != TypeId::of::<slice::Iter<'static, u8>>() {
        return None;
    }
    as_run(iter).map(|run| run.bytes)
}

/// The path that `value` is, or refers to, if its type is one of those by which paths are passed.
#[inline]
pub(super) fn as_path<T: ?Sized>(value: &T) -> Option<&Path> {
    let id = typeid::of::<T>();
    if id == TypeId::of::<Path>() {
        // SAFETY: `T` is `Path`, so that this is the same type: it has no lifetimes, and the comparison of ids is
        // exact.
        return Some(unsafe { transmute_copy::<&T, &Path>(&value) });
    }
    macro_rules! try_types {
        ($($type:ty),*) => {$(
            if id == TypeId::of::<$type>() {
                // SAFETY: `T` is `$type`, but for lifetimes, which ids leave out, and which outlive this borrow.
                let path = unsafe { &*(&raw const *value).cast::<$type>() };
                return Some(path.as_ref());
            }
        )*};
    }
    try_types!(PathBuf, &Path, &PathBuf, Box<Path>, &Box<Path>, Rc<Path>, &Rc<Path>);
    try_types!(Arc<Path>, &Arc<Path>, Cow<'static, Path>, &Cow<'static, Path>);
    None
}

/// The token of a loan that `value` is, if that is its type.
#[inline]
pub(super) fn as_token<T: ?Sized>(value: &T) -> Option<&Token<'_>> {
    if typeid::of::<T>() != TypeId::of::<Token<'static>>() {
        return None;
    }
    // SAFETY: `T` is `Token<'x>`. Ids leave out lifetimes, 'x outlives this borrow, and a token may be taken
    // for one of a shorter life, for it only refers.
    Some(unsafe { &*(&raw const *value).cast::<Token<'_>>() })
}

// ---- Decoding

/// Whether `T` is `u8`.
#[inline]
pub(super) fn is_u8<T: ?Sized>() -> bool {
    typeid::of::<T>() == TypeId::of::<u8>()
}

/// `bytes` as a slice of `T`, if `T` is `u8`.
#[inline]
pub(super) fn as_slice_of<T>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `T` is `u8`: that type has no lifetimes, so the comparison of ids is exact.
    is_u8::<T>().then(|| unsafe { slice::from_raw_parts(bytes.as_ptr().cast::<T>(), bytes.len()) })
}

/// Whether `V` is the very visitor by which serde makes a `Vec<u8>` of a sequence.
///
/// Other visitors may yield a `Vec<u8>` too, but make it in ways of their own.
#[inline]
pub(super) fn is_vec_visitor<'de, V: Visitor<'de>>() -> bool {
    is_vec::<V::Value>() && Visitors::get().vec == Some(typeid::of::<V>())
}

/// `vec` as a `T`, if that is its type.
#[inline]
pub(super) fn from_vec<T>(vec: Vec<u8>) -> Result<T, Vec<u8>> {
    if !is_vec::<T>() {
        return Err(vec);
    }
    let vec = ManuallyDrop::new(vec);
    // SAFETY: `T` is `Vec<u8>`: that type has no lifetimes, so the comparison of ids is exact. This moves the
    // vector, for `vec` is never used again, nor dropped.
    Ok(unsafe { transmute_copy::<Vec<u8>, T>(&vec) })
}

/// `loan` as a `T`, if that is [`Received`].
#[inline]
pub(super) fn from_loan<T>(loan: Arc<dyn Loan>) -> Result<T, Arc<dyn Loan>> {
    if typeid::of::<T>() != TypeId::of::<Received>() {
        return Err(loan);
    }
    let received = ManuallyDrop::new(Received::Loan(loan));
    // SAFETY: `T` is `Received`: that type has no lifetimes, so the comparison of ids is exact. This moves
    // it, for `received` is never used again, nor dropped.
    Ok(unsafe { transmute_copy::<Received, T>(&received) })
}

/// Whether `V` is the very visitor by which serde makes a `PathBuf` of a string.
#[inline]
pub(super) fn is_path_visitor<'de, V: Visitor<'de>>() -> bool {
    typeid::of::<V::Value>() == TypeId::of::<PathBuf>() && Visitors::get().path == Some(typeid::of::<V>())
}

/// `path` as a `T`, if that is its type.
#[inline]
pub(super) fn from_path<T>(path: PathBuf) -> Result<T, PathBuf> {
    if typeid::of::<T>() != TypeId::of::<PathBuf>() {
        return Err(path);
    }
    let path = ManuallyDrop::new(path);
    // SAFETY: `T` is `PathBuf`: that type has no lifetimes, so the comparison of ids is exact. This moves the
    // path, for `path` is never used again, nor dropped.
    Ok(unsafe { transmute_copy::<PathBuf, T>(&path) })
}

/// N, if `V` is the very visitor by which serde makes a `[u8; N]` of a tuple.
#[inline]
pub(super) fn array_of_visitor<'de, V: Visitor<'de>>() -> Option<usize> {
    let len = size_of::<V::Value>();
    let known = is_array_of::<V::Value>(len) && Visitors::get().arrays[len] == Some(typeid::of::<V>());
    known.then_some(len)
}

/// Whether `T` is `[u8; N]` with an N that serde knows.
#[inline]
pub(super) fn is_array<T>() -> bool {
    is_array_of::<T>(size_of::<T>())
}

/// A copy of `bytes`, if `T` is `[u8; N]` and N their number.
#[inline]
pub(super) fn to_array<T>(bytes: &[u8]) -> Option<T> {
    if !is_array_of::<T>(bytes.len()) {
        return None;
    }
    // SAFETY: `T` is `[u8; bytes.len()]`: that type has no lifetimes, so the comparison of ids is exact. It
    // is `Copy`, and needs no alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read() })
}

#[inline]
fn is_vec<T>() -> bool {
    typeid::of::<T>() == TypeId::of::<Vec<u8>>()
}

/// Whether `T` is `[u8; len]`, for the lengths that serde knows.
#[inline]
fn is_array_of<T: ?Sized>(len: usize) -> bool {
    macro_rules! id_of_array {
        ($($len:literal)*) => {
            match len {
                $($len => TypeId::of::<[u8; $len]>(),)*
                _ => return false,
            }
        };
    }
    typeid::of::<T>() == with_array_lengths!(id_of_array)
}

/// The ids of serde's private visitors. `None` where a version of serde has another way: then elements are
/// decoded one by one.
struct Visitors {
    vec: Option<TypeId>,
    path: Option<TypeId>,
    /// By length.
    arrays: [Option<TypeId>; LONGEST_ARRAY + 1],
}

impl Visitors {
    #[inline]
    fn get() -> &'static Self {
        static VISITORS: OnceLock<Visitors> = OnceLock::new();
        VISITORS.get_or_init(Self::learn)
    }

    #[cold]
    fn learn() -> Self {
        let mut arrays = [None; LONGEST_ARRAY + 1];
        macro_rules! learn_arrays {
            ($($len:literal)*) => {$(arrays[$len] = visitor_of::<[u8; $len]>();)*};
        }
        with_array_lengths!(learn_arrays);
        Self { vec: visitor_of::<Vec<u8>>(), path: visitor_of::<PathBuf>(), arrays }
    }
}

/// The id of the visitor that `T` hands to a deserializer for a sequence, a tuple or a string.
fn visitor_of<T: for<'de> Deserialize<'de>>() -> Option<TypeId> {
    let seen = Cell::new(None);
    // The probe has nothing to decode, so the result is an error; what counts is what it saw.
    let _ = T::deserialize(Probe { seen: &seen });
    seen.get()
}

/// A deserializer that notes the type of the visitor it is given, and fails.
struct Probe<'a> {
    seen: &'a Cell<Option<TypeId>>,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("a probe has no value"))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.seen.set(Some(typeid::of::<V>()));
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Self::Error> {
        self.seen.set(Some(typeid::of::<V>()));
        self.deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.seen.set(Some(typeid::of::<V>()));
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf option unit
        unit_struct newtype_struct tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fmt;

    use super::super::loan::Lent;
    use super::*;

    /// A visitor for the same value as serde's own, with another meaning.
    struct Reversing;

    impl<'de> Visitor<'de> for Reversing {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }
    }

    /// A deserializer that says what the codec makes of the visitor.
    struct Ask;

    impl<'de> Deserializer<'de> for Ask {
        type Error = de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            let array = array_of_visitor::<V>().map_or("other".to_owned(), |len| format!("array of {len}"));
            Err(de::Error::custom(if is_vec_visitor::<V>() { "vec".to_owned() } else { array }))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            seq tuple unit_struct newtype_struct tuple_struct map struct enum identifier ignored_any
        }
    }

    fn ask<T: for<'de> Deserialize<'de>>() -> String {
        T::deserialize(Ask).err().unwrap().to_string()
    }

    #[test]
    fn the_visitors_of_bytes_are_recognised_and_no_others() {
        assert_eq!(ask::<Vec<u8>>(), "vec");
        assert_eq!(ask::<Box<[u8]>>(), "vec");
        assert_eq!(ask::<Cow<'static, [u8]>>(), "vec");
        assert_eq!(ask::<[u8; 1]>(), "array of 1");
        assert_eq!(ask::<[u8; 32]>(), "array of 32");
        assert_eq!(ask::<Box<[u8; 5]>>(), "array of 5");
        for other in
            [ask::<Vec<i8>>(), ask::<VecDeque<u8>>(), ask::<[i8; 4]>(), ask::<(u8, u8)>(), ask::<[u8; 0]>()]
        {
            assert_eq!(other, "other");
        }
        assert!(!is_vec_visitor::<Reversing>());
    }

    #[test]
    fn iterators_over_bytes_are_recognised_and_no_others() {
        let bytes = vec![1_u8, 2, 3, 4, 5, 6];
        let (pairs, _) = bytes.as_chunks::<2>();
        let mut begun = bytes.iter();
        begun.next();
        assert_eq!(as_run(&IntoIterator::into_iter(&bytes)), Some(Run { count: 6, bytes: &bytes }));
        assert_eq!(as_run(&begun), Some(Run { count: 5, bytes: &bytes[1..] }));
        assert_eq!(as_run(&pairs.iter()), Some(Run { count: 3, bytes: &bytes }));
        assert_eq!(as_run(&[1_i8, 2].iter()), None);
        assert_eq!(as_run(&["a", "b"].iter()), None);
        assert_eq!(as_run(&bytes.chunks(2)), None);
    }

    #[test]
    fn values_of_bytes_are_recognised_and_no_others() {
        assert_eq!(as_array(&[1_u8, 2, 3]), Some(&[1, 2, 3][..]));
        assert_eq!(as_array(&[7_u8; 33]), None);
        assert_eq!(as_array(&[1_i8, 2]), None);
        assert_eq!(as_array(&(1_u8, 2_u8)), None);
        assert_eq!(as_array(&[1_u8, 2][..]), None);
        assert_eq!(as_array("ab"), None);
        assert_eq!(as_u8(&7_u8), Some(7));
        assert_eq!(as_u8(&7_i8), None);
        assert_eq!(as_u8(&true), None);
        assert_eq!(from_vec::<Vec<u8>>(vec![1, 2]), Ok(vec![1, 2]));
        assert_eq!(from_vec::<Vec<i8>>(vec![1, 2]), Err(vec![1, 2]));
        assert_eq!(to_array::<[u8; 2]>(&[1, 2]), Some([1, 2]));
        assert_eq!(to_array::<[u8; 3]>(&[1, 2]), None);
        assert_eq!(as_slice_of::<u8>(&[1, 2]), Some(&[1, 2][..]));
        assert_eq!(as_slice_of::<i8>(&[1, 2]), None);
    }

    #[test]
    fn loans_are_recognised_and_nothing_else() {
        struct Lending;

        impl Loan for Lending {
            fn bytes(&self) -> &[u8] {
                b"lent"
            }
        }

        let loan: Arc<dyn Loan> = Arc::new(Lending);
        assert!(as_token(&Token(&loan)).is_some_and(|token| Arc::ptr_eq(token.0, &loan)));
        assert!(as_token(&&Token(&loan)).is_none());
        assert!(as_token(&Lent(&loan)).is_none());
        assert!(as_token(&loan).is_none());
        assert!(as_token("lent").is_none());

        let received = from_loan::<Received>(Arc::clone(&loan));
        assert!(matches!(received, Ok(Received::Loan(received)) if Arc::ptr_eq(&received, &loan)));
        assert!(from_loan::<Option<Received>>(Arc::clone(&loan)).is_err());
        assert!(from_loan::<Arc<dyn Loan>>(Arc::clone(&loan)).is_err());
        assert_eq!(Arc::strong_count(&loan), 1, "none is left behind");
    }
}
