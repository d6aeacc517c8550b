//! Inbound connections: opened, closed, and what a host says that concerns them all.

use super::{Call, Conn, ConnId, Output, Server, SourceConn, Stream, stream::Phase};
use crate::host::{Event, Host};
use holdfast_types::{NodeId, ReplicaId, VolumeId};
use holdfast_wire::{Ack, FromReplica, Refusal, StreamSession};

/// Inbound connections of a shard at most: several for each volume that it can have (4096).
pub(super) const CONNS_MAX: usize = 16384;

impl Server {
    /// An engine's node connected for a replica's stream. On a refusal the connection
    /// is to be closed, and is not known here.
    ///
    /// # Errors
    /// No such replica on this disk, or the disk has failed, or there are too many connections.
    pub fn open_stream(
        &mut self,
        conn: ConnId,
        volume: VolumeId,
        replica: ReplicaId,
        from: NodeId,
        host: &Host,
    ) -> Result<(), Refusal> {
        self.may_open(volume, replica, host)?;
        let stream = Stream::new(volume, replica, host.disk_id(), from);
        self.add(conn, Conn::Stream(Box::new(stream)));
        Ok(())
    }

    /// A replica's node connected to fetch what it lacks; an older connection of the same
    /// node for the same volume is closed.
    ///
    /// # Errors
    /// As [`Self::open_stream`].
    pub fn open_source(
        &mut self,
        conn: ConnId,
        volume: VolumeId,
        replica: ReplicaId,
        from: NodeId,
        host: &Host,
    ) -> Result<(), Refusal> {
        self.may_open(volume, replica, host)?;
        let disk = host.disk_id();
        self.replace_source(volume, from);
        self.may_be_source(disk)?;
        self.add(conn, Conn::Source(SourceConn::new(volume, disk, from)));
        Ok(())
    }

    fn may_open(&self, volume: VolumeId, replica: ReplicaId, host: &Host) -> Result<(), Refusal> {
        self.adopted(host);
        if host.failure().is_some() {
            return Err(Refusal::DiskFailed);
        }
        let report = host.volume_report(volume).filter(|report| report.replica == replica);
        match report {
            None => Err(Refusal::Unknown),
            Some(_) if self.conns.len() >= CONNS_MAX => Err(Refusal::Full),
            Some(_) => Ok(()),
        }
    }

    fn add(&mut self, conn: ConnId, what: Conn) {
        let before = self.conns.insert(conn, what);
        assert!(before.is_none(), "{conn:?} is open already");
    }

    /// An inbound connection is gone.
    pub fn close(&mut self, conn: ConnId, host: &mut Host, now_ms: u64) {
        match self.conns.remove(&conn) {
            None | Some(Conn::Source(_)) => {}
            Some(Conn::Stream(stream)) => {
                let place = (stream.disk, stream.volume);
                assert_eq!(stream.disk, host.disk_id(), "the connection is of another disk");
                self.call_in(stream.disk, &stream.line);
                if self.owners.get(&place) == Some(&conn) {
                    self.owners.remove(&place);
                    // Nobody is there to use it.
                    host.unreserve_all(stream.volume);
                    self.abort_pull_of(place, conn, now_ms);
                }
            }
        }
    }

    /// Closes a connection from here.
    pub(super) fn close_with(&mut self, conn: ConnId, why: &str, host: &mut Host, now_ms: u64) {
        if self.conns.contains_key(&conn) {
            self.close(conn, host, now_ms);
            self.out.push(Output::Close(conn, why.to_owned()));
        }
    }

    /// The peer does not keep to the protocol.
    pub(super) fn violation(&mut self, conn: ConnId, what: &str, host: &mut Host, now_ms: u64) {
        self.close_with(conn, &format!("the peer sent {what}"), host, now_ms);
    }

    /// Closes all connections to a disk whose volume fits.
    pub(super) fn close_all(
        &mut self,
        host: &mut Host,
        now_ms: u64,
        why: &str,
        fits: impl Fn(VolumeId) -> bool,
    ) {
        let disk = host.disk_id();
        let is_on = |conn: &Conn| match conn {
            Conn::Stream(stream) => stream.disk == disk && fits(stream.volume),
            Conn::Source(source) => source.disk == disk && fits(source.volume),
        };
        let conns = self.conns.iter().filter(|(_, conn)| is_on(conn)).map(|(id, _)| *id);
        let mut conns: Vec<ConnId> = conns.collect();
        conns.sort_unstable();
        for conn in conns {
            self.close_with(conn, why, host, now_ms);
        }
    }

