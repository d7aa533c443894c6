//! One connection: [`link`] sends, by its [`writer`], and [`inbox`] receives; [`ring`] is the quick lane's memory, and [`waiting`]
//! spins before sleeping.

pub(crate) mod inbox;
pub(crate) mod link;
pub(crate) mod ring;
pub(crate) mod waiting;
pub(crate) mod writer;
