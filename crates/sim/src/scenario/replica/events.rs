//! What the host answers, held against what the model knows.

use super::{
    Stop, World,
    node::{Call, Phase},
};
use crate::{
    invariants::{
        Invariant::{I5NothingAcknowledgedIsLost, I8PersistBeforePromise},
        Violation, ensure, i3_commit_is_forever, i5_nothing_acknowledged_is_lost,
        i6_reads_are_linearizable, i7_applied_is_committed, i8_persist_before_promise,
        i9_no_silent_corruption,
    },
    model::{Existence, Sent},
};
use holdfast_replica::{Event, ReadError, ReadSegments, Tag};
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange, Epoch, Lsn, VolumeId};
use holdfast_wire::{Ack, Promise, Refusal, StreamSession, Truncate};

impl World {
    /// Handles what the host has to say; whether that was anything.
    pub(super) fn handle_events(&mut self) -> Result<bool, Stop> {
        let node = self.node();
        let mut events = std::mem::take(&mut node.events);
        node.host.drain_events(&mut events);
        let any = !events.is_empty();
        let mut result = Ok(());
        for event in events.drain(..) {
            if result.is_ok() {
                self.note_event(&event);
                result = self.handle(event);
            }
        }
        self.node().events = events;
        result.map(|()| any)
    }

    fn note_event(&self, event: &Event) {
        let words = match event {
            Event::Ack(ack) => [30, ack.durable_lsn.get()],
            Event::Refused { session, .. } => [31, session.0],
            Event::Promised { tag, .. } => [32, tag.0],
            Event::Truncated { tag, .. } => [33, tag.0],
            Event::Read { tag, result } => [34, tag.0 << 1 | u64::from(result.is_ok())],
            Event::Status { tag, .. } => [35, tag.0],
            Event::Reserved { tag, granted } => [36, tag.0 << 1 | u64::from(*granted)],
            Event::VolumeChanged { tag, .. } => [37, tag.0],
            Event::CreditsGrew => [38, 0],
            Event::DiskFailed(_) => [39, 0],
            Event::SourceOpened { tag, .. }
            | Event::SourceSlots { tag, .. }
            | Event::SourceRecords { tag, .. }
            | Event::Filled { tag, .. }
            | Event::FillDone { tag, .. }
            | Event::SettledAll { tag, .. }
            | Event::Digest { tag, .. } => [29, tag.0],
        };
        self.trace.note(&words, || match event {
            Event::Read { tag, result: Ok(_) } => format!("host: read {} answered", tag.0),
            Event::Status { tag, result: Ok(_) } => format!("host: status {} answered", tag.0),
            event => format!("host: {event:?}"),
        });
    }

