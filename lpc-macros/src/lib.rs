//! The attribute `#[service]` of lpc: a trait in, its client and server stubs out.
//!
//! Use it as `lpc::service`, from the crate `lpc-runtime`. The generated code calls that crate and is of no
//! use without it.
//!
//! # Layout
//!
//! `attr` reads the attributes and `ast` takes the trait apart. `validate` turns that into a
//! `validate::Service`, or reports errors. `expand` writes the code. A `shape` describes how one argument is
//! sent. Nothing here knows the wire format.

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

/// Makes a trait a service, so that its methods can run in another process.
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
///     /// A method with a body is local: it runs in the caller, on top of the others.
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
/// | `Documents` | `Documents` | the trait; its `async fn`s return `Send` futures, and it requires `Sync` |
/// | `DocumentsService` | `DocumentsService` | names the service where a type is asked for |
/// | `DocumentsClient`, blocking | `DocumentsClient`, async | implements the trait |
/// | `DocumentsAsync` | `DocumentsBlocking` | the trait of the other colour: methods without a body |
/// | `DocumentsAsyncClient` | `DocumentsBlockingClient` | implements that one, and has its methods itself |
///
/// Any implementation that is `Send + Sync + 'static` can be served. A trait of `fn` can be used as a `dyn`
/// type, a trait of `async fn` cannot.
///
/// `&T`, `Box<T>` and `Arc<T>` implement the traits where `T` does, `dyn Documents` being one, so an
/// `Arc<Store>` or a `Box<dyn Documents + Send + Sync>` can be served and passed on as `impl Documents`.
/// Local methods that take `&self` are those of `T`. Others run as they stand in the trait, even where `T` has
/// its own: those with a `where` clause (`Self: Sized`), with `Self` in their signature, or `unsafe`. (A trait
/// with a `where` clause of its own, or with types, is not delegated.)
///
/// Code that is generic over the other colour takes `&impl DocumentsAsync` or `&impl DocumentsBlocking`. An
/// object that implements it can be served, too, by the other kind of server.
///
/// With mockall, write `#[service]` above `#[automock]`.
///
/// The documentation and `cfg`s of the trait and its methods are carried over to what is generated from them.
///
/// # Methods
///
/// A method takes `&self` and returns a `Result<T, E>` with `E: From<lpc::Error>`, because a call may fail
/// where a local method cannot. All methods are `fn`, or all are `async fn`.
///
/// Arguments are `&str`, `&[u8]`, `&[T]`, `&Path`, `&T`, `Option<&str>`, `&[&str]`, tuples of these, and
/// owned values, of any types that implement serde's traits. The implementation borrows `&str` and `&[u8]`
/// from the received message, and other references from values that are decoded for the call. Results are
/// owned.
///
/// A method with a body is local and is kept as it is: it may be generic, and take and return anything. (In
/// an async trait, an `async fn` with a body becomes a function that returns a `Send` future.)
///
/// # Attributes
///
/// - `#[service(crate = "path::to::lpc")]` on the trait: the path of the crate, if it is not `::lpc`.
/// - `#[lpc(threshold = "64KiB")]` on a method: the size above which its arguments and its result travel
///   through shared memory. `"off"` and `"always"` are thresholds, too.
/// - `#[lpc(deadline = "5s")]` on a method: how long each of its calls may take, a whole number of `ns`,
///   `us`, `ms`, `s`, `min` or `h`.
/// - `#[lpc(idempotent)]` on a method: to call it twice is as good as to call it once, so a client that
///   reconnects may do so.
#[proc_macro_attribute]
pub fn service(attributes: TokenStream, item: TokenStream) -> TokenStream {
    expand_service(attributes.into(), item.into()).into()
}

/// [`service`] on token streams that also exist outside of the compiler.
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
        Err(_) if validate::is_statement(&item) => return item,
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
