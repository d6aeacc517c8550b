//! A volume's part of a turn: its engine decides, and what it decided is carried out,
//! on the local disk by direct calls, on other nodes' by frames.

use super::disks::{DiskSlot, Disks};
use super::driver::{Buffers, Inner, Now, tag_of};
use super::{sets, volume::Volume};
use crate::core::{Command, EngineCore, Event, MemberId, OpTag, StopReason};
use holdfast_replica::{Credits, Server};
use std::rc::Rc;
use tokio::task::spawn_local;

impl Inner {
    /// Lets one engine decide, and carries out what it decided.
    pub(super) fn serve(
        self: &Rc<Self>,
        volume: &Rc<Volume>,
        disks: &mut Disks,
        server: &mut Server,
        buffers: &mut Buffers,
        now: Now,
    ) {
        let mut core = volume.core.borrow_mut();
        let mut slot = volume.disk().and_then(|disk| disks.get_mut(disk));
        core.handle(Event::Tick { now: now.instant, boot_ms: now.boot_ms });
        if let (Some(member), Some(slot)) = (volume.local(), &slot) {
            // Exact: everything that this disk's engines sequenced before is in its host.
            let held = slot.host.credits_of(volume.id());
            let slots = held.slots.saturating_sub(server.slots_lent(slot.id));
            let (as_of, credits) = (core.last_lsn(), Credits { slots, ..held });
            core.handle(Event::Credits { member, as_of, credits });
        }
        {
            let leases = self.leases.borrow();
            for remote in volume.remotes() {
                let until_ms = leases.until_ms(remote.node);
                core.handle(Event::Lease { member: remote.member, until_ms });
            }
        }
        // That the engine was fenced off is the first of what waits: no read comes between.
        volume.pass_on(&mut core);
        core.flush();
        core.take_commands(&mut buffers.commands);
        if let Some(Command::Stopped { reason }) = buffers.commands.last()
            && *reason != StopReason::Detached
        {
            // Clients learn nothing from an error that the next engine may not make;
            // they come back and ask again.
            volume.close_sessions();
        }
        for command in buffers.commands.drain(..) {
            match member_of(&command) {
                None => self.carry_out(volume, &core, command),
                Some(member) if volume.local() == Some(member) => {
                    if let Some(slot) = &mut slot {
                        local(volume, &mut core, slot, server, command, now);
                    }
                }
                Some(member) => {
                    if let Some(remote) = volume.remote(member)
                        && let Some(records) = volume.carry_out(remote, command)
                    {
                        core.recycle(records);
                    }
                }
            }
        }
    }

    /// What is for no member.
    fn carry_out(self: &Rc<Self>, volume: &Rc<Volume>, core: &EngineCore, command: Command) {
        match command {
            Command::Reply { session, tag, result } => volume.reply(session, tag, result),
            Command::ProposeSet { generation, members } => {
                spawn_local(sets::ask(self.clone(), volume.clone(), generation, members));
            }
            Command::Resized { blocks } => volume.resized(blocks),
            Command::Serving => {
                tracing::info!(
                    volume = %volume.id(),
                    epoch = core.epoch().get(),
                    lsn = core.commit_lsn().get(),
                    "volume is served"
                );
                volume.resized(core.blocks());
                self.announce();
            }
            Command::Stopped { reason } => {
                let (epoch, lsn) = (core.epoch().get(), core.commit_lsn().get());
                if reason == StopReason::Detached {
                    tracing::info!(volume = %volume.id(), epoch, lsn, "volume is detached");
                } else {
                    tracing::error!(volume = %volume.id(), epoch, lsn, %reason, "volume is no longer served");
                }
                volume.set_stopped(reason);
                self.announce();
            }
            _ => unreachable!("this is for a member"),
        }
    }
}

/// Carries out what is for the replica on this shard.
fn local(
    volume: &Volume,
    core: &mut EngineCore,
    slot: &mut DiskSlot,
    server: &mut Server,
    command: Command,
    now: Now,
) {
    let (number, host) = (volume.number(), &mut slot.host);
    match command {
        Command::Append { append, .. } => core.recycle(host.append(append)),
        Command::Commit { lsn, .. } => host.advance_commit(volume.id(), lsn),
        Command::Read { tag, epoch, at, range, .. } => {
            host.read(tag_of(number, tag), volume.id(), epoch, at, range);
        }
        Command::Status { tag, epoch, at, range, .. } => {
            host.status(tag_of(number, tag), volume.id(), epoch, at, range);
        }
        Command::Reserve { tag, range, .. } => {
            host.reserve(tag_of(number, tag), volume.id(), range);
        }
        Command::Unreserve { tag, range, .. } => {
            host.unreserve(tag_of(number, tag), volume.id(), range);
        }
        Command::Fence { fence, .. } => {
            server.local_fence(&fence, host, now.boot_ms);
            host.fence(tag_of(number, OpTag(0)), &fence);
        }
        Command::Truncate { truncate, .. } => {
            host.truncate(tag_of(number, OpTag(0)), &truncate);
        }
        Command::CatchUp { catch_up, .. } => {
            let catch_up = volume.catch_up(catch_up);
            server.local_catch_up(volume.id(), catch_up, host, now.boot_ms);
        }
        Command::Release { epoch, .. } => server.local_release(volume.id(), epoch),
        Command::ProposeSet { .. }
        | Command::Resized { .. }
        | Command::Reply { .. }
        | Command::Serving
        | Command::Stopped { .. } => unreachable!("this is for no member"),
    }
}

/// Whom a command is for.
fn member_of(command: &Command) -> Option<MemberId> {
    match command {
        Command::Fence { member, .. }
        | Command::Truncate { member, .. }
        | Command::Append { member, .. }
        | Command::Commit { member, .. }
        | Command::Read { member, .. }
        | Command::Status { member, .. }
        | Command::Reserve { member, .. }
        | Command::Unreserve { member, .. }
        | Command::CatchUp { member, .. }
        | Command::Release { member, .. } => Some(*member),
        Command::ProposeSet { .. }
        | Command::Resized { .. }
        | Command::Reply { .. }
        | Command::Serving
        | Command::Stopped { .. } => None,
    }
}
