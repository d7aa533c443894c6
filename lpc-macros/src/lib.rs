//! The attribute `#[service]` of lpc: a trait in, its client and server stubs out.
//!
//! Use it as `lpc::service`, from the crate `lpc-runtime`; what this crate emits calls that crate and
//! is of no use without it.
//!
//! The way through: `attr` reads the attributes and `ast` takes the trait apart, `validate`
//! turns that into a `validate::Service` or into errors, `expand` writes the code. A `shape`
//! says how one argument crosses. Nothing here knows the wire.

mod ast;
mod attr;
mod ctxt;
mod expand;
mod shape;
mod spans;
mod validate;

use proc_macro::TokenStream;
use quote::quote;
use syn::Item;

use crate::ctxt::Ctxt;

/// Makes a trait a service: its methods can run in another process.
///
/// ```
/// use lpc::service;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct DocumentId(u64);
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub enum StoreError {
///     Full,
///     Call(lpc::Error),
/// }
///
/// impl From<lpc::Error> for StoreError {
///     fn from(error: lpc::Error) -> Self {
///         Self::Call(error)
///     }
/// }
///
/// #[service]
/// pub trait Documents {
///     /// Counts the words of `text`.
///     fn count_words(&self, text: &str) -> lpc::Result<u64>;
///
///     #[lpc(threshold = "64KiB")]
///     fn put(&self, name: &str, body: &[u8]) -> Result<DocumentId, StoreError>;
///
///     /// A method with a body is local: it runs at the caller, on top of the others.
///     fn count_all(&self, texts: &[&str]) -> lpc::Result<u64> {
///         texts.iter().map(|text| self.count_words(text)).sum()
///     }
/// }
/// ```
///
/// # What is generated
///
/// | for a trait of `fn` | for a trait of `async fn` | |
/// |---|---|---|
/// | `Documents` | `Documents` | the trait; its `async fn`s return futures that are `Send`, and it requires `Sync` |
/// | `DocumentsService` | `DocumentsService` | names the service where a type is asked for |
/// | `DocumentsClient`, blocking | `DocumentsClient`, async | implements the trait |
/// | `DocumentsAsyncClient` | `DocumentsBlockingClient` | the other colour: the same methods, of its own |
///
/// Whatever implements the trait and is `Send + Sync + 'static` can be served. A trait of `fn` can be a `dyn` type, one of
/// `async fn` cannot.
///
/// # What a method looks like
///
/// It takes `&self`, and returns a `Result<T, E>` whose `E` is made from an `lpc::Error`, because a call
/// can fail where a local method cannot. Arguments are what one would write anyway: `&str`, `&[u8]`,
/// `&[T]`, `&Path`, `&T`, `Option<&str>`, `&[&str]`, tuples of these, and owned values; what they are
/// made of implements serde's traits. Results are owned. All methods are `fn`, or all are `async fn`.
///
/// A method with a body is local and is kept as it is: it may be generic, and take and return anything.
/// (In an async trait an `async fn` with a body becomes a function that returns a `Send` future.)
///
/// # Attributes
///
/// - `#[service(crate = "path::to::lpc")]` says where the crate is, if not at `::lpc`.
/// - `#[lpc(threshold = "64KiB")]` on a method says from which size on its arguments and its result
///   travel through mapped memory; `"off"` and `"always"` are thresholds too.
/// - `#[lpc(deadline = "5s")]` says how long each of its calls may take: a whole number of `ns`, `us`, `ms`, `s`, `min` or `h`.
/// - `#[lpc(idempotent)]` says that calling it twice is as good as calling it once, so that a client that reconnects may do so.
///
/// Documentation and `cfg`s of trait and methods are carried over to what is generated from them.
#[proc_macro_attribute]
pub fn service(attributes: TokenStream, item: TokenStream) -> TokenStream {
    expand_service(attributes.into(), item.into()).into()
}

/// [`service`] on the token type that exists outside of a compiler too.
fn expand_service(
    attributes: proc_macro2::TokenStream,
    item: proc_macro2::TokenStream,
) -> proc_macro2::TokenStream {
    let ctxt = Ctxt::new();
    let attributes = attr::ServiceAttributes::parse(&ctxt, attributes);
    let item = match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Trait(item)) => item,
        Ok(other) => {
            validate::not_a_trait(&ctxt, &other);
            let errors = ctxt.into_errors();
            return quote!(#errors #other);
        }
        Err(error) => {
            let errors = error.into_compile_error();
            return quote!(#errors #item);
        }
    };
    let declaration = ast::Declaration::new(&ctxt, attributes, item);
    let service = validate::service(&ctxt, &declaration);
    match service {
        Some(service) if ctxt.is_empty() => expand::service(&service),
        _ => {
            let errors = ctxt.into_errors();
            let fallback = expand::fallback(&declaration);
            quote!(#errors #fallback)
        }
    }
}
