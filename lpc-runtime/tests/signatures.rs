//! Every form of argument crosses a connection and arrives as it was sent, for each colour of service and
//! client.

#![cfg(feature = "tokio")]
#![allow(missing_docs, clippy::ptr_arg, clippy::unwrap_used)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use lpc::service;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    name: String,
    sizes: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doc<'a> {
    title: &'a str,
    #[serde(borrow)]
    body: Cow<'a, [u8]>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    Started,
    Moved { x: i32, y: i32 },
    Renamed(String),
}

/// The implementation: it reports what it got.
struct Reporter;

/// Declares a method of each line in a service of each colour, and calls all of them.
macro_rules! signatures {
    ($($name:ident($($argument:ident: $ty:ty = $value:expr),*);)*) => {
        #[service]
        pub trait Signatures {
            $(fn $name(&self, $($argument: $ty),*) -> lpc::Result<String>;)*
        }

        #[service]
        pub trait AsyncSignatures {
            $(async fn $name(&self, $($argument: $ty),*) -> lpc::Result<String>;)*
        }

        impl Signatures for Reporter {
            $(fn $name(&self, $($argument: $ty),*) -> lpc::Result<String> {
                Ok(format!("{} {:?}", stringify!($name), ($($argument,)*)))
            })*
        }

        impl AsyncSignatures for Reporter {
            $(async fn $name(&self, $($argument: $ty),*) -> lpc::Result<String> {
                // The arguments are lent across an await.
                tokio::task::yield_now().await;
                Ok(format!("{} {:?}", stringify!($name), ($($argument,)*)))
            })*
        }

        fn expected() -> Vec<String> {
            vec![$(format!("{} {:?}", stringify!($name), ($(typed::<$ty>($value),)*))),*]
        }

        fn by_trait(signatures: &impl Signatures) -> Vec<String> {
            vec![$(signatures.$name($($value),*).unwrap()),*]
        }

        async fn by_async_trait(signatures: &impl AsyncSignatures) -> Vec<String> {
            vec![$(sendable(signatures.$name($($value),*)).await.unwrap()),*]
        }

        fn by_blocking_client(signatures: &AsyncSignaturesBlockingClient) -> Vec<String> {
            vec![$(signatures.$name($($value),*).unwrap()),*]
        }

        async fn by_async_client(signatures: &SignaturesAsyncClient) -> Vec<String> {
            vec![$(sendable(signatures.$name($($value),*)).await.unwrap()),*]
        }
    };
}

