//! Values arrive as they were sent, as arguments and as results, over every lane, for each colour of service and
//! client: those whose writer and reader differ, or that ask what comes next, paths of any bytes, deep ones. What
//! cannot be carried is said before the first call.

#![cfg(feature = "tokio")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use lpc::{ErrorKind, Threshold, service};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Edit {
    Keep(String),
    #[serde(skip)]
    Cached(u64),
    Append(String),
    Delete(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unwritten {
    pub first: u8,
    #[serde(skip_serializing, default)]
    pub skipped: u8,
    pub last: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Untagged {
    Number(u64),
    Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        bytes: Vec<u8>,
    },
}

#[derive(Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum EditError {
    #[error("this process alone knows")]
    #[serde(skip)]
    Local,
    #[error("no such edit: {0}")]
    Unknown(String),
    #[error(transparent)]
    Call(#[from] SameError),
}

/// An error that can be compared.
#[derive(Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct SameError(String);

impl From<lpc::Error> for EditError {
    fn from(error: lpc::Error) -> Self {
        Self::Call(SameError(error.to_string()))
    }
}

/// One level a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    next: Option<Box<List>>,
}

impl List {
    fn of(nodes: u32) -> Self {
        (1..nodes).fold(Self { next: None }, |list, _| Self { next: Some(Box::new(list)) })
    }
}

/// The limit of both sides.
const DEPTH: u32 = 300;

/// The same service in both colours.
macro_rules! services {
    ($($module:ident: $($async_token:ident)?;)*) => {$(
        mod $module {
            use super::*;

            #[service]
            pub trait Edits {
                $($async_token)? fn edit(&self, before: u64, edit: Edit, after: &str) -> Result<Edit, EditError>;
                $($async_token)? fn edits(&self, edits: &[Edit]) -> lpc::Result<Vec<Edit>>;
                $($async_token)? fn unwritten(&self, one: &Unwritten, bytes: &[u8]) -> lpc::Result<(Unwritten, Vec<u8>)>;
                $($async_token)? fn any(&self, packed: u32, value: Value, untagged: Option<&Untagged>) -> lpc::Result<(Value, Option<Untagged>, u32)>;
                $($async_token)? fn paths(&self, one: &Path, many: Vec<PathBuf>, name: &OsString) -> lpc::Result<(PathBuf, Vec<PathBuf>, OsString)>;
                $($async_token)? fn list(&self, list: List) -> lpc::Result<List>;
                $($async_token)? fn units(&self, units: &[()]) -> lpc::Result<Vec<()>>;
            }

            impl Edits for super::Echo {
                $($async_token)? fn edit(&self, before: u64, edit: Edit, after: &str) -> Result<Edit, EditError> {
                    assert_eq!((before, after), (300, "after"));
                    match edit {
                        Edit::Delete(name) => Err(EditError::Unknown(name)),
                        edit => Ok(edit),
                    }
                }
                $($async_token)? fn edits(&self, edits: &[Edit]) -> lpc::Result<Vec<Edit>> {
                    Ok(edits.to_vec())
                }
                $($async_token)? fn unwritten(&self, one: &Unwritten, bytes: &[u8]) -> lpc::Result<(Unwritten, Vec<u8>)> {
                    Ok((one.clone(), bytes.to_vec()))
                }
                $($async_token)? fn any(&self, packed: u32, value: Value, untagged: Option<&Untagged>) -> lpc::Result<(Value, Option<Untagged>, u32)> {
                    Ok((value, untagged.cloned(), packed))
                }
                $($async_token)? fn paths(&self, one: &Path, many: Vec<PathBuf>, name: &OsString) -> lpc::Result<(PathBuf, Vec<PathBuf>, OsString)> {
                    Ok((one.into(), many, name.clone()))
                }
                $($async_token)? fn list(&self, list: List) -> lpc::Result<List> {
                    Ok(list)
                }
                $($async_token)? fn units(&self, units: &[()]) -> lpc::Result<Vec<()>> {
                    Ok(vec![(); units.len() * 2])
                }
            }
        }
    )*};
}

services! {
    blocking: ;
    asynchronous: async;
}

struct Echo;

