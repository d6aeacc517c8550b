//! Members that lack what this engine does not hold: they fetch it from others,
//! while writes go on.
//!
//! Such a member is first told what is committed, behind its last record, so that it
//! settles and applies all it has; then it is told whom to ask. Meanwhile the window
//! keeps what is above the commit LSN of that moment, as far as its bounds allow. When
//! the member says up to where it holds everything now, the window takes over from
//! there, or another, shorter pass does.
//!
//! Also before the volume is served: the only complete log may be one member's, and the
//! epoch's first record needs a quorum of complete ones.

use super::{CatchUp, Command, EngineCore, Link, MemberId, StateName};
use holdfast_types::Lsn;
use holdfast_wire::catchup::CatchUpError;
use holdfast_wire::{Refusal, StreamSession};

impl EngineCore {
    /// Has members fetch what they lack, if there are others that have it.
    pub(super) fn drive_catch_up(&mut self) {
        let now = self.now;
        let idle = |member: &super::member::Member| {
            member.is(Link::Behind)
                && !member.suspect
                && member.fetches.is_none()
                && !member.rests(now)
        };
        let behind = self.members.which(idle);
        if behind.is_empty() || self.state.name() == StateName::Fencing {
            return;
        }
        let settle = self.commit;
        let complete = self.members.iter().filter(|member| member.is_complete(settle));
        let sources: Vec<MemberId> = complete.map(|member| member.id).collect();
        if sources.is_empty() {
            return;
        }
        for id in behind.iter() {
            self.append_nothing(id);
            let Some(member) = self.members.get_mut(id) else { continue };
            member.fetches = Some(settle);
            let (session, epoch, sources) = (member.session, self.epoch, sources.clone());
            let catch_up = CatchUp { session, epoch, settle, sources };
            self.out.push(Command::CatchUp { member: id, catch_up });
        }
    }

    pub(super) fn caught_up(
        &mut self,
        id: MemberId,
        session: StreamSession,
        result: Result<Lsn, CatchUpError>,
    ) {
        let (now, end) = (self.now, self.log.last());
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.is(Link::Behind) || member.session != session || member.fetches.is_none() {
            return;
        }
        member.fetches = None;
        match result {
            Ok(last) if last > end || last.next() < member.next => {
                // That is not the log that it was led along.
                let last_epoch = self.epoch;
                self.member_refused(id, Refusal::Mismatch { last, last_epoch });
            }
            Ok(last) => {
                if last.next() == member.next {
                    member.retry_later(now);
                } else {
                    member.retry_now();
                }
                member.refused = None;
                member.next = last.next();
                self.join(id);
                self.start_epoch();
            }
            Err(CatchUpError::NoSource(_)) => member.retry_later(now),
            Err(CatchUpError::Full) => {
                member.refused = Some(Refusal::Full);
                member.retry_later(now);
            }
            Err(CatchUpError::Refused(refusal)) => self.member_refused(id, refusal),
        }
    }
}
