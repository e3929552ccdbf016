//! Hides the fields of structures that two kernels cannot agree on: each layout names those fields.
//! Bytes that a call has not written stay as they are, so that they are compared, too.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::step::{Layout, UNTOUCHED};

/// A year in seconds: a time further from now was set by a sequence, not by the clock.
const YEAR: i64 = 366 * 86_400;

/// The first port a kernel chooses by itself (`IPPORT_ANONMIN`).
const FIRST_EPHEMERAL: u16 = 49_152;

/// Bytes of `struct kevent`.
const KEVENT: usize = 40;

/// Makes `bytes` comparable, a block with this layout after a call that returned `value`. `pid` maps
/// process ids to their numbers in the sequence.
pub fn mask(layout: Layout, bytes: &mut Vec<u8>, value: i64, pid: &dyn Fn(i64) -> i64) {
    if bytes.iter().all(|&byte| byte == UNTOUCHED) {
        return;
    }
    match layout {
        Layout::Plain => {}
        Layout::Stat => stat(bytes),
        Layout::Statvfs => statvfs(bytes),
        Layout::Dirents => dirents(bytes, value),
        // These are the clocks of two machines, and the costs of calls there.
        Layout::Now | Layout::Rusage => bytes.fill(0),
        // `tv_usec` is an int, and the four bytes behind it belong to no field.
        Layout::Timeval => bytes.chunks_exact_mut(16).for_each(|time| hide(time, 12, 16)),
        Layout::Left => left(bytes),
        Layout::Sockaddr => sockaddr(bytes),
        Layout::Kevents => kevents(bytes, pid),
        Layout::Flock => number(bytes, 16, pid),
        Layout::Pid => number(bytes, 0, pid),
        // These bytes align the descriptors behind a `struct cmsghdr`.
        Layout::Control => hide(bytes, 12, 16),
        // These fields count the packets of a machine, and tell when its interface was set up.
        Layout::Interfaces => hide(bytes, 48, 152),
    }
}

fn hide(bytes: &mut [u8], from: usize, to: usize) {
    let end = to.min(bytes.len());
    if from < end {
        bytes[from..end].fill(0);
    }
}

/// Keeps a timer's interval, and rounds the time left to minutes, since it changes while it is read.
fn left(bytes: &mut [u8]) {
    const MINUTE: i64 = 60;
    bytes.chunks_exact_mut(16).for_each(|time| hide(time, 12, 16));
    if let Some(seconds) = i64_at(bytes, 16) {
        let minutes = seconds.saturating_add(MINUTE / 2) / MINUTE;
        let is_set = bytes[16..28].iter().any(|&byte| byte != 0);
        bytes[16..24].copy_from_slice(&minutes.to_le_bytes());
        hide(bytes, 24, 32);
        bytes[31] = u8::from(is_set);
    }
}

/// Hides `st_dev`, `st_ino`, `st_blksize` and `st_gen`, which are the file system's own, and of the
/// four times those that the clock set. A file with holes takes less room than its length where holes
/// cost nothing: so `st_blocks` is compared only if it is more.
fn stat(bytes: &mut [u8]) {
    for (from, to) in [(0, 8), (16, 24), (128, 132), (136, 140)] {
        hide(bytes, from, to);
    }
    let is_file = bytes.get(9).is_some_and(|mode| mode & 0xf0 == 0x80);
    if let (true, Some(size), Some(blocks)) = (is_file, i64_at(bytes, 112), i64_at(bytes, 120))
        && (0..=size.saturating_add(PAGE - 1) / PAGE * (PAGE / BLOCK)).contains(&blocks)
    {
        hide(bytes, 120, 128);
    }
    for from in [48, 64, 80, 96] {
        settle(bytes, from);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64);
    for from in [48, 64, 80, 96] {
        if i64_at(bytes, from).is_some_and(|seconds| (seconds - now).abs() < YEAR) {
            hide(bytes, from, from + 16);
        }
    }
}

/// The sizes of a page, in whole numbers of which files are held, and of a block, in which they are
/// counted.
const PAGE: i64 = 4096;
const BLOCK: i64 = 512;

