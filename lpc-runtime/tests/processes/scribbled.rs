//! A peer that writes to what it has sent, all the time.
#![allow(unsafe_code, reason = "writing to shared memory takes it")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use lpc_core::arena::PAGE;
use lpc_core::frame::BlockRef;
use memmap2::{MmapOptions, MmapRaw};

use crate::hostile::{Answer, Peer, encoded, memfd, seal, segment_seals};
use crate::service::Driver;
use crate::vault::{Baseline, Knobs, Vault};

/// Calls to each of the two servers, by default and with `LPC_LONG` in the environment.
const CALLS: usize = 50_000;
const CALLS_LONG: usize = 500_000;

/// Calls on their way at once.
const BATCH: usize = 16;

const PAGES: u64 = 16;

/// Where in the segment the body is, and the loans.
const BODY: u32 = 0;
const TEXT: u32 = 8;
const BYTES: u32 = 12;
const LOAN: usize = 3000;

#[test]
fn what_a_peer_rewrites_while_it_is_decoded_never_becomes_text_that_is_none_blocking() {
    scribble(Driver::Blocking);
}

#[test]
fn what_a_peer_rewrites_while_it_is_decoded_never_becomes_text_that_is_none_tokio() {
    scribble(Driver::Tokio);
}

fn scribble(driver: Driver) {
    let vault = Vault::start(driver, Knobs::default());
    let baseline = Baseline::of(&vault);
    let umlauts = |len| "ä".repeat(len);
    let many: Vec<String> = (0..20).map(|len| umlauts(len * 5)).collect();
    let mut body = encoded(&(umlauts(400), umlauts(700), many));
    body.extend_from_slice(&[1, 0, 1, 1]);

    let file = memfd(PAGES * PAGE);
    let mapping = MmapOptions::new().len((PAGES * PAGE) as usize).map_raw(&file).unwrap();
    seal(&file, segment_seals());
    let page = PAGE as usize;
    let (text, bytes) = (TEXT as usize * page, BYTES as usize * page);
    let memory = Arc::new(Memory(mapping));
    memory.write(0, &body);
    memory.write(text, umlauts(LOAN / 2).as_bytes());
    memory.write(bytes, &vec![7; LOAN]);
    let places = vec![0..body.len(), text..text + LOAN, bytes..bytes + LOAN];

    let has_ended = Arc::new(AtomicBool::new(false));
    let scribbler = std::thread::spawn({
        let (memory, has_ended) = (Arc::clone(&memory), Arc::clone(&has_ended));
        move || rewrite(&memory, &places, &has_ended)
    });
    let block = BlockRef { segment: 0, page: BODY, len: body.len() as u64 };
    let loans = [TEXT, BYTES].map(|page| BlockRef { segment: 0, page, len: LOAN as u64 });
    let calls = if std::env::var_os("LPC_LONG").is_some() { CALLS_LONG } else { CALLS };
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < calls {
        let mut peer = Peer::connect(vault.port());
        peer.segment(0, PAGES * PAGE, &file);
        let is_good = |answer: &Answer| matches!(answer, Answer::Reply { .. });
        'connection: while answered + refused < calls {
            let batch: Vec<u8> =
                (0..BATCH).flat_map(|_| peer.frame("texts", &[], Some(block), &loans)).collect();
            peer.send(&batch);
            for _ in 0..BATCH {
                if !is_good(&peer.answer()) {
                    refused += 1;
                    break 'connection;
                }
                answered += 1;
            }
        }
    }
    has_ended.store(true, Relaxed);
    scribbler.join().unwrap();
    assert!(answered > 0, "{refused} calls were refused");
    assert_eq!(baseline.honest.faults().unwrap(), 0, "of {answered} calls, beside {refused} refused ones");
    baseline.check("memory that changes all the time");
}

/// Changes bytes, and changes them back.
fn rewrite(memory: &Memory, places: &[Range<usize>], has_ended: &AtomicBool) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while !has_ended.load(Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let place = &places[random as usize % places.len()];
        let at = place.start + (random >> 8) as usize % (place.len() - 1);
        let before = [memory.read(at), memory.read(at + 1)];
        match random >> 60 {
            // Text that is text at either time, and none in between.
            0..=9 => memory.write(at, b"ab"),
            // A length, or the middle of a character.
            _ => memory.write(at, &(random >> 32).to_le_bytes()[..1]),
        }
        let pause = if random >> 40 & 15 == 0 { 1000 } else { 1 };
        (0..pause).for_each(|_| std::hint::spin_loop());
        memory.write(at, &before);
        // Most calls should get through, or it would be connections that are tested.
        (0..random >> 20 & 511).for_each(|_| std::hint::spin_loop());
    }
}

/// Memory that the server reads meanwhile.
struct Memory(MmapRaw);

impl Memory {
    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.0.len());
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: in bounds by the check above.
            let place = unsafe { self.0.as_mut_ptr().add(at + offset) };
            // SAFETY: mapped writable, and one thread of this process writes at a time, with no reference to
            // it.
            unsafe { place.write_volatile(*byte) };
        }
    }

    fn read(&self, at: usize) -> u8 {
        assert!(at < self.0.len());
        // SAFETY: in bounds by the check above.
        let place = unsafe { self.0.as_ptr().add(at) };
        // SAFETY: mapped, and only this thread writes.
        unsafe { place.read_volatile() }
    }
}
