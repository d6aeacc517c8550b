use super::*;
use crate::nbd::{
    negotiate::Arrival,
    proto::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC},
};
use command_flag::{DF, FAST_ZERO, FUA, NO_HOLE, PAYLOAD_LEN, REQ_ONE};
use holdfast_block::Geometry;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIZE: u64 = 1 << 32;
const MAX: u32 = 16 << 20;

fn rules(mode: Mode, allocation: bool, read_only: bool) -> Rules {
    Rules::of(&Negotiated {
        export: "demo".into(),
        geometry: Geometry {
            size_bytes: SIZE,
            logical_block_bytes: 512,
            preferred_block_bytes: 4096,
            max_request_bytes: MAX,
            read_only,
        },
        mode,
        contexts: Contexts { allocation },
        arrival: Arrival::next(),
        leftover: vec![],
    })
}

fn header(command: u16, flags: u16, offset: u64, len: u64) -> Header {
    Header { flags, command, cookie: 0x0123_4567_89ab_cdef, offset, len }
}

fn refuse(error: Errno) -> Verdict {
    Verdict::Refuse { error, payload_bytes: 0 }
}

fn drain(error: Errno, payload_bytes: u32) -> Verdict {
    Verdict::Refuse { error, payload_bytes }
}

use Verdict::Execute;

#[test]
fn a_compact_header_byte_by_byte() {
    let bytes = [
        0x25, 0x60, 0x95, 0x13, // magic
        0x00, 0x01, // flags: FUA
        0x00, 0x01, // type: WRITE
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, // cookie
        0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x02, 0x00, // offset
        0x80, 0x00, 0x10, 0x00, // length
    ];
    for mode in [Mode::Simple, Mode::Structured] {
        let rules = rules(mode, false, false);
        assert_eq!(rules.header_bytes(), bytes.len());
        assert_eq!(rules.parse(&bytes), Some(header(1, FUA, 0x1_0000_0200, 0x8000_1000)));
    }
}

#[test]
fn an_extended_header_byte_by_byte() {
    let bytes = [
        0x21, 0xe4, 0x1c, 0x71, // magic
        0x00, 0x20, // flags: PAYLOAD_LEN
        0x00, 0x07, // type: BLOCK_STATUS
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, // cookie
        0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x02, 0x00, // offset
        0x00, 0x00, 0x12, 0x34, 0x00, 0x00, 0x00, 0x0c, // length
    ];
    let rules = rules(Mode::Extended, true, false);
    assert_eq!(rules.header_bytes(), bytes.len());
    let expected = header(7, PAYLOAD_LEN, 0x1_0000_0200, 0x1234_0000_000c);
    assert_eq!(rules.parse(&bytes), Some(expected));
}

#[test]
fn another_formats_magic_is_refused() {
    let with = |magic: u32| [&magic.to_be_bytes()[..], &[0; 28]].concat();
    assert_eq!(rules(Mode::Structured, false, false).parse(&with(EXTENDED_REQUEST_MAGIC)), None);
    assert_eq!(rules(Mode::Extended, false, false).parse(&with(REQUEST_MAGIC)), None);
    // Historic values that are reserved.
    for magic in [0x1256_0953, 0x2560_9514, 0] {
        assert_eq!(rules(Mode::Simple, false, false).parse(&with(magic)), None);
    }
}

/// (command, flags, offset, length, verdict)
type Row = (u16, u16, u64, u64, Verdict);

fn check(rules: Rules, rows: &[Row]) {
    for &(command, flags, offset, len, expected) in rows {
        let got = rules.judge(&header(command, flags, offset, len));
        assert_eq!(got, expected, "command {command} flags {flags} {offset}+{len} {rules:?}");
    }
}

