//! A full file system and a file-size limit: the error says which it is, what
//! was written stays, and there is room again when some was made.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(unsafe_code, reason = "ignores a signal")]

mod common;

use common::{BACKENDS, BLOCK, Bench};
use holdfast_io::{DiskErrorKind, Op, OpenMode};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{path::Path, process::Command};
use tempfile::tempdir;

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_file_system_is_told_from_a_broken_one() {
    let dir = tempdir().unwrap();
    let (image, root) = (dir.path().join("image"), dir.path().join("root"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&root).unwrap();
    let made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
        && succeeds(Command::new("mount").args(["-o", "loop"]).args([&image, &root]));
    if !made {
        eprintln!("skipped, may not mount an ext4 image");
        return;
    }
    let mounted = Mounted(&root);
    for (round, choice) in BACKENDS.into_iter().enumerate() {
        let mut bench = Bench::open(&root, choice);
        let file = bench.disk.open(&format!("data{round}"), OpenMode::CreateNew).unwrap();
        let available = bench.disk.available().unwrap();
        assert!((1 << 20..16 << 20).contains(&available), "{available}");
        let too_much = Op::Allocate { file, offset: 0, len: 32 << 20 };
        assert_eq!(bench.disk.run(too_much).unwrap_err().kind, DiskErrorKind::NoSpace);
        bench.disk.run(Op::Discard { file, offset: 0, len: 32 << 20 }).unwrap();
        let data = bench.pattern(9, 64);
        let mut written = 0;
        let error = loop {
            let (bufs, durable) = (vec![data.clone()], written % 2 == 0);
            let offset = written * data.len() as u64;
            match bench.disk.run(Op::Write { file, offset, bufs, durable }) {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 64, "more was written than there is");
        };
        assert_eq!(error.kind, DiskErrorKind::NoSpace, "{error}");
        assert!(written > 4);
        for i in 0..written {
            let back = bench.read(file, i * data.len() as u64, data.len());
            assert!(back[..] == data[..], "{choice}: write {i}");
        }
        bench.disk.run(Op::Discard { file, offset: 0, len: 4 << 20 }).unwrap();
        bench.write(file, 0, &data, true);
        drop(bench);
        std::fs::remove_file(root.join(format!("data{round}"))).unwrap();
    }
    drop(mounted);
}

#[test]
fn a_limit_of_file_size_is_an_error_of_the_write() {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(exe);
    command.args(["--exact", "under_a_limit_of_file_size", "--ignored", "--nocapture"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "changes its process; started by the test above"]
fn under_a_limit_of_file_size() {
    // SAFETY: no handler is installed, the signal is ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let limit = Rlimit { current: Some(10 * BLOCK as u64), maximum: Some(10 * BLOCK as u64) };
    setrlimit(Resource::Fsize, limit).unwrap();
    for choice in BACKENDS {
        let dir = tempdir().unwrap();
        let mut bench = Bench::open(dir.path(), choice);
        let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
        let data = bench.pattern(1, 4);
        bench.write(file, 0, &data, true);
        // Four blocks fit, then two of the next four: a short write, then the error.
        let (offset, bufs) = (8 * BLOCK as u64, vec![data.clone()]);
        let error = bench.disk.run(Op::Write { file, offset, bufs, durable: false }).unwrap_err();
        assert_eq!((error.kind, error.offset), (DiskErrorKind::Io, offset));
        assert!(error.message.contains("too large"), "{error}");
        assert!(bench.read(file, offset, 2 * BLOCK)[..] == data[..2 * BLOCK], "{choice}");
        let bufs = vec![data.clone()];
        bench.disk.run(Op::Write { file, offset: 0, bufs, durable: true }).unwrap();
    }
}
