//! Finding, loading and booting the rump kernel.
//!
//! librumpuser, librump and the sysproxy component come first, then the components asked for, named as
//! the linker names libraries. Components need each other. So they are tried in any order, again and
//! again, until all are loaded or none of the rest can be.
//!
//! Source: rump_server(1), NetBSD `usr.bin/rump_allserver/rump_allserver.c`, dlopen(3).

use std::ffi::{CStr, CString, OsString, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The libraries that every server needs, in this order.
const BASE: [&str; 3] = ["rumpuser", "rump", "rumpkern_sysproxy"];

/// The reason why there is no rump kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Libraries that would not load, and the loader's message about the last.
    #[error(
        "cannot load {}: {loader}; say where rump's libraries are with --rump-prefix or RUMP_PREFIX",
        names.join(", ")
    )]
    Libraries { names: Vec<String>, loader: String },
    /// The libraries lack a function or a variable.
    #[error("the rump kernel's libraries have no {0}")]
    Symbol(&'static str),
    /// The kernel did not boot.
    #[error("the rump kernel did not start: rump_init returned {0}")]
    Init(c_int),
    /// The kernel booted and refused to serve.
    #[error("the rump kernel does not serve: {0}")]
    Serve(kernel::Errno),
    /// A drive or a module could not be given to the kernel.
    #[error("{what}: {why}")]
    Setup { what: String, why: String },
}

/// Loads the kernel and these components. `prefix` is the directory where rump was installed; without a
/// prefix, the loader's own path is searched.
pub fn load(prefix: Option<&Path>, components: &[String]) -> Result<(), LoadError> {
    #[cfg(target_env = "gnu")]
    bound_arenas();
    for name in BASE {
        load_all(prefix, vec![name.to_string()])?;
    }
    load_all(prefix, components.to_vec())
}

/// Lets the C library keep as many heaps as there are CPUs, unless the user has set a number. By default,
/// it makes eight for each CPU, and memory that one thread of the kernel frees is not available to
/// another: memory that is free and not given back grows for hours.
#[cfg(target_env = "gnu")]
fn bound_arenas() {
    if ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    // SAFETY: mallopt(3) takes its own lock. Its result does not matter, because this is only a wish.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, c_int::try_from(cpus).unwrap_or(c_int::MAX)) };
}

/// Loads libraries in any order, until all are loaded or none of the rest can be.
fn load_all(prefix: Option<&Path>, mut names: Vec<String>) -> Result<(), LoadError> {
    while !names.is_empty() {
        let before = names.len();
        let mut loader = String::new();
        names.retain(|name| match open(prefix, name) {
            Ok(()) => false,
            Err(words) => {
                loader = words;
                true
            }
        });
        if names.len() == before {
            return Err(LoadError::Libraries { names, loader });
        }
    }
    Ok(())
}

/// Opens a library for good, under the first of its names that works.
fn open(prefix: Option<&Path>, name: &str) -> Result<(), String> {
    let mut words = String::new();
    for path in candidates(prefix, name) {
        let Ok(path) = CString::new(path.into_os_string().into_vec()) else {
            return Err(format!("{name:?} has a NUL in it"));
        };
        // SAFETY: the path is a string of C. The constructors of rump's libraries only register
        // themselves; the user names the libraries.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL) };
        if !handle.is_null() {
            return Ok(());
        }
        // The first name is the likeliest, so its error is the one to report.
        if words.is_empty() {
            words = loader_words();
        }
    }
    Err(words)
}

/// Returns the paths to try: `-lrumpvfs` is `librumpvfs.so` under the prefix, or where the loader finds
/// it. A path stands for itself.
fn candidates(prefix: Option<&Path>, name: &str) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![name.into()];
    }
    let file = format!("lib{name}.so");
    let mut paths = Vec::new();
    if let Some(prefix) = prefix {
        paths.push(prefix.join("lib").join(&file));
        paths.push(prefix.join("lib").join(format!("{file}.0")));
    }
    paths.extend([file.clone().into(), format!("{file}.0").into(), name.into()]);
    paths
}

