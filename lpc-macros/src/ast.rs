//! The user's trait, taken apart but not yet validated.

use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, Ident, ItemTrait, Pat, Path, Signature, TraitItem, Type};

use crate::attr::{self, MethodAttributes, ServiceAttributes};
use crate::ctxt::Ctxt;
use crate::spans;

/// `fn` or `async fn`: one for all remote methods of a trait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Blocking,
    Async,
}

impl Colour {
    /// The colour of one method.
    pub(crate) fn of(sig: &Signature) -> Self {
        if sig.asyncness.is_some() { Self::Async } else { Self::Blocking }
    }

    pub(crate) fn is_async(self) -> bool {
        self == Self::Async
    }
}

/// A trait under `#[service]`.
pub(crate) struct Declaration {
    /// The path of the runtime.
    pub(crate) krate: Path,
    /// The trait as written, without lpc's own attributes.
    pub(crate) item: ItemTrait,
    /// The colour of most of its methods.
    pub(crate) colour: Colour,
    /// The methods without a body, which are the remote ones.
    pub(crate) methods: Vec<Method>,
    /// The methods with a body, which are local.
    pub(crate) local: Vec<Method>,
}

/// A method.
pub(crate) struct Method {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) settings: MethodAttributes,
    pub(crate) sig: Signature,
    pub(crate) arguments: Vec<Argument>,
}

/// An argument other than `self`.
pub(crate) struct Argument {
    pub(crate) attributes: Vec<Attribute>,
    /// The user's name for it, or if it has none, a name that cannot collide with one.
    pub(crate) binding: Ident,
    /// Its name in messages.
    pub(crate) name: String,
    pub(crate) ty: Type,
}

impl Declaration {
    pub(crate) fn new(ctxt: &Ctxt, attributes: ServiceAttributes, mut item: ItemTrait) -> Self {
        for attribute in attr::take_lpc(ctxt, &mut item.attrs) {
            ctxt.error(
                attribute,
                "`#[lpc]` goes on a method; settings for all of them belong to the server and the client",
            );
        }
        let (mut methods, mut local) = (Vec::new(), Vec::new());
        for part in &mut item.items {
            match part {
                TraitItem::Fn(method) if method.default.is_none() => {
                    let settings = MethodAttributes::take(ctxt, &mut method.attrs);
                    methods.push(Method::new(method.attrs.clone(), settings, method.sig.clone()));
                }
                TraitItem::Fn(method) => {
                    refuse_lpc(ctxt, &mut method.attrs);
                    let settings = MethodAttributes::default();
                    local.push(Method::new(method.attrs.clone(), settings, method.sig.clone()));
                }
                TraitItem::Const(constant) => refuse_lpc(ctxt, &mut constant.attrs),
                TraitItem::Type(ty) => refuse_lpc(ctxt, &mut ty.attrs),
                _ => {}
            }
        }
        let colour = colour(&item, &methods);
        Self { krate: attributes.krate, item, colour, methods, local }
    }
}

impl Method {
    fn new(attributes: Vec<Attribute>, settings: MethodAttributes, sig: Signature) -> Self {
        let typed = sig.inputs.iter().enumerate().filter_map(|(position, input)| match input {
            FnArg::Typed(argument) => Some((position, argument)),
            FnArg::Receiver(_) => None,
        });
        let arguments = typed.map(|(position, argument)| {
            let (binding, name) = match &*argument.pat {
                Pat::Ident(pattern) => (pattern.ident.clone(), pattern.ident.unraw().to_string()),
                pattern => {
                    let span = spans::local(pattern.span());
                    (Ident::new(&format!("argument_{position}"), span), format!("_{position}"))
                }
            };
            Argument { attributes: argument.attrs.clone(), binding, name, ty: (*argument.ty).clone() }
        });
        let arguments = arguments.collect();
        Self { attributes, settings, sig, arguments }
    }
}

fn refuse_lpc(ctxt: &Ctxt, attributes: &mut Vec<Attribute>) {
    for attribute in attr::take_lpc(ctxt, attributes) {
        ctxt.error(
            attribute,
            "`#[lpc]` says how a call travels, and this is local to each side: \
             only methods without a body are remote",
        );
    }
}

/// The colour of most remote methods, so that the odd one out gets the error. In a tie, the colour of the
/// first one.
fn colour(item: &ItemTrait, methods: &[Method]) -> Colour {
    let asyncs = methods.iter().filter(|method| method.sig.asyncness.is_some()).count();
    let first = methods.first().map(|method| Colour::of(&method.sig));
    match (asyncs * 2).cmp(&methods.len()) {
        std::cmp::Ordering::Less => Colour::Blocking,
        std::cmp::Ordering::Greater => Colour::Async,
        std::cmp::Ordering::Equal => first.unwrap_or_else(|| local_colour(item)),
    }
}

/// The colour of a trait without remote methods: async if any method is.
fn local_colour(item: &ItemTrait) -> Colour {
    let is_async = |part: &TraitItem| matches!(part, TraitItem::Fn(method) if method.sig.asyncness.is_some());
    if item.items.iter().any(is_async) { Colour::Async } else { Colour::Blocking }
}
