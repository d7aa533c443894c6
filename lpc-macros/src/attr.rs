//! The attributes `#[service(..)]` and `#[lpc(..)]`, and those of the user's attributes that are carried over
//! to generated items.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, LitStr, Meta, Path, Token, parse_quote};

use crate::ctxt::Ctxt;

/// The settings of `#[service(..)]`.
pub(crate) struct ServiceAttributes {
    /// The path by which generated code names the runtime.
    pub(crate) krate: Path,
}

impl ServiceAttributes {
    pub(crate) fn parse(ctxt: &Ctxt, tokens: TokenStream) -> Self {
        let mut krate = None;
        for setting in settings(ctxt, tokens) {
            match setting.name().as_str() {
                "crate" => {
                    let example = "a path in a string, as in `crate = \"path::to::lpc\"`";
                    if let Some(text) = setting.string(ctxt, example) {
                        setting.set(ctxt, &mut krate, parse_path(ctxt, &text));
                    }
                }
                name => ctxt.error(
                    &setting.key,
                    format!(
                        "unknown key `{name}`; `#[service]` knows: `crate`{}",
                        if METHOD_KEYS.contains(&name) {
                            " (a method's `#[lpc]` knows this one)"
                        } else {
                            ""
                        }
                    ),
                ),
            }
        }
        Self { krate: krate.flatten().unwrap_or_else(|| parse_quote!(::lpc)) }
    }
}

/// The keys of `#[lpc(..)]`. A key to come is a field of [`MethodAttributes`], a name here, and a match arm.
const METHOD_KEYS: &[&str] = &["threshold", "deadline", "idempotent"];

/// The settings of a method, by `#[lpc(..)]`.
#[derive(Default)]
pub(crate) struct MethodAttributes {
    /// The text of the size, which the runtime parses at compile time.
    pub(crate) threshold: Option<LitStr>,
    /// The text of the time, which the runtime parses at compile time.
    pub(crate) deadline: Option<LitStr>,
    pub(crate) is_idempotent: bool,
}

impl MethodAttributes {
    /// Reads the attributes of one method and takes them out of `attributes`.
    pub(crate) fn take(ctxt: &Ctxt, attributes: &mut Vec<Attribute>) -> Self {
        let mut this = Self::default();
        for attribute in take_lpc(ctxt, attributes) {
            match &attribute.meta {
                Meta::List(list) => this.read(ctxt, list.tokens.clone()),
                _ => ctxt
                    .error(&attribute, "write the settings in parentheses: `#[lpc(threshold = \"64KiB\")]`"),
            }
        }
        this
    }

    fn read(&mut self, ctxt: &Ctxt, tokens: TokenStream) {
        for setting in settings(ctxt, tokens) {
            match setting.name().as_str() {
                "threshold" => {
                    let example =
                        "a size in a string, as in `threshold = \"64KiB\"`, or \"off\", or \"always\"";
                    if let Some(text) = setting.string(ctxt, example) {
                        setting.set(ctxt, &mut self.threshold, text);
                    }
                }
                "deadline" => {
                    let example = "a time in a string, as in `deadline = \"5s\"` or \"250ms\"";
                    if let Some(text) = setting.string(ctxt, example) {
                        setting.set(ctxt, &mut self.deadline, text);
                    }
                }
                "idempotent" => {
                    if let Some(value) = &setting.value {
                        ctxt.error(value, "`idempotent` has no value: write `#[lpc(idempotent)]`");
                    }
                    let mut slot = self.is_idempotent.then_some(());
                    setting.set(ctxt, &mut slot, ());
                    self.is_idempotent = true;
                }
                name => {
                    let known = METHOD_KEYS.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>();
                    ctxt.error(
                        &setting.key,
                        format!("unknown key `{name}`; `#[lpc]` knows: {}", known.join(", ")),
                    );
                }
            }
        }
    }
}

/// Removes the `#[lpc]` attributes, since no other macro reads them.
pub(crate) fn take_lpc(ctxt: &Ctxt, attributes: &mut Vec<Attribute>) -> Vec<Attribute> {
    let is_conditional =
        |attribute: &Attribute| conditional(attribute).iter().any(|meta| meta.path().is_ident("lpc"));
    for attribute in attributes.extract_if(.., |attribute| is_conditional(attribute)) {
        let message =
            "`#[lpc]` cannot depend on a `cfg`; write it without, or write two methods of different names";
        ctxt.error(attribute, message);
    }
    attributes.extract_if(.., |attribute| attribute.path().is_ident("lpc")).collect()
}

