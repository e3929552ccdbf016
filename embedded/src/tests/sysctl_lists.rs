use super::super::testing::{Guest, kernel};
use super::sysctl::{get, place, word};
use kernel::Errno;

/// Reads a list of structures of `size` bytes. Returns it, and how much there would be.
fn structures(
    guest: &Guest,
    name: &[i32],
    (size, count): (i32, i32),
    room: u64,
) -> (Result<i64, Errno>, Vec<Vec<u8>>, u64) {
    let name = [name, &[size, count]].concat();
    let len = guest.place(&room.to_le_bytes());
    guest.put(guest.buffer(), &vec![0; room as usize]);
    let args = [place(guest, &name), name.len() as u64, guest.buffer(), len, 0, 0];
    let result = guest.call(202, &args);
    let there = u64::from_le_bytes(guest.get(len, 8).try_into().unwrap());
    let bytes = guest.get(guest.buffer(), there.min(room / size as u64 * size as u64) as usize);
    (result, bytes.chunks_exact(size as usize).map(<[u8]>::to_vec).collect(), there)
}

#[test]
fn open_files_are_listed_by_file_and_by_process() {
    let kernel = kernel();
    let mut guest = Guest::new(&kernel);
    let file = guest.call(5, &[guest.string("/tmp/f"), 0x40_0202, 0o644]).unwrap() as i32;
    guest.write(file as u64, b"12345").unwrap();
    guest.pipe();
    guest.call(344, &[]).unwrap();
    guest.call(394, &[2, 2, 0]).unwrap();
    let child = guest.fork();
    let idle = Guest::new(&kernel);
    let pid = guest.process.pid();
    // Kinds of the console, a file, a pipe's ends, a kqueue, a socket.
    let kinds = |list: &[Vec<u8>]| list.iter().map(|one| word(one, 16)).collect::<Vec<_>>();
    let (result, own, there) = structures(&guest, &[1, 77, 2, pid], (120, 1000), 4800);
    assert_eq!((result, there), (Ok(0), 8 * 120));
    assert_eq!(kinds(&own), [5, 5, 5, 1, 3, 3, 4, 2]);
    let one = &own[3];
    assert_eq!((word(one, 104), word(one, 108), word(one, 112)), (pid, file, 1));
    // Two descriptors, including the child's; five bytes, of a regular file.
    assert_eq!((word(one, 20), word(one, 56), word(one, 80), word(one, 88)), (2, 5, 5, 1));
    assert_eq!(word(one, 8), 3);
    let all = structures(&guest, &[1, 77, 2, -1], (120, 1000), 9600).1;
    let of = |pid| all.iter().filter(|one| word(one, 104) == pid).count();
    // A child has no kqueue, and the third process has not used its descriptors.
    assert_eq!(
        [pid, child.process.pid(), idle.process.pid()].map(of),
        [8, 7, 3],
        "{} in all",
        all.len()
    );
    let files = structures(&guest, &[1, 77, 1, 0], (120, 1000), 9600).1;
    assert_eq!(kinds(&files), [5, 1, 3, 3, 4, 2, 5]);
    let used = kernel.usage();
    assert_eq!(structures(&guest, &[1, 77, 1, 0], (120, 1000), 9600).0, Ok(0));
    assert_eq!(kernel.usage(), used, "looking leaves nothing");
    // A part of each, in small steps, as many as were asked for.
    guest.room = 300;
    let (result, some, there) = structures(&guest, &[1, 77, 2, pid], (24, 5), 4800);
    assert_eq!((result, kinds(&some[..5]), there), (Ok(0), vec![5, 5, 5, 1, 3], 8 * 24));
    assert!(some[5..].iter().flatten().all(|&byte| byte == 0));
    assert_eq!(structures(&guest, &[1, 77, 2, pid], (120, 9), 200).0, Err(Errno::ENOMEM));
    for (op, arg, size, count) in
        [(1, 1, 120, 9), (2, -2, 120, 9), (2, -1, 0, 9), (2, -1, 120, -1), (3, 0, 120, 9)]
    {
        let (name, len) = (place(&guest, &[1, 77, op, arg, size, count]), guest.place(&[0; 8]));
        assert_eq!(guest.fails(202, &[name, 6, 0, len, 0, 0]), Errno::EINVAL, "{op} {arg}");
    }
    // Entries of a size larger than any list.
    let (len, endless) = (guest.place(&[9, 0, 0, 0, 0, 0, 0, 0]), [1, 77, 2, pid, -1, 5]);
    let args = [place(&guest, &endless), 6, guest.buffer(), len, 0, 0];
    assert_eq!(guest.fails(202, &args), Errno::ENOMEM);
    assert_eq!(guest.get(len, 8), (-8i64).to_le_bytes());
    let len = guest.place(&[0; 8]);
    guest.call(202, &[place(&guest, &[1, 77, 2, pid, 120, 0]), 6, 0, len, 0, 0]).unwrap();
    assert_eq!(guest.get(len, 8), (18 * 120u64).to_le_bytes());
}

