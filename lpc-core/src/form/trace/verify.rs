//! Whether a value is the same when it comes back in the described coding.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;

use super::guess::Guess;
use crate::codec::{Coding, Decoder, encode_as};

/// Longer ones are not tried.
const MAX_LEN: usize = 64 << 10;

/// What `value` loses on its way, if it does: it is written, read, and written again.
pub(super) fn lost<T: Serialize + Deserialize<'static>>(value: &T) -> Option<String> {
    // A value that is never written loses nothing.
    let bytes = encoded(value).filter(|bytes| bytes.len() <= MAX_LEN)?;
    // The type may borrow from them for as long as the program runs. There are a few for each type.
    let bytes: &'static [u8] = bytes.leak();
    let again = match decoded::<T>(bytes) {
        Ok(again) => again,
        Err(error) => return Some(format!("what it is written as cannot be read: {error}")),
    };
    let again = encoded(&again)?;
    // What a default makes anew each time (an identifier that is not read, say) is no loss.
    if again == bytes || encoded(&decoded::<T>(bytes).ok()?)? != again {
        return None;
    }
    let (Ok(one), Ok(other)) = (decoded::<Item>(bytes), decoded::<Item>(&again)) else { return None };
    let at = one.difference(&other)?;
    Some(format!(
        "{at} is lost between writing and reading: give it one name on both sides (`rename`, `alias`), and let \
         the attributes of both sides agree"
    ))
}

/// How a value is written.
pub(super) fn written<T: Serialize>(value: &T) -> Option<Guess> {
    decoded(encoded(value).filter(|bytes| bytes.len() <= MAX_LEN)?.as_slice()).ok()
}

fn encoded<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_as(Coding::Described, value, &mut bytes).ok()?;
    Some(bytes)
}

fn decoded<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.next_as(Coding::Described).map_err(|error| error.message().to_owned())?;
    decoder.end().map_err(|error| error.message().to_owned())?;
    Ok(value)
}

/// A described item, whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Plain(String),
    Some(Box<Item>),
    Seq(Vec<Item>),
    /// In the order of its keys.
    Map(Vec<(Item, Item)>),
}

impl Item {
    /// Where two items differ. The order of elements and entries does not matter: a set may have any.
    fn difference(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Some(one), Self::Some(other)) => one.difference(other),
            (Self::Seq(one), Self::Seq(other)) if one.len() == other.len() => {
                let sorted = |items: &[Self]| {
                    let mut items = items.to_vec();
                    items.sort();
                    items
                };
                match one.iter().zip(other).find_map(|(one, other)| one.difference(other)) {
                    Some(_) if sorted(one) == sorted(other) => None,
                    found => found,
                }
            }
            (Self::Map(one), Self::Map(other)) => {
                let theirs =
                    |key: &Self| other.iter().find(|(other, _)| other == key).map(|(_, value)| value);
                let lost = one.iter().find_map(|(key, value)| match theirs(key) {
                    Some(other) => value.difference(other).map(|within| match key {
                        Self::Plain(key) if !within.starts_with('`') => format!("`{key}`"),
                        Self::Plain(key) => format!("`{key}.{}", &within[1..]),
                        _ => within,
                    }),
                    None => Some(key.to_string()),
                });
                lost.or_else(|| (one.len() != other.len()).then(|| "an entry".into()))
            }
            _ => (self != other).then(|| "a value".into()),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => write!(f, "`{text}`"),
            _ => f.write_str("a key"),
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Items)
    }
}

struct Items;

macro_rules! plain {
    ($($method:ident $type:ty)*) => {$(
        fn $method<E>(self, value: $type) -> Result<Item, E> {
            Ok(Item::Plain(format!("{value:?}")))
        }
    )*};
}

impl<'de> Visitor<'de> for Items {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    plain! {
        visit_bool bool visit_i64 i64 visit_u64 u64 visit_i128 i128 visit_u128 u128
        visit_f32 f32 visit_f64 f64 visit_char char visit_bytes &[u8]
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Plain(text.into()))
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Plain("()".into()))
    }

    fn visit_none<E>(self) -> Result<Item, E> {
        Ok(Item::Plain("None".into()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        Item::deserialize(deserializer).map(Box::new).map(Item::Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Item::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = map.next_entry()? {
            items.push(item);
        }
        Ok(Item::Map(items))
    }
}
