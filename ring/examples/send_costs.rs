//! Measures the cost of a send, by request and size: `cargo run --release --example send_costs`.
//!
//! For unix sockets and TCP over loopback, 48 B, 4 KiB and 64 KiB at a time: SEND and SENDMSG (of two
//! iovecs) against WRITE_FIXED and WRITEV_FIXED from a registered buffer, and on TCP SEND_ZC and
//! SENDMSG_ZC from a registered buffer. One request is submitted and waited for at a time, while
//! another thread reads and throws away. The program prints microseconds per message, of wall clock and
//! of the sending thread's processor time, the best of several rounds, and their ratio to SEND's.
//!
//! Loopback copies even zero copy sends (the peer would otherwise read memory that is being
//! overwritten), so these numbers show the cost of zero copy there, not the gain on a network card.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

const ROUNDS: usize = 7;
const BYTES_A_ROUND: usize = 128 << 20;
const MOST_A_ROUND: usize = 20_000;
/// Memory is used again after this many bytes, when their notifications have come. TCP may hold on to
/// the memory until a delayed acknowledgement, 40 ms, so the window is large.
const WINDOW: usize = 4 << 20;

#[derive(Clone, Copy, PartialEq)]
enum How {
    Send,
    SendMsg,
    WriteFixed,
    WritevFixed,
    SendZc,
    SendMsgZc,
}

const ALL: [How; 6] =
    [How::Send, How::SendMsg, How::WriteFixed, How::WritevFixed, How::SendZc, How::SendMsgZc];

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Send => "SEND",
            How::SendMsg => "SENDMSG",
            How::WriteFixed => "WRITE_FIXED",
            How::WritevFixed => "WRITEV_FIXED",
            How::SendZc => "SEND_ZC fixed",
            How::SendMsgZc => "SENDMSG_ZC fixed",
        }
    }

    fn is_zero_copy(self) -> bool {
        matches!(self, How::SendZc | How::SendMsgZc)
    }
}

fn main() {
    println!(
        "{:<5} {:>6} {:<17} {:>9} {:>6} {:>9} {:>6}",
        "", "bytes", "", "wall us", "", "cpu us", ""
    );
    for tcp in [false, true] {
        for size in [48, 4 << 10, 64 << 10] {
            compare(tcp, size);
        }
    }
}

fn compare(tcp: bool, size: usize) {
    let hows = ALL.into_iter().filter(|how| tcp || !how.is_zero_copy());
    let mut best: Vec<_> = hows.map(|how| (how, Duration::MAX, Duration::MAX)).collect();
    let mut sender = Sender::new(tcp, size);
    for _ in 0..ROUNDS {
        for (how, wall, cpu) in &mut best {
            let count = (BYTES_A_ROUND / size).min(MOST_A_ROUND);
            let (round_wall, round_cpu) = sender.round(*how, count);
            *wall = (*wall).min(round_wall / count as u32);
            *cpu = (*cpu).min(round_cpu / count as u32);
        }
    }
    let us = |time: Duration| time.as_nanos() as f64 / 1000.0;
    let (send_wall, send_cpu) = (us(best[0].1), us(best[0].2));
    for (how, wall, cpu) in best {
        let family = if tcp { "tcp" } else { "unix" };
        let (wall_ratio, cpu_ratio) = (us(wall) / send_wall, us(cpu) / send_cpu);
        let (name, wall, cpu) = (how.name(), us(wall), us(cpu));
        println!(
            "{family:<5} {size:>6} {name:<17} {wall:>9.2} {wall_ratio:>6.2} {cpu:>9.2} {cpu_ratio:>6.2}"
        );
    }
}

struct Sender {
    ring: IoUring,
    size: usize,
    memory: Vec<u8>,
    /// The peer's reader ends when the sender, and with it this socket, is dropped.
    _socket: Box<dyn AsRawFd>,
    notifications: usize,
}

