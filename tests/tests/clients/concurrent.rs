//! Several clients at once, one of which does not keep up.

use crate::serve;
use crate::{MIB, assert_same, fio::verifying, random_bytes};
use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

fn finish(name: &str, child: Child) {
    let output = child.wait_with_output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
}

fn start(mut command: std::process::Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A client that goes through the handshake and asks for 32 MiB four times,
/// and reads none of it.
fn stuck_client(fixture: &Fixture) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", fixture.serving.port().unwrap())).unwrap();
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    let mut hello = 3u32.to_be_bytes().to_vec();
    hello.extend(b"IHAVEOPT");
    hello.extend(1u32.to_be_bytes());
    hello.extend(4u32.to_be_bytes());
    hello.extend(b"demo");
    stream.write_all(&hello).unwrap();
    // Size and flags, no padding.
    stream.read_exact(&mut [0; 10]).unwrap();
    for cookie in 0u64..4 {
        let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
        request.extend([0, 0, 0, 0]);
        request.extend(cookie.to_be_bytes());
        request.extend(0u64.to_be_bytes());
        request.extend((32u32 << 20).to_be_bytes());
        stream.write_all(&request).unwrap();
    }
    stream
}

#[test]
fn clients_work_beside_each_other_and_a_stuck_one() {
    let fixture = serve();
    let bytes = random_bytes(64 * MIB as usize, 9);
    let (source, back) = (fixture.path("source"), fixture.path("back"));
    std::fs::write(&source, &bytes).unwrap();
    tools::succeed(&mut command!("nbdcopy", &source, fixture.unix())).unwrap();

    let stuck = stuck_client(&fixture);
    let half_sent = {
        let mut stream =
            TcpStream::connect(("127.0.0.1", fixture.serving.port().unwrap())).unwrap();
        stream.write_all(&[0, 0]).unwrap();
        stream
    };
    // The first 64 MiB are only read; fio and qemu-io write behind them.
    let reader = start(command!("nbdcopy", fixture.tcp(), "null:"));
    let writer = start(verifying(
        fixture.unix(),
        &["--rw=randwrite", "--bs=8k", "--iodepth=16", "--offset=64m", "--size=96m", "--numjobs=1"],
    ));
    let mut qemu = command!("qemu-io", "-f", "raw");
    for step in 0..64 {
        let at = 192 + step;
        qemu.args(["-c", &format!("write -P {} {at}M 1M", step + 1)]);
        qemu.args(["-c", &format!("read -P {} {at}M 1M", step + 1)]);
    }
    let qemu = start({
        qemu.arg(fixture.tcp());
        qemu
    });
    finish("nbdcopy", reader);
    finish("fio", writer);
    finish("qemu-io", qemu);
    drop((stuck, half_sent));
    tools::succeed(&mut command!("nbdcopy", fixture.unix(), &back)).unwrap();
    assert_same(&crate::read(&back)[..bytes.len()], &bytes);
}
