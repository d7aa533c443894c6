//! Values for types that ask what comes next, which say what they want only as they refuse something else:
//! that this field is missing, or that a text is no variant of these.
//!
//! Such a type first gets something of each kind. From what it says of that, better guesses are made, until
//! there are no more: so that it takes a value of each of its variants.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::search::Trace;
use super::tracer::Refused;
use super::values::STRINGS;
use crate::form::graph::{Content, Open, Slot};
use crate::type_name::without_modules;

/// How many guesses are made for a type.
const MOST: usize = 512;
/// How many values are in a guess, at most.
const MOST_VALUES: usize = 48;
/// Of how many refusals is noted what they say, for each guess.
const MOST_HINTS: usize = 64;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Guess {
    /// A text that is nowhere else, so that it is known when it is refused.
    Hole(usize),
    Unit,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// The bits of an `f64`.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    Seq(Vec<Guess>),
    Map(Vec<(String, Guess)>),
}

/// What a type said as it refused a guess.
#[derive(Clone, Debug)]
pub(super) enum Hint {
    /// A field is missing in some map.
    Missing(&'static str),
    /// A text is no name of any of these.
    Unknown(String, &'static [&'static str]),
    /// A text is not what is expected.
    Instead(String, String),
    /// A sequence of so many elements is not.
    Length(usize),
    /// Something else, in these words.
    Other(String),
}

thread_local! {
    /// Where types say why they refuse: many of them ask again before anybody hears of it.
    static HINTS: RefCell<Option<Vec<Hint>>> = const { RefCell::new(None) };
}

/// Notes what a type says.
pub(super) fn note(hint: impl FnOnce() -> Hint) {
    if HINTS.with_borrow(|hints| hints.as_ref().is_none_or(|hints| hints.len() >= MOST_HINTS)) {
        return;
    }
    // Words of the type's own, which may refuse something in turn.
    let hint = hint();
    HINTS.with_borrow_mut(|hints| hints.get_or_insert_default().push(hint));
}

/// The text that a type was given, if it was one.
pub(super) fn text_of(unexpected: Unexpected<'_>) -> Option<String> {
    match unexpected {
        Unexpected::Str(text) => Some(text.to_owned()),
        _ => None,
    }
}

/// A guess, and what it shows if it is taken.
#[derive(Clone, Debug)]
struct Try {
    guess: Guess,
    probe: Option<Probe>,
}

/// One value that a type wrote without having been given it, and that the guess has changed.
#[derive(Clone, Debug)]
struct Probe {
    /// The map that it was added to, as it was.
    map: Vec<(String, Guess)>,
    key: String,
    was: Guess,
    /// Where the change is.
    path: String,
}

/// The guesses for one type.
#[derive(Debug)]
pub(super) struct Guesses {
    waiting: VecDeque<Try>,
    made: HashSet<Guess>,
    current: Option<Try>,
    /// Whether the type took that.
    is_taken: bool,
    /// The last that was taken.
    good: Option<Guess>,
    /// The pass in which the current one was used.
    used: usize,
    /// Whether the type wants a number of 128 bits, which serde does not buffer.
    pub(super) is_too_wide: bool,
}

impl Guesses {
    /// For a type that takes anything, or only maps.
    pub(super) fn new(only_maps: bool) -> Self {
        let mut guesses = Self {
            waiting: VecDeque::new(),
            made: HashSet::new(),
            current: None,
            is_taken: false,
            good: None,
            used: 0,
            is_too_wide: false,
        };
        if only_maps {
            guesses.add(Guess::Map(Vec::new()), None);
        } else {
            kinds(0).into_iter().for_each(|guess| guesses.add(guess, None));
        }
        guesses
    }

    fn add(&mut self, guess: Guess, probe: Option<Probe>) {
        if self.made.len() < MOST && guess.values() <= MOST_VALUES && self.made.insert(guess.clone()) {
            self.waiting.push_back(Try { guess, probe });
        }
    }

    /// Whether there is one that has not been tried.
    pub(super) fn is_open(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }

    /// What to try in this pass; none if none is right.
    pub(super) fn next(&mut self, pass: usize) -> Option<Guess> {
        if self.current.is_none() {
            self.current = self.waiting.pop_front();
            self.is_taken = false;
        }
        let Some(current) = &self.current else { return self.good.clone() };
        if self.used != pass {
            self.used = pass;
            HINTS.set(Some(Vec::new()));
        }
        Some(current.guess.clone())
    }

