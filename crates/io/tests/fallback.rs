//! What happens where the kernel grants less: little locked memory, no
//! io_uring, a file system without O_DIRECT.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(unsafe_code, reason = "installs a system-call filter")]

mod common;

use common::{BLOCK, Bench};
use holdfast_io::{BackendChoice, BufPool, Op, OpenMode, open_disk};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, capabilities, set_capabilities},
};
use std::{
    path::Path,
    process::{Command, Output},
};
use tempfile::tempdir;

/// Runs the ignored test `name` of this binary in a process of its own.
fn child(name: &str) -> Output {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(exe);
    let output = command.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Writes, durably and not, and reads back.
fn use_it(bench: &mut Bench) {
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let data = bench.pattern(5, 8);
    for durable in [false, true] {
        bench.write(file, 0, &data, durable);
        bench.disk.run(Op::Sync { file }).unwrap();
        assert!(bench.read(file, 0, 8 * BLOCK)[..] == data[..]);
        let bufs = vec![data.slice(BLOCK..2 * BLOCK), data.slice(0..BLOCK)];
        bench.disk.run(Op::Write { file, offset: 0, bufs, durable }).unwrap();
        assert!(bench.read(file, 0, BLOCK)[..] == data[BLOCK..2 * BLOCK]);
    }
}

#[test]
fn little_locked_memory_leaves_the_ring_without_registered_buffers() {
    child("with_little_locked_memory");
}

#[test]
#[ignore = "changes its process; started by the test above"]
fn with_little_locked_memory() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    sets.inheritable.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    let limit = Rlimit { current: Some(256 << 10), maximum: Some(256 << 10) };
    setrlimit(Resource::Memlock, limit).unwrap();
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), BackendChoice::Auto);
    let name = bench.disk.describe();
    assert!(name.starts_with("io_uring, unregistered buffers (locking 1048576 bytes"), "{name}");
    assert!(name.contains("RLIMIT_MEMLOCK"), "{name}");
    use_it(&mut bench);
    let pool = BufPool::new(1 << 20);
    let error = open_disk(dir.path(), BackendChoice::Uring, &[pool]).err().unwrap();
    assert!(error.to_string().contains("CAP_IPC_LOCK"), "{error}");
}

/// Lets this thread's system call `number` fail with `errno`, for good.
fn refuse(number: libc::c_long, errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut jump = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32);
    jump.jf = 1;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live until the calls return, which copy them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            0
        );
    }
}

#[test]
fn where_io_uring_is_refused_threads_do_the_work() {
    // What containers' filters do, what an old kernel does, and a filter that
    // grants the ring but not its use. A filter holds for one thread.
    for (number, errno, said) in [
        (libc::SYS_io_uring_setup, libc::EPERM, "not permitted"),
        (libc::SYS_io_uring_setup, libc::ENOSYS, "not implemented"),
        (libc::SYS_io_uring_enter, libc::EPERM, "not permitted"),
        (libc::SYS_io_uring_register, libc::EACCES, "ermission denied"),
    ] {
        let thread = std::thread::spawn(move || {
            refuse(number, errno);
            let dir = tempdir().unwrap();
            let mut bench = Bench::open(dir.path(), BackendChoice::Auto);
            let name = bench.disk.describe();
            assert!(name.starts_with("thread pool (io_uring is refused: "), "{name}");
            assert!(name.contains(said), "{name}");
            use_it(&mut bench);
            let pool = BufPool::new(1 << 20);
            let error = open_disk(dir.path(), BackendChoice::Uring, &[pool]).err().unwrap();
            assert!(error.to_string().contains("io_uring was asked for"), "{error}");
        });
        thread.join().unwrap();
    }
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn without_o_direct_the_page_cache_serves() {
    let dir = tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "ramfs", "none"]).arg(dir.path());
    if !mount.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped, may not mount a ramfs");
        return;
    }
    let mounted = Mounted(dir.path());
    for choice in common::BACKENDS {
        let mut bench = Bench::open(dir.path(), choice);
        use_it(&mut bench);
        assert!(bench.disk.describe().ends_with("(no O_DIRECT on this file system)"));
        drop(bench);
        std::fs::remove_file(dir.path().join("data")).unwrap();
    }
    drop(mounted);
}

#[test]
fn backends_are_named_as_users_write_them() {
    for name in ["auto", "io_uring", "io_uring-unregistered", "threads"] {
        assert_eq!(name.parse::<BackendChoice>().unwrap().to_string(), name);
    }
    assert!("uring".parse::<BackendChoice>().unwrap_err().contains("io_uring-unregistered"));
}
