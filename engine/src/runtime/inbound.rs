//! What other nodes want from the replicas here, and what replicas here want from others:
//! the connections of the [`Server`], which decides.
//!
//! Each connection's task only decodes and puts what came where the driver finds it
//! ([`Arrival`]); the driver hands it to the server in its turn, and carries out what the server says.

use super::{
    StreamStatus,
    disks::Disks,
    driver::{Inner, Now},
    greeting,
    link::Link,
};
use crate::core::Event;
use holdfast_io::net::{Detached, Stream};
use holdfast_replica::{ConnId, Output, PullId, Server};
use holdfast_types::{DiskId, NodeId, ReplicaId, VolumeId};
use holdfast_wire::{
    Frame, Kinds, Refusal, ToReplica,
    catchup::{Answer, Question, Source},
    peer::{Hello, Purpose, Welcome},
};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
};
use tokio::task::{AbortHandle, spawn_local};

/// Inbound connections at a time: a stream and a catch-up for each volume that a shard may
/// hold replicas of. Each has a receive buffer.
pub const INBOUND_MAX: usize = 2 * super::driver::VOLUMES_MAX;

/// What came on a connection since the last turn.
pub(super) enum Arrival {
    Message(ConnId, ToReplica),
    Question(ConnId, Question),
    Closed(ConnId),
    SourceUp(PullId, Rc<Link>),
    Answer(PullId, Answer),
    SourceDown(PullId, String),
}

/// The server's connections.
#[derive(Default)]
pub(super) struct Inbound {
    conns: RefCell<HashMap<ConnId, Conn>>,
    pulls: RefCell<HashMap<PullId, Pull>>,
    /// In the order in which it came. Bounded by what a read of each connection brings.
    arrivals: RefCell<VecDeque<Arrival>>,
    last_conn: Cell<u64>,
}

/// An engine's stream, or a replica that catches up from here.
struct Conn {
    link: Rc<Link>,
    /// The disk's place.
    disk: usize,
    /// Set for a stream.
    stream: Option<(VolumeId, ReplicaId)>,
    from: NodeId,
}

/// A connection to a source.
struct Pull {
    disk: DiskId,
    link: Option<Rc<Link>>,
    task: AbortHandle,
}

impl Inbound {
    fn arrived(&self, inner: &Inner, arrival: Arrival) {
        self.arrivals.borrow_mut().push_back(arrival);
        inner.agenda.wake();
    }

    pub(super) fn check(&self, now_ms: u64) {
        self.conns.borrow().values().for_each(|conn| conn.link.check_stall(now_ms));
        let pulls = self.pulls.borrow();
        pulls.values().filter_map(|pull| pull.link.as_ref()).for_each(|l| l.check_stall(now_ms));
    }

    pub(super) fn streams(&self) -> Vec<StreamStatus> {
        let conns = self.conns.borrow();
        let streams = conns.values().filter_map(|conn| {
            let (volume, replica) = conn.stream?;
            let queued_bytes = conn.link.queued_bytes();
            Some(StreamStatus { volume, replica, from: conn.from, queued_bytes })
        });
        streams.collect()
    }
}

