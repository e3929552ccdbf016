//! The files of the host that the kernel is given before it serves: drives, and modules to load.
//!
//! Source: rump_server(1), rump_etfs(3), NetBSD `sys/sys/disklabel.h`, `sys/sys/module.h`.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use super::load::{LoadError, symbol};

/// A file of the host under a name in the kernel, as `-d` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The file's name in the kernel, an absolute path.
    pub key: String,
    pub hostpath: PathBuf,
    pub extent: Extent,
    pub kind: DriveKind,
}

/// The part of the file that the kernel sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Bytes from an offset. A file that is shorter grows.
    Bytes { offset: u64, size: u64 },
    /// The whole file, as it is.
    Host,
    /// A partition of the disklabel in the file: `a` is 0.
    Partition(u8),
}

/// The type of the file in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveKind {
    Reg = 0,
    Blk = 1,
    Chr = 2,
}

impl Drive {
    /// Gives the file to the kernel, which has booted.
    pub fn register(&self) -> Result<(), LoadError> {
        type Register =
            unsafe extern "C" fn(*const c_char, *const c_char, c_int, u64, u64) -> c_int;
        let function = symbol("rump_pub_etfs_register_withsize")?;
        let (offset, size) = self.extent().map_err(|why| self.failed(why))?;
        let key = c_string(&self.key).map_err(|why| self.failed(why))?;
        let path = self.hostpath.to_string_lossy();
        let path = c_string(&path).map_err(|why| self.failed(why))?;
        // SAFETY: rump_etfs(3) has this type; the strings are good for the call, which copies them.
        let register: Register = unsafe { std::mem::transmute::<NonNull<c_void>, _>(function) };
        // SAFETY: as above.
        match unsafe { register(key.as_ptr(), path.as_ptr(), self.kind as c_int, offset, size) } {
            0 => Ok(()),
            error => Err(self.failed(kernel::Errno(error).to_string())),
        }
    }

    fn failed(&self, why: String) -> LoadError {
        LoadError::Setup { what: format!("drive {} of {}", self.key, self.hostpath.display()), why }
    }

    /// Returns the offset and the size in bytes. Makes the file if there is none, and makes it as long as
    /// configured.
    fn extent(&self) -> Result<(u64, u64), String> {
        let create = self.extent != Extent::Host;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(&self.hostpath)
            .map_err(|error| error.to_string())?;
        let len = file.metadata().map_err(|error| error.to_string())?.len();
        let (offset, size) = match self.extent {
            Extent::Bytes { offset, size } => (offset, size),
            Extent::Host if len == 0 => return Err("size=host, but its size is 0".into()),
            Extent::Host => (0, len),
            Extent::Partition(number) => partition(&file, number)?,
        };
        let end = offset.checked_add(size).ok_or("its end is beyond what a file can have")?;
        let is_file = file.metadata().is_ok_and(|data| data.is_file());
        if is_file && len < end {
            file.set_len(end)
                .map_err(|error| format!("cannot make it {end} bytes long: {error}"))?;
        }
        Ok((offset, size))
    }
}

/// The bytes at the start of a file in which a label may be.
const LABEL_SEARCH: u64 = 64 * 1024;
const LABEL_MAGIC: u32 = 0x8256_4557;
const LABEL_MAGIC2_AT: usize = 132;
const LABEL_COUNT_AT: usize = 138;
const LABEL_PARTITIONS_AT: usize = 148;
const LABEL_PARTITION_LEN: usize = 16;
const MAX_PARTITIONS: usize = 22;
const SECTOR: u64 = 512;

/// Returns the offset and the size in bytes of a partition of the disklabel in this file.
fn partition(file: &File, number: u8) -> Result<(u64, u64), String> {
    let mut start = Vec::new();
    file.take(LABEL_SEARCH).read_to_end(&mut start).map_err(|error| error.to_string())?;
    let table = (0..start.len())
        .step_by(4)
        .find_map(|at| label_at(&start[at..]))
        .ok_or("there is no disklabel in its first 64 KiB")?;
    table
        .get(usize::from(number))
        .copied()
        .filter(|(_, size)| *size > 0)
        .ok_or_else(|| format!("its disklabel has no partition {}", (b'a' + number) as char))
}

