//! Validates one remote method.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{FnArg, GenericParam, Ident, Receiver, ReceiverKind, Safety, Signature, TraitItem};

use super::{Method, types};
use crate::ast::{self, Argument, Colour, Declaration};
use crate::ctxt::Ctxt;
use crate::shape::Shape;

/// The names of functions that every generated client has.
const RESERVED: &[&str] = &["connect", "builder", "client", "with_deadline"];

/// Reports one method; `None` if it cannot be called remotely, and then something was reported.
pub(super) fn method<'a>(ctxt: &Ctxt, method: &'a ast::Method) -> Option<Method<'a>> {
    let errors_before = ctxt.len();
    let sig = &method.sig;
    qualifiers(ctxt, sig);
    generics(ctxt, sig);
    let receiver = receiver(ctxt, sig);
    let arguments = method.arguments.iter().map(|argument| Some((argument, shape(ctxt, argument)?)));
    let arguments = arguments.collect::<Vec<_>>();
    let output = types::result(ctxt, sig);
    if ctxt.len() > errors_before {
        return None;
    }
    let arguments = arguments.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Method { declared: method, receiver: receiver?, arguments, output: output? })
}

/// Reports names that are taken: by the client, or by another method under another `cfg`.
pub(super) fn names(ctxt: &Ctxt, declaration: &Declaration) {
    let mut seen = HashSet::new();
    for item in &declaration.item.items {
        let TraitItem::Fn(method) = item else { continue };
        let name = method.sig.ident.unraw().to_string();
        if is_reserved(&method.sig.ident) {
            let message = format!(
                "the generated client has a `{name}` of its own; rename the method, \
                 for example to `{name}_document`"
            );
            ctxt.error(&method.sig.ident, message);
        }
        if !seen.insert(name.clone()) {
            let message = format!(
                "a second method `{name}`: the other side knows methods by name, whatever the `cfg`; \
                 give them different names, or put the `cfg` on the whole trait"
            );
            ctxt.error(&method.sig.ident, message);
        }
    }
}

/// Reports the methods that are not of the trait's colour.
pub(super) fn colours(ctxt: &Ctxt, declaration: &Declaration) {
    let odd = |method: &&ast::Method| Colour::of(&method.sig) != declaration.colour;
    for method in declaration.methods.iter().filter(odd) {
        let name = &method.sig.ident;
        match method.sig.asyncness {
            Some(token) => ctxt.error(
                token,
                "the other remote methods of this trait are `fn`, and a service has one colour; \
                 remove `async`, or write all of them `async fn`",
            ),
            None => ctxt.error(
                method.sig.fn_token,
                format!(
                    "the other remote methods of this trait are `async fn`, and a service has one colour; \
                     write `async fn {name}`, or all of them `fn`"
                ),
            ),
        }
    }
}

fn qualifiers(ctxt: &Ctxt, sig: &Signature) {
    if let Some(token) = sig.constness {
        ctxt.error(token, "a remote method cannot be `const`; remove it");
    }
    if let Safety::Unsafe(token) = sig.safety {
        let message = "a remote method cannot be `unsafe`, for its caller cannot keep a promise in another \
                       process; remove `unsafe`, and check what comes in";
        ctxt.error(token, message);
    }
    if let Some(abi) = &sig.abi {
        ctxt.error(abi, "a remote method cannot be `extern`; remove it");
    }
}

fn generics(ctxt: &Ctxt, sig: &Signature) {
    let generic = |param: &&GenericParam| !matches!(param, GenericParam::Lifetime(_));
    let params = sig.generics.params.iter().filter(generic).collect::<Vec<_>>();
    if !params.is_empty() {
        let message = "a remote method cannot be generic, for the type would have to travel with the call; \
                       write the type, or give the method a body to make it local";
        ctxt.error(quote!(#(#params),*), message);
    }
}

fn receiver<'a>(ctxt: &Ctxt, sig: &'a Signature) -> Option<&'a Receiver> {
    let Some(receiver) = sig.receiver() else {
        let message = format!(
            "a remote method takes `&self`: write `fn {}(&self, ..)`, or give it a body to make it local",
            sig.ident
        );
        ctxt.error(&sig.ident, message);
        return None;
    };
    let (tokens, why): (TokenStream, &str) = match &receiver.kind {
        ReceiverKind::Reference(_, _, None) => return Some(receiver),
        ReceiverKind::Reference(and, lifetime, Some(token)) => {
            let self_token = receiver.self_token;
            (
                quote!(#and #lifetime #token #self_token),
                "calls come from many callers at once, keep the state in a lock",
            )
        }
        ReceiverKind::Value => (receiver.to_token_stream(), "the object stays with its process"),
        _ => (receiver.to_token_stream(), "a caller in another process has no other handle on it"),
    };
    ctxt.error(tokens, format!("a remote method takes `&self`: {why}"));
    None
}

/// The shape of an argument; `None` with an error reported.
fn shape(ctxt: &Ctxt, argument: &Argument) -> Option<Shape> {
    for attribute in &argument.attributes {
        if attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr") {
            let message = "an argument cannot depend on a `cfg`, for the other side may be built otherwise; \
                           write two methods of different names";
            ctxt.error(attribute, message);
        }
    }
    if !types::argument(ctxt, &argument.ty) {
        return None;
    }
    let shape = Shape::of_argument(&argument.ty);
    if shape.is_none() {
        let message = "borrowed values in a slice in another container are not supported; \
                       write the inner slice as a `Vec`, as in `&[Vec<&Path>]`";
        ctxt.error(&argument.ty, message);
    }
    shape
}

/// Whether the generated clients have something of that name.
pub(crate) fn is_reserved(name: &Ident) -> bool {
    RESERVED.iter().any(|reserved| name.unraw() == reserved)
}

/// Whether the fallback can write a stub of this signature that diverges.
pub(crate) fn is_stubbable(sig: &Signature) -> bool {
    !types::mentions_impl(&sig.output) && sig.variadic.is_none() && !has_unsized_argument(sig)
}

fn has_unsized_argument(sig: &Signature) -> bool {
    sig.inputs.iter().any(|input| matches!(input, FnArg::Typed(argument) if types::is_unsized(&argument.ty)))
}