    /// Records are on stable storage. Returns what is the local engine's.
    pub(super) fn ack(&mut self, ack: Ack, host: &mut Host, now_ms: u64) -> Option<Ack> {
        let place = (host.disk_id(), ack.volume);
        let pulled = self.pull_acked(place, ack, host, now_ms);
        let Some(conn) = self.owners.get(&place).copied() else {
            return (!pulled).then_some(ack);
        };
        let Some(stream) = self.stream(conn) else { return Some(ack) };
        if stream.epoch != ack.epoch {
            return Some(ack);
        }
        if stream.session == ack.session && !pulled {
            self.send(conn, FromReplica::Ack(ack));
            self.say_credits(conn, host, now_ms, false);
        }
        None
    }

    /// An append was refused. Whether it was one of the local engine.
    pub(super) fn refused(
        &mut self,
        volume: VolumeId,
        session: StreamSession,
        refusal: Refusal,
        host: &mut Host,
        now_ms: u64,
    ) -> bool {
        let place = (host.disk_id(), volume);
        if self.pull_refused(place, session, refusal, host, now_ms) {
            return false;
        }
        let Some(conn) = self.owners.get(&place).copied() else { return true };
        match self.stream(conn) {
            // Until it has its promise it appends nothing: this is what is left of the one before.
            Some(stream) if stream.is(Phase::Promised) => {
                if stream.session == session {
                    self.send(conn, FromReplica::Refused(session, refusal));
                }
                false
            }
            _ => true,
        }
    }

    /// There is more room on a disk that was short of it.
    pub(super) fn credits_grew(&mut self, host: &mut Host, now_ms: u64) {
        let conns = self.promised_on(host, |_| true);
        for conn in &conns {
            if let Some(stream) = self.stream(*conn) {
                stream.line.hurry();
                self.say_credits(*conn, host, now_ms, false);
            }
        }
        self.listed = conns;
        self.offer_pulls(host, now_ms);
    }

    /// Time passed, and with it what others took of a disk's room: tells those of it that may
    /// wait for some. Called with [`Self::tick`], for each host.
    pub fn review(&mut self, host: &mut Host, now_ms: u64) {
        let conns = self.promised_on(host, |stream| stream.line.is_short());
        for conn in &conns {
            self.say_more(*conn, host, now_ms);
        }
        self.listed = conns;
        self.offer_pulls(host, now_ms);
    }

    /// The streams of a disk on which records may come, and which fit. The list is to be put
    /// back in its place.
    fn promised_on(&mut self, host: &Host, fits: impl Fn(&Stream) -> bool) -> Vec<ConnId> {
        let mut conns = std::mem::take(&mut self.listed);
        conns.clear();
        let disk = host.disk_id();
        let of_disk = self.owners.iter().filter(|((on, _), _)| *on == disk);
        let fits = |conn: &ConnId| match self.conns.get(conn) {
            Some(Conn::Stream(stream)) => stream.is(Phase::Promised) && fits(stream),
            _ => false,
        };
        conns.extend(of_disk.map(|(_, conn)| *conn).filter(fits));
        conns.sort_unstable();
        conns
    }

    /// A disk has failed: nothing is promised, logged or fetched on it any more.
    pub(super) fn disk_failed(&mut self, host: &mut Host, now_ms: u64) {
        let disk = host.disk_id();
        self.fail_pulls(disk, now_ms);
        let mut refused = Vec::new();
        for (id, conn) in &self.conns {
            if let Conn::Stream(stream) = conn
                && stream.disk == disk
            {
                refused.push((*id, stream.is(Phase::Fencing), stream.session));
            }
        }
        refused.sort_unstable_by_key(|(conn, ..)| *conn);
        for (conn, fencing, session) in refused {
            self.send(
                conn,
                match fencing {
                    true => FromReplica::Promised(Err(Refusal::DiskFailed)),
                    false => FromReplica::Refused(session, Refusal::DiskFailed),
                },
            );
        }
        self.close_all(host, now_ms, "the disk has failed", |_| true);
    }

    /// A host has answered a call of the server's.
    pub(super) fn answered(&mut self, call: Call, answer: Event, host: &mut Host, now_ms: u64) {
        match (call, answer) {
            (Call::Fence { conn, session }, Event::Promised { result, .. }) => {
                self.promised(conn, session, result, host, now_ms);
            }
            (Call::Truncate { conn, session }, Event::Truncated { result, .. }) => {
                self.truncated(conn, session, result);
            }
            (Call::Read { conn, tag, bytes }, Event::Read { tag: call, result }) => {
                self.read_done(conn, tag, call, bytes, result, host);
            }
            (Call::Status { conn, tag }, Event::Status { tag: call, result }) => {
                self.status_done(conn, tag, call, result);
            }
            (
                Call::Reserve { conn, tag, volume, range },
                Event::Reserved { tag: call, granted },
            ) => {
                self.reserved(conn, tag, call, granted, (volume, range), host, now_ms);
            }
            (Call::Question { conn }, answer) => self.source_answers(conn, answer),
            (Call::Pull { place, number, reserved }, answer) => {
                self.pull_answered(place, number, reserved, answer, host, now_ms);
            }
            (call, answer) => unreachable!("{call:?} was answered by {answer:?}"),
        }
    }
}
