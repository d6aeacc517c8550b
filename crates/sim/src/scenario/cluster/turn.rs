//! A process's turn, in the order of the shard's driver.

use super::{
    What, World,
    machine::{Aim, MachineState, Process},
    seat,
    shape::MS,
};
use crate::{
    invariants::{Violation, i7_applied_is_committed, i10_bounded},
    scenario::cluster::machine::Input,
};
use holdfast_engine::core::Event as ToEngine;
use holdfast_io::{Disk, IoQueue};
use holdfast_replica::Event;
use holdfast_wire::Refusal;

/// From what is due until its turn: a loaded machine takes longer.
const TURN_NS: std::ops::Range<u64> = 2_000..30_000;
/// A checkpoint takes about so long, from its first write to the superblock.
const CHECKPOINT_NS: std::ops::Range<u64> = 1..1500 * MS / 1000;
/// Most writes of the log take longer than this.
const LOG_WRITE_NS: std::ops::Range<u64> = 1..100 * MS / 1000;
/// How often a process does what nothing else makes it do.
const TICK_NS: u64 = 50 * MS;
/// Times that hosts and engines answer each other within one turn; more of them is a
/// loop without end.
const ROUNDS_MAX: u32 = 1000;

impl World {
    /// Something waits for a process: it takes a turn soon, unless it is paused.
    pub(super) fn hand(&mut self, node: usize, input: Input) {
        if let Some(process) = &mut self.machines[node].process {
            process.inbox.push_back(input);
            self.turn_soon(node);
        }
    }

    /// Arranges a turn for what was just handed over.
    pub(super) fn turn_soon(&mut self, node: usize) {
        let at_ns = self.now_ns() + self.machines[node].rng.within(TURN_NS);
        self.arrange(node, at_ns);
    }

