use super::super::Limits;
use super::super::testing::{Guest, NOWHERE, kernel, kernel_with};
use kernel::Errno;

/// Reads a node with room for `room` bytes. Returns what came, and how much there would be.
pub(super) fn get(guest: &Guest, name: &[i32], room: u64) -> (Result<i64, Errno>, Vec<u8>, u64) {
    let len = guest.place(&room.to_le_bytes());
    guest.put(guest.buffer(), &[0; 256]);
    let result =
        guest.call(202, &[place(guest, name), name.len() as u64, guest.buffer(), len, 0, 0]);
    let there = u64::from_le_bytes(guest.get(len, 8).try_into().unwrap());
    (result, guest.get(guest.buffer(), there.min(room) as usize), there)
}

pub(super) fn place(guest: &Guest, name: &[i32]) -> u64 {
    guest.place(&name.iter().flat_map(|part| part.to_le_bytes()).collect::<Vec<_>>())
}

fn set(guest: &Guest, name: &[i32], value: &[u8]) -> Result<i64, Errno> {
    let name_at = place(guest, name);
    guest.call(202, &[name_at, name.len() as u64, 0, 0, guest.place(value), value.len() as u64])
}

#[test]
fn the_kernel_says_what_uname_wants() {
    let guest = Guest::new(&kernel());
    let text = |name| String::from_utf8(get(&guest, name, 256).1).unwrap();
    assert_eq!(text(&[1, 1]), "NetBSD\0");
    assert_eq!(text(&[1, 2]), "7.99.34\0");
    assert!(text(&[1, 4]).starts_with("NetBSD 7.99.34 ("));
    assert_eq!(text(&[1, 10]), "rumpring\0");
    assert_eq!(text(&[6, 1]), "amd64\0");
    assert_eq!(text(&[6, 10]), "x86_64\0");
    assert_eq!(get(&guest, &[1, 3], 4).1, 799_003_400i32.to_le_bytes());
    assert_eq!(get(&guest, &[6, 7], 4).1, 4096i32.to_le_bytes());
    assert!(get(&guest, &[6, 3], 4).1[0] > 0);
    assert_eq!(get(&guest, &[1, 83], 16).2, 16);
    assert_ne!(get(&guest, &[1, 81], 32).1, get(&guest, &[1, 81], 32).1);
}

#[test]
fn lengths_come_back_whatever_happens() {
    let guest = Guest::new(&kernel());
    assert_eq!(get(&guest, &[1, 1], 7), (Ok(0), b"NetBSD\0".to_vec(), 7));
    assert_eq!(get(&guest, &[1, 1], 3), (Err(Errno::ENOMEM), b"Net".to_vec(), 7));
    assert_eq!(get(&guest, &[1, 1], 0), (Err(Errno::ENOMEM), vec![], 7));
    // Only ask for the length.
    let len = guest.place(&0u64.to_le_bytes());
    assert_eq!(guest.call(202, &[place(&guest, &[1, 1]), 2, 0, len, 0, 0]), Ok(0));
    assert_eq!(guest.get(len, 1), [7]);
    assert_eq!(get(&guest, &[1, 9999], 5).2, 5);
}

#[test]
fn names_that_lead_nowhere() {
    let guest = Guest::new(&kernel());
    for (name, errno) in [
        (&[1][..], Errno::EINVAL),
        (&[1, 9999], Errno::ENOENT),
        (&[99], Errno::ENOENT),
        (&[1, 1, 1], Errno::ENOTDIR),
        (&[1, -2], Errno::EINVAL),
        (&[1, -3], Errno::EINVAL),
        (&[1, -8], Errno::EOPNOTSUPP),
        (&[1, 10, 1], Errno::EINVAL),
        (&[1, 10, -2], Errno::EINVAL),
        (&[1, -2, 3], Errno::ENOENT),
        (&[1; 13], Errno::EINVAL),
        (&[], Errno::EINVAL),
    ] {
        assert_eq!(get(&guest, name, 100).0, Err(errno), "{name:?}");
    }
    assert_eq!(guest.fails(202, &[NOWHERE, 2, 0, 0, 0, 0]), Errno::EFAULT);
    assert_eq!(guest.fails(202, &[place(&guest, &[1, 1]), 2, 0, NOWHERE, 0, 0]), Errno::EFAULT);
}

