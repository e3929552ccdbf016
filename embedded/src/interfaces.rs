//! Network interfaces: there is only the loopback interface, and it cannot be changed.
//!
//! Programs find the interface by SIOCGIFCONF, or by the messages of `net.route.rtable` as getifaddrs(3)
//! does, and ask for the rest by name. Packets are not counted, so those counters stay at zero.
//!
//! Sources: NetBSD `sys/net/{if,rtsock,if_loop}.c`, `sys/netinet/in.c`, `sys/net/{if,if_dl,route}.h`,
//! `sys/sys/sockio.h`; netintro(4), route(4).

use super::System;
use super::abi::{i32_at, timespec, u64_at};
use super::call::{Result, SyscallContext};
use super::ioctl;
use super::sockets::{INET as AF_INET, INET6 as AF_INET6, LOCAL as AF_LOCAL};
use kernel::Errno;

const NAME: &[u8] = b"lo0";
/// The number of the interface (`if_index`).
pub(super) const INDEX: u16 = 1;
/// The interface's flags: up, running, a loopback, and capable of multicast.
const FLAGS: u16 = 0x8049;
/// `IFT_LOOP`, `DLT_NULL`
const TYPE: u8 = 24;
const LINK_TYPE: i32 = 0;
/// `LOMTU`
const MTU: u32 = 33_624;

const AF_LINK: u8 = 18;

/// An address of the interface: `struct sockaddr`s, without trailing zeros.
struct Address {
    family: u8,
    own: &'static [u8],
    netmask: &'static [u8],
    /// The destination or broadcast address; the link's own address has none.
    leads: Option<&'static [u8]>,
}

