//! Bits that flip on the disk are noticed: by `replica inspect`, and by a read.

use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use std::fs;

const PATTERN: u8 = 0xa7;

/// A stopped node whose store holds 1 MiB of the pattern, applied.
fn applied() -> Fixture {
    let mut fixture = Fixture::start(["--size", "16MiB"]).unwrap();
    let write = ["-f", "raw", "-c", "write -P 0xa7 4M 1M"];
    tools::succeed(command!("qemu-io").args(write).arg(fixture.unix())).unwrap();
    fixture.daemon.stop().unwrap();
    fixture
}

#[test]
fn a_flipped_bit_is_an_error_and_never_data() {
    let mut fixture = applied();
    let data = fixture.data_dir().join("disk/data");
    let mut bytes = fs::read(&data).unwrap();
    // A whole slot is written aligned, so a block of the pattern is one of ours.
    let at = bytes
        .chunks_exact(4096)
        .position(|block| block.iter().all(|byte| *byte == PATTERN))
        .expect("the data was not found in the data file")
        * 4096;
    bytes[at + 1000] ^= 0x10;
    fs::write(&data, &bytes).unwrap();

    let said = fixture.holdfast(&["replica", "inspect", "--deep"]).unwrap();
    println!("{}{}", said.out, said.err);
    assert_ne!(said.code, 0, "inspect must notice");

    fixture.start_again().unwrap();
    let copy = fixture.path("copy");
    let copied = tools::run(&mut command!("nbdcopy", fixture.unix(), &copy)).unwrap();
    assert_ne!(copied.code, 0, "a read of it must fail");
    // What is whole is still served.
    let read = ["-f", "raw", "-c", "read -P 0 0 4M", "-c", "read -P 0 5M 4M"];
    let said = tools::succeed(command!("qemu-io").args(read).arg(fixture.unix())).unwrap();
    assert!(!said.contains("failed"), "{said}");
    // A new write heals it.
    let write = ["-f", "raw", "-c", "write -P 1 4M 1M", "-c", "read -P 1 4M 1M"];
    let said = tools::succeed(command!("qemu-io").args(write).arg(fixture.unix())).unwrap();
    assert!(!said.contains("failed"), "{said}");
}

#[test]
fn one_superblock_copy_is_enough() {
    for copy in [0, 1] {
        let mut fixture = applied();
        let superblock = fixture.data_dir().join("disk/superblock");
        let mut bytes = fs::read(&superblock).unwrap();
        bytes[copy * 4096..(copy + 1) * 4096].fill(0xff);
        fs::write(&superblock, &bytes).unwrap();
        fixture.start_again().unwrap();
        let read = ["-f", "raw", "-c", "read -P 0xa7 4M 1M"];
        let said = tools::succeed(command!("qemu-io").args(read).arg(fixture.unix())).unwrap();
        assert!(!said.contains("verification failed"), "{said}");
    }
}