/// The attributes that decide whether an item exists. Everything generated from the item has them, too.
pub(crate) fn cfgs(attributes: &[Attribute]) -> Vec<Attribute> {
    let keep = |attribute: &Attribute| {
        if attribute.path().is_ident("cfg") {
            return Some(attribute.clone());
        }
        let nested = conditional(attribute);
        let cfgs = nested.iter().filter(|meta| meta.path().is_ident("cfg")).collect::<Vec<_>>();
        let condition = condition(attribute).filter(|_| !cfgs.is_empty())?;
        Some(parse_quote!(#[cfg_attr(#condition, #(#cfgs),*)]))
    };
    attributes.iter().filter_map(keep).collect()
}

/// The lints that the user allowed on an item, to be allowed on what is generated from it, too.
pub(crate) fn allowed(attributes: &[Attribute]) -> impl Iterator<Item = Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("allow")).cloned()
}

/// The attributes that are copied to a method on another client, for its readers and callers.
pub(crate) fn for_callers(attributes: &[Attribute]) -> Vec<Attribute> {
    let kept = |attribute: &&Attribute| {
        let path = attribute.path();
        ["doc", "deprecated", "must_use", "allow"].iter().any(|name| path.is_ident(name))
    };
    attributes.iter().filter(kept).cloned().collect()
}

/// `#[doc(hidden)]`, if the item has it.
pub(crate) fn hidden(attributes: &[Attribute]) -> Option<Attribute> {
    let is_hidden = |attribute: &&Attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("doc") && list.tokens.to_string() == "hidden",
        _ => false,
    };
    attributes.iter().find(is_hidden).cloned()
}

/// Whether generated code that names the item would cause a warning of deprecation.
pub(crate) fn is_deprecated(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("deprecated")
            || conditional(attribute).iter().any(|meta| meta.path().is_ident("deprecated"))
    })
}

/// Whether the user's documentation already has a heading `# Errors`.
pub(crate) fn documents_errors(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => {
            matches!(&pair.value, Expr::Lit(ExprLit { lit: Lit::Str(text), .. })
                if text.value().lines().any(|line| line.trim() == "# Errors"))
        }
        _ => false,
    })
}

/// The attributes inside of a `cfg_attr`; none if it is none.
fn conditional(attribute: &Attribute) -> Vec<Meta> {
    let list = match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg_attr") => list,
        _ => return Vec::new(),
    };
    let metas = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    metas.map_or_else(|_| Vec::new(), |metas| metas.into_iter().skip(1).collect())
}

/// The condition of a `cfg_attr`.
fn condition(attribute: &Attribute) -> Option<Meta> {
    let list = attribute.meta.require_list().ok()?;
    list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?.into_iter().next()
}

/// One `key = value` of an attribute.
struct Setting {
    key: Ident,
    value: Option<Expr>,
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // `crate` is a keyword, so any identifier will do.
        let key = input.call(Ident::parse_any)?;
        if input.is_empty() || input.peek(Token![,]) {
            return Ok(Self { key, value: None });
        }
        input.parse::<Token![=]>()?;
        Ok(Self { key, value: Some(input.parse()?) })
    }
}

impl Setting {
    fn name(&self) -> String {
        self.key.to_string()
    }

    fn string(&self, ctxt: &Ctxt, expected: &str) -> Option<LitStr> {
        match &self.value {
            Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => return Some(text.clone()),
            Some(other) => ctxt.error(other, format!("expected {expected}")),
            None => ctxt.error(&self.key, format!("expected {expected}")),
        }
        None
    }

    fn set<T>(&self, ctxt: &Ctxt, slot: &mut Option<T>, value: T) {
        if slot.is_some() {
            ctxt.error(&self.key, format!("`{}` is set twice", self.key));
        }
        *slot = Some(value);
    }
}

fn settings(ctxt: &Ctxt, tokens: TokenStream) -> Vec<Setting> {
    match Punctuated::<Setting, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(settings) => settings.into_iter().collect(),
        Err(error) => {
            ctxt.push(error);
            Vec::new()
        }
    }
}

fn parse_path(ctxt: &Ctxt, text: &LitStr) -> Option<Path> {
    match text.parse_with(Path::parse_mod_style) {
        Ok(path) => Some(as_generated(path, text.span())),
        Err(_) => {
            ctxt.error(text, "this is not a path; write for example `crate = \"path::to::lpc\"`");
            None
        }
    }
}

/// The path as the macro's own, so that lints about paths ignore it all over the generated code.
fn as_generated(mut path: Path, span: Span) -> Path {
    for segment in &mut path.segments {
        segment.ident.set_span(crate::spans::item(span));
    }
    path
}