impl Sender {
    fn new(tcp: bool, size: usize) -> Sender {
        let (socket, peer): (Box<dyn AsRawFd>, Box<dyn Read + Send>) = if tcp {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = listener.accept().unwrap().0;
            socket.set_nodelay(true).unwrap();
            (Box::new(socket), Box::new(peer))
        } else {
            let (socket, peer) = UnixStream::pair().unwrap();
            (Box::new(socket), Box::new(peer))
        };
        thread::spawn(move || drain(peer));
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(1 << 16)
            .setup_clamp()
            .build(8)
            .expect("io_uring of Linux 6.1");
        let memory = vec![7u8; WINDOW];
        let iovec =
            libc::iovec { iov_base: memory.as_ptr().cast_mut().cast(), iov_len: memory.len() };
        let fd: RawFd = socket.as_raw_fd();
        ring.submitter().register_files(&[fd]).unwrap();
        // SAFETY: `memory` lives as long as the ring.
        unsafe { ring.submitter().register_buffers(&[iovec]).unwrap() };
        Sender { ring, size, memory, _socket: socket, notifications: 0 }
    }

    /// Returns the wall clock and processor time of sending `count` messages.
    fn round(&mut self, how: How, count: usize) -> (Duration, Duration) {
        let (wall, cpu) = (Instant::now(), thread_time());
        let window = WINDOW / self.size;
        for i in 0..count {
            self.message(how, i % window);
            self.wait_for_notifications(window - 1);
        }
        let times = (wall.elapsed(), thread_time() - cpu);
        self.wait_for_notifications(0);
        times
    }

    fn message(&mut self, how: How, place: usize) {
        let start = place * self.size;
        let mut done = 0;
        while done < self.size {
            let piece = &self.memory[start + done..start + self.size];
            let (first, second) = piece.split_at(piece.len() / 2);
            let iovecs = [iovec(first), iovec(second)];
            // SAFETY: a msghdr of zeros has no name, data or control messages.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = iovecs.as_ptr().cast_mut();
            header.msg_iovlen = 2;
            let entry = entry(how, piece, &iovecs, &header);
            // SAFETY: all memory the entry points to lives until its completion, which `result` waits
            // for below.
            unsafe { self.ring.submission().push(&entry).unwrap() };
            done += self.result();
        }
    }

    fn result(&mut self) -> usize {
        loop {
            self.ring.submit_and_wait(1).unwrap();
            while let Some(cqe) = self.pop() {
                if cqueue::notif(cqe.flags()) {
                    self.notifications -= 1;
                    continue;
                }
                if cqueue::more(cqe.flags()) {
                    self.notifications += 1;
                }
                assert!(cqe.result() > 0, "{}", cqe.result());
                return cqe.result() as usize;
            }
        }
    }

    fn pop(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn wait_for_notifications(&mut self, most: usize) {
        while self.notifications > most {
            self.ring.submit_and_wait(1).unwrap();
            while let Some(cqe) = self.pop() {
                assert!(cqueue::notif(cqe.flags()));
                self.notifications -= 1;
            }
        }
    }
}

fn entry(
    how: How,
    piece: &[u8],
    iovecs: &[libc::iovec; 2],
    header: &libc::msghdr,
) -> squeue::Entry {
    const FIXED_BUF: u16 = 1 << 2;
    let fd = types::Fixed(0);
    let (base, len) = (piece.as_ptr(), piece.len() as u32);
    match how {
        How::Send => opcode::Send::new(fd, base, len).build(),
        How::SendMsg => opcode::SendMsg::new(fd, header).build(),
        How::WriteFixed => opcode::WriteFixed::new(fd, base, len, 0).build(),
        How::WritevFixed => opcode::WritevFixed::new(fd, iovecs.as_ptr(), 2, 0).build(),
        How::SendZc => opcode::SendZc::new(fd, base, len).buf_index(Some(0)).build(),
        How::SendMsgZc => opcode::SendMsgZc::new(fd, header).ioprio(FIXED_BUF).build(),
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn drain(mut peer: Box<dyn Read + Send>) {
    let mut buffer = vec![0; 256 << 10];
    while peer.read(&mut buffer).is_ok_and(|n| n > 0) {}
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours and what the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
