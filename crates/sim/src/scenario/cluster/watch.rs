//! Everything that happens in a cluster, held against the invariants while it happens.

use super::{VolumeFacts, World, machine::Process, seat::Seat};
use crate::{
    disk::CutMood,
    invariants::{
        Invariant::I8PersistBeforePromise, Violation, ensure, i1_one_writer, i2_log_matching,
        i3_commit_is_forever, i4_acked_means_committed, i7_applied_is_committed,
        i8_persist_before_promise, i10_bounded,
    },
    model::{Point, WriteId},
    net::ConnId as NetConn,
};
use holdfast_engine::core::{Command, MemberId};
use holdfast_replica::{Event, Host, VolumeReport};
use holdfast_types::{Epoch, Lsn, VolumeId};
use holdfast_wire::FromReplica;

/// One in so many acknowledgements is held against the disks themselves.
const COMPARE_EVERY: u64 = 211;

/// What a replica has said, and must never take back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// The highest epoch that it has promised.
    pub(super) promised: Epoch,
    /// It holds the log up to here on stable storage.
    pub(super) durable: Point,
    /// An engine of this epoch has asked it to drop what is above; it may have by now.
    truncate: Option<(Epoch, Lsn)>,
}

impl Held {
    /// What its log must reach after a crash.
    pub(super) fn floor(&self) -> Lsn {
        let truncated = self.truncate.map_or(Lsn::new(u64::MAX), |(_, last)| last);
        self.durable.lsn.min(truncated)
    }
}

fn end_of(report: &VolumeReport, lsn: Lsn) -> Point {
    Point { lsn, epoch: i2_log_matching::epoch_at(&report.epochs, lsn) }
}

impl World {
    fn report_of(host: &Host, volume: VolumeId) -> Option<VolumeReport> {
        host.volumes().into_iter().find(|report| report.volume == volume)
    }

    /// A node is given an epoch.
    pub(super) fn watch_grant(
        &mut self,
        node: usize,
        granted: &holdfast_meta::Volume,
    ) -> Result<(), Violation> {
        let Some(index) = self.volume_of(granted.id) else { return Ok(()) };
        let before = self.volumes[index].granted.insert(granted.epoch, node);
        i1_one_writer::check_granted(granted.id, granted.epoch, before, node)
    }

    /// Everything that an engine wants, before it is carried out.
    pub(super) fn watch_commands(
        &mut self,
        node: usize,
        seat: &mut Seat,
        commands: &[Command],
    ) -> Result<(), Violation> {
        let Some(index) = self.volume_of(seat.volume) else { return Ok(()) };
        for command in commands {
            match command {
                Command::Append { append, .. } => {
                    let count = append.records.len() as u64;
                    self.counts.records += count;
                    // Committed before this member gets it: it was away or is slow.
                    let known = append.prev_lsn.get() + count <= seat.watched.get();
                    self.counts.sent_from_window += u64::from(count > 0 && known);
                    let sent = self.volumes[index].lineage.sent(append);
                    i2_log_matching::check_sent(seat.volume, sent)?;
                }
                Command::CatchUp { .. } => self.counts.catch_ups += 1,
                Command::Serving => self.watch_serving(index, seat.epoch),
                Command::Read { .. } => {
                    let elsewhere = self.machines.iter().enumerate().any(|(other, machine)| {
                        other != node
                            && machine.process.as_ref().is_some_and(|process| {
                                process.seats.values().any(|other| other.volume == seat.volume)
                            })
                    });
                    self.counts.reads_in_hand_over += u64::from(elsewhere);
                }
                _ => {}
            }
        }
        self.watch_commit(index, seat)
    }

    /// An engine serves: what earlier ones had not committed by now they never will.
    fn watch_serving(&mut self, index: usize, epoch: Epoch) {
        let moment = self.next_moment();
        let VolumeFacts { lineage, clients, .. } = &mut self.volumes[index];
        let gone = |id| lineage.record_of(id).is_some_and(|record| record.epoch < epoch);
        self.counts.writes_decided += clients.decide(moment, gone);
    }

    fn watch_commit(&mut self, index: usize, seat: &mut Seat) -> Result<(), Violation> {
        let commit = seat.core.commit_lsn();
        let volume = &mut self.volumes[index];
        let begun = volume.lineage.first_of(seat.epoch).is_some_and(|first| first <= commit);
        if commit <= seat.watched || !begun {
            return Ok(());
        }
        seat.watched = commit;
        let end = Point { lsn: commit, epoch: seat.epoch };
        i1_one_writer::check_commit(volume.id, &volume.lineage, volume.ruling, end)?;
        i3_commit_is_forever::check_commit(volume.id, &volume.lineage, end)?;
        volume.ruling = volume.ruling.max(seat.epoch);
        if commit > volume.lineage.committed().lsn {
            volume.lineage.commit(end);
        }
        Ok(())
    }

