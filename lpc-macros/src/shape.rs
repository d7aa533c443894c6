//! How one argument is sent and lent, read off its type as written.
//!
//! The codec by itself lends `&str`, `&[u8]` and all other types that implement `Deserialize` with a
//! lifetime. Such a type is [`Shape::Native`], and most arguments are. A reference to anything else (`&Path`,
//! `&Config`, `&[Row]`) has to be made on the receiving side from a value that is held there for the call:
//! [`Shape::Lent`]. The other shapes are containers that have such a reference somewhere inside. How shapes
//! become code is in `expand::shapes`.

use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{Expr, GenericArgument, Lifetime, PathArguments, Type, TypePath, TypeReference};

/// How a value of one type is sent, held by the receiver, and lent to the implementation.
pub(crate) enum Shape {
    /// The type goes through serde as it is.
    Native(Type),
    /// `&T`, held as the runtime's `Lend` says for `T`.
    Lent(Type),
    /// `&T` where `T` borrows itself.
    Reference(Box<Shape>),
    /// `&[T]` where `T` borrows itself.
    Slice(Box<Shape>),
    /// `Option<T>`, with [`Shape::Lent`] somewhere in `T`; likewise the following.
    Option(Box<Shape>),
    Vec(Box<Shape>),
    Tuple(Vec<Shape>),
    Array(Box<Shape>, Expr),
}

impl Shape {
    /// The shape of an argument; `None` if references are nested in a way that the receiving side could
    /// not rebuild in one step.
    pub(crate) fn of_argument(ty: &Type) -> Option<Self> {
        let mut ty = ty.clone();
        EraseLifetimes.visit_type_mut(&mut ty);
        let shape = Self::of(&ty);
        // Arguments, and what is in an `Option` of an argument, may be rebuilt into a local of its own.
        let inner = match &shape {
            Self::Option(inner) => inner,
            _ => &shape,
        };
        let is_supported = match inner {
            Self::Reference(inner) | Self::Slice(inner) => inner.is_one_step(),
            other => other.is_one_step(),
        };
        is_supported.then_some(shape)
    }

    fn of(ty: &Type) -> Self {
        let ty = strip(ty);
        let native = || Self::Native(ty.clone());
        match ty {
            Type::Reference(reference) => Self::of_reference(reference),
            Type::Tuple(tuple) => {
                let elements = tuple.elems.iter().map(Self::of).collect::<Vec<_>>();
                if elements.iter().all(Self::is_native) { native() } else { Self::Tuple(elements) }
            }
            Type::Array(array) => match Self::of(&array.elem) {
                Self::Native(_) => native(),
                element => Self::Array(Box::new(element), array.len.clone()),
            },
            Type::Path(path) => match container(path) {
                Some((name, element)) => match (name, Self::of(element)) {
                    (_, Self::Native(_)) => native(),
                    (Container::Option, element) => Self::Option(Box::new(element)),
                    (Container::Vec, element) => Self::Vec(Box::new(element)),
                },
                None => native(),
            },
            _ => native(),
        }
    }

    fn of_reference(reference: &TypeReference) -> Self {
        let target = strip(&reference.elem);
        match target {
            _ if is_str_or_bytes(target) => Self::Native(Type::Reference(reference.clone())),
            Type::Slice(slice) if borrows(&slice.elem) => Self::Slice(Box::new(Self::of(&slice.elem))),
            _ if borrows(target) => Self::Reference(Box::new(Self::of(target))),
            _ => Self::Lent(target.clone()),
        }
    }

    pub(crate) fn is_native(&self) -> bool {
        matches!(self, Self::Native(_))
    }

    /// Whether the receiver can make the value by one expression, from a place where it is held.
    fn is_one_step(&self) -> bool {
        match self {
            Self::Native(_) | Self::Lent(_) => true,
            Self::Reference(inner) | Self::Slice(inner) => inner.is_native(),
            Self::Option(inner) | Self::Vec(inner) | Self::Array(inner, _) => inner.is_one_step(),
            Self::Tuple(elements) => elements.iter().all(Self::is_one_step),
        }
    }

    /// Whether it is sent in another form than serde's.
    pub(crate) fn has_lent(&self) -> bool {
        match self {
            Self::Native(_) => false,
            Self::Lent(_) => true,
            Self::Reference(inner) | Self::Slice(inner) | Self::Option(inner) => inner.has_lent(),
            Self::Vec(inner) | Self::Array(inner, _) => inner.has_lent(),
            Self::Tuple(elements) => elements.iter().any(Self::has_lent),
        }
    }

    /// Whether code for it iterates.
    pub(crate) fn has_sequence(&self) -> bool {
        match self {
            Self::Native(_) | Self::Lent(_) => false,
            Self::Slice(inner) => !inner.is_native(),
            Self::Vec(_) => true,
            Self::Reference(inner) | Self::Option(inner) | Self::Array(inner, _) => inner.has_sequence(),
            Self::Tuple(elements) => elements.iter().any(Self::has_sequence),
        }
    }
}

/// The type without the parentheses and invisible groups that macros leave around types.
pub(crate) fn strip(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => strip(&group.elem),
        Type::Paren(paren) => strip(&paren.elem),
        other => other,
    }
}

#[derive(Clone, Copy)]
enum Container {
    Option,
    Vec,
}

/// The `T` of `Option<T>` and `Vec<T>`, under their usual paths.
fn container(path: &TypePath) -> Option<(Container, &Type)> {
    let last = path.path.segments.last()?;
    let container = match last.ident.to_string().as_str() {
        "Option" => Container::Option,
        "Vec" => Container::Vec,
        _ => return None,
    };
    let modules = path.path.segments.iter().rev().skip(1).rev().map(|segment| segment.ident.to_string());
    let modules = modules.collect::<Vec<_>>().join("::");
    let is_usual = match container {
        Container::Option => ["", "option", "std::option", "core::option"].contains(&modules.as_str()),
        Container::Vec => ["", "vec", "std::vec", "alloc::vec"].contains(&modules.as_str()),
    };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(element)) if is_usual && arguments.args.len() == 1 => {
            Some((container, element))
        }
        _ => None,
    }
}

