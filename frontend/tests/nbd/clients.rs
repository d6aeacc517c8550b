//! The clients that people use: libnbd (nbdsh, nbdinfo, nbdcopy), QEMU, fio.
//! libnbd 1.14 and fio speak structured replies; QEMU 10 speaks extended headers.

use crate::{
    client::{Client, Mode, pattern},
    server::*,
};
use std::process::Command;

/// Runs a program to its end; what it printed. It must succeed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {}\n{out}\n{err}", output.status);
    out
}

/// A script with `h` connected to the server. libnbd's own checks are off: the
/// server is to answer what it would not send.
fn nbdsh(uri: &str, setup: &str, script: &str) -> String {
    let connect = format!(
        "import nbd, errno\n\
         def fails(error, call, *args, **kwargs):\n\
         \x20   try:\n\
         \x20       call(*args, **kwargs)\n\
         \x20   except nbd.Error as e:\n\
         \x20       assert e.errnum == error, (e.errnum, error, str(e))\n\
         \x20       return\n\
         \x20   assert False, 'no error'\n\
         h = nbd.NBD()\n\
         h.set_strict_mode(0)\n\
         {setup}\n\
         h.connect_uri('{uri}')\n"
    );
    run("/usr/bin/python3", &["-c", &format!("{connect}\n{script}\nh.shutdown()\n")])
}

const STRUCTURED: &str = "h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)";
const SIMPLE: &str = "h.set_request_structured_replies(False)";

/// One script for both transports and both formats that libnbd speaks.
fn everywhere(script: &str) {
    let server = Server::start();
    for uri in [server.unix_uri(), server.tcp_uri()] {
        for setup in [STRUCTURED, SIMPLE] {
            nbdsh(&uri, setup, script);
        }
    }
}

