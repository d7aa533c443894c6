//! Describes where two forms differ.

/// How many levels of a form are compared.
const MAX_DEPTH: usize = 128;
/// How many differences are described.
const MAX_TOLD: usize = 3;
/// How many characters of one side are shown.
const MAX_SHOWN: usize = 300;

/// Describes where two forms of a method differ. `ours` is this side's.
///
/// ```
/// use lpc_core::form::difference;
///
/// let ours = "(name: str, at: {x: u32, y: u32}) -> enum {Ok(()), Err(str)}";
/// let theirs = "(name: str, at: {x: u32, y: f64}) -> enum {Ok(()), Err(str)}";
/// assert_eq!(difference(ours, theirs), "argument `at.y` is `u32` here and `f64` there");
/// ```
///
/// `theirs` may be any text. What is shown of it is short and has no control characters.
#[must_use]
pub fn difference(ours: &str, theirs: &str) -> String {
    let mut found = Vec::new();
    if let (Some(here), Some(there)) = (method(ours), method(theirs)) {
        let [ours, theirs] = [&here.0, &there.0].map(|parts| parts.iter().map(|(name, _)| *name));
        if !ours.eq(theirs) {
            let of = |(name, tree): &(&str, Tree<'_>)| format!("{name}: {}", tree.text);
            let list = |parts: &Parts<'_>| shown(&parts.iter().map(of).collect::<Vec<_>>().join(", "));
            found.push(format!("arguments are `{}` here and `{}` there", list(&here.0), list(&there.0)));
        }
        for ((name, here), there) in common(&here.0, &there.0) {
            compare(&format!("argument `{name}"), here, there, &mut found);
        }
        compare("the result `", &here.1, &there.1, &mut found);
    }
    if found.is_empty() && ours == theirs {
        found.push("it differs deeper within than can be told".into());
    } else if found.is_empty() {
        found.push(format!("it is `{}` here and `{}` there", shown(ours), shown(theirs)));
    }
    let untold = found.len().saturating_sub(MAX_TOLD);
    found.truncate(MAX_TOLD);
    if untold > 0 {
        found.push(format!("and {untold} more"));
    }
    found.join("; ")
}

/// A form taken apart: the text before its parts, and the parts with their names. A form without parts is
/// only a head.
#[derive(PartialEq)]
struct Tree<'f> {
    text: &'f str,
    head: &'static str,
    parts: Parts<'f>,
}

type Parts<'f> = Vec<(&'f str, Tree<'f>)>;

/// A method's arguments and result.
fn method(text: &str) -> Option<(Parts<'_>, Tree<'_>)> {
    let mut parser = Parser { rest: text, depth: 0 };
    parser.eat("(").then_some(())?;
    let arguments = parser.list(")", Parser::field)?;
    parser.eat(" -> ").then_some(())?;
    let result = parser.tree()?;
    parser.rest.is_empty().then_some((arguments, result))
}

struct Parser<'f> {
    rest: &'f str,
    depth: usize,
}

impl<'f> Parser<'f> {
    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn tree(&mut self) -> Option<Tree<'f>> {
        self.depth = Some(self.depth + 1).filter(|depth| *depth <= MAX_DEPTH)?;
        let from = self.rest;
        let (head, parts) = if self.eat("enum {") {
            ("enum", self.list("}", Self::variant)?)
        } else if self.eat("{") {
            ("struct", self.list("}", Self::field)?)
        } else if self.eat("(") {
            ("tuple", self.list(")", Self::element)?)
        } else if self.eat("[") {
            let element = self.tree()?;
            // The length of an array.
            let end = self.rest.find(']')?;
            let len = &self.rest[..end];
            self.rest = &self.rest[end + 1..];
            let array = Tree { text: len, head: "", parts: Vec::new() };
            ("sequence", vec![("[]", element), ("", array)])
        } else if self.eat("described ") {
            ("described", vec![("", self.tree()?)])
        } else if self.eat("Option<") {
            ("option", self.list(">", Self::element)?)
        } else if self.eat("Map<") {
            ("map", self.list(">", Self::element)?)
        } else {
            self.word()?;
            ("", Vec::new())
        };
        self.depth -= 1;
        Some(Tree { text: &from[..from.len() - self.rest.len()], head, parts })
    }

    /// A form without parts: the text up to the next form. The name of an opaque type may contain brackets.
    fn word(&mut self) -> Option<()> {
        let mut open = 0_usize;
        let end = self.rest.find(|char| {
            match char {
                '(' | '[' | '<' => open += 1,
                ')' | ']' | '>' | '}' | ',' | ';' if open == 0 => return true,
                ')' | ']' | '>' => open -= 1,
                _ => {}
            }
            false
        });
        let end = end.unwrap_or(self.rest.len());
        self.rest = &self.rest[end..];
        (end > 0).then_some(())
    }

    fn list<T>(&mut self, end: &str, mut part: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut parts = Vec::new();
        while !self.eat(end) {
            if !parts.is_empty() && !self.eat(", ") {
                return None;
            }
            parts.push(part(self)?);
        }
        Some(parts)
    }

    fn element(&mut self) -> Option<(&'f str, Tree<'f>)> {
        Some(("", self.tree()?))
    }

    fn field(&mut self) -> Option<(&'f str, Tree<'f>)> {
        let (name, rest) = self.rest.split_once(": ")?;
        self.rest = rest;
        Some((name, self.tree()?))
    }

    fn variant(&mut self) -> Option<(&'f str, Tree<'f>)> {
        let end = self.rest.find(['(', '{', '}', ','])?;
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        let content = match rest.as_bytes().first() {
            Some(b'(' | b'{') => self.tree()?,
            _ => Tree { text: "no content", head: "", parts: Vec::new() },
        };
        Some((name, content))
    }
}

