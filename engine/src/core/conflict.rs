//! Sub-block writes: a block that is covered in part is read, filled in and
//! written whole. Between that read and the commit of that write nothing else
//! may write the block, and the read must see all that was written before.
//!
//! One rule does both. Two writes conflict if one of them reads a block that the
//! other writes; of two that conflict, the one that came later waits until the
//! earlier is committed or gone. Whole-block writes never conflict with each
//! other: the log orders them. Later ones never overtake a waiting write that
//! they conflict with, so none starves.

use super::EngineCore;
use super::ops::{Kind, OpId, Part, Stage, Write};

/// Waiting writes looked at in one turn: bounds the work that a client can cause
/// by sub-block writes that all conflict.
const UNPARK_MAX: usize = 64;

impl EngineCore {
    /// Lets a new write go on, or parks it behind those that it conflicts with.
    pub(super) fn admit_write(&mut self, id: OpId) {
        let Some(write) = self.ops.write(id) else { return };
        let waits = self.waits(id, write, self.parked.len());
        if write.is_partial() {
            self.partial.push(id);
        }
        if waits {
            self.set_stage(id, Stage::Parked);
            self.parked.push_back(id);
        } else {
            self.proceed(id);
        }
    }

    /// Looks at the parked writes again, in the order of their arrival.
    pub(super) fn unpark(&mut self) {
        if !std::mem::take(&mut self.unpark) {
            return;
        }
        let mut at = 0;
        while at < self.parked.len().min(UNPARK_MAX) {
            let id = self.parked[at];
            match self.ops.write(id) {
                Some(write) if self.waits(id, write, at) => at += 1,
                _ => {
                    self.parked.remove(at);
                    self.proceed(id);
                }
            }
        }
    }

    /// Whether `write` conflicts with one that was let go on, or with one of
    /// the first `before` parked.
    fn waits(&self, id: OpId, write: &Write, before: usize) -> bool {
        let conflicts = |other: &Write| other.conflicts(write);
        let running = if write.is_partial() {
            self.ops.iter().any(|(other, op)| match &op.kind {
                Kind::Write(w) => other != id && w.stage != Stage::Parked && conflicts(w),
                Kind::Read(_) | Kind::Status { .. } | Kind::Flush(_) => false,
            })
        } else {
            self.partial
                .iter()
                .filter_map(|other| self.ops.write(*other))
                .any(|other| other.stage != Stage::Parked && conflicts(other))
        };
        let ahead = self.parked.iter().take(before).filter_map(|other| self.ops.write(*other));
        running || ahead.into_iter().any(conflicts)
    }

    /// Nothing stands in the way: read the partial blocks, if any, then wait for LSNs.
    fn proceed(&mut self, id: OpId) {
        let Some(write) = self.ops.write_mut(id) else { return };
        let parts =
            [write.head.as_ref().map(|_| Part::Head), write.tail.as_ref().map(|_| Part::Tail)];
        write.reading = parts.iter().flatten().count() as u8;
        if write.reading == 0 {
            self.make_ready(id);
            return;
        }
        write.stage = Stage::Reading;
        for part in parts.into_iter().flatten() {
            self.fetch(id, part);
        }
    }

    pub(super) fn set_stage(&mut self, id: OpId, stage: Stage) {
        if let Some(write) = self.ops.write_mut(id) {
            write.stage = stage;
        }
    }
}