#[test]
fn nbdsh_reads_and_writes() {
    everywhere(
        "data = bytes(i * 7 % 251 for i in range(65536 + 512))
h.pwrite(data, 512)
assert h.pread(len(data), 512) == data
h.pwrite(b'x' * 4096, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == b'x' * 4096
h.pwrite(b'y' * (32 << 20), 1 << 20)
assert h.pread(32 << 20, 1 << 20) == b'y' * (32 << 20)
h.flush()
h.cache(1 << 20, 0)
assert h.get_size() == 256 << 20
assert h.can_multi_conn() and h.can_fua() and h.can_flush() and h.can_trim()
assert h.can_zero() and h.can_fast_zero() and h.can_cache() and not h.is_read_only()
assert h.can_df() == h.get_structured_replies_negotiated()",
    );
}

#[test]
fn nbdsh_trims_and_zeroes() {
    everywhere(
        "h.pwrite(b'a' * 65536, 0)
h.trim(8192, 4096)
h.trim(4096, 16384, nbd.CMD_FLAG_FUA)
h.zero(4096, 20480)
h.zero(512, 24576 + 512, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 32768, nbd.CMD_FLAG_FAST_ZERO)
h.zero(4096, 36864, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
fails('ENOTSUP', h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
want = bytearray(b'a' * 65536)
for at, n in (4096, 8192), (16384, 8192), (25088, 512), (32768, 8192):
    want[at:at + n] = bytes(n)
assert h.pread(65536, 0) == bytes(want)
h.zero(256 << 20, 0)
h.trim(256 << 20, 0)
assert h.pread(65536, 0) == bytes(65536)"
            .replace("'ENOTSUP'", "errno.ENOTSUP")
            .as_str(),
    );
}

#[test]
fn nbdsh_gets_the_errors_of_the_specification() {
    everywhere(
        "size = h.get_size()
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.EINVAL, h.pread, 1024, size - 512)
fails(errno.ENOSPC, h.pwrite, b'1' * 512, size)
fails(errno.ENOSPC, h.pwrite, b'1' * 1024, size - 512)
fails(errno.ENOSPC, h.zero, 1024, size - 512)
fails(errno.EINVAL, h.trim, 1024, size - 512)
fails(errno.EINVAL, h.cache, 1024, size - 512)
fails(errno.EINVAL, h.pread, 100, 0)
fails(errno.EINVAL, h.pread, 512, 100)
fails(errno.EINVAL, h.pwrite, b'1' * 100, 0)
fails(errno.EINVAL, h.pwrite, b'1' * 512, 100)
fails(errno.EINVAL, h.trim, 100, 0)
fails(errno.EINVAL, h.zero, 100, 0)
h.pwrite(b'still fine!!' * 128, 0)
assert h.pread(1536, 0) == b'still fine!!' * 128",
    );
}

#[test]
fn nbdsh_asks_for_block_status_and_structured_reads() {
    let server = Server::start();
    let script = "h.pwrite(b'd' * 8192, 65536)
seen = []
def extents(context, offset, entries, error):
    assert context == nbd.CONTEXT_BASE_ALLOCATION
    seen.append(entries)
h.block_status(131072, 0, extents)
assert seen == [[65536, 3, 8192, 0, 57344, 3]], seen
seen.clear()
h.block_status(131072, 0, extents, nbd.CMD_FLAG_REQ_ONE)
assert seen == [[65536, 3]], seen
fails(errno.EINVAL, h.block_status, 512, h.get_size(), extents)
chunks = []
def chunk(data, offset, status, error):
    chunks.append((offset, len(data), status))
assert h.pread_structured(131072, 0, chunk) == bytes(65536) + b'd' * 8192 + bytes(57344)
assert chunks == [(0, 65536, nbd.READ_HOLE), (65536, 8192, nbd.READ_DATA),
                  (73728, 57344, nbd.READ_HOLE)], chunks
chunks.clear()
h.pread_structured(131072, 0, chunk, nbd.CMD_FLAG_DF)
assert chunks == [(0, 131072, nbd.READ_DATA)], chunks";
    nbdsh(&server.unix_uri(), STRUCTURED, script);
    let none = "fails(errno.EINVAL, h.block_status, 512, 0, lambda *args: 0)";
    nbdsh(&server.unix_uri(), "", none);
}

#[test]
fn nbdsh_walks_through_the_options() {
    let server = Server::start();
    let script = "h.opt_structured_reply() if hasattr(h, 'opt_structured_reply') else None
names = []
h.opt_list(lambda name, description: names.append((name, description)))
assert names == [('demo', 'a volume in memory')], names
contexts = []
h.add_meta_context('base:')
h.opt_list_meta_context(contexts.append)
assert contexts == ['base:allocation'], contexts
h.set_export_name('')
h.set_full_info(True)
h.opt_info()
assert h.get_size() == 256 << 20
assert h.get_canonical_export_name() == 'demo'
assert h.get_export_description() == 'a volume in memory'
assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
assert h.get_block_size(nbd.SIZE_PREFERRED) == 4096
assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
h.set_export_name('other')
fails(errno.ENOENT, h.opt_info)
fails(errno.ENOENT, h.opt_go)
h.set_export_name('demo')
h.opt_go()
h.pwrite(b'1' * 512, 0)";
    nbdsh(&server.unix_uri(), "h.set_opt_mode(True)", script);
    nbdsh(&server.tcp_uri(), "h.set_opt_mode(True)", "h.opt_abort()\nimport sys; sys.exit(0)");
    // The oldest of clients: no fixed newstyle, no GO.
    let old = "h.set_handshake_flags(0)";
    let script = "h.pwrite(b'2' * 512, 0)\nassert h.pread(512, 0) == b'2' * 512";
    nbdsh(&server.unix_uri(), old, script);
}

#[test]
fn nbdsh_keeps_many_commands_in_flight() {
    everywhere(
        "bufs, cookies = {}, []
for i in range(400):
    cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i % 255 + 1]) * 8192), i * 8192))
for c in cookies:
    while not h.aio_command_completed(c):
        h.poll(-1)
reads = []
for i in range(400):
    b = nbd.Buffer(8192)
    reads.append((i, b, h.aio_pread(b, i * 8192)))
for i, b, c in reads:
    while not h.aio_command_completed(c):
        h.poll(-1)
    assert b.to_bytearray() == bytearray([i % 255 + 1]) * 8192, i",
    );
}