impl Inner {
    /// Takes a connection that another node opened.
    pub(super) async fn accept(self: &Rc<Self>, connection: Detached, hello: Hello) {
        let stream = match connection.attach() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "cannot serve another node"),
        };
        let from = hello.from;
        let refused = match hello.purpose {
            Purpose::Meta => return,
            Purpose::Pair => return self.grant(stream, from).await,
            Purpose::Stream { volume, replica } => {
                self.open(stream, from, volume, replica, Kinds::TO_REPLICA)
            }
            Purpose::CatchUp { volume, replica } => {
                self.open(stream, from, volume, replica, Kinds::QUESTION)
            }
        };
        if let Err((mut stream, reason)) = refused {
            // Whoever does not wait for the reason does not get it.
            let _ = greeting::welcome(&mut stream, Welcome::Refused { reason }).await;
        }
    }

    /// Makes an inbound connection the server's.
    fn open(
        self: &Rc<Self>,
        stream: Stream,
        from: NodeId,
        volume: VolumeId,
        replica: ReplicaId,
        kinds: Kinds,
    ) -> Result<(), (Stream, String)> {
        if self.inbound.conns.borrow().len() >= INBOUND_MAX {
            return Err((stream, "this node has as many connections as it can".to_owned()));
        }
        let inbound = &self.inbound;
        let conn = ConnId(inbound.last_conn.replace(inbound.last_conn.get() + 1));
        let mut disks = self.disks.borrow_mut();
        let place = disks.holding(volume, replica);
        let Some((disk, slot)) = place.and_then(|at| Some((at, disks.get_mut(at)?))) else {
            return Err((stream, Refusal::Unknown.to_string()));
        };
        let mut server = self.server.borrow_mut();
        let is_stream = kinds == Kinds::TO_REPLICA;
        let opened = if is_stream {
            server.open_stream(conn, volume, replica, from, &slot.host)
        } else {
            server.open_source(conn, volume, replica, from, &slot.host)
        };
        if let Err(refusal) = opened {
            return Err((stream, refusal.to_string()));
        }
        let (pool, outgoing) = (self.pool.clone(), self.outgoing.clone());
        let link = Link::new(stream, pool, kinds, outgoing, self.clock.now_ms());
        link.push(&Frame::Welcome(Welcome::Accepted { node: self.node }));
        let stream = is_stream.then_some((volume, replica));
        let entry = Conn { link: link.clone(), disk, stream, from };
        inbound.conns.borrow_mut().insert(conn, entry);
        // The welcome, and what opening it made the server say to others.
        self.touch();
        let inner = self.clone();
        spawn_local(async move {
            let why = link
                .run(|frame| {
                    let arrival = match frame {
                        Frame::ToReplica(message) => Arrival::Message(conn, message),
                        Frame::Question(question) => Arrival::Question(conn, question),
                        _ => unreachable!("the link takes no other kinds"),
                    };
                    inner.inbound.arrived(&inner, arrival);
                    Ok(())
                })
                .await;
            tracing::debug!(%volume, %replica, peer = %from, why, "a connection of another node ended");
            inner.inbound.arrived(&inner, Arrival::Closed(conn));
        });
        Ok(())
    }

    /// Hands what came to the server. Returns whether anything did.
    pub(super) fn take_arrivals(&self, disks: &mut Disks, server: &mut Server, now: Now) -> bool {
        let mut any = false;
        loop {
            let Some(arrival) = self.inbound.arrivals.borrow_mut().pop_front() else { return any };
            any = true;
            self.take_arrival(arrival, disks, server, now.boot_ms);
        }
    }

    fn take_arrival(&self, arrival: Arrival, disks: &mut Disks, server: &mut Server, now_ms: u64) {
        let inbound = &self.inbound;
        match arrival {
            Arrival::Message(id, message) => {
                let conns = inbound.conns.borrow();
                let Some(conn) = conns.get(&id) else { return };
                let Some(slot) = disks.get_mut(conn.disk) else { return };
                let lists = matches!(message, ToReplica::Append(_));
                server.message(id, message, &mut slot.host, now_ms);
                if lists {
                    conn.link.recycle(server.spare_records());
                }
            }
            Arrival::Question(id, question) => {
                let conns = inbound.conns.borrow();
                let Some(conn) = conns.get(&id) else { return };
                let Some(slot) = disks.get_mut(conn.disk) else { return };
                server.question(id, question, &mut slot.host, now_ms);
            }
            Arrival::Closed(id) => {
                let Some(conn) = inbound.conns.borrow_mut().remove(&id) else { return };
                if let Some(slot) = disks.get_mut(conn.disk) {
                    server.close(id, &mut slot.host, now_ms);
                }
            }
            Arrival::SourceUp(id, link) => {
                let mut pulls = inbound.pulls.borrow_mut();
                let Some(pull) = pulls.get_mut(&id) else { return };
                pull.link = Some(link);
                if let Some(slot) = disks.by_id(pull.disk) {
                    server.source_up(id, &mut slot.host, now_ms);
                }
            }
            Arrival::Answer(id, answer) => {
                let pulls = inbound.pulls.borrow();
                let Some(pull) = pulls.get(&id) else { return };
                if let Some(slot) = disks.by_id(pull.disk) {
                    server.answer(id, answer, &mut slot.host, now_ms);
                }
            }
            Arrival::SourceDown(id, cause) => {
                let Some(pull) = inbound.pulls.borrow_mut().remove(&id) else { return };
                if let Some(slot) = disks.by_id(pull.disk) {
                    server.source_down(id, cause, &mut slot.host, now_ms);
                }
            }
        }
    }

    /// Carries out what the server says.
    pub(super) fn carry_output(self: &Rc<Self>, output: Output) {
        let inbound = &self.inbound;
        match output {
            Output::EngineFenced { volume, promised } => {
                if let Some(volume) = self.volumes.borrow().get(volume)
                    && volume.epoch() < promised
                {
                    volume.fence_off(promised);
                }
            }
            Output::Send(conn, message) => {
                if let Some(conn) = inbound.conns.borrow().get(&conn) {
                    conn.link.push(&Frame::FromReplica(message));
                }
            }
            Output::Answer(conn, answer) => {
                if let Some(conn) = inbound.conns.borrow().get(&conn) {
                    conn.link.push(&Frame::Answer(answer));
                }
            }
            Output::Close(conn, reason) => {
                if let Some(conn) = inbound.conns.borrow().get(&conn) {
                    conn.link.finish(reason);
                }
            }
            Output::Connect { pull, disk, volume, source } => {
                let task = spawn_local(fetch(self.clone(), pull, volume, source)).abort_handle();
                inbound.pulls.borrow_mut().insert(pull, Pull { disk, link: None, task });
            }
            Output::Ask(pull, question) => {
                if let Some(Pull { link: Some(link), .. }) = inbound.pulls.borrow().get(&pull) {
                    link.push(&Frame::Question(question));
                }
            }
            Output::Hangup(pull) => {
                if let Some(pull) = inbound.pulls.borrow_mut().remove(&pull) {
                    pull.task.abort();
                }
            }
            Output::CaughtUp { volume, session, result } => {
                if let Some(volume) = self.volumes.borrow().get(volume)
                    && let Some(member) = volume.local()
                {
                    volume.tell(Event::CaughtUp { member, session, result });
                }
            }
        }
    }
}

/// Opens a connection to a source and hands its answers to the server.
async fn fetch(inner: Rc<Inner>, pull: PullId, volume: VolumeId, source: Source) {
    let purpose = Purpose::CatchUp { volume, replica: source.replica };
    let why = match inner.connect(source.node, purpose).await {
        Err(error) => error.to_string(),
        Ok(stream) => {
            let (pool, outgoing) = (inner.pool.clone(), inner.outgoing.clone());
            let link = Link::new(stream, pool, Kinds::ANSWER, outgoing, inner.clock.now_ms());
            inner.inbound.arrived(&inner, Arrival::SourceUp(pull, link.clone()));
            link.run(|frame| {
                let Frame::Answer(answer) = frame else {
                    unreachable!("the link takes no other kinds");
                };
                inner.inbound.arrived(&inner, Arrival::Answer(pull, answer));
                Ok(())
            })
            .await
        }
    };
    inner.inbound.arrived(&inner, Arrival::SourceDown(pull, why));
}
