use super::super::abi::mode::{EXECUTE, READ, WRITE};
use super::*;

fn user(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
    Credentials { uid, euid: uid, gid, egid: gid, groups: groups.into(), ..Credentials::default() }
}

fn walk<'p>(fs: &Fs, own: &Credentials, aim: Aim, path: &'p str) -> Result<Found<'p>, Errno> {
    let from = &fs.root();
    Walk { fs, root: None, from, credentials: own, aim, follow: false }.find(path.as_bytes())
}

fn at(fs: &Fs, path: &str) -> Arc<Inode> {
    walk(fs, &Credentials::default(), Aim::Lookup, path).unwrap().inode.unwrap()
}

#[test]
fn the_mode_says_who_may() {
    let counters = Arc::default();
    let (fs, resource_group) = (Fs::new(&counters), ResourceGroup::new(&counters));
    let (owner, mate, stranger) = (user(100, 10, &[]), user(101, 9, &[0]), user(102, 9, &[]));
    let tmp = at(&fs, "/tmp");
    let file = fs.make(&tmp, b"file", Make::File, 0o640, &owner, &resource_group).unwrap();
    // A new file gets the group of its directory.
    assert_eq!((file.stat().uid, file.stat().gid), (100, 0));
    assert_eq!(file.check(&owner, READ | WRITE), Ok(()));
    assert_eq!(file.check(&owner, EXECUTE), Err(Errno::EACCES));
    assert_eq!(file.check(&mate, READ), Ok(()));
    assert_eq!(file.check(&mate, READ | WRITE), Err(Errno::EACCES));
    assert_eq!(file.check(&stranger, READ), Err(Errno::EACCES));
    assert_eq!(file.check(&stranger, 0), Ok(()));
    assert_eq!(file.check(&user(0, 0, &[]), READ | WRITE), Ok(()));
    let refused = fs.make(&fs.root(), b"file", Make::File, 0o640, &owner, &resource_group);
    assert_eq!(refused.err(), Some(Errno::EACCES));
    // Nobody removes the files of others from a sticky directory.
    let found = |who| walk(&fs, who, Aim::Delete, "/tmp/file");
    assert_eq!(found(&stranger).err(), Some(Errno::EPERM));
    assert_eq!(fs.remove(&found(&owner).unwrap(), false), Ok(()));
    fs.make(&tmp, b"closed", Make::Directory, 0o600, &owner, &resource_group).unwrap();
    let inside = walk(&fs, &owner, Aim::Lookup, "/tmp/closed/file");
    assert_eq!(inside.err(), Some(Errno::EACCES));
}

#[test]
fn an_owner_may_change_less_than_the_superuser() {
    let counters = Arc::default();
    let (fs, resource_group) = (Fs::new(&counters), ResourceGroup::new(&counters));
    let (root, owner, stranger) = (user(0, 0, &[]), user(100, 10, &[20]), user(102, 9, &[]));
    let file = fs.make(&at(&fs, "/tmp"), b"f", Make::File, 0o644, &owner, &resource_group).unwrap();
    let mode = || file.stat().mode & 0o7777;
    assert_eq!(file.change_mode(&stranger, 0o777), Err(Errno::EPERM));
    assert_eq!(file.change_mode(&owner, 0o1644), Err(Errno::EFTYPE));
    // The file has the group of /tmp, of which the owner is no member.
    assert_eq!(file.change_mode(&owner, 0o2644), Err(Errno::EPERM));
    assert_eq!(file.change_mode(&root, 0o7644), Ok(()));
    assert_eq!(mode(), 0o7644);
    let (native, posix) = (Handover::Native, Handover::Posix);
    assert_eq!(file.change_owner(&owner, Some(102), None, native), Err(Errno::EPERM));
    assert_eq!(file.change_owner(&owner, None, Some(9), native), Err(Errno::EPERM));
    assert_eq!(file.change_owner(&stranger, None, None, native), Ok(()));
    assert_eq!(file.change_mode(&owner, 0o4644), Ok(()));
    assert_eq!(file.change_owner(&owner, None, Some(20), native), Ok(()));
    assert_eq!((file.stat().gid, mode()), (20, 0o4644));
    assert_eq!(file.change_mode(&owner, 0o6644), Ok(()));
    assert_eq!(file.change_owner(&owner, None, Some(10), native), Ok(()));
    assert_eq!(mode(), 0o4644);
    // With POSIX's chown both bits are cleared whatever IDs are given, even none; the superuser keeps them.
    assert_eq!(file.change_owner(&stranger, None, None, posix), Err(Errno::EPERM));
    assert_eq!(file.change_owner(&owner, None, None, posix), Ok(()));
    assert_eq!(mode(), 0o644);
    file.change_mode(&root, 0o6755).unwrap();
    assert_eq!(file.change_owner(&root, Some(102), Some(9), posix), Ok(()));
    assert_eq!(mode(), 0o6755);
    assert_eq!(file.change_owner(&root, Some(100), None, native), Ok(()));
    assert_eq!(mode(), 0o2755);
}

