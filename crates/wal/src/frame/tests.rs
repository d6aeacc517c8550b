use super::*;
use crate::{
    Entry, EntryId,
    testdisk::{Rig, ring},
};
use holdfast_io::Op;

/// The frames that format 1 writes for the entries of [`write_sample`], header
/// blocks only, as lines of 32 bytes in hex; `*` repeats the line above.
const GOLDEN: &str = include_str!("../../tests/golden/frames-v1.hex");

/// A frame with two entries, one of them external, and a mark frame.
fn write_sample(rig: &mut Rig) {
    rig.append(b"first", 2);
    let external = rig.append_external(b"second, elsewhere");
    rig.wal.release(external);
    rig.settle();
    rig.wal.request_mark(rig.wal.durable_mark());
}

fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut last: Option<String> = None;
    for line in bytes.chunks(32) {
        let line: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        if last.as_ref() != Some(&line) {
            out.push_str(&line);
            out.push('\n');
        } else if !out.ends_with("*\n") {
            out.push_str("*\n");
        }
        last = Some(line);
    }
    out
}

#[test]
fn the_bytes_of_format_1_are_pinned() {
    let mut rig = Rig::new(4);
    write_sample(&mut rig);
    let mut found = String::new();
    let base = rig.ring.base as usize;
    for (name, at) in [("open", 0), ("entries", 4096)] {
        let block = &rig.disk.live[base + at..base + at + 4096];
        found.push_str(&format!("# {name} at {at}\n{}", to_hex(block)));
    }
    rig.flush();
    match &rig.disk.pending()[0].1 {
        Op::Write { bufs, .. } => {
            found.push_str(&format!("# mark at 16384\n{}", to_hex(&bufs[0])));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(found, GOLDEN, "a change of layout needs a new version");
}

#[test]
fn frames_of_format_1_are_read() {
    let mut rig = Rig::new(4);
    let base = rig.ring.base as usize;
    let mut at = base;
    let mut line = Vec::new();
    for text in GOLDEN.lines() {
        if let Some((_, place)) = text.split_once(" at ") {
            at = base + place.parse::<usize>().unwrap();
            line = vec![0; 32];
            continue;
        }
        if text == "*" {
            // Runs of equal lines are zeroes, which the disk has already.
            assert!(line.iter().all(|byte| *byte == 0));
            continue;
        }
        line = (0..32).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect();
        rig.disk.write_durable(at, &line);
        at += 32;
    }
    rig.disk.write_durable(base + 8192, &[b'f'; 8192]);
    let (seen, end) = rig.recover().unwrap();
    assert_eq!(seen.metas, [b"first".to_vec(), b"second, elsewhere".to_vec()]);
    assert_eq!(seen.verified, Vec::<Vec<u8>>::new(), "the mark covers it");
    assert_eq!((end.entries, end.frames, end.mark.get()), (2, 3, 16384));
    assert_eq!(rig.wal.durable(), EntryId(2));
}

#[test]
fn a_newer_format_is_refused_with_position_and_versions() {
    let mut rig = Rig::new(4);
    rig.append(b"a", 0);
    let position = rig.wal.cut().position;
    rig.settle();
    let offset = rig.offset(position) as usize;
    let mut block = rig.disk.live[offset..offset + 4096].to_vec();
    put32(&mut block, VERSION_AT, VERSION + 1);
    let crc = checksum(&block, rig.ring.stream, 0);
    put32(&mut block, CRC_AT, crc);
    rig.disk.write_durable(offset, &block);
    let before = rig.disk.live.clone();
    let error = rig.recover().err().map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some(
            "the log at 4096 has format 2, newer than 1, which this version understands; \
             upgrade holdfast"
        )
    );
    assert!(rig.disk.live == before, "nothing was changed");
}

#[test]
fn a_torn_version_field_is_not_taken_for_a_newer_format() {
    let mut rig = Rig::new(4);
    rig.append(b"a", 0);
    let position = rig.wal.cut().position;
    rig.settle();
    rig.disk.flip(rig.offset(position) + VERSION_AT as u64 + 1);
    assert_eq!(rig.recover().unwrap().1.finding, Finding::BadChecksum);
}

fn sample(position: Position) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let mut entries = Vec::new();
    Entry { meta: b"meta", crcs: &[7, 8], payload: None, external: true }.encode(&mut entries);
    bytes[FIXED_BYTES..FIXED_BYTES + entries.len()].copy_from_slice(&entries);
    let header = Header { entries: 1, ..Header::empty(FrameKind::Entries, position) };
    header.seal(&ring(4), &mut bytes);
    bytes
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let position = Position::new(3 * 4096);
    let good = sample(position);
    assert!(matches!(judge(&ring(4), position, &good), Judgement::Sound(_)));
    for bit in 0..8 * 4096 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let judgement = judge(&ring(4), position, &bad);
        assert_eq!(judgement, Judgement::Bad(Finding::BadChecksum), "bit {bit}");
    }
}

#[test]
fn a_sound_frame_passes_only_in_its_place_life_and_stream() {
    let ring = ring(4);
    let position = Position::new(3 * 4096);
    let good = sample(position);
    let next_life = position.plus(ring.config.ring_bytes());
    assert!(matches!(judge(&ring, next_life, &good), Judgement::Stale(_)));
    let elsewhere = position.plus(4096);
    assert_eq!(judge(&ring, elsewhere, &good), Judgement::Bad(Finding::StaleLife));
    let other = Ring { stream: StreamId::from_bytes([9; 16]), ..ring };
    assert_eq!(judge(&other, position, &good), Judgement::Bad(Finding::OtherStream));
}

#[test]
fn sealed_nonsense_is_not_a_frame() {
    let ring = ring(4);
    let position = Position::new(4096);
    let base = Header::empty(FrameKind::Entries, position);
    let nonsense = [
        base,
        Header { entries: 1, payload_blocks: 1, ..base },
        Header { entries: u32::MAX, ..base },
        Header { kind: FrameKind::Mark, payload_blocks: 1, ..base },
        Header { kind: FrameKind::Mark, mark: position.plus(1), ..base },
    ];
    for header in nonsense {
        let mut bytes = vec![0; 4096];
        header.seal(&ring, &mut bytes);
        let judgement = judge(&ring, position, &bytes);
        assert_eq!(judgement, Judgement::Bad(Finding::NotAFrame), "{header:?}");
    }
}
