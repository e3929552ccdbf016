//! Adopting: a socket that was connected elsewhere becomes one of the ring's.
//!
//! The socket is put into the direct descriptor table at a slot of the ring's choice, and the ordinary
//! descriptor is closed. In a ring that listens the kernel chooses the slots, and the ring learns of a
//! choice only when it sees the completion: until then it could put another socket into that very slot.
//! So a ring either listens or adopts. See `io_uring_register_files_update(3)`, Linux 5.5.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::accept::{properties, set_blocking};
use crate::slots::Allocator;
use crate::{Error, Ring, Socket};

impl Ring {
    /// Takes over a connected stream socket, or one whose connect(2) is under way. From then on the
    /// socket is treated as if it had been accepted: nothing is received from it before
    /// [`Ring::resume`], and after [`Ring::close`] and [`Event::Closed`](crate::Event::Closed) its slot
    /// can get another socket. Options set on the socket, such as `TCP_NODELAY`, are kept, but for
    /// `O_NONBLOCK`.
    ///
    /// This costs one system call, and one to close `socket`, which is closed on failure, too. Fails
    /// with [`Error::TableFull`] if no slot is free, with [`Error::Allocator`] if the ring has ever
    /// listened, and with [`Error::System`] if `socket` is no socket.
    pub fn adopt(&mut self, socket: OwnedFd) -> Result<Socket, Error> {
        if !self.slots.settle_allocator(Allocator::Ring) {
            return Err(Error::Allocator("a ring that has listened cannot adopt a socket"));
        }
        let properties = properties(socket.as_raw_fd()).map_err(Error::system("SO_DOMAIN"))?;
        // io_uring would report EAGAIN for a nonblocking socket where it otherwise waits.
        set_blocking(socket.as_raw_fd()).map_err(Error::system("fcntl on a socket"))?;
        let full = Error::TableFull { sockets: self.slots.capacity() };
        let Some(slot) = self.slots.vacant() else { return Err(full) };
        let put = self.queue.put_file(slot, socket.as_fd());
        put.map_err(Error::system("IORING_REGISTER_FILES_UPDATE"))?;
        self.slots.open(slot, properties).ok_or(full)
    }
}
