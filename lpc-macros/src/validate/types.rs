//! Finds types that cannot be sent, as far as their syntax shows. The bounds of the runtime's functions find
//! the others: a type without serde's traits, an alias of something else.

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    Lifetime, Path, ReturnType, Signature, Type, TypeFnPtr, TypeImplTrait, TypeParamBound, TypePath, TypePtr,
    TypeReference, TypeTraitObject,
};

use crate::ctxt::Ctxt;
use crate::shape::strip;

/// Reports what is wrong with the type of an argument; whether it was fine.
pub(super) fn argument(ctxt: &Ctxt, ty: &Type) -> bool {
    if is_unsized(ty) {
        ctxt.error(ty, format!("an argument of unknown size; write `&{}`", text(ty)));
        return false;
    }
    let mut checker = Checker { ctxt, side: Side::Argument, is_fine: true };
    checker.visit_type(ty);
    checker.is_fine
}

/// Reports what is wrong with the result of a method, which has to be a `Result`, or may be an alias of one.
pub(super) fn result<'a>(ctxt: &Ctxt, sig: &'a Signature) -> Option<&'a Type> {
    let ty = match &sig.output {
        ReturnType::Type(_, ty) => strip(ty),
        ReturnType::Default => {
            let message =
                "a call may fail, so a remote method returns a `Result`: write `-> lpc::Result<()>`";
            ctxt.error(&sig.ident, message);
            return None;
        }
    };
    match ty {
        Type::ImplTrait(opaque) => {
            ctxt.error(ty, opaque_result(opaque, sig));
            return None;
        }
        Type::TraitObject(_) => {
            ctxt.error(ty, DYN_RESULT);
            return None;
        }
        _ => {}
    }
    let mut checker = Checker { ctxt, side: Side::Result, is_fine: true };
    if is_plain(ty) && !stays(ty) {
        let owned = owned(ty).unwrap_or_else(|| text(ty));
        let message =
            format!("a call may fail, so a remote method returns a `Result`: write `lpc::Result<{owned}>`");
        ctxt.error(ty, message);
        return None;
    }
    checker.visit_type(ty);
    checker.is_fine.then_some(ty)
}

const DYN_RESULT: &str = "a trait object cannot be sent; return a type of your own, as an enum of the cases";

fn opaque_result(opaque: &TypeImplTrait, sig: &Signature) -> String {
    let is = |name| {
        opaque.bounds.iter().any(|bound| {
            matches!(bound, TypeParamBound::Trait(bound)
                if bound.path.segments.last().is_some_and(|segment| segment.ident == name))
        })
    };
    if is("Future") {
        format!("write `async fn {}`; its future is `Send` without saying so", sig.ident)
    } else if is("Iterator") || is("Stream") || is("IntoIterator") {
        "streams of results are not supported; return them together: `lpc::Result<Vec<..>>`".into()
    } else {
        "the other side has to know the type of a result; write it".into()
    }
}

/// Which way the value goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Argument,
    Result,
}

struct Checker<'a> {
    ctxt: &'a Ctxt,
    side: Side,
    is_fine: bool,
}

impl Checker<'_> {
    fn error(&mut self, tokens: impl ToTokens, message: impl Into<String>) {
        self.is_fine = false;
        self.ctxt.error(tokens, message.into());
    }
}

impl<'ast> Visit<'ast> for Checker<'_> {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let is_static = reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static");
        let target = strip(&reference.elem);
        match (self.side, target) {
            (_, Type::TraitObject(_)) => visit::visit_type_reference(self, reference),
            (Side::Result, _) => {
                let owned = owned_target(target);
                self.error(reference, format!("a result outlives the call and is owned; write `{owned}`"));
            }
            (Side::Argument, _) if reference.mutability.is_some() => {
                let message = "out-parameters are not supported; return the new value instead";
                self.error(reference, message);
            }
            (Side::Argument, _) if is_static => {
                let (target, owned) = (text(target), owned_target(target));
                let message = format!("an argument lives for one call; write `&{target}`, or `{owned}`");
                self.error(reference, message);
            }
            _ => visit::visit_type_reference(self, reference),
        }
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if self.side == Side::Result && lifetime.ident != "static" {
            let message = "a result outlives the call and is owned; write an owned type, or `'static` here";
            self.error(lifetime, message);
        }
    }

    fn visit_type_ptr(&mut self, pointer: &'ast TypePtr) {
        let message = match self.side {
            Side::Argument => "a pointer means nothing in another process; pass `&T`, `&[T]` or a value",
            Side::Result => "a pointer means nothing in another process; return a value",
        };
        self.error(pointer, message);
    }

    fn visit_type_fn_ptr(&mut self, pointer: &'ast TypeFnPtr) {
        self.error(pointer, "a function stays in its process, callbacks are not supported; send a value");
    }

    fn visit_type_trait_object(&mut self, object: &'ast TypeTraitObject) {
        let message = match self.side {
            Side::Argument => {
                "a trait object stays in its process, callbacks are not supported; send a value"
            }
            Side::Result => DYN_RESULT,
        };
        self.error(object, message);
    }

    fn visit_type_impl_trait(&mut self, opaque: &'ast TypeImplTrait) {
        let message = match self.side {
            Side::Argument => {
                "a remote method cannot be generic, and `impl Trait` makes it so; write the type, or give \
                 the method a body to make it local"
            }
            Side::Result => "the other side has to know the type of a result; write it",
        };
        self.error(opaque, message);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let last = path.segments.last();
        if path.segments.first().is_some_and(|segment| segment.ident == "Self") {
            self.error(path, "`Self` is another type on the other side; write a type that both sides know");
        } else if last.is_none_or(|segment| segment.ident != "PhantomData") {
            // What a phantom stands for is not sent.
            visit::visit_path(self, path);
        }
    }
}