#[test]
fn flags_keep_files_as_they_are() {
    let counters = Arc::default();
    let (fs, resource_group) = (Fs::new(&counters), ResourceGroup::new(&counters));
    let (root, owner) = (user(0, 0, &[]), user(100, 10, &[]));
    let file = fs.make(&at(&fs, "/tmp"), b"f", Make::File, 0o644, &owner, &resource_group).unwrap();
    assert_eq!(file.change_flags(&user(101, 0, &[]), 0), Err(Errno::EPERM));
    assert_eq!(file.change_flags(&owner, 0x2_0000), Err(Errno::EPERM));
    // Even the superuser has to clear the flag first.
    for immutable in [0x2, 0x2_0000] {
        assert_eq!(file.change_flags(&root, immutable), Ok(()));
        assert_eq!(file.stat().flags, immutable);
        assert_eq!(file.check(&root, WRITE), Err(Errno::EPERM));
        assert_eq!(file.check(&root, READ), Ok(()));
        assert_eq!(file.change_mode(&root, 0), Err(Errno::EPERM));
        assert_eq!(file.change_owner(&root, Some(1), None, Handover::Native), Err(Errno::EPERM));
        assert_eq!(file.change_times(&root, Some(1), None, false), Err(Errno::EPERM));
        assert_eq!(file.resize(9), Err(Errno::EPERM));
        let found = walk(&fs, &root, Aim::Delete, "/tmp/f").unwrap();
        assert_eq!(fs.remove(&found, false), Err(Errno::EPERM));
        let to = walk(&fs, &root, Aim::Rename, "/tmp/g").unwrap();
        assert_eq!(fs.rename(&found, &to, &root, false), Err(Errno::EPERM));
        assert_eq!(fs.link(&file, &to, &resource_group), Err(Errno::EPERM));
        assert_eq!(file.stat().nlink, 1);
    }
    assert_eq!(file.change_flags(&root, 0x4), Ok(()));
    assert_eq!(file.check(&root, WRITE), Ok(()));
    assert_eq!(file.check_append(true), Err(Errno::EPERM));
    assert_eq!(file.check_append(false), Ok(()));
    assert_eq!(file.change_flags(&root, 0), Ok(()));
    // An append-only directory takes new names and loses none.
    let dir = at(&fs, "/tmp");
    dir.change_flags(&root, 0x4).unwrap();
    assert!(fs.make(&dir, b"g", Make::File, 0o644, &root, &resource_group).is_ok());
    let found = walk(&fs, &root, Aim::Delete, "/tmp/f").unwrap();
    assert_eq!(fs.remove(&found, false), Err(Errno::EPERM));
    let to = walk(&fs, &root, Aim::Rename, "/f").unwrap();
    assert_eq!(fs.rename(&found, &to, &root, false), Err(Errno::EPERM));
}

#[test]
fn names_are_counted_up_to_a_bound_and_paid_for() {
    let counters = Arc::default();
    let (fs, resource_group) = (Fs::new(&counters), ResourceGroup::new(&counters));
    let root = Credentials::default();
    let tmp = at(&fs, "/tmp");
    let file = fs.make(&tmp, b"f", Make::File, 0o644, &root, &resource_group).unwrap();
    let names: Vec<String> = (1..LINK_MAX).map(|n| format!("/tmp/{n}")).collect();
    let link = |name: &str| {
        let to = walk(&fs, &root, Aim::Create, name).unwrap();
        fs.link(&file, &to, &resource_group)
    };
    for name in &names {
        link(name).unwrap();
    }
    assert_eq!(file.stat().nlink, LINK_MAX);
    assert_eq!(link("/tmp/more"), Err(Errno::EMLINK));
    assert_eq!(counters.bytes.get(), NAME_COST * names.len() as u64);
    assert_eq!(
        resource_group.free_bytes(),
        counters.limits.bytes_per_family - counters.bytes.get()
    );
    for name in names.iter().map(String::as_str).chain(["/tmp/f"]) {
        fs.remove(&walk(&fs, &root, Aim::Delete, name).unwrap(), false).unwrap();
    }
    assert_eq!((file.stat().nlink, counters.bytes.get()), (0, 0));
    assert_eq!(link("/tmp/again"), Err(Errno::ENOENT));
    assert_eq!((file.stat().nlink, counters.bytes.get()), (0, 0));
    // Fill the directory with as many directories as it can hold.
    for n in 2..LINK_MAX {
        let name = n.to_string();
        fs.make(&tmp, name.as_bytes(), Make::Directory, 0o755, &root, &resource_group).unwrap();
    }
    let more = fs.make(&tmp, b"more", Make::Directory, 0o755, &root, &resource_group);
    assert_eq!(more.err(), Some(Errno::EMLINK));
    assert!(fs.make(&tmp, b"more", Make::File, 0o755, &root, &resource_group).is_ok());
}

