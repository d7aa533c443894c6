//! Methods that cannot be remote, for what is written before their arguments.

use lpc::service;

#[service]
pub trait Methods {
    fn generic<T>(&self, value: T) -> lpc::Result<()>;
    fn sized<const N: usize>(&self, value: [u8; N]) -> lpc::Result<()>;
    fn lifetime<'a>(&self, value: &'a str) -> lpc::Result<()>;
    const fn constant(&self) -> lpc::Result<()>;
    unsafe fn dangerous(&self) -> lpc::Result<()>;
    extern "C" fn foreign(&self) -> lpc::Result<()>;
    fn several<T>(&mut self, value: &mut T) -> T;

    fn local<T>(&self, value: T) -> T {
        value
    }
}

#[service]
pub trait Names {
    fn connect(&self) -> lpc::Result<()>;
    fn builder(&self) -> lpc::Result<()>;
    fn client(&self) {}

    #[cfg(unix)]
    fn twice(&self, n: u32) -> lpc::Result<()>;
    #[cfg(not(unix))]
    fn twice(&self, n: u64) -> lpc::Result<()>;
}

fn main() {}
