//! Transmission: requests out, replies matched by cookie.

use super::handshake::{self, Export};
use super::wire::*;
use super::{Endpoint, ReadHalf, WriteHalf};
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

/// Largest chunk that is believed: the largest request (32 MiB) and its header.
const CHUNK_BYTES_MAX: u32 = (32 << 20) + 64;
const READ_BUFFER_BYTES: usize = 128 << 10;

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `CMD_*`.
    pub command: u16,
    /// `CMD_FLAG_*`.
    pub flags: u16,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// Data of a write, else empty.
    pub data: &'a [u8],
}

/// A connection in transmission. Lives on one thread, inside a `LocalSet`.
#[derive(Debug)]
pub struct Connection {
    export: Export,
    shared: Rc<Shared>,
    write: Mutex<WriteHalfBox>,
    reader: JoinHandle<()>,
}

struct WriteHalfBox(WriteHalf);

impl std::fmt::Debug for WriteHalfBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteHalf")
    }
}

#[derive(Debug, Default)]
struct Shared {
    next_cookie: Cell<u64>,
    pending: RefCell<HashMap<u64, Pending>>,
    lost: Cell<bool>,
    /// Why the reader gave up, when the server broke the protocol.
    broken: RefCell<Option<String>>,
}

#[derive(Debug)]
struct Pending {
    offset: u64,
    /// Where a read's data goes; empty for other commands.
    data: Vec<u8>,
    /// Bytes of `data` still to come.
    missing: usize,
    error: Option<(u32, String)>,
    reply: oneshot::Sender<Result<Vec<u8>>>,
}

impl Pending {
    fn finish(self) {
        let answer = match self.error {
            Some((errno, message)) => Err(Error::Refused { errno, message }),
            None if self.missing > 0 => Err(Error::Protocol(format!(
                "a read of {} bytes was answered without {} of them",
                self.data.len(),
                self.missing
            ))),
            None => Ok(self.data),
        };
        // The caller may have given up waiting.
        let _ = self.reply.send(answer);
    }
}

impl Connection {
    /// Connects, negotiates and starts reading replies. Must run inside a `LocalSet`.
    pub async fn open(endpoint: &Endpoint, name: &str) -> Result<Connection> {
        let (read, mut write) = endpoint.open().await?;
        let mut read = BufReader::with_capacity(READ_BUFFER_BYTES, read);
        let export = handshake::shake(&mut read, &mut write, name).await?;
        let shared = Rc::new(Shared::default());
        let reader = tokio::task::spawn_local(receive(read, Rc::clone(&shared)));
        Ok(Connection { export, shared, write: Mutex::new(WriteHalfBox(write)), reader })
    }

    /// What the server said about the export.
    #[must_use]
    pub fn export(&self) -> Export {
        self.export
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.lost.get()
    }

    /// Sends a request and waits for its answer: the data of a read, else nothing.
    pub async fn call(&self, request: Request<'_>) -> Result<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        let cookie = self.shared.next_cookie.get();
        self.shared.next_cookie.set(cookie + 1);
        let wanted = if request.command == CMD_READ { request.len as usize } else { 0 };
        if self.is_lost() {
            return Err(self.loss());
        }
        self.shared.pending.borrow_mut().insert(
            cookie,
            Pending {
                offset: request.offset,
                data: vec![0; wanted],
                missing: wanted,
                error: None,
                reply,
            },
        );
        let mut message = Vec::with_capacity(28 + request.data.len());
        message.extend(REQUEST_MAGIC.to_be_bytes());
        message.extend(request.flags.to_be_bytes());
        message.extend(request.command.to_be_bytes());
        message.extend(cookie.to_be_bytes());
        message.extend(request.offset.to_be_bytes());
        message.extend(request.len.to_be_bytes());
        message.extend(request.data);
        if self.write.lock().await.0.write_all(&message).await.is_err() {
            // The reader sees the loss too and answers everything that waits.
            self.shared.lost.set(true);
        }
        answer.await.unwrap_or_else(|_| Err(self.loss()))
    }

