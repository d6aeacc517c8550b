//! Connections that carry the workload and check its answers.
//!
//! One thread, one `LocalSet`: a task for each connection, `depth` workers on
//! each, all sharing the history. When the server goes away the workers end,
//! and the connections wait until they are told where it serves again.

use super::SECTOR_BYTES;
use super::history::{Content, History, Tick};
use super::pattern::{self, Found};
use super::report::Report;
use super::workload::{LEN_MAX, Operation, Shape};
use crate::nbd::{Connection, Endpoint, Request, wire};
use crate::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pause between attempts to connect to a server that is said to serve.
const RECONNECT_PAUSE: Duration = Duration::from_millis(5);
/// Reads of a sweep in flight.
const SWEEP_DEPTH: u64 = 4;

/// What to put on the server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Seed of data and operations.
    pub seed: u64,
    /// Connections.
    pub connections: usize,
    /// Operations in flight on each.
    pub depth: usize,
    /// Whether discards are sent: not every server zeroes what it discards.
    pub discard: bool,
    /// An operation that takes longer is an error.
    pub hang: Duration,
    /// The server may refuse a connection for a while, as a node does that does
    /// not serve the volume yet, or any more.
    pub moves: bool,
    /// All operations lie within so many bytes from the start; 0: the whole volume.
    pub area: u64,
    /// Only whole blocks of 4 KiB are written and read, one at a time.
    pub single_blocks: bool,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            seed: 1,
            connections: 4,
            depth: 8,
            discard: true,
            hang: Duration::from_secs(30),
            moves: false,
            area: 0,
            single_blocks: false,
        }
    }
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its endpoints; connections are spread over them.
    pub endpoints: Vec<Endpoint>,
    /// Export name.
    pub name: String,
}

/// The verifying client.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    load: Load,
    target: watch::Sender<Option<Target>>,
    /// Connections that are open or being opened.
    active: watch::Sender<usize>,
    state: RefCell<State>,
    next_op: Cell<u64>,
}

#[derive(Debug)]
struct State {
    /// Known from the first connection on.
    volume: Option<(Shape, History)>,
    rng: ChaCha8Rng,
    report: Report,
    down_since: Option<Instant>,
    /// When the request was sent that was answered last, and when that was. Forgotten
    /// when the load pauses.
    answered: Option<(Instant, Instant)>,
    /// When the server was last said to be somewhere.
    told: Instant,
    /// The server may say that it is full.
    may_be_full: bool,
}

impl Client {
    /// A client that waits to be told where the server is.
    #[must_use]
    pub fn new(load: Load) -> Client {
        let state = State {
            volume: None,
            rng: ChaCha8Rng::seed_from_u64(load.seed),
            report: Report::default(),
            down_since: None,
            answered: None,
            told: Instant::now(),
            may_be_full: false,
        };
        let client = Client {
            shared: Rc::new(Shared {
                load,
                target: watch::Sender::new(None),
                active: watch::Sender::new(0),
                state: RefCell::new(state),
                next_op: Cell::new(1),
            }),
        };
        for index in 0..load.connections {
            tokio::task::spawn_local(keep_connected(Rc::clone(&client.shared), index));
        }
        client
    }

    /// The server serves at `target`; the load begins.
    pub fn serve(&self, target: Target) {
        self.shared.state.borrow_mut().told = Instant::now();
        self.shared.target.send_replace(Some(target));
    }

    /// The load pauses; returns when every operation in flight has its answer.
    pub async fn pause(&self) {
        self.shared.target.send_replace(None);
        let mut active = self.shared.active.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = active.wait_for(|count| *count == 0).await;
        self.shared.state.borrow_mut().answered = None;
    }

    /// The server is dead, or was told to die at `since`: what is in flight has
    /// happened or never will. Returns when all connections have noticed.
    pub async fn crashed(&self, since: Instant) {
        self.pause().await;
        let mut state = self.shared.state.borrow_mut();
        if let Some((_, history)) = &mut state.volume {
            history.crashed();
        }
        state.down_since.get_or_insert(since);
    }

    /// Waits for an answer to a request that was sent from now on. False: there was none
    /// within `limit`.
    pub async fn answers(&self, limit: Duration) -> bool {
        let from = Instant::now();
        while self.shared.state.borrow().answered.is_none_or(|(sent, _)| sent < from) {
            if from.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        true
    }

    /// For how long nothing was answered, since the load began or it was told where to go.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let state = self.shared.state.borrow();
        state.answered.map_or(state.told, |(_, at)| at.max(state.told)).elapsed()
    }

    /// Whether the server may say from now on that it is full, to whatever needs space.
    pub fn allow_full(&self, may_be_full: bool) {
        self.shared.state.borrow_mut().may_be_full = may_be_full;
    }

