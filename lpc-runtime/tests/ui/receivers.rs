//! A remote method takes `&self`; a local one what it likes.

use std::sync::Arc;

use lpc::service;

#[service]
pub trait Receivers {
    fn mutable(&mut self) -> lpc::Result<u32>;
    fn consumed(self) -> lpc::Result<u32>;
    fn counted(self: Arc<Self>, n: u32) -> lpc::Result<u32>;
    fn boxed(self: Box<Self>) -> lpc::Result<u32>;
    fn none() -> lpc::Result<u32>;
    fn none_but_arguments(n: u32) -> lpc::Result<u32>;

    fn local_none() -> u32 {
        1
    }
    fn local_mutable(&mut self) {}
    fn local_consumed(self: Arc<Self>) {}
}

fn main() {}