#[test]
fn the_host_name_can_be_set() {
    let guest = Guest::new(&kernel());
    for (value, becomes) in
        [(&b"first\0"[..], "first\0"), (b"second", "second\0"), (b"a\0b", "a\0")]
    {
        assert_eq!(set(&guest, &[1, 10], value), Ok(0));
        assert_eq!(get(&guest, &[1, 10], 100).1, becomes.as_bytes());
    }
    // Reading and setting at once returns the old value.
    let (len, new) = (guest.place(&100u64.to_le_bytes()), guest.place(b"new"));
    let name = place(&guest, &[1, 10]);
    assert_eq!(guest.call(202, &[name, 2, guest.buffer(), len, new, 3]), Ok(0));
    assert_eq!(guest.get(guest.buffer(), 2), b"a\0");
    assert_eq!(get(&guest, &[1, 10], 100).1, b"new\0");
    assert_eq!(set(&guest, &[1, 10], &[b'x'; 255]), Ok(0));
    assert_eq!(get(&guest, &[1, 10], 300).2, 256);
    assert_eq!(set(&guest, &[1, 10], &[b'x'; 256]), Err(Errno::EINVAL));
    assert_eq!(set(&guest, &[1, 10], &[b'x'; 257]), Err(Errno::EINVAL));
    assert_eq!(set(&guest, &[1, 22], b"domain"), Ok(0));
    assert_eq!(get(&guest, &[1, 22], 100).1, b"domain\0");
    assert_eq!(set(&guest, &[1, 1], b"Linux"), Err(Errno::EPERM));
    assert_eq!(set(&guest, &[6, 3], &[0; 4]), Err(Errno::EPERM));
    assert_eq!(guest.fails(202, &[name, 2, 0, 0, NOWHERE, 5]), Errno::EFAULT);
    assert_eq!(get(&guest, &[1, 10], 300).2, 256);
}

#[test]
fn nodes_are_found_by_name_as_libc_does() {
    let guest = Guest::new(&kernel());
    let query = |name: &[i32], room: u64| query(&guest, name, room, &asking(0));
    let find = |nodes: &[u8], name: &str| {
        let node =
            nodes.chunks(96).find(|node| node[8..].starts_with(&[name.as_bytes(), b"\0"].concat()));
        node.map(|node| (node[4], node[0], node[3]))
    };
    // The first try has room for eight, the second for all.
    let (result, some) = query(&[-2], 8 * 96);
    assert_eq!((result, some.len()), (Err(Errno::ENOMEM), 768));
    let (result, top) = query(&[-2], 100 * 96);
    assert_eq!((result, top.len()), (Ok(0), 13 * 96));
    assert_eq!(find(&top, "kern"), Some((1, 1, 1)));
    assert_eq!(find(&top, "hw"), Some((6, 1, 1)));
    let (_, kern) = query(&[1, -2], 100 * 96);
    assert_eq!(find(&kern, "hostname"), Some((10, 0x73, 1)));
    assert_eq!(find(&kern, "osrevision"), Some((3, 2, 1)));
    assert_eq!(find(&kern, "nonsense"), None);
    assert_eq!(query(&[1, 1, -2], 96).0, Err(Errno::ENOTDIR));
}

/// Encodes the `struct sysctlnode` that asks about node `number`, or about all.
fn asking(number: i32) -> [u8; 96] {
    let mut asked = [0; 96];
    asked[3] = 1;
    asked[4..8].copy_from_slice(&number.to_le_bytes());
    asked
}

/// Asks a node about its children.
fn query(guest: &Guest, name: &[i32], room: u64, asked: &[u8]) -> (Result<i64, Errno>, Vec<u8>) {
    let (len, at) = (guest.place(&room.to_le_bytes()), guest.place(asked));
    let args = [place(guest, name), name.len() as u64, guest.buffer(), len, at, asked.len() as u64];
    let result = guest.call(202, &args);
    let there = u64::from_le_bytes(guest.get(len, 8).try_into().unwrap());
    (result, guest.get(guest.buffer(), there.min(room) as usize))
}

