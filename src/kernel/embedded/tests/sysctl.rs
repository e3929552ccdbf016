use super::super::testing::{Guest, NOWHERE, kernel};
use crate::kernel::Errno;

/// Reads a node with room for `room` bytes: what came, and how much there would be.
fn get(guest: &Guest, name: &[i32], room: u64) -> (Result<i64, Errno>, Vec<u8>, u64) {
    let len = guest.place(&room.to_le_bytes());
    guest.put(guest.buffer(), &[0; 256]);
    let result =
        guest.call(202, &[place(guest, name), name.len() as u64, guest.buffer(), len, 0, 0]);
    let there = u64::from_le_bytes(guest.get(len, 8).try_into().unwrap());
    (result, guest.get(guest.buffer(), there.min(room) as usize), there)
}

fn place(guest: &Guest, name: &[i32]) -> u64 {
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
    // Only asking how long it is.
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
    // Reading and setting at once gives the one before.
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
    let mut asked = [0; 96];
    asked[3] = 1;
    let query = |name: &[i32], room: u64| {
        let (len, asked) = (guest.place(&room.to_le_bytes()), guest.place(&asked));
        let args = [place(&guest, name), name.len() as u64, guest.buffer(), len, asked, 96];
        let result = guest.call(202, &args);
        let there = u64::from_le_bytes(guest.get(len, 8).try_into().unwrap());
        (result, guest.get(guest.buffer(), there.min(room) as usize))
    };
    let find = |nodes: &[u8], name: &str| {
        let node =
            nodes.chunks(96).find(|node| node[8..].starts_with(&[name.as_bytes(), b"\0"].concat()));
        node.map(|node| (node[4], node[0], node[3]))
    };
    // The first try is with room for eight, the second with as much as it takes.
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