/// Normalizes a part of a second that is out of range: NetBSD keeps whatever `utimensat(2)` is told.
fn settle(bytes: &mut [u8], at: usize) {
    const SECOND: i64 = 1_000_000_000;
    if let (Some(seconds), Some(part)) = (i64_at(bytes, at), i64_at(bytes, at + 8)) {
        let seconds = seconds.wrapping_add(part.div_euclid(SECOND));
        bytes[at..at + 8].copy_from_slice(&seconds.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&part.rem_euclid(SECOND).to_le_bytes());
    }
}

/// Hides sizes, counts and the file system's name, which belong to a machine; the longest name of a
/// file, at 144, is compared.
fn statvfs(bytes: &mut [u8]) {
    hide(bytes, 0, 144);
    hide(bytes, 152, bytes.len());
}

/// Sorts the entries by name and drops `d_fileno`: their order is the file system's own.
fn dirents(bytes: &mut Vec<u8>, value: i64) {
    let len = usize::try_from(value).unwrap_or(0).min(bytes.len());
    let mut entries = Vec::new();
    let mut rest = &bytes[..len];
    while rest.len() >= 13 {
        let reclen = usize::from(u16::from_le_bytes([rest[8], rest[9]]));
        if reclen < 13 || reclen > rest.len() {
            break;
        }
        let (entry, behind) = rest.split_at(reclen);
        // The bytes behind the name are padding.
        let namlen = usize::from(u16::from_le_bytes([entry[10], entry[11]]));
        entries.push(entry[8..entry.len().min(13 + namlen)].to_vec());
        rest = behind;
    }
    entries.sort_by(|one, other| one.get(5..).cmp(&other.get(5..)));
    let mut sorted = entries.concat();
    sorted.extend_from_slice(rest);
    sorted.extend_from_slice(&bytes[len..]);
    *bytes = sorted;
}

/// Hides the port, if the kernel chose it.
fn sockaddr(bytes: &mut [u8]) {
    let is_inet = bytes.len() >= 4 && matches!(bytes[1], 2 | 24);
    if is_inet && u16::from_be_bytes([bytes[2], bytes[3]]) >= FIRST_EPHEMERAL {
        hide(bytes, 2, 4);
    }
}

/// Hides the four bytes between `fflags` and `data`, which belong to no field. An event of EVFILT_PROC,
/// which is 4, has a process id.
fn kevents(bytes: &mut [u8], pid: &dyn Fn(i64) -> i64) {
    for event in bytes.chunks_exact_mut(KEVENT) {
        if event.iter().all(|&byte| byte == UNTOUCHED) {
            continue;
        }
        hide(event, 20, 24);
        if event[8..12] == [4, 0, 0, 0] {
            number(event, 0, pid);
        }
    }
}

