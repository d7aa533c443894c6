//! Messages of several pieces, and room for them that is there, comes back, or is nowhere.
#![cfg(feature = "tokio")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use lpc::{AtQuota, Shared, SharedMut};

#[lpc::service]
trait Pieces {
    /// Their lengths together.
    fn length(&self, body: &[u8], loan: Shared<[u8]>) -> lpc::Result<u64>;
    /// What the loan begins with.
    fn first(&self, body: &[u8], loan: Shared<[u8]>) -> lpc::Result<u8>;
    /// After a while.
    fn slow(&self, body: &[u8]) -> lpc::Result<u64>;
}

struct Implementation;

impl Pieces for Implementation {
    fn length(&self, body: &[u8], loan: Shared<[u8]>) -> lpc::Result<u64> {
        Ok((body.len() + loan.len()) as u64)
    }

    fn first(&self, _: &[u8], loan: Shared<[u8]>) -> lpc::Result<u8> {
        loan.first().copied().ok_or_else(|| lpc::Error::other("empty"))
    }

    fn slow(&self, body: &[u8]) -> lpc::Result<u64> {
        thread::sleep(Duration::from_millis(100));
        Ok(body.len() as u64)
    }
}

const MIB: usize = 1 << 20;

/// Nothing here waits as long, but for want of what never comes.
const PATIENCE: AtQuota = AtQuota::Wait(Duration::from_secs(30));

/// Guards against a wait that only ends when it is over.
const GUARD: Duration = Duration::from_secs(20);

#[test]
fn what_fits_in_pieces_is_sent_although_nobody_gives_room_back() {
    let builder = PiecesClient::builder().pool_limit(8 * MIB as u64).at_quota(AtQuota::Fail);
    let client = builder.in_process(Implementation).unwrap();
    // A segment of 4 MiB, which neither leaves room for the other to be made nor holds both.
    client.length(&vec![0; 3 * MIB], Shared::default()).unwrap();
    let loan: Shared<[u8]> = vec![0; 4 * MIB + MIB / 2].into();
    assert_eq!(client.length(&vec![0; 3 * MIB], loan).unwrap(), 7 * MIB as u64 + MIB as u64 / 2);
}

#[tokio::test(flavor = "current_thread")]
async fn a_task_that_waits_for_room_lets_others_run() {
    let builder = PiecesAsyncClient::builder().pool_limit(8 * MIB as u64).at_quota(PATIENCE);
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        lpc::blocking::Server::builder().serve_stream::<PiecesService, _>(theirs, Implementation)
    });
    let client = builder.connect_stream(ours).await.unwrap();
    client.length(&vec![0; 3 * MIB], Shared::default()).await.unwrap();
    let kept = client.client().loan::<u8>(2 * MIB).await.unwrap();
    // A task of its own: only being woken has it look again.
    let caller = client.clone();
    let mut waiting =
        tokio::spawn(async move { caller.length(&vec![0; 7 * MIB], Shared::default()).await.unwrap() });
    let ticks = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = &mut waiting => panic!("there is no room: {result:?}"),
        () = ticks => {}
    }
    drop(kept);
    let length = tokio::time::timeout(GUARD, waiting).await.expect("nobody wakes it");
    assert_eq!(length.unwrap(), 7 * MIB as u64);
}

#[test]
fn room_that_comes_back_is_enough_where_it_is_enough() {
    let builder = PiecesClient::builder().pool_limit(8 * MIB as u64).at_quota(PATIENCE);
    let client = builder.in_process(Implementation).unwrap();
    let _kept = client.client().loan::<u8>(2 * MIB).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(client.slow(&vec![0; 3 * MIB]).unwrap(), 3 * MIB as u64));
        }
    });
}

/// The server has no quota, so that bodies are sent again, and a limit that only one of the objects fits, so
/// that their numbers change hands.
#[test]
fn a_body_that_is_sent_again_refers_to_what_it_did() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let builder = lpc::blocking::Server::builder().user_pool_limit(0);
        builder.serve_stream::<PiecesService, _>(theirs, Implementation)
    });
    let client = PiecesClient::builder().file_limit(6000).connect_stream(ours).unwrap();
    thread::scope(|scope| {
        for byte in 1..=2 {
            let client = &client;
            scope.spawn(move || {
                let mut sealed = SharedMut::<[u8]>::sealable(4096).unwrap();
                sealed.fill(byte);
                let sealed = sealed.freeze();
                for _ in 0..300 {
                    assert_eq!(client.first(&[0; 20_000], sealed.clone()).unwrap(), byte);
                }
            });
        }
    });
}
