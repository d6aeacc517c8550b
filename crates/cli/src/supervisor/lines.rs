//! The children's logs, line by line, on this process's standard error.
//!
//! A terminal that takes no more lines (Ctrl-S, a stopped pager) must not stop the nodes:
//! their pipes are always emptied, and lines that find no room here are counted and left out.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::oneshot,
    time::timeout,
};

/// Lines that may wait for a slow standard error.
const WAITING_MAX: usize = 1024;
/// Longest line; what is longer becomes several.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Longest wait for the last lines at the end.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// Passes lines on.
#[derive(Debug)]
pub(crate) struct LogLines {
    sender: SyncSender<Vec<u8>>,
    left_out: Arc<AtomicU64>,
    written: oneshot::Receiver<()>,
    _writer: JoinHandle<()>,
}

impl LogLines {
    /// Starts the thread that writes.
    pub(super) fn new() -> Result<Self, String> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let (done, written) = oneshot::channel();
        let left_out = Arc::new(AtomicU64::new(0));
        let counter = left_out.clone();
        let writer = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                write(&receiver, &counter);
                // Nobody may wait any more.
                let _ = done.send(());
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { sender, left_out, written, _writer: writer })
    }

    /// Passes on what `log` says, with the node's name before each line, until it ends.
    pub(super) fn follow(&self, node: String, log: impl AsyncRead + Unpin + Send + 'static) {
        let (sender, left_out) = (self.sender.clone(), self.left_out.clone());
        tokio::spawn(async move {
            let mut log = BufReader::new(log);
            let mut line = prefix(&node);
            loop {
                let chunk = match log.fill_buf().await {
                    Ok([]) | Err(_) => break,
                    Ok(chunk) => chunk,
                };
                let room = LINE_BYTES_MAX.saturating_sub(line.len()).max(1);
                let (take, whole) = match chunk.iter().take(room).position(|&c| c == b'\n') {
                    Some(end) => (end + 1, true),
                    None => (chunk.len().min(room), chunk.len() >= room),
                };
                line.extend_from_slice(&chunk[..take]);
                log.consume(take);
                if whole {
                    send(&sender, &left_out, std::mem::replace(&mut line, prefix(&node)));
                }
            }
            if line.len() > prefix(&node).len() {
                send(&sender, &left_out, line);
            }
        });
    }

    /// Waits until all is written, or for a moment.
    pub(super) async fn finish(self) {
        let Self { sender, written, .. } = self;
        drop(sender);
        // Late lines of a standard error that takes none are not worth more.
        let _ = timeout(FINISH_MAX, written).await;
    }
}

fn prefix(node: &str) -> Vec<u8> {
    format!("{node} | ").into_bytes()
}

fn send(sender: &SyncSender<Vec<u8>>, left_out: &AtomicU64, mut line: Vec<u8>) {
    if line.last() != Some(&b'\n') {
        line.push(b'\n');
    }
    if let Err(TrySendError::Full(_)) = sender.try_send(line) {
        left_out.fetch_add(1, Ordering::Relaxed);
    }
}

fn write(receiver: &Receiver<Vec<u8>>, left_out: &AtomicU64) {
    while let Ok(line) = receiver.recv() {
        let mut out = std::io::stderr().lock();
        // Whoever closed our standard error does not want to be told.
        let _ = out.write_all(&line);
        let missed = left_out.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let _ = writeln!(out, "({missed} log lines left out: nobody took them)");
        }
    }
}
