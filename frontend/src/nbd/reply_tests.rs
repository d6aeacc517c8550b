use super::*;

const ECHO: Echo = Echo { cookie: 0x0123_4567_89ab_cdef, offset: 0x1_0000_0200 };
const COOKIE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
const OFFSET: [u8; 8] = [0, 0, 0, 1, 0, 0, 2, 0];

fn encoder(mode: Mode) -> Encoder {
    Encoder::new(mode)
}

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn simple_replies_byte_by_byte() {
    let simple = encoder(Mode::Simple);
    let magic = [0x67, 0x44, 0x66, 0x98];
    assert_eq!(simple.done(ECHO)[..], cat(&[&magic, &[0, 0, 0, 0], &COOKIE]));
    assert_eq!(simple.data(ECHO, 512)[..], cat(&[&magic, &[0, 0, 0, 0], &COOKIE]));
    let error = simple.error(ECHO, Errno::NoSpc, "full");
    assert_eq!(error[..], cat(&[&magic, &[0, 0, 0, 28], &COOKIE]));
}

#[test]
fn structured_chunks_byte_by_byte() {
    let structured = encoder(Mode::Structured);
    let magic = [0x66, 0x8e, 0x33, 0xef];
    let none = cat(&[&magic, &[0, 1], &[0, 0], &COOKIE, &[0, 0, 0, 0]]);
    assert_eq!(structured.done(ECHO)[..], none);
    let data = cat(&[&magic, &[0, 1], &[0, 1], &COOKIE, &[0, 0, 2, 8], &OFFSET]);
    assert_eq!(structured.data(ECHO, 512)[..], data);
    let at = [0, 0, 0, 1, 0, 0, 4, 0];
    let part = cat(&[&magic, &[0, 0], &[0, 1], &COOKIE, &[0, 0, 2, 8], &at]);
    assert_eq!(structured.data_chunk(ECHO, 0x1_0000_0400, 512, false)[..], part);
    let hole = cat(&[&magic, &[0, 1], &[0, 2], &COOKIE, &[0, 0, 0, 12], &at, &[0, 0x10, 0, 0]]);
    assert_eq!(structured.hole_chunk(ECHO, 0x1_0000_0400, 1 << 20, true)[..], hole);
    let error = cat(&[
        &magic,
        &[0, 1],
        &[0x80, 1],
        &COOKIE,
        &[0, 0, 0, 10],
        &[0, 0, 0, 5],
        &[0, 4],
        b"disk",
    ]);
    assert_eq!(structured.error(ECHO, Errno::Io, "disk")[..], error);
}

#[test]
fn extended_chunks_byte_by_byte() {
    let extended = encoder(Mode::Extended);
    let magic = [0x6e, 0x8a, 0x27, 0x8c];
    let len = |len: u8| [0, 0, 0, 0, 0, 0, 0, len];
    let none = cat(&[&magic, &[0, 1], &[0, 0], &COOKIE, &OFFSET, &len(0)]);
    assert_eq!(none.len(), 32);
    assert_eq!(extended.done(ECHO)[..], none);
    let at = [0, 0, 0, 1, 0, 0, 4, 0];
    let data = cat(&[&magic, &[0, 0], &[0, 1], &COOKIE, &OFFSET, &len(24), &at]);
    assert_eq!(extended.data_chunk(ECHO, 0x1_0000_0400, 16, false)[..], data);
    let hole = cat(&[&magic, &[0, 1], &[0, 2], &COOKIE, &OFFSET, &len(12), &at, &[0, 0, 2, 0]]);
    assert_eq!(extended.hole_chunk(ECHO, 0x1_0000_0400, 512, true)[..], hole);
    let error =
        cat(&[&magic, &[0, 1], &[0x80, 1], &COOKIE, &OFFSET, &len(6), &[0, 0, 0, 108], &[0, 0]]);
    assert_eq!(extended.error(ECHO, Errno::Shutdown, "")[..], error);
}

fn extent(len: u64, allocated: bool) -> Extent {
    Extent { len, allocated }
}

#[test]
fn block_status_byte_by_byte() {
    let extents = [extent(4096, true), extent(8192, false)];
    let mut scratch = vec![9; 3];
    let structured = cat(&[
        &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 5],
        &COOKIE,
        &[0, 0, 0, 20],
        &[0, 0, 0, 1], // context
        &[0, 0, 0x10, 0, 0, 0, 0, 0],
        &[0, 0, 0x20, 0, 0, 0, 0, 3],
    ]);
    let got = encoder(Mode::Structured).status(ECHO, &extents, 12288, false, &mut scratch);
    assert_eq!(got, structured);
    let extended = cat(&[
        &[0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 6],
        &COOKIE,
        &OFFSET,
        &[0, 0, 0, 0, 0, 0, 0, 40],
        &[0, 0, 0, 1], // context
        &[0, 0, 0, 2], // descriptors
        &[0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 3],
    ]);
    let got = encoder(Mode::Extended).status(ECHO, &extents, 12288, false, &mut scratch);
    assert_eq!(got, extended);
}

/// The descriptors of an extended reply as (length, flags).
fn descriptors(extents: &[Extent], asked: u64, one: bool) -> Vec<(u64, u64)> {
    let mut scratch = Vec::new();
    let bytes = encoder(Mode::Extended).status(ECHO, extents, asked, one, &mut scratch);
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(word(24) as usize, bytes.len() - 32);
    let count = u32::from_be_bytes(bytes[36..40].try_into().unwrap()) as usize;
    assert_eq!(bytes.len(), 40 + 16 * count);
    (0..count).map(|i| (word(40 + 16 * i), word(48 + 16 * i))).collect()
}

#[test]
fn extents_are_joined_cut_and_limited() {
    let extents = [
        extent(4096, true),
        extent(0, false),
        extent(4096, true),
        extent(4096, false),
        extent(1 << 40, false),
    ];
    assert_eq!(descriptors(&extents, 16384, false), [(8192, 0), (8192, 3)]);
    assert_eq!(descriptors(&extents, 16384, true), [(8192, 0)]);
    assert_eq!(descriptors(&extents, 4096, true), [(4096, 0)]);
    assert_eq!(descriptors(&extents, 1 << 41, false), [(8192, 0), ((1 << 40) + 4096, 3)]);
    let many: Vec<_> = (0..3 * EXTENTS_MAX).map(|i| extent(4096, i % 2 == 0)).collect();
    assert_eq!(descriptors(&many, u64::MAX, false).len(), EXTENTS_MAX);
}

#[test]
fn extents_too_long_for_32_bits_are_cut() {
    let mut scratch = Vec::new();
    let extents = [extent(0x1_0000_0000, false)];
    let bytes = encoder(Mode::Structured).status(ECHO, &extents, 1 << 33, false, &mut scratch);
    let tail = [0xff, 0xff, 0, 0, 0, 0, 0, 3, 0, 1, 0, 0, 0, 0, 0, 3];
    assert_eq!(bytes[24..], tail);
}
