//! Every command in every message format, and what is refused.

use crate::{client::*, server::*};
use holdfast_block::BlockError;
use holdfast_frontend::nbd::Limits;

/// Every format over unix, and once over TCP.
fn everywhere(test: impl Fn(&Server, &mut Client, Mode)) {
    for (mode, tcp) in MODES.map(|mode| (mode, false)).into_iter().chain([(Mode::Extended, true)]) {
        let server = Server::start();
        let mut client = Client::open(&server, mode, tcp);
        test(&server, &mut client, mode);
        client.begin(DISC, 0, 0, 0);
        assert!(client.is_closed());
        assert_eq!(server.ends(1), [holdfast_frontend::nbd::End::Disconnected]);
    }
}

#[test]
fn what_is_written_is_read() {
    everywhere(|_, client, _| {
        for (offset, len) in [
            (0, 512),
            (512, 512),
            (4096, 4096),
            (8192 - 512, 1024),
            (65536 - 4096, 8192),
            ((256 << 10) - 512, 1024),
            (1 << 20, 300 << 10),
            ((4 << 20) - 1536, 1 << 20),
            (SIZE - 512, 512),
        ] {
            let data = pattern(offset + len, len as usize);
            assert_eq!(client.write(offset, &data), 0);
            assert!(client.read(offset, len) == data, "{offset}+{len}");
        }
        let cookie = client.begin_write(FUA, 0, &pattern(9, 4096));
        assert_eq!(client.finish(cookie).error, 0);
        assert!(client.read(0, 4096) == pattern(9, 4096));
    });
}

#[test]
fn the_largest_request_is_32_mib() {
    everywhere(|_, client, mode| {
        let most = 32 << 20;
        let data = pattern(5, most);
        assert_eq!(client.write(4096 - 512, &data), 0);
        assert!(client.read(4096 - 512, most as u64) == data);
        let error = if mode == Mode::Simple { EINVAL } else { EOVERFLOW };
        assert_eq!(client.call(READ, 0, 0, most as u64 + 512).error, error);
        assert!(client.read(512, most as u64)[..3072] == [0; 3072]);
    });
}

#[test]
fn flush_and_cache_succeed() {
    everywhere(|server, client, _| {
        assert_eq!(client.call(FLUSH, 0, 0, 0).error, 0);
        assert_eq!(client.call(FLUSH, FUA, 0, 0).error, 0);
        assert_eq!(client.call(CACHE, 0, 0, SIZE).error, 0);
        assert_eq!(server.log(), [("flush", 0), ("flush", 0)]);
    });
}

#[test]
fn trim_and_zeroes_reach_the_device_as_asked() {
    everywhere(|server, client, _| {
        client.write(0, &pattern(1, 65536));
        assert_eq!(client.call(TRIM, 0, 4096, 8192).error, 0);
        assert_eq!(client.call(WRITE_ZEROES, FUA, 16384, 4608).error, 0);
        assert_eq!(client.call(WRITE_ZEROES, NO_HOLE, 32768, 4096).error, 0);
        assert_eq!(client.call(WRITE_ZEROES, FAST_ZERO, 40960, 4096).error, 0);
        assert_eq!(client.call(WRITE_ZEROES, FAST_ZERO | NO_HOLE, 49152, 4096).error, ENOTSUP);
        let mut expected = pattern(1, 65536);
        for zeroes in [4096..12288, 16384..20992, 32768..36864, 40960..45056] {
            expected[zeroes].fill(0);
        }
        assert!(client.read(0, 65536) == expected);
        let kinds: Vec<_> = server.log().iter().map(|entry| entry.0).collect();
        assert_eq!(kinds, ["write", "discard", "zeroes", "zeroes kept", "zeroes", "read"]);
        // Longer than any payload.
        assert_eq!(client.call(WRITE_ZEROES, 0, 0, SIZE).error, 0);
        assert_eq!(client.call(TRIM, 0, 0, SIZE).error, 0);
    });
}

#[test]
fn commands_of_no_length_succeed() {
    everywhere(|server, client, mode| {
        assert_eq!(client.write(512, &[]), 0);
        for command in [READ, TRIM, WRITE_ZEROES, CACHE] {
            let outcome = client.call(command, 0, 512, 0);
            assert_eq!((outcome.error, outcome.data.len()), (0, 0));
        }
        if mode != Mode::Simple {
            assert_eq!(client.call(BLOCK_STATUS, 0, 0, 0).error, EINVAL);
        }
        assert_eq!(server.log(), []);
    });
}

