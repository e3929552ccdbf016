//! Making a ring: each fallback works, and errors for features without a fallback say what is missing
//! and what to do.

mod support;

use std::io::{Read, Write};
use std::thread;

use rumpring_ring::{ArenaConfig, Config, Error, Features, Ring, Then};
use support::{Note, Server, small};

#[test]
fn serves_without_any_feature_that_has_a_fallback() {
    let with_fallback = [
        Features::SUBMIT_ALL,
        Features::REGISTERED_RING,
        Features::COOP_TASKRUN,
        Features::SINGLE_ISSUER,
        Features::DEFER_TASKRUN,
        Features::NO_SQARRAY,
        Features::MULTISHOT_ACCEPT,
        Features::MULTISHOT_RECV,
        Features::SEND_WAITALL,
        Features::SEND_ZC,
        Features::SENDMSG_ZC_FIXED,
        Features::RESTRICTIONS,
    ];
    let all = with_fallback.into_iter().fold(Features::NONE, |all, feature| all | feature);
    for without in with_fallback.into_iter().chain([Features::NONE, all]) {
        let config = Config { without, zero_copy_from: Some(100), ..small() };
        serve(&config);
    }
}

fn serve(config: &Config) {
    let mut server = Server::new(config);
    assert!((server.ring.features() - config.without) == server.ring.features());
    for _ in 0..3 {
        let (mut client, socket) = server.connect_tcp();
        server.send(socket, &[1; 300], Then::Receive);
        for round in 1..4 {
            client.write_all(b"ask").unwrap();
            server.until("ask", |server| server.bytes(socket).len() == 3 * round);
        }
        server.expect(Note::Sent(socket, Ok(300)));
        client.read_exact(&mut [0; 300]).unwrap();
        server.send(socket, b"bye", Then::Shutdown);
        server.expect(Note::Sent(socket, Ok(3)));
        server.expect(Note::RecvEnded(socket, None));
        server.close(socket);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"bye");
    }
    server.assert_empty(config);
}

#[test]
fn what_has_no_fallback_is_named_with_its_version() {
    for (without, name, since) in [
        (Features::NODROP, "IORING_FEAT_NODROP", "5.5"),
        (Features::FAST_POLL, "IORING_FEAT_FAST_POLL", "5.7"),
        (Features::EXT_ARG, "IORING_FEAT_EXT_ARG", "5.11"),
        (Features::DIRECT_DESCRIPTORS, "direct descriptors", "5.19"),
        (Features::PROVIDED_BUFFER_RING, "provided buffer ring", "5.19"),
        (Features::CANCEL_ANY, "IORING_ASYNC_CANCEL_ANY", "5.19"),
    ] {
        let error = Ring::new(&Config { without, ..small() }).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains(since), "{error}");
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let arena = |capacity, count| {
        let mut arena = ArenaConfig::default();
        arena.classes[0].capacity = capacity;
        arena.classes[2].count = count;
        arena
    };
    for (config, what) in [
        (Config { entries: 0, ..small() }, "entries"),
        (Config { completions: 1, ..small() }, "completions"),
        (Config { sockets: 0, ..small() }, "sockets"),
        (Config { sockets: 1 << 21, ..small() }, "sockets"),
        (Config { recv_buffers: 3, ..small() }, "recv_buffers"),
        (Config { recv_buffer_len: 0, ..small() }, "recv_buffer_len"),
        (Config { arena: arena(9000, 1), ..small() }, "classes"),
        (Config { arena: arena(0, 1), ..small() }, "class"),
        (Config { arena: arena(512, 1 << 20), ..small() }, "arena"),
    ] {
        let error = Ring::new(&config).err().unwrap();
        assert!(matches!(error, Error::Config(_)), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_table_beyond_the_limit_names_the_limit() {
    let limit = limit(libc::RLIMIT_NOFILE);
    if limit >= 1 << 20 {
        return;
    }
    let config = Config { sockets: limit as u32 + 1, ..small() };
    let error = Ring::new(&config).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, Error::Descriptors { .. }), "{text}");
    assert!(text.contains(&limit.to_string()) && text.contains("ulimit -n"), "{text}");
}

/// Runs on a thread of its own, which gives up root: the limit does not bind root.
#[test]
fn locked_memory_beyond_the_limit_names_the_limit() {
    let limit = limit(libc::RLIMIT_MEMLOCK);
    let mut config = Config { zero_copy_from: Some(1), ..small() };
    if limit > 64 << 20 {
        return;
    }
    // The kernel takes all of the memory before it looks at the limit: ask for no more than needed.
    config.arena.classes[2].count =
        (limit / u64::from(config.arena.classes[2].capacity)) as u32 + 1;
    let error = thread::spawn(move || {
        // SAFETY: takes no pointers. The bare system call, unlike libc's, is for this thread only.
        unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        Ring::new(&config).err().unwrap()
    });
    let error = error.join().unwrap();
    let text = error.to_string();
    assert!(matches!(error, Error::LockedMemory { .. }), "{text}");
    assert!(text.contains(&limit.to_string()) && text.contains("ulimit -l"), "{text}");
}

fn limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours and as large as getrlimit(2) fills.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut limit) }, 0);
    limit.rlim_cur
}

#[test]
fn a_seccomp_filter_is_suspected() {
    for (errno, hint) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "Linux 5.1")] {
        let error = thread::spawn(move || {
            forbid_io_uring(errno as u32);
            Ring::new(&small()).err().unwrap()
        });
        let error = error.join().unwrap();
        let text = error.to_string();
        assert!(matches!(error, Error::Unavailable(_)), "{text}");
        assert!(text.contains(hint) && text.contains("io_uring_setup"), "{text}");
    }
}

/// Makes io_uring_setup fail on this thread.
fn forbid_io_uring(errno: u32) {
    let filter = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        filter((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
        filter(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        filter((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        filter((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is ours and as long as it says.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (mode, program) = (libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, program), 0);
    }
}
