//! From a [`Declaration`] to a [`Service`] that `expand` can write without asking again.

mod method;
mod mock;
mod types;

use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{GenericParam, Item, Receiver, TraitItem, Type};

use crate::ast::{self, Argument, Declaration};
use crate::ctxt::Ctxt;
use crate::shape::Shape;

pub(crate) use method::{is_reserved, is_stubbable};
pub(crate) use mock::is_statement;

/// A trait that is a service.
pub(crate) struct Service<'a> {
    pub(crate) declaration: &'a Declaration,
    pub(crate) methods: Vec<Method<'a>>,
}

/// A method that can be called from another process.
pub(crate) struct Method<'a> {
    pub(crate) declared: &'a ast::Method,
    pub(crate) receiver: &'a Receiver,
    pub(crate) arguments: Vec<(&'a Argument, Shape)>,
    pub(crate) output: &'a Type,
}

/// Reports everything that is wrong with the declaration; the service, if its parts make one.
pub(crate) fn service<'a>(ctxt: &Ctxt, declaration: &'a Declaration) -> Option<Service<'a>> {
    trait_itself(ctxt, declaration);
    for item in &declaration.item.items {
        associated(ctxt, item);
    }
    method::names(ctxt, declaration);
    method::colours(ctxt, declaration);
    // All of them are looked at, and only then the first `None` counts.
    let methods = declaration.methods.iter().map(|method| method::method(ctxt, method)).collect::<Vec<_>>();
    let methods = methods.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Service { declaration, methods })
}

/// Reports an item that is no trait at the word that says what it is.
pub(crate) fn not_a_trait(ctxt: &Ctxt, item: &Item) {
    if mock::item(ctxt, item) {
        return;
    }
    let keyword = match item {
        Item::Struct(item) => item.struct_token.to_token_stream(),
        Item::Enum(item) => item.enum_token.to_token_stream(),
        Item::Fn(item) => item.sig.fn_token.to_token_stream(),
        Item::Mod(item) => item.mod_token.to_token_stream(),
        Item::Impl(item) => {
            let message = "`#[service]` goes on the trait; its implementations need no attribute";
            return ctxt.error(item.impl_token, message);
        }
        other => other.to_token_stream(),
    };
    ctxt.error(keyword, "`#[service]` goes on a trait: `#[service] pub trait Documents { .. }`");
}

fn trait_itself(ctxt: &Ctxt, declaration: &Declaration) {
    let item = &declaration.item;
    if let Some(token) = item.unsafety {
        let message = "a service trait cannot be unsafe, for nothing on the other side keeps its promise; \
                       remove `unsafe`";
        ctxt.error(token, message);
    }
    if let Some(token) = item.modifiers.auto_token {
        ctxt.error(token, "a service trait cannot be an auto trait; remove `auto`");
    }
    let (lifetimes, types) = item
        .generics
        .params
        .iter()
        .partition::<Vec<_>, _>(|param| matches!(param, GenericParam::Lifetime(_)));
    if !types.is_empty() {
        let message = "a service trait cannot be generic, for the two sides could not agree on the types; \
                       write the types into the methods, or one trait for each type";
        ctxt.error(quote!(#(#types),*), message);
    }
    if !lifetimes.is_empty() {
        let message = "a service trait cannot have a lifetime, for arguments are lent for one call; \
                       leave lifetimes out, or name them at the method: `fn find<'a>(&self, text: &'a str)`";
        ctxt.error(quote!(#(#lifetimes),*), message);
    }
    if declaration.colour.is_async() && !cfg!(feature = "tokio") {
        let message = "a service of `async fn` needs the feature `tokio` of lpc-runtime: \
                       enable it in Cargo.toml, or write `fn`";
        ctxt.error(&item.ident, message);
    }
}

fn associated(ctxt: &Ctxt, item: &TraitItem) {
    match item {
        TraitItem::Type(ty) if ty.default.is_none() => {
            let message = "a service trait cannot require a type, for the two sides could not agree on it; \
                           write the type itself into the methods";
            ctxt.error(&ty.ident, message);
        }
        TraitItem::Const(constant) if constant.default.is_none() => {
            let message = format!(
                "a service trait cannot require a constant, for the client could not know it; \
                 give it a value here, or make it a method: `fn {}(&self) -> lpc::Result<..>`",
                constant.ident.unraw().to_string().to_lowercase()
            );
            ctxt.error(&constant.ident, message);
        }
        TraitItem::Macro(call) => {
            let message = "`#[service]` cannot see the methods that this macro makes; write them out, or let \
                           the macro write the whole trait with `#[service]` on it";
            ctxt.error(&call.mac.path, message);
        }
        TraitItem::Verbatim(tokens) => ctxt.error(tokens, "`#[service]` does not understand this item"),
        _ => {}
    }
}
