//! The documentation of generated items.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::Path;
use syn::ext::IdentExt;

use super::{Client, Names};
use crate::ast::{Colour, Method};
use crate::attr;

/// One `#[doc]` a line.
fn doc(text: &str) -> TokenStream {
    let lines = text.lines().map(|line| if line.is_empty() { String::new() } else { format!(" {line}") });
    quote!(#(#[doc = #lines])*)
}

pub(super) fn marker(names: &Names) -> TokenStream {
    let name = names.trait_name.unraw();
    doc(&format!("The service [`{name}`], where a type has to name it. It has no values."))
}

pub(super) fn client(names: &Names, client: &Client) -> TokenStream {
    let name = names.trait_name.unraw();
    let first = match client.colour {
        Colour::Blocking => {
            format!(
                "A client of a [`{name}`] service in another process. Its calls block, and need no async runtime."
            )
        }
        Colour::Async => format!("An async client of a [`{name}`] service in another process."),
    };
    let second = match (client.is_own, client.colour) {
        (true, _) => format!(
            "It implements [`{name}`]: code that takes `&impl {name}` takes the object itself, or this."
        ),
        (false, Colour::Async) => format!(
            "It has the remote methods of [`{name}`] as `async fn`s, of its own and by [`{}`].",
            client.trait_name
        ),
        (false, Colour::Blocking) => format!(
            "It has the remote methods of [`{name}`] as blocking functions, of its own and by [`{}`].",
            client.trait_name
        ),
    };
    let others = names.clients().filter(|other| other.name != client.name);
    let others = others.map(|other| match other.colour {
        Colour::Blocking => format!("\n\nWithout an async runtime, use [`{}`].", other.name),
        Colour::Async => format!("\n\nIn async code, use [`{}`].", other.name),
    });
    doc(&format!(
        "{first}\n\n{second}\n\
         Clones share one connection, on which many calls may be under way.\n\n\
         Start with [`connect`](Self::connect), or with [`builder`](Self::builder) to set limits first.{}",
        others.collect::<String>()
    ))
}

/// Of the trait of the other colour.
pub(super) fn other(names: &Names, client: &Client) -> TokenStream {
    let (name, client_name) = (names.trait_name.unraw(), &client.name);
    let first = match client.colour {
        Colour::Blocking => {
            format!("The remote methods of [`{name}`] as blocking functions, without an async runtime.")
        }
        Colour::Async => format!("The remote methods of [`{name}`] as `async fn`s."),
    };
    doc(&format!(
        "{first}\n\n\
         [`{client_name}`] implements it, and so may an object: code that is generic over it takes either. \
         Such an object can be served as one that implements [`{name}`] can, by a server of the other kind."
    ))
}

pub(super) fn connect(names: &Names, client: &Client) -> TokenStream {
    let (name, krate) = (names.trait_name.unraw(), path(&names.krate));
    let cancel = match client.colour {
        Colour::Blocking => "",
        Colour::Async => "\n\n# Cancel safety\n\nDropping the future closes what was opened.",
    };
    doc(&format!(
        "Connects to the [`{name}`] service at `port`: a name, or an absolute path.\n\n\
         # Errors\n\n\
         An [`Error`]({krate}::Error) if nobody serves there, or if one side refuses the other.{cancel}"
    ))
}

pub(super) fn builder() -> TokenStream {
    doc("A builder, to connect with other settings than [`connect`](Self::connect) does.")
}

pub(super) fn with_deadline(krate: &Path) -> TokenStream {
    doc(&format!(
        "The same connection for calls that each end within `time`, be it with \
         [`TimedOut`]({}::ErrorKind::TimedOut).",
        path(krate)
    ))
}

pub(super) fn underlying(module: &Path) -> TokenStream {
    doc(&format!("The [`Client`]({}::Client) that makes the calls.", path(module)))
}

/// The text that follows the user's own documentation of a method.
pub(super) fn remote(names: &Names, method: &Method) -> TokenStream {
    let attributes = &method.attributes;
    let (trait_name, ident) = (names.trait_name.unraw(), &method.sig.ident);
    // rustdoc's links do not know raw identifiers.
    let link = if *ident == ident.unraw() {
        format!("[`{trait_name}::{ident}`]")
    } else {
        format!("`{trait_name}::{}`", ident.unraw())
    };
    let is_documented = attributes.iter().any(|attribute| attribute.path().is_ident("doc"));
    let mut text = String::new();
    if !is_documented {
        text.push_str(&format!("Calls {link} in the service's process."));
    }
    if !attr::documents_errors(attributes) {
        let krate = path(&names.krate);
        text.push_str(&format!(
            "\n\n# Errors\n\n\
             The error of {link} there, or one made from the [`Error`]({krate}::Error) of a call that failed."
        ));
    }
    doc(&text)
}

/// A path as a link.
fn path(path: &Path) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}
