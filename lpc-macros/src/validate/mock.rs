//! What mockall's `#[automock]` makes of a trait whose `#[service]` stands below it: it copies that to each
//! item of the mock, and to statements.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{Item, ItemImpl, ItemStruct, Type};

use crate::ctxt::Ctxt;

/// Whether the item is one of a mock. With one of them, the impl of the trait, comes the error.
pub(super) fn item(ctxt: &Ctxt, item: &Item) -> bool {
    match item {
        Item::Mod(item) => item.ident.to_string().starts_with("__mock_"),
        Item::Struct(item) => is_mock(&item.ident) && (is_joined(&item.ident) || has_expectations(item)),
        Item::Impl(item) => {
            let Some(mock) = implementor(item).filter(|name| is_mock(name)) else { return false };
            let of_trait = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
            if of_trait.is_some_and(|of| *mock == format!("Mock{}", of.ident)) {
                ctxt.error(
                    mock,
                    "`#[service]` goes above `#[automock]`, which copies what stands below it to the mock",
                );
            }
            true
        }
        _ => false,
    }
}

/// Whether this is a statement about `self`, for which the compiler has an error of its own.
pub(crate) fn is_statement(tokens: &TokenStream) -> bool {
    let first = tokens.clone().into_iter().next();
    matches!(first, Some(TokenTree::Ident(first)) if first == "self")
}

fn is_mock(name: &Ident) -> bool {
    name.to_string().starts_with("Mock")
}

/// Of a part of a mock: `MockDocuments_Documents`.
fn is_joined(name: &Ident) -> bool {
    name.to_string().contains('_')
}

/// Of the mock itself, where a field for each of its traits has them.
fn has_expectations(item: &ItemStruct) -> bool {
    let names = item.fields.iter().filter_map(|field| field.ident.as_ref());
    names.map(ToString::to_string).any(|name| name.ends_with("_expectations"))
}

fn implementor(item: &ItemImpl) -> Option<&Ident> {
    match &*item.self_ty {
        Type::Path(path) => path.path.segments.last().map(|last| &last.ident),
        _ => None,
    }
}
