//! What must not go on once the disk has failed.

use super::{
    super::{Event, TOKEN_OWNER, round::Phase},
    rig::{Rig, Writer},
};
use holdfast_io::{Completion, Disk, DiskError, DiskErrorKind, IoQueue, Token};
use holdfast_types::VolumeId;

const VOLUME: VolumeId = VolumeId::from_u128(5);

fn start() -> (Rig, Writer) {
    let mut rig = Rig::new(1);
    rig.create(VOLUME, 4096);
    let writer = Writer::attach(&mut rig, VOLUME, 1);
    (rig, writer)
}

/// Starts a write to a fresh slot and fails it, before anything else ends.
fn fail_fresh_write(rig: &mut Rig, writer: &mut Writer, queue: &mut IoQueue) {
    writer.write(rig, 1024, 16, 1);
    rig.host.flush(queue);
    let mut failing = None;
    for (token, op) in queue.drain().collect::<Vec<(Token, _)>>() {
        match (token.0 >> 56) as u8 {
            TOKEN_OWNER => assert!(failing.replace(token).is_none(), "one fresh write"),
            _ => queue.push(token, op),
        }
    }
    rig.disk.submit(queue);
    let error = DiskError {
        op: "write",
        file: "data".to_owned(),
        offset: 0,
        len: 0,
        kind: DiskErrorKind::Io,
        message: "injected".to_owned(),
    };
    rig.host.complete(Completion { token: failing.unwrap(), result: Err(error) });
    rig.host.drain_events(&mut rig.events);
    assert!(rig.events.iter().any(|event| matches!(event, Event::DiskFailed(_))));
}

#[test]
fn what_waits_for_the_log_when_the_data_area_fails_stays_out_of_it() {
    let (mut rig, mut writer) = start();
    writer.commit_all(&mut rig);
    let mut queue = IoQueue::new();
    for i in 0..holdfast_wal::WINDOW_DEFAULT as u64 + 2 {
        writer.write(&mut rig, i, 1, i);
        rig.host.flush(&mut queue);
    }
    fail_fresh_write(&mut rig, &mut writer, &mut queue);
    let head = rig.host.wal.cut().position;
    rig.settle();
    assert_eq!(rig.host.wal.cut().position, head, "nothing is logged any more");
}

/// Its flush may have lost what was applied before: another sync would not say.
#[test]
fn a_checkpoint_ends_with_the_disk() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 4, 1);
    writer.commit_all(&mut rig);
    rig.host.drain();
    while rig.host.round.phase != Phase::Checkpoint {
        rig.turn();
    }
    fail_fresh_write(&mut rig, &mut writer, &mut IoQueue::new());
    rig.settle();
    assert_eq!(rig.host.round.phase, Phase::Checkpoint, "it was completed");
}
