//! The server: from a request to a call of the implementation.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{Client, Names, marker, shapes};
use crate::ast::Colour;
use crate::validate::{Method, Service};
use crate::{attr, spans};

/// The impl by which every implementation of a client's trait can be served.
pub(super) fn dispatch(names: &Names, client: &Client, service: &Service<'_>) -> TokenStream {
    let trait_name = &client.trait_name;
    let arms = service.methods.iter().map(|method| arm(names, client, method));
    let body = quote_spanned! {names.span()=>
        match request.method() {
            #(#arms)*
            _ => request.unknown_method(),
        }
    };
    let bounds = quote_spanned! {names.span()=>
        #trait_name + ::core::marker::Send + ::core::marker::Sync + 'static
    };
    implementation(names, client.colour, &bounds, &body)
}

/// The impl with a given bound on the implementation, and a given body of its one function.
pub(super) fn implementation(
    names: &Names,
    colour: Colour,
    bounds: &TokenStream,
    body: &TokenStream,
) -> TokenStream {
    let Names { krate, marker, .. } = names;
    let result = quote_spanned! {names.span()=>
        ::core::result::Result<#krate::__private::Reply, #krate::Error>
    };
    let (trait_path, function) = match colour {
        Colour::Blocking => (
            quote!(#krate::__private::Dispatch),
            quote_spanned! {names.span()=>
                fn dispatch(service: &__S, request: #krate::__private::Request<'_>) -> #result
            },
        ),
        Colour::Async => (
            quote!(#krate::__private::AsyncDispatch),
            quote_spanned! {names.span()=>
                async fn dispatch<'a>(service: &'a __S, request: #krate::__private::Request<'a>) -> #result
            },
        ),
    };
    quote_spanned! {names.span()=>
        impl<__S> #trait_path<#marker, __S> for #krate::__private::Dispatcher
        where
            __S: #bounds,
        {
            #function { #body }
        }
    }
}

/// One method: decodes all arguments, calls, encodes the result.
fn arm(names: &Names, client: &Client, method: &Method<'_>) -> TokenStream {
    let (trait_name, name) = (&client.trait_name, &method.declared.sig.ident);
    let cfgs = attr::cfgs(&method.declared.attributes);
    let index = marker::index(names, method);
    let span = spans::local(name.span());
    let arguments = quote_spanned!(span=> arguments);
    let received = method.arguments.iter();
    let received = received.map(|(argument, shape)| shapes::receive(names, &arguments, argument, shape));
    let lent = method.arguments.iter().map(|(argument, shape)| shapes::lend(names, argument, shape));
    let (locals, values) = lent.unzip::<_, _, Vec<_>, Vec<_>>();
    let mutable = (!method.arguments.is_empty()).then(|| quote!(mut));
    let call_name = spans::as_item(name);
    let dot_await = client.colour.is_async().then(|| quote_spanned!(span=> .await));
    let crossing = shapes::crossing(names, method.output);
    quote_spanned! {span=>
        #(#cfgs)*
        method if method == #index => {
            let #mutable #arguments = request.arguments();
            #(#received)*
            #arguments.end()?;
            #(#locals)*
            let outcome = <__S as #trait_name>::#call_name(service #(, #values)*)#dot_await;
            #crossing::reply(request, &outcome)
        }
    }
}
