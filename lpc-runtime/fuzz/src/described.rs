//! Bytes of the coding that describes itself are a value or an error, the same wherever they stand, for types that
//! ask what comes next, and for those that do not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lpc_core::codec::Coding;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::values::owned_as;

/// A byte that chooses the type, one that chooses how it is read, then the value's bytes.
pub fn run(data: &[u8]) {
    let [choice, reading, data @ ..] = data else { return };
    let (coding, reading) = (Coding::Described, usize::from(*reading));
    match choice % 16 {
        0 => drop(owned_as::<Value>(coding, data, reading)),
        1 => drop(owned_as::<Untagged>(coding, data, reading)),
        2 => drop(owned_as::<Tagged>(coding, data, reading)),
        3 => drop(owned_as::<Adjacent>(coding, data, reading)),
        4 => drop(owned_as::<Flat>(coding, data, reading)),
        5 => drop(owned_as::<Plain>(coding, data, reading)),
        6 => drop(owned_as::<Sparse>(coding, data, reading)),
        7 => drop(owned_as::<Tree>(coding, data, reading)),
        8 => drop(owned_as::<Option<Option<u8>>>(coding, data, reading)),
        9 => drop(owned_as::<(u8, i8, u64, i64, u128, i128, f32, f64, char)>(coding, data, reading)),
        10 => drop(owned_as::<Vec<Vec<u8>>>(coding, data, reading)),
        11 => drop(owned_as::<([u8; 5], [u16; 2], Box<str>)>(coding, data, reading)),
        12 => drop(owned_as::<BTreeMap<String, Option<Plain>>>(coding, data, reading)),
        13 => drop(owned_as::<Vec<PathBuf>>(coding, data, reading)),
        14 => drop(owned_as::<Result<Vec<()>, Value>>(coding, data, reading)),
        _ => drop(owned_as::<Ignoring>(coding, data, reading)),
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Signed(i64),
    Text(String),
    Many(Vec<Untagged>),
    Named { name: Option<Box<Untagged>> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Nothing,
    Small { size: u8, inner: Option<Box<Tagged>> },
    Large(Plain),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content")]
enum Adjacent {
    Nothing,
    One(Vec<Adjacent>),
    Two(u8, String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Flat {
    number: u32,
    #[serde(flatten)]
    plain: Plain,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    id: u64,
    name: String,
    #[serde(default)]
    body: Vec<u8>,
    shape: Shape,
}

#[derive(Debug, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Rectangle(u32, u32),
    Text { at: (i16, i16), text: String },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty", alias = "others")]
    second: Vec<Sparse>,
}

/// As deep as a message can say.
#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf(u8),
    Node(Box<Tree>, Box<Tree>),
    Named { one: Option<Box<Tree>> },
    Many(Vec<Tree>),
}

/// It skips what it does not know.
#[derive(Debug, Serialize, Deserialize)]
struct Ignoring {
    known: Option<u8>,
}
