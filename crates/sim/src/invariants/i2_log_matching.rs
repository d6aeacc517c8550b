//! I2: two replicas whose logs share (epoch, LSN) share everything before it.
//! Each log is compared with the one history that its last record can have.

use super::{Invariant::I2LogMatching, Violation, ensure};
use crate::model::{Lineage, Point};
use holdfast_replica::VolumeReport;
use holdfast_types::{Epoch, EpochSpan, Lsn, VolumeId};

/// A record is sent that is not what it was, or not behind what it was.
pub fn check_sent(volume: VolumeId, sent: Result<(), String>) -> Result<(), Violation> {
    sent.map_err(|what| Violation { invariant: I2LogMatching, what: format!("{volume}: {what}") })
}

/// The epoch of record `lsn` by an epoch history; zero before the first.
#[must_use]
pub fn epoch_at(spans: &[EpochSpan], lsn: Lsn) -> Epoch {
    spans.iter().rev().find(|span| span.first <= lsn).map_or(Epoch::ZERO, |span| span.epoch)
}

/// A replica's log is the one that ends where it ends.
pub fn check_log(node: usize, lineage: &Lineage, report: &VolumeReport) -> Result<(), Violation> {
    let end = Point { lsn: report.last_lsn, epoch: epoch_at(&report.epochs, report.last_lsn) };
    let told = || format!("{} on node {node}", report.volume);
    ensure(I2LogMatching, lineage.knows(end), || {
        format!("{}: its log ends with {end:?}, which nobody ever sent", told())
    })?;
    let expected = lineage.spans(end);
    // Only the newest spans are kept for ever.
    let kept = &expected[expected.len() - report.epochs.len().min(expected.len())..];
    ensure(
        I2LogMatching,
        report.epochs == kept && (kept.len() == expected.len() || kept.len() >= 128),
        || {
            format!(
                "{}: its log up to {end:?} has epochs {:?}, not {expected:?}",
                told(),
                report.epochs
            )
        },
    )
}