    fn handle(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Ack(ack) => self.acked(&ack),
            Event::Refused { volume, session, refusal } => self.refused(volume, session, refusal),
            Event::CreditsGrew => Ok(()),
            Event::SourceOpened { .. }
            | Event::SourceSlots { .. }
            | Event::SourceRecords { .. }
            | Event::Filled { .. }
            | Event::FillDone { .. }
            | Event::SettledAll { .. }
            | Event::Digest { .. } => unreachable!("no peer is asked for anything here"),
            Event::DiskFailed(_) => {
                self.counts.disks_failed += 1;
                Err(Stop::DiskFailed)
            }
            Event::Promised { tag, result } => match (self.take(tag)?, result) {
                (Call::Fence { volume, epoch }, Ok(promise)) => {
                    self.promised(volume, epoch, &promise)
                }
                (_, Err(Refusal::DiskFailed)) => Err(Stop::DiskFailed),
                (call, result) => Err(unexpected(call, &result)),
            },
            Event::Truncated { tag, result } => match (self.take(tag)?, result) {
                (Call::Truncate { volume, last }, Ok(())) => {
                    let Some(known) = self.model.volumes.get_mut(&volume) else {
                        unreachable!("a volume with a call is known")
                    };
                    known.truncate(last);
                    self.counts.truncations += 1;
                    self.start_epoch(volume)
                }
                (_, Err(Refusal::DiskFailed)) => Err(Stop::DiskFailed),
                (call, result) => Err(unexpected(call, &result)),
            },
            Event::Read { tag, result } => match self.take(tag)? {
                Call::Read { volume, epoch, at, range } => {
                    self.answered(volume, epoch, at, range, result)
                }
                call => Err(unexpected(call, &"a read")),
            },
            Event::Status { tag, result } => match self.take(tag)? {
                Call::Status { volume, epoch, at, range } => match result {
                    Ok(extents) => self.extents(volume, at, range, &extents),
                    Err(error) => self.read_failed(volume, epoch, &error),
                },
                call => Err(unexpected(call, &"a status")),
            },
            Event::Reserved { tag, granted } => match self.take(tag)? {
                Call::Reserve { volume, range } => {
                    self.counts.space_refused += u64::from(!granted);
                    // One who took a new epoch since has not asked.
                    if let Some(engine) = self.node().engines.get_mut(&volume)
                        && engine.reserved == Some((range, false))
                    {
                        engine.reserved = granted.then_some((range, true));
                    }
                    Ok(())
                }
                call => Err(unexpected(call, &granted)),
            },
            Event::VolumeChanged { tag, result } => match (self.take(tag)?, result) {
                (Call::Create(volume), Ok(())) => {
                    self.counts.volumes_created += 1;
                    if let Some(known) = self.model.volumes.get_mut(&volume) {
                        known.existence = Existence::Here;
                    }
                    self.open_volume(volume);
                    Ok(())
                }
                (Call::Delete(volume), Ok(())) => {
                    self.counts.volumes_deleted += 1;
                    self.model.volumes.remove(&volume);
                    self.model.deleted.push(volume);
                    self.node().engines.remove(&volume);
                    Ok(())
                }
                (_, Err(_)) if self.node().host.failure().is_some() => Err(Stop::DiskFailed),
                (call, result) => Err(unexpected(call, &result)),
            },
        }
    }

    fn take(&mut self, tag: Tag) -> Result<Call, Stop> {
        match self.node().calls.remove(&tag) {
            Some(call) => Ok(call),
            None => Err(broken(format!("call {} is answered twice, or was never made", tag.0))),
        }
    }

    fn acked(&mut self, ack: &Ack) -> Result<(), Stop> {
        let Some(engine) = self.node().engines.get_mut(&ack.volume) else { return Ok(()) };
        if (engine.epoch, engine.session) != (ack.epoch, ack.session) {
            return Ok(());
        }
        let served = match engine.phase {
            Phase::Starting(lsn) if ack.durable_lsn >= lsn => true,
            Phase::Starting(_) | Phase::Serving => false,
            Phase::Closed | Phase::Fencing | Phase::Truncating => return Ok(()),
        };
        if served {
            engine.phase = Phase::Serving;
            self.counts.epochs += 1;
        }
        let Some(volume) = self.model.volumes.get_mut(&ack.volume) else {
            unreachable!("a volume with an engine is known")
        };
        i8_persist_before_promise::check_ack(volume, ack)?;
        self.counts.operations += ack.durable_lsn.get().saturating_sub(volume.acked.get());
        volume.acked = volume.acked.max(ack.durable_lsn);
        volume.answered = volume.answered.max(ack.durable_lsn);
        Ok(())
    }

    fn refused(
        &mut self,
        volume: VolumeId,
        session: StreamSession,
        refusal: Refusal,
    ) -> Result<(), Stop> {
        let current = self.node().engines.get(&volume).map(|engine| engine.session);
        if current != Some(session) {
            return Ok(());
        }
        match refusal {
            Refusal::DiskFailed => Err(Stop::DiskFailed),
            refusal => Err(broken(format!("{volume}: a valid append is refused: {refusal}"))),
        }
    }

    fn promised(&mut self, volume: VolumeId, epoch: Epoch, promise: &Promise) -> Result<(), Stop> {
        let damaged = self.damaged;
        let Some(engine) = self.node().engines.get(&volume).copied() else { return Ok(()) };
        if engine.epoch != epoch {
            return Ok(());
        }
        let Some(known) = self.model.volumes.get_mut(&volume) else { return Ok(()) };
        i5_nothing_acknowledged_is_lost::check_trusted(
            damaged,
            promise.suspect,
            "a promise says so",
        )?;
        i8_persist_before_promise::check_promise(known, epoch, promise)?;
        i3_commit_is_forever::check_log(known, promise)?;
        i7_applied_is_committed::check_applied(known, promise.applied_lsn)?;
        known.promised = epoch;
        known.truncate(promise.last_lsn);
        known.answered = promise.last_lsn;
        let (acked, last) = (known.acked, promise.last_lsn);
        if last > acked && self.rng.percent(40) {
            // As if a longer log, without these records, had been chosen elsewhere.
            let keep = Lsn::new(self.rng.within(acked.get()..last.get() + 1));
            let Some(known) = self.model.volumes.get_mut(&volume) else { return Ok(()) };
            known.answered = keep;
            let node = self.node();
            let tag = node.call(Call::Truncate { volume, last: keep });
            node.host.truncate(tag, &Truncate { volume, epoch, last: keep });
            if let Some(engine) = node.engines.get_mut(&volume) {
                engine.phase = Phase::Truncating;
            }
            return Ok(());
        }
        self.start_epoch(volume)
    }

    /// All that the replica holds is taken over by an epoch's first record.
    fn start_epoch(&mut self, volume: VolumeId) -> Result<(), Stop> {
        let lsn = self.append(volume, &[Sent::EpochStart])?;
        if let Some(engine) = self.node().engines.get_mut(&volume) {
            engine.phase = Phase::Starting(lsn);
        }
        Ok(())
    }

    fn answered(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        at: Lsn,
        range: BlockRange,
        result: Result<ReadSegments, ReadError>,
    ) -> Result<(), Stop> {
        let segments = match result {
            Ok(segments) => segments,
            Err(error) => return self.read_failed(id, epoch, &error),
        };
        let Some(volume) = self.model.volumes.get(&id) else { return Ok(()) };
        let mut block = range.start.get();
        for bytes in segments.iter().flat_map(|segment| segment.chunks(BLOCK_BYTES)) {
            let number = BlockNo::new(block);
            i6_reads_are_linearizable::check_block(volume, number, at, volume.told, bytes)?;
            block += 1;
        }
        ensure(I8PersistBeforePromise, block == range.end().get(), || {
            format!("{id}: a read of {range:?} is answered up to block {block}")
        })?;
        self.counts.reads += 1;
        self.counts.operations += 1;
        self.counts.blocks_verified += range.count;
        Ok(())
    }

    fn read_failed(&mut self, id: VolumeId, epoch: Epoch, error: &ReadError) -> Result<(), Stop> {
        let fenced_off = match (error, self.node().engines.get(&id)) {
            (ReadError::Refused(Refusal::Fenced { .. }), Some(engine)) => engine.epoch > epoch,
            (ReadError::Refused(Refusal::Unknown), None) => true,
            _ => false,
        };
        if fenced_off {
            return Ok(());
        }
        let faulty = self.damaged || self.disk.counts().io_errors > self.node().old_errors;
        let Some(volume) = self.model.volumes.get(&id) else { return Ok(()) };
        i5_nothing_acknowledged_is_lost::check_read_error(volume, faulty, error)?;
        self.counts.damage_answered += 1;
        Ok(())
    }

    fn extents(
        &mut self,
        id: VolumeId,
        at: Lsn,
        range: BlockRange,
        extents: &[(u64, bool)],
    ) -> Result<(), Stop> {
        let Some(volume) = self.model.volumes.get(&id) else { return Ok(()) };
        let mut block = range.start.get();
        for (count, data) in extents {
            for number in block..block + count {
                if !data {
                    let number = BlockNo::new(number);
                    i9_no_silent_corruption::check_hole(volume, number, at, volume.told)?;
                }
            }
            block += count;
        }
        ensure(I5NothingAcknowledgedIsLost, block == range.end().get(), || {
            format!("{id}: extents of {range:?} end at block {block}")
        })?;
        self.counts.operations += 1;
        Ok(())
    }
}

fn broken(what: String) -> Stop {
    Violation { invariant: I5NothingAcknowledgedIsLost, what }.into()
}

fn unexpected(call: Call, answer: &dyn std::fmt::Debug) -> Stop {
    broken(format!("{call:?} is answered with {answer:?}"))
}
