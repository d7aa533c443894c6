//! The clients, one of each colour.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{FnArg, Pat, PatIdent, Signature};

use super::{Client, Names, docs, marker, other, shapes};
use crate::ast::{self, Colour};
use crate::validate::{Method, Service};
use crate::{attr, spans};

/// The struct.
pub(super) fn definition(names: &Names, client: &Client) -> TokenStream {
    let Names { krate, attributes, vis, .. } = names;
    let (name, module) = (&client.name, client.module(krate));
    let docs = docs::client(names, client);
    quote_spanned! {names.span()=>
        #(#attributes)*
        #docs
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #vis struct #name {
            client: #module::Client,
        }
    }
}

/// The constructors of a client, and its remote methods.
pub(super) fn methods(names: &Names, client: &Client, service: &Service<'_>) -> TokenStream {
    let (name, trait_name) = (&client.name, &client.trait_name);
    let stub = stub(names, client);
    let remote = service.methods.iter().map(|method| remote(names, client, method));
    if client.is_own {
        quote_spanned! {names.span()=>
            #stub
            impl #trait_name for #name { #(#remote)* }
        }
    } else {
        let by_trait = other::implementation(names, client, service.declaration.methods.iter(), false);
        quote_spanned! {names.span()=>
            #stub
            impl #name { #(#remote)* }
            #by_trait
        }
    }
}

/// The constructors, and the impl by which the runtime constructs a client.
pub(super) fn stub(names: &Names, client: &Client) -> TokenStream {
    let Names { krate, marker, .. } = names;
    let (name, module) = (&client.name, client.module(krate));
    let connect = docs::connect(names, client);
    let (builder, client_doc) = (docs::builder(), docs::underlying(&module));
    let with_deadline = docs::with_deadline(&names.krate);
    let (async_token, dot_await) = match client.colour {
        Colour::Blocking => (TokenStream::new(), TokenStream::new()),
        Colour::Async => (quote!(async), quote!(.await)),
    };
    quote_spanned! {names.span()=>
        impl #name {
            #connect
            pub #async_token fn connect(
                port: impl ::core::convert::AsRef<::std::path::Path>,
            ) -> #krate::Result<Self> {
                Self::builder().connect(port)#dot_await
            }

            #builder
            #[must_use]
            pub fn builder() -> #module::ClientBuilder<Self> {
                #module::ClientBuilder::new()
            }

            #with_deadline
            #[must_use]
            pub fn with_deadline(&self, time: ::core::time::Duration) -> Self {
                Self { client: self.client.with_deadline(time) }
            }

            #client_doc
            #[must_use]
            pub fn client(&self) -> &#module::Client {
                &self.client
            }
        }

        impl #module::Stub for #name {
            type Service = #marker;

            fn from_client(client: #module::Client) -> Self {
                Self { client }
            }

            fn client(&self) -> &#module::Client {
                &self.client
            }
        }
    }
}

/// One remote method: of the trait's impl, or of the client's own.
fn remote(names: &Names, client: &Client, method: &Method<'_>) -> TokenStream {
    let declared = method.declared;
    let cfgs = attr::cfgs(&declared.attributes);
    let (docs, vis) = if client.is_own {
        (TokenStream::new(), TokenStream::new())
    } else {
        let kept = attr::for_callers(&declared.attributes);
        let docs = docs::remote(names, declared);
        (quote!(#(#kept)* #docs), quote_spanned!(names.span()=> pub))
    };
    let sig = signature(declared, client.colour);
    let span = spans::local(declared.sig.ident.span());
    let self_token = method.receiver.self_token;
    let index = marker::index(names, method);
    let encode = encode(names, method);
    let call = quote_spanned!(spans::local(shapes::span_of(method.output))=> call);
    // An argument that the client owns moves into the closure. The future must be `Send`, and a reference to
    // the argument would require `Sync`.
    let (move_token, dot_await) = match client.colour {
        Colour::Blocking => (TokenStream::new(), TokenStream::new()),
        Colour::Async if method.arguments.is_empty() => (TokenStream::new(), quote!(.await)),
        Colour::Async => (quote!(move), quote!(.await)),
    };
    let call = if client.is_own {
        quote_spanned!(span=> #self_token.client.#call(#index, #move_token #encode))
    } else {
        let (crossing, function) = (shapes::crossing(names, method.output), client.call());
        quote_spanned!(span=> #crossing::#function(&#self_token.client, #index, #move_token #encode))
    };
    quote_spanned! {span=>
        #docs
        #(#cfgs)*
        #vis #sig {
            #call #dot_await
        }
    }
}

/// The closure that writes the arguments.
fn encode(names: &Names, method: &Method<'_>) -> TokenStream {
    let span = spans::local(method.declared.sig.ident.span());
    let encoder = quote_spanned!(span=> encoder);
    let pushes = method.arguments.iter();
    let mut pushes =
        pushes.map(|(argument, shape)| shapes::send(names, &encoder, argument, shape)).collect::<Vec<_>>();
    match (pushes.pop(), pushes.is_empty()) {
        (None, _) => quote_spanned!(span=> |_| ::core::result::Result::Ok(())),
        (Some(last), true) => quote_spanned!(span=> |#encoder| #last),
        (Some(last), false) => quote_spanned!(span=> |#encoder| { #(#pushes?;)* #last }),
    }
}

/// The signature as declared, each argument under a name, in the client's colour.
pub(super) fn signature(method: &ast::Method, colour: Colour) -> Signature {
    let mut sig = method.sig.clone();
    sig.ident = spans::as_item(&sig.ident);
    sig.asyncness = match colour {
        Colour::Blocking => None,
        Colour::Async => Some(syn::Token![async](spans::item(sig.ident.span()))),
    };
    let mut bindings = method.arguments.iter().map(|argument| &argument.binding);
    for input in &mut sig.inputs {
        let FnArg::Typed(typed) = input else { continue };
        typed.attrs.clear();
        if let Some(ident) = bindings.next().cloned() {
            *typed.pat = Pat::Ident(PatIdent {
                attrs: Vec::new(),
                by_ref: None,
                mutability: None,
                ident,
                subpat: None,
            });
        }
    }
    sig
}
