//! RUMPSP 0.4: bytes to frames and back.
//!
//! Pure functions and one small state machine, [`Reader`]. Nothing here does I/O, and nothing here
//! allocates for a length that a peer has only claimed. Client and server share one ABI, NetBSD/amd64:
//! little-endian, natural alignment.
//!
//! Source: NetBSD `lib/librumpuser/sp_common.c`.

mod encode;
mod reader;
mod request;

pub use encode::*;
pub use reader::{Body, Frame, Reader};
pub use request::*;

/// Bytes of the header every frame starts with.
pub const HEADER_LEN: usize = 24;

/// Bytes of the longest banner, its NUL included (`MAXBANNER`).
pub const MAX_BANNER: usize = 96;

/// Bytes of a prefork's token.
pub const TOKEN_LEN: usize = 16;

/// Bytes of a fork handshake's body: the token, then `i32 cancel`.
pub const FORK_BODY_LEN: usize = TOKEN_LEN + 4;

/// Bytes of a COPYIN or COPYINSTR request's body, and of the part of a COPYOUT's body before the data.
pub const COPY_BODY_LEN: usize = 16;

/// Bytes of a SYSCALL response's body: `i32 error`, padding, `i64 retval[2]`.
pub const SYSCALL_RESPONSE_LEN: usize = 24;

/// Defines an enum of numbers of the protocol.
macro_rules! numbers {
    ($(#[$meta:meta])* $name:ident: $repr:ty { $($(#[$item:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$item])* $variant = $value,)* }

        impl $name {
            /// Returns the name of a number, or `None` if the protocol has none.
            pub fn from_number(number: $repr) -> Option<$name> {
                match number { $($value => Some($name::$variant),)* _ => None }
            }

            /// Returns the number on the wire.
            pub fn number(self) -> $repr {
                self as $repr
            }
        }
    };
}

numbers! {
    /// The class of a frame: request, response or error.
    Class: u16 {
        Request = 0,
        Response = 1,
        Error = 2,
    }
}

numbers! {
    /// The kind of request that a frame belongs to.
    Kind: u16 {
        Handshake = 0,
        Syscall = 1,
        Copyin = 2,
        Copyinstr = 3,
        Copyout = 4,
        Copyoutstr = 5,
        Anonmmap = 6,
        Prefork = 7,
        Raise = 8,
    }
}

numbers! {
    /// The kind of handshake by which a client introduces itself.
    Handshake: u32 {
        /// A new client.
        Guest = 0,
        /// Declared by the protocol; no server or client implements it.
        Auth = 1,
        /// The child of a client that asked for a prefork.
        Fork = 2,
        /// A client that has become another program, on its old connection.
        Exec = 3,
    }
}

numbers! {
    /// The reason why a request was refused, and the errno a client makes of it.
    ErrorCode: u32 {
        /// EAGAIN
        TryAgain = 1,
        /// EPERM
        Auth = 2,
        /// ESRCH
        InvalidPrefork = 3,
        /// EIO
        RforkFailed = 4,
        /// EBUSY
        InExec = 5,
        /// ENOMEM
        NoMemory = 6,
        /// EINVAL
        Malformed = 7,
    }
}

/// The header of a frame, as it came: class and kind may be numbers without a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of header and body together, as the peer claims.
    pub len: u64,
    /// The number of the request, chosen by its sender and echoed in the response.
    pub reqno: u64,
    /// A [`Class`], if known.
    pub class: u16,
    /// A [`Kind`], if known.
    pub kind: u16,
    /// Syscall number, [`ErrorCode`], [`Handshake`] or signal number, by class and kind.
    pub word: u32,
}

impl Header {
    /// Reads a header from its bytes.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Header {
        Header {
            len: read_u64(bytes, 0),
            reqno: read_u64(bytes, 8),
            class: u16::from_le_bytes([bytes[16], bytes[17]]),
            kind: u16::from_le_bytes([bytes[18], bytes[19]]),
            word: read_u32(bytes, 20),
        }
    }

    /// Returns the bytes of this header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.reqno.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.class.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.kind.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.word.to_le_bytes());
        bytes
    }

    /// Returns the class by name.
    pub fn class(&self) -> Option<Class> {
        Class::from_number(self.class)
    }

    /// Returns the kind by name.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind)
    }
}

/// Returns the little-endian u32 at `at`. Panics past the end: for bodies whose length has been
/// checked.
pub fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Returns the little-endian u64 at `at`. Panics past the end: for bodies whose length has been
/// checked.
pub fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A prefork's secret: the client that shows it becomes the child.
pub type Token = [u8; TOKEN_LEN];