#[test]
fn what_every_mode_accepts() {
    use Command::*;
    for mode in [Mode::Simple, Mode::Structured, Mode::Extended] {
        let rows = [
            (command::READ, 0, 512, 1024, Execute(Read { len: 1024, unfragmented: false })),
            (command::READ, FUA, 0, 512, Execute(Read { len: 512, unfragmented: false })),
            (command::READ, 0, SIZE - 512, 512, Execute(Read { len: 512, unfragmented: false })),
            (command::FLUSH, 0, 0, 0, Execute(Flush)),
            (command::FLUSH, FUA, 0, 0, Execute(Flush)),
            (command::TRIM, FUA, 0, 4096, Execute(Trim { len: 4096 })),
            (command::WRITE_ZEROES, 0, 0, 512, Execute(WriteZeroes { len: 512, no_hole: false })),
            (
                command::WRITE_ZEROES,
                NO_HOLE | FUA,
                0,
                512,
                Execute(WriteZeroes { len: 512, no_hole: true }),
            ),
            (
                command::WRITE_ZEROES,
                FAST_ZERO,
                0,
                512,
                Execute(WriteZeroes { len: 512, no_hole: false }),
            ),
            // Without a payload a length may exceed the largest payload.
            (command::TRIM, 0, 0, 1 << 31, Execute(Trim { len: 1 << 31 })),
            (command::CACHE, 0, 0, 1 << 31, Execute(Nothing)),
            (command::DISC, 0, 0, 0, Verdict::Disconnect),
            // Commands of no length are carried out by doing nothing.
            (command::READ, 0, SIZE, 0, Execute(Nothing)),
            (command::TRIM, 0, 0, 0, Execute(Nothing)),
            (command::WRITE_ZEROES, 0, 0, 0, Execute(Nothing)),
            (command::CACHE, 0, 0, 0, Execute(Nothing)),
        ];
        check(rules(mode, true, false), &rows);
    }
}

#[test]
fn errors_without_a_payload() {
    for mode in [Mode::Simple, Mode::Structured, Mode::Extended] {
        let rows = [
            // Beyond the end.
            (command::READ, 0, SIZE, 512, refuse(Errno::Inval)),
            (command::READ, 0, u64::MAX - 511, 1024, refuse(Errno::Inval)),
            (command::TRIM, 0, SIZE - 512, 1024, refuse(Errno::Inval)),
            (command::CACHE, 0, SIZE, 512, refuse(Errno::Inval)),
            (command::WRITE_ZEROES, 0, SIZE - 512, 1024, refuse(Errno::NoSpc)),
            (command::WRITE_ZEROES, 0, u64::MAX - 511, 1024, refuse(Errno::NoSpc)),
            // Misaligned.
            (command::READ, 0, 1, 512, refuse(Errno::Inval)),
            (command::READ, 0, 0, 513, refuse(Errno::Inval)),
            (command::TRIM, 0, 256, 512, refuse(Errno::Inval)),
            (command::WRITE_ZEROES, 0, 0, 100, refuse(Errno::Inval)),
            (command::CACHE, 0, 0, 100, refuse(Errno::Inval)),
            // Reserved fields.
            (command::FLUSH, 0, 512, 0, refuse(Errno::Inval)),
            (command::FLUSH, 0, 0, 512, refuse(Errno::Inval)),
            // Flags of other commands, and of none.
            (command::READ, NO_HOLE, 0, 512, refuse(Errno::Inval)),
            (command::READ, REQ_ONE, 0, 512, refuse(Errno::Inval)),
            (command::READ, 1 << 6, 0, 512, refuse(Errno::Inval)),
            (command::FLUSH, DF, 0, 0, refuse(Errno::Inval)),
            (command::TRIM, NO_HOLE, 0, 512, refuse(Errno::Inval)),
            (command::CACHE, FAST_ZERO, 0, 512, refuse(Errno::Inval)),
            (command::WRITE_ZEROES, DF, 0, 512, refuse(Errno::Inval)),
            (command::WRITE_ZEROES, 1 << 15, 0, 512, refuse(Errno::Inval)),
            (command::WRITE_ZEROES, FAST_ZERO | NO_HOLE, 0, 512, refuse(Errno::NotSup)),
            // Unknown commands.
            (8, 0, 0, 512, refuse(Errno::Inval)),
            (u16::MAX, 0, 0, 512, refuse(Errno::Inval)),
        ];
        check(rules(mode, true, false), &rows);
    }
}

#[test]
fn reads_and_their_flags_by_mode() {
    let read = Command::Read { len: 512, unfragmented: true };
    let over = u64::from(MAX) + 512;
    check(
        rules(Mode::Simple, false, false),
        &[
            (command::READ, DF, 0, 512, refuse(Errno::Inval)),
            (command::READ, 0, 0, over, refuse(Errno::Inval)),
        ],
    );
    for mode in [Mode::Structured, Mode::Extended] {
        check(
            rules(mode, false, false),
            &[
                (command::READ, DF, 0, 512, Execute(read)),
                (command::READ, DF, 0, over, refuse(Errno::Overflow)),
                (command::READ, 0, 0, over, refuse(Errno::Overflow)),
            ],
        );
    }
}

