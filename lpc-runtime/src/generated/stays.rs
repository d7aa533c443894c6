//! What to write instead of a file or a socket, which has no other form than a descriptor of its process.

use std::fs::File;
use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

/// A type that is called like one that stays. If it is that one `check` does not compile; if it is the
/// user's, that of [`Crosses`] does.
#[derive(Debug)]
pub struct Stays<T: ?Sized>(PhantomData<T>);

/// In place of [`Stays`]' own for all other types.
pub trait Crosses {
    /// Nothing is wrong.
    fn check<T: ?Sized>() {}
}

impl<T: ?Sized> Crosses for Stays<T> {}

/// No type has it.
#[diagnostic::on_unimplemented(
    message = "a `{Self}` stays in its process",
    label = "pass its path, or its content as a loan: `lpc::Shared<[u8]>`, made by `Shared::from_file`"
)]
pub trait Content {}

/// No type has it.
#[diagnostic::on_unimplemented(
    message = "a `{Self}` stays in its process, as all descriptors do",
    label = "pass an address, to be opened where it is used"
)]
pub trait Address {}

impl Stays<File> {
    /// Does not compile.
    pub fn check<T: Content>() {}
}

macro_rules! stays {
    ($($ty:ty)*) => {$(
        impl Stays<$ty> {
            /// Does not compile.
            pub fn check<T: Address>() {}
        }
    )*};
}

stays! { OwnedFd BorrowedFd<'_> UnixStream UnixListener UnixDatagram TcpStream TcpListener UdpSocket }
