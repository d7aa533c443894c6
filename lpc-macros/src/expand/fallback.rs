//! The code that is emitted beside errors: enough of everything that the rest of the user's crate
//! type-checks, so that one mistake is one error. It never runs.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    FnArg, GenericParam, Generics, Pat, ReceiverKind, ReturnType, Safety, Signature, TraitItem, Type,
    parse_quote,
};

use super::{Client, Names, client, delegate, dispatch, hide, marker, other, trait_def};
use crate::ast::{Colour, Declaration, Method};
use crate::{attr, spans, validate};

/// The trait, and stubs of what would have been generated from it.
pub(crate) fn fallback(declaration: &Declaration) -> TokenStream {
    let mut item = declaration.item.clone();
    for part in &mut item.items {
        if let TraitItem::Fn(method) = part {
            // The compiler has an error of its own for these.
            method.sig.constness = None;
        }
    }
    let trait_def = trait_def::trait_def(item, declaration.colour);
    let names = Names::new(declaration);
    let marker_def = marker::definition(&names);
    if declaration.colour.is_async() && !cfg!(feature = "tokio") {
        return quote!(#trait_def #marker_def);
    }
    let clients = names.clients().map(|client| client::definition(&names, &client));
    let stubs = names.clients().map(|client| stub(&names, &client, declaration));
    let marker_impl = marker::implementation(&names, &quote!(&[]));
    let is_plain = declaration.item.generics.params.is_empty() && declaration.item.unsafety.is_none();
    let others = names.clients().filter(|client| !client.is_own && is_plain).collect::<Vec<_>>();
    let other_defs = others.iter().map(|client| other::definition(&names, client, callable(declaration)));
    let other_impls =
        others.iter().map(|client| other::implementation(&names, client, callable(declaration), true));
    let anything = quote!(::core::marker::Send + ::core::marker::Sync + 'static);
    let unreachable = quote!(::core::unreachable!());
    let dispatch = dispatch::implementation(&names, names.colour, &anything, &unreachable);
    let other_dispatch = others.iter().map(|client| {
        let trait_name = &client.trait_name;
        dispatch::implementation(&names, client.colour, &quote!(#trait_name + #anything), &unreachable)
    });
    let as_declared = callable(declaration).filter(|method| Colour::of(&method.sig) == declaration.colour);
    let are_callable = is_plain && as_declared.count() == declaration.methods.len();
    let delegations = names.clients().filter(|_| are_callable);
    let delegations = delegations.map(|client| delegate::delegations(&names, &client, declaration));
    let hidden = quote! {
        #marker_impl #dispatch #(#stubs)* #(#other_impls)* #(#other_dispatch)* #(#delegations)*
    };
    let hidden = hide(&names, &hidden);
    quote!(#trait_def #marker_def #(#other_defs)* #(#clients)* #hidden)
}

/// The methods of which each generated item can have one of the same signature that calls another.
fn callable(declaration: &Declaration) -> impl Iterator<Item = &Method> {
    let is_callable = |sig: &Signature| {
        let is_by_reference = sig
            .receiver()
            .is_some_and(|receiver| matches!(receiver.kind, ReceiverKind::Reference(_, _, None)));
        let is_qualified =
            sig.constness.is_some() || sig.abi.is_some() || !matches!(sig.safety, Safety::Default);
        // A type that is experimental in any other place.
        let returns = !matches!(&sig.output, ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)));
        is_by_reference
            && returns
            && !is_qualified
            && validate::is_stubbable(sig)
            && !validate::is_reserved(&sig.ident)
    };
    declaration.methods.iter().filter(move |method| is_callable(&method.sig))
}

fn stub(names: &Names, client: &Client, declaration: &Declaration) -> TokenStream {
    let stub = client::stub(names, client);
    let (name, trait_name) = (&client.name, &names.trait_name);
    if !client.is_own {
        let methods = declaration.methods.iter().filter(|method| !validate::is_reserved(&method.sig.ident));
        let methods = methods
            .filter_map(|method| diverging(method, client.colour, &declaration.item.generics, &quote!(pub)));
        return quote_spanned! {names.span()=>
            #stub
            impl #name { #(#methods)* }
        };
    }
    // Of the trait's own, all methods or none: with one missing, the compiler would complain of that.
    let of_trait = |method: &Method| {
        diverging(method, Colour::of(&method.sig), &Generics::default(), &TokenStream::new())
    };
    let methods = declaration.methods.iter().map(of_trait).collect::<Option<Vec<_>>>();
    let methods = methods.filter(|_| declaration.item.items.iter().all(is_known));
    let implementation = methods.map(|methods| {
        let (impl_generics, ty_generics, where_clause) = declaration.item.generics.split_for_impl();
        let unsafety = declaration.item.unsafety;
        quote_spanned! {names.span()=>
            #unsafety impl #impl_generics #trait_name #ty_generics for #name #where_clause { #(#methods)* }
        }
    });
    quote!(#stub #implementation)
}

/// Whether an impl can do without the item, or has it.
fn is_known(item: &TraitItem) -> bool {
    match item {
        TraitItem::Fn(_) => true,
        TraitItem::Type(ty) => ty.default.is_some(),
        TraitItem::Const(constant) => constant.default.is_some(),
        _ => false,
    }
}

/// A method of this signature that does not return, generic over `outer` too.
fn diverging(method: &Method, colour: Colour, outer: &Generics, vis: &TokenStream) -> Option<TokenStream> {
    if !validate::is_stubbable(&method.sig) {
        return None;
    }
    let cfgs = attr::cfgs(&method.attributes);
    let mut sig: Signature = client::signature(method, colour);
    sig.constness = None;
    add_generics(&mut sig, outer);
    for input in &mut sig.inputs {
        if let FnArg::Typed(argument) = input {
            let underscore: Pat = parse_quote!(_);
            *argument.pat = underscore;
        }
    }
    Some(quote_spanned!(spans::local(sig.ident.span())=> #(#cfgs)* #vis #sig { ::core::unreachable!() }))
}

/// Adds the parameters of the trait, lifetimes first.
fn add_generics(sig: &mut Signature, outer: &Generics) {
    let mut params = sig.generics.params.iter().chain(&outer.params).cloned().collect::<Vec<_>>();
    for param in &mut params {
        match param {
            GenericParam::Type(param) => param.default = None,
            GenericParam::Const(param) => param.default = None,
            GenericParam::Lifetime(_) => {}
        }
    }
    params.sort_by_key(|param| !matches!(param, GenericParam::Lifetime(_)));
    sig.generics.params = params.into_iter().collect();
}
