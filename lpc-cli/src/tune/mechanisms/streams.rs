//! Streams: a body goes behind its length.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lpc_cli::measure::{produce, sum};

use super::{Answer, Mechanism, PATIENCE, start};
use crate::Result;
use crate::tune::carrier::{Carrier, Opened};

pub(super) struct Pipe;

impl Mechanism for Pipe {
    fn name(&self) -> &'static str {
        "pipe"
    }

    fn open(&self, command: &mut Command, _largest: usize) -> Result<Opened> {
        let (requests, writer) = io::pipe()?;
        let (reader, answers) = io::pipe()?;
        let service = start(command.stdin(requests).stdout(answers))?;
        Ok(Opened { carrier: Box::new(Stream { reader, writer }), service })
    }

    fn serve(&self, _place: &str, largest: usize) -> Result<()> {
        // Not as Rust's standard streams, which have buffers.
        let reader = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let writer = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Stream { reader, writer }.answer(largest)
    }
}

pub(super) struct Tcp;

impl Mechanism for Tcp {
    fn name(&self) -> &'static str {
        "TCP on loopback"
    }

    fn open(&self, command: &mut Command, _largest: usize) -> Result<Opened> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let place = format!("--place={}", listener.local_addr()?);
        let mut service = start(command.arg(place).stdin(Stdio::piped()))?;
        let started = Instant::now();
        let writer = loop {
            match listener.accept() {
                Ok((stream, _address)) => break stream,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if service.ended()?.is_some() || started.elapsed() > PATIENCE => {
                    return Err("the other process does not connect".into());
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
        writer.set_nonblocking(false)?;
        writer.set_nodelay(true)?;
        let reader = writer.try_clone()?;
        Ok(Opened { carrier: Box::new(Stream { reader, writer }), service })
    }

    fn serve(&self, place: &str, largest: usize) -> Result<()> {
        let writer = TcpStream::connect(place)?;
        writer.set_nodelay(true)?;
        Stream { reader: writer.try_clone()?, writer }.answer(largest)
    }
}

/// One of the two processes.
struct Stream<R, W> {
    reader: R,
    writer: W,
}

impl<R: Read, W: Write> Stream<R, W> {
    /// Until the caller hangs up.
    fn answer(&mut self, largest: usize) -> Result<()> {
        let mut body = vec![0; largest];
        loop {
            let mut len = [0; 8];
            match self.reader.read_exact(&mut len) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            let len = usize::try_from(u64::from_ne_bytes(len))?;
            let body = body.get_mut(..len).ok_or("a body is larger than was agreed on")?;
            self.reader.read_exact(body)?;
            self.writer.write_all(&sum(body).to_ne_bytes())?;
        }
    }
}

impl<R: Read, W: Write> Carrier for Stream<R, W> {
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64> {
        produce(own, seed);
        // Together, so that the other process wakes up once.
        let len = (own.len() as u64).to_ne_bytes();
        let sent = self.writer.write_vectored(&[io::IoSlice::new(&len), io::IoSlice::new(own)])?;
        let rest = sent.checked_sub(len.len()).ok_or("not even the length was written")?;
        self.writer.write_all(&own[rest..])?;
        let mut answer = Answer::default();
        self.reader.read_exact(&mut answer)?;
        Ok(u64::from_ne_bytes(answer))
    }
}
