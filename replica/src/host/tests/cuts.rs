//! Power goes in the middle of a round: what is in place by then can still be shown to
//! a replica that catches up, though no engine has come since.

use super::{
    super::{Event, round::Phase},
    rig::{Rig, Writer, values},
};
use holdfast_types::{Epoch, Lsn, SlotNo, VolumeId};
use holdfast_wire::RecordOp;

const VOLUME: VolumeId = VolumeId::from_u128(1);
const BLOCKS: u64 = 96;

/// A volume written twice: applied the first time, and the second time committed, of which the
/// log says nothing, since no record came after.
fn written(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    rig.create(VOLUME, BLOCKS);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    for value in [1000, 2000] {
        for block in 0..BLOCKS {
            writer.write(&mut rig, block, 1, value + block);
        }
        writer.commit_all(&mut rig);
        if value == 1000 {
            rig.drain();
        }
    }
    rig
}

/// Where the replica stands when it is asked for its slots, and all that they say.
fn shown(rig: &mut Rig) -> (Lsn, Vec<u64>) {
    let tag = rig.tag();
    let settled = rig.host.volumes()[0].commit_lsn;
    rig.host.source_open(tag, VOLUME, Lsn::ZERO, settled);
    let opened = rig.wait(|event| match event {
        Event::SourceOpened { result, .. } => Some(result.clone().unwrap()),
        _ => None,
    });
    let (mut next, mut blocks) = (Some(SlotNo::new(0)), Vec::new());
    while let Some(from) = next {
        let tag = rig.tag();
        rig.host.source_slots(tag, VOLUME, from, Lsn::ZERO);
        let (slots, more, _) = rig.wait(|event| match event {
            Event::SourceSlots { result, .. } => Some(result.clone().unwrap()),
            _ => None,
        });
        next = more;
        blocks.extend(slots.iter().flat_map(|slot| values(&slot.data)));
    }
    (opened.applied, blocks)
}

#[test]
fn after_a_cut_at_any_moment_of_a_round_every_slot_can_be_shown() {
    let (mut before, mut in_it) = (0, 0);
    for turns in 0.. {
        let mut rig = written(turns);
        rig.host.drain();
        (0..turns).for_each(|_| rig.turn());
        if rig.host.is_drained() {
            break;
        }
        in_it += u64::from(rig.host.round.phase == Phase::Applying);
        rig.crash();
        let (applied, blocks) = shown(&mut rig);
        let old = blocks.iter().filter(|value| **value < 2000).count() as u64;
        assert_eq!(blocks.len() as u64, BLOCKS, "cut in turn {turns}");
        assert_eq!(old, 1 + 2 * BLOCKS - applied.get(), "exact as of {applied}");
        before += u64::from(old > 0);
    }
    assert!(before > 0 && in_it > 0, "{before} cuts before the note, {in_it} while applying");
}

/// What a volume's last records say, and the note that makes up for them, is needed by the
/// round that applies them only.
#[test]
fn a_note_is_written_once_and_is_no_work() {
    let mut rig = written(1);
    rig.drain();
    let head = rig.host.wal.cut().position;
    assert!(!rig.host.has_work());
    rig.drain();
    rig.settle();
    assert_eq!(rig.host.wal.cut().position, head, "nothing more is logged");
    assert_eq!(rig.host.volumes()[0].applied_lsn, Lsn::new(1 + 2 * BLOCKS));
    rig.crash();
    let mut writer = Writer::attach(&mut rig, VOLUME, 2);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    writer.commit_all(&mut rig);
    assert_eq!(writer.read(&mut rig, 7, 2), [2007, 2008]);
    assert_eq!(rig.host.volumes()[0].promised, Epoch::new(2));
}
