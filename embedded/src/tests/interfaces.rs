use super::super::testing::{Guest, NOWHERE, kernel};
use kernel::Errno;

const FLAGS: u64 = 0xc090_6911;
const ADDRESS: u64 = 0xc090_6921;
const NETMASK: u64 = 0xc090_6925;
const CONF: u64 = 0xc010_6926;
const MTU: u64 = 0xc090_697e;
const DATA: u64 = 0xc098_6985;

fn socket(guest: &Guest, family: u64) -> u64 {
    guest.call(394, &[family, 2, 0]).expect("a socket") as u64
}

/// Asks for a value of the interface of that name.
fn ask(guest: &Guest, fd: u64, request: u64, name: &str) -> Result<Vec<u8>, Errno> {
    let size = (request >> 16 & 0x1fff) as usize;
    let mut argument = name.as_bytes().to_vec();
    argument.resize(size, 0);
    let at = guest.place(&argument);
    guest.call(54, &[fd, request, at])?;
    let answer = guest.get(at, size);
    assert_eq!(answer[..16], argument[..16], "the name stays");
    Ok(answer[16..].to_vec())
}

#[test]
fn the_loopback_is_known_by_its_name() {
    let guest = Guest::new(&kernel());
    let fd = socket(&guest, 2);
    let says = |request| ask(&guest, fd, request, "lo0").expect("an answer");
    assert_eq!(says(FLAGS)[..4], [0x49, 0x80, 0, 0]);
    assert_eq!(says(MTU)[..4], 33_624i32.to_le_bytes());
    assert_eq!(says(ADDRESS)[..8], [16, 2, 0, 0, 127, 0, 0, 1]);
    assert_eq!(says(NETMASK)[..8], [16, 2, 0, 0, 255, 0, 0, 0]);
    let data = says(DATA);
    assert_eq!((data.len(), data[0], &data[8..10]), (136, 24, &[0x58, 0x83][..]));
    for (fd, request, name, errno) in [
        (fd, FLAGS, "lo1", Errno::ENXIO),
        (fd, ADDRESS, "", Errno::ENXIO),
        (fd, ADDRESS + 1, "lo0", Errno::EINVAL),
        (fd, ADDRESS + 2, "lo0", Errno::EINVAL),
        (fd, 0xc090_6968, "lo0", Errno::ENOTTY),
        (socket(&guest, 24), ADDRESS, "lo0", Errno::ENOTTY),
        (socket(&guest, 1), ADDRESS, "lo0", Errno::EOPNOTSUPP),
        (socket(&guest, 1), ADDRESS, "lo1", Errno::ENXIO),
    ] {
        assert_eq!(ask(&guest, fd, request, name), Err(errno), "{request:#x} {name}");
    }
    assert_eq!(guest.fails(54, &[fd, FLAGS, NOWHERE]), Errno::EFAULT);
    // A request too small for a name.
    assert_eq!(guest.fails(54, &[fd, 0xc004_6911, guest.place(b"lo0\0")]), Errno::ENXIO);
    assert_eq!(guest.fails(54, &[fd, 0x2000_6911, 0]), Errno::ENXIO);
}

#[test]
fn addresses_are_listed_as_there_is_room() {
    let guest = Guest::new(&kernel());
    let fd = socket(&guest, 2);
    let list = |room: i32, out: u64| {
        let conf = [&room.to_le_bytes()[..], &[0; 4], &out.to_le_bytes()].concat();
        let at = guest.place(&conf);
        guest.call(54, &[fd, CONF, at]).expect("a list");
        i32::from_le_bytes(guest.get(at, 4).try_into().unwrap())
    };
    assert_eq!((list(0, 0), list(-1, 0)), (3 * 144, 3 * 144));
    let out = guest.buffer();
    guest.put(out, &[7; 500]);
    for (room, len) in [(-1, 0), (0, 0), (143, 0), (144, 144), (431, 288), (500, 432)] {
        assert_eq!(list(room, out), len, "{room}");
        assert_eq!(guest.get(out + len as u64, 1), [7], "nothing behind it");
    }
    let families: Vec<u8> = (0..3).map(|at| guest.get(out + at * 144 + 17, 1)[0]).collect();
    assert_eq!(families, [18, 24, 2]);
    assert_eq!(guest.get(out + 288, 4), b"lo0\0");
}

/// Asks for a list of that kind. Returns what came, and how long all of it would be.
fn routes(guest: &Guest, family: i32, what: i32, room: u64) -> (Result<i64, Errno>, Vec<u8>) {
    let name: Vec<u8> =
        [4, 34, 0, family, what, 0].iter().flat_map(|part: &i32| part.to_le_bytes()).collect();
    let len = guest.place(&room.to_le_bytes());
    let result = guest.call(202, &[guest.place(&name), 6, guest.buffer(), len, 0, 0]);
    let there = u64::from_le_bytes(guest.get(len, 8).try_into().unwrap());
    (result, guest.get(guest.buffer(), there as usize))
}

#[test]
fn getifaddrs_finds_interface_and_addresses() {
    let guest = Guest::new(&kernel());
    let kinds = |mut bytes: &[u8]| {
        let mut kinds = Vec::new();
        while !bytes.is_empty() {
            let len = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
            assert_eq!((len % 8, bytes[2]), (0, 4));
            kinds.push((bytes[3], len));
            bytes = &bytes[len..];
        }
        kinds
    };
    let (result, all) = routes(&guest, 0, 5, 4096);
    assert_eq!(result, Ok(0));
    assert_eq!(kinds(&all), [(0x14, 168), (0xc, 56), (0xc, 120), (0xc, 64)]);
    let (_, inet) = routes(&guest, 2, 5, 4096);
    assert_eq!(kinds(&inet), [(0x14, 168), (0xc, 64)]);
    assert_eq!(inet[168 + 24 + 8..168 + 24 + 16], [16, 2, 0, 0, 127, 0, 0, 1]);
    // Messages that do not fit are missing, which the error reports.
    let (result, part) = routes(&guest, 0, 5, 230);
    assert_eq!((result, kinds(&part)), (Err(Errno::ENOMEM), vec![(0x14, 168), (0xc, 56)]));
    for (family, what, result) in [
        (0, 1, Ok(0)),
        (2, 2, Ok(0)),
        (0, 2, Err(Errno::EINVAL)),
        (0, 3, Err(Errno::EINVAL)),
        (0, 6, Err(Errno::EINVAL)),
    ] {
        assert_eq!(routes(&guest, family, what, 4096), (result, vec![]), "{family} {what}");
    }
}
