//! Drives one host on one disk by itself, outside of any other time.

use crate::{
    disk::SimDisk,
    invariants::{Violation, i10_bounded},
};
use holdfast_io::{Disk, IoQueue};
use holdfast_replica::{Event, Host};

/// Operations of a disk until one question to a host is answered.
const PUMPS_MAX: u32 = 200_000;

/// Lets host and disk go on until `reached`, which may take the host's events.
pub(super) fn pump(
    host: &mut Host,
    disk: &mut SimDisk,
    what: &str,
    mut reached: impl FnMut(&Host, &SimDisk, &mut Vec<Event>) -> bool,
) -> Result<(), Violation> {
    let (mut queue, mut done, mut events) = (IoQueue::new(), Vec::new(), Vec::new());
    for _ in 0..PUMPS_MAX {
        host.flush(&mut queue);
        disk.submit(&mut queue);
        disk.wait(&mut done);
        for completion in done.drain(..) {
            host.complete(completion);
        }
        host.drain_events(&mut events);
        if reached(host, disk, &mut events) {
            return Ok(());
        }
        events.clear();
    }
    Err(i10_bounded::stalled(what))
}