const INET: &[u8] = &[16, AF_INET, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
const INET6: &[u8] =
    &[28, AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
const LINK: &[u8] = &[11, AF_LINK, 1, 0, TYPE, 3, 0, 0, b'l', b'o', b'0'];

static ADDRESSES: [Address; 3] = [
    Address {
        family: AF_LINK,
        own: LINK,
        netmask: &[11, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255],
        leads: None,
    },
    Address {
        family: AF_INET6,
        own: INET6,
        netmask: &[
            28, AF_INET6, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
            255, 255, 255, 255, 255, 0, 0, 0, 0,
        ],
        leads: Some(INET6),
    },
    Address { family: AF_INET, own: INET, netmask: &[5, AF_INET, 0, 0, 255], leads: Some(INET) },
];

/// The sizes of `struct ifreq` and of a name in it.
const REQUEST: usize = 144;
const NAME_SIZE: usize = 16;
/// The size of `struct if_data`.
const DATA: usize = 136;

/// Returns the ioctl request with this number in the group of interfaces, whose argument is copied in and
/// out.
const fn both_ways(number: u32, size: usize) -> u32 {
    0xc000_0000 | (size as u32) << 16 | (b'i' as u32) << 8 | number
}

const SIOCGIFFLAGS: u32 = both_ways(17, REQUEST);
const SIOCGIFMETRIC: u32 = both_ways(23, REQUEST);
const SIOCGIFADDR: u32 = both_ways(33, REQUEST);
const SIOCGIFDSTADDR: u32 = both_ways(34, REQUEST);
const SIOCGIFBRDADDR: u32 = both_ways(35, REQUEST);
const SIOCGIFNETMASK: u32 = both_ways(37, REQUEST);
const SIOCGIFCONF: u32 = both_ways(38, 16);
const SIOCGIFDLT: u32 = both_ways(119, REQUEST);
const SIOCGIFMTU: u32 = both_ways(126, REQUEST);
const SIOCGIFDATA: u32 = both_ways(133, NAME_SIZE + DATA);
const SIOCGIFINDEX: u32 = both_ways(140, REQUEST);

/// Answers a request on a socket of this family; requests of other groups mean nothing here. NetBSD:
/// `doifioctl`, `ifioctl_common`, `in_control`.
pub(super) fn ioctl(
    run: &mut SyscallContext<'_, '_>,
    family: u8,
    request: u32,
    addr: u64,
) -> Result<()> {
    if request >> 8 & 0xff != u32::from(b'i') {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if request == SIOCGIFCONF {
        return list(run, addr);
    }
    let mut argument = vec![0; ioctl::size(request) as usize];
    if !argument.is_empty() {
        run.memory().copyin(addr, &mut argument)?;
    }
    let name = argument.get(..NAME_SIZE).unwrap_or_default();
    if name.split(|&byte| byte == 0).next() != Some(NAME) {
        return Err(Errno::ENXIO.into());
    }
    let value = match request {
        SIOCGIFFLAGS => FLAGS.to_le_bytes().to_vec(),
        SIOCGIFMETRIC => vec![0; 4],
        SIOCGIFMTU => MTU.to_le_bytes().to_vec(),
        SIOCGIFDLT => LINK_TYPE.to_le_bytes().to_vec(),
        SIOCGIFINDEX => i32::from(INDEX).to_le_bytes().to_vec(),
        SIOCGIFDATA => data(run.system()).to_vec(),
        SIOCGIFADDR if family == AF_INET => INET.to_vec(),
        SIOCGIFNETMASK if family == AF_INET => [&[16, AF_INET, 0, 0, 255][..], &[0; 11]].concat(),
        // The loopback interface has neither address.
        SIOCGIFDSTADDR | SIOCGIFBRDADDR if family == AF_INET => return Err(Errno::EINVAL.into()),
        _ if family == AF_LOCAL => return Err(Errno::EOPNOTSUPP.into()),
        _ => return Err(Errno::ENOTTY.into()),
    };
    argument[NAME_SIZE..NAME_SIZE + value.len()].copy_from_slice(&value);
    run.copyout(&argument, addr)
}

/// SIOCGIFCONF: copies out a `struct ifreq` for each address, as many as fit; without room, returns the
/// size of all. NetBSD: `ifconf`.
fn list(run: &mut SyscallContext<'_, '_>, addr: u64) -> Result<()> {
    let mut conf = run.copyin::<16>(addr)?;
    let (room, out) = (i32_at(&conf, 0), u64_at(&conf, 8));
    let entries: Vec<u8> = ADDRESSES
        .iter()
        .flat_map(|address| {
            let mut entry = [0; REQUEST];
            entry[..NAME.len()].copy_from_slice(NAME);
            entry[NAME_SIZE..NAME_SIZE + address.own.len()].copy_from_slice(address.own);
            entry
        })
        .collect();
    let fits = match out {
        0 => entries.len(),
        _ => entries.len().min(usize::try_from(room).unwrap_or(0) / REQUEST * REQUEST),
    };
    if out != 0 && fits > 0 {
        run.copyout(&entries[..fits], out)?;
    }
    conf[..4].copy_from_slice(&(fits as i32).to_le_bytes());
    run.copyout(&conf, addr)
}

/// Encodes `struct if_data`.
fn data(system: &System) -> [u8; DATA] {
    let mut data = [0; DATA];
    data[0] = TYPE;
    data[8..12].copy_from_slice(&MTU.to_le_bytes());
    // The interface has not changed since boot.
    data[DATA - 16..].copy_from_slice(&timespec(system.boot_time));
    data
}

/// `RTM_IFINFO`, `RTM_NEWADDR`
const INTERFACE: u8 = 0x14;
const NEW_ADDRESS: u8 = 0xc;
const VERSION: u8 = 4;

/// `RTAX_*`: the kinds of addresses behind a message.
const NETMASK: u32 = 2;
const NAMED: u32 = 4;
const OWN: u32 = 5;
const LEADS: u32 = 7;

/// Returns the messages of NET_RT_IFLIST: one for the interface, and one for each of its addresses of the
/// family, or of all families for 0. NetBSD: `sysctl_iflist`.
pub(super) fn messages(system: &System, family: u8, index: i32) -> Vec<Vec<u8>> {
    if index != 0 && index != i32::from(INDEX) {
        return Vec::new();
    }
    let flags = i32::from(FLAGS as i16).to_le_bytes();
    let head = [&flags[..], &INDEX.to_le_bytes(), &[0; 2], &data(system)].concat();
    let mut messages = vec![message(INTERFACE, &head, &[(NAMED, LINK)])];
    let meant = ADDRESSES.iter().filter(|address| family == 0 || family == address.family);
    messages.extend(meant.map(|address| {
        let mut parts = vec![(NETMASK, address.netmask), (OWN, address.own)];
        parts.extend(address.leads.map(|leads| (LEADS, leads)));
        // No flags, no metric.
        let head = [&[0; 8][..], &INDEX.to_le_bytes(), &[0; 6]].concat();
        message(NEW_ADDRESS, &head, &parts)
    }));
    messages
}

/// Encodes a message: its head, and addresses, each padded to eight bytes.
fn message(kind: u8, head: &[u8], addresses: &[(u32, &[u8])]) -> Vec<u8> {
    let which = addresses.iter().fold(0u32, |bits, (what, _)| bits | 1 << what);
    let mut bytes = [&[0, 0, VERSION, kind], &which.to_le_bytes()[..], head].concat();
    for (_, address) in addresses {
        bytes.extend_from_slice(address);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let len = (bytes.len() as u16).to_le_bytes();
    bytes[..2].copy_from_slice(&len);
    bytes
}