    /// Changes the report.
    pub fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.shared.state.borrow_mut().report);
    }

    /// The report so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.state.borrow().report.clone()
    }

    /// Reads the whole volume over a connection of its own and checks every
    /// sector, beside the load if there is one. False: the server went away.
    pub async fn sweep(&self, target: &Target) -> bool {
        let Some(endpoint) = target.endpoints.first() else {
            unreachable!("a target has an endpoint");
        };
        match self.sweep_at(endpoint, &target.name).await {
            Ok(()) => {
                self.note(|report| report.sweeps += 1);
                true
            }
            Err(error) => {
                if !error.is_loss() {
                    self.note(|report| report.error(format_args!("sweep: {error}")));
                }
                false
            }
        }
    }

    async fn sweep_at(&self, endpoint: &Endpoint, name: &str) -> Result<()> {
        let connection = Rc::new(Connection::open(endpoint, name).await?);
        self.shared.learn(&connection);
        let bytes = connection.export().bytes;
        let mut readers = JoinSet::new();
        for lane in 0..SWEEP_DEPTH {
            let (shared, connection) = (Rc::clone(&self.shared), Rc::clone(&connection));
            readers.spawn_local(async move {
                for offset in (lane * LEN_MAX..bytes).step_by((SWEEP_DEPTH * LEN_MAX) as usize) {
                    let len = LEN_MAX.min(bytes - offset);
                    let operation = Operation { command: wire::CMD_READ, flags: 0, offset, len };
                    shared.perform(&connection, operation, None).await?;
                }
                Ok(())
            });
        }
        while let Some(outcome) = readers.join_next().await {
            outcome.map_err(|error| Error::Server(format!("sweep: {error}")))??;
        }
        Ok(())
    }
}