signatures! {
    nothing();

    text(text: &str = "ein Täxt");
    bytes(bytes: &[u8] = b"bytes \xff");
    numbers(numbers: &[u32] = &[1, 2, u32::MAX]);
    strings(strings: &[String] = &["one".to_owned(), String::new()]);
    config(config: &Config = &small());
    path(path: &Path = odd_path());
    os_str(name: &OsStr = OsStr::from_bytes(b"\xfe"));
    c_str(name: &CStr = c"name");
    array(array: &[u8; 4] = &[1, 2, 3, 4]);
    vec(vec: &Vec<Config> = &vec![small()]);
    pair(pair: &(u8, String) = &(1, "pair".to_owned()));
    map(map: &BTreeMap<String, u32> = &BTreeMap::from([("one".to_owned(), 1), ("two".to_owned(), 2)]));
    number(number: &u64 = &7);

    owned(a: u64 = u64::MAX, b: i128 = i128::MIN, c: bool = true, d: char = 'ß', e: f64 = 0.1, f: () = ());
    owned_text(text: String = "text".to_owned());
    owned_bytes(bytes: Vec<u8> = vec![0, 255]);
    owned_array(key: [u8; 32] = [7; 32]);
    owned_config(config: Config = small());
    owned_path(path: PathBuf = PathBuf::from("/a"), after: Duration = Duration::from_millis(3));
    owned_events(events: Vec<Event> = events());
    owned_map(map: HashMap<u8, Vec<Vec<u8>>> = HashMap::from([(1, vec![vec![2], vec![]])]));
    owned_box(text: Box<str> = "boxed".into(), bytes: Box<[u8]> = [1, 2].into());

    borrowed_cow(text: Cow<'_, str> = Cow::Borrowed("cow"), bytes: Cow<'_, [u8]> = Cow::Borrowed(b"cow"));
    borrowed_doc(doc: Doc<'_> = doc());
    borrowed_map(map: BTreeMap<&str, &[u8]> = BTreeMap::from([("one", b"1".as_slice())]));
    refers_to_cow(text: &Cow<'_, str> = &Cow::Borrowed("cow"));
    refers_to_doc(doc: &Doc<'_> = &doc());
    refers_to_text(text: &&str = &"text");
    refers_to_pair(pair: &(&str, u32) = &("text", 1));
    refers_to_option(option: &Option<&str> = &Some("text"));

    maybe_text(text: Option<&str> = Some("text"));
    maybe_no_text(text: Option<&str> = None);
    maybe_bytes(bytes: Option<&[u8]> = Some(b"bytes"));
    maybe_path(path: Option<&Path> = Some(odd_path()));
    maybe_no_path(path: Option<&Path> = None);
    maybe_config(config: std::option::Option<&Config> = Some(&small()));
    maybe_texts(texts: Option<&[&str]> = Some(&["one", "two"]));
    maybe_paths(paths: Option<&[&Path]> = Some(&[odd_path(), Path::new("")]));
    maybe_no_paths(paths: Option<&[&Path]> = None);
    maybe_pair(pair: Option<(&Config, u32)> = Some((&small(), 1)));
    maybe_maybe(text: Option<Option<&Path>> = Some(None));
    maybe_refers(config: Option<&Option<&Config>> = Some(&Some(&small())));

    texts(texts: &[&str] = &["one", "", "three"]);
    byte_slices(slices: &[&[u8]] = &[b"one", b"\xff", b""]);
    records(records: &[(&str, u32)] = &[("one", 1), ("two", 2)]);
    docs(docs: &[Doc<'_>] = &[doc(), doc()]);
    paths(paths: &[&Path] = &[odd_path(), odd_path()]);
    configs(configs: &[&Config] = &[&small()]);
    path_records(records: &[(&Path, u32, String)] = &[(odd_path(), 1, "one".to_owned())]);
    rows(rows: &[&[u32]] = &[&[1, 2], &[]]);
    text_rows(rows: &[&[&str]] = &[&["one", "two"], &[]]);
    path_rows(rows: &[Vec<&Path>] = &[vec![odd_path()], vec![]]);
    options(options: &[Option<&Path>] = &[Some(odd_path()), None]);

    vec_of_texts(texts: Vec<&str> = vec!["one", "two"]);
    vec_of_configs(configs: Vec<&Config> = vec![&small(), &small()]);
    array_of_texts(texts: [&str; 2] = ["one", "two"]);
    array_of_paths(paths: [&Path; 2] = [odd_path(), Path::new("/")]);
    array_of_pairs(pairs: [(&Path, u8); 2] = [(odd_path(), 1), (odd_path(), 2)]);
    tuple(tuple: (&str, &[u8], u32) = ("text", b"bytes", 3));
    tuple_of_lent(tuple: (&Path, String, &str, Option<&Config>) = (odd_path(), "own".to_owned(), "text", None));
    refers_to_tuple(tuple: &(&Path, &str, u8) = &(odd_path(), "text", 1));

    large(bytes: &[u8] = &large(), texts: &[String] = &[String::from_utf8(large()).unwrap()]);
    several(a: &str = "a", b: &[u8] = b"b", c: Option<&Path> = None, d: &Config = &small(), e: Vec<u8> = vec![]);
}

/// The value, as the type that the method takes.
fn typed<T>(value: T) -> T {
    value
}

/// The future of a call can be spawned.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

fn small() -> Config {
    Config { name: "small".to_owned(), sizes: vec![1, 2] }
}

fn doc() -> Doc<'static> {
    Doc { title: "title", body: Cow::Borrowed(b"body") }
}

/// Not UTF-8, as file names need not be.
fn odd_path() -> &'static Path {
    Path::new(OsStr::from_bytes(b"/odd/\xff"))
}

fn events() -> Vec<Event> {
    vec![Event::Started, Event::Moved { x: -1, y: 1 }, Event::Renamed("new".to_owned())]
}

/// More than goes through the socket.
fn large() -> Vec<u8> {
    vec![b'x'; 1 << 20]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn an_implementation_is_called_as_it_is() {
    assert_eq!(by_trait(&Reporter), expected());
    assert_eq!(runtime().block_on(by_async_trait(&Reporter)), expected());
}

#[test]
fn blocking_client_of_a_blocking_service() {
    let client: SignaturesClient = SignaturesClient::builder().in_process(Reporter).unwrap();
    assert_eq!(by_trait(&client), expected());
}

#[test]
fn async_client_of_an_async_service() {
    runtime().block_on(async {
        let client: AsyncSignaturesClient =
            AsyncSignaturesClient::builder().in_process(Reporter).await.unwrap();
        assert_eq!(by_async_trait(&client).await, expected());
    });
}

#[test]
fn async_client_of_a_blocking_service() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        lpc::blocking::Server::builder().serve_stream::<SignaturesService, _>(theirs, Reporter)
    });
    runtime().block_on(async {
        let client: SignaturesAsyncClient =
            SignaturesAsyncClient::builder().connect_stream(ours).await.unwrap();
        assert_eq!(by_async_client(&client).await, expected());
    });
    server.join().unwrap().unwrap();
}

#[test]
fn blocking_client_of_an_async_service() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let served = lpc::Server::builder().serve_stream::<AsyncSignaturesService, _>(theirs, Reporter);
        runtime().block_on(served)
    });
    let client: AsyncSignaturesBlockingClient =
        AsyncSignaturesBlockingClient::builder().connect_stream(ours).unwrap();
    assert_eq!(by_blocking_client(&client), expected());
    drop(client);
    server.join().unwrap().unwrap();
}

