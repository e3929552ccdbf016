//! The exported symbols. Each checks what C passes and calls safe code.
//!
//! The functions return 0 or one of NetBSD's errno values: the kernel expects these on any host.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::slice;

use super::{pages, serve};
use crate::librump::current::{self, memory_of};
use crate::librump::{self, OwnerId, Upcalls, caught, cpus, faults, upcalls};
use crate::output;
use crate::server::MAX_ASK;
use kernel::{CopyError, Errno, Identity, UserMemory};

/// Initializes the hypercalls; librump calls this first. Calls librumpuser's function, too, because
/// librumpuser keeps the upcalls for itself.
///
/// # Safety
///
/// `upcalls` points to the upcalls of that version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_init(version: c_int, hyp: *const Upcalls) -> c_int {
    output::queue_lines();
    output::open_standard_files();
    type Init = unsafe extern "C" fn(c_int, *const Upcalls) -> c_int;
    caught("rumpuser_init", Errno::ENXIO.0, || {
        let Some(init) = next!(librump::next_symbol, c"rumpuser_init" as Init) else {
            output::say("rumpring: there is no librumpuser behind librump");
            output::flush();
            return Errno::ENXIO.0;
        };
        if version != upcalls::VERSION {
            output::say(format_args!(
                "rumpring: librump speaks version {version} of rumpuser, not 17"
            ));
            output::flush();
            return Errno::EPROTONOSUPPORT.0;
        }
        // SAFETY: the caller's promise.
        let wrapped = upcalls::intercept(unsafe { &*hyp });
        // SAFETY: librumpuser copies what it is given.
        unsafe { init(version, &wrapped) }
    })
}

/// Answers the kernel's questions about the host. If the user has not set the number of CPUs, this
/// program does.
///
/// # Safety
///
/// `name` is a string of C; `buf` is valid for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_getparam(
    name: *const c_char,
    buf: *mut c_void,
    len: usize,
) -> c_int {
    type Getparam = unsafe extern "C" fn(*const c_char, *mut c_void, usize) -> c_int;
    caught("rumpuser_getparam", Errno::EIO.0, || {
        // SAFETY: the caller's promise.
        let is_ncpu = unsafe { CStr::from_ptr(name) } == NCPU;
        if is_ncpu && std::env::var_os("RUMP_NCPU").is_none() {
            let count = CString::new(serve::cpus().to_string()).expect("a number has no NUL");
            let bytes = count.as_bytes_with_nul();
            if bytes.len() > len {
                return Errno::E2BIG.0;
            }
            // SAFETY: the caller's promise; the bytes fit.
            unsafe { buf.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        } else {
            let Some(next) = next!(librump::next_symbol, c"rumpuser_getparam" as Getparam) else {
                return Errno::ENOENT.0;
            };
            // SAFETY: the caller's promise.
            let error = unsafe { next(name, buf, len) };
            if error != 0 || !is_ncpu {
                return error;
            }
        }
        // SAFETY: a string of C has been written there.
        let count = unsafe { CStr::from_ptr(buf.cast()) }.to_string_lossy();
        cpus::set_count(count.parse().unwrap_or(1));
        0
    })
}

/// The kernel's question for the number of its CPUs (`RUMPUSER_PARAM_NCPU`).
const NCPU: &CStr = c"_RUMPUSER_NCPU";

/// Waits, outside of the kernel, for a condition: most often for a CPU. A thread that has only tried to
/// get a CPU goes back to where it did.
///
/// Nothing here panics, and nothing needs a drop.
///
/// # Safety
///
/// `cv` and `mutex` are a condition variable and a mutex of the kernel, and the thread holds the mutex,
/// as in librumpuser.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_cv_wait_nowrap(cv: *mut c_void, mutex: *mut c_void) {
    type Wait = unsafe extern "C" fn(*mut c_void, *mut c_void);
    type Exit = unsafe extern "C" fn(*mut c_void);
    let wait = next!(librump::next_symbol, c"rumpuser_cv_wait_nowrap" as Wait);
    let exit = next!(librump::next_symbol, c"rumpuser_mutex_exit" as Exit);
    let (Some(wait), Some(exit)) = (wait, exit) else {
        output::say("rumpring: librumpuser has nothing to wait with");
        output::flush();
        std::process::abort();
    };
    match cpus::stop_trying() {
        // SAFETY: the thread has the mutex, and nothing else: it is in a call that takes a CPU, and
        // `cpus` says what such a call may leave behind.
        Some(way_out) => unsafe {
            exit(mutex);
            way_out.take();
        },
        // SAFETY: the caller's promise.
        None => unsafe { wait(cv, mutex) },
    }
}