fn is_str_or_bytes(ty: &Type) -> bool {
    let is = |ty: &Type, name| matches!(strip(ty), Type::Path(path) if path.path.is_ident(name));
    match ty {
        Type::Slice(slice) => is(&slice.elem, "u8"),
        other => is(other, "str"),
    }
}

/// Whether the type mentions a lifetime or a reference, so that serde decodes it by borrowing.
fn borrows(ty: &Type) -> bool {
    struct Borrows(bool);
    impl<'ast> Visit<'ast> for Borrows {
        fn visit_lifetime(&mut self, _: &'ast Lifetime) {
            self.0 = true;
        }
        fn visit_type_reference(&mut self, _: &'ast TypeReference) {
            self.0 = true;
        }
    }
    let mut borrows = Borrows(false);
    visit::visit_type(&mut borrows, ty);
    borrows.0
}

/// Replaces the method's lifetimes in a type by `'_`.
pub(crate) fn erase_lifetimes(path: &mut TypePath) {
    EraseLifetimes.visit_type_path_mut(path);
}

/// Replaces the method's lifetimes by `'_`, since the receiving side has none of their names.
struct EraseLifetimes;

impl VisitMut for EraseLifetimes {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        reference.lifetime = None;
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident != "static" {
            *lifetime = Lifetime::new("'_", lifetime.span());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shape in short: `n` native, `l` lent, `&` reference, `[]` slice, `?` option, `*` vec, `#` array.
    fn short(shape: &Shape) -> String {
        match shape {
            Shape::Native(_) => "n".into(),
            Shape::Lent(_) => "l".into(),
            Shape::Reference(inner) => format!("&{}", short(inner)),
            Shape::Slice(inner) => format!("[{}]", short(inner)),
            Shape::Option(inner) => format!("?{}", short(inner)),
            Shape::Vec(inner) => format!("*{}", short(inner)),
            Shape::Array(inner, _) => format!("#{}", short(inner)),
            Shape::Tuple(elements) => format!("({})", elements.iter().map(short).collect::<String>()),
        }
    }

    fn shape(text: &str) -> String {
        let ty = syn::parse_str(text).expect(text);
        Shape::of_argument(&ty).map_or_else(|| "too deep".into(), |shape| short(&shape))
    }

    #[test]
    fn what_serde_borrows_by_itself_is_native() {
        let natives = ["u32", "String", "&str", "&[u8]", "&'a str", "(&str)", "Option<&str>", "Vec<&[u8]>"];
        for text in natives {
            assert_eq!(shape(text), "n", "{text}");
        }
        for text in ["Cow<'_, str>", "HashMap<&str, u32>", "[&str; 2]", "(&str, u32)", "()", "Doc<'a>"] {
            assert_eq!(shape(text), "n", "{text}");
        }
    }

    #[test]
    fn references_to_other_types_are_lent() {
        for text in ["&Path", "&[u32]", "&[u8; 4]", "&T", "&Vec<u8>", "&(u8, String)", "&[String]"] {
            assert_eq!(shape(text), "l", "{text}");
        }
    }

    #[test]
    fn references_to_what_borrows_are_held_as_what_they_refer_to() {
        assert_eq!(shape("&Doc<'_>"), "&n");
        assert_eq!(shape("&Cow<'static, str>"), "&n");
        assert_eq!(shape("&&str"), "&n");
        assert_eq!(shape("&[&str]"), "[n]");
        assert_eq!(shape("&[(&str, u32)]"), "[n]");
        assert_eq!(shape("&[Doc<'_>]"), "[n]");
        assert_eq!(shape("&[&Path]"), "[l]");
        assert_eq!(shape("&(&Path, &str)"), "&(ln)");
    }

    #[test]
    fn containers_show_only_if_something_in_them_is_lent() {
        assert_eq!(shape("Option<&Path>"), "?l");
        assert_eq!(shape("std::option::Option<&[u32]>"), "?l");
        assert_eq!(shape("Vec<&T>"), "*l");
        assert_eq!(shape("[&T; 3]"), "#l");
        assert_eq!(shape("(&T, u32, Option<&T>)"), "(ln?l)");
        assert_eq!(shape("Option<&[&str]>"), "?[n]");
        assert_eq!(shape("Option<&[&Path]>"), "?[l]");
        assert_eq!(shape("mine::Option<&T>"), "n");
    }

    #[test]
    fn deeper_nesting_than_one_step_is_refused() {
        assert_eq!(shape("&[&[&str]]"), "[[n]]");
        assert_eq!(shape("&[&[&Path]]"), "too deep");
        assert_eq!(shape("Vec<&[&Path]>"), "too deep");
        assert_eq!(shape("(u32, &[&Path])"), "too deep");
        assert_eq!(shape("&[Vec<&Path>]"), "[*l]");
    }

    #[test]
    fn lifetimes_of_the_method_are_erased_and_static_is_kept() {
        let ty = syn::parse_str("(&'a str, Cow<'a, str>, Cow<'static, str>)").expect("a type");
        let Some(Shape::Native(ty)) = Shape::of_argument(&ty) else { panic!("not native") };
        let expected: Type = syn::parse_quote!((&str, Cow<'_, str>, Cow<'static, str>));
        assert_eq!(quote::quote!(#ty).to_string(), quote::quote!(#expected).to_string());
    }
}
