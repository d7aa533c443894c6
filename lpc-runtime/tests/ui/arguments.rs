//! What cannot be sent, by its looks.

use std::fmt::Display;
use std::path::Path;

use lpc::service;

#[service]
pub trait Arguments {
    fn out(&self, buffer: &mut [u8]) -> lpc::Result<usize>;
    fn out_inside(&self, buffer: Option<&mut Vec<u8>>) -> lpc::Result<usize>;
    fn pointer(&self, at: *const u8, to: *mut u8) -> lpc::Result<()>;
    fn function(&self, each: fn(u32) -> u32) -> lpc::Result<()>;
    fn object(&self, progress: &dyn Fn(u64)) -> lpc::Result<()>;
    fn boxed_object(&self, progress: Box<dyn Display>) -> lpc::Result<()>;
    fn mutable_object(&self, progress: &mut dyn Iterator<Item = u8>) -> lpc::Result<()>;
    fn opaque(&self, text: impl AsRef<str>) -> lpc::Result<()>;
    fn opaque_inside(&self, texts: &[impl AsRef<str>]) -> lpc::Result<()>;
    fn forever(&self, text: &'static str) -> lpc::Result<()>;
    fn this(&self, other: &Self) -> lpc::Result<()>;
    fn unsized_text(&self, text: str) -> lpc::Result<()>;
    fn deep(&self, paths: &[&[&Path]]) -> lpc::Result<()>;
    fn configured(&self, #[cfg(unix)] mode: u32) -> lpc::Result<()>;
}

fn main() {}
