//! Message queues: one for bodies, one for answers.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use lpc_cli::measure::{produce, sum};
use nix::errno::Errno;
use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_open, mq_receive, mq_send, mq_timedreceive, mq_unlink};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;

use super::system::{Message, Queue};
use super::{Answer, Limit, Mechanism, PATIENCE, end_with_the_caller, start};
use crate::Result;
use crate::tune::carrier::{Carrier, Opened};

pub(super) struct Posix;

impl Mechanism for Posix {
    fn name(&self) -> &'static str {
        "POSIX message queue"
    }

    fn limit(&self) -> io::Result<Option<Limit>> {
        Limit::read("/proc/sys/fs/mqueue/msgsize_max", "fs.mqueue.msgsize_max").map(Some)
    }

    fn open(&self, command: &mut Command, largest: usize) -> Result<Opened> {
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let place = format!("/lpc-tune-{}-{number}", std::process::id());
        let bodies = Named::create(format!("{place}-bodies"), largest)?;
        let answers = Named::create(format!("{place}-answers"), size_of::<Answer>())?;
        let service = start(command.arg(format!("--place={place}")).stdin(Stdio::piped()))?;
        let mut queues = PosixCaller { bodies: bodies.open()?, answers: answers.open()? };
        // The other process has opened both, so their names are no longer needed.
        queues.answer()?;
        Ok(Opened { carrier: Box::new(queues), service })
    }

    fn serve(&self, place: &str, largest: usize) -> Result<()> {
        end_with_the_caller(|| ())?;
        let open = |name: String| mq_open(&*name, MQ_OFlag::O_RDWR, Mode::empty(), None);
        let (bodies, answers) = (open(format!("{place}-bodies"))?, open(format!("{place}-answers"))?);
        mq_send(&answers, &Answer::default(), 0)?;
        let mut body = vec![0; largest];
        loop {
            let len = mq_receive(&bodies, &mut body, &mut 0)?;
            mq_send(&answers, &sum(&body[..len]).to_ne_bytes(), 0)?;
        }
    }
}

/// A queue that has its name as long as this lives.
struct Named(String);

impl Named {
    fn create(name: String, message: usize) -> Result<Self> {
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC;
        let attributes = MqAttr::new(0, 1, message.try_into()?, 0);
        mq_open(&*name, flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes))?;
        Ok(Self(name))
    }

    fn open(&self) -> nix::Result<MqdT> {
        mq_open(&*self.0, MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC, Mode::empty(), None)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = mq_unlink(&*self.0);
    }
}

struct PosixCaller {
    bodies: MqdT,
    answers: MqdT,
}

impl PosixCaller {
    fn answer(&mut self) -> Result<u64> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH)? + PATIENCE;
        let mut answer = Answer::default();
        mq_timedreceive(&self.answers, &mut answer, &mut 0, &TimeSpec::from_duration(until))?;
        Ok(u64::from_ne_bytes(answer))
    }
}

impl Carrier for PosixCaller {
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64> {
        produce(own, seed);
        mq_send(&self.bodies, own, 0)?;
        self.answer()
    }
}

pub(super) struct SystemV;

impl Mechanism for SystemV {
    fn name(&self) -> &'static str {
        "System V message queue"
    }

    fn limit(&self) -> io::Result<Option<Limit>> {
        Limit::read("/proc/sys/kernel/msgmax", "kernel.msgmax").map(Some)
    }

    fn open(&self, command: &mut Command, largest: usize) -> Result<Opened> {
        let queues = [Queue::create()?, Queue::create()?];
        let caller = SystemVCaller { queues, message: Message::with_room(largest.max(size_of::<Answer>())) };
        let [bodies, answers] = queues;
        let place = format!("--place={bodies},{answers}");
        // A signal from the terminal is for this process alone: the other one removes the queues when this
        // one has ended.
        command.process_group(0);
        let (pipe, held) = io::pipe()?;
        let service = start(command.arg(place).stdin(Stdio::piped()).stdout(held))?;
        thread::Builder::new().spawn(move || {
            // Nothing is written to it. It ends with the other process, and with it the wait for an answer.
            let _ = { pipe }.read(&mut [0]);
            queues.iter().for_each(|queue| queue.remove());
        })?;
        Ok(Opened { carrier: Box::new(caller), service })
    }

    fn serve(&self, place: &str, largest: usize) -> Result<()> {
        let (bodies, answers) = place.split_once(',').ok_or("two queues are needed")?;
        let queues: [Queue; 2] = [bodies.parse()?, answers.parse()?];
        // That of the answers first: without the other one this process ends.
        end_with_the_caller(move || queues.iter().rev().for_each(|queue| queue.remove()))?;
        let [bodies, answers] = queues;
        let mut message = Message::with_room(largest.max(size_of::<Answer>()));
        loop {
            let len = match bodies.receive(&mut message) {
                Err(error) if error.raw_os_error() == Some(Errno::EIDRM as i32) => return Ok(()),
                received => received?,
            };
            let sum = sum(&message.bytes()[..len]);
            message.bytes_mut()[..size_of::<Answer>()].copy_from_slice(&sum.to_ne_bytes());
            answers.send(&message, size_of::<Answer>())?;
        }
    }
}

struct SystemVCaller {
    queues: [Queue; 2],
    message: Message,
}

impl Carrier for SystemVCaller {
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64> {
        let [bodies, answers] = self.queues;
        // The body is produced where the system wants it.
        let bytes = &mut self.message.bytes_mut()[..own.len()];
        produce(bytes, seed);
        bodies.send(&self.message, own.len())?;
        let len = answers.receive(&mut self.message)?;
        let answer = self.message.bytes()[..len].first_chunk().ok_or("an answer is too short")?;
        Ok(u64::from_ne_bytes(*answer))
    }
}

impl Drop for SystemVCaller {
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.remove());
    }
}