async fn keep_connected(shared: Rc<Shared>, index: usize) {
    let mut target = shared.target.subscribe();
    loop {
        let Ok(current) = target.wait_for(Option::is_some).await.map(|target| target.clone())
        else {
            return;
        };
        let Some(current) = current else { continue };
        shared.active.send_modify(|count| *count += 1);
        let endpoint = &current.endpoints[index % current.endpoints.len()];
        let mut opened = 0;
        shared.history(|history| opened = history.connecting());
        let opening =
            tokio::time::timeout(shared.load.hang, Connection::open(endpoint, &current.name));
        let opening = async {
            tokio::select! {
                answer = opening => answer.unwrap_or_else(|_| Err(Error::Lost)),
                // A server that does not answer is not waited for once it serves elsewhere.
                () = shared.moved(&current) => Err(Error::Lost),
            }
        };
        match opening.await {
            Ok(connection) => {
                shared.learn(&connection);
                let connection = Rc::new(connection);
                let mut workers = JoinSet::new();
                for _ in 0..shared.load.depth {
                    let (shared, connection) = (Rc::clone(&shared), Rc::clone(&connection));
                    let current = current.clone();
                    workers.spawn_local(
                        async move { shared.work(&connection, &current, opened).await },
                    );
                }
                while let Some(outcome) = workers.join_next().await {
                    if let Err(error) = outcome {
                        shared.state.borrow_mut().report.error(format_args!("worker: {error}"));
                    }
                }
                let moved = shared.target.borrow().as_ref().is_some_and(|now| *now != current);
                if !moved
                    && !connection.is_lost()
                    && let Some(connection) = Rc::into_inner(connection)
                {
                    // A server that does not close is told by the socket's end.
                    let _ = tokio::time::timeout(shared.load.hang, connection.disconnect()).await;
                }
            }
            Err(error) if error.is_loss() => {}
            Err(Error::Refused { .. }) if shared.load.moves => {
                shared.state.borrow_mut().report.refused_connections += 1;
            }
            Err(error) => {
                shared.state.borrow_mut().report.error(format_args!("{endpoint}: {error}"));
            }
        }
        shared.active.send_modify(|count| *count -= 1);
        // Either the server is gone, which whoever drives this will say shortly,
        // or it refused; not to be asked again in a tight loop.
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

impl Shared {
    /// Takes the volume's size and abilities from the first connection.
    fn learn(&self, connection: &Connection) {
        let export = connection.export();
        let mut state = self.state.borrow_mut();
        match &state.volume {
            None => {
                let has = |flag| export.flags & flag != 0;
                let area = if self.load.area == 0 { export.bytes } else { self.load.area };
                let shape = Shape {
                    bytes: export.bytes,
                    area: area.min(export.bytes),
                    single_blocks: self.load.single_blocks,
                    unit: u64::from(export.block_bytes_min.max(SECTOR_BYTES as u32)),
                    discard: self.load.discard && has(wire::SENDS_TRIM),
                    zeroes: has(wire::SENDS_WRITE_ZEROES),
                    fua: has(wire::SENDS_FUA),
                };
                if self.load.connections > 1 && !has(wire::CAN_MULTI_CONN) {
                    state.report.error("the server does not allow several connections");
                }
                let history = History::new(export.bytes / SECTOR_BYTES as u64);
                state.volume = Some((shape, history));
            }
            Some((shape, _)) if shape.bytes != export.bytes => {
                let text = format!("the volume had {} bytes, now {}", shape.bytes, export.bytes);
                state.report.error(text);
            }
            Some(_) => {}
        }
    }

    /// Resolves when the server is no longer said to be at `serving`.
    async fn moved(&self, serving: &Target) {
        let mut target = self.target.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = target.wait_for(|now| now.as_ref().is_some_and(|now| now != serving)).await;
    }

    async fn work(&self, connection: &Connection, serving: &Target, opened: Tick) {
        while self.target.borrow().as_ref() == Some(serving) && !connection.is_lost() {
            let operation = {
                let State { volume, rng, .. } = &mut *self.state.borrow_mut();
                let Some((shape, _)) = volume else { unreachable!("learnt on connecting") };
                shape.draw(rng)
            };
            let performed = tokio::select! {
                outcome = self.perform(connection, operation, Some(opened)) => outcome,
                () = self.moved(serving) => return,
            };
            match performed {
                Ok(()) => {}
                Err(error) if error.is_loss() => return,
                Err(error) => {
                    let text = format!("{operation:?}: {error}");
                    self.state.borrow_mut().report.error(text);
                    if !matches!(error, Error::Refused { .. }) {
                        return;
                    }
                }
            }
        }
    }

    /// Sends one operation, waits for the answer and checks it.
    async fn perform(
        &self,
        connection: &Connection,
        operation: Operation,
        opened: Option<Tick>,
    ) -> Result<()> {
        let Operation { command, flags, offset, len } = operation;
        let op = self.next_op.get();
        self.next_op.set(op + 1);
        let first_sector = offset / SECTOR_BYTES as u64;
        let mut data = Vec::new();
        if command == wire::CMD_WRITE {
            data.resize(len as usize, 0);
            pattern::fill(self.load.seed, op, first_sector, &mut data);
        }
        let Ok(len) = u32::try_from(len) else {
            unreachable!("the workload stays below 4 GiB");
        };
        let replaced = operation.replaces();
        let mut read_issued = None;
        self.history(|history| match command {
            wire::CMD_READ => read_issued = Some(history.begin_read()),
            wire::CMD_WRITE => history.begin_write(op, replaced, Content::Written(op)),
            wire::CMD_TRIM | wire::CMD_WRITE_ZEROES => {
                history.begin_write(op, replaced, Content::Zero);
            }
            _ => {}
        });
        let mut under_way = UnderWay { shared: self, op, read_issued, over: false };
        let started = Instant::now();
        let call = connection.call(Request { command, flags, offset, len, data: &data });
        let answer = match tokio::time::timeout(self.load.hang, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Server(format!("no answer in {:?}", self.load.hang))),
        };
        let took = started.elapsed();
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.is_loss() {
                    self.state.borrow_mut().report.unanswered += 1;
                }
                if !self.says_full(command, &error) {
                    return Err(error);
                }
                // Part of it may have been done, and no more of it will be.
                self.history(|history| history.refused(op));
                under_way.over = true;
                let mut state = self.state.borrow_mut();
                state.report.full += 1;
                state.answered = Some((started, Instant::now()));
                return Ok(());
            }
        };
        under_way.over = true;

        let State { volume, report, down_since, answered, .. } = &mut *self.state.borrow_mut();
        let Some((_, history)) = volume else { unreachable!("learnt on connecting") };
        report.answered(command, took);
        let now = Instant::now();
        if opened.is_some()
            && let Some((_, last)) = answered.replace((started, now))
        {
            report.longest_silence = report.longest_silence.max(now - last);
        }
        if let Some(since) = down_since.take() {
            report.longest_outage = report.longest_outage.max(since.elapsed());
        }
        match read_issued {
            Some(issued) => {
                let found: Vec<Found> = (first_sector..)
                    .zip(bytes.chunks_exact(SECTOR_BYTES))
                    .map(|(sector, bytes)| pattern::identify(self.load.seed, sector, bytes))
                    .collect();
                report.sectors_checked += found.len() as u64;
                let wrong = history.end_read(issued, first_sector, &found);
                if !wrong.is_empty() {
                    report.violations(&wrong, &format!("read of {len} bytes at {offset}"));
                }
            }
            None if command == wire::CMD_FLUSH => {}
            None => {
                history.end_write(op);
                if let Some(opened) = opened {
                    history.settled(opened);
                }
            }
        }
        Ok(())
    }

    /// Whether an error is the answer of a server that may be full, to what needs space.
    fn says_full(&self, command: u16, error: &Error) -> bool {
        let takes_space = command == wire::CMD_WRITE || command == wire::CMD_WRITE_ZEROES;
        let full = matches!(error, Error::Refused { errno: wire::ENOSPC, .. });
        self.state.borrow().may_be_full && takes_space && full
    }

    fn history(&self, change: impl FnOnce(&mut History)) {
        if let Some((_, history)) = &mut self.state.borrow_mut().volume {
            change(history);
        }
    }
}

/// An operation that was sent. Given up before its answer, it is noted as lost.
struct UnderWay<'a> {
    shared: &'a Shared,
    op: u64,
    read_issued: Option<Tick>,
    over: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.shared.history(|history| match self.read_issued {
            Some(issued) => drop(history.end_read(issued, 0, &[])),
            None => history.lost(self.op),
        });
    }
}