/// Replaces a process id by its number in the sequence.
fn number(bytes: &mut [u8], at: usize, pid: &dyn Fn(i64) -> i64) {
    if let Some(field) = bytes.get_mut(at..at + 4) {
        let found = i32::from_le_bytes([field[0], field[1], field[2], field[3]]);
        field.copy_from_slice(&(pid(i64::from(found)) as i32).to_le_bytes());
    }
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    let field = bytes.get(at..at + 8)?;
    field.try_into().ok().map(i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(layout: Layout, mut bytes: Vec<u8>, value: i64) -> Vec<u8> {
        mask(layout, &mut bytes, value, &|pid| pid + 1);
        bytes
    }

    fn dirent(ino: u64, name: &str, pad: u8) -> Vec<u8> {
        let reclen = (13 + name.len() + 1).next_multiple_of(8);
        let mut entry = ino.to_le_bytes().to_vec();
        entry.extend((reclen as u16).to_le_bytes());
        entry.extend((name.len() as u16).to_le_bytes());
        entry.push(8);
        entry.extend(name.as_bytes());
        entry.resize(reclen, pad);
        entry
    }

    #[test]
    fn what_was_not_written_stays() {
        for layout in [Layout::Stat, Layout::Now, Layout::Rusage, Layout::Dirents, Layout::Pid] {
            let untouched = vec![UNTOUCHED; 160];
            assert_eq!(masked(layout, untouched.clone(), 0), untouched);
        }
    }

    #[test]
    fn times_of_the_clock_are_hidden_and_others_compared() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut bytes = vec![7; 152];
        bytes[48..64].copy_from_slice(&[now.to_le_bytes(), [0; 8]].concat());
        bytes[64..80].copy_from_slice(&[1000u64.to_le_bytes(), [0; 8]].concat());
        let seen = masked(Layout::Stat, bytes, 0);
        assert_eq!((&seen[0..8], &seen[8..12]), (&[0; 8][..], &[7; 4][..]));
        assert_eq!(seen[48..64], [0; 16]);
        assert_eq!(seen[64..72], 1000u64.to_le_bytes());
    }

    #[test]
    fn what_is_left_of_a_timer_is_told_to_the_minute() {
        let left = |seconds: i64, part: i64| {
            let times = [5000, 7, seconds, part].map(i64::to_le_bytes).concat();
            masked(Layout::Left, times, 0)
        };
        assert_eq!(left(1000, 0), left(999, 999_000_000));
        assert_ne!(left(1000, 0), left(900, 0));
        assert_ne!(left(0, 1), left(0, 0), "one is set");
        assert_eq!(left(1, 1)[..16], [5000i64, 7].map(i64::to_le_bytes).concat());
    }

    #[test]
    fn a_part_of_a_second_that_is_none_becomes_one() {
        for (part, seconds, rest) in [(-1i64, 8i64, 999_999_999i64), (2_000_000_001, 11, 1)] {
            let mut bytes = vec![0; 152];
            bytes[64..80].copy_from_slice(&[9i64, part].map(i64::to_le_bytes).concat());
            let seen = masked(Layout::Stat, bytes, 0);
            assert_eq!(seen[64..80], [seconds, rest].map(i64::to_le_bytes).concat());
        }
    }

    #[test]
    fn blocks_of_a_file_show_where_they_are_too_many() {
        for (mode, size, blocks, shown) in [
            (0o100_644u32, 4097i64, 16i64, 0i64),
            (0o100_644, 4097, 0, 0),
            (0o100_644, 4097, 17, 17),
            (0o100_644, 0, 8, 8),
            (0o040_755, 48, 8, 8),
        ] {
            let mut bytes = vec![0; 152];
            bytes[8..12].copy_from_slice(&mode.to_le_bytes());
            bytes[112..128].copy_from_slice(&[size, blocks].map(i64::to_le_bytes).concat());
            assert_eq!(masked(Layout::Stat, bytes, 0)[120..128], shown.to_le_bytes());
        }
    }

    #[test]
    fn entries_of_a_directory_are_a_set() {
        let one = [dirent(1, "a", 0), dirent(2, "bb", 0)].concat();
        let other = [dirent(9, "bb", 3), dirent(4, "a", 3)].concat();
        let missing = dirent(1, "a", 0);
        let len = one.len() as i64;
        let of = |bytes: &[u8]| masked(Layout::Dirents, bytes.to_vec(), bytes.len() as i64);
        assert_eq!(of(&one), of(&other));
        assert_ne!(of(&one), of(&missing));
        // A wrong length does no harm.
        masked(Layout::Dirents, one, len * 9);
        masked(Layout::Dirents, vec![0; 40], 40);
    }

    #[test]
    fn chosen_ports_are_hidden_and_given_ones_compared() {
        let address = |port: u16| [&[16, 2], &port.to_be_bytes()[..], &[127, 0, 0, 1]].concat();
        let seen = |port| masked(Layout::Sockaddr, address(port), 0);
        assert_eq!(seen(50_000), seen(65_535));
        assert_ne!(seen(20_000), seen(20_001));
        let local = vec![16, 1, 0xff, 0xff];
        assert_eq!(masked(Layout::Sockaddr, local.clone(), 0), local);
    }

    #[test]
    fn what_aligns_a_control_message_is_hidden() {
        let seen = masked(Layout::Control, vec![7; 24], 0);
        assert_eq!(seen, [vec![7; 12], vec![0; 4], vec![7; 8]].concat());
    }

    #[test]
    fn processes_have_numbers() {
        assert_eq!(masked(Layout::Pid, vec![4, 0, 0, 0], 0), [5, 0, 0, 0]);
    }
}