#[test]
fn holes_come_as_such_unless_forbidden() {
    for mode in [Mode::Structured, Mode::Extended] {
        let server = Server::start();
        let mut client = Client::open(&server, mode, false);
        client.write(8192, &pattern(3, 4096));
        client.write(12288, &pattern(4, 4096));
        let mut expected = vec![0; 1 << 20];
        expected[8192..12288].copy_from_slice(&pattern(3, 4096));
        expected[12288..16384].copy_from_slice(&pattern(4, 4096));
        let outcome = client.call(READ, 0, 0, 1 << 20);
        assert_eq!(outcome.chunks, [2, 1, 2]);
        assert!(outcome.data == expected);
        let outcome = client.call(READ, DF, 0, 1 << 20);
        assert_eq!(outcome.chunks, [1]);
        assert!(outcome.data == expected);
        assert_eq!(client.call(READ, 0, 16384, 4096).chunks, [2]);
        assert_eq!(client.call(READ, 0, 8192, 8192).chunks, [1]);
        assert_eq!(client.call(READ, 0, 8704, 8192).chunks, [1, 2]);
    }
}

#[test]
fn block_status_reports_allocation() {
    for mode in [Mode::Structured, Mode::Extended] {
        let server = Server::start();
        let mut client = Client::open(&server, mode, false);
        client.write(65536, &pattern(3, 8192));
        let rest = SIZE - 65536 - 8192;
        let outcome = client.call(BLOCK_STATUS, 0, 0, SIZE);
        assert_eq!(outcome.chunks.len(), 1);
        assert_eq!(outcome.extents, [(65536, 3), (8192, 0), (rest, 3)]);
        assert_eq!(client.call(BLOCK_STATUS, REQ_ONE, 512, SIZE - 512).extents, [(65024, 3)]);
        assert_eq!(client.call(BLOCK_STATUS, REQ_ONE, 0, 512).extents, [(512, 3)]);
        let around = client.call(BLOCK_STATUS, 0, 69632, 8192);
        assert_eq!(around.extents, [(4096, 0), (4096, 3)]);
    }
}

#[test]
fn block_status_needs_a_selected_context() {
    let server = Server::start();
    let mut simple = Client::open(&server, Mode::Simple, false);
    assert_eq!(simple.call(BLOCK_STATUS, 0, 0, 4096).error, EINVAL);
    assert_eq!(simple.call(FLUSH, 0, 0, 0).error, 0);
}

/// Each error is answered, what belongs to the request is consumed, and the next
/// request is understood.
#[test]
fn errors_leave_the_connection_usable() {
    everywhere(|server, client, mode| {
        let df = if mode == Mode::Simple { EINVAL } else { 0 };
        let cases = [
            (READ, 0, SIZE, 512, EINVAL),
            (READ, 0, SIZE - 512, 1024, EINVAL),
            (READ, 0, u64::MAX - 511, 512, EINVAL),
            (READ, 0, 100, 512, EINVAL),
            (READ, 0, 0, 100, EINVAL),
            (READ, DF, 0, 512, df),
            (READ, NO_HOLE, 0, 512, EINVAL),
            (READ, 1 << 9, 0, 512, EINVAL),
            (FLUSH, 0, 0, 512, EINVAL),
            (FLUSH, 0, 512, 0, EINVAL),
            (TRIM, 0, SIZE, 512, EINVAL),
            (TRIM, 0, 1, 512, EINVAL),
            (TRIM, REQ_ONE, 0, 512, EINVAL),
            (CACHE, 0, SIZE, 512, EINVAL),
            (CACHE, NO_HOLE, 0, 512, EINVAL),
            (WRITE_ZEROES, 0, SIZE, 512, ENOSPC),
            (WRITE_ZEROES, 0, 0, 511, EINVAL),
            (WRITE_ZEROES, DF, 0, 512, EINVAL),
            (8, 0, 0, 512, EINVAL),
            (77, 0, 0, 512, EINVAL),
        ];
        for (command, flags, offset, len, error) in cases {
            let outcome = client.call(command, flags, offset, len);
            assert_eq!(outcome.error, error, "{command} {flags} {offset}+{len}");
        }
        let writes = [(0, SIZE, ENOSPC), (0, SIZE - 512, ENOSPC), (0, 3, EINVAL), (DF, 0, EINVAL)];
        for (flags, offset, error) in writes {
            for len in [1024, 300 << 10] {
                let cookie = client.begin_write(flags, offset, &pattern(1, len));
                assert_eq!(client.finish(cookie).error, error, "{flags} {offset}+{len}");
            }
        }
        assert_eq!(client.write(SIZE, &vec![1; 32 << 20]), ENOSPC);
        assert_eq!(client.write(0, &[1; 1000]), EINVAL);
        if mode != Mode::Simple {
            for (flags, offset, len) in [(0, SIZE, 512), (0, 1, 512), (DF, 0, 512)] {
                assert_eq!(client.call(BLOCK_STATUS, flags, offset, len).error, EINVAL);
            }
        }
        assert!(server.log().iter().all(|entry| entry.0 == "read"), "{:?}", server.log());
        assert_eq!(client.write(0, &pattern(2, 512)), 0);
        assert!(client.read(0, 512) == pattern(2, 512));
    });
}