/// The result of a lookup, kept apart from the path.
type Kept = (Arc<Inode>, Vec<u8>, Option<Arc<Inode>>);

fn again(kept: &Kept) -> Found<'_> {
    let last = Last::Name((&kept.1[..]).into());
    Found { dir: kept.0.clone(), last, inode: kept.2.clone(), slash: false }
}

#[test]
fn renames_links_and_removals_at_once_neither_hang_nor_lose_anything() {
    let counters = Arc::default();
    let (fs, resource_group) = (Fs::new(&counters), ResourceGroup::new(&counters));
    let rootly = Credentials::default();
    let before = counters.inodes.get();
    let at = |path: &str| {
        let found = walk(&fs, &rootly, Aim::Create, path).ok()?;
        let name = found.entry().ok()?.1.to_vec();
        Some((found.dir, name, found.inode))
    };
    let names = ["/tmp/a", "/tmp/b", "/tmp/a/x", "/tmp/b/x", "/tmp/a/x/y", "/tmp/b/x/y"];
    std::thread::scope(|scope| {
        for who in 0..4usize {
            let (fs, rootly, resource_group, at) = (&fs, &rootly, &resource_group, &at);
            scope.spawn(move || {
                let mut seed = who + 1;
                let mut any = |below: usize| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 33) % below
                };
                for _ in 0..5_000 {
                    let picked = [names[any(names.len())], names[any(names.len())]];
                    let [Some(one), Some(two)] = picked.map(at) else { continue };
                    let one_found = again(&one);
                    let make =
                        |what| drop(fs.make(&one.0, &one.1, what, 0o755, rootly, resource_group));
                    match any(8) {
                        0 | 1 => make(Make::Directory),
                        2 => make(Make::File),
                        3 => {
                            if let Some(inode) = &two.2 {
                                let _ = fs.link(inode, &one_found, resource_group);
                            }
                        }
                        4 => {
                            let _ = fs.remove(&one_found, true);
                        }
                        5 => {
                            let _ = fs.remove(&one_found, false);
                        }
                        _ => {
                            let _ = fs.rename(&one_found, &again(&two), rootly, any(2) == 0);
                        }
                    }
                }
            });
        }
    });
    // The remaining tree is consistent: it can be removed from below, and every name was counted.
    let tmp = at("/tmp").unwrap().2.unwrap();
    let mut names = std::collections::HashMap::new();
    clear(&fs, &tmp, &mut names);
    for (links, found) in names.values() {
        assert_eq!(links, found);
    }
    assert_eq!(counters.inodes.get(), before);
    assert_eq!(counters.bytes.get(), 0);
    assert_eq!(tmp.stat().nlink, 2);
}

/// Empties a directory. Records the link count of each file, and the links found.
fn clear(fs: &Fs, dir: &Arc<Inode>, names: &mut std::collections::HashMap<u64, (u32, u32)>) {
    let mut entries = Vec::new();
    let listed = dir.list(fs, 2 + 1, |entry| {
        entries.push(entry.name.to_vec());
        true
    });
    // An empty directory that never had an entry does not have such a place.
    assert!(listed.is_ok() || entries.is_empty());
    for name in entries {
        let inode = dir.lookup(&name).unwrap().unwrap();
        let found = (dir.clone(), name, Some(inode.clone()));
        if inode.is_directory() {
            clear(fs, &inode, names);
            assert!(Arc::ptr_eq(&inode.parent(fs).unwrap(), dir));
            assert_eq!(inode.stat().nlink, 2);
        } else {
            names.entry(inode.number()).or_insert((inode.stat().nlink, 0)).1 += 1;
        }
        fs.remove(&again(&found), inode.is_directory()).unwrap();
    }
}
