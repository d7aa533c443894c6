//! A method's form as a graph: what it is hashed from, and written from.
//!
//! Types that are the same on the wire may be made of different parts (`Option<T>` and `Option<Box<T>>` have visitors of their
//! own), and a recursive type may be met at any of its turns. So nodes that nobody could tell apart, however far both are
//! followed, are taken for one: they are of one class.

use std::collections::HashMap;
use std::hash::Hash;

use super::graph::{Content, Kind, Part, Slot, State, Variant};
use super::{Opaque, Why};
use crate::type_name::without_modules;

/// What a node is, but for what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Head {
    /// What has nothing in it, as it is written.
    Word(String),
    Option,
    Seq,
    Map,
    Tuple(usize),
    Struct(&'static [&'static str]),
    Enum(&'static [&'static str]),
    /// A variant without names.
    Content,
    /// With the names of its arguments. The result comes last.
    Method(Vec<String>),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) head: Head,
    /// What is in it, by index.
    pub(super) children: Vec<usize>,
}

/// The nodes of one method.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    /// What could not be traced.
    pub(super) opaque: Vec<Opaque>,
}

impl Nodes {
    pub(super) fn push(&mut self, head: Head, children: Vec<usize>) -> usize {
        self.nodes.push(Node { head, children });
        self.nodes.len() - 1
    }

    fn word(&mut self, word: impl Into<String>) -> usize {
        self.push(Head::Word(word.into()), Vec::new())
    }

    /// What is known by its name alone.
    pub(super) fn opaque(&mut self, name: &str, why: Why) -> usize {
        // Who takes `&[T]` holds a type of its own, and who returns it a `Vec`.
        let short = without_modules(name).replace("HeldSlice<", "Vec<");
        let word = self.word(format!("opaque {short}"));
        self.note(short, why);
        word
    }

    pub(super) fn note(&mut self, name: String, why: Why) {
        let opaque = Opaque { name, why };
        if !self.opaque.contains(&opaque) {
            self.opaque.push(opaque);
        }
    }

    /// Takes in what was traced, and gives the node of its root.
    pub(super) fn add(&mut self, parts: &[Part], root: &Content) -> usize {
        let first = self.nodes.len();
        // One for each part, so that those that are around each other know each other's.
        for _ in parts {
            self.word("_");
        }
        let traced = Traced { parts, first };
        for (index, part) in parts.iter().enumerate() {
            let one = |at: usize| part.slots.get(at).and_then(Option::as_ref);
            let (head, children) = match part.kind {
                // What is in it stands in its place.
                Kind::Newtype => continue,
                Kind::Tuple(0) => (Head::Word("()".into()), Vec::new()),
                Kind::Option => (Head::Option, vec![self.slot(traced, one(0))]),
                Kind::Seq => (Head::Seq, vec![self.slot(traced, one(0))]),
                Kind::Map => (Head::Map, vec![self.slot(traced, one(0)), self.slot(traced, one(1))]),
                Kind::Tuple(len) => (Head::Tuple(len), self.slots(traced, &part.slots)),
                Kind::Struct(names) => (Head::Struct(names), self.fields(traced, names, &part.slots)),
                Kind::Enum(names) => {
                    let variants = part.variants.iter();
                    (Head::Enum(names), variants.map(|variant| self.variant(traced, variant)).collect())
                }
            };
            self.nodes[first + index] = Node { head, children };
        }
        self.slot(traced, Some(root))
    }

    fn slot(&mut self, traced: Traced<'_>, content: Option<&Content>) -> usize {
        match traced.within(content) {
            Some(Content::Plain(name)) => self.word(*name),
            Some(Content::Bytes) => {
                let byte = self.word("u8");
                self.push(Head::Seq, vec![byte])
            }
            Some(Content::Loan(form)) => self.word(form),
            Some(Content::Opaque(name, why)) => self.opaque(name, *why),
            Some(Content::Part(part)) => traced.first + part,
            // What was never asked for is nothing that anybody could tell.
            None => self.word("_"),
        }
    }

    fn slots(&mut self, traced: Traced<'_>, slots: &[Slot]) -> Vec<usize> {
        slots.iter().map(|slot| self.slot(traced, slot.as_ref())).collect()
    }

    fn fields(&mut self, traced: Traced<'_>, names: &[&str], slots: &[Slot]) -> Vec<usize> {
        (0..names.len()).map(|at| self.slot(traced, slots.get(at).and_then(Option::as_ref))).collect()
    }

