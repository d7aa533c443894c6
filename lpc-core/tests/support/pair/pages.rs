//! Shared memory in one process: [`Pages`] of a segment, of which is known which are in use, and [`Block`]s
//! of them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lpc_core::arena::PAGE;
use lpc_core::frame::BlockRef;
use lpc_core::ledger::Lease;

/// The memory of a segment.
pub(super) struct Pages {
    bytes: Mutex<Vec<u8>>,
    is_used: Mutex<Vec<bool>>,
}

impl Pages {
    pub(super) fn new(len: u64) -> Self {
        let is_used = vec![false; (len / PAGE) as usize];
        Self { bytes: Mutex::new(vec![0; len as usize]), is_used: Mutex::new(is_used) }
    }

    pub(super) fn len(&self) -> u64 {
        locked(&self.bytes).len() as u64
    }

    pub(super) fn is_free(&self) -> bool {
        !locked(&self.is_used).contains(&true)
    }

    /// The receiver has checked the bounds.
    pub(super) fn read(&self, block: &BlockRef) -> Vec<u8> {
        let start = (u64::from(block.page) * PAGE) as usize;
        locked(&self.bytes)[start..start + block.len as usize].to_vec()
    }

    pub(super) fn scribble(&self, at: usize, with: u8) {
        let mut bytes = locked(&self.bytes);
        let at = at % bytes.len();
        bytes[at] = with;
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages of {} bytes", self.len())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some pages, which nobody else has.
#[derive(Debug)]
pub(super) struct Block {
    lease: Lease<Arc<Pages>>,
    /// Bytes that are meant.
    len: u64,
}

impl Block {
    pub(super) fn new(lease: Lease<Arc<Pages>>, len: u64) -> Self {
        let block = Self { lease, len };
        block.mark(true);
        block
    }

    /// Notes that its pages are in use, or not any more.
    fn mark(&self, is_used: bool) {
        let block = self.lease.block();
        let pages = block.page() as usize..block.page() as usize + (block.len() / PAGE) as usize;
        for page in &mut locked(&self.lease.segment().is_used)[pages] {
            assert!(*page != is_used, "{block:?} overlaps another");
            *page = is_used;
        }
    }

    pub(super) fn resize(&mut self, len: u64) {
        self.mark(false);
        if self.lease.extend(len) {
            self.lease.shrink(len);
            self.len = len;
        }
        self.mark(true);
        assert!(self.lease.block().len() >= self.len);
    }

    pub(super) fn fill(&self, with: u8) {
        let start = self.lease.block().offset() as usize;
        locked(&self.lease.segment().bytes)[start..start + self.len as usize].fill(with);
    }

    pub(super) fn place(&self) -> BlockRef {
        let block = self.lease.block();
        BlockRef { segment: block.segment(), page: block.page(), len: self.len }
    }

    pub(super) fn read(&self) -> Vec<u8> {
        self.lease.segment().read(&self.place())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.mark(false);
    }
}
