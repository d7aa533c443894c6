//! The server: from a request to a call of the implementation.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{Names, marker, shapes};
use crate::ast::Colour;
use crate::validate::{Method, Service};
use crate::{attr, spans};

/// The impl by which every implementation of the trait can be served.
pub(super) fn dispatch(names: &Names, service: &Service<'_>) -> TokenStream {
    let Names { trait_name, .. } = names;
    let arms = service.methods.iter().map(|method| arm(names, method));
    let body = quote_spanned! {names.span()=>
        match request.method() {
            #(#arms)*
            _ => request.unknown_method(),
        }
    };
    let bounds = quote_spanned! {names.span()=>
        #trait_name + ::core::marker::Send + ::core::marker::Sync + 'static
    };
    implementation(names, &bounds, &body)
}

/// The impl with a given bound on the implementation, and a given body of its one function.
pub(super) fn implementation(names: &Names, bounds: &TokenStream, body: &TokenStream) -> TokenStream {
    let Names { krate, marker, .. } = names;
    let result = quote_spanned! {names.span()=>
        ::core::result::Result<#krate::__private::Reply, #krate::Error>
    };
    let (trait_path, function) = match names.colour {
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
fn arm(names: &Names, method: &Method<'_>) -> TokenStream {
    let (trait_name, name) = (&names.trait_name, &method.declared.sig.ident);
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
    let dot_await = names.colour.is_async().then(|| quote_spanned!(span=> .await));
    // The bound on results is checked here: it is the user's type that does not meet it.
    let reply = quote_spanned!(spans::local(shapes::span_of(method.output))=> reply);
    quote_spanned! {span=>
        #(#cfgs)*
        method if method == #index => {
            let #mutable #arguments = request.arguments();
            #(#received)*
            #arguments.end()?;
            #(#locals)*
            let outcome = <__S as #trait_name>::#call_name(service #(, #values)*)#dot_await;
            request.#reply(&outcome)
        }
    }
}
