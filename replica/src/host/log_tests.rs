use super::*;
use holdfast_types::BlockNo;

fn record(epoch: u64) -> LogRecord {
    let range = BlockRange::new(BlockNo::new(0), 1);
    LogRecord { epoch: Epoch::new(epoch), op: LogOp::Discard { range }, logged: None }
}

/// A log that has applied up to 3 (epoch 1) and holds 4, 5 of epoch 1 and 6 of epoch 2.
fn log() -> VolumeLog {
    let epochs = vec![EpochSpan { epoch: Epoch::new(1), first: Lsn::new(1) }];
    let mut log = VolumeLog::new(Lsn::new(3), Epoch::new(1), Epoch::new(2), epochs, 100);
    for epoch in [1, 1, 2] {
        log.step(Step::Push(record(epoch)));
    }
    log
}

#[test]
fn the_epoch_of_every_record_is_known() {
    let log = log();
    let epochs: Vec<_> = (0..8).map(|n| log.epoch_at(Lsn::new(n)).map(Epoch::get)).collect();
    let expected = [Some(0), Some(1), Some(1), Some(1), Some(1), Some(1), Some(2), None];
    assert_eq!(epochs, expected);
    assert_eq!((log.last().get(), log.last_epoch().get()), (6, 2));
}

#[test]
fn only_what_is_committed_matched_and_durable_can_be_applied() {
    let mut log = log();
    log.step(Step::Commit(Lsn::new(5)));
    assert_eq!(log.settled().get(), 3, "committed, but it may be another record");
    log.step(Step::Match(StreamSession(1), Lsn::new(4)));
    assert_eq!((log.settled().get(), log.readable().get()), (4, 4));
    assert_eq!(log.appliable().get(), 3, "not durable");
    log.step(Step::Durable(Lsn::new(6)));
    assert_eq!(log.appliable().get(), 4);
    log.step(Step::Match(StreamSession(1), Lsn::new(6)));
    assert_eq!((log.settled().get(), log.appliable().get(), log.readable().get()), (5, 5, 6));
}

#[test]
fn a_new_promise_forgets_what_the_old_engine_matched() {
    let mut log = log();
    log.step(Step::Match(StreamSession(1), Lsn::new(6)));
    log.step(Step::Promise(Epoch::new(3)));
    assert!(log.stream().is_none());
    log.step(Step::Commit(Lsn::new(6)));
    assert_eq!(log.settled().get(), 3);
}

#[test]
fn truncation_takes_records_marks_and_epochs_back() {
    let mut log = log();
    log.step(Step::Durable(Lsn::new(6)));
    log.step(Step::Match(StreamSession(1), Lsn::new(6)));
    while log.last() > Lsn::new(4) {
        log.pop();
    }
    log.step(Step::Truncate(Lsn::new(4)));
    assert_eq!((log.last().get(), log.durable().get(), log.readable().get()), (4, 4, 4));
    assert_eq!(log.epochs().len(), 1);
    assert_eq!(log.accept_truncate(Epoch::new(2), Lsn::new(2)), Err(log.mismatch()));
    assert!(log.accept_truncate(Epoch::new(2), Lsn::new(3)).is_ok());
    assert!(matches!(log.accept_truncate(Epoch::new(1), Lsn::new(4)), Err(Refusal::Fenced { .. })));
}

#[test]
fn applying_goes_to_the_floor_and_no_further() {
    let mut log = log();
    log.recovered(Lsn::new(5));
    assert_eq!((log.settled().get(), log.durable().get()), (5, 6));
    log.step(Step::Floor(Lsn::new(5)));
    assert_eq!(log.pop_applied().map(|(lsn, _)| lsn.get()), Some(4));
    assert_eq!(log.pop_applied().map(|(lsn, _)| lsn.get()), Some(5));
    log.step(Step::Applied(Lsn::new(5)));
    assert_eq!((log.applied().get(), log.applied_epoch().get(), log.last().get()), (5, 1, 6));
    assert_eq!(log.record(Lsn::new(5)).is_none(), log.record(Lsn::new(6)).is_some());
}

#[test]
#[should_panic(expected = "only settled is applied")]
fn what_is_not_settled_is_not_applied() {
    log().step(Step::Floor(Lsn::new(4)));
}

#[test]
#[should_panic(expected = "epochs never go back")]
fn a_record_of_an_older_epoch_cannot_follow() {
    log().step(Step::Push(record(1)));
}

#[test]
#[should_panic(expected = "promises never go back")]
fn a_promise_cannot_be_lowered() {
    log().step(Step::Promise(Epoch::new(1)));
}

#[test]
fn old_epoch_spans_are_dropped_as_the_store_drops_them() {
    let mut log = VolumeLog::new(Lsn::ZERO, Epoch::ZERO, Epoch::ZERO, Vec::new(), 1);
    for epoch in 1..=200 {
        log.step(Step::Push(record(epoch)));
    }
    log.recovered(Lsn::new(200));
    log.step(Step::Floor(Lsn::new(200)));
    while log.pop_applied().is_some() {}
    log.step(Step::Applied(Lsn::new(200)));
    assert_eq!(log.epochs().len(), EPOCHS_KEPT);
    assert_eq!(log.epoch_at(Lsn::new(200)), Some(Epoch::new(200)));
    assert_eq!(log.epoch_at(Lsn::new(3)), None, "too old to be known");
}
