//! The user's trait, as written but for the `async fn`s of an async trait.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Block, FnArg, Ident, ItemTrait, Pat, ReturnType, Signature, Stmt, TraitItem, TraitItemFn, parse_quote,
    parse_quote_spanned,
};

use crate::ast::Colour;
use crate::spans;

/// The trait.
///
/// In an async trait, `async fn f(&self) -> R` becomes `fn f(&self) -> impl Future<Output = R> + Send`. Its
/// implementations still say `async fn`; but code that is generic over the trait may spawn the future.
pub(super) fn trait_def(mut item: ItemTrait, colour: Colour) -> TokenStream {
    if colour.is_async() {
        // A future that holds `&self` is `Send` only if `Self` is `Sync`, so every implementation is; said
        // here once, it need not be said in each method with a body and each function over the trait.
        let sync = parse_quote_spanned!(spans::item(item.ident.span())=> ::core::marker::Sync);
        item.supertraits.push(sync);
        item.colon_token.get_or_insert_default();
        for part in &mut item.items {
            match part {
                TraitItem::Fn(method) if method.sig.asyncness.is_some() => return_future(method),
                _ => {}
            }
        }
    }
    item.into_token_stream()
}

/// `fn f(&self) -> impl Future<Output = R> + Send` of an `async fn f(&self) -> R`; whether it was one.
pub(super) fn desugar(sig: &mut Signature) -> bool {
    let Some(token) = sig.asyncness.take() else { return false };
    let output = output(sig);
    let future = quote_spanned! {spans::local(token.span)=>
        impl ::core::future::Future<Output = #output> + ::core::marker::Send
    };
    sig.output = parse_quote!(-> #future);
    true
}

fn return_future(method: &mut TraitItemFn) {
    let Some(span) = method.sig.asyncness.map(|token| spans::local(token.span)) else { return };
    desugar(&mut method.sig);
    if let Some(body) = &method.default {
        let held = underscored(&method.sig).map(|name| -> Stmt {
            parse_quote_spanned! {span=>
                #[allow(clippy::no_effect_underscore_binding, clippy::used_underscore_binding)]
                let #name = #name;
            }
        });
        // The user's block stays the one around the user's statements: another would be an unused pair of
        // braces.
        let body =
            Block { brace_token: body.brace_token, stmts: held.chain(body.stmts.iter().cloned()).collect() };
        let body = quote_spanned!(span=> async move #body);
        method.default = Some(parse_quote!({ #body }));
    }
}

/// What the function says that it returns.
fn output(sig: &Signature) -> TokenStream {
    match &sig.output {
        ReturnType::Type(_, ty) => ty.to_token_stream(),
        ReturnType::Default => quote!(()),
    }
}

/// Arguments like `_guard`. The body does not name them, so they have to be moved into the future by name:
/// an `async fn` drops all of its arguments at its end.
fn underscored(sig: &Signature) -> impl Iterator<Item = &Ident> {
    sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(argument) => match &*argument.pat {
            Pat::Ident(pattern) if pattern.ident.to_string().starts_with('_') => Some(&pattern.ident),
            _ => None,
        },
        FnArg::Receiver(_) => None,
    })
}
