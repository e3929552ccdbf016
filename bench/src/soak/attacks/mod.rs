//! Attacks of hostile clients: with [`bytes`], [`calls`], [`copies`], [`leftovers`] and [`tokens`].
//! There is no call that halts the kernel among them: any client that may connect may do that.

mod bytes;
mod calls;
mod copies;
mod leftovers;
mod tokens;

use client::numbers::sys;
use client::raw::RawConnection;
use rumpsp::wire;

use super::hostile::{Attacker, Met};

type Attack = fn(&mut Attacker<'_>) -> Result<(), Met>;

/// All attacks, by their names.
pub const ATTACKS: [(&str, Attack); 29] = [
    ("random bytes before the handshake", |a| bytes::random_bytes(a, false)),
    ("random bytes behind the handshake", |a| bytes::random_bytes(a, true)),
    ("no handshake", |a| a.silent().and_then(|raw| a.hold_and_go(raw))),
    ("half a handshake", bytes::half_a_handshake),
    ("a call before the handshake", calls::call_too_early),
    ("bad frames before the handshake", |a| bytes::bad_frames(a, false)),
    ("bad frames behind the handshake", |a| bytes::bad_frames(a, true)),
    ("handshakes again and again", bytes::handshakes),
    ("never reads", calls::never_reads),
    ("never answers a copyin", copies::never_answers),
    ("answers copies wrongly", copies::answers_wrongly),
    ("answers nobody has asked for", copies::unasked),
    ("guesses tokens", tokens::guesses),
    ("shows a token twice", tokens::token_twice),
    ("hoards preforks", tokens::hoards_preforks),
    ("hoards sleeping calls", calls::hoards_sleepers),
    ("many calls in flight", calls::many_calls),
    ("calls with wild arguments", calls::wild_calls),
    ("a byte at a time", bytes::byte_at_a_time),
    ("half closes with calls in flight", calls::half_closes),
    ("leaves timers behind", leftovers::timers),
    ("leaves sleepers behind", leftovers::sleepers),
    ("leaves a burst of readers behind", leftovers::burst_of_readers),
    ("answers half of what is asked", leftovers::half_answers),
    ("hoards files", leftovers::all_files),
    ("hoards files in flight", leftovers::files_in_flight),
    ("makes a file long and short", leftovers::long_file),
    ("reads no signals", leftovers::unread_signals),
    ("watches a child that ends", leftovers::watched_child),
];

/// Calls that can be made with any arguments and do no harm to other clients of the kernel.
const HARMLESS: [i32; 12] = [
    sys::READ,
    sys::CLOSE,
    sys::GETPID,
    sys::GETPPID,
    sys::DUP,
    sys::PIPE,
    sys::LSEEK,
    sys::PREAD,
    sys::FSTAT,
    -1,
    i32::MAX,
    511,
];

fn call(number: i32, reqno: u64, args: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::syscall_request(&mut out, reqno, number, args);
    out
}

/// Makes a pipe; returns the end to read from and the end to write to.
fn pipe(a: &Attacker<'_>, raw: &mut RawConnection) -> Result<[u64; 2], Met> {
    a.send(raw, &call(sys::PIPE, 1, &[]))?;
    match a.hear(raw)?.body {
        body if body.len() == wire::SYSCALL_RESPONSE_LEN && body[..4] == [0; 4] => {
            Ok([wire::read_u64(&body, 8), wire::read_u64(&body, 16)])
        }
        _ => Err(Met::Refused),
    }
}