    /// A member is told to drop its tail: it may have from now on.
    pub(super) fn watch_truncate(&mut self, seat: &Seat, member: MemberId, last: Lsn) {
        let Some(index) = self.volume_of(seat.volume) else { return };
        let Some(member) = seat.members.iter().find(|m| m.id == member) else { return };
        let Some(held) = self.volumes[index].held.get_mut(&member.node) else { return };
        let lower = held.truncate.map_or(last, |(_, before)| before.min(last));
        held.truncate = Some((seat.epoch, lower));
        self.counts.truncations += 1;
    }

    /// A request is about to be answered with success.
    pub(super) fn watch_reply(&mut self, seat: &Seat, id: WriteId) -> Result<(), Violation> {
        let Some(index) = self.volume_of(seat.volume) else { return Ok(()) };
        let volume = &self.volumes[index];
        let Some(truth) = self.metadata.catalogue().volume(volume.id) else { return Ok(()) };
        let members: Vec<usize> =
            truth.set.members.iter().filter_map(|member| self.node_of(member.node)).collect();
        let record = volume.lineage.record_of(id).unwrap_or_default();
        let holds = |node: &usize| {
            let held = volume.held.get(node).map(|held| held.durable).unwrap_or_default();
            volume.lineage.holds(held, record)
        };
        let holders: Vec<usize> = members.iter().copied().filter(holds).collect();
        let (id_of, lineage) = (volume.id, &volume.lineage);
        i4_acked_means_committed::check_acked(id_of, lineage, id, &holders, &members)?;
        if self.counts.writes_acked % COMPARE_EVERY == 7 {
            for node in holders {
                self.compare_disk(index, node, record)?;
            }
        }
        Ok(())
    }

    /// What a disk would hold if the power failed now and nothing undurable survived.
    fn compare_disk(&mut self, index: usize, node: usize, record: Point) -> Result<(), Violation> {
        let mut disk = self.machines[node].disk.power_cut_in(CutMood::LosesAll, 0);
        let options = self.shape.host.clone();
        let Ok((host, report)) = Host::open(&mut disk, self.pool.clone(), options) else {
            return Ok(());
        };
        let volume = &self.volumes[index];
        let Some(found) = Self::report_of(&host, volume.id) else { return Ok(()) };
        if report.suspect || self.machines[node].is_hurt() {
            return Ok(());
        }
        self.counts.disks_compared += 1;
        let found = end_of(&found, found.last_lsn);
        i4_acked_means_committed::check_on_disk(volume.id, node, &volume.lineage, record, found)
    }

    /// What a host says, before anybody else hears it.
    pub(super) fn watch_event(
        &mut self,
        node: usize,
        host: &Host,
        event: &Event,
    ) -> Result<(), Violation> {
        match event {
            Event::Ack(ack) => {
                let Some(index) = self.volume_of(ack.volume) else { return Ok(()) };
                let Some(report) = Self::report_of(host, ack.volume) else { return Ok(()) };
                let Some(held) = self.volumes[index].held.get_mut(&node) else { return Ok(()) };
                if ack.durable_lsn <= report.last_lsn && ack.durable_lsn >= held.durable.lsn {
                    held.durable = end_of(&report, ack.durable_lsn);
                }
            }
            Event::Promised { result: Ok(promise), .. } => {
                let Some(index) = self.volume_of(promise.volume) else { return Ok(()) };
                let Some(held) = self.volumes[index].held.get_mut(&node) else { return Ok(()) };
                // The log of a suspect replica counts for nobody.
                let kept = promise.suspect || promise.last_lsn >= held.floor();
                ensure(I8PersistBeforePromise, kept, || {
                    let (last, floor) = (promise.last_lsn, held.floor());
                    format!("node {node} promises with a log up to LSN {last}, it said {floor}")
                })?;
                held.promised = held.promised.max(promise.epoch);
                held.durable = Point { lsn: promise.last_lsn, epoch: promise.last_epoch };
                held.truncate = held.truncate.filter(|(epoch, _)| *epoch >= promise.epoch);
            }
            Event::Truncated { result: Ok(()), .. } | Event::FillDone { result: Ok(()), .. } => {
                let filled = matches!(event, Event::FillDone { .. });
                for report in host.volumes() {
                    let Some(index) = self.volume_of(report.volume) else { continue };
                    let Some(held) = self.volumes[index].held.get_mut(&node) else { continue };
                    let last = end_of(&report, report.last_lsn);
                    if filled && report.applied_lsn > held.durable.lsn {
                        held.durable = end_of(&report, report.applied_lsn);
                    }
                    // The event does not say whose it is: others may wait for theirs.
                    let is_cut = held.truncate.is_some_and(|(_, to)| last.lsn <= to);
                    if !filled && is_cut && last.lsn <= held.durable.lsn {
                        held.durable = last;
                        held.truncate = None;
                    }
                }
            }
            Event::DiskFailed(error) => {
                self.disk_failed(node);
                let machine = &self.machines[node];
                let failed = machine.disk.counts().io_errors > machine.io_errors;
                i10_bounded::check_given_up(node, failed || machine.is_hurt(), error)?;
            }
            Event::VolumeChanged { result: Ok(()), .. } if self.machines[node].damaged => {
                self.watch_rejoin(node, host);
            }
            _ => {}
        }
        Ok(())
    }