/// The calls, with what follows each where they are awaited.
macro_rules! calls {
    ($client:ident $(.$await:ident)?) => {
        let edit = |edit: Edit| $client.edit(300, edit, "after");
        assert_eq!(edit(Edit::Append("notes".into()))$(.$await)?, Ok(Edit::Append("notes".into())));
        assert_eq!(edit(Edit::Keep("x".into()))$(.$await)?, Ok(Edit::Keep("x".into())));
        assert_eq!(edit(Edit::Delete("x".into()))$(.$await)?, Err(EditError::Unknown("x".into())));
        let edit_of = |at| if at % 2 == 0 { Edit::Append("a".into()) } else { Edit::Delete("d".into()) };
        let edits = (0..2000).map(edit_of).collect::<Vec<_>>();
        assert_eq!($client.edits(&edits)$(.$await)?.unwrap(), edits);
        let sent = Unwritten { first: 1, skipped: 9, last: 2 };
        let arrived = Unwritten { skipped: 0, ..sent.clone() };
        assert_eq!($client.unwritten(&sent, &[1, 5])$(.$await)?.unwrap(), (arrived, vec![1, 5]));
        let value = json!({"a": [1, -2, 0.5, "x", null], "b": {}});
        for untagged in [
            None,
            Some(Untagged::Number(7)),
            Some(Untagged::Sparse { text: None, bytes: vec![0, 255] }),
            Some(Untagged::Sparse { text: Some("t".into()), bytes: vec![] }),
        ] {
            let expected = (value.clone(), untagged.clone(), 70_000);
            assert_eq!($client.any(70_000, value.clone(), untagged.as_ref())$(.$await)?.unwrap(), expected);
        }

        let path = Path::new(OsStr::from_bytes(b"/tmp/\xff"));
        let name = OsStr::from_bytes(b"\xfe").to_owned();
        let many = vec![path.to_owned(), PathBuf::from("/etc/passwd")];
        let expected = (path.to_owned(), many.clone(), name.clone());
        assert_eq!($client.paths(path, many, &name)$(.$await)?.unwrap(), expected);

        let list = List::of(DEPTH - 1);
        assert_eq!($client.list(list.clone())$(.$await)?.unwrap(), list);
        // The call itself counts as a level of a result, which is a `Result`.
        let error = $client.list(List::of(DEPTH))$(.$await)?.unwrap_err();
        assert!(error.to_string().contains("result of Edits.list: value is nested deeper than 300"), "{error}");
        let error = $client.list(List::of(DEPTH + 1))$(.$await)?.unwrap_err();
        assert_eq!((error.kind(), error.may_have_run()), (ErrorKind::Encode, false));
        let text = error.to_string();
        assert!(text.contains("`list`") && text.contains("300 levels (max_depth of client or server)"), "{text}");

        assert_eq!($client.units(&[(); 1000])$(.$await)?.unwrap().len(), 2000);
        for (sent, place) in [(65_537, "argument `units`"), (40_000, "result of Edits.units")] {
            let error = $client.units(&vec![(); sent])$(.$await)?.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Encode);
            let text = error.to_string();
            assert!(text.contains(place) && text.contains("more than 65536 elements without bytes"), "{text}");
        }
        assert_eq!($client.units(&[()])$(.$await)?.unwrap().len(), 2);
    };
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Both lanes, and the quick one.
const WAYS: [(Threshold, bool); 3] =
    [(Threshold::OFF, false), (Threshold::ALWAYS, false), (Threshold::OFF, true)];

#[test]
fn a_blocking_service_gets_what_was_sent_and_so_do_its_clients() {
    use blocking::{EditsAsyncClient, EditsClient, EditsService};
    let serve = |threshold, quick| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = lpc::blocking::Server::builder().threshold(threshold).quick_lane(quick).max_depth(DEPTH);
        (ours, thread::spawn(move || server.serve_stream::<EditsService, _>(theirs, Echo)))
    };
    for (threshold, quick) in WAYS {
        let (ours, server) = serve(threshold, quick);
        let client = EditsClient::builder()
            .threshold(threshold)
            .quick_lane(quick)
            .max_depth(DEPTH)
            .connect_stream(ours)
            .unwrap();
        {
            use blocking::Edits as _;
            calls!(client);
        }
        drop(client);
        server.join().unwrap().unwrap();
        let (ours, server) = serve(threshold, quick);
        runtime().block_on(async {
            let client = EditsAsyncClient::builder().threshold(threshold).quick_lane(quick).max_depth(DEPTH);
            let client = client.connect_stream(ours).await.unwrap();
            calls!(client.await);
        });
        server.join().unwrap().unwrap();
    }
}