    /// The type took what was tried in this pass, or not. Whether it was a guess.
    pub(super) fn tried(&mut self, pass: usize, is_taken: bool) -> bool {
        let Some(current) = self.current.as_ref().filter(|_| self.used == pass) else { return false };
        let current = current.guess.clone();
        let hints = HINTS.take();
        if !self.is_taken {
            hints.unwrap_or_default().iter().for_each(|hint| self.refine(&current, hint));
        }
        self.is_taken |= is_taken;
        if is_taken {
            self.good = Some(current);
        } else if !self.is_taken {
            self.current = None;
        }
        true
    }

    /// Looks at a value for which a guess was taken, as it is written again: at what stands in it besides, and
    /// whether what the guess changed is there. If not, that is written and never read: its names.
    pub(super) fn compare(&mut self, pass: usize, written: &Guess) -> Option<String> {
        let current = self.current.clone().filter(|_| self.used == pass && self.is_taken)?;
        let mut all = Vec::new();
        written.maps(&mut all);
        if let Some(Probe { map, key, was, path }) = current.probe {
            let mut same = all.into_iter().filter(|written| are_in(&map, written));
            let value = same.find_map(|written| value_of(written, &key))?;
            return (*value == was).then_some(path);
        }
        let mut guessed = Vec::new();
        current.guess.maps(&mut guessed);
        for map in guessed.into_iter().filter(|map| !map.is_empty()) {
            for written in all.iter().filter(|written| are_in(map, written)) {
                let besides = written.iter().filter(|(key, _)| value_of(map, key).is_none());
                for (key, was) in besides {
                    for (path, changed) in was.changed() {
                        self.add_probe(&current.guess, map, key, (was, &path, changed));
                    }
                }
            }
        }
        None
    }

    fn add_probe(
        &mut self,
        guess: &Guess,
        map: &[(String, Guess)],
        key: &str,
        (was, path, changed): (&Guess, &[String], Guess),
    ) {
        let path = std::iter::once(key).chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
        let probe = Probe { map: map.to_vec(), key: key.to_owned(), was: was.clone(), path };
        let mut with = Vec::new();
        guess.each_with(&mut with, &|at| match at {
            Guess::Map(entries) if entries == map => {
                let mut entries = entries.clone();
                entries.push((key.to_owned(), changed.clone()));
                vec![Guess::Map(entries)]
            }
            _ => Vec::new(),
        });
        with.into_iter().for_each(|guess| self.add(guess, Some(probe.clone())));
    }

    /// All of a value was made: another guess may be tried.
    pub(super) fn succeeded(&mut self, pass: usize) {
        if self.used == pass && self.is_taken {
            self.current = None;
        }
    }

    fn refine(&mut self, guess: &Guess, hint: &Hint) {
        let next = guess.values();
        let mut better = Vec::new();
        match hint {
            Hint::Other(message) => self.is_too_wide |= message.ends_with("128 is not supported"),
            Hint::Missing(field) => guess.each_with(&mut better, &|at| match at {
                Guess::Map(entries) if entries.iter().all(|(key, _)| key != field) => {
                    let mut entries = entries.clone();
                    entries.push(((*field).to_owned(), Guess::Hole(next)));
                    vec![Guess::Map(entries)]
                }
                _ => Vec::new(),
            }),
            Hint::Unknown(text, names) => guess.each_with(&mut better, &|at| match at {
                Guess::Hole(number) if hole(*number) == *text => {
                    let unit = names.iter().map(|name| Guess::Text((*name).to_owned()));
                    let with = |name: &&str| Guess::Map(vec![((*name).to_owned(), Guess::Hole(next))]);
                    unit.chain(names.iter().map(with)).collect()
                }
                _ => Vec::new(),
            }),
            Hint::Instead(text, expected) => guess.each_with(&mut better, &|at| match at {
                Guess::Hole(number) if hole(*number) == *text => of_kind(expected, next),
                _ => Vec::new(),
            }),
            Hint::Length(len) => guess.each_with(&mut better, &|at| match at {
                Guess::Seq(elements) if elements.len() == *len => {
                    let mut elements = elements.clone();
                    elements.push(Guess::Hole(next));
                    vec![Guess::Seq(elements)]
                }
                _ => Vec::new(),
            }),
        }
        better.into_iter().for_each(|guess| self.add(guess, None));
    }
}

impl Trace {
    /// What of a value, as it is written, is never read by a type in it that asks what comes next.
    pub(super) fn unread(&mut self, written: impl FnOnce() -> Option<Guess>) -> Option<String> {
        if self.guesses.is_empty() {
            return None;
        }
        let written = written()?;
        let path = self.guesses.values_mut().find_map(|guesses| guesses.compare(self.pass, &written))?;
        Some(format!(
            "`{path}` is written, and not read again: give it one name on both sides (`rename`, `alias`), or leave \
             it out on both (`skip`)"
        ))
    }

