//! How many slots a round applies at a time.

use super::{
    super::round::{APPLY_IN_FLIGHT_MAX, Phase},
    rig::{MIB, Rig, Writer, options, write_op},
};
use holdfast_io::BufPool;
use holdfast_types::VolumeId;
use holdfast_wire::RecordOp;

const VOLUME: VolumeId = VolumeId::from_u128(5);

/// The most slots that were applied at a time in a round over `eighths` of the unapplied limit.
fn at_a_time(eighths: u64, before: impl FnOnce(&mut Rig)) -> usize {
    let mut rig = Rig::with(7, 128 * MIB, options());
    rig.create(VOLUME, 1 << 16);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    let pool = BufPool::new(0);
    let records = rig.host.unapplied_max * eighths / 8 / 4096;
    // So that no slot is new.
    for start in (0..records).step_by(64) {
        let ops = (start..records.min(start + 64)).map(|i| write_op(&pool, i * 16, 1, i));
        writer.append(&mut rig, ops.collect());
        writer.commit_all(&mut rig);
        rig.drain();
    }
    let ops = (0..records).map(|i| write_op(&pool, i * 16, 1, i + 1));
    writer.append(&mut rig, ops.collect());
    writer.commit_all(&mut rig);
    before(&mut rig);
    let mut most = 0;
    for _ in 0..10_000 {
        rig.turn();
        most = most.max(rig.host.round.tasks.len());
        if most > 0 && rig.host.round.phase == Phase::Idle {
            return most;
        }
    }
    panic!("no round ended; {most} slots were applied at a time");
}

#[test]
fn a_round_hurries_as_room_gets_short() {
    let calm = at_a_time(2, |_| {});
    let urgent = at_a_time(6, |_| {});
    assert!(calm < APPLY_IN_FLIGHT_MAX * 2 / 3, "{calm} at a time, with room left");
    assert_eq!(urgent, APPLY_IN_FLIGHT_MAX, "with a quarter of the room left");
}

#[test]
fn a_round_hurries_when_nobody_writes_or_someone_waits() {
    let quiet = |rig: &mut Rig| rig.host.tick(1);
    assert_eq!(at_a_time(3, quiet), APPLY_IN_FLIGHT_MAX);
    assert_eq!(at_a_time(3, |rig| rig.host.drain()), APPLY_IN_FLIGHT_MAX);
}