/// Allocates memory for the kernel: a page comes from [`pages`], all else from librumpuser.
///
/// # Safety
///
/// `memory` is valid for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_malloc(
    len: usize,
    alignment: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    type Malloc = unsafe extern "C" fn(usize, c_int, *mut *mut c_void) -> c_int;
    let page = || usize::try_from(alignment).ok().and_then(|align| pages::take(len, align));
    if let Some(page) = caught("rumpuser_malloc", None, page) {
        // SAFETY: the caller's promise.
        unsafe { memory.write(page.as_ptr()) };
        return 0;
    }
    match next!(librump::next_symbol, c"rumpuser_malloc" as Malloc) {
        // SAFETY: the caller's promise.
        Some(next) => unsafe { next(len, alignment, memory) },
        None => Errno::ENOMEM.0,
    }
}

/// Frees what [`rumpuser_malloc`] allocated.
///
/// # Safety
///
/// `memory` was allocated by [`rumpuser_malloc`], and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_free(memory: *mut c_void, len: usize) {
    type Free = unsafe extern "C" fn(*mut c_void, usize);
    if caught("rumpuser_free", true, || pages::give_back(memory)) {
        return;
    }
    if let Some(next) = next!(librump::next_symbol, c"rumpuser_free" as Free) {
        // SAFETY: the caller's promise; the memory came from librumpuser.
        unsafe { next(memory, len) };
    }
}

/// Starts the server.
///
/// # Safety
///
/// All four are strings of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_sp_init(
    url: *const c_char,
    ostype: *const c_char,
    osrelease: *const c_char,
    machine: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise; the text is copied.
    let text = |c| unsafe { CStr::from_ptr(c) }.to_string_lossy().into_owned();
    caught("rumpuser_sp_init", Errno::EIO.0, || {
        let identity =
            Identity { ostype: text(ostype), osrelease: text(osrelease), machine: text(machine) };
        result(serve::serve(&text(url), identity))
    })
}

/// Handles the halt of the kernel: everything owed to the client that halted it is sent, then this
/// returns. The thread gives up its CPU meanwhile, because the server's own thread may be waiting for
/// one.
///
/// # Safety
///
/// The thread has a CPU of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_sp_fini(_client: *mut c_void) {
    // SAFETY: the caller's promise.
    caught("rumpuser_sp_fini", (), || unsafe { upcalls::without_cpu(serve::halted) });
}

/// Copies `len` bytes from the client's `from` to `to`.
///
/// # Safety
///
/// `to` is valid for `len` bytes; the thread has a CPU of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_sp_copyin(
    client: *mut c_void,
    from: *const c_void,
    to: *mut c_void,
    len: usize,
) -> c_int {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    let buf = unsafe { slice::from_raw_parts_mut(to.cast(), len) };
    // A kernel asks for as much as it likes; the bound is the server's own.
    let fetch = |memory: &mut dyn UserMemory| {
        let mut from = from as u64;
        for piece in buf.chunks_mut(MAX_ASK) {
            memory.copyin(from, piece)?;
            from = from.wrapping_add(MAX_ASK as u64);
        }
        if let Some((number, is_first)) = current::copies_in() {
            faults::check_copied_in(number, is_first, buf);
        }
        Ok(())
    };
    let owner = OwnerId::from_kernel(client);
    caught("rumpuser_sp_copyin", FAULT.0, || {
        if memory_of(owner, |memory| memory.is_here(from as u64, len)) == Some(true) {
            return result(memory_of(owner, fetch).map_or(Err(FAULT), translate));
        }
        // SAFETY: the caller has a CPU.
        unsafe { waiting(owner, fetch) }
    })
}

/// Copies a string of at most `*len` bytes to `to`, and sets `*len` to its length with its NUL.
///
/// # Safety
///
/// `to` is valid for `*len` bytes; the thread has a CPU of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_sp_copyinstr(
    client: *mut c_void,
    from: *const c_void,
    to: *mut c_void,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let (buf, len) = unsafe { (slice::from_raw_parts_mut(to.cast::<u8>(), *len), &mut *len) };
    let fetch = |memory: &mut dyn UserMemory| {
        let end = memory.copyinstr(from as u64, buf)?;
        buf[end] = 0;
        *len = end + 1;
        Ok(())
    };
    let owner = OwnerId::from_kernel(client);
    // SAFETY: the caller has a CPU.
    caught("rumpuser_sp_copyinstr", FAULT.0, || unsafe { waiting(owner, fetch) })
}