    fn variant(&mut self, traced: Traced<'_>, variant: &Variant) -> usize {
        match variant.kind {
            Some(Kind::Struct(names)) => {
                let fields = self.fields(traced, names, &variant.slots);
                self.push(Head::Struct(names), fields)
            }
            None if variant.state == State::Refused => self.word("(!)"),
            None | Some(Kind::Tuple(0)) => self.word(""),
            Some(_) => {
                let slots = self.slots(traced, &variant.slots);
                self.push(Head::Content, slots)
            }
        }
    }

    /// Gives each node the number of its class.
    pub(super) fn classes(&self) -> Vec<usize> {
        let (mut classes, mut count) = number(self.nodes.iter().map(|node| &node.head));
        loop {
            let within = |node: &Node| {
                let mut within = node.children.iter().map(|child| classes[*child]).collect::<Vec<_>>();
                if is_array(node, &classes) {
                    within.truncate(1);
                }
                within
            };
            let split = number(self.nodes.iter().zip(&classes).map(|(node, class)| (*class, within(node))));
            // Classes are only ever split, so as many are the same ones.
            if split.1 == count {
                return classes;
            }
            (classes, count) = split;
        }
    }

    /// A number that is the same for what is of one class, in every process. It is never 0.
    pub(super) fn fingerprint(&self, classes: &[usize], root: usize) -> u64 {
        let mut hash = Fnv::default();
        // Each class once, in the order in which they are met from the root.
        let mut met = vec![root];
        let mut numbers = HashMap::from([(classes[root], 0)]);
        let mut next = 0;
        while let Some(node) = met.get(next).map(|node| &self.nodes[*node]) {
            next += 1;
            hash.head(&node.head);
            let is_array = is_array(node, classes);
            let children = if is_array { &node.children[..1] } else { &node.children };
            hash.number(children.len());
            for child in children {
                let number = *numbers.entry(classes[*child]).or_insert_with(|| {
                    met.push(*child);
                    met.len() - 1
                });
                hash.number(number);
            }
        }
        hash.0.max(1)
    }
}

/// What one type was found to be made of, and the first of its nodes.
#[derive(Clone, Copy)]
struct Traced<'t> {
    parts: &'t [Part],
    first: usize,
}

impl<'t> Traced<'t> {
    /// What is in the newtypes that are around it.
    fn within(self, content: Option<&'t Content>) -> Option<&'t Content> {
        let mut content = content;
        // One that is within itself alone has nothing in it.
        for _ in 0..=self.parts.len() {
            match content {
                Some(Content::Part(part)) if self.parts[*part].kind == Kind::Newtype => {
                    content = self.parts[*part].slots.first().and_then(Option::as_ref);
                }
                _ => return content,
            }
        }
        None
    }
}

/// Whether it is a tuple of equal elements: an array is the same on the wire.
pub(super) fn is_array(node: &Node, classes: &[usize]) -> bool {
    matches!(node.head, Head::Tuple(_))
        && node.children.windows(2).all(|pair| classes[pair[0]] == classes[pair[1]])
}

/// Numbers equal keys alike; says how many there are.
fn number<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> (Vec<usize>, usize) {
    let mut numbers = HashMap::new();
    let numbered = keys
        .map(|key| {
            let next = numbers.len();
            *numbers.entry(key).or_insert(next)
        })
        .collect();
    (numbered, numbers.len())
}

/// The FNV-1a hash.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }

    /// With its length, so that where one ends and the next begins counts.
    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes(text.as_bytes());
    }

    fn texts<T: AsRef<str>>(&mut self, texts: &[T]) {
        self.number(texts.len());
        texts.iter().for_each(|text| self.text(text.as_ref()));
    }

    fn head(&mut self, head: &Head) {
        match head {
            Head::Word(word) => self.texts(&["word", word]),
            Head::Option => self.text("option"),
            Head::Seq => self.text("sequence"),
            Head::Map => self.text("map"),
            Head::Content => self.text("content"),
            Head::Tuple(len) => {
                self.text("tuple");
                self.number(*len);
            }
            Head::Struct(names) => {
                self.text("struct");
                self.texts(names);
            }
            Head::Enum(names) => {
                self.text("enum");
                self.texts(names);
            }
            Head::Method(names) => {
                self.text("method");
                self.texts(names);
            }
        }
    }
}
