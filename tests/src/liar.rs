//! An NBD server that lies on request, to prove that the verifier notices.
//!
//! It lives in the test's own process and keeps the volume in memory. Honest,
//! it is a correct server with random delays, so that what a kill leaves of the
//! requests in flight is random too; and each [`Lie`] breaks one promise.

use crate::nbd::{Endpoint, wire::*};
use crate::verify::rounds::Server;
use crate::verify::{SECTOR_BYTES, client::Target};
use crate::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Export name.
const NAME: &str = "liar";
const BLOCK: usize = holdfast_types::BLOCK_BYTES;
/// A request waits for at most so many turns of the runtime before it takes
/// effect, and as many before its answer.
const TURNS_MAX: u32 = 6;
/// While it lies about single requests, one in so many.
const LIE_ONE_IN: u32 = 50;

/// The promise to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// None.
    Honest,
    /// A crash takes back the last acknowledged write.
    LosesTheLastAcknowledgedWrite,
    /// A crash restores the image that the process started from.
    RestoresAnOldImage,
    /// The second crash after a write takes it back, though it was read between.
    ChangesBackLater,
    /// Writes store half of their last sector.
    TearsSectors,
    /// Writes land one block further.
    Misplaces,
    /// Reads return what a write of the past replaced.
    ReadsTheOldValue,
    /// Discards zero the partial blocks at their ends.
    DiscardsTooMuch,
    /// Discards and zeroes are acknowledged and forgotten.
    ForgetsZeroes,
    /// Requests are answered with EIO.
    FailsRequests,
    /// A request is never answered.
    Hangs,
}

/// A change that a crash may take back.
struct Undo {
    at: usize,
    before: Vec<u8>,
}

struct State {
    lie: Lie,
    image: Vec<u8>,
    at_start: Vec<u8>,
    rng: ChaCha8Rng,
    last_acknowledged: Option<Undo>,
    /// What the next crash but one takes back.
    pending_change_back: Option<Undo>,
    /// An old piece of the image, for stale reads.
    old: Option<Undo>,
}

impl State {
    fn lies(&mut self, lie: Lie) -> bool {
        self.lie == lie && self.rng.random_ratio(1, LIE_ONE_IN)
    }

    fn replace(&mut self, at: usize, data: &[u8]) -> Undo {
        let place = &mut self.image[at..at + data.len()];
        let before = place.to_vec();
        place.copy_from_slice(data);
        Undo { at, before }
    }

    fn write(&mut self, at: usize, data: &[u8]) -> Undo {
        if self.lies(Lie::TearsSectors) {
            let kept = data.len() - SECTOR_BYTES / 2;
            return self.replace(at, &data[..kept]);
        }
        if self.lies(Lie::Misplaces) && at + BLOCK + data.len() <= self.image.len() {
            return self.replace(at + BLOCK, data);
        }
        let undo = self.replace(at, data);
        if self.lie == Lie::ReadsTheOldValue && self.old.is_none() {
            self.old = Some(Undo { at, before: undo.before.clone() });
        }
        undo
    }

    fn discard(&mut self, at: usize, len: usize) -> Undo {
        if self.lies(Lie::ForgetsZeroes) {
            return Undo { at, before: Vec::new() };
        }
        if self.lies(Lie::DiscardsTooMuch) {
            return self.replace(at, &vec![0; len]);
        }
        let first = at.next_multiple_of(BLOCK);
        let end = (at + len) / BLOCK * BLOCK;
        if first >= end {
            return Undo { at, before: Vec::new() };
        }
        self.replace(first, &vec![0; end - first])
    }

    fn zero(&mut self, at: usize, len: usize) -> Undo {
        if self.lies(Lie::ForgetsZeroes) {
            return Undo { at, before: Vec::new() };
        }
        self.replace(at, &vec![0; len])
    }

    fn read(&mut self, at: usize, len: usize) -> Vec<u8> {
        let mut data = self.image[at..at + len].to_vec();
        if let Some(old) = &self.old
            && old.at >= at
            && old.at + old.before.len() <= at + len
        {
            data[old.at - at..][..old.before.len()].copy_from_slice(&old.before);
        }
        data
    }

    fn crash(&mut self) {
        match self.lie {
            Lie::LosesTheLastAcknowledgedWrite => {
                if let Some(undo) = self.last_acknowledged.take() {
                    self.replace(undo.at, &undo.before);
                }
            }
            Lie::RestoresAnOldImage => self.image.clone_from(&self.at_start),
            Lie::ChangesBackLater => {
                if let Some(undo) = self.pending_change_back.take() {
                    self.replace(undo.at, &undo.before);
                }
                self.pending_change_back = self.last_acknowledged.take();
            }
            _ => {}
        }
        self.at_start.clone_from(&self.image);
    }
}

/// The server.
pub struct Liar {
    state: Rc<RefCell<State>>,
    socket: PathBuf,
    tasks: JoinSet<()>,
}

impl Liar {
    /// A server of `bytes` zeroes on a socket at `socket`.
    #[must_use]
    pub fn new(lie: Lie, bytes: usize, socket: PathBuf, seed: u64) -> Liar {
        let state = State {
            lie,
            image: vec![0; bytes],
            at_start: vec![0; bytes],
            rng: ChaCha8Rng::seed_from_u64(seed),
            last_acknowledged: None,
            pending_change_back: None,
            old: None,
        };
        Liar { state: Rc::new(RefCell::new(state)), socket, tasks: JoinSet::new() }
    }