/// Copies `len` bytes to the client's `to`.
///
/// # Safety
///
/// `from` is valid for `len` bytes; the thread has a CPU of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_sp_copyout(
    client: *mut c_void,
    from: *const c_void,
    to: *mut c_void,
    len: usize,
) -> c_int {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    let data = unsafe { slice::from_raw_parts(from.cast(), len) };
    let owner = OwnerId::from_kernel(client);
    // SAFETY: the caller has a CPU.
    caught("rumpuser_sp_copyout", FAULT.0, || unsafe {
        putting(owner, |memory| memory.copyout(data, to as u64))
    })
}

/// Copies a string of `*len` bytes to the client's `to`.
///
/// # Safety
///
/// `from` is valid for `*len` bytes; the thread has a CPU of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_sp_copyoutstr(
    client: *mut c_void,
    from: *const c_void,
    to: *mut c_void,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let data = unsafe { slice::from_raw_parts(from.cast(), *len) };
    let owner = OwnerId::from_kernel(client);
    // SAFETY: the caller has a CPU.
    caught("rumpuser_sp_copyoutstr", FAULT.0, || unsafe {
        putting(owner, |memory| memory.copyoutstr(data, to as u64))
    })
}

/// Has the client map memory, and stores its address in `addr`.
///
/// # Safety
///
/// `addr` is valid for a pointer; the thread has a CPU of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_sp_anonmmap(
    client: *mut c_void,
    len: usize,
    addr: *mut *mut c_void,
) -> c_int {
    let map = |memory: &mut dyn UserMemory| {
        let mapped = memory.anonmmap(len as u64)?;
        // SAFETY: the caller's promise.
        unsafe { *addr = mapped as *mut c_void };
        Ok(())
    };
    let owner = OwnerId::from_kernel(client);
    // SAFETY: the caller has a CPU.
    caught("rumpuser_sp_anonmmap", FAULT.0, || unsafe { waiting(owner, map) })
}

/// Delivers a signal to the client. The kernel may name a client long after the client has gone; the
/// signal then reaches nobody.
#[unsafe(no_mangle)]
pub extern "C" fn rumpuser_sp_raise(client: *mut c_void, signo: c_int) -> c_int {
    let owner = OwnerId::from_kernel(client);
    caught("rumpuser_sp_raise", (), || librump::raise(owner, signo));
    0
}

/// Ignores a signal for one of the kernel's own processes. librumpuser would raise it in the program, and
/// so end the program: any client can have init sent one (`F_SETOWN`). No process here is meant by such a
/// signal.
#[unsafe(no_mangle)]
pub extern "C" fn rumpuser_kill(_pid: i64, _signo: c_int) -> c_int {
    0
}

/// Makes a copy that waits for the client. Meanwhile, others have the CPU.
///
/// # Safety
///
/// The thread has a CPU of the kernel.
unsafe fn waiting(
    owner: OwnerId,
    copy: impl FnOnce(&mut dyn UserMemory) -> Result<(), CopyError>,
) -> c_int {
    // SAFETY: the caller's promise.
    result(unsafe { upcalls::without_cpu(|| memory_of(owner, copy)) }.map_or(Err(FAULT), translate))
}

/// Makes a copy that goes into what is sent with the response. It waits only if that is full.
///
/// # Safety
///
/// The thread has a CPU of the kernel.
unsafe fn putting(
    owner: OwnerId,
    copy: impl FnOnce(&mut dyn UserMemory) -> Result<(), CopyError>,
) -> c_int {
    if memory_of(owner, |memory| memory.room()) == Some(0) {
        // The wait is without the CPU, because a client that does not read would keep the CPU.
        // SAFETY: the caller's promise.
        let error = unsafe { waiting(owner, |memory| memory.wait_for_room()) };
        if error != 0 {
            return error;
        }
    }
    // The copy does not wait, even if other calls of the client have taken the room.
    result(memory_of(owner, copy).map_or(Err(FAULT), translate))
}

/// The error of a copy outside of any call, of a copy of another client's memory than the call's, or of
/// one that went wrong in any way.
const FAULT: Errno = Errno::EFAULT;

fn translate(copied: Result<(), CopyError>) -> Result<(), Errno> {
    copied.map_err(|error| match error {
        CopyError::NoMemory => Errno::ENOMEM,
        CopyError::TooLong => Errno::ENAMETOOLONG,
        CopyError::Fault | CopyError::Asked => FAULT,
    })
}

fn result(result: Result<(), Errno>) -> c_int {
    result.map_or_else(|errno| errno.0, |()| 0)
}