fn loader_words() -> String {
    // SAFETY: dlerror(3) returns null or a string that is valid until its next call on this thread.
    let words = unsafe { libc::dlerror() };
    if words.is_null() {
        return "no reason given".to_string();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}

/// Returns a function or a variable of the loaded libraries.
pub fn symbol(name: &'static str) -> Result<NonNull<c_void>, LoadError> {
    let c_name = CString::new(name).expect("a name in this source");
    // SAFETY: `c_name` is a string of C; the pseudo-handle is dlsym(3)'s own.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c_name.as_ptr()) };
    NonNull::new(found).ok_or(LoadError::Symbol(name))
}

/// Returns librumpuser's function of a name that this program or library exports itself.
pub fn next_symbol(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: `name` is a string of C; the pseudo-handle is dlsym(3)'s own.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    NonNull::new(next).or_else(|| in_librumpuser(name))
}

/// Finds librumpuser's function by the library's name, because the library may have been loaded after
/// this code.
fn in_librumpuser(name: &CStr) -> Option<NonNull<c_void>> {
    in_library(&[c"librumpuser.so.0", c"librumpuser.so"], name)
}

/// Returns the kernel's function or variable of a name that this program or library may export itself.
pub fn in_kernel(name: &CStr) -> Option<NonNull<c_void>> {
    in_library(&[c"librump.so.0", c"librump.so"], name).or_else(|| next_symbol(name))
}

/// Returns the symbol `name` of a loaded library, which has one of the names `libraries`.
pub fn in_library(libraries: &[&CStr], name: &CStr) -> Option<NonNull<c_void>> {
    libraries.iter().find_map(|library| {
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
        // SAFETY: `library` is a string of C; nothing new is loaded.
        let handle = unsafe { libc::dlopen(library.as_ptr(), flags) };
        // SAFETY: the handle is open, and stays so: the library is never unloaded.
        NonNull::new(handle)
            .and_then(|h| NonNull::new(unsafe { libc::dlsym(h.as_ptr(), name.as_ptr()) }))
    })
}

/// Boots the kernel.
pub fn boot() -> Result<(), LoadError> {
    type RumpInit = unsafe extern "C" fn() -> c_int;
    let init = symbol("rump_init")?;
    // SAFETY: rump_init(3) has this type, and is called once, before anything else of the kernel.
    match unsafe { std::mem::transmute::<NonNull<c_void>, RumpInit>(init)() } {
        0 => Ok(()),
        error => Err(LoadError::Init(error)),
    }
}

/// Has the kernel ask for its server, at this URL.
pub fn init_server(url: &str) -> Result<(), LoadError> {
    type RumpInitServer = unsafe extern "C" fn(*const libc::c_char) -> c_int;
    let init = symbol("rump_init_server")?;
    let url = CString::new(url).expect("a URL has no NUL");
    // SAFETY: rump_init_server(3) has this type; the kernel has booted.
    match unsafe { std::mem::transmute::<NonNull<c_void>, RumpInitServer>(init)(url.as_ptr()) } {
        0 => Ok(()),
        error => Err(LoadError::Serve(kernel::Errno(error))),
    }
}

/// Halts the kernel from outside: the kernel syncs its file systems and ends this process. Returns only
/// if the kernel will not halt.
pub fn halt() -> Result<(), LoadError> {
    type Reboot = unsafe extern "C" fn(c_int, *mut libc::c_char) -> c_int;
    let reboot = symbol("rump___sysimpl_reboot")?;
    // SAFETY: the kernel's reboot(2) has this type; any thread may call it.
    unsafe { std::mem::transmute::<NonNull<c_void>, Reboot>(reboot)(0, std::ptr::null_mut()) };
    Ok(())
}

/// Raises the kernel's bound of open files, of all processes together. That is 1772: each client needs
/// one, and at the bound the kernel panics over the next client. Each process keeps its own bound.
///
/// A rump kernel has no kern.maxfiles, so this sets the variable itself, a `u_int` that `kern_descrip.c`
/// reads as it makes a file.
pub fn allow_files() {
    const MOST: u32 = 1 << 30;
    match symbol("rumpns_maxfiles") {
        // SAFETY: the kernel's variable has this type and is there for good; the kernel reads it at
        // any time, as it reads it while its own sysctl(2) writes it.
        Ok(maxfiles) => unsafe { maxfiles.cast::<AtomicU32>().as_ref() }.store(MOST, Relaxed),
        Err(error) => tracing::warn!("{error}: at its bound of open files the kernel panics"),
    }
}

/// The process that started a server and waits to be told if the server has started.
pub struct Parent(NonNull<c_void>);

/// Goes to the background: the process that was started waits until it is told if the server has started,
/// and ends with that result. To be called before there is another thread.
pub fn detach() -> Result<Parent, LoadError> {
    type Begin = unsafe extern "C" fn() -> c_int;
    let done = symbol("rump_daemonize_done")?;
    let begin = symbol("rump_daemonize_begin")?;
    // SAFETY: rump_daemonize_begin(3) has this type; it forks, and this process has one thread.
    match unsafe { std::mem::transmute::<NonNull<c_void>, Begin>(begin)() } {
        0 => Ok(Parent(done)),
        error => Err(LoadError::Init(error)),
    }
}

impl Parent {
    /// Tells the parent if the server has started. With that, this process also leaves its terminal.
    pub fn tell(self, is_well: bool) {
        type Done = unsafe extern "C" fn(c_int) -> c_int;
        // SAFETY: rump_daemonize_done(3) has this type, and follows the begin.
        unsafe { std::mem::transmute::<NonNull<c_void>, Done>(self.0)(c_int::from(!is_well)) };
    }
}

/// Sets a variable that the kernel reads when it boots. To be called before there is another thread.
pub fn set_environment(name: &str, value: &str) {
    // SAFETY: no other thread reads the environment: the command line calls this first of all.
    unsafe { std::env::set_var(name, value) };
}

/// Returns the directory where rump was installed, if the environment names it.
pub fn prefix_from_env() -> Option<PathBuf> {
    std::env::var_os("RUMP_PREFIX").filter(|prefix| *prefix != OsString::new()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_named_as_with_the_linker() {
        let paths = candidates(Some(Path::new("/p")), "rumpvfs");
        assert_eq!(paths[0], Path::new("/p/lib/librumpvfs.so"));
        assert!(paths.contains(&"librumpvfs.so".into()), "the loader's path is searched, too");
        assert_eq!(candidates(Some(Path::new("/p")), "./x.so"), [PathBuf::from("./x.so")]);
    }

    #[test]
    fn what_does_not_load_is_named_with_the_loaders_words() {
        let names = vec!["there_is_no_such_thing".to_string()];
        let error = load_all(None, names).unwrap_err().to_string();
        assert!(error.contains("there_is_no_such_thing"), "{error}");
        assert!(error.contains("cannot open shared object"), "{error}");
    }
}
