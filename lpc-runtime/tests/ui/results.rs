//! A remote method returns a `Result` of owned values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use lpc::service;

#[service]
pub trait Plain {
    fn nothing(&self);
    fn unit(&self) -> ();
    fn number(&self) -> u64;
    fn bytes(&self) -> Vec<u8>;
    fn option(&self) -> Option<String>;
    fn map(&self) -> HashMap<String, Vec<(u8, [u8; 4])>>;
    fn pair(&self) -> (u32, String);
    fn text(&self) -> &str;
    fn slice(&self) -> &[&str];
    fn path(&self) -> &Path;
    fn never(&self) -> !;
    fn function(&self) -> fn(u32) -> u32;
    fn qualified(&self) -> std::vec::Vec<u8>;
}

#[service]
pub trait Borrowed {
    fn text(&self) -> lpc::Result<&str>;
    fn slice(&self) -> lpc::Result<Vec<&[u8]>>;
    fn forever(&self) -> lpc::Result<&'static str>;
    fn elided(&self) -> lpc::Result<Cow<'_, str>>;
    fn named<'a>(&self, name: &'a str) -> lpc::Result<Cow<'a, str>>;
    fn error(&self) -> Result<u32, &'static str>;
    fn owned_forever(&self) -> lpc::Result<Cow<'static, str>>;
}

#[service]
pub trait Opaque {
    fn display(&self) -> impl Display;
    fn inside(&self) -> lpc::Result<impl Display>;
    fn future(&self) -> impl Future<Output = lpc::Result<u32>>;
    fn stream(&self) -> impl Iterator<Item = u32>;
    fn object(&self) -> Box<dyn Display>;
    fn object_inside(&self) -> lpc::Result<Box<dyn Display>>;
    fn pointer(&self) -> lpc::Result<*const u8>;
    fn this(&self) -> lpc::Result<Box<Self>>;
}

fn main() {}