/// Returns the partitions of the label that starts here, if one does, in either byte order.
fn label_at(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let swapped = match u32::from_le_bytes(*bytes.first_chunk()?) {
        LABEL_MAGIC => false,
        magic if magic == LABEL_MAGIC.swap_bytes() => true,
        _ => return None,
    };
    let u32_at = |at: usize| {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if swapped { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let count = bytes.get(LABEL_COUNT_AT..)?.first_chunk().map(|&bytes| {
        usize::from(if swapped { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    })?;
    let len = LABEL_PARTITIONS_AT + count * LABEL_PARTITION_LEN;
    let sum =
        bytes.get(..len)?.chunks(2).fold([0, 0], |sum, pair| [sum[0] ^ pair[0], sum[1] ^ pair[1]]);
    if u32_at(LABEL_MAGIC2_AT)? != LABEL_MAGIC || count > MAX_PARTITIONS || sum != [0, 0] {
        return None;
    }
    let entry = |number: usize| {
        let at = LABEL_PARTITIONS_AT + number * LABEL_PARTITION_LEN;
        Some((u64::from(u32_at(at + 4)?) * SECTOR, u64::from(u32_at(at)?) * SECTOR))
    };
    (0..count).map(entry).collect()
}

/// The name of a module's file in the kernel while it is loaded.
const MODULE_KEY: &str = "/module.mod";

/// `struct modctl_load`.
#[repr(C)]
struct ModctlLoad {
    filename: *const c_char,
    flags: c_int,
    props: *const c_char,
    props_len: usize,
}

/// Loads a kernel module from a file of the host.
pub fn load_module(path: &Path) -> Result<(), LoadError> {
    type Register = unsafe extern "C" fn(*const c_char, *const c_char, c_int) -> c_int;
    type Remove = unsafe extern "C" fn(*const c_char) -> c_int;
    type Modctl = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;
    const MODCTL_LOAD: c_int = 0;
    let failed = |why: String| LoadError::Setup { what: format!("module {}", path.display()), why };
    let key = c_string(MODULE_KEY).map_err(failed)?;
    let host = c_string(&path.to_string_lossy()).map_err(failed)?;
    let (register, remove, modctl) = (
        symbol("rump_pub_etfs_register")?,
        symbol("rump_pub_etfs_remove")?,
        symbol("rump___sysimpl_modctl")?,
    );
    let mut load =
        ModctlLoad { filename: key.as_ptr(), flags: 0, props: std::ptr::null(), props_len: 0 };
    // SAFETY: the three functions have these types; the strings and `load` live to the end.
    unsafe {
        let register: Register = std::mem::transmute(register);
        let remove: Remove = std::mem::transmute(remove);
        let modctl: Modctl = std::mem::transmute(modctl);
        let error = register(key.as_ptr(), host.as_ptr(), DriveKind::Reg as c_int);
        if error != 0 {
            return Err(failed(kernel::Errno(error).to_string()));
        }
        let loaded = modctl(MODCTL_LOAD, (&raw mut load).cast());
        remove(key.as_ptr());
        if loaded == -1 { Err(failed("the kernel does not take it".into())) } else { Ok(()) }
    }
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a NUL in it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Returns an image with a label at sector 1 that has partitions a (8 sectors at 2) and c (none).
    fn labelled(swapped: bool) -> Vec<u8> {
        let u32s = |value: u32| if swapped { value.to_be_bytes() } else { value.to_le_bytes() };
        let u16s = |value: u16| if swapped { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut label = vec![0; LABEL_PARTITIONS_AT + 3 * LABEL_PARTITION_LEN];
        label[..4].copy_from_slice(&u32s(LABEL_MAGIC));
        label[LABEL_MAGIC2_AT..][..4].copy_from_slice(&u32s(LABEL_MAGIC));
        label[LABEL_COUNT_AT..][..2].copy_from_slice(&u16s(3));
        label[LABEL_PARTITIONS_AT..][..4].copy_from_slice(&u32s(8));
        label[LABEL_PARTITIONS_AT + 4..][..4].copy_from_slice(&u32s(2));
        let sum = label.chunks(2).fold([0, 0], |s, pair| [s[0] ^ pair[0], s[1] ^ pair[1]]);
        label[136..138].copy_from_slice(&sum);
        let mut image = vec![0; 512];
        image.extend(label);
        image
    }

    #[test]
    fn a_partition_is_found_by_its_label_in_either_byte_order() {
        for swapped in [false, true] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&labelled(swapped)).unwrap();
            let open = || File::open(file.path()).unwrap();
            assert_eq!(partition(&open(), 0), Ok((1024, 4096)));
            assert!(partition(&open(), 2).is_err(), "an empty partition");
            assert!(partition(&open(), 3).is_err(), "a partition the label does not have");
        }
    }

    #[test]
    fn a_label_with_a_wrong_sum_is_none() {
        let mut image = labelled(false);
        image[512 + 60] ^= 1;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&image).unwrap();
        assert!(partition(&File::open(file.path()).unwrap(), 0).is_err());
    }

    #[test]
    fn a_drive_makes_its_file_as_long_as_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let hostpath = dir.path().join("disk");
        let extent = Extent::Bytes { offset: 512, size: 4096 };
        let drive = Drive { key: "/d".into(), hostpath, extent, kind: DriveKind::Blk };
        assert_eq!(drive.extent(), Ok((512, 4096)));
        assert_eq!(std::fs::metadata(&drive.hostpath).unwrap().len(), 4608);
        let all = Drive { extent: Extent::Host, ..drive };
        assert_eq!(all.extent(), Ok((0, 4608)));
    }
}
