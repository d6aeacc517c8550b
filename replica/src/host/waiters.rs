//! Who waits for a map leaf, and waking them when it is there or cannot be had.

use super::{Host, volume::VolIx};
use crate::store::{LeafNo, StoreEvent};
use holdfast_io::{DiskError, DiskErrorKind};
use holdfast_types::{SlotNo, VolumeId};

/// Something that waits; the number is its place in the table of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    Read(u32),
    Status(u32),
    Reserve(u32),
    Apply(u32),
    Copy(u32),
    Fill(u32),
}

/// A waiter and what it waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    volume: VolumeId,
    leaf: LeafNo,
    slot: SlotNo,
    waiter: Waiter,
}

impl Waiting {
    pub(super) fn waiter(&self) -> Waiter {
        self.waiter
    }
}

impl Host {
    /// Has the leaf of `slot` fetched, which must be missing, and `waiter` woken then.
    pub(super) fn wait_for_leaf(&mut self, at: VolIx, slot: SlotNo, waiter: Waiter) {
        let Some(volume) = self.volume(at).map(|volume| volume.id) else {
            unreachable!("the volume was looked at just now")
        };
        self.store.load(volume, slot);
        self.waiting.push(Waiting { volume, leaf: LeafNo::of(slot), slot, waiter });
    }

    /// Takes up what the store has said.
    pub(super) fn store_said(&mut self) {
        let mut said = std::mem::take(&mut self.store_events);
        for event in said.drain(..) {
            match event {
                StoreEvent::LeafLoaded { volume, leaf } => self.wake(volume, leaf, None),
                StoreEvent::LeafFailed { volume, leaf, error } => {
                    self.wake(volume, leaf, Some(error));
                }
                StoreEvent::CheckpointDone => self.checkpoint_done(),
                StoreEvent::Failed(error) => self.fail(error),
            }
        }
        self.store_events = said;
    }

    fn wake(&mut self, volume: VolumeId, leaf: LeafNo, failed: Option<Option<DiskError>>) {
        let mut woken = std::mem::take(&mut self.woken);
        self.waiting.retain(|waiting| {
            let hit = waiting.volume == volume && waiting.leaf == leaf;
            if hit {
                woken.push(*waiting);
            }
            !hit
        });
        for Waiting { slot, waiter, .. } in woken.drain(..) {
            match (waiter, &failed) {
                (Waiter::Read(number), None) => self.resolve_read(number),
                (Waiter::Read(number), Some(error)) => self.fail_read(number, slot, error.clone()),
                (Waiter::Status(number), None) => self.resolve_status(number),
                (Waiter::Status(number), Some(error)) => {
                    self.fail_status(number, slot, error.clone());
                }
                (Waiter::Reserve(number), None) => self.resolve_reserve(number),
                (Waiter::Reserve(number), Some(_)) => self.deny_reserve(number),
                (Waiter::Copy(number), None) => self.resume_copy(number),
                (Waiter::Copy(number), Some(error)) => self.fail_copy(number, slot, error.clone()),
                (Waiter::Fill(number), None) => self.resume_fill(number),
                (Waiter::Fill(number), Some(error)) => self.fail_fill(number, slot, error.clone()),
                (Waiter::Apply(number), None) => self.start_apply(number),
                (Waiter::Apply(_), Some(error)) => {
                    // Without the map nothing can be applied to the slot, and the
                    // log behind it can never be recycled.
                    self.fail(error.clone().unwrap_or_else(|| DiskError {
                        op: "read",
                        file: "data".to_owned(),
                        offset: 0,
                        len: 0,
                        kind: DiskErrorKind::Io,
                        message: format!(
                            "the map page of slot {slot} of volume {volume} is damaged"
                        ),
                    }));
                }
            }
        }
        self.woken = woken;
    }
}
