//! Sockets over one io_uring.
