//! Settings that do not exist, or do not belong there.

use lpc::service;

#[service(name = "documents")]
pub trait UnknownKey {
    fn get(&self) -> lpc::Result<u32>;
}

#[service(crate = 3)]
pub trait NoString {
    fn get(&self) -> lpc::Result<u32>;
}

#[service(crate = "not a path")]
pub trait NoPath {
    fn get(&self) -> lpc::Result<u32>;
}

#[service(threshold = "64KiB")]
#[lpc(threshold = "64KiB")]
pub trait OfTheTrait {
    fn get(&self) -> lpc::Result<u32>;
}

#[service]
pub trait OfAMethod {
    #[lpc(treshold = "64KiB")]
    fn unknown(&self) -> lpc::Result<u32>;

    #[lpc(threshold = 65536)]
    fn number(&self) -> lpc::Result<u32>;

    #[lpc(threshold)]
    fn nothing(&self) -> lpc::Result<u32>;

    #[lpc]
    fn empty(&self) -> lpc::Result<u32>;

    #[lpc = "64KiB"]
    fn value(&self) -> lpc::Result<u32>;

    #[lpc(threshold = "1KiB", threshold = "2KiB")]
    fn twice(&self) -> lpc::Result<u32>;

    #[cfg_attr(unix, lpc(threshold = "64KiB"))]
    fn conditional(&self) -> lpc::Result<u32>;

    #[lpc(threshold "64KiB")]
    fn syntax(&self) -> lpc::Result<u32>;

    #[lpc(threshold = "64KiB")]
    fn local(&self) -> u32 {
        3
    }
}

fn main() {}
