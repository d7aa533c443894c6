//! Code for [`Shape`]s: how an argument is sent, how the receiver holds it, how it is lent from there.
//!
//! All of it is located at the argument's type, so that a type which cannot cross is what the error shows.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Index, Type};

use super::Names;
use crate::ast::Argument;
use crate::shape::Shape;
use crate::spans;
use crate::validate::Service;

/// Where to point for a type. (A stable compiler points at its first token, which for `&T` is not much.)
pub(super) fn span_of(ty: &Type) -> Span {
    match crate::shape::strip(ty) {
        Type::Reference(reference) => span_of(&reference.elem),
        Type::Slice(slice) => span_of(&slice.elem),
        other => other.span(),
    }
}

/// What the following code needs in scope: the prelude may be absent, or shadowed.
pub(super) fn imports(service: &Service<'_>) -> TokenStream {
    let mut shapes = service.methods.iter().flat_map(|method| &method.arguments).map(|(_, shape)| shape);
    if shapes.any(Shape::has_sequence) {
        quote_spanned!(Span::mixed_site()=> use ::core::iter::Iterator as _;)
    } else {
        TokenStream::new()
    }
}

/// The client: `encoder.push("name", value)`, without a question mark.
pub(super) fn send(names: &Names, encoder: &TokenStream, argument: &Argument, shape: &Shape) -> TokenStream {
    let code = Code::new(names, argument);
    let name = &argument.name;
    let place = Place::owned(code.binding.to_token_stream(), code.span);
    if shape.has_lent() {
        // A type that cannot be lent is the server's to report, once.
        let (private, value) = (&code.private, code.sent(shape, &place));
        return quote_spanned!(code.span=> #private::Made(&#value).push_to(#encoder, #name));
    }
    let value = match shape {
        // These are references already.
        Shape::Native(Type::Reference(_)) | Shape::Reference(_) | Shape::Slice(_) => {
            code.binding.to_token_stream()
        }
        _ => place.reference(),
    };
    quote_spanned!(code.span=> #encoder.push(#name, #value))
}

/// The server, first step: `let name: Held = arguments.next("name")?;`
pub(super) fn receive(
    names: &Names,
    arguments: &TokenStream,
    argument: &Argument,
    shape: &Shape,
) -> TokenStream {
    let code = Code::new(names, argument);
    let Code { binding, span, private } = &code;
    let (name, held) = (&argument.name, code.held(shape));
    let next = if shape.has_lent() {
        quote_spanned!(*span=> <#private::Crossing<#held>>::next(&mut #arguments, #name))
    } else {
        quote_spanned!(*span=> #arguments.next(#name))
    };
    quote_spanned!(*span=> let #binding: #held = #next?;)
}

/// What the receiver decodes, for the table: `.argument("name", ...)`.
pub(super) fn form(names: &Names, argument: &Argument, shape: &Shape) -> TokenStream {
    let code = Code::new(names, argument);
    let name = &argument.name;
    let ty = known(names, code.span, &code.held(shape));
    quote_spanned!(code.span=> .argument(#name, #ty))
}

/// The runtime's type by which a result is handled that the client of the trait's own colour reports if it
/// cannot cross.
pub(super) fn crossing(names: &Names, output: &Type) -> TokenStream {
    let krate = &names.krate;
    quote_spanned!(spans::local(span_of(output))=> <#krate::__private::Crossing<#output>>)
}

/// Code for the form of a type, which works for any type.
pub(super) fn known(names: &Names, span: Span, ty: &impl ToTokens) -> TokenStream {
    let krate = &names.krate;
    quote_spanned!(spans::local(span)=> <#krate::__private::Known<#ty>>::TYPE)
}

/// The server, second step: a local if the shape needs one, and the value to call the implementation with.
/// The local hides what it borrows from, which lives on behind it.
pub(super) fn lend(names: &Names, argument: &Argument, shape: &Shape) -> (TokenStream, TokenStream) {
    let code = Code::new(names, argument);
    let binding = &code.binding;
    let place = Place::owned(binding.to_token_stream(), code.span);
    let local = |value: TokenStream| quote_spanned!(code.span=> let #binding = #value;);
    match shape {
        Shape::Native(_) => (TokenStream::new(), binding.to_token_stream()),
        Shape::Reference(inner) | Shape::Slice(inner) if inner.is_native() => {
            (TokenStream::new(), place.reference())
        }
        Shape::Reference(inner) => (local(code.lent(inner, &place)), place.reference()),
        Shape::Slice(inner) => (local(code.collected(inner, &place)), place.reference()),
        Shape::Option(option) => match &**option {
            Shape::Slice(inner) if !inner.is_native() => {
                let item = code.item();
                let value = code.collected(inner, &Place::borrowed(item.clone(), code.span));
                let map = quote_spanned!(code.span=> #binding.as_ref().map(|#item| #value));
                (local(map), quote_spanned!(code.span=> #binding.as_deref()))
            }
            Shape::Reference(inner) if !inner.is_native() => {
                let item = code.item();
                let value = code.lent(inner, &Place::borrowed(item.clone(), code.span));
                let map = quote_spanned!(code.span=> #binding.as_ref().map(|#item| #value));
                (local(map), quote_spanned!(code.span=> #binding.as_ref()))
            }
            _ => (TokenStream::new(), code.lent(shape, &place)),
        },
        _ => (TokenStream::new(), code.lent(shape, &place)),
    }
}

/// An expression for where a value is.
struct Place {
    /// Good before a dot.
    path: TokenStream,
    /// Whether `path` is a reference to the value, and not the value.
    is_reference: bool,
    /// Whether the value may be moved out.
    is_owned: bool,
    span: Span,
}

impl Place {
    fn owned(path: TokenStream, span: Span) -> Self {
        Self { path, is_reference: false, is_owned: true, span }
    }

    fn borrowed(path: TokenStream, span: Span) -> Self {
        Self { path, is_reference: true, is_owned: false, span }
    }

    fn value(&self) -> TokenStream {
        let (path, span) = (&self.path, self.span);
        if self.is_reference { quote_spanned!(span=> *#path) } else { path.clone() }
    }

    fn reference(&self) -> TokenStream {
        let (path, span) = (&self.path, self.span);
        if self.is_reference { path.clone() } else { quote_spanned!(span=> &#path) }
    }

    /// What the value refers to, the value being a reference.
    fn target(&self) -> Self {
        let (path, span) = (&self.path, self.span);
        Self::borrowed(if self.is_reference { quote_spanned!(span=> (*#path)) } else { path.clone() }, span)
    }

    fn field(&self, position: usize) -> Self {
        let (path, span) = (&self.path, self.span);
        let index = Index { index: u32::try_from(position).unwrap_or(u32::MAX), span };
        Self { path: quote_spanned!(span=> #path.#index), is_reference: false, is_owned: self.is_owned, span }
    }
}

/// The code of one argument.
struct Code {
    private: TokenStream,
    binding: Ident,
    span: Span,
}

impl Code {
    fn new(names: &Names, argument: &Argument) -> Self {
        let krate = &names.krate;
        let at = span_of(&argument.ty);
        // The name stays the user's in what it refers to, and moves to where errors are wanted.
        let mut binding = argument.binding.clone();
        binding.set_span(binding.span().located_at(at));
        let private = spans::respan(quote!(#krate::__private), spans::item(at));
        Self { private, binding, span: spans::local(at) }
    }

    fn item(&self) -> TokenStream {
        quote_spanned!(self.span=> item)
    }

    /// A value that serializes as `place` is to be sent.
    fn sent(&self, shape: &Shape, place: &Place) -> TokenStream {
        let private = &self.private;
        let path = &place.path;
        match shape {
            _ if !shape.has_lent() => place.reference(),
            Shape::Native(_) => place.reference(),
            Shape::Lent(_) => {
                let value = place.value();
                quote_spanned!(self.span=> #private::ByRef(#value))
            }
            Shape::Reference(inner) => self.sent(inner, &place.target()),
            Shape::Slice(inner) | Shape::Vec(inner) => {
                let map = self.mapped(inner);
                quote_spanned!(self.span=> #private::Each(|| #path.iter().map(#map)))
            }
            // These are `Copy`.
            Shape::Option(inner) | Shape::Array(inner, _) if matches!(**inner, Shape::Lent(_)) => {
                quote_spanned!(self.span=> #path.map(#private::ByRef))
            }
            Shape::Option(inner) => {
                let map = self.mapped(inner);
                quote_spanned!(self.span=> #path.as_ref().map(#map))
            }
            Shape::Array(inner, _) => {
                let map = self.mapped(inner);
                quote_spanned!(self.span=> #path.each_ref().map(#map))
            }
            Shape::Tuple(elements) => {
                let elements = elements.iter().enumerate();
                let elements = elements.map(|(i, element)| self.sent(element, &place.field(i)));
                quote_spanned!(self.span=> (#(#elements,)*))
            }
        }
    }

    /// A function from a reference to an element to what is sent for it.
    fn mapped(&self, shape: &Shape) -> TokenStream {
        let item = self.item();
        let value = self.sent(shape, &Place::borrowed(item.clone(), self.span));
        quote_spanned!(self.span=> |#item| #value)
    }

    /// The type that the receiver decodes.
    fn held(&self, shape: &Shape) -> TokenStream {
        let private = &self.private;
        match shape {
            Shape::Native(ty) => ty.to_token_stream(),
            Shape::Lent(ty) => quote_spanned!(self.span=> #private::Held<'_, #ty>),
            Shape::Reference(inner) => self.held(inner),
            Shape::Slice(inner) | Shape::Vec(inner) => {
                let inner = self.held(inner);
                quote_spanned!(self.span=> ::std::vec::Vec<#inner>)
            }
            Shape::Option(inner) => {
                let inner = self.held(inner);
                quote_spanned!(self.span=> ::core::option::Option<#inner>)
            }
            Shape::Array(inner, len) => {
                let inner = self.held(inner);
                quote_spanned!(self.span=> [#inner; #len])
            }
            Shape::Tuple(elements) => {
                let elements = elements.iter().map(|element| self.held(element));
                quote_spanned!(self.span=> (#(#elements,)*))
            }
        }
    }

    /// The user's value, made from where it is held. It borrows from there what it can; owned values beside
    /// borrowed ones in a container are cloned, which is cheap for those that are usual there (numbers).
    fn lent(&self, shape: &Shape, place: &Place) -> TokenStream {
        let private = &self.private;
        let path = &place.path;
        match shape {
            Shape::Native(Type::Reference(_)) => place.value(),
            Shape::Native(_) if place.is_owned => place.value(),
            Shape::Native(_) => {
                let reference = place.reference();
                quote_spanned!(self.span=> ::core::clone::Clone::clone(#reference))
            }
            Shape::Lent(ty) => {
                let reference = place.reference();
                quote_spanned!(self.span=> <#private::Crossing<#ty>>::lend(#reference))
            }
            Shape::Reference(_) => place.reference(),
            Shape::Slice(_) => quote_spanned!(self.span=> #path.as_slice()),
            Shape::Vec(inner) => self.collected(inner, place),
            Shape::Option(inner) => {
                let map = self.lent_mapped(inner);
                quote_spanned!(self.span=> #path.as_ref().map(#map))
            }
            Shape::Array(inner, _) => {
                let map = self.lent_mapped(inner);
                quote_spanned!(self.span=> #path.each_ref().map(#map))
            }
            Shape::Tuple(elements) => {
                let elements = elements.iter().enumerate();
                let elements = elements.map(|(i, element)| self.lent(element, &place.field(i)));
                quote_spanned!(self.span=> (#(#elements,)*))
            }
        }
    }

    /// A `Vec` of what is made from each element.
    fn collected(&self, inner: &Shape, place: &Place) -> TokenStream {
        let (path, map) = (&place.path, self.lent_mapped(inner));
        quote_spanned!(self.span=> #path.iter().map(#map).collect::<::std::vec::Vec<_>>())
    }

    /// A function from a reference to what is held to the user's value.
    fn lent_mapped(&self, shape: &Shape) -> TokenStream {
        let private = &self.private;
        if let Shape::Lent(ty) = shape {
            return quote_spanned!(self.span=> <#private::Crossing<#ty>>::lend);
        }
        let item = self.item();
        let value = self.lent(shape, &Place::borrowed(item.clone(), self.span));
        quote_spanned!(self.span=> |#item| #value)
    }
}