/// The parts of the same name on both sides.
fn common<'p, 'f>(
    here: &'p Parts<'f>,
    there: &'p Parts<'f>,
) -> impl Iterator<Item = ((&'f str, &'p Tree<'f>), &'p Tree<'f>)> {
    here.iter().filter_map(|(name, tree)| {
        let (_, other) = there.iter().find(|(other, _)| other == name)?;
        Some(((*name, tree), other))
    })
}

/// Describes names that only one side has, or that are in another order.
fn names(what: &str, here: &Parts<'_>, there: &Parts<'_>, found: &mut Vec<String>) {
    let of = |parts: &Parts<'_>| parts.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    let (here, there) = (of(here), of(there));
    if here != there {
        let list = |names: &[String]| shown(&names.join(", "));
        found.push(format!("{what} are `{}` here and `{}` there", list(&here), list(&there)));
    }
}

/// Describes the differences between two forms at `path`.
fn compare(path: &str, here: &Tree<'_>, there: &Tree<'_>, found: &mut Vec<String>) {
    if here.text == there.text {
        return;
    }
    let is_unnamed = matches!(here.head, "tuple" | "option" | "map" | "sequence");
    if here.head.is_empty()
        || here.head != there.head
        || (is_unnamed && here.parts.len() != there.parts.len())
    {
        let (here, there) = (shown(here.text), shown(there.text));
        found.push(format!("{}` is `{here}` here and `{there}` there", shown(path)).replace(" ``", ""));
        return;
    }
    if !is_unnamed {
        let what = if here.head == "enum" { "variants" } else { "fields" };
        names(&format!("{what} of {}`", shown(path)).replace(" ``", ""), &here.parts, &there.parts, found);
        for ((name, here), there) in common(&here.parts, &there.parts) {
            let dot = if path.ends_with('`') { "" } else { "." };
            compare(&format!("{path}{dot}{name}"), here, there, found);
        }
        return;
    }
    // If only the number of elements differs, both forms are shown as a whole.
    if here.head == "sequence" && here.parts[0].1 == there.parts[0].1 {
        let (here, there) = (shown(here.text), shown(there.text));
        found.push(format!("{}` is `{here}` here and `{there}` there", shown(path)).replace(" ``", ""));
        return;
    }
    for (at, ((_, one), (_, other))) in here.parts.iter().zip(&there.parts).enumerate() {
        let step = match here.head {
            "option" => "?".to_owned(),
            "sequence" => "[]".to_owned(),
            "map" => (if at == 0 { ".key" } else { ".value" }).to_owned(),
            _ => format!(".{at}"),
        };
        compare(&format!("{path}{step}"), one, other, found);
    }
}

/// The text, or its beginning if it is long. A peer may have written it.
fn shown(text: &str) -> String {
    let mut shown = text.chars().map(|char| if char.is_control() { '?' } else { char });
    let mut short = shown.by_ref().take(MAX_SHOWN).collect::<String>();
    if shown.next().is_some() {
        short.push('…');
    }
    short
}
