//! How cost grows: what volumes cost that nobody uses, what several share, and what one
//! notices of another that is busy.

mod idle;
mod load;

use crate::outcome::ScaleOutcome;
use holdfast_tests::Result;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What to find out.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// How many idle volumes to look at, in ascending order.
    pub idle_volumes: Vec<u32>,
    /// How long to look.
    pub idle: Duration,
    /// Seconds of each load.
    pub seconds: f64,
    /// Bytes of each volume under load, all of which are written first.
    pub volume_bytes: u64,
}

/// Finds it out, with the nodes' data in `dir`.
///
/// # Errors
/// When nodes or volumes do not come up, or a load fails.
pub fn scale(dir: &Path, sizes: &Sizes, say: &mut dyn FnMut(String)) -> Result<ScaleOutcome> {
    let mut outcome = ScaleOutcome::default();
    // One after the other: what is idle is measured by itself, and its files are in the way.
    idle::measure(&dir.join("idle"), sizes, say, &mut outcome)?;
    // What is left takes room, no more.
    let _ = fs::remove_dir_all(dir.join("idle"));
    load::measure(&dir.join("load"), sizes, say, &mut outcome)?;
    Ok(outcome)
}
