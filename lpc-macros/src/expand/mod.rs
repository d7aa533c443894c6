//! From a [`Service`] to code, one file a product.
//!
//! The order of what is emitted: the trait, what else users name (the marker, the trait of the other colour
//! and the clients), and then one `const _` with all that nobody names, so that it adds no names to the
//! user's module.

mod client;
mod delegate;
mod dispatch;
mod docs;
mod fallback;
mod marker;
mod other;
mod shapes;
mod stays;
mod trait_def;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Path, TraitItem, Visibility, parse_quote};

use crate::ast::{Colour, Declaration};
use crate::validate::Service;
use crate::{attr, spans};

pub(crate) use fallback::fallback;

/// All code for a service.
pub(crate) fn service(service: &Service<'_>) -> TokenStream {
    let names = Names::new(service.declaration);
    let trait_def = trait_def::trait_def(service.declaration.item.clone(), service.declaration.colour);
    let marker = marker::definition(&names);
    let other = names.clients().filter(|client| !client.is_own);
    let other = other.map(|client| other::definition(&names, &client, service.declaration.methods.iter()));
    let clients = names.clients().map(|client| client::definition(&names, &client));
    let of_both = names.clients().map(|client| {
        let methods = client::methods(&names, &client, service);
        let dispatch = dispatch::dispatch(&names, &client, service);
        let delegations = delegate::delegations(&names, &client, service.declaration);
        quote!(#methods #dispatch #delegations)
    });
    let (imports, methods) = (shapes::imports(service), marker::methods(&names, service));
    let checks = stays::checks(&names, service);
    let hidden = hide(&names, &quote!(#checks #imports #methods #(#of_both)*));
    quote!(#trait_def #marker #(#other)* #(#clients)* #hidden)
}

/// What all parts of the generated code share.
struct Names {
    krate: Path,
    trait_name: Ident,
    /// The visibility of all that users name.
    vis: TokenStream,
    /// The enum that represents the service in types.
    marker: Ident,
    /// The enum of methods, which knows their indices.
    methods: Ident,
    colour: Colour,
    /// Attributes of the trait that are true of everything made from it: `cfg`s, `doc(hidden)`, `allow`s.
    attributes: Vec<Attribute>,
    /// Whether to allow deprecated items inside of generated code.
    is_deprecated: bool,
}

impl Names {
    fn new(declaration: &Declaration) -> Self {
        let item = &declaration.item;
        let trait_name = spans::as_item(&item.ident);
        let mut attributes = attr::cfgs(&item.attrs);
        attributes.extend(attr::hidden(&item.attrs));
        attributes.extend(attr::allowed(&item.attrs));
        let vis: &Visibility = &item.vis;
        let of_item =
            |item: &TraitItem| matches!(item, TraitItem::Fn(method) if attr::is_deprecated(&method.attrs));
        Self {
            krate: declaration.krate.clone(),
            vis: spans::as_items(quote!(#vis)),
            marker: format_ident!("{trait_name}Service"),
            methods: Ident::new("__Method", Span::mixed_site()),
            colour: declaration.colour,
            attributes,
            is_deprecated: attr::is_deprecated(&item.attrs) || item.items.iter().any(of_item),
            trait_name,
        }
    }

    /// The clients to write: the trait's own colour first.
    fn clients(&self) -> impl Iterator<Item = Client> {
        let name = |suffix| format_ident!("{}{suffix}", self.trait_name);
        let (colour, suffix) = match self.colour {
            Colour::Blocking => (Colour::Async, "Async"),
            Colour::Async => (Colour::Blocking, "Blocking"),
        };
        let trait_name = self.trait_name.clone();
        let own = Client { name: name("Client"), trait_name, colour: self.colour, is_own: true };
        let (of_client, trait_name) = (format!("{suffix}Client"), name(suffix));
        let other = Client { name: name(&of_client), trait_name, colour, is_own: false };
        [own, other].into_iter().filter(|client| !client.colour.is_async() || cfg!(feature = "tokio"))
    }

    /// A span for code that is made from the trait as a whole.
    fn span(&self) -> Span {
        spans::local(self.trait_name.span())
    }
}

/// One generated client.
struct Client {
    name: Ident,
    /// The trait that it implements.
    trait_name: Ident,
    colour: Colour,
    /// Whether it is of the colour of the user's trait, and so implements that one.
    is_own: bool,
}

impl Client {
    /// The module of the runtime where its parts are: reqwest's convention.
    fn module(&self, krate: &Path) -> Path {
        match self.colour {
            Colour::Blocking => parse_quote!(#krate::blocking),
            Colour::Async => krate.clone(),
        }
    }

    /// The runtime's function that makes a call, unless the method's result cannot cross.
    fn call(&self) -> Ident {
        let name = if self.colour.is_async() { "call_async" } else { "call_blocking" };
        Ident::new(name, Span::mixed_site())
    }
}

/// Items that no user names.
fn hide(names: &Names, items: &TokenStream) -> TokenStream {
    let attributes = &names.attributes;
    let deprecated = names.is_deprecated.then(|| quote!(#[allow(deprecated)]));
    quote_spanned! {names.span()=>
        #(#attributes)*
        #deprecated
        // Arguments go by the user's names, whatever these begin with.
        #[allow(clippy::used_underscore_binding)]
        const _: () = { #items };
    }
}
