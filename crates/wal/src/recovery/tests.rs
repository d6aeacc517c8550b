use super::*;
use crate::{
    AppendError, Config, Entry,
    testdisk::{Cut, Rig, Seen},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A log of five frames with an entry each; the third is the one to be spoilt.
struct Five {
    rig: Rig,
    frames: Vec<Position>,
}

const SPOILT: usize = 2;

impl Five {
    /// All in flight at once: no mark covers any of them.
    fn unmarked() -> Self {
        Self::new(|rig| {
            rig.wal.set_window(5);
            rig.flush();
        })
    }

    /// One after the other: each one's mark covers all before it.
    fn marked() -> Self {
        Self::new(Rig::settle)
    }

    fn new(each: impl Fn(&mut Rig)) -> Self {
        let mut rig = Rig::new(4);
        for n in 0..5u8 {
            match usize::from(n) == SPOILT {
                true => {
                    let entry = rig.append_external(&[n]);
                    rig.wal.release(entry)
                }
                false => drop(rig.append(&[n], 1)),
            }
            each(&mut rig);
        }
        rig.settle();
        let frames = rig.placed.iter().map(|placed| placed.frame).collect();
        Self { rig, frames }
    }

    fn at(&self) -> Position {
        self.frames[SPOILT]
    }

    /// Rewrites the fields of the frame to be spoilt and seals it again.
    fn reseal(&mut self, change: impl FnOnce(&mut Header, &mut Ring)) {
        self.reseal_at(self.at(), change);
    }

    fn reseal_at(&mut self, at: Position, change: impl FnOnce(&mut Header, &mut Ring)) {
        let mut ring = self.rig.ring;
        let offset = ring.offset(at) as usize;
        let mut bytes = self.rig.disk.live[offset..offset + 4096].to_vec();
        let frame::Judgement::Sound(mut header) = frame::judge(&ring, at, &bytes) else {
            panic!("sound before it is spoilt")
        };
        change(&mut header, &mut ring);
        header.seal(&ring, &mut bytes);
        self.rig.disk.write_durable(offset, &bytes);
    }

    /// Makes recovery find `finding` there.
    fn spoil(&mut self, finding: Finding) -> Seen {
        let offset = self.rig.offset(self.at());
        match finding {
            Finding::NeverWritten => self.rig.disk.write_durable(offset as usize, &[0; 4096]),
            Finding::NotAFrame => self.rig.disk.flip(offset),
            Finding::BadChecksum => self.rig.disk.flip(offset + 140),
            Finding::OtherStream => {
                self.reseal(|_, ring| ring.stream = crate::StreamId::from_bytes([1; 16]));
            }
            Finding::StaleLife => {
                // As the ring's first life left it, seen from its second.
                self.reseal(|header, ring| {
                    header.position = header.position.plus(ring.config.ring_bytes());
                });
            }
            Finding::WrongChain => self.reseal(|header, _| header.previous ^= 1),
            Finding::OlderIncarnation => self.reseal(|header, _| header.incarnation -= 1),
            Finding::ExternalMissing => {
                return Seen { missing: vec![vec![SPOILT as u8]], ..Seen::default() };
            }
            Finding::Intact | Finding::RingEnd | Finding::TornPayload => {
                panic!("has a test of its own")
            }
        }
        Seen::default()
    }
}

const SPOILABLE: [Finding; 7] = [
    Finding::NeverWritten,
    Finding::NotAFrame,
    Finding::BadChecksum,
    Finding::OtherStream,
    Finding::StaleLife,
    Finding::WrongChain,
    Finding::OlderIncarnation,
];

#[test]
fn a_bad_frame_above_every_mark_ends_the_log() {
    for finding in SPOILABLE.into_iter().chain([Finding::ExternalMissing]) {
        let mut five = Five::unmarked();
        let seen = five.spoil(finding);
        let (seen, end) = five.rig.recover_with(seen).unwrap();
        assert_eq!((end.finding, end.end, end.position), (finding, End::Tail, five.at()));
        assert_eq!(seen.metas, [[0], [1]], "{finding:?}");
        assert!(end.frames_behind >= 2, "{finding:?}: {end}");
        // The log goes on there, and what lay behind never comes back.
        five.rig.append(b"new", 1);
        five.rig.settle();
        let (seen, end) = five.rig.recover().unwrap();
        assert_eq!(seen.metas, [b"\0".to_vec(), b"\x01".to_vec(), b"new".to_vec()]);
        assert!(!end.is_suspect(), "{end}");
    }
}

#[test]
fn a_bad_frame_below_a_mark_is_damage() {
    for finding in SPOILABLE {
        let mut five = Five::marked();
        five.spoil(finding);
        let before = five.rig.disk.live.clone();
        let (seen, end) = five.rig.recover().unwrap();
        assert_eq!((end.finding, end.end, end.position), (finding, End::Damage, five.at()));
        assert_eq!(
            (end.mark, end.mark_source),
            (five.frames[4], MarkSource::Behind(five.frames[4]))
        );
        assert_eq!(seen.metas, [[0], [1]], "what lies before can be read");
        assert!(five.rig.disk.live == before, "a damaged log is left as it is");
    }
}

#[test]
fn a_damaged_log_takes_nothing_more() {
    let mut five = Five::marked();
    five.spoil(Finding::NeverWritten);
    five.rig.recover().unwrap();
    let rig = &mut five.rig;
    assert!(rig.wal.is_damaged());
    let entry = Entry { meta: b"m", crcs: &[], payload: None, external: false };
    assert_eq!(rig.wal.append(entry), Err(AppendError::Damaged));
    rig.wal.request_mark(rig.wal.durable_mark());
    rig.flush();
    assert!(rig.disk.pending().is_empty());
    assert_eq!(rig.wal.durable(), EntryId(2));
}

#[test]
fn torn_payload_is_judged_like_a_torn_header() {
    for (mut five, verdict) in [(Five::unmarked(), End::Tail), (Five::marked(), End::Damage)] {
        let at = five.frames[1];
        five.rig.disk.flip(five.rig.offset(at) + 4096 + 4095);
        let (seen, end) = five.rig.recover().unwrap();
        assert_eq!((end.finding, end.end, end.position), (Finding::TornPayload, verdict, at));
        assert_eq!(seen.metas, [[0]]);
    }
}

#[test]
fn external_data_is_verified_only_where_no_mark_covers_it() {
    let mut five = Five::marked();
    let missing = five.spoil(Finding::ExternalMissing);
    let (seen, end) = five.rig.recover_with(missing).unwrap();
    assert_eq!((seen.metas.len(), seen.verified.len()), (5, 0));
    assert!(!end.is_suspect());

    let mut five = Five::unmarked();
    let (seen, _) = five.rig.recover().unwrap();
    assert_eq!((seen.metas.len(), seen.verified), (5, vec![vec![SPOILT as u8]]));
}

#[test]
fn a_mark_behind_a_hole_covers_external_data_before_it() {
    let mut five = Five::marked();
    let missing = five.spoil(Finding::ExternalMissing);
    let hole = five.frames[SPOILT + 1];
    five.rig.disk.flip(five.rig.offset(hole));
    let (seen, end) = five.rig.recover_with(missing).unwrap();
    assert_eq!((seen.metas.len(), seen.verified.len()), (SPOILT + 1, 0));
    assert_eq!((end.end, end.position), (End::Damage, hole));
}

#[test]
fn the_superblock_alone_is_evidence() {
    // The log is gone from the last frame on; the superblock promised that frame, or not.
    for (promised, verdict) in [(true, End::Damage), (false, End::Tail)] {
        let mut five = Five::marked();
        let last = five.frames[4];
        five.rig.start.mark = if promised { five.rig.wal.durable_mark() } else { last };
        five.rig.disk.write_durable(five.rig.offset(last) as usize, &[0; 4096]);
        let (seen, end) = five.rig.recover().unwrap();
        assert_eq!((end.finding, end.end), (Finding::NeverWritten, verdict));
        assert_eq!((seen.metas.len(), end.mark_source), (4, MarkSource::Start));
    }
}

#[test]
fn the_first_log_is_empty_and_opens_the_first_incarnation() {
    let mut rig = Rig::new(4);
    let (seen, end) = rig.recover().unwrap();
    assert_eq!(seen, Seen::default());
    assert_eq!((end.finding, end.position.get()), (Finding::NeverWritten, 4096));
    assert_eq!((end.entries, end.frames, end.incarnation), (0, 1, 2));
    assert_eq!(
        end.to_string(),
        "log ends at 4096: never written; durable mark 0 from the superblock; \
         0 entries in 1 frames"
    );
}

#[test]
fn a_recovered_log_is_recorded_as_durable_at_once() {
    let mut rig = Rig::new(4);
    rig.append(b"a", 1);
    rig.settle();
    let end = rig.recover().unwrap().1;
    assert_eq!(rig.wal.recorded_mark(), end.position);
    assert_eq!(rig.wal.durable_mark(), rig.wal.cut().position);
    rig.disk.flip(rig.offset(Position::new(4096)));
    assert!(rig.recover().unwrap().1.is_suspect());
}

#[test]
fn a_full_ring_ends_the_walk_at_its_own_start() {
    let mut rig = Rig::new(4);
    let mut restarts = 0;
    let error = loop {
        match rig.recover() {
            Ok((_, end)) => assert!(!end.is_suspect(), "{end}"),
            Err(error) => break error,
        }
        restarts += 1;
    };
    assert!(matches!(error, RecoverError::NoRoom));
    assert_eq!(restarts, rig.ring.config.ring_bytes() / 4096 - 1);
    // A mark beyond the ring cannot be kept.
    rig.start.mark = rig.ring.limit(rig.start.position).plus(4096);
    let (_, end) = rig.recover().unwrap();
    assert_eq!((end.finding, end.end), (Finding::RingEnd, End::Damage));
}

#[test]
fn identical_entries_written_again_do_not_bring_a_discarded_tail_back() {
    let mut five = Five::unmarked();
    let at = five.frames[0];
    five.rig.disk.flip(five.rig.offset(at));
    for n in 0..3 {
        let (seen, _) = five.rig.recover().unwrap();
        assert_eq!(seen.metas.len(), n, "the discarded frames lie intact behind");
        five.rig.append(&[n as u8], 1);
        five.rig.settle();
    }
}

#[test]
fn an_incarnation_is_never_used_twice() {
    let mut five = Five::unmarked();
    five.rig.disk.flip(five.rig.offset(five.frames[0]));
    let mut last = 0;
    for _ in 0..4 {
        let end = five.rig.recover().unwrap().1;
        assert!(end.incarnation > last);
        last = end.incarnation;
        assert_eq!(five.rig.wal.cut().incarnation, last);
    }
}

#[test]
fn incarnations_seen_behind_the_end_are_over_too() {
    let mut five = Five::unmarked();
    five.rig.disk.flip(five.rig.offset(five.frames[0]));
    five.reseal(|header, _| header.incarnation = 9);
    assert_eq!(five.rig.recover().unwrap().1.incarnation, 10);
}

/// The first sector of a frame arrives, the others do not; recovery discards it
/// and is itself cut short, twice, while it writes to the same block.
#[test]
fn a_torn_frame_is_never_completed_by_what_recovery_writes() {
    const MASKS: [u8; 4] = [0xfe, 0x01, 0x00, 0xaa];
    // Of the sync, the wipe and the open frame, how many succeed.
    const FUSES: [u32; 2] = [1, 2];
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for (fuses, masks) in pairs(&FUSES).flat_map(|f| pairs(&MASKS).map(move |m| (f, m))) {
        let mut rig = Rig::new(4);
        let at = rig.wal.cut().position;
        let offset = rig.offset(at) as usize;
        // An earlier life left something in all of the block.
        rig.disk.write_durable(offset, &[0xaa; 4096]);
        rig.append(b"torn", 0);
        rig.flush();
        rig.disk.power_cut(Cut::Mask(0x01), &mut rng);
        for (fuse, mask) in [(fuses.0, masks.0), (fuses.1, masks.1)] {
            rig.disk.fuse = Some(fuse);
            match rig.recover() {
                Ok((seen, _)) => assert!(seen.metas.is_empty()),
                Err(error) => assert!(matches!(error, RecoverError::Disk(_))),
            }
            rig.disk.power_cut(Cut::Mask(mask), &mut rng);
        }
        let (seen, end) = rig.recover().unwrap();
        assert!(seen.metas.is_empty(), "{fuses:?} {masks:x?}: a discarded frame came back");
        assert!(!end.is_suspect());
    }
}

fn pairs<T: Copy>(of: &[T]) -> impl Iterator<Item = (T, T)> {
    of.iter().flat_map(move |a| of.iter().map(move |b| (*a, *b)))
}

#[test]
fn what_a_killed_process_left_in_the_cache_is_made_durable_first() {
    let mut rig = Rig::new(4);
    rig.append(b"a", 1);
    rig.flush();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    // All of the write reached the cache, nothing was flushed.
    let (_, op) = &rig.disk.pending()[0];
    let Op::Write { offset, bufs, .. } = op else { panic!("a write") };
    let (offset, bufs) = (*offset as usize, bufs.clone());
    let mut at = offset;
    for buf in &bufs {
        rig.disk.write_cached(at, buf);
        at += buf.len();
    }
    rig.disk.forget_in_flight();
    assert_eq!(rig.recover().unwrap().0.metas.len(), 1);
    rig.disk.power_cut(Cut::Lost, &mut rng);
    assert_eq!(rig.recover().unwrap().0.metas.len(), 1, "it was shown, so it stays");
}

#[test]
fn entries_come_back_with_everything_that_was_appended() {
    let mut rig = Rig::new(4);
    for n in 0..40u8 {
        rig.append(&[n; 200], usize::from(n % 3));
    }
    rig.settle();
    let placed = rig.placed.clone();
    let (seen, end) = rig.recover().unwrap();
    assert_eq!(end.entries, 40);
    for (n, placed) in placed.iter().enumerate() {
        assert_eq!(seen.metas[n], [n as u8; 200]);
        assert_eq!(seen.frames[n], placed.frame);
        assert_eq!(seen.payloads[n], (placed.payload_at, (n as u32 % 3) * 4096));
    }
    assert_eq!(rig.append(b"next", 0), EntryId(41));
}

/// A liveness bound only; the figure is for whoever runs it in release mode.
#[test]
fn recovery_reads_a_large_log_in_little_time() {
    let config = Config { segment_bytes: 16 << 20, segments: 6 };
    let mut rig = Rig::with_config(config);
    while rig.wal.free_bytes() >= Entry::ring_bytes(64 * 4096) {
        for n in 0..32u8 {
            rig.append(&[n; 96], 1);
        }
        rig.settle();
    }
    rig.disk.bytes_read = 0;
    let started = std::time::Instant::now();
    let end = rig.recover().unwrap().1;
    let took = started.elapsed();
    println!("{} entries, {} bytes of log in {took:?}", end.entries, end.log_bytes);
    assert!(end.log_bytes > 4 * config.segment());
    let ring = config.ring_bytes();
    assert!(rig.disk.bytes_read < ring + ring / 8, "each byte is read about once");
    assert!(took.as_secs() < 20);
}

#[test]
fn two_lost_segments_do_not_hide_what_later_ones_tell() {
    let mut rig = Rig::new(12);
    let segment = rig.ring.config.segment();
    while rig.wal.cut().position.get() < 2 * segment + segment / 2 {
        rig.append(b"x", 8);
        rig.settle();
    }
    // From inside the first segment on, all of it and of the second is gone.
    let hole = rig.placed[3].frame;
    let offset = rig.offset(hole) as usize;
    let lost = (2 * segment - hole.get()) as usize;
    rig.disk.write_durable(offset, &vec![0; lost]);
    let (seen, end) = rig.recover().unwrap();
    assert_eq!((seen.metas.len(), end.end, end.position), (3, End::Damage, hole));
    assert!(matches!(end.mark_source, MarkSource::Behind(at) if at.get() >= 2 * segment), "{end}");
}
