//! What engines are told and what they want, as words for the trace's hash and as text
//! for people; payload and moments of this machine's clock are left out.

use super::{World, seat::Seat};
use holdfast_engine::core::{Command, Event, MemberId};

fn of(kind: u64, member: MemberId, word: u64) -> [u64; 2] {
    [kind | u64::from(member.0) << 8, word]
}

/// Nothing for the passing of time, which every event does with.
fn event_words(event: &Event) -> Option<[u64; 2]> {
    Some(match event {
        Event::Tick { .. } => return None,
        Event::Attach(attach) => [1, attach.epoch.get()],
        Event::Promised { member, result } => {
            of(2, *member, result.as_ref().map_or(u64::MAX, |promise| promise.last_lsn.get()))
        }
        Event::Ack { member, ack } => of(3, *member, ack.durable_lsn.get()),
        Event::Lease { member, until_ms } => of(4, *member, *until_ms),
        Event::MemberUp { member } => of(5, *member, 0),
        Event::MemberDown { member } => of(6, *member, 0),
        Event::MemberLost { member, .. } => of(7, *member, 0),
        Event::SetDecided { generation, accepted, .. } => {
            [8 | u64::from(*accepted) << 8, generation.get()]
        }
        Event::CaughtUp { member, result, .. } => {
            of(9, *member, result.as_ref().map_or(u64::MAX, |lsn| lsn.get()))
        }
        Event::Detach { .. } => [10, 0],
        Event::Resize { blocks } => [11, *blocks],
        Event::Request { session, request } => [12 | session.0 << 8, request.tag],
        Event::ReadDone { member, tag, result } => {
            of(13 + u64::from(result.is_ok()), *member, tag.0)
        }
        Event::StatusDone { member, tag, result } => {
            of(15 + u64::from(result.is_ok()), *member, tag.0)
        }
        Event::Reserved { member, tag, granted } => of(17 + u64::from(*granted), *member, tag.0),
        Event::Refused { member, session, .. } => of(19, *member, session.0),
        Event::Truncated { member, result } => of(20, *member, u64::from(result.is_ok())),
        Event::Credits { member, as_of, credits } => {
            of(21, *member, as_of.get() ^ credits.slots << 40 ^ credits.wal_bytes << 8)
        }
        Event::SessionClosed { session } => [22, session.0],
    })
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Attach(attach) => format!(
            "Attach to epoch {}, generation {}, members {:?}",
            attach.epoch, attach.generation, attach.members
        ),
        Event::Detach { .. } => "Detach".to_owned(),
        Event::ReadDone { member, tag, result: Ok(_) } => format!("ReadDone {member:?} {tag:?}"),
        Event::Request { session, request } => {
            format!("Request {} of session {}", request.tag, session.0)
        }
        event => format!("{event:?}"),
    }
}

fn command_words(command: &Command) -> [u64; 2] {
    match command {
        Command::Fence { member, fence, session } => {
            of(1 | session.0 << 16, *member, fence.epoch.get())
        }
        Command::Truncate { member, truncate } => of(2, *member, truncate.last.get()),
        Command::Append { member, append } => of(
            3 | (append.records.len() as u64) << 16,
            *member,
            append.prev_lsn.get() ^ append.commit_lsn.get() << 32,
        ),
        Command::Commit { member, lsn } => of(4, *member, lsn.get()),
        Command::Read { member, tag, at, range, .. } => {
            of(5 | range.start.get() << 16, *member, tag.0 ^ at.get() << 32)
        }
        Command::Status { member, tag, at, .. } => of(6, *member, tag.0 ^ at.get() << 32),
        Command::Reserve { member, tag, range } => of(7 | range.count << 16, *member, tag.0),
        Command::Unreserve { member, tag, range } => of(8 | range.count << 16, *member, tag.0),
        Command::CatchUp { member, catch_up } => of(9, *member, catch_up.settle.get()),
        Command::Release { member, epoch } => of(10, *member, epoch.get()),
        Command::ProposeSet { generation, members } => [
            11,
            members.iter().fold(generation.get(), |word, member| word << 8 | u64::from(member.0)),
        ],
        Command::Resized { blocks } => [12, *blocks],
        Command::Reply { session, tag, result } => {
            [(13 + u64::from(result.is_ok())) | session.0 << 8, *tag]
        }
        Command::Serving => [15, 0],
        Command::Stopped { .. } => [16, 0],
    }
}

fn command_text(command: &Command) -> String {
    match command {
        Command::Append { member, append } => format!(
            "Append to {member:?} behind {}@{}: {} records, commit {}",
            append.prev_lsn,
            append.prev_epoch,
            append.records.len(),
            append.commit_lsn
        ),
        Command::Reply { session, tag, result } => {
            let end = match result {
                Ok(_) => "done".to_owned(),
                Err(error) => error.to_string(),
            };
            format!("Reply {tag} to session {}: {end}", session.0)
        }
        command => format!("{command:?}"),
    }
}

impl World {
    pub(super) fn note_engine_event(&self, node: usize, seat: &Seat, event: &Event) {
        let Some([kind, word]) = event_words(event) else { return };
        self.trace.note(&[41, node as u64, seat.epoch.get(), kind, word], || {
            format!("{node}: engine {} is told {}", seat.epoch, event_text(event))
        });
    }

    pub(super) fn note_engine_commands(&self, node: usize, seat: &Seat, commands: &[Command]) {
        for command in commands {
            let [kind, word] = command_words(command);
            self.trace.note(&[45, node as u64, seat.epoch.get(), kind, word], || {
                format!("{node}: engine {} wants {}", seat.epoch, command_text(command))
            });
        }
    }
}