    /// What comes next for the type at hand, which asks.
    pub(super) fn guess(&mut self, only_maps: bool) -> Option<Guess> {
        let (id, _) = *self.around.last()?;
        let pass = self.pass;
        self.guesses.entry(id).or_insert_with(|| Guesses::new(only_maps)).next(pass)
    }

    /// The type at hand, which asks.
    pub(super) fn asking(&self) -> Slot {
        self.around.last().map(|(id, name)| Content::Any(name, *id))
    }

    /// Those for which there is more to try.
    pub(super) fn open(&self) -> Open {
        self.guesses.iter().filter(|(_, guesses)| guesses.is_open()).map(|(id, _)| *id).collect()
    }
}

/// What is said of a type that wants numbers of 128 bits.
#[cold]
pub(super) fn too_wide(name: &str) -> String {
    format!(
        "`{}` asks what comes next, and has a number of 128 bits, which serde does not carry there: pass it as \
         text, or as two numbers of 64 bits",
        without_modules(name)
    )
}

/// Something of each kind. Holes have numbers from `next` on.
fn kinds(next: usize) -> Vec<Guess> {
    let hole = || Guess::Hole(next);
    vec![
        hole(),
        Guess::Map(Vec::new()),
        Guess::Seq(Vec::new()),
        Guess::Seq(vec![hole()]),
        Guess::Map(vec![("a".into(), hole())]),
        Guess::Unsigned(1),
        Guess::Signed(-1),
        Guess::Float(1.5_f64.to_bits()),
        Guess::Bool(true),
        Guess::Unit,
    ]
}

/// What a type may want that says so in these words, which are serde's for the usual types.
fn of_kind(expected: &str, next: usize) -> Vec<Guess> {
    let hole = || Guess::Hole(next);
    let says = |words: &[&str]| words.iter().any(|word| expected.contains(word));
    if says(&["tuple", "sequence", "array"]) {
        return vec![Guess::Seq(vec![hole()]), Guess::Seq(Vec::new())];
    }
    if says(&["struct", "map"]) {
        return vec![Guess::Map(Vec::new()), Guess::Map(vec![("a".into(), hole())]), Guess::Unit];
    }
    match expected {
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => vec![Guess::Signed(-1)],
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => vec![Guess::Unsigned(1)],
        "f32" | "f64" => vec![Guess::Float(1.5_f64.to_bits())],
        "a boolean" => vec![Guess::Bool(true)],
        "unit" => vec![Guess::Unit],
        "a character" => vec![Guess::Text("a".into())],
        _ => {
            let texts = STRINGS.iter().map(|text| Guess::Text((*text).to_owned()));
            kinds(next).into_iter().skip(1).chain(texts).collect()
        }
    }
}

fn value_of<'g>(map: &'g [(String, Guess)], key: &str) -> Option<&'g Guess> {
    map.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

/// Whether all entries of a guess are in what was written.
fn are_in(entries: &[(String, Guess)], written: &[(String, Guess)]) -> bool {
    entries.iter().all(|(key, value)| value_of(written, key).is_some_and(|written| value.is_in(written)))
}

fn hole(number: usize) -> String {
    format!("hole {number}")
}

impl Guess {
    /// How many values it consists of.
    fn values(&self) -> usize {
        1 + match self {
            Self::Seq(elements) => elements.iter().map(Self::values).sum(),
            Self::Map(entries) => entries.iter().map(|(_, value)| value.values()).sum(),
            _ => 0,
        }
    }

    /// Adds to `found` what becomes of this guess where one of its values is replaced by each of those that
    /// `other` has for it.
    fn each_with(&self, found: &mut Vec<Self>, other: &dyn Fn(&Self) -> Vec<Self>) {
        found.extend(other(self));
        let mut within = Vec::new();
        match self {
            Self::Seq(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    element.each_with(&mut within, other);
                    found.extend(within.drain(..).map(|element| {
                        let mut elements = elements.clone();
                        elements[at] = element;
                        Self::Seq(elements)
                    }));
                }
            }
            Self::Map(entries) => {
                for (at, (_, value)) in entries.iter().enumerate() {
                    value.each_with(&mut within, other);
                    found.extend(within.drain(..).map(|value| {
                        let mut entries = entries.clone();
                        entries[at].1 = value;
                        Self::Map(entries)
                    }));
                }
            }
            _ => {}
        }
    }
}

