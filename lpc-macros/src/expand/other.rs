//! The trait of the other colour: what the client of that colour implements.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{Client, Names, client, docs, trait_def};
use crate::ast::{Colour, Method};
use crate::{attr, spans};

/// `trait DocumentsAsync { .. }`
pub(super) fn definition<'a>(
    names: &Names,
    client: &Client,
    methods: impl Iterator<Item = &'a Method>,
) -> TokenStream {
    let Names { attributes, vis, .. } = names;
    let trait_name = &client.trait_name;
    let docs = docs::other(names, client);
    // Futures that hold `&self` are to be `Send`.
    let sync = client.colour.is_async().then(|| quote_spanned!(names.span()=> : ::core::marker::Sync));
    let deprecated = names.is_deprecated.then(|| quote!(#[allow(deprecated)]));
    let methods = methods.map(|method| {
        let kept = attr::for_callers(&method.attributes);
        let cfgs = attr::cfgs(&method.attributes);
        let docs = docs::remote(names, method);
        let sig = signature(client, method);
        quote_spanned!(spans::local(sig.ident.span())=> #(#kept)* #docs #(#cfgs)* #sig;)
    });
    quote_spanned! {names.span()=>
        #(#attributes)*
        #deprecated
        #docs
        #vis trait #trait_name #sync { #(#methods)* }
    }
}

/// The client's impl, by its own functions of the same names, or by nothing at all.
pub(super) fn implementation<'a>(
    names: &Names,
    client: &Client,
    methods: impl Iterator<Item = &'a Method>,
    diverges: bool,
) -> TokenStream {
    let (name, trait_name) = (&client.name, &client.trait_name);
    let methods = methods.map(|method| {
        let cfgs = attr::cfgs(&method.attributes);
        let sig = signature(client, method);
        let (span, function) = (spans::local(sig.ident.span()), &sig.ident);
        let this = sig.receiver().map(|receiver| receiver.self_token);
        let arguments = method.arguments.iter().map(|argument| &argument.binding);
        let body = match client.colour {
            _ if !diverges => quote_spanned!(span=> #name::#function(#this #(, #arguments)*)),
            Colour::Blocking => quote_spanned!(span=> ::core::unreachable!()),
            Colour::Async => quote_spanned!(span=> async { ::core::unreachable!() }),
        };
        quote_spanned!(span=> #(#cfgs)* #sig { #body })
    });
    let unused = diverges.then(|| quote!(#[allow(unused_variables)]));
    quote_spanned! {names.span()=>
        #unused
        impl #trait_name for #name { #(#methods)* }
    }
}

/// The signature of a method of such a trait.
pub(super) fn signature(client: &Client, method: &Method) -> syn::Signature {
    let mut sig = client::signature(method, client.colour);
    trait_def::desugar(&mut sig);
    sig
}
