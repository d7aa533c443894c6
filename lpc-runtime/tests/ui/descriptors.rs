//! What is nothing but a descriptor stays in its process; a type of the user's of that name does not.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use lpc::service;

#[service]
pub trait Uploads {
    fn store(&self, file: &fs::File) -> lpc::Result<()>;
}

#[service]
pub trait Sockets {
    fn take(&self, fd: BorrowedFd<'_>) -> lpc::Result<()>;
    fn give(&self) -> lpc::Result<Option<UnixStream>>;
}

mod own {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct File {
        pub name: String,
    }

    #[lpc::service]
    pub trait Files {
        fn put(&self, file: &File, other: Option<File>) -> lpc::Result<()>;
    }
}

fn main() {}