#[test]
fn compact_writes_always_carry_their_length() {
    let most = u64::from(PAYLOAD_BYTES_MAX);
    for mode in [Mode::Simple, Mode::Structured] {
        let rows = [
            (command::WRITE, FUA, 512, 1024, Execute(Command::Write { len: 1024 })),
            (command::WRITE, 0, 0, 0, Execute(Command::Nothing)),
            (command::WRITE, 0, SIZE - 512, 1024, drain(Errno::NoSpc, 1024)),
            (command::WRITE, 0, u64::MAX, 1, drain(Errno::NoSpc, 1)),
            (command::WRITE, 0, 1, 1024, drain(Errno::Inval, 1024)),
            (command::WRITE, 0, 0, 1000, drain(Errno::Inval, 1000)),
            (command::WRITE, DF, 0, 1024, drain(Errno::Inval, 1024)),
            (command::WRITE, PAYLOAD_LEN, 0, 1024, drain(Errno::Inval, 1024)),
            (command::WRITE, 0, 0, u64::from(MAX) + 512, drain(Errno::Inval, MAX + 512)),
            (command::WRITE, 0, 0, most, drain(Errno::Inval, PAYLOAD_BYTES_MAX)),
            (command::READ, PAYLOAD_LEN, 0, 1024, refuse(Errno::Inval)),
            (8, PAYLOAD_LEN, 0, u64::from(u32::MAX), refuse(Errno::Inval)),
        ];
        check(rules(mode, false, false), &rows);
        let verdict = rules(mode, false, false).judge(&header(command::WRITE, 0, 0, most + 512));
        assert!(matches!(verdict, Verdict::Violation(_)));
    }
}

#[test]
fn extended_requests_carry_a_payload_if_they_say_so() {
    let rows = [
        (command::WRITE, PAYLOAD_LEN | FUA, 0, 1024, Execute(Command::Write { len: 1024 })),
        (command::WRITE, PAYLOAD_LEN, 0, 0, Execute(Command::Nothing)),
        // The flag is a must for writes, but QEMU leaves it out.
        (command::WRITE, 0, 0, 1024, Execute(Command::Write { len: 1024 })),
        (command::WRITE, FUA, SIZE, 1024, drain(Errno::NoSpc, 1024)),
        (command::WRITE, PAYLOAD_LEN, SIZE, 512, drain(Errno::NoSpc, 512)),
        // Payloads that nobody asked for are consumed.
        (command::READ, PAYLOAD_LEN, 0, 512, drain(Errno::Inval, 512)),
        (command::FLUSH, PAYLOAD_LEN, 0, 12, drain(Errno::Inval, 12)),
        (command::BLOCK_STATUS, PAYLOAD_LEN, 0, 12, drain(Errno::Inval, 12)),
        (99, PAYLOAD_LEN, 0, 5, drain(Errno::Inval, 5)),
        // Lengths of 64 bits, without a payload.
        (command::TRIM, 0, 0, SIZE, Execute(Command::Trim { len: SIZE })),
        (
            command::WRITE_ZEROES,
            FAST_ZERO,
            0,
            SIZE,
            Execute(Command::WriteZeroes { len: SIZE, no_hole: false }),
        ),
        (command::READ, 0, 0, SIZE, refuse(Errno::Overflow)),
        (command::BLOCK_STATUS, 0, 0, SIZE, Execute(Command::Status { len: SIZE, one: false })),
        (command::TRIM, 0, 512, SIZE, refuse(Errno::Inval)),
        (command::TRIM, 0, 512, u64::MAX, refuse(Errno::Inval)),
    ];
    check(rules(Mode::Extended, true, false), &rows);
    for command in [command::WRITE, command::READ, command::DISC, 99] {
        let len = u64::from(PAYLOAD_BYTES_MAX) + 1;
        let verdict =
            rules(Mode::Extended, true, false).judge(&header(command, PAYLOAD_LEN, 0, len));
        assert!(matches!(verdict, Verdict::Violation(_)));
    }
}

