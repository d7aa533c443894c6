//! A method's form as a graph, from which its hash and its text are made.
//!
//! Types that are the same on the wire may consist of different parts (`Option<T>` and `Option<Box<T>>` have
//! different visitors), and a recursive type may be entered at any of its turns. So nodes that cannot be told
//! apart, however far both are followed, belong to the same class and count as one.

use std::collections::HashMap;
use std::hash::Hash;

use super::graph::{Content, Kind, Part, Slot, Variant};
use super::{Opaque, Why};
use crate::type_name::without_modules;

/// What a node is, without its children.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Head {
    /// A type without content, as it is written.
    Word(String),
    Option,
    Seq,
    Map,
    Tuple(usize),
    Struct(Vec<&'static str>),
    Enum(Vec<&'static str>),
    /// A variant without names.
    Content,
    /// The described coding of its child.
    Described,
    /// The names of its arguments. The result is the last child.
    Method(Vec<String>),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) head: Head,
    /// Its children, by index.
    pub(super) children: Vec<usize>,
}

/// The nodes of one method.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    /// The types that could not be traced.
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

    /// Adds a type that is known by its name alone.
    pub(super) fn opaque(&mut self, name: &str, why: Why) -> usize {
        let short = short(name);
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

    /// Adds the parts that tracing found. Returns the node of their root.
    pub(super) fn add(&mut self, parts: &[Part], root: &Content) -> usize {
        let first = self.nodes.len();
        // First a node for each part, since parts may contain each other.
        for _ in parts {
            self.word("_");
        }
        let traced = Traced { parts, first };
        for (index, part) in parts.iter().enumerate() {
            let one = |at: usize| part.slots.get(at).and_then(Option::as_ref);
            let (head, children) = match part.kind {
                // Its content takes its place.
                Kind::Newtype => continue,
                Kind::Tuple(0) => (Head::Word("()".into()), Vec::new()),
                Kind::Option => (Head::Option, vec![self.slot(traced, one(0))]),
                Kind::Seq => (Head::Seq, vec![self.slot(traced, one(0))]),
                Kind::Map => (Head::Map, vec![self.slot(traced, one(0)), self.slot(traced, one(1))]),
                Kind::Tuple(len) => (Head::Tuple(len), self.slots(traced, &part.slots)),
                Kind::Struct(names) => {
                    let names = part.keys.clone().unwrap_or_else(|| names.into());
                    let fields = self.fields(traced, names.len(), &part.slots);
                    (Head::Struct(names), fields)
                }
                Kind::Enum(names) => {
                    let variants = &part.variants[..part.readable()];
                    let name = |(variant, name): (&Variant, &&'static str)| variant.name.unwrap_or(name);
                    let names = variants.iter().zip(names).map(name).collect();
                    let variants = variants.iter();
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
            Some(Content::Any(name, _)) => self.word(format!("any {}", short(name))),
            Some(Content::Opaque(name, why)) => self.opaque(name, *why),
            Some(Content::Part(part)) => traced.first + part,
            // Content that was never asked for cannot be known.
            None => self.word("_"),
        }
    }

    fn slots(&mut self, traced: Traced<'_>, slots: &[Slot]) -> Vec<usize> {
        slots.iter().map(|slot| self.slot(traced, slot.as_ref())).collect()
    }

    fn fields(&mut self, traced: Traced<'_>, count: usize, slots: &[Slot]) -> Vec<usize> {
        (0..count).map(|at| self.slot(traced, slots.get(at).and_then(Option::as_ref))).collect()
    }

    fn variant(&mut self, traced: Traced<'_>, variant: &Variant) -> usize {
        match variant.kind {
            Some(Kind::Struct(names)) => {
                let names = variant.keys.clone().unwrap_or_else(|| names.into());
                let fields = self.fields(traced, names.len(), &variant.slots);
                self.push(Head::Struct(names), fields)
            }
            None if variant.is_out() => self.word("(!)"),
            None | Some(Kind::Tuple(0)) => self.word(""),
            Some(_) => {
                let slots = self.slots(traced, &variant.slots);
                self.push(Head::Content, slots)
            }
        }
    }

    /// The class of each node.
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
            // Classes are only ever split, so if their number stays the same, they do.
            if split.1 == count {
                return classes;
            }
            (classes, count) = split;
        }
    }

    /// A number that is the same for all nodes of a class, in every process. It is never 0.
    pub(super) fn fingerprint(&self, classes: &[usize], root: usize) -> u64 {
        let mut hash = Fnv::default();
        // Each class once, in the order in which a walk from the root meets them.
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

/// The parts of one traced type, and the first of its nodes.
#[derive(Clone, Copy)]
struct Traced<'t> {
    parts: &'t [Part],
    first: usize,
}

impl<'t> Traced<'t> {
    /// The content of the newtypes around it.
    fn within(self, content: Option<&'t Content>) -> Option<&'t Content> {
        let mut content = content;
        // A newtype that only contains itself has no content.
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

/// Whether it is a tuple of equal elements, which is the same as an array on the wire.
pub(super) fn is_array(node: &Node, classes: &[usize]) -> bool {
    matches!(node.head, Head::Tuple(_))
        && node.children.windows(2).all(|pair| classes[pair[0]] == classes[pair[1]])
}

/// Gives equal keys the same number. Returns how many there are.
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

    /// Includes the length, so that it matters where one text ends and the next begins.
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
            Head::Described => self.text("described"),
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

/// A type's name. A receiver of `&[T]` holds a type of lpc's own, a sender of results a `Vec`.
fn short(name: &str) -> String {
    without_modules(name).replace("HeldSlice<", "Vec<")
}
