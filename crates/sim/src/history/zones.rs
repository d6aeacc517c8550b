//! The zone test: a write and the reads that saw it form a cluster; a cluster
//! occupies the stretch of time between its first end and its last beginning.

use super::{Moment, Step, Write};
use crate::model::WriteId;

/// A write and those who read it.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    id: WriteId,
    write: Write,
    reads: u64,
    /// What is over first, and what begins last.
    first_end: (Moment, Step),
    last_begin: Step,
}

impl Cluster {
    pub(super) fn new(id: WriteId, write: Write) -> Self {
        let (first_end, last_begin) = ((write.end(), write.step), write.step);
        Self { id, write, reads: 0, first_end, last_begin }
    }

    /// # Errors
    /// If the read was over before the write began.
    pub(super) fn add_read(&mut self, read: Step) -> Result<(), String> {
        if read.end() < self.write.step.begun {
            return Err(format!(
                "{read} read write {} of {}, before it began",
                self.id.0, self.write
            ));
        }
        self.reads += 1;
        if read.end() < self.first_end.0 {
            self.first_end = (read.end(), read);
        }
        if read.begun > self.last_begin.begun {
            self.last_begin = read;
        }
        Ok(())
    }

    /// Whether its write surely happened: it was acknowledged, or seen.
    pub(super) fn took_effect(&self) -> bool {
        self.write.step.ended.is_some() || self.reads > 0
    }

    /// It stores zeroes, as others do.
    pub(super) fn is_zeroes(&self) -> bool {
        self.write.zeroes
    }

    /// The write that it has taken effect before, if it has.
    pub(super) fn behind(&self) -> Option<WriteId> {
        self.write.behind
    }

    /// When its write began, and by when it had taken effect if at all.
    pub(super) fn span(&self) -> (Moment, Moment) {
        (self.write.step.begun, self.write.end())
    }

    /// When it had surely taken effect.
    pub(super) fn first_end(&self) -> Moment {
        self.first_end.0
    }

    /// Whether its value must have been the block's for all of that time.
    pub(super) fn holds(&self, step: Step) -> bool {
        self.first_end.0 < step.begun && step.end() < self.last_begin.begun
    }

    /// # Errors
    /// If it was seen after `next` had taken effect.
    pub(super) fn check_before(&self, next: &Self) -> Result<(), String> {
        match next.first_end.0 < self.last_begin.begun {
            true => Err(format!("{} comes behind what decided it, {}", self.told(), next.told())),
            false => Ok(()),
        }
    }

    /// Its value must have been the block's from some step's end until another
    /// step's beginning.
    fn is_forward(&self) -> bool {
        self.first_end.0 < self.last_begin.begun
    }

    fn low(&self) -> Moment {
        self.first_end.0.min(self.last_begin.begun)
    }

    fn high(&self) -> Moment {
        self.first_end.0.max(self.last_begin.begun)
    }

    pub(super) fn told(&self) -> String {
        format!(
            "write {} ({}; over first for {}, still seen by {})",
            self.id.0, self.write, self.first_end.1, self.last_begin
        )
    }
}

/// No two values can have been the block's at once, and no value can have come
/// and gone while another must have stayed.
///
/// # Errors
/// Two clusters of which one excludes the other.
pub(super) fn check(clusters: Vec<Cluster>) -> Result<(), String> {
    let (mut forward, mut backward): (Vec<_>, Vec<_>) =
        clusters.into_iter().partition(Cluster::is_forward);
    forward.sort_by_key(Cluster::low);
    backward.sort_by_key(Cluster::low);
    for pair in forward.windows(2) {
        if pair[1].low() < pair[0].high() {
            return Err(format!("{} and {} overlap", pair[0].told(), pair[1].told()));
        }
    }
    // Forward zones do not overlap, so only the last that begins before a backward
    // zone can hold all of it.
    let mut before = forward.iter().peekable();
    let mut holder: Option<&Cluster> = None;
    for zone in &backward {
        while let Some(next) = before.next_if(|next| next.low() < zone.low()) {
            holder = Some(next);
        }
        if let Some(holder) = holder
            && zone.high() < holder.high()
        {
            return Err(format!("{} lies within {}", zone.told(), holder.told()));
        }
    }
    Ok(())
}
