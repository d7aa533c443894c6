//! The type that represents the service, and its table of methods for the runtime.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::LitStr;
use syn::ext::IdentExt;

use super::{Names, docs, shapes};
use crate::validate::{Method, Service};
use crate::{attr, spans};

/// `enum DocumentsService {}`
pub(super) fn definition(names: &Names) -> TokenStream {
    let Names { attributes, vis, marker, .. } = names;
    let docs = docs::marker(names);
    quote_spanned! {names.span()=>
        #(#attributes)*
        #docs
        #[derive(::core::fmt::Debug)]
        #vis enum #marker {}
    }
}

/// The indices of the methods, and the table that gives the index a name.
pub(super) fn methods(names: &Names, service: &Service<'_>) -> TokenStream {
    let methods = &names.methods;
    let variants = service.methods.iter().map(|method| {
        let (cfgs, variant) = (attr::cfgs(&method.declared.attributes), variant(method));
        quote!(#(#cfgs)* #variant,)
    });
    let entries = service.methods.iter().map(|method| entry(names, method));
    let implementation = implementation(names, &quote!(&[#(#entries)*]));
    let krate = &names.krate;
    quote_spanned! {names.span()=>
        // The compiler reports a type that cannot cross where it is used first, and should not do so again
        // for each use.
        #[allow(unused_imports)]
        use #krate::__private::{Uncrossable as _, Unknown as _};

        // The compiler counts, since only it knows which methods are configured out.
        enum #methods { #(#variants)* }

        #implementation
    }
}

/// The impl with a given table.
pub(super) fn implementation(names: &Names, table: &TokenStream) -> TokenStream {
    let Names { krate, trait_name, marker, .. } = names;
    let name = trait_name.unraw().to_string();
    quote_spanned! {names.span()=>
        impl #krate::Service for #marker {
            const NAME: &'static str = #name;
            const METHODS: &'static [#krate::Method] = #table;
        }
    }
}

/// A method in the table.
fn entry(names: &Names, method: &Method<'_>) -> TokenStream {
    let krate = &names.krate;
    let cfgs = attr::cfgs(&method.declared.attributes);
    let name = method.declared.sig.ident.unraw().to_string();
    let settings = &method.declared.settings;
    let threshold = parsed(names, "threshold", settings.threshold.as_ref())
        .map(|threshold| quote!(.with_threshold(#threshold)));
    let deadline = parsed(names, "deadline", settings.deadline.as_ref())
        .map(|deadline| quote!(.with_deadline(#deadline)));
    let form = form(names, method);
    let idempotent = settings.is_idempotent.then(|| quote!(.idempotent()));
    quote_spanned!(names.span()=> #(#cfgs)* #krate::Method::new(#name)#threshold #deadline #idempotent.with_form(#form),)
}

/// The closure that returns the method's form.
fn form(names: &Names, method: &Method<'_>) -> TokenStream {
    let arguments = method.arguments.iter();
    let arguments = arguments.map(|(argument, shape)| shapes::form(names, argument, shape));
    let result = shapes::known(names, shapes::span_of(method.output), method.output);
    quote_spanned!(names.span()=> |signature| signature #(#arguments)*.result(#result))
}

/// A setting, parsed at compile time by the runtime's function of this name.
fn parsed(names: &Names, function: &str, text: Option<&LitStr>) -> Option<TokenStream> {
    let krate = &names.krate;
    let (text, function) = (text?, format_ident!("{function}"));
    // All at the literal, and as if the user had written it: that is where the compiler is to complain.
    Some(spans::respan(quote!(#krate::__private::#function(#text)), text.span()))
}

/// The index of a method, as an expression.
pub(super) fn index(names: &Names, method: &Method<'_>) -> TokenStream {
    let (methods, variant) = (&names.methods, variant(method));
    quote_spanned!(names.span()=> #methods::#variant as u32)
}

fn variant(method: &Method<'_>) -> syn::Ident {
    spans::as_item(&method.declared.sig.ident)
}