#[test]
fn large_pipes_and_chosen_ports_are_told() {
    let guest = Guest::new(&kernel());
    let number = |name: &[i32]| word(&get(&guest, name, 4).1, 0);
    assert_eq!((number(&[1, 56, 3]), number(&[1, 56, 4])), (32, 0));
    let (reader, writer) = guest.pipe();
    guest.put(guest.buffer(), &[1; 40_000]);
    guest.call(4, &[writer, guest.buffer(), 40_000]).unwrap();
    assert_eq!(number(&[1, 56, 4]), 1);
    guest.close(reader).unwrap();
    guest.close(writer).unwrap();
    assert_eq!(number(&[1, 56, 4]), 0);
    assert_eq!([1, 10, 11].map(|at| number(&[4, 2, 0, at])), [0, 49_152, 65_535]);
    assert_eq!(get(&guest, &[3, 0, 1024 + 12], 20).1, b"tmpfs\0");
}

#[test]
fn sockets_are_listed_by_kind() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let made = |family, number: u64| {
        let lists = [(&[4, 2, 6][..], 4), (&[4, 2, 17], 5), (&[4, 24, 6], 3), (&[4, 1, 1], 0)];
        let (name, at) = lists[number as usize];
        let name = [name, &[1024 + 5 + at, 0, 0]].concat();
        let (result, list, _) = structures(&guest, &name, (640, 100), 8000);
        assert_eq!(result, Ok(0));
        assert!(list.iter().all(|one| word(one, 24) == family), "all of family {family}");
        list
    };
    let listener = guest.call(394, &[2, 1, 0]).unwrap() as u64;
    let name = guest.place(&[16, 2, 0x27, 0x10, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    guest.call(104, &[listener, name, 16]).unwrap();
    guest.call(106, &[listener, 1]).unwrap();
    let client = guest.call(394, &[2, 1, 0]).unwrap() as u64;
    guest.call(98, &[client, name, 16]).unwrap();
    guest.write(client, b"abc").unwrap();
    let states = |list: &[Vec<u8>]| list.iter().map(|one| word(one, 48)).collect::<Vec<_>>();
    // Not accepted yet, with bytes waiting there; connected; listening.
    let tcp = made(2, 0);
    assert_eq!(states(&tcp), [4, 4, 1]);
    assert_eq!([0, 1, 2].map(|at| word(&tcp[at], 56)), [3, 0, 0]);
    assert_eq!(tcp[2][72..80], [16, 2, 0x27, 0x10, 127, 0, 0, 1]);
    assert_eq!((tcp[2][336], &tcp[1][336..344]), (0, &tcp[0][72..80]));
    assert_eq!(tcp[1][72..80], tcp[0][336..344]);
    let server = guest.call(30, &[listener, 0, 0]).unwrap() as u64;
    guest.call(134, &[client, 1]).unwrap();
    assert_eq!(states(&made(2, 0)), [5, 9, 1]);
    guest.close(server).unwrap();
    assert_eq!(states(&made(2, 0)).last(), Some(&1));
    assert!(made(2, 1).is_empty() && made(24, 2).is_empty());
    guest.call(135, &[1, 1, 0, guest.buffer()]).unwrap();
    let local = made(1, 3);
    assert_eq!(local.len(), 2);
    assert_eq!(
        (word(&local[0], 616), word(&local[1], 616)),
        (word(&local[1], 0), word(&local[0], 0))
    );
    assert_eq!(local[0][72..74], [2, 1]);
    let bad = [4, 2, 6, 1024 + 9, 0, 0];
    assert_eq!(structures(&guest, &bad, (120, 9), 8000).0, Err(Errno::EINVAL));
    assert_eq!(get(&guest, &bad[..5], 8).0, Err(Errno::EINVAL));
}