#[test]
fn an_async_service_gets_what_was_sent_and_so_do_its_clients() {
    use asynchronous::{EditsBlockingClient, EditsClient, EditsService};
    let serve = |threshold, quick| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = lpc::Server::builder().threshold(threshold).quick_lane(quick).max_depth(DEPTH);
        let serve = move || runtime().block_on(server.serve_stream::<EditsService, _>(theirs, Echo));
        (ours, thread::spawn(serve))
    };
    for (threshold, quick) in WAYS {
        let (ours, server) = serve(threshold, quick);
        let client = EditsBlockingClient::builder().threshold(threshold).quick_lane(quick).max_depth(DEPTH);
        let client = client.connect_stream(ours).unwrap();
        calls!(client);
        drop(client);
        server.join().unwrap().unwrap();
        let (ours, server) = serve(threshold, quick);
        runtime().block_on(async {
            use asynchronous::Edits as _;
            let client = EditsClient::builder().threshold(threshold).quick_lane(quick).max_depth(DEPTH);
            let client = client.connect_stream(ours).await.unwrap();
            calls!(client.await);
        });
        server.join().unwrap().unwrap();
    }
}

#[test]
fn the_lower_of_both_sides_limits_of_depth_holds() {
    use blocking::{Edits as _, EditsClient, EditsService};
    for (ours, theirs, limit) in [(1000, 200, 200), (200, 1000, 200), (u32::MAX, u32::MAX, 1024)] {
        let (stream, other) = UnixStream::pair().unwrap();
        let server = lpc::blocking::Server::builder().max_depth(theirs);
        let serve = move || server.serve_stream::<EditsService, _>(other, Echo);
        let server = thread::Builder::new().stack_size(16 << 20).spawn(serve).unwrap();
        let call = move || {
            let client = EditsClient::builder().max_depth(ours).connect_stream(stream).unwrap();
            assert_eq!(client.list(List::of(limit - 1)).unwrap(), List::of(limit - 1));
            let text = client.list(List::of(limit + 1)).unwrap_err().to_string();
            assert!(text.contains(&format!("deeper than {limit} levels")), "{text}");
        };
        thread::Builder::new().stack_size(16 << 20).spawn(call).unwrap().join().unwrap();
        server.join().unwrap().unwrap();
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TwoNames {
    #[serde(rename(serialize = "one", deserialize = "two"), default)]
    pub field: u8,
}

#[service]
pub trait Impossible {
    fn fine(&self, number: u8) -> lpc::Result<()>;
    fn impossible(&self, number: u8, names: &TwoNames) -> lpc::Result<()>;
}

impl Impossible for Echo {
    fn fine(&self, _: u8) -> lpc::Result<()> {
        Ok(())
    }

    fn impossible(&self, _: u8, _: &TwoNames) -> lpc::Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_carried_is_said_before_the_first_call_on_both_sides() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let error =
        lpc::blocking::Server::builder().serve_stream::<ImpossibleService, _>(theirs, Echo).unwrap_err();
    let is_told = |error: lpc::Error| {
        assert!(error.is_unsupported() && !error.may_have_run(), "{error:?}");
        let text = error.to_string();
        for told in ["Impossible.impossible", "argument `names`", "`TwoNames`", "`one`", "rename"] {
            assert!(text.contains(told), "{text}");
        }
    };
    is_told(error);
    is_told(ImpossibleClient::builder().connect_stream(ours).map(drop).unwrap_err());
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let connected = runtime().block_on(ImpossibleAsyncClient::builder().connect_stream(ours));
    is_told(connected.map(drop).unwrap_err());
}
