//! What the peer announces: segments, objects and its ring are opened, checked and charged for.

use std::io;
use std::sync::Arc;

use lpc_core::frame::{self, CallId, OBJECT};
use lpc_core::{Error, ErrorKind};

use super::{Inbox, MAX_ASKED, UNREAD, refused};
use crate::connection::ring::{self, PeersRing};
use crate::connection::warnings::Warning;
use crate::memory::budget::Held;
use crate::memory::foreign::Foreign;
use crate::memory::peer::{Object, Segment};
use crate::memory::quota::Charge;

impl Inbox {
    pub(super) fn add_segment(
        &mut self,
        number: u32,
        len: u64,
        descriptor: Option<Foreign>,
    ) -> Result<(), Error> {
        let segment = match (descriptor, self.charge(len), self.budget.mapping()) {
            (Some(descriptor), Ok(charge), Some(mapping)) => {
                match self.open_segment(descriptor, len, charge, mapping) {
                    Ok(segment) => segment,
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        return Err(refused(&format!("segment {number}"), &error));
                    }
                    Err(error) => {
                        self.warnings.warn_of(Warning::CannotBeOpened, &error);
                        Segment::lost()
                    }
                }
            }
            (None, ..) => {
                self.warnings.warn(Warning::NoDescriptor);
                Segment::lost()
            }
            (.., None) => {
                self.warnings.warn(Warning::NoMapping);
                Segment::lost()
            }
            (_, Err(()), _) => {
                self.warnings.warn(Warning::NoQuota);
                Segment::lost()
            }
        };
        if let Some(link) = self.link.upgrade() {
            if segment.is_lost() && link.enqueue_question(&frame::refuse(number)) > MAX_ASKED {
                return Err(Error::new(ErrorKind::Protocol, UNREAD));
            }
            link.watch();
        }
        self.announced.add_segment(number, segment);
        Ok(())
    }

    /// Maps the peer's memory for the quick lane. Where that cannot be, all goes through the socket as
    /// before.
    pub(super) fn add_ring(&mut self, descriptor: Option<Foreign>) -> Result<(), Error> {
        let (Some(descriptor), Ok(charge)) = (descriptor, self.charge(ring::COST)) else {
            self.warnings.warn(Warning::NoPeersRing);
            return Ok(());
        };
        let peers = match PeersRing::open(&descriptor, charge) {
            Ok(peers) => {
                // What it was found to be is closed like any other.
                drop(descriptor.into_local());
                peers
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(refused("its memory for the quick lane", &error));
            }
            Err(error) => {
                self.warnings.warn_of(Warning::PeersRingCannotBeMapped, &error);
                return Ok(());
            }
        };
        if let Some(ring) = self.link.upgrade().and_then(|link| link.take_ring(peers)) {
            self.receiver.read_ring(ring);
        }
        Ok(())
    }

    pub(super) fn charge(&self, len: u64) -> Result<Option<Charge>, ()> {
        let Some(link) = self.link.upgrade() else { return Ok(None) };
        let Some(quota) = link.lender().quota() else { return Ok(None) };
        quota.charge(len).map(Some).ok_or(())
    }

    pub(super) fn add_object(
        &mut self,
        number: u32,
        offset: u64,
        len: u64,
        descriptor: Option<Foreign>,
    ) -> Result<(), Error> {
        let slot = number & !OBJECT;
        let Some(descriptor) = descriptor else {
            self.warnings.warn(Warning::NoDescriptor);
            return Ok(());
        };
        let Some(live) = self.live.charge(1) else {
            self.warnings.warn(Warning::TooManyObjects);
            return Ok(());
        };
        let copies = Some(Arc::clone(&self.copies));
        let object = match Object::open(descriptor, offset, len, self.is_trusted, copies, live) {
            Ok(object) => object,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(refused(&format!("object {slot}"), &error));
            }
            // Not the peer's fault: files change, and the system may be short of something.
            Err(error) => {
                self.warnings.warn_of(Warning::UnusableObject, &error);
                return Ok(());
            }
        };
        self.announced.add_object(number, object);
        if let Some(link) = self.link.upgrade() {
            link.watch();
        }
        Ok(())
    }

    fn open_segment(
        &self,
        descriptor: Foreign,
        len: u64,
        charge: Option<Charge>,
        mapping: Held,
    ) -> io::Result<Segment> {
        Segment::open(descriptor, len, self.is_trusted, charge, mapping, &self.warnings)
    }

    /// Has a body that cannot be read here sent through the socket.
    pub(super) fn ask_again(&self, call: CallId) -> Result<(), Error> {
        let Some(link) = self.link.upgrade() else { return Ok(()) };
        if link.enqueue_question(&frame::resend(call)) > MAX_ASKED {
            return Err(Error::new(ErrorKind::Protocol, UNREAD));
        }
        Ok(())
    }
}