#[test]
fn nbdinfo_shows_the_export_and_its_map() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Simple, false);
    client.write(1 << 20, &pattern(1, 65536));
    for uri in [server.unix_uri(), server.tcp_uri()] {
        let info = run("nbdinfo", &[&uri]);
        for line in [
            "using structured packets",
            "export-size: 268435456",
            "export=\"demo\"",
            "can_multi_conn: true",
            "block_size_minimum: 512",
            "block_size_maximum: 33554432",
            "base:allocation",
            "description: a volume in memory",
        ] {
            assert!(info.contains(line), "{line} in\n{info}");
        }
        assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), "268435456");
        let map = run("nbdinfo", &["--map", &uri]);
        let extents: Vec<Vec<&str>> =
            map.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
        let expected =
            [["0", "1048576", "3"], ["1048576", "65536", "0"], ["1114112", "267321344", "3"]];
        assert_eq!(extents, expected, "{map}");
    }
    let list = run("nbdinfo", &["--list", &format!("nbd://{}", server.tcp)]);
    assert!(list.contains("export=\"demo\""), "{list}");
}

#[test]
fn nbdcopy_brings_bytes_in_and_out() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut image = vec![0; SIZE as usize];
    image[..5 << 20].copy_from_slice(&pattern(1, 5 << 20));
    image[100 << 20..(100 << 20) + 4096].copy_from_slice(&pattern(2, 4096));
    let end = SIZE as usize - 70_000;
    image[end..].copy_from_slice(&pattern(3, 70_000));
    std::fs::write(path("in"), &image).unwrap();
    for (uri, connections) in [(server.unix_uri(), "4"), (server.tcp_uri(), "1")] {
        let connections = format!("--connections={connections}");
        run("nbdcopy", &[&connections, "--flush", &path("in"), &uri]);
        run("nbdcopy", &[&connections, &uri, &path("out")]);
        assert!(std::fs::read(path("out")).unwrap() == image);
        std::fs::remove_file(path("out")).unwrap();
        nbdsh(&uri, STRUCTURED, "h.zero(h.get_size(), 0)");
    }
}

#[test]
fn qemu_reads_writes_maps_and_compares() {
    let server = Server::start();
    for uri in [server.unix_uri(), server.tcp_uri()] {
        let io = run(
            "qemu-io",
            &[
                "-f",
                "raw",
                &uri,
                "-c",
                "write -P 0x5a 0 64k",
                "-c",
                "write -P 0xa5 -f 1M 3M",
                "-c",
                "read -P 0x5a 512 32k",
                "-c",
                "discard 1M 1M",
                "-c",
                "write -z -u 2M 64k",
                "-c",
                "write -z 3M 64k",
                "-c",
                "read -P 0 2M 64k",
                "-c",
                "read -P 0xa5 3136k 64k",
                "-c",
                "flush",
            ],
        );
        assert!(!io.contains("error") && !io.contains("failed"), "{io}");
        let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
        // The hole before 1 MiB, what was discarded, and what was unmapped are one.
        assert!(map.contains("\"start\": 65536, \"length\": 2097152"), "{map}");
        // Zeroes that may not be unmapped are allocated.
        assert!(map.contains("\"start\": 2162688, \"length\": 2031616"), "{map}");
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy.qcow2");
        let copy = copy.to_str().unwrap();
        run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, copy]);
        run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &uri, copy]);
        run("qemu-img", &["convert", "-n", "-f", "qcow2", "-O", "raw", copy, &uri]);
        run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &uri, copy]);
    }
}

#[test]
fn fio_verifies_what_it_wrote_over_several_connections() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    for (uri, bs) in [(server.unix_uri(), "--bs=4k"), (server.tcp_uri(), "--bsrange=512-256k")] {
        run(
            "fio",
            &[
                "--name=verify",
                "--ioengine=nbd",
                &format!("--uri={uri}"),
                "--rw=randwrite",
                bs,
                "--bs_unaligned=0",
                "--iodepth=32",
                "--numjobs=4",
                "--size=16m",
                "--offset_increment=32m",
                "--verify=crc32c",
                "--verify_state_save=0",
                "--verify_fatal=1",
                &format!("--directory={}", dir.path().display()),
                "--output-format=terse",
            ],
        );
    }
}
