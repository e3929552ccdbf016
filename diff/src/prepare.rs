//! Prepares a server before the first sequence, and cleans up after the last.

use std::time::{SystemTime, UNIX_EPOCH};

use embedded::by_name;
use rumpsp::url::Url;

use crate::side::{Broken, Side};
use crate::tidy;

/// `MNT_FORCE` of `sys/fstypes.h`.
const FORCE: u64 = 0x8_0000;

/// Connects to two servers, and makes them ready for sequences in directories of the same name.
pub fn sides(urls: &[Url; 2]) -> Result<[Side; 2], Broken> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    let work = format!("/diff-{}-{:x}", std::process::id(), now as u64 & 0xff_ffff);
    let sides = [Side::new(&urls[0], &work)?, Side::new(&urls[1], &work)?];
    for side in &sides {
        mount(side);
        name(side);
        side.make_room()?;
    }
    Ok(sides)
}

/// Mounts a tmpfs for the sequences, where the server can: a rump kernel's root lacks links and more.
///
/// Source: NetBSD `sys/fs/tmpfs/tmpfs_args.h`.
fn mount(side: &Side) {
    let Some(mount) = by_name("mount") else { return };
    let space = side.control().space();
    // The arguments: version; no limits; owner root, mode 0755.
    let args = [1, 0, 0, 0, 0o755].map(u64::to_le_bytes).concat();
    let (Ok(kind), Ok(path), Ok(args)) =
        (space.buffer_str("tmpfs"), space.buffer_str(side.work()), space.buffer_from(&args))
    else {
        return;
    };
    let args = [kind.addr(), path.addr(), 0, args.addr(), args.len() as u64];
    let _ = side.control().call(mount.number, &args);
}

/// Sets the same host name, `kern.hostname`, on both servers: until it is set, each has its own.
fn name(side: &Side) {
    let space = side.control().space();
    let node = [1, 10].map(i32::to_le_bytes).concat();
    let (Ok(node), Ok(name)) = (space.buffer_from(&node), space.buffer_from(b"differ")) else {
        return;
    };
    let args = [node.addr(), 2, 0, 0, name.addr(), name.len() as u64];
    if let Some(sysctl) = by_name("__sysctl") {
        let _ = side.control().call(sysctl.number, &args);
    }
}

/// Removes everything left of all sequences.
pub fn clean(side: &Side) {
    if let (Some(unmount), Ok(path)) =
        (by_name("unmount"), side.control().space().buffer_str(side.work()))
    {
        let _ = side.control().call(unmount.number, &[path.addr(), FORCE]);
    }
    tidy::remove_all(side.control(), side.work());
}