pub(super) fn word(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Reads every node below `name` as `sysctl -a` does: the length first, then the value.
fn walk(guest: &Guest, name: &[i32], path: &str, seen: &mut Vec<String>) {
    let (result, nodes) = query(guest, &[name, &[-2]].concat(), 1 << 16, &asking(0));
    assert_eq!(result, Ok(0), "{path}");
    if nodes.is_empty() {
        return;
    }
    let (result, texts) = describe(guest, name, None);
    assert_eq!((result, texts.len()), (Ok(0), nodes.len() / 96), "{path}");
    for (node, (number, text)) in nodes.chunks(96).zip(texts) {
        let end = node[8..40].iter().position(|&byte| byte == 0).unwrap();
        let path = format!("{path}.{}", std::str::from_utf8(&node[8..8 + end]).unwrap());
        assert_eq!(word(node, 4), number);
        assert!(!text.is_empty(), "{path} is not described");
        let name = [name, &[number]].concat();
        let kind = word(node, 0) & 0xf;
        if kind == 1 {
            walk(guest, &name, &path, seen);
            continue;
        }
        let len = guest.place(&0u64.to_le_bytes());
        let args = [place(guest, &name), name.len() as u64, 0, len, 0, 0];
        if path.ends_with(".pcblist") || path == ".kern.file2" {
            // A list needs a longer name, and fails without.
            assert_eq!(guest.fails(202, &args), Errno::EINVAL, "{path}");
            continue;
        }
        assert_eq!(guest.call(202, &args), Ok(0), "{path}");
        let (result, value, there) = get(guest, &name, word(&guest.get(len, 8), 0) as u64);
        assert_eq!((result, value.len() as u64), (Ok(0), there), "{path}");
        match kind {
            2 if name != [1, 81] => assert_eq!(there, 4, "{path}"),
            4 => assert_eq!(there, 8, "{path}"),
            3 if there > 0 => assert_eq!(value.last(), Some(&0), "{path}"),
            _ => {}
        }
        seen.push(path);
    }
}

type Texts = Vec<(i32, String)>;

/// Returns number and description of the children of `name`, or of one of them.
fn describe(guest: &Guest, name: &[i32], only: Option<i32>) -> (Result<i64, Errno>, Texts) {
    let asked = only.map(asking);
    let asked = asked.as_ref().map_or(&[][..], |asked| &asked[..]);
    let name = [name, &[-7]].concat();
    let (result, mut bytes) = if asked.is_empty() {
        let (result, bytes, _) = get(guest, &name, 8192);
        (result, bytes)
    } else {
        query(guest, &name, 8192, asked)
    };
    let mut texts = Vec::new();
    while result.is_ok() && !bytes.is_empty() {
        let len = word(&bytes, 8) as usize;
        assert_eq!(bytes[12 + len - 1], 0);
        let text = String::from_utf8(bytes[12..12 + len - 1].into()).unwrap();
        texts.push((word(&bytes, 0), text));
        bytes.drain(..12 + len.next_multiple_of(4));
    }
    (result, texts)
}

#[test]
fn the_whole_tree_can_be_read() {
    let guest = Guest::new(&kernel());
    let mut seen = Vec::new();
    walk(&guest, &[], "", &mut seen);
    for path in [".kern.ostype", ".hw.usermem64", ".proc.curproc.rlimit.maxlwp.hard"] {
        assert!(seen.iter().any(|there| there == path), "{path}");
    }
    assert!(seen.iter().any(|there| there == ".security.models.suser.name"));
}

#[test]
fn nodes_are_described() {
    let guest = Guest::new(&kernel());
    let (result, one) = describe(&guest, &[1], Some(10));
    assert_eq!((result, one), (Ok(0), vec![(10, "Name of this host".into())]));
    assert_eq!(describe(&guest, &[1], Some(9999)).0, Err(Errno::ENOENT));
    assert_eq!(get(&guest, &[1, 1, -7], 100).0, Err(Errno::ENOTDIR));
    // With little room: what fits whole, and the size of all.
    let (result, some, all) = get(&guest, &[1, -7], 100);
    assert_eq!(result, Err(Errno::ENOMEM));
    assert!(some.len() <= 100 && all > 1000);
    let mut asked = asking(10);
    asked[88] = 1;
    assert_eq!(query(&guest, &[1, -7], 100, &asked).0, Err(Errno::EPERM), "it has one");
    asked[4..8].copy_from_slice(&9999i32.to_le_bytes());
    assert_eq!(query(&guest, &[1, -7], 100, &asked).0, Err(Errno::ENOENT));
}

/// The version of the argument is checked first, so a bad address is reported before a short length.
#[test]
fn what_is_asked_with_is_looked_at_word_by_word() {
    let guest = Guest::new(&kernel());
    let query = place(&guest, &[1, -2]);
    let good = guest.place(&asking(0));
    for (new, len, errno) in [
        (NOWHERE, 95, Errno::EFAULT),
        (NOWHERE, 3, Errno::EINVAL),
        (0, 96, Errno::EINVAL),
        (good, 95, Errno::EINVAL),
        (guest.place(&[0; 96]), 96, Errno::EINVAL),
    ] {
        assert_eq!(guest.fails(202, &[query, 2, 0, 0, new, len]), errno, "{new:#x} {len}");
    }
    assert_eq!(get(&guest, &[1, 58, 1], 4).0, Err(Errno::EINVAL));
    assert_eq!(get(&guest, &[1, 8, 1], 4).0, Err(Errno::ENOTDIR));
}

#[test]
fn nodes_are_neither_made_nor_destroyed_nor_mapped() {
    let guest = Guest::new(&kernel());
    for (what, errno) in [(-3, Errno::EPERM), (-5, Errno::EPERM), (-4, Errno::EOPNOTSUPP)] {
        assert_eq!(query(&guest, &[1, what], 96, &asking(10)).0, Err(errno));
        assert_eq!(query(&guest, &[what], 96, &asking(1)).0, Err(errno));
    }
    assert_eq!(query(&guest, &[1, -6], 96, &asking(10)).0, Err(Errno::EOPNOTSUPP));
    assert_eq!(query(&guest, &[1, -6], 96, &asking(9999)).0, Err(Errno::ENOENT));
    assert_eq!(query(&guest, &[1, -6], 96, &asking(10)[..95]).0, Err(Errno::EINVAL));
    assert_eq!(query(&guest, &[1, -2], 96, &[0; 96]).0, Err(Errno::EINVAL), "no version");
}

#[test]
fn new_sockets_have_the_buffers_that_are_told() {
    let guest = Guest::new(&kernel());
    for (domain, kind, nodes) in [
        (2, 1, [[4, 2, 6, 2], [4, 2, 6, 3]]),
        (2, 2, [[4, 2, 17, 2], [4, 2, 17, 3]]),
        (24, 2, [[4, 24, 17, 1], [4, 24, 17, 2]]),
    ] {
        let fd = guest.call(394, &[domain, kind, 0]).unwrap() as u64;
        for (node, option) in nodes.iter().zip([0x1001, 0x1002]) {
            let said = get(&guest, node, 4).1;
            guest.put(guest.buffer(), &4u32.to_le_bytes());
            let args = [fd, 0xffff, option, guest.buffer() + 8, guest.buffer()];
            guest.call(118, &args).unwrap();
            assert_eq!(guest.get(guest.buffer() + 8, 4), said, "{node:?}");
            assert_eq!(set(&guest, node, &[0, 9, 0, 0]), Err(Errno::EPERM));
        }
    }
}

#[test]
fn only_the_superuser_sets() {
    let guest = Guest::new(&kernel());
    assert_eq!(set(&guest, &[1, 11], &7u32.to_le_bytes()), Ok(0));
    assert_eq!(get(&guest, &[1, 11], 4).1, 7u32.to_le_bytes());
    assert_eq!(set(&guest, &[1, 11], &[1; 3]), Err(Errno::EINVAL));
    assert_eq!(set(&guest, &[1, 11], &[1; 5]), Err(Errno::EINVAL));
    guest.call(183, &[5]).unwrap();
    for name in [&[1, 11][..], &[1, 10], &[1, 1], &[6, 3]] {
        assert_eq!(set(&guest, name, &[1; 4]), Err(Errno::EPERM));
    }
    assert_eq!(get(&guest, &[1, 11], 4).1, 7u32.to_le_bytes());
    assert_eq!(get(&guest, &[1, 81], 257).0, Err(Errno::E2BIG));
}

#[test]
fn limits_of_processes_are_read_and_set() {
    let kernel = kernel();
    let (guest, other) = (Guest::new(&kernel), Guest::new(&kernel));
    let core = |pid: i32, end| [10, pid, 2, 5, end];
    let (mine, yours) = (i32::MAX, other.process.pid());
    let quad = |value: u64| value.to_le_bytes();
    let read = |name: &[i32]| get(&guest, name, 8).1;
    assert_eq!(set(&guest, &core(yours, 1), &quad(10)), Ok(0));
    assert_eq!(set(&guest, &core(yours, 2), &quad(20)), Ok(0));
    assert_eq!((read(&core(yours, 1)), read(&core(yours, 2))), (quad(10).into(), quad(20).into()));
    assert_eq!(read(&core(mine, 1)), quad(i64::MAX as u64));
    assert_eq!(set(&guest, &core(yours, 1), &quad(21)), Err(Errno::EINVAL), "above the hard one");
    assert_eq!(set(&guest, &core(yours, 1), &[0; 4]), Err(Errno::EINVAL));
    // Every process may lower its own limits.
    for who in [&guest, &other] {
        who.call(23, &[5]).unwrap();
    }
    assert_eq!(set(&guest, &core(yours, 2), &quad(19)), Err(Errno::EPERM), "no group in common");
    assert_eq!(set(&other, &core(mine, 2), &quad(19)), Ok(0));
    assert_eq!(set(&other, &core(mine, 2), &quad(20)), Err(Errno::EPERM));
    assert_eq!(get(&guest, &core(29_000, 1), 8).0, Err(Errno::ESRCH));
    assert_eq!(get(&guest, &[10, mine, 2, 5, 1, 1], 8).0, Err(Errno::EINVAL));
    assert_eq!(get(&guest, &[10, mine, 2, 13, 1], 8).0, Err(Errno::ENOENT));
    assert_eq!(get(&guest, &[10, -1, 2, 5, 1], 8).0, Err(Errno::ENOENT));
}

const ENTRY: u64 = 680;

/// Returns the processes that `kern.proc2` lists for these arguments.
fn list(guest: &Guest, op: i32, arg: i32, room: u64) -> (Result<i64, Errno>, Vec<Vec<u8>>) {
    let name = [1, 47, op, arg, ENTRY as i32, i32::MAX];
    let (result, bytes, _) = get(guest, &name, room);
    (result, bytes.chunks(ENTRY as usize).map(<[u8]>::to_vec).collect())
}

fn pids(list: &[Vec<u8>]) -> Vec<i32> {
    let mut pids: Vec<i32> = list.iter().map(|entry| word(entry, 116)).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn ps_sees_who_there_is() {
    let kernel = kernel();
    let (guest, other) = (Guest::new(&kernel), Guest::new(&kernel));
    other.call(147, &[]).unwrap();
    other.call(50, &[other.string("somebody")]).unwrap();
    other.call(96, &[0, 0, 5]).unwrap();
    other.call(80, &[1, other.place(&8u32.to_le_bytes())]).unwrap();
    other.call(127, &[6, 7]).unwrap();
    other.call(126, &[4, 5]).unwrap();
    let child = other.fork();
    child.process.exec(b"another-program-with-a-long-name");
    let pid = |guest: &Guest| guest.process.pid();
    let (mine, theirs, childs) = (pid(&guest), pid(&other), pid(&child));
    let room = 1 << 14;
    let found = |op, arg| pids(&list(&guest, op, arg, room).1);
    assert_eq!(found(0, 0), [mine, theirs, childs]);
    assert_eq!(found(1, theirs), [theirs]);
    assert_eq!(found(2, theirs), [theirs, childs]);
    assert_eq!(found(3, 0), [mine]);
    assert_eq!(found(4, -1), [mine, theirs, childs], "nobody has a terminal");
    assert_eq!(found(4, 5), []);
    assert_eq!(found(5, 5), [theirs, childs]);
    assert_eq!(found(6, 4), [theirs, childs]);
    assert_eq!(found(7, 7), [theirs, childs]);
    assert_eq!(found(8, 0), [mine]);
    let (result, list) = list(&guest, 1, childs, room);
    assert_eq!(result, Ok(0));
    let entry = &list[0];
    let words = |at: usize, count: usize| -> Vec<i32> {
        (0..count).map(|n| word(entry, at + 4 * n)).collect()
    };
    // Parent, session, group and no terminal's group; effective and real user, and group; groups.
    assert_eq!(words(120, 4), [1, theirs, theirs, -1]);
    assert_eq!(words(136, 5), [5, 4, 7, 6, 8]);
    assert_eq!(entry[216..218], [1, 0]);
    assert_eq!(entry[363], 25);
    assert_eq!(&entry[368..392], b"another-program-\0\0\0\0\0\0\0\0");
    assert_eq!(&entry[408..418], b"somebody\0\0");
    assert_eq!(words(640, 2), [5, 7]);
    assert_eq!(&entry[648..656], b"netbsd\0\0");
    let now = super::super::time::now() / 1_000_000_000;
    assert!((i64::from(word(entry, 456)) - now).abs() <= 60);
}

#[test]
fn a_list_of_processes_is_as_long_as_there_is_room() {
    let kernel = kernel_with(Limits::default());
    let guest = Guest::new(&kernel);
    let others: Vec<Guest> = (0..9).map(|_| Guest::new(&kernel)).collect();
    let (result, some) = list(&guest, 0, 0, 3 * ENTRY + 5);
    assert_eq!((result, some.len()), (Err(Errno::ENOMEM), 3));
    // Asking only for the size includes room for some more.
    let (len, name) = (guest.place(&0u64.to_le_bytes()), [1, 47, 0, 0, 100, 0]);
    assert_eq!(guest.call(202, &[place(&guest, &name), 6, 0, len, 0, 0]), Ok(0));
    assert_eq!(word(&guest.get(len, 8), 0), 10 * 100 + 5 * 680);
    // Entries may be cut short or spaced apart, and their number limited.
    let wanted = |size: i32, count: i32| {
        let (result, bytes, there) = get(&guest, &[1, 47, 0, 0, size, count], 1 << 15);
        (result, bytes.chunks(size as usize).map(|entry| word(entry, 116)).max(), there)
    };
    let last = others[8].process.pid();
    assert_eq!(wanted(120, 10), (Ok(0), Some(last), 1200));
    assert_eq!(wanted(1000, 10), (Ok(0), Some(last), 10_000));
    assert_eq!(wanted(120, 4), (Err(Errno::ENOMEM), Some(last), 480));
    // A list that is not sent in one run.
    let mut slow = Guest::with(guest.process.clone(), guest.signals.clone());
    slow.room = 2000;
    let (result, all) = list(&slow, 0, 0, 1 << 15);
    assert_eq!((result, pids(&all).len()), (Ok(0), 10));
    assert_eq!(pids(&all), pids(&list(&guest, 0, 0, 1 << 15).1));
    for (name, errno) in [
        (&[1, 47][..], Errno::EINVAL),
        (&[1, 47, 0, 0, 680], Errno::EINVAL),
        (&[1, 47, 9, 0, 680, 1], Errno::EINVAL),
        (&[1, 48, 2], Errno::EINVAL),
        (&[1, 48, 29_000, 1], Errno::EINVAL),
        (&[1, 48, guest.process.pid(), 1], Errno::EINVAL),
    ] {
        assert_eq!(get(&guest, name, 100).0, Err(errno), "{name:?}");
    }
}