    fn arrange(&mut self, node: usize, at_ns: u64) {
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return };
        if machine.state != MachineState::Up || process.turn_at_ns.is_some_and(|at| at <= at_ns) {
            return;
        }
        process.turn += 1;
        process.turn_at_ns = Some(at_ns);
        let event = What::Turn(node, machine.life << 40 | process.turn);
        self.sched.at(at_ns, event);
    }

    /// A turn that was arranged.
    pub(super) fn turn(&mut self, node: usize, which: u64) -> Result<(), Violation> {
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(()) };
        if machine.state != MachineState::Up || which != machine.life << 40 | process.turn {
            return Ok(());
        }
        process.turn_at_ns = None;
        self.turns += 1;
        let Some(mut process) = machine.process.take() else { return Ok(()) };
        let result = self.take_turn(node, &mut process);
        let look_again = std::mem::take(&mut process.look_again);
        let (tick_at_ns, queued) = (process.tick_at_ns, look_again || !process.inbox.is_empty());
        self.machines[node].process = Some(process);
        result?;
        let end_ns = self.machines[node].disk.next_end_ns();
        let next_ns = end_ns.map_or(tick_at_ns, |end_ns| tick_at_ns.min(end_ns));
        if queued {
            self.turn_soon(node);
        }
        self.arrange(node, next_ns.max(self.now_ns() + TURN_NS.start));
        Ok(())
    }

    fn take_turn(&mut self, node: usize, process: &mut Process) -> Result<(), Violation> {
        let now_ns = self.now_ns();
        let machine = &mut self.machines[node];
        let now_ms = machine.clock.ms(now_ns);
        machine.disk.advance_to(now_ns);
        machine.disk.poll(&mut process.done);
        for completion in process.done.drain(..) {
            process.observer.completed(completion.token);
            process.host.complete(completion);
        }
        while let Some(input) = process.inbox.pop_front() {
            self.take_input(node, process, input)?;
        }
        if now_ns >= process.tick_at_ns {
            process.tick_at_ns = now_ns + TICK_NS;
            process.host.tick(now_ms);
            process.server.tick(now_ms);
            process.server.review(&mut process.host, now_ms);
            self.tick(node, process)?;
        }
        for _ in 0..ROUNDS_MAX {
            let mut moved = self.host_events(node, process, now_ms)?;
            moved |= self.server_outputs(node, process, now_ms)?;
            moved |= self.serve_seats(node, process)?;
            moved |= self.serve_clients(node, process);
            moved |= self.flush_host(node, process)?;
            if !moved {
                return Ok(());
            }
        }
        Err(i10_bounded::stalled("a turn does not end"))
    }

    /// A few times a second.
    fn tick(&mut self, node: usize, process: &mut Process) -> Result<(), Violation> {
        self.renew_leases(node, process);
        self.dial_members(node, process);
        self.expire_waiting(node, process);
        self.reconcile(node, process);
        self.ask_again(node, process);
        for seat in process.seats.values_mut() {
            seat.touched = true;
        }
        self.watch_reports(node, &process.host)
    }

    fn flush_host(&mut self, node: usize, process: &mut Process) -> Result<bool, Violation> {
        process.host.flush(&mut process.queue);
        if process.queue.is_empty() {
            return Ok(false);
        }
        let disk = &mut self.machines[node].disk;
        let mut observed = IoQueue::new();
        for (token, op) in process.queue.drain() {
            process.observer.submitted(disk, token, &op, &mut self.counts);
            observed.push(token, op);
        }
        disk.submit(&mut observed);
        let (in_checkpoint, in_log_write) =
            (process.observer.in_checkpoint(), process.observer.in_log_write());
        i7_applied_is_committed::check_order(disk.misuse())?;
        i10_bounded::check_in_flight(disk.in_flight())?;
        match self.machines[node].aim {
            Some((Aim::Checkpoint, seed)) if in_checkpoint => self.aimed(node, seed, CHECKPOINT_NS),
            Some((Aim::LogWrite, seed)) if in_log_write => self.aimed(node, seed, LOG_WRITE_NS),
            _ => {}
        }
        Ok(true)
    }

    fn host_events(
        &mut self,
        node: usize,
        process: &mut Process,
        now_ms: u64,
    ) -> Result<bool, Violation> {
        let mut events = std::mem::take(&mut process.events);
        process.host.drain_events(&mut events);
        let any = !events.is_empty();
        let mut result = Ok(());
        for event in events.drain(..) {
            if result.is_err() {
                break;
            }
            self.note_host_event(node, &event);
            result = self.watch_event(node, &process.host, &event);
            if let Some(event) = process.server.event(event, &mut process.host, now_ms) {
                self.own_event(node, process, event, now_ms);
            }
        }
        process.events = events;
        result.map(|()| any)
    }

    fn note_host_event(&self, node: usize, event: &Event) {
        let word = match event {
            Event::Ack(ack) => ack.durable_lsn.get() << 8 | 1,
            Event::Refused { session, .. } => session.0 << 8 | 2,
            Event::Promised { tag, .. } => tag.0 << 8 | 3,
            Event::Truncated { tag, .. } => tag.0 << 8 | 4,
            Event::Read { tag, result } => tag.0 << 8 | u64::from(result.is_ok()) << 7 | 5,
            Event::Status { tag, .. } => tag.0 << 8 | 6,
            Event::Reserved { tag, granted } => tag.0 << 8 | u64::from(*granted) << 7 | 7,
            Event::VolumeChanged { tag, .. } => tag.0 << 8 | 8,
            Event::SourceOpened { tag, .. } => tag.0 << 8 | 9,
            Event::SourceSlots { tag, .. } => tag.0 << 8 | 10,
            Event::SourceRecords { tag, .. } => tag.0 << 8 | 11,
            Event::Filled { tag, .. } => tag.0 << 8 | 12,
            Event::FillDone { tag, .. } => tag.0 << 8 | 13,
            Event::SettledAll { tag, .. } => tag.0 << 8 | 14,
            Event::Digest { tag, .. } => tag.0 << 8 | 15,
            Event::CreditsGrew => 16,
            Event::DiskFailed(_) => 17,
        };
        self.trace.note(&[40, node as u64, word], || {
            let text = match event {
                Event::Read { tag, result: Ok(_) } => format!("read {:x}", tag.0),
                Event::SourceSlots { tag, result: Ok((slots, next, applied)) } => {
                    format!("slots {:x}: {}, {next:?}, applied {applied}", tag.0, slots.len())
                }
                Event::SourceRecords { tag, result: Ok((records, _, commit)) } => {
                    format!("records {:x}: {}, commit {commit}", tag.0, records.len())
                }
                event => format!("{event:?}"),
            };
            format!("{node}: host: {text}")
        });
    }

    /// What the host says to the engine here, or to the node itself.
    fn own_event(&mut self, node: usize, process: &mut Process, event: Event, now_ms: u64) {
        match event {
            Event::Ack(ack) => {
                process.tell_local(ack.volume, |member| ToEngine::Ack { member, ack })
            }
            Event::Refused { volume, session, refusal } => {
                process.tell_local(volume, |member| ToEngine::Refused { member, session, refusal })
            }
            Event::Promised { tag, result } => {
                let id = self.machines[node].id;
                let result = result.map(|mut promise| {
                    let (volume, epoch) = (promise.volume, promise.epoch);
                    promise.lease_owed_ms = process.server.owed_ms(volume, epoch, id, now_ms);
                    promise
                });
                process.answer_call(tag, |member, _| ToEngine::Promised { member, result });
            }
            Event::Truncated { tag, result } => {
                process.answer_call(tag, |member, _| ToEngine::Truncated { member, result });
            }
            Event::Read { tag, result } => {
                process.answer_call(tag, |member, tag| ToEngine::ReadDone { member, tag, result });
            }
            Event::Status { tag, result } => {
                process.answer_call(tag, |member, tag| ToEngine::StatusDone {
                    member,
                    tag,
                    result,
                });
            }
            Event::Reserved { tag, granted } => {
                process.answer_call(tag, |member, tag| ToEngine::Reserved { member, tag, granted });
            }
            Event::VolumeChanged { tag, result } => self.created(node, process, tag, result),
            Event::CreditsGrew => process.touch_seats(),
            Event::DiskFailed(_) => {
                for seat in process.seats.values_mut() {
                    if let Some(member) = seat.local() {
                        let refusal = Refusal::DiskFailed;
                        seat.inbox.push_back(ToEngine::MemberLost { member, refusal });
                    }
                }
            }
            Event::Digest { tag, result } => {
                process.digests.insert(tag, result.map_err(|error| error.to_string()));
            }
            // Only the server asks for these, but for the end's settling, which needs no answer.
            Event::SourceOpened { .. }
            | Event::SourceSlots { .. }
            | Event::SourceRecords { .. }
            | Event::Filled { .. }
            | Event::FillDone { .. }
            | Event::SettledAll { .. } => {}
        }
    }
}

impl Process {
    /// Has every engine look at what it can do.
    fn touch_seats(&mut self) {
        for seat in self.seats.values_mut() {
            seat.touched = true;
        }
    }

    fn tell_local(
        &mut self,
        volume: holdfast_types::VolumeId,
        event: impl FnOnce(holdfast_engine::core::MemberId) -> ToEngine,
    ) {
        if let Some((_, seat)) = self.seat_of(volume)
            && let Some(member) = seat.local()
        {
            seat.inbox.push_back(event(member));
        }
    }

    fn answer_call(
        &mut self,
        tag: holdfast_replica::Tag,
        event: impl FnOnce(holdfast_engine::core::MemberId, holdfast_engine::core::OpTag) -> ToEngine,
    ) {
        let (number, call) = seat::call_of(tag);
        if let Some(seat) = self.seats.get_mut(&number)
            && let Some(member) = seat.local()
        {
            seat.inbox.push_back(event(member, call));
        }
    }
}
