//! A question to the compiler for each type that is called like one of the standard library with a
//! descriptor, whether it is that one: then it says what to write instead.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::TypePath;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Names;
use crate::ast::Argument;
use crate::validate::Service;
use crate::{attr, spans};

const NAMES: &[&str] = &[
    "File",
    "OwnedFd",
    "BorrowedFd",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
];

/// A function that is never called, with all such questions; nothing if there are none.
pub(super) fn checks(names: &Names, service: &Service<'_>) -> TokenStream {
    let checks = service.methods.iter().filter_map(|method| {
        let mut called = Called(Vec::new());
        for (Argument { ty, .. }, _) in &method.arguments {
            called.visit_type(ty);
        }
        called.visit_type(method.output);
        let cfgs = attr::cfgs(&method.declared.attributes);
        let checks = called.0.iter().map(|ty| check(names, ty)).collect::<TokenStream>();
        (!checks.is_empty()).then(|| quote_spanned!(names.span()=> #(#cfgs)* { #checks }))
    });
    let checks = checks.collect::<TokenStream>();
    if checks.is_empty() {
        return checks;
    }
    let krate = &names.krate;
    quote_spanned! {names.span()=>
        const _: fn() = || {
            #[allow(unused_imports)]
            use #krate::__private::Crosses as _;
            #checks
        };
    }
}

fn check(names: &Names, ty: &TypePath) -> TokenStream {
    let krate = &names.krate;
    let mut ty = ty.clone();
    // Those of the method are not in scope here.
    crate::shape::erase_lifetimes(&mut ty);
    quote_spanned!(spans::local(ty.span())=> <#krate::__private::Stays<#ty>>::check::<#ty>();)
}

/// The types of these names in a type.
struct Called<'a>(Vec<&'a TypePath>);

impl<'a> Visit<'a> for Called<'a> {
    fn visit_type_path(&mut self, path: &'a TypePath) {
        let last = path.path.segments.last();
        if last.is_some_and(|last| NAMES.iter().any(|name| last.ident == name)) {
            self.0.push(path);
        }
        visit::visit_type_path(self, path);
    }
}
