//! Rings that are no honest memory, or hold what no ring may, and frames that come another way than they
//! should.

use std::net::Shutdown;
use std::os::fd::OwnedFd;

use lpc::ErrorKind::{Disconnected, Protocol};
use lpc_core::frame;
use lpc_core::ring::{LEN, SLOT};

use crate::peer::{MIB, Peer, encoded, memfd, memfd_of, sealed_segment, segment_seals};
use crate::siege::End::{Borne, CutOff, Leaves};

attacks! { Greeted;
    a_ring_without_its_descriptor: both, CutOff(Protocol), |peer| peer.send(&frame::ring());
    a_ring_of_another_size: both, CutOff(Protocol), |peer| peer.send_with(&frame::ring(), sealed_segment(MIB));
    a_ring_that_can_shrink: both, CutOff(Protocol), |peer| peer.send_with(&frame::ring(), memfd(LEN as u64));
    a_ring_that_is_never_used: server, Borne, |peer| peer.send_with(&frame::ring(), ring(&[]));
    a_second_ring: both, CutOff(Protocol), |peer| {
        peer.send_with(&frame::ring(), ring(&[]));
        peer.send_with(&frame::ring(), ring(&[]));
    };
    a_bell_without_a_ring: both, CutOff(Protocol), |peer| peer.send(&frame::bell());
    a_switch_without_a_ring: both, CutOff(Protocol), |peer| peer.send(&frame::switch());
    an_aside_in_the_socket: both, CutOff(Protocol), |peer| {
        peer.send_with(&frame::ring(), ring(&[]));
        peer.send(&frame::aside());
    };
    bells_without_end: server, Borne, |peer| {
        peer.send_with(&frame::ring(), ring(&[]));
        peer.send(&frame::bell().repeat(10_000));
    };
    a_frame_out_of_turn: both, CutOff(Protocol), |peer| {
        go_on_in(peer, ring(&[]));
        peer.send(&frame::at(1));
    };
    a_switch_where_one_frame_was_to_come: both, CutOff(Protocol), |peer| {
        go_on_in(peer, ring(&[&frame::aside()]));
        peer.send(&frame::switch());
    };
    a_segment_in_the_ring: both, CutOff(Protocol), |peer| go_on_in(peer, ring(&[&frame::segment(0, MIB)]));
    a_bell_in_the_ring: both, CutOff(Protocol), |peer| go_on_in(peer, ring(&[&frame::bell()]));
    a_ring_in_the_ring: both, CutOff(Protocol), |peer| go_on_in(peer, ring(&[&frame::ring()]));
    no_frame_in_the_ring: both, CutOff(Protocol), |peer| go_on_in(peer, ring(&[&[0; 16]]));
    a_frame_too_long_for_any_ring: both, CutOff(Protocol), |peer| {
        let mut frame = frame::at(1);
        frame[..4].fill(0xff);
        go_on_in(peer, ring(&[&frame]));
    };
    a_body_that_is_not_there: both, CutOff(Protocol), |peer| {
        // As many bytes as its length says are in the ring, whatever they are; At frames have none.
        let mut frame = frame::at(1);
        frame[0] = 100;
        go_on_in(peer, ring(&[&frame]));
    };
    slots_said_to_be_read_that_never_were_written: server, CutOff(Protocol), |peer| {
        // As many calls as make the server look whether its own ring has room for their replies.
        let calls: Vec<_> = (0..256).map(|_| peer.frame("length", &encoded(&b"abc"[..]), None, &[])).collect();
        let mut memory = ring_of(&calls.iter().map(Vec::as_slice).collect::<Vec<_>>());
        memory[..8].fill(0xff);
        go_on_in(peer, memfd_of(&memory, LEN as u64, segment_seals()));
    };
    /// Replies would go through the other ring from here on, which this peer does not read.
    a_ring_full_of_frames: server, Leaves(Disconnected), |peer| {
        let (at, switch) = (frame::at(7), frame::switch());
        let mut frames = vec![&at[..]; 255];
        frames.push(&switch);
        go_on_in(peer, ring(&frames));
        peer.call("length", &encoded(&b"abc"[..]), &[]);
        peer.shut_down(Shutdown::Both);
    };
    stamps_and_words_that_mean_nothing: server, Leaves(Disconnected), |peer| {
        let mut memory = vec![0xff; LEN];
        memory[4096..4096 + SLOT].copy_from_slice(&slot(1, &frame::switch()));
        go_on_in(peer, memfd_of(&memory, LEN as u64, segment_seals()));
        for _ in 0..1000 {
            peer.call("length", &encoded(&b"abc"[..]), &[]);
        }
        peer.shut_down(Shutdown::Both);
    };
}

/// Memory for the quick lane whose ring holds these frames, each of one slot.
pub fn ring(frames: &[&[u8]]) -> OwnedFd {
    memfd_of(&ring_of(frames), LEN as u64, segment_seals())
}

fn ring_of(frames: &[&[u8]]) -> Vec<u8> {
    let mut memory = vec![0; LEN];
    for (number, frame) in (1..).zip(frames) {
        let at = 4096 + (number as usize - 1) * SLOT;
        memory[at..at + SLOT].copy_from_slice(&slot(number, frame));
    }
    memory
}

fn slot(number: u64, frame: &[u8]) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&number.to_le_bytes());
    slot[8..8 + frame.len()].copy_from_slice(frame);
    slot
}

/// Announces this memory, and that what is sent goes on there.
pub fn go_on_in(peer: &mut Peer, memory: OwnedFd) {
    peer.send_with(&frame::ring(), memory);
    peer.send(&frame::switch());
}