#[test]
fn extended_payloads_that_nobody_asked_for_are_consumed() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Extended, false);
    for (command, len) in [(READ, 512), (FLUSH, 12), (BLOCK_STATUS, 12), (CACHE, 1 << 20), (99, 5)]
    {
        let (cookie, mut bytes) = client.request(command, PAYLOAD_LEN, 0, len);
        bytes.extend(pattern(1, len as usize));
        client.send(&bytes);
        assert_eq!(client.finish(cookie).error, EINVAL, "{command}");
    }
    assert!(server.log().is_empty());
    assert_eq!(client.write(0, &pattern(2, 512)), 0);
    // QEMU sends the data of a write without announcing it.
    let mut bytes = client.header(WRITE, 0, 5, 0, 512);
    bytes.extend(pattern(3, 512));
    client.send(&bytes);
    assert_eq!(
        client.receive(32)[..16],
        [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]
    );
    assert!(client.read(0, 512) == pattern(3, 512));
}

#[test]
fn a_read_only_export_permits_reading() {
    for mode in MODES {
        let geometry = holdfast_block::Geometry { read_only: true, ..geometry() };
        let server = Server::with(geometry, Limits::default());
        let mut client = Client::open(&server, mode, false);
        assert_eq!(client.write(0, &[1; 512]), EPERM);
        assert_eq!(client.call(TRIM, 0, 0, 512).error, EPERM);
        assert_eq!(client.call(WRITE_ZEROES, 0, 0, 512).error, EPERM);
        assert_eq!(client.call(FLUSH, 0, 0, 0).error, 0);
        assert!(client.read(0, 512) == [0; 512]);
    }
}

#[test]
fn blocks_of_4096_are_enforced() {
    let geometry = holdfast_block::Geometry { logical_block_bytes: 4096, ..geometry() };
    let server = Server::with(geometry, Limits::default());
    let mut client = Client::open(&server, Mode::Structured, false);
    assert_eq!(client.write(512, &[1; 4096]), EINVAL);
    assert_eq!(client.write(0, &[1; 512]), EINVAL);
    assert_eq!(client.write(4096, &[1; 4096]), 0);
}

#[test]
fn failures_of_the_device_have_their_numbers() {
    everywhere(|server, client, _| {
        for (failure, error) in [
            (BlockError::Invalid, EINVAL),
            (BlockError::ReadOnly, EPERM),
            (BlockError::NoSpace, ENOSPC),
            (BlockError::Io, EIO),
            (BlockError::TimedOut, EIO),
            (BlockError::Stopped, ESHUTDOWN),
            (BlockError::Unsupported, EINVAL),
        ] {
            server.on_shard(move |device, _| device.fail.set(Some(failure)));
            assert_eq!(client.write(0, &pattern(1, 4096)), error);
            let outcome = client.call(READ, 0, 0, 4096);
            assert_eq!((outcome.error, outcome.data.len()), (error, 0));
            assert_eq!(client.call(FLUSH, 0, 0, 0).error, error);
        }
        server.on_shard(|device, _| device.fail.set(None));
        assert!(client.read(0, 4096) == [0; 4096]);
    });
}