/// Types of the standard library and the language that are no `Result`. (A path to anything else may be an
/// alias of one.)
fn is_plain(ty: &Type) -> bool {
    const PLAIN: &[&str] = &[
        "bool",
        "char",
        "f32",
        "f64",
        "i8",
        "i16",
        "i32",
        "i64",
        "i128",
        "isize",
        "u8",
        "u16",
        "u32",
        "u64",
        "u128",
        "usize",
        "str",
        "String",
        "Vec",
        "VecDeque",
        "Option",
        "Box",
        "Rc",
        "Arc",
        "Cow",
        "HashMap",
        "HashSet",
        "BTreeMap",
        "BTreeSet",
        "BinaryHeap",
        "PathBuf",
        "Path",
        "OsString",
        "OsStr",
        "CString",
        "Duration",
        "Instant",
        "SystemTime",
        "IpAddr",
        "SocketAddr",
        "Range",
        "RangeInclusive",
        "NonZero",
        "PhantomData",
    ];
    match ty {
        Type::Path(TypePath { qself: None, path, .. }) => {
            path.segments.last().is_some_and(|last| PLAIN.iter().any(|name| last.ident == name))
        }
        Type::Reference(_) | Type::Tuple(_) | Type::Array(_) | Type::Slice(_) | Type::Never(_) => true,
        Type::Ptr(_) | Type::FnPtr(_) | Type::Infer(_) => true,
        _ => false,
    }
}

/// Types without a size, which stand behind a reference.
pub(super) fn is_unsized(ty: &Type) -> bool {
    match strip(ty) {
        Type::Slice(_) => true,
        Type::Path(path) => path.path.is_ident("str"),
        _ => false,
    }
}

/// What to return in place of a borrowed or unsized type; `None` if it owns itself already.
fn owned(ty: &Type) -> Option<String> {
    match strip(ty) {
        Type::Reference(reference) => Some(owned_target(strip(&reference.elem))),
        Type::Never(_) => Some("()".into()),
        unsized_type if is_unsized(unsized_type) => Some(owned_target(unsized_type)),
        _ => None,
    }
}

fn owned_target(target: &Type) -> String {
    match target {
        Type::Slice(slice) => format!("Vec<{}>", owned(&slice.elem).unwrap_or_else(|| text(&slice.elem))),
        Type::Path(path) if path.path.is_ident("str") => "String".into(),
        Type::Path(path) if path.path.is_ident("Path") => "PathBuf".into(),
        Type::Path(path) if path.path.is_ident("OsStr") => "OsString".into(),
        Type::Path(path) if path.path.is_ident("CStr") => "CString".into(),
        other => text(other),
    }
}

/// Whether the type has something inside that no `Result` around it would help.
fn stays(ty: &Type) -> bool {
    struct Stays(bool);
    impl<'ast> Visit<'ast> for Stays {
        fn visit_type_trait_object(&mut self, _: &'ast TypeTraitObject) {
            self.0 = true;
        }
        fn visit_type_fn_ptr(&mut self, _: &'ast TypeFnPtr) {
            self.0 = true;
        }
        fn visit_type_ptr(&mut self, _: &'ast TypePtr) {
            self.0 = true;
        }
    }
    let mut stays = Stays(false);
    stays.visit_type(ty);
    stays.0
}

/// Whether the signature's own output is `impl Trait`, or has one inside.
pub(super) fn mentions_impl(output: &ReturnType) -> bool {
    struct Mentions(bool);
    impl<'ast> Visit<'ast> for Mentions {
        fn visit_type_impl_trait(&mut self, _: &'ast TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut mentions = Mentions(false);
    mentions.visit_return_type(output);
    mentions.0
}

/// A type as people write it: tokens print with a space between any two.
fn text(ty: &Type) -> String {
    let spaced = ty.to_token_stream().to_string();
    let tight = [
        (" :: ", "::"),
        (":: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        (" ;", ";"),
        ("& ", "&"),
        ("[ ", "["),
        (" ]", "]"),
        ("( ", "("),
        (" )", ")"),
    ];
    tight.iter().fold(spaced, |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_print_as_people_write_them() {
        for source in ["Vec<u8>", "&[u8]", "std::collections::HashMap<String, Vec<(u8, [u8; 4])>>"] {
            let ty = syn::parse_str(source).expect(source);
            assert_eq!(text(&ty), source);
        }
    }

    #[test]
    fn borrowed_types_have_an_owned_form() {
        for (source, expected) in [("&str", "String"), ("&[&str]", "Vec<String>"), ("&Path", "PathBuf")] {
            let ty = syn::parse_str(source).expect(source);
            assert_eq!(owned(&ty).as_deref(), Some(expected));
        }
        assert_eq!(owned(&syn::parse_quote!(Vec<u8>)), None);
    }
}
