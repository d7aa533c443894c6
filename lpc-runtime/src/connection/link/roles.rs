//! What a [`Link`] is to the memory that it lends and to the maintenance thread.

use std::time::Duration;

use nix::poll::PollFlags;

use super::Link;
use crate::connection::passing::Descriptor;
use crate::maintenance::{Left, Maintained};
use crate::memory::lender::Announce;
use crate::memory::peer::{KnowsObjects, Object};
use crate::sys::socket;

impl Announce for Link {
    fn tell(&self, frame: &[u8]) {
        let _ = self.sender().enqueue(frame);
    }

    fn announce(&self, frame: &[u8], descriptor: Descriptor) -> bool {
        let mut sender = self.sender();
        // What is not queued is closed without the lock.
        let is_over = sender.is_over().is_some();
        !is_over && sender.enqueue_with(frame, descriptor).is_ok()
    }

    fn watch(&self) {
        Link::watch(self);
    }
}

impl KnowsObjects for Link {
    fn forget(&self, object: &Object, number: u32) {
        if self.fork_guard.is_here() {
            self.lender.forget(object, number, |frame| {
                self.enqueue_deferred(frame);
            });
        }
    }
}

impl Maintained for Link {
    fn flush_deferred(&self) -> Left {
        if !self.flush_in_time() || !self.upkeep.comes_again_to_flush() {
            return Left::Nothing;
        }
        // Room that comes from now on is waited for; where there is some it is memory that is missing.
        match socket::wait(self.socket(), PollFlags::POLLOUT, Some(Duration::ZERO)) {
            Ok(false) => Left::Full(self.writer.shared_socket()),
            _ => Left::Later,
        }
    }

    fn trim(&self) -> Option<Duration> {
        self.trim_and_flush(false)
    }

    fn look(&self) -> Option<Duration> {
        self.look_whether_it_reads()
    }
}
