//! Sockets that keep messages apart: a body is a message.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use lpc_cli::measure::{produce, sum};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Answer, Limit, Mechanism, PATIENCE, end_with_the_caller, start};
use crate::Result;
use crate::tune::LARGEST;
use crate::tune::carrier::{Carrier, Opened};

pub(super) struct Datagram;

impl Mechanism for Datagram {
    fn name(&self) -> &'static str {
        "datagram socket"
    }

    fn limit(&self) -> io::Result<Option<Limit>> {
        limit(SocketType::DGRAM)
    }

    fn open(&self, command: &mut Command, _largest: usize) -> Result<Opened> {
        let (ours, theirs) = pair(SocketType::DGRAM)?;
        // These sockets do not tell when the other end is gone, which a pipe does.
        let service = start(command.stdin(Stdio::piped()).stdout(theirs))?;
        Ok(Opened { carrier: Box::new(Messages(ours)), service })
    }

    fn serve(&self, _place: &str, largest: usize) -> Result<()> {
        end_with_the_caller(|| ())?;
        Messages(io::stdout().as_fd().try_clone_to_owned()?.into()).answer(largest)
    }
}

pub(super) struct SequencedPacket;

impl Mechanism for SequencedPacket {
    fn name(&self) -> &'static str {
        "sequenced-packet socket"
    }

    fn limit(&self) -> io::Result<Option<Limit>> {
        limit(SocketType::SEQPACKET)
    }

    fn open(&self, command: &mut Command, _largest: usize) -> Result<Opened> {
        let (ours, theirs) = pair(SocketType::SEQPACKET)?;
        let service = start(command.stdin(theirs))?;
        Ok(Opened { carrier: Box::new(Messages(ours)), service })
    }

    fn serve(&self, _place: &str, largest: usize) -> Result<()> {
        Messages(io::stdin().as_fd().try_clone_to_owned()?.into()).answer(largest)
    }
}

/// This process's end and the other's.
fn pair(kind: SocketType) -> io::Result<(File, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    // The system makes as much of it as it allows.
    sockopt::set_socket_send_buffer_size(&ours, LARGEST as usize)?;
    sockopt::set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE))?;
    Ok((ours.into(), theirs))
}

fn limit(kind: SocketType) -> io::Result<Option<Limit>> {
    let (ours, _theirs) = pair(kind)?;
    // What Linux subtracts (unix_dgram_sendmsg).
    let bytes = (sockopt::socket_send_buffer_size(&ours)? as u64).saturating_sub(32);
    Ok(Some(Limit { bytes, knob: "SO_SNDBUF, net.core.wmem_max" }))
}

/// One of the two processes; reading and writing receive and send.
struct Messages(File);

impl Messages {
    /// Until the caller hangs up.
    fn answer(&mut self, largest: usize) -> Result<()> {
        let mut body = vec![0; largest];
        loop {
            let len = self.0.read(&mut body)?;
            if len == 0 {
                return Ok(());
            }
            self.0.write_all(&sum(&body[..len]).to_ne_bytes())?;
        }
    }
}

impl Carrier for Messages {
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64> {
        produce(own, seed);
        if self.0.write(own)? != own.len() {
            return Err("a message was sent in part".into());
        }
        let mut answer = Answer::default();
        self.0.read_exact(&mut answer)?;
        Ok(u64::from_ne_bytes(answer))
    }
}