/// A guess, to be decoded.
pub(super) struct Reader<'g>(pub(super) &'g Guess);

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.0 {
            Guess::Hole(number) => visitor.visit_string(hole(*number)),
            Guess::Unit => visitor.visit_unit(),
            Guess::Bool(value) => visitor.visit_bool(*value),
            Guess::Unsigned(number) => visitor.visit_u64(*number),
            Guess::Signed(number) => visitor.visit_i64(*number),
            Guess::Float(bits) => visitor.visit_f64(f64::from_bits(*bits)),
            Guess::Text(text) => visitor.visit_string(text.clone()),
            Guess::Bytes(bytes) => visitor.visit_byte_buf(bytes.clone()),
            Guess::Seq(elements) => visitor.visit_seq(Elements(elements.iter())),
            Guess::Map(entries) => visitor.visit_map(Entries { left: entries.iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.0 {
            Guess::Unit => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self.0 {
            Guess::Hole(number) => {
                StrDeserializer::<Refused>::new(&hole(*number)).deserialize_enum(name, variants, visitor)
            }
            Guess::Text(text) => {
                StrDeserializer::<Refused>::new(text).deserialize_enum(name, variants, visitor)
            }
            Guess::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries { left: entries.iter(), value: None }))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Elements<'g>(std::slice::Iter<'g, Guess>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        self.0.next().map(|element| seed.deserialize(Reader(element))).transpose()
    }
}

struct Entries<'g> {
    left: std::slice::Iter<'g, (String, Guess)>,
    value: Option<&'g Guess>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        seed.deserialize(Reader(self.value.take().ok_or(Refused)?))
    }
}

/// What was written, as a guess.
impl<'de> Deserialize<'de> for Guess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Guess;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Guess, E> {
        Ok(Guess::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Guess, E> {
        Ok(Guess::Unsigned(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Guess, E> {
        Ok(Guess::Signed(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Guess, E> {
        Ok(Guess::Float(number.to_bits()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Guess, E> {
        Ok(Guess::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Guess, E> {
        Ok(Guess::Bytes(bytes.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Guess, E> {
        Ok(Guess::Unit)
    }

    fn visit_none<E>(self) -> Result<Guess, E> {
        Ok(Guess::Unit)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Guess, D::Error> {
        Guess::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Guess, D::Error> {
        Guess::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Guess, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Guess::Seq(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Guess, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Guess, Guess>()? {
            let Guess::Text(key) = key else {
                return Err(de::Error::custom("a key that is no text"));
            };
            entries.push((key, value));
        }
        Ok(Guess::Map(entries))
    }
}

impl Guess {
    /// This value with one within it changed, for each of those that can be, and the names on the way there.
    fn changed(&self) -> Vec<(Vec<String>, Self)> {
        let mut found = Vec::new();
        match self {
            Self::Map(entries) => {
                for (at, (key, value)) in entries.iter().enumerate() {
                    for (mut path, value) in value.changed() {
                        let mut entries = entries.clone();
                        entries[at].1 = value;
                        path.insert(0, key.clone());
                        found.push((path, Self::Map(entries)));
                    }
                }
            }
            Self::Seq(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    for (path, element) in element.changed() {
                        let mut elements = elements.clone();
                        elements[at] = element;
                        found.push((path, Self::Seq(elements)));
                    }
                }
            }
            _ => found.extend(self.other().map(|other| (Vec::new(), other))),
        }
        found
    }

    /// All maps within.
    fn maps<'g>(&'g self, found: &mut Vec<&'g [(String, Self)]>) {
        match self {
            Self::Map(entries) => {
                found.push(entries);
                entries.iter().for_each(|(_, value)| value.maps(found));
            }
            Self::Seq(elements) => elements.iter().for_each(|element| element.maps(found)),
            _ => {}
        }
    }

    /// Whether it is this value as it is written again: something may have been added to its maps.
    fn is_in(&self, written: &Self) -> bool {
        match (self, written) {
            (Self::Hole(number), Self::Text(text)) => hole(*number) == *text,
            (Self::Map(entries), Self::Map(written)) => are_in(entries, written),
            (Self::Seq(elements), Self::Seq(written)) => {
                elements.len() == written.len()
                    && elements.iter().zip(written).all(|(element, written)| element.is_in(written))
            }
            // A number may have another type by now.
            (
                Self::Unsigned(_) | Self::Signed(_) | Self::Float(_),
                Self::Unsigned(_) | Self::Signed(_) | Self::Float(_),
            ) => true,
            _ => self == written,
        }
    }

    /// Another value of the same kind, or of any for nothing.
    fn other(&self) -> Option<Self> {
        Some(match self {
            Self::Unit => Self::Unsigned(1),
            Self::Bool(value) => Self::Bool(!value),
            // Within all types of numbers.
            Self::Unsigned(number) => Self::Unsigned(if *number < 2 { number + 1 } else { 1 }),
            Self::Signed(number) => Self::Signed(if *number == -1 { -2 } else { -1 }),
            Self::Float(bits) => Self::Float((f64::from_bits(*bits) + 0.5).to_bits()),
            Self::Text(text) => Self::Text(format!("{text}1")),
            _ => return None,
        })
    }
}
