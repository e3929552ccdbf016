//! A socket as an open file: ioctl, stat, poll and kqueue.
//!
//! Source: NetBSD `sys/kern/{sys_socket,uipc_socket}.c`.

use crate::owner::Owner;
use std::sync::Arc;

use super::{LOCAL, Socket, State, close, receive, send, state};
use crate::abi::{Stat, mode, poll};
use crate::call::{Result, SyscallContext};
use crate::file::{FileOps, OpenFile, Seen};
use crate::interfaces;
use crate::io::Transfer;
use crate::ioctl;
use crate::sync::lock;
use crate::wait::{Side, Waitable};

/// A socket as an open file.
pub(super) struct SocketFile(pub Arc<Socket>);

impl FileOps for SocketFile {
    fn read(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        receive::read(run, file, &self.0, transfer)
    }

    fn write(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        send::send(run, file, &self.0, &send::Outgoing::plain(transfer))
    }

    /// Returns the status, in which only the type is set, and for local sockets a little more (`soo_stat`,
    /// `unp_stat`).
    fn stat(&self) -> Result<Stat> {
        let stat = Stat { mode: mode::SOCKET, ..Stat::default() };
        if self.0.family != LOCAL {
            return Ok(stat);
        }
        let born = self.0.born;
        Ok(Stat {
            dev: u64::MAX,
            ino: self.0.id,
            accessed: born,
            modified: born,
            changed: born,
            block_size: lock(&self.0.state).send_limit as i32,
            ..stat
        })
    }

    /// NetBSD: `soo_ioctl`.
    fn ioctl(
        &self,
        run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        request: u32,
        addr: u64,
    ) -> Result<()> {
        let value = match request {
            ioctl::FIONBIO | ioctl::FIOASYNC => return Ok(()),
            ioctl::FIONREAD => lock(&self.0.state).buffer.len() as i32,
            ioctl::FIONWRITE => self.0.sending().queued as i32,
            ioctl::FIONSPACE => self.0.sending().space.max(0) as i32,
            ioctl::SIOCATMARK => lock(&self.0.state).is_at_mark().into(),
            _ => return interfaces::ioctl(run, self.0.family, request, addr),
        };
        run.copyout(&value.to_le_bytes(), addr)
    }

    /// NetBSD: `sopoll`.
    fn poll(&self, _file: &OpenFile) -> u32 {
        let (readable, oob) = {
            let state = lock(&self.0.state);
            (state.is_readable(), state.has_mark())
        };
        let sending = self.0.sending();
        let joined = sending.flags & state::CONNECTED != 0 || !self.0.needs_connection();
        let writable = sending.space >= sending.low_water && joined
            || sending.flags & state::CANT_SEND != 0
            || sending.error;
        let mut events = 0;
        if readable {
            events |= poll::IN | poll::RDNORM;
        }
        if writable {
            events |= poll::OUT;
        }
        if oob {
            events |= poll::PRI | poll::RDBAND;
        }
        events
    }

    /// NetBSD: `filt_soread`, `filt_sowrite`, `filt_solisten`.
    fn filter(&self, _file: &OpenFile, side: Side, low_water: Option<i64>) -> Option<Seen> {
        match side {
            Side::Read => {
                let state = lock(&self.0.state);
                if state.has(state::LISTENING) {
                    let data = state.queued() as i64;
                    return Some(Seen { ready: data > 0, data, ..Seen::default() });
                }
                let data = state.buffer.len() as i64;
                let eof = state.has(state::CANT_RECEIVE);
                let enough = data >= low_water.unwrap_or(state.low_water[1].into());
                let ready = eof || state.error.is_some() || enough;
                Some(Seen { ready, data, eof, flags: failure(&state, eof) })
            }
            Side::Write => {
                let sending = self.0.sending();
                let eof = sending.flags & state::CANT_SEND != 0;
                let joined = sending.flags & state::CONNECTED != 0 || !self.0.needs_connection();
                let enough = sending.space >= low_water.unwrap_or(sending.low_water);
                let ready = eof || sending.error || joined && enough;
                let flags = failure(&lock(&self.0.state), eof);
                Some(Seen { ready, data: sending.space, eof, flags })
            }
        }
    }

    fn waitable(&self) -> Option<Arc<dyn Waitable>> {
        Some(self.0.clone())
    }

    fn restart(&self) {
        self.0.wake();
    }

    fn close(&self) {
        close::close(&self.0);
    }

    fn after_close(&self) -> Option<Box<dyn FnOnce()>> {
        let flights = &self.0.net.flights;
        if self.0.family != LOCAL || !flights.any() {
            return None;
        }
        let flights = flights.clone();
        Some(Box::new(move || flights.noticed()))
    }

    fn owner(&self) -> Option<&Owner> {
        Some(&self.0.owner)
    }

    fn socket(&self) -> Option<&Arc<Socket>> {
        Some(&self.0)
    }
}

/// Returns the error that comes with the end of a side.
fn failure(state: &State, eof: bool) -> u32 {
    match state.error {
        Some(errno) if eof => errno.0 as u32,
        _ => 0,
    }
}

impl Socket {
    /// Returns the sent bytes that are still queued on this side.
    pub(super) fn sending_queue(&self) -> u64 {
        self.sending().queued as u64
    }

    /// Returns the room to send, as poll, kqueue and FIONSPACE see it, and the bytes queued on this side
    /// (`so_snd`).
    fn sending(&self) -> Sending {
        let (peer, mut sending) = {
            let state = lock(&self.state);
            let error = state.error.is_some();
            let sending = Sending {
                space: state.send_limit,
                queued: 0,
                low_water: i64::from(state.low_water[0]),
                flags: state.flags,
                error,
            };
            (state.peer.clone(), sending)
        };
        if self.needs_connection()
            && sending.flags & state::CONNECTED != 0
            && let Some(peer) = peer.upgrade()
        {
            let peer_state = lock(&peer.state);
            let there = send::room_at(self, sending.space, &peer_state);
            sending.queued = (sending.space - there).max(0);
            if self.family == LOCAL {
                sending.queued = 0;
            }
            sending.space = there;
        }
        sending
    }
}

/// The send side of a socket.
struct Sending {
    space: i64,
    queued: i64,
    low_water: i64,
    flags: u32,
    error: bool,
}

impl State {
    /// NetBSD: `soreadable`.
    fn is_readable(&self) -> bool {
        self.buffer.len() as i64 >= i64::from(self.low_water[1])
            || self.has(state::CANT_RECEIVE)
            || self.queued() > 0
            || self.error.is_some()
    }
}
