//! References, boxes and `Arc`s of an implementation implement the trait, too, by what they refer to.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{FnArg, GenericParam, ReceiverKind, Safety, Signature, TraitItem, Type};

use super::{Client, Names, client, other};
use crate::ast::{Colour, Declaration, Method};
use crate::{attr, spans};

/// The impls for `&T`, `Box<T>` and `Arc<T>`; none where the form of the trait does not allow them.
pub(super) fn delegations(names: &Names, client: &Client, declaration: &Declaration) -> TokenStream {
    let trait_name = &client.trait_name;
    let item = &declaration.item;
    if client.is_own && (item.generics.where_clause.is_some() || item.items.iter().any(is_type)) {
        return TokenStream::new();
    }
    let remote = declaration.methods.iter().map(|method| delegated(client, method));
    let (local, consts, supertraits) = if client.is_own {
        let local = declaration.local.iter().filter(|method| is_delegable(&method.sig, client.colour));
        let local = local.map(|method| delegated(client, method)).collect();
        let consts = item.items.iter().filter_map(|item| constant(client, item)).collect();
        // `Arc<T>` is not all that a `T` is.
        let bounds = &item.supertraits;
        (local, consts, (!bounds.is_empty()).then(|| quote!(Self: #bounds,)))
    } else {
        (Vec::new(), Vec::new(), None)
    };
    let sync = client.colour.is_async().then(|| quote_spanned!(names.span()=> Self: ::core::marker::Sync,));
    // A method may be for sized types alone.
    let is_sized = declaration.methods.iter().any(|method| method.sig.generics.where_clause.is_some());
    let maybe_unsized = (!is_sized).then(|| quote_spanned!(names.span()=> + ?::core::marker::Sized));
    let items = quote!(#(#consts)* #(#remote)* #(#local)*);
    let pointers = [
        quote_spanned!(names.span()=> &__S),
        quote_spanned!(names.span()=> ::std::boxed::Box<__S>),
        quote_spanned!(names.span()=> ::std::sync::Arc<__S>),
    ];
    quote_spanned! {names.span()=>
        #(
            impl<__S: #trait_name #maybe_unsized> #trait_name for #pointers
            where
                #sync #supertraits
            {
                #items
            }
        )*
    }
}

/// A method that calls that of what `self` refers to.
fn delegated(client: &Client, method: &Method) -> TokenStream {
    let cfgs = attr::cfgs(&method.attributes);
    let trait_name = &client.trait_name;
    let sig = if method.sig.asyncness.is_none() && client.is_own {
        // It may be a local `fn` of an async trait.
        client::signature(method, Colour::Blocking)
    } else {
        other::signature(client, method)
    };
    let (span, function) = (spans::local(sig.ident.span()), &sig.ident);
    let this = sig.receiver().map(|receiver| receiver.self_token);
    let arguments = method.arguments.iter().map(|argument| &argument.binding);
    let generics = sig.generics.params.iter().filter_map(|param| match param {
        GenericParam::Type(param) => Some(&param.ident),
        GenericParam::Const(param) => Some(&param.ident),
        GenericParam::Lifetime(_) => None,
    });
    let generics = generics.collect::<Vec<_>>();
    let generics = (!generics.is_empty()).then(|| quote!(::<#(#generics),*>));
    quote_spanned! {span=>
        #(#cfgs)*
        #sig {
            <__S as #trait_name>::#function #generics(&**#this #(, #arguments)*)
        }
    }
}

/// Whether a local method is one for what `self` refers to. Any other one runs on top of the remote ones here
/// as there.
fn is_delegable(sig: &Signature, colour: Colour) -> bool {
    let is_plain = sig.constness.is_none() && sig.abi.is_none() && matches!(sig.safety, Safety::Default);
    let of_its_colour = sig.asyncness.is_none() || colour.is_async();
    let mut inputs = sig.inputs.iter();
    let is_by_reference = match inputs.next() {
        Some(FnArg::Receiver(receiver)) => matches!(receiver.kind, ReceiverKind::Reference(_, _, None)),
        _ => false,
    };
    let mentions = inputs.any(|input| mentions_self(input.to_token_stream()))
        || mentions_self(sig.output.to_token_stream())
        || mentions_self(sig.generics.to_token_stream());
    is_plain && of_its_colour && is_by_reference && !mentions && sig.generics.where_clause.is_none()
}

fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "Self",
        TokenTree::Group(group) => mentions_self(group.stream()),
        _ => false,
    })
}

fn is_type(item: &TraitItem) -> bool {
    matches!(item, TraitItem::Type(_))
}

/// A constant of the trait.
fn constant(client: &Client, item: &TraitItem) -> Option<TokenStream> {
    let TraitItem::Const(constant) = item else { return None };
    let cfgs = attr::cfgs(&constant.attrs);
    let (trait_name, ident): (_, _) = (&client.trait_name, &constant.ident);
    let ty: &Type = &constant.ty;
    Some(quote_spanned! {spans::local(ident.span())=>
        #(#cfgs)*
        const #ident: #ty = <__S as #trait_name>::#ident;
    })
}