    fn end(&mut self) -> Result<()> {
        // Dropping the tasks where they stand closes their sockets.
        self.tasks = JoinSet::new();
        self.state.borrow_mut().crash();
        std::fs::remove_file(&self.socket).map_err(Error::io("remove the liar's socket"))
    }
}

impl Server for Liar {
    fn start(&mut self) -> Result<()> {
        let listener =
            UnixListener::bind(&self.socket).map_err(Error::io("bind the liar's socket"))?;
        let state = Rc::clone(&self.state);
        self.tasks.spawn_local(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn_local(serve(stream, Rc::clone(&state)));
            }
        });
        Ok(())
    }

    async fn ready(&mut self) -> Result<Target> {
        let endpoints = vec![Endpoint::Unix(self.socket.clone())];
        Ok(Target { endpoints, name: NAME.to_owned() })
    }

    fn kill(&mut self) -> Result<()> {
        self.end()
    }

    async fn stop(&mut self) -> Result<()> {
        self.end()
    }
}

async fn serve(stream: UnixStream, state: Rc<RefCell<State>>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    // A client that goes away ends its connection; that is all there is to say.
    if greet(&mut read, &mut write, &state).await.is_ok() {
        let write = Rc::new(Mutex::new(write));
        let mut requests = JoinSet::new();
        while let Ok(request) = Request::receive(&mut read).await {
            if request.command == CMD_DISC {
                break;
            }
            requests.spawn_local(answer(request, Rc::clone(&state), Rc::clone(&write)));
            while requests.try_join_next().is_some() {}
        }
    }
}

async fn greet(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    state: &RefCell<State>,
) -> std::io::Result<()> {
    write.write_u64(MAGIC).await?;
    write.write_u64(OPTION_MAGIC).await?;
    write.write_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).await?;
    read.read_u32().await?;
    loop {
        read.read_u64().await?;
        let option = read.read_u32().await?;
        let mut body = vec![0; read.read_u32().await? as usize];
        read.read_exact(&mut body).await?;
        let mut reply = async |kind: u32, data: &[u8]| {
            write.write_u64(OPTION_REPLY_MAGIC).await?;
            write.write_u32(option).await?;
            write.write_u32(kind).await?;
            write.write_u32(data.len() as u32).await?;
            write.write_all(data).await
        };
        match option {
            OPT_STRUCTURED_REPLY => reply(REP_ACK, &[]).await?,
            OPT_GO => {
                let mut info = INFO_EXPORT.to_be_bytes().to_vec();
                info.extend((state.borrow().image.len() as u64).to_be_bytes());
                let flags = SENDS_FLAGS
                    | SENDS_FLUSH
                    | SENDS_FUA
                    | SENDS_TRIM
                    | SENDS_WRITE_ZEROES
                    | CAN_MULTI_CONN;
                info.extend(flags.to_be_bytes());
                reply(REP_INFO, &info).await?;
                return reply(REP_ACK, &[]).await;
            }
            _ => reply(REP_ERR_UNSUP, &[]).await?,
        }
    }
}

struct Request {
    command: u16,
    cookie: u64,
    offset: usize,
    len: usize,
    data: Vec<u8>,
}

impl Request {
    async fn receive(read: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Request> {
        read.read_u32().await?;
        read.read_u16().await?;
        let command = read.read_u16().await?;
        let cookie = read.read_u64().await?;
        let offset = read.read_u64().await? as usize;
        let len = read.read_u32().await? as usize;
        let mut data = vec![0; if command == CMD_WRITE { len } else { 0 }];
        read.read_exact(&mut data).await?;
        Ok(Request { command, cookie, offset, len, data })
    }
}

async fn answer(request: Request, state: Rc<RefCell<State>>, write: Rc<Mutex<OwnedWriteHalf>>) {
    let (before, after) = {
        let rng = &mut state.borrow_mut().rng;
        (rng.random_range(0..TURNS_MAX), rng.random_range(0..TURNS_MAX))
    };
    for _ in 0..before {
        tokio::task::yield_now().await;
    }
    let Request { command, cookie, offset, len, data } = request;
    let mut kind = REPLY_NONE;
    let mut body = Vec::new();
    let mut undo = None;
    {
        let state = &mut *state.borrow_mut();
        if state.lies(Lie::Hangs) {
            return;
        }
        if state.lies(Lie::FailsRequests) {
            kind = REPLY_ERROR;
            body.extend(5u32.to_be_bytes());
            body.extend(0u16.to_be_bytes());
        } else {
            match command {
                CMD_READ => {
                    kind = REPLY_OFFSET_DATA;
                    body.extend((offset as u64).to_be_bytes());
                    body.extend(state.read(offset, len));
                }
                CMD_WRITE => undo = Some(state.write(offset, &data)),
                CMD_TRIM => undo = Some(state.discard(offset, len)),
                CMD_WRITE_ZEROES => undo = Some(state.zero(offset, len)),
                _ => {}
            }
        }
    }
    for _ in 0..after {
        tokio::task::yield_now().await;
    }
    let mut message = Vec::with_capacity(20 + body.len());
    message.extend(STRUCTURED_REPLY_MAGIC.to_be_bytes());
    message.extend(REPLY_FLAG_DONE.to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(cookie.to_be_bytes());
    message.extend((body.len() as u32).to_be_bytes());
    message.extend(body);
    let sent = write.lock().await.write_all(&message).await;
    if let (Ok(()), Some(undo), CMD_WRITE) = (sent, undo, command) {
        state.borrow_mut().last_acknowledged = Some(undo);
    }
}