/// What a list of methods that look alike does not show.
#[service]
pub trait Particular: Send {
    fn named_lifetimes<'a>(
        &'a self,
        text: &'a str,
        cow: Cow<'a, str>,
        paths: &'a [&'a Path],
    ) -> lpc::Result<usize>;
    fn bounded_lifetimes<'a, 'b: 'a>(&self, long: &'b str, short: &'a str) -> lpc::Result<usize>;
    fn no_names(&self, _: &str, _: u32) -> lpc::Result<usize>;
    fn r#raw(&self, r#type: &str, r#match: u32) -> lpc::Result<usize>;
    fn own_error(&self, number: u32) -> Result<u32, NotEven>;
    fn long_error(&self) -> Result<(), Box<NotEven>>
    where
        Box<NotEven>: From<lpc::Error>;

    fn local<T: Into<u32>>(&self, number: T) -> bool
    where
        Self: Sized,
    {
        self.own_error(number.into()).is_ok()
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum NotEven {
    Odd(u32),
    #[serde(skip)]
    Call(String),
}

impl From<lpc::Error> for NotEven {
    fn from(error: lpc::Error) -> Self {
        Self::Call(error.to_string())
    }
}

impl From<lpc::Error> for Box<NotEven> {
    fn from(error: lpc::Error) -> Self {
        Box::new(error.into())
    }
}

impl Particular for Reporter {
    fn named_lifetimes<'a>(
        &'a self,
        text: &'a str,
        cow: Cow<'a, str>,
        paths: &'a [&'a Path],
    ) -> lpc::Result<usize> {
        Ok(text.len() + cow.len() + paths.len())
    }
    fn bounded_lifetimes<'a, 'b: 'a>(&self, long: &'b str, short: &'a str) -> lpc::Result<usize> {
        let both: [&'a str; 2] = [long, short];
        Ok(both.concat().len())
    }
    fn no_names(&self, text: &str, number: u32) -> lpc::Result<usize> {
        Ok(text.len() + number as usize)
    }
    fn r#raw(&self, r#type: &str, r#match: u32) -> lpc::Result<usize> {
        Ok(r#type.len() + r#match as usize)
    }
    fn own_error(&self, number: u32) -> Result<u32, NotEven> {
        if number.is_multiple_of(2) { Ok(number / 2) } else { Err(NotEven::Odd(number)) }
    }
    fn long_error(&self) -> Result<(), Box<NotEven>> {
        Err(Box::new(NotEven::Odd(1)))
    }
}

fn particular(particular: &impl Particular) {
    let here = Path::new(".");
    assert_eq!(particular.named_lifetimes("one", Cow::Borrowed("two"), &[here]).unwrap(), 7);
    assert_eq!(particular.bounded_lifetimes("one", "three").unwrap(), 8);
    assert_eq!(particular.no_names("one", 3).unwrap(), 6);
    assert_eq!(particular.r#raw("one", 3).unwrap(), 6);
    assert_eq!(particular.own_error(4), Ok(2));
    assert_eq!(particular.own_error(3), Err(NotEven::Odd(3)));
    assert_eq!(*particular.long_error().unwrap_err(), NotEven::Odd(1));
    assert!(particular.local(2_u8));
}

#[test]
fn lifetimes_names_and_errors_of_all_kinds() {
    particular(&Reporter);
    let client: ParticularClient = ParticularClient::builder().in_process(Reporter).unwrap();
    particular(&client);
}

#[test]
fn a_call_that_fails_on_its_way_is_the_users_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || lpc::blocking::Server::builder().serve_stream(theirs, Nobody));
    let client: ParticularClient = ParticularClient::builder().connect_stream(ours).unwrap();
    assert!(matches!(client.own_error(4), Err(NotEven::Call(_))));
    drop(client);
    server.join().unwrap().unwrap();
}

/// A service of the same name as another version of the program had it.
mod older {
    #[lpc::service]
    pub trait Particular {
        fn no_names(&self, text: &str, number: u32) -> lpc::Result<usize>;
    }
}

struct Nobody;

impl older::Particular for Nobody {
    fn no_names(&self, _: &str, _: u32) -> lpc::Result<usize> {
        Ok(0)
    }
}
