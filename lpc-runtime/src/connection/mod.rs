//! One connection: [`link`] sends, by its [`writer`], and [`inbox`] receives; [`ring`] is the quick lane's
//! memory, [`passing`] knows what became of descriptors, [`waiting`] spins before sleeping, [`tally`] counts,
//! and [`upkeep`] is what happens though nobody sends. [`warnings`] tells the log what went wrong, once.
//! [`sharing`] is what a connection has to do with the others that wait on its thread.

pub(crate) mod inbox;
pub(crate) mod link;
pub(crate) mod passing;
pub(crate) mod ring;
#[cfg(feature = "tokio")]
pub(crate) mod sharing;
pub(crate) mod tally;
pub(crate) mod upkeep;
pub(crate) mod waiting;
pub(crate) mod warnings;
pub(crate) mod writer;
