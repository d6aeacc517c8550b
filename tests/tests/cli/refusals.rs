//! What cannot be done: one line that says what to do, exit code 1, nothing damaged.

use holdfast_tests::daemon::{Daemon, Options};
use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_FILE: &str = "lock";

/// Refusing takes no time; a daemon that runs longer serves what it must not.
const REFUSES_WITHIN: Duration = Duration::from_secs(20);

/// Starts a daemon that must refuse; returns its line.
fn refused(options: &Options) -> String {
    let mut command = options.command().unwrap();
    command.env("HOLDFAST_LOG", "error");
    let mut daemon = Daemon::spawn_command(command).unwrap();
    let status = daemon.wait(REFUSES_WITHIN).unwrap();
    let said = daemon.all_output().unwrap();
    println!("{said}");
    assert_eq!(status.code(), Some(1));
    // Beside it the log may say what was found on the way.
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("holdfast: ")).collect();
    assert_eq!(lines.len(), 1);
    assert!(said.ends_with(lines[0]), "the last word");
    lines[0].to_owned()
}

fn options(data_dir: &Path) -> Options {
    options_at(data_dir, "127.0.0.1:0")
}

fn options_at(data_dir: &Path, nbd: &str) -> Options {
    Options::at(data_dir, nbd).with_small_log().with(["--size", "16MiB"])
}

/// Every file below `dir` with a digest of its contents, but for lock files, which
/// say who was there last.
fn contents(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.is_file() && !path.ends_with(LOCK_FILE) {
            let mut digest = DefaultHasher::new();
            fs::read(&path).unwrap().hash(&mut digest);
            found.insert(path, digest.finish());
        }
    }
    found
}

fn stopped() -> Fixture {
    let mut fixture = Fixture::start(["--size", "16MiB"]).unwrap();
    let write = ["-f", "raw", "-c", "write -P 9 0 1M"];
    tools::succeed(command!("qemu-io").args(write).arg(fixture.unix())).unwrap();
    fixture.daemon.stop().unwrap();
    fixture
}

fn still_holds_its_bytes(mut fixture: Fixture) {
    fixture.start_again().unwrap();
    let read = ["-f", "raw", "-c", "read -P 9 0 1M", "-c", "read -P 0 1M 15M"];
    let said = tools::succeed(command!("qemu-io").args(read).arg(fixture.unix())).unwrap();
    assert!(!said.contains("verification failed"), "{said}");
}

#[test]
fn a_port_that_is_taken() {
    let fixture = stopped();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let before = contents(fixture.data_dir());
    let line = refused(&options_at(fixture.data_dir(), &address));
    assert!(line.contains(&address) && line.contains("--nbd"), "{line}");
    assert_eq!(contents(fixture.data_dir()), before);
    still_holds_its_bytes(fixture);
}

#[test]
fn a_directory_in_use() {
    let mut fixture = stopped();
    fixture.start_again().unwrap();
    let line = refused(&fixture.options);
    assert!(line.contains("in use") && line.contains("--data-dir"), "{line}");
    tools::succeed(&mut command!("nbdinfo", fixture.unix())).unwrap();
    // Tools on a stopped node's files refuse a running one's.
    for words in [["wal", "dump"], ["replica", "inspect"]] {
        let said = fixture.holdfast(&words).unwrap();
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("in use"), "{said:?}");
    }
    fixture.daemon.stop().unwrap();
    still_holds_its_bytes(fixture);
}

#[test]
fn a_disk_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let on_disk =
        |name: &str| options(&dir.path().join(name)).with(["--disk".as_ref(), disk.as_os_str()]);
    let (mut first, _) = Daemon::start(&on_disk("one")).unwrap();
    let line = refused(&on_disk("two"));
    assert!(line.contains(disk.to_str().unwrap()), "{line}");
    first.stop().unwrap();
    // Free now, but another node's, which finds it as it was.
    let line = refused(&on_disk("three"));
    assert!(line.contains(disk.to_str().unwrap()) && line.contains("--disk"), "{line}");
    let (mut first, _) = Daemon::start(&on_disk("one")).unwrap();
    first.stop().unwrap();
}

#[test]
fn a_directory_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    // Below a file, and in a file system that root cannot write to either.
    for path in [file.join("data"), "/sys/holdfast-data".into()] {
        let line = refused(&options(&path));
        assert!(line.contains("--data-dir"), "{line}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_directory_of_something_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    let before = contents(dir.path());
    let line = refused(&options(dir.path()));
    assert!(line.contains("--data-dir"), "{line}");
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_disk_of_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("photos");
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join("photo.jpg"), "mine").unwrap();
    let before = contents(&disk);
    let data_dir = dir.path().join("data");
    let line = refused(&options(&data_dir).with(["--disk".as_ref(), disk.as_os_str()]));
    assert!(line.contains("photos"), "{line}");
    assert_eq!(contents(&disk), before);
}

#[test]
fn a_directory_of_a_newer_format() {
    let fixture = stopped();
    let marker = fixture.data_dir().join("holdfast");
    let ours = fs::read_to_string(&marker).unwrap();
    let (first, rest) = ours.split_once('\n').unwrap();
    let (words, version) = first.rsplit_once(' ').unwrap();
    let version = version.parse::<u32>().unwrap() + 1;
    let newer = format!("{words} {version}\n{rest}");
    fs::write(&marker, &newer).unwrap();
    let before = contents(fixture.data_dir());
    let line = refused(&fixture.options);
    assert!(line.contains(&format!("format {version}")) && line.contains("newer"), "{line}");
    assert_eq!(contents(fixture.data_dir()), before);
    fs::write(&marker, ours).unwrap();
    still_holds_its_bytes(fixture);
}

#[test]
fn a_volume_of_another_size() {
    let fixture = stopped();
    let line = refused(&fixture.options.clone().with(["--block-size", "4096"]));
    assert!(line.contains("--block-size"), "{line}");
    still_holds_its_bytes(fixture);
}

#[test]
fn status_of_a_node_that_does_not_run() {
    let fixture = stopped();
    let said = fixture.holdfast(&["status"]).unwrap();
    assert_eq!((said.code, said.err.lines().count()), (1, 1), "{said:?}");
}

#[test]
fn tools_on_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    for words in [["wal", "dump"], ["replica", "inspect"]] {
        let mut command = std::process::Command::new(holdfast_tests::daemon::binary().unwrap());
        command.args(words).arg("--data-dir").arg(dir.path().join("none"));
        let said = tools::run(&mut command).unwrap();
        assert_eq!((said.code, said.err.lines().count()), (1, 1), "{said:?}");
    }
    assert!(contents(dir.path()).is_empty());
}