    /// A replica with a damaged log may have started over, and then the others of its disk have
    /// dropped what is not known to be committed. Once none of a node is suspect any more, its log
    /// is a new one, and what it says counts again.
    fn watch_rejoin(&mut self, node: usize, host: &Host) {
        let reports = host.volumes();
        for report in &reports {
            let Some(index) = self.volume_of(report.volume) else { continue };
            let Some(held) = self.volumes[index].held.get_mut(&node) else { continue };
            if report.last_lsn < held.durable.lsn {
                held.durable = end_of(report, report.last_lsn);
            }
        }
        if reports.iter().all(|report| !report.suspect) {
            self.machines[node].damaged = false;
        }
    }

    /// What leaves a node for an engine: nothing that is not on its disk.
    pub(super) fn watch_answer(
        &mut self,
        node: usize,
        _process: &Process,
        _conn: NetConn,
        message: &FromReplica,
    ) -> Result<(), Violation> {
        let (id, said) = match message {
            FromReplica::Ack(ack) => (ack.volume, ack.durable_lsn),
            FromReplica::Promised(Ok(promise)) => (promise.volume, promise.last_lsn),
            _ => return Ok(()),
        };
        let Some(index) = self.volume_of(id) else { return Ok(()) };
        let Some(held) = self.volumes[index].held.get(&node) else { return Ok(()) };
        ensure(I8PersistBeforePromise, said <= held.durable.lsn, || {
            format!("node {node} answers for LSN {said}, its host for {:?}", held.durable)
        })
    }

    /// What a host reports about itself, a few times a second.
    pub(super) fn watch_reports(&mut self, node: usize, host: &Host) -> Result<(), Violation> {
        for report in host.volumes() {
            let Some(index) = self.volume_of(report.volume) else { continue };
            let volume = &self.volumes[index];
            i2_log_matching::check_log(node, &volume.lineage, &report)?;
            i7_applied_is_committed::check_report(node, &volume.lineage, &report)?;
            let Some(held) = volume.held.get(&node) else { continue };
            i8_persist_before_promise::check_kept(node, held.promised, report.promised)?;
        }
        Ok(())
    }

    /// What a process finds on its disk: all that earlier ones have said.
    pub(super) fn watch_opened(&mut self, node: usize, host: &Host) -> Result<(), Violation> {
        let damaged = self.machines[node].damaged;
        if damaged {
            // What it said may be what was damaged.
            for report in host.volumes() {
                let Some(index) = self.volume_of(report.volume) else { continue };
                self.volumes[index].held.insert(
                    node,
                    Held {
                        promised: report.promised,
                        durable: end_of(&report, report.last_lsn),
                        truncate: None,
                    },
                );
            }
        }
        self.watch_reports(node, host)?;
        for report in host.volumes() {
            let Some(index) = self.volume_of(report.volume) else { continue };
            let volume = &mut self.volumes[index];
            let Some(held) = volume.held.get_mut(&node) else { continue };
            if !damaged {
                i8_persist_before_promise::check_log_kept(node, held.floor(), report.last_lsn)?;
                if held.durable.lsn <= report.last_lsn && held.truncate.is_none() {
                    let found = end_of(&report, report.last_lsn);
                    let kept = volume.lineage.holds(found, held.durable);
                    ensure(I8PersistBeforePromise, kept, || {
                        format!(
                            "node {node} held {:?}, and comes back with {found:?}",
                            held.durable
                        )
                    })?;
                }
            }
            held.durable = end_of(&report, report.last_lsn);
            held.truncate = None;
            self.counts.unacked_recovered +=
                report.last_lsn.get().saturating_sub(volume.lineage.committed().lsn.get());
        }
        Ok(())
    }
}
