//! Cuts of power while a disk is being formatted. What is left is a disk that is
//! formatted, and empty, or one that is not and can be formatted again; whatever
//! was half done, a node that comes up gets a sound disk out of it.

use super::Shape;
use crate::{
    counts::Counts,
    disk::SimDisk,
    invariants::{
        Violation,
        i5_nothing_acknowledged_is_lost::{check_formatted, check_opens},
        i7_applied_is_committed::check_store,
    },
    rng::SimRng,
    trace::Trace,
};
use holdfast_io::BufPool;
use holdfast_replica::{FsckOptions, Host, HostError, fsck};

/// Disks whose format is cut, among a hundred.
const CUT_PERCENT: u32 = 60;
/// Formats of one disk that are cut at most.
const CUTS_MAX: u32 = 4;
/// The last operations of a format write the superblocks: half of the cuts fall there.
const LAST_COMPLETIONS: u64 = 6;

/// A disk that was formatted, now and then in several attempts.
pub(super) fn formatted(
    seed: u64,
    shape: &Shape,
    pool: &BufPool,
    trace: &Trace,
) -> Result<(SimDisk, Counts), Violation> {
    let mut rng = SimRng::of(seed, "format");
    let mut disk = SimDisk::new(seed, shape.disk, trace.clone());
    let mut counts = Counts::default();
    let whole = format_completions(shape)?;
    let mut cuts = 0;
    while cuts < CUTS_MAX && rng.percent(CUT_PERCENT) {
        cuts += 1;
        let from = if rng.percent(50) { whole.saturating_sub(LAST_COMPLETIONS) } else { 0 };
        let after = rng.within(from..whole + 1);
        trace.note(&[23, after], || format!("format, cut after {after} of {whole} operations"));
        disk.power_off_after(after);
        let result = Host::format(&mut disk, &shape.format);
        let (done, off) = (result.is_ok(), disk.is_off());
        if let (Err(error), false) = (result, off) {
            return Err(check_opens(&error));
        }
        disk = disk.power_cut(rng.bits());
        let fate = disk.counts();
        counts.cuts += 1;
        counts.cuts_in_format += u64::from(off);
        counts.changes_kept += fate.kept;
        counts.changes_lost += fate.lost;
        counts.changes_torn += fate.torn;
        if opens_empty(&mut disk, shape, pool)? {
            // So it may be said to be, and is not formatted over.
            let again = Host::format(&mut disk, &shape.format);
            check_formatted(matches!(again, Err(HostError::AlreadyFormatted)), || {
                format!("a formatted disk is formatted again: {again:?}")
            })?;
            return Ok((disk, counts));
        }
        check_formatted(!done, || "a disk is not what it was formatted as".to_owned())?;
    }
    if let Err(error) = Host::format(&mut disk, &shape.format) {
        return Err(check_opens(&error));
    }
    if cuts > 0 {
        let opens = opens_empty(&mut disk, shape, pool)?;
        check_formatted(opens, || "a disk that was formatted again is not".to_owned())?;
    }
    Ok((disk, counts))
}

/// How many operations a format takes that nothing disturbs.
fn format_completions(shape: &Shape) -> Result<u64, Violation> {
    let mut disk = SimDisk::new(0, shape.disk, Trace::default());
    match Host::format(&mut disk, &shape.format) {
        Ok(_) => Ok(disk.completions()),
        Err(error) => Err(check_opens(&error)),
    }
}

/// Whether the disk opens, and then it must hold nothing and be whole; else it must
/// say that it is not formatted.
fn opens_empty(disk: &mut SimDisk, shape: &Shape, pool: &BufPool) -> Result<bool, Violation> {
    match Host::open(disk, pool.clone(), shape.host.clone()) {
        Ok((host, report)) => {
            let empty = host.volumes().is_empty() && report.records == 0 && !report.suspect;
            check_formatted(empty, || {
                format!("a disk that was only formatted opens as {report:?}")
            })?;
        }
        Err(HostError::NotFormatted) => return Ok(false),
        Err(error) => return Err(check_opens(&error)),
    }
    match fsck(disk, &FsckOptions { deep: true, ..FsckOptions::default() }) {
        Ok(report) => check_store(&report.faults)?,
        Err(error) => check_store(&[error])?,
    }
    Ok(true)
}