#[test]
fn block_status_needs_a_context_and_a_range() {
    let rows = [
        (command::BLOCK_STATUS, 0, 0, 512, Execute(Command::Status { len: 512, one: false })),
        (command::BLOCK_STATUS, REQ_ONE, 0, 512, Execute(Command::Status { len: 512, one: true })),
        (command::BLOCK_STATUS, 0, 0, 0, refuse(Errno::Inval)),
        (command::BLOCK_STATUS, 0, SIZE, 512, refuse(Errno::Inval)),
        (command::BLOCK_STATUS, 0, 7, 512, refuse(Errno::Inval)),
        (command::BLOCK_STATUS, DF, 0, 512, refuse(Errno::Inval)),
    ];
    for mode in [Mode::Structured, Mode::Extended] {
        check(rules(mode, true, false), &rows);
        check(
            rules(mode, false, false),
            &[(command::BLOCK_STATUS, 0, 0, 512, refuse(Errno::Inval))],
        );
    }
    check(
        rules(Mode::Simple, true, false),
        &[(command::BLOCK_STATUS, 0, 0, 512, refuse(Errno::Inval))],
    );
}

#[test]
fn a_read_only_export_permits_no_change() {
    let rules = rules(Mode::Structured, true, true);
    let rows = [
        (command::WRITE, 0, 0, 512, drain(Errno::Perm, 512)),
        (command::WRITE, 0, SIZE, 512, drain(Errno::Perm, 512)),
        (command::TRIM, 0, 0, 512, refuse(Errno::Perm)),
        (command::WRITE_ZEROES, 0, 0, 512, refuse(Errno::Perm)),
        (command::FLUSH, 0, 0, 0, Execute(Command::Flush)),
        (command::READ, 0, 0, 512, Execute(Command::Read { len: 512, unfragmented: false })),
    ];
    check(rules, &rows);
}

/// Whatever a header says: no panic, and what is executed lies within the export
/// and the advertised sizes.
#[test]
fn any_header_is_judged_safely() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut executed, mut violations) = (0, 0);
    for _ in 0..200_000 {
        let mode = [Mode::Simple, Mode::Structured, Mode::Extended][rng.random_range(0..3)];
        let rules = rules(mode, rng.random(), rng.random_bool(0.1));
        let mut bytes = [0; EXTENDED_REQUEST_BYTES];
        rng.fill(&mut bytes[..]);
        let magic = if mode == Mode::Extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        bytes[..4].copy_from_slice(&magic.to_be_bytes());
        let flags: u16 = if rng.random_bool(0.5) { 0 } else { 1 << rng.random_range(0..7) };
        bytes[4..6].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&rng.random_range(0..9u16).to_be_bytes());
        if rng.random_bool(0.8) {
            let offset = rng.random_range(0..SIZE / 512) * 512;
            bytes[16..24].copy_from_slice(&offset.to_be_bytes());
            let magnitude = rng.random_range(1..18);
            let len = rng.random_range(0..1u64 << magnitude) * 512;
            match mode {
                Mode::Extended => bytes[24..32].copy_from_slice(&u64::to_be_bytes(len)),
                _ => bytes[24..28].copy_from_slice(&u32::to_be_bytes(len as u32)),
            }
        }
        let header = rules.parse(&bytes).unwrap();
        match rules.judge(&header) {
            Verdict::Execute(command) => {
                executed += 1;
                let len = match command {
                    Command::Nothing | Command::Flush => continue,
                    Command::Read { len, .. } | Command::Write { len } => {
                        assert!(len <= MAX);
                        u64::from(len)
                    }
                    Command::Trim { len }
                    | Command::WriteZeroes { len, .. }
                    | Command::Status { len, .. } => len,
                };
                assert!(len > 0 && len.is_multiple_of(512) && header.offset.is_multiple_of(512));
                assert!(header.offset + len <= SIZE);
            }
            Verdict::Refuse { payload_bytes, .. } => assert!(payload_bytes <= PAYLOAD_BYTES_MAX),
            Verdict::Violation(_) => violations += 1,
            Verdict::Disconnect => {}
        }
    }
    assert!(executed > 20_000 && violations > 1000, "{executed} {violations}");
}
