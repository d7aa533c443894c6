//! Writes a form as text.

use std::fmt::{self, Write as _};

use super::MAX_LEN;
use super::nodes::{Head, Nodes, is_array};

/// The most levels that are written. Deeper ones are left out, and more of them if the text would still be
/// too long.
const MAX_DEPTH: usize = 64;

/// The text of the method.
pub(super) fn text(nodes: &Nodes, classes: &[usize], method: usize) -> String {
    let mut depth = MAX_DEPTH;
    while depth > 0 {
        let mut writer = Writer { nodes, classes, depth, text: String::new(), around: Vec::new() };
        if writer.node(method).is_ok() {
            return writer.text;
        }
        depth /= 2;
    }
    "…".into()
}

struct Writer<'n> {
    nodes: &'n Nodes,
    classes: &'n [usize],
    depth: usize,
    text: String,
    /// The classes that are being written, from the outermost in.
    around: Vec<usize>,
}

impl Writer<'_> {
    /// Fails if the text is too long, as do all that follow.
    fn node(&mut self, index: usize) -> fmt::Result {
        if let Some(level) = self.around.iter().position(|around| *around == self.classes[index]) {
            let up = self.around.len() - level;
            return self.push(&format!("^{up}"));
        }
        if self.around.len() >= self.depth {
            return self.push("…");
        }
        self.written_out(index)
    }

    fn written_out(&mut self, index: usize) -> fmt::Result {
        let node = &self.nodes.nodes[index];
        let children = &node.children;
        self.around.push(self.classes[index]);
        match &node.head {
            Head::Word(word) => self.push(word)?,
            Head::Option => self.list("Option<", children, ">")?,
            Head::Seq => self.list("[", children, "]")?,
            Head::Map => self.list("Map<", children, ">")?,
            Head::Tuple(len) if is_array(node, self.classes) => {
                self.push("[")?;
                match children.first() {
                    Some(element) => self.node(*element)?,
                    None => self.push("_")?,
                }
                self.push(&format!("; {len}]"))?;
            }
            Head::Described => self.list("described ", children, "")?,
            Head::Tuple(_) | Head::Content => self.list("(", children, ")")?,
            Head::Struct(names) => {
                self.push("{")?;
                self.fields(names, children)?;
                self.push("}")?;
            }
            Head::Enum(names) => self.variants(names, children)?,
            Head::Method(names) => {
                self.push("(")?;
                self.fields(names, children)?;
                self.push(") -> ")?;
                self.node(children[names.len()])?;
            }
        }
        self.around.pop();
        Ok(())
    }

    fn push(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > MAX_LEN {
            return Err(fmt::Error);
        }
        self.text.write_str(text)
    }

    fn list(&mut self, before: &str, children: &[usize], after: &str) -> fmt::Result {
        self.push(before)?;
        for (at, child) in children.iter().enumerate() {
            self.push(if at > 0 { ", " } else { "" })?;
            self.node(*child)?;
        }
        self.push(after)
    }

    fn fields<N: AsRef<str>>(&mut self, names: &[N], children: &[usize]) -> fmt::Result {
        for (at, (name, child)) in names.iter().zip(children).enumerate() {
            self.push(if at > 0 { ", " } else { "" })?;
            self.push(name.as_ref())?;
            self.push(": ")?;
            self.node(*child)?;
        }
        Ok(())
    }

    fn variants(&mut self, names: &[&str], children: &[usize]) -> fmt::Result {
        self.push("enum {")?;
        for (at, (name, child)) in names.iter().zip(children).enumerate() {
            self.push(if at > 0 { ", " } else { "" })?;
            self.push(name)?;
            // Its brackets show what it is.
            self.written_out(*child)?;
        }
        self.push("}")
    }
}
