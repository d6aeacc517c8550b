//! `qemu-img` and `qemu-io`.

use crate::serve;
use crate::{MIB, assert_same, read, sparse_bytes};
use holdfast_tests::{command, tools};
use serde_json::Value;

/// Runs qemu-io with one command after another; every read checks its pattern.
fn io(uri: &str, commands: &[&str]) {
    let mut command = command!("qemu-io", "-f", "raw", "-t", "none");
    for text in commands {
        command.args(["-c", text]);
    }
    command.arg(uri);
    let said = tools::succeed(&mut command).unwrap();
    println!("{said}");
    // qemu-io reports a wrong pattern in words and a good exit code.
    assert!(!said.contains("verification failed") && !said.contains("error"), "{said}");
}

#[test]
fn converts_compares_and_maps() {
    let fixture = serve();
    let bytes = sparse_bytes(256 * MIB as usize, 5);
    let (raw, qcow, back) =
        (fixture.path("disk.raw"), fixture.path("disk.qcow2"), fixture.path("back.raw"));
    std::fs::write(&raw, &bytes).unwrap();
    let img = |args: &[&dyn AsRef<std::ffi::OsStr>]| {
        tools::succeed(std::process::Command::new("qemu-img").args(args.iter().copied()))
    };
    img(&[&"convert", &"-f", &"raw", &"-O", &"qcow2", &raw, &qcow]).unwrap();
    img(&[&"convert", &"-n", &"-f", &"qcow2", &"-O", &"raw", &qcow, &fixture.tcp()]).unwrap();
    img(&[&"compare", &"-f", &"raw", &"-F", &"raw", &raw, &fixture.unix()]).unwrap();
    img(&[&"convert", &"-f", &"raw", &"-O", &"raw", &fixture.unix(), &back]).unwrap();
    assert_same(&read(&back), &bytes);

    let map = img(&[&"map", &"--output=json", &"-f", &"raw", &fixture.unix()]).unwrap();
    let map: Value = serde_json::from_str(&map).unwrap();
    let mut next = 0;
    for extent in map.as_array().unwrap() {
        let (start, length) =
            (extent["start"].as_u64().unwrap(), extent["length"].as_u64().unwrap());
        assert_eq!(start, next, "extents follow each other");
        next = start + length;
        if extent["zero"] == true {
            let piece = &bytes[start as usize..next as usize];
            assert!(piece.iter().all(|byte| *byte == 0), "{extent} is not zero");
        }
    }
    assert_eq!(next, 256 * MIB);

    io(fixture.unix(), &["write -P 0xee 100M 512"]);
    img(&[&"compare", &"-f", &"raw", &"-F", &"raw", &raw, &fixture.unix()]).unwrap_err();
}

#[test]
fn patterns_come_back() {
    let mut fixture = serve();
    let reads = [
        "read -P 0x11 0 64k",
        "read -P 0x22 64k 512",
        "read -P 0x11 66048 7680",
        "read -P 0 73728 4096",
        "read -P 0 1M 1M",
        "read -P 0x33 2M 3584",
        "read -P 0 2100736 8192",
        "read -P 0x33 2108928 512",
        "read -P 0x44 255M 1M",
        "read -P 0x55 8M 16M",
        "read -P 0 24M 4M",
    ];
    io(
        fixture.unix(),
        &[
            "write -P 0x11 0 72k",
            // Part of a block; then FUA.
            "write -P 0x22 64k 512",
            "write -f -P 0x11 65k 512",
            "write -P 0x66 1M 1M",
            // Zeroes: without and with unmapping.
            "write -z 1M 512k",
            "write -z -u 1536k 512k",
            "write -P 0x33 2M 16k",
            // Across blocks, in the middle of both.
            "write -z 2100736 8192",
            "write -P 0x44 255M 1M",
            // Several requests in flight, whole slots.
            "aio_write -P 0x55 8M 8M",
            "aio_write -P 0x55 16M 8M",
            "aio_flush",
            "flush",
            "write -P 0x77 24M 4M",
            "discard 24M 4M",
        ],
    );
    io(fixture.unix(), &reads);
    io(fixture.tcp(), &reads);
    fixture.restart().unwrap();
    io(fixture.unix(), &reads);
}
