//! I8: a promise, an acknowledgement or a membership answer leaves after it is on
//! disk. Seen from outside: nothing that was answered is ever taken back.

use super::{Invariant::I8PersistBeforePromise, Violation, ensure};
use crate::model::VolumeModel;
use holdfast_types::{Epoch, Lsn};
use holdfast_wire::{Ack, Promise};

/// A later promise is for the epoch asked for and does not fall behind what
/// earlier answers said.
pub fn check_promise(
    volume: &VolumeModel,
    asked: Epoch,
    promise: &Promise,
) -> Result<(), Violation> {
    ensure(I8PersistBeforePromise, promise.epoch == asked, || {
        format!("{}: asked for epoch {asked}, promised {}", volume.id, promise.epoch)
    })?;
    check_answered(volume, volume.promised, promise.last_lsn)
}

/// The promised epoch and the log's end after a crash.
pub fn check_answered(volume: &VolumeModel, promised: Epoch, last: Lsn) -> Result<(), Violation> {
    ensure(I8PersistBeforePromise, promised >= volume.promised, || {
        format!("{}: epoch {promised} is promised, was {}", volume.id, volume.promised)
    })?;
    ensure(I8PersistBeforePromise, last >= volume.answered, || {
        format!("{}: the log ends at LSN {last}, {} was answered", volume.id, volume.answered)
    })
}

/// An acknowledgement covers only what was sent.
pub fn check_ack(volume: &VolumeModel, ack: &Ack) -> Result<(), Violation> {
    ensure(I8PersistBeforePromise, ack.durable_lsn <= volume.sent, || {
        format!("{}: LSN {} is acknowledged, {} sent", volume.id, ack.durable_lsn, volume.sent)
    })
}

/// A replica's promise outlives whatever happens to its process.
pub fn check_kept(node: usize, answered: Epoch, promised: Epoch) -> Result<(), Violation> {
    ensure(I8PersistBeforePromise, promised >= answered, || {
        format!("node {node}: epoch {promised} is promised, {answered} was answered")
    })
}

/// And so does what it said of its log.
pub fn check_log_kept(node: usize, answered: Lsn, last: Lsn) -> Result<(), Violation> {
    ensure(I8PersistBeforePromise, last >= answered, || {
        format!("node {node}: its log ends at LSN {last}, {answered} was answered")
    })
}
