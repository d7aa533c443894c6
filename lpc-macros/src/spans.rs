//! The spans of generated code: where it claims to come from.
//!
//! Everything generated is marked as the macro's, so that lints of the user's crate (`dead_code`,
//! `unused_qualifications`, clippy) leave it alone, and is *located* at what it was made from, so that
//! a type error in it points at the user's token.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};

/// A span for items: located at `span`, resolved as if the user had written it.
pub(crate) fn item(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// A span for locals: located at `span`, its names unseen by and blind to the user's.
pub(crate) fn local(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// `ident` with the macro's span: the name of a generated item, field or method.
pub(crate) fn as_item(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(item(ident.span()));
    ident
}

/// All of `tokens` as the macro's own, at their locations. It is for tokens that name no locals, such as
/// `pub(crate)`.
pub(crate) fn as_items(tokens: TokenStream) -> TokenStream {
    map(tokens, &item)
}

/// All of `tokens` at one span.
pub(crate) fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    map(tokens, &|_| span)
}

fn map(tokens: TokenStream, to: &impl Fn(Span) -> Span) -> TokenStream {
    let respan = |tree| match tree {
        TokenTree::Group(group) => {
            let mut respanned = Group::new(group.delimiter(), map(group.stream(), to));
            respanned.set_span(to(group.span()));
            TokenTree::Group(respanned)
        }
        mut other => {
            other.set_span(to(other.span()));
            other
        }
    };
    tokens.into_iter().map(respan).collect()
}
