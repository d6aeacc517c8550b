//! Promises: which engine a replica listens to. A newer engine ends the stream of an older
//! one, a newer stream of the same engine ends its older one, and whatever was
//! fetched for either is dropped.

use super::{Call, ConnId, Output, Server, stream::Phase};
use crate::host::Host;
use holdfast_types::{Epoch, NodeId, VolumeId};
use holdfast_wire::{Fence, FromReplica, Promise, Refusal, StreamSession};

impl Server {
    pub(super) fn fence(
        &mut self,
        conn: ConnId,
        fence: &Fence,
        session: StreamSession,
        host: &mut Host,
        now_ms: u64,
    ) {
        let Some(stream) = self.stream(conn) else { return };
        let (volume, replica, from) = (stream.volume, stream.replica, stream.from);
        if fence.volume != volume || fence.node != from {
            return self.violation(conn, "a fence for another replica or node", host, now_ms);
        }
        let before = (stream.epoch, stream.session);
        if !stream.is(Phase::Greeted) && (fence.epoch, session) <= before {
            return self.violation(conn, "a fence that is not newer than the last", host, now_ms);
        }
        let report = host.volume_report(volume).filter(|report| report.replica == replica);
        let Some(report) = report else {
            return self.send(conn, FromReplica::Promised(Err(Refusal::Unknown)));
        };
        let accepts = host.failure().is_none()
            && report.floored
            && report.history == fence.history
            && report.promised <= fence.epoch;
        if accepts {
            if !self.leases.may_promise(volume, fence.epoch, from) {
                let refusal = Refusal::Fenced { promised: fence.epoch };
                return self.send(conn, FromReplica::Promised(Err(refusal)));
            }
            if !self.replace_owner(Some(conn), fence.epoch, session, volume, host, now_ms) {
                return self.violation(conn, "an older stream than the one in use", host, now_ms);
            }
            self.promise(volume, fence.epoch, from, host, now_ms);
            if report.promised < fence.epoch {
                let promised = fence.epoch;
                self.fenced.push(Output::EngineFenced { volume, promised });
            }
            self.owners.insert((host.disk_id(), volume), conn);
        }
        let tag = self.calls.add(Call::Fence { conn, session });
        if let Some(stream) = self.stream(conn) {
            stream.step(Phase::Fencing);
            (stream.epoch, stream.session) = (fence.epoch, session);
            // Asked on an older session: answers are no use to anyone.
            stream.asked.clear();
            stream.reads.clear();
            (stream.received, stream.blocks) = (report.last_lsn, report.blocks);
        }
        host.fence(tag, fence);
    }

    /// The local engine asks its replica for a promise: called right before
    /// [`Host::fence`]. Ends the streams and pulls that the promise fences off.
    pub fn local_fence(&mut self, fence: &Fence, host: &mut Host, now_ms: u64) {
        let disk = self.adopted(host);
        let Some(report) = host.volume_report(fence.volume) else { return };
        let accepts = host.failure().is_none()
            && report.floored
            && report.history == fence.history
            && report.promised <= fence.epoch
            && self.leases.may_promise(fence.volume, fence.epoch, self.node);
        if !accepts {
            return;
        }
        let session = StreamSession::default();
        self.replace_owner(None, fence.epoch, session, fence.volume, host, now_ms);
        self.owners.remove(&(disk, fence.volume));
        self.promise(fence.volume, fence.epoch, self.node, host, now_ms);
    }

    /// A suspect replica is told how high the promises can have been that it may have lost:
    /// called before [`Host::set_floor`], and also when the host cannot keep it: it promises nothing
    /// then. From now on leases are granted again.
    pub fn floor(&mut self, volume: VolumeId, epoch: Epoch) {
        self.leases.floor(volume, epoch);
    }

    /// This node has a replica of the volume on a disk that is not open, and what it has promised is
    /// not known: nothing is granted until [`Self::floor`]. Before any renewal is answered.
    pub fn suspend(&mut self, volume: VolumeId, now_ms: u64) {
        self.leases.suspend(now_ms, volume);
    }

    /// There is no such volume any more, by the word of the metadata group: nobody reads from it.
    pub fn forget(&mut self, volume: VolumeId) {
        self.leases.forget(volume);
    }

    /// The volumes that grants wait for.
    #[must_use]
    pub fn unfloored(&self) -> Vec<VolumeId> {
        self.leases.unfloored()
    }

    fn promise(
        &mut self,
        volume: VolumeId,
        epoch: Epoch,
        to: NodeId,
        host: &mut Host,
        now_ms: u64,
    ) {
        self.abort_pull((host.disk_id(), volume), now_ms);
        host.unreserve_all(volume);
        self.leases.promise(now_ms, volume, epoch, to);
    }

    /// Closes the stream that the replica listened to until now, unless it is `by` itself;
    /// `false` when that stream is newer.
    fn replace_owner(
        &mut self,
        by: Option<ConnId>,
        epoch: Epoch,
        session: StreamSession,
        volume: VolumeId,
        host: &mut Host,
        now_ms: u64,
    ) -> bool {
        let owner = self.owners.get(&(host.disk_id(), volume)).copied();
        let Some(owner) = owner.filter(|owner| Some(*owner) != by) else { return true };
        let Some(old) = self.stream(owner) else { return true };
        if (old.epoch, old.session) >= (epoch, session) {
            return false;
        }
        if old.epoch < epoch {
            // It need not wait for its lease to hear of it.
            let refused = FromReplica::Refused(old.session, Refusal::Fenced { promised: epoch });
            self.send(owner, refused);
        }
        self.close_with(owner, "a newer stream has taken its place", host, now_ms);
        true
    }

    /// The host has answered a fence.
    pub(super) fn promised(
        &mut self,
        conn: ConnId,
        session: StreamSession,
        result: Result<Promise, Refusal>,
        host: &Host,
        now_ms: u64,
    ) {
        let Some(stream) = self.stream(conn) else { return };
        if stream.session != session || !stream.is(Phase::Fencing) {
            return;
        }
        let result = match result {
            Ok(mut promise) => {
                stream.step(Phase::Promised);
                let (volume, epoch, from) = (stream.volume, stream.epoch, stream.from);
                // As of the moment of sending: it has become less since the fence came.
                promise.lease_owed_ms = self.leases.owed_ms(now_ms, volume, epoch, from);
                Ok(promise)
            }
            Err(refusal) => {
                stream.step(Phase::Greeted);
                Err(refusal)
            }
        };
        let promised = result.is_ok();
        self.send(conn, FromReplica::Promised(result));
        if promised {
            self.say_credits(conn, host, now_ms, true);
        }
    }
}