    /// Reads `len` bytes at `offset`.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>> {
        self.call(Request { command: CMD_READ, flags: 0, offset, len, data: &[] }).await
    }

    /// Says goodbye and waits until the server closes.
    pub async fn disconnect(mut self) {
        let mut message = Vec::with_capacity(28);
        message.extend(REQUEST_MAGIC.to_be_bytes());
        message.extend(0u16.to_be_bytes());
        message.extend(CMD_DISC.to_be_bytes());
        message.extend([0; 20]);
        if self.write.lock().await.0.write_all(&message).await.is_ok() {
            // Ends when the server closes; a panic there has been printed already.
            let _ = (&mut self.reader).await;
        }
    }

    fn loss(&self) -> Error {
        match self.shared.broken.borrow().as_ref() {
            Some(why) => Error::Protocol(why.clone()),
            None => Error::Lost,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn receive(mut read: BufReader<ReadHalf>, shared: Rc<Shared>) {
    let error = loop {
        if let Err(error) = receive_one(&mut read, &shared).await {
            break error;
        }
    };
    if !error.is_loss() {
        *shared.broken.borrow_mut() = Some(error.to_string());
    }
    shared.lost.set(true);
    // Dropping the senders tells every waiting call.
    shared.pending.borrow_mut().clear();
}

async fn receive_one(read: &mut BufReader<ReadHalf>, shared: &Shared) -> Result<()> {
    let lost = handshake::lost;
    match read.read_u32().await.map_err(lost)? {
        SIMPLE_REPLY_MAGIC => {
            let errno = read.read_u32().await.map_err(lost)?;
            let cookie = read.read_u64().await.map_err(lost)?;
            let mut pending = take(shared, cookie)?;
            if errno != 0 {
                pending.error = Some((errno, String::new()));
            } else {
                read.read_exact(&mut pending.data).await.map_err(lost)?;
                pending.missing = 0;
            }
            pending.finish();
            Ok(())
        }
        STRUCTURED_REPLY_MAGIC => {
            let flags = read.read_u16().await.map_err(lost)?;
            let kind = read.read_u16().await.map_err(lost)?;
            let cookie = read.read_u64().await.map_err(lost)?;
            let len = read.read_u32().await.map_err(lost)?;
            if len > CHUNK_BYTES_MAX {
                return Err(Error::Protocol(format!("a chunk of {len} bytes")));
            }
            let mut pending = take(shared, cookie)?;
            chunk(read, &mut pending, kind, len as usize).await?;
            if flags & REPLY_FLAG_DONE != 0 {
                pending.finish();
            } else {
                shared.pending.borrow_mut().insert(cookie, pending);
            }
            Ok(())
        }
        magic => Err(Error::Protocol(format!("reply magic {magic:#x}"))),
    }
}

fn take(shared: &Shared, cookie: u64) -> Result<Pending> {
    let pending = shared.pending.borrow_mut().remove(&cookie);
    pending
        .ok_or_else(|| Error::Protocol(format!("a reply to cookie {cookie}, which waits for none")))
}

async fn chunk(
    read: &mut BufReader<ReadHalf>,
    pending: &mut Pending,
    kind: u16,
    len: usize,
) -> Result<()> {
    let lost = handshake::lost;
    let bad = |what: &str| Error::Protocol(format!("chunk of type {kind:#x}: {what}"));
    match kind {
        REPLY_NONE if len == 0 => Ok(()),
        REPLY_OFFSET_DATA if len > 8 => {
            let at = read.read_u64().await.map_err(lost)?;
            let place = place(pending, at, len - 8).ok_or_else(|| bad("outside the request"))?;
            read.read_exact(&mut pending.data[place]).await.map_err(lost)?;
            Ok(())
        }
        REPLY_OFFSET_HOLE if len == 12 => {
            let at = read.read_u64().await.map_err(lost)?;
            let bytes = read.read_u32().await.map_err(lost)? as usize;
            // The buffer is zeroes already; chunks that overlap run out of missing bytes.
            place(pending, at, bytes).ok_or_else(|| bad("outside the request"))?;
            Ok(())
        }
        kind if kind & REPLY_ERROR_BIT != 0 && len >= 6 => {
            let errno = read.read_u32().await.map_err(lost)?;
            let text = read.read_u16().await.map_err(lost)? as usize;
            let mut rest = vec![0; len - 6];
            read.read_exact(&mut rest).await.map_err(lost)?;
            let message = String::from_utf8_lossy(rest.get(..text).unwrap_or(&rest)).into_owned();
            if errno == 0 {
                return Err(bad("an error chunk without an error"));
            }
            pending.error.get_or_insert((errno, message));
            Ok(())
        }
        _ => Err(bad(&format!("{len} bytes"))),
    }
}

/// Where `bytes` at volume offset `at` belong in the read's buffer.
fn place(pending: &mut Pending, at: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
    let first = usize::try_from(at.checked_sub(pending.offset)?).ok()?;
    let end = first.checked_add(bytes)?;
    (end <= pending.data.len()).then_some(())?;
    pending.missing = pending.missing.checked_sub(bytes)?;
    Some(first..end)
}
