//! Passes connections on to a node. Some can be held: their bytes wait, in both directions, as
//! on a network that has stopped.

use holdfast_engine::runtime::greeting;
use holdfast_io::net::{Address, Listener, Stream};
use holdfast_wire::{Frame, peer::Purpose, plain};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    sync::Notify,
};

/// What of a node's connections is held.
#[derive(Default)]
pub(crate) struct Gate {
    streams: AtomicBool,
    pairs: AtomicBool,
    changed: Notify,
}

impl Gate {
    /// Holds or releases replicas' streams.
    pub(crate) fn hold_streams(&self, held: bool) {
        self.streams.store(held, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Holds or releases the connections for leases.
    pub(crate) fn hold_pairs(&self, held: bool) {
        self.pairs.store(held, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    async fn pass(&self, purpose: Purpose) {
        let held = match purpose {
            Purpose::Stream { .. } => &self.streams,
            Purpose::Pair => &self.pairs,
            _ => return,
        };
        loop {
            let changed = self.changed.notified();
            if !held.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}

/// Listens on `at` and passes what comes on to `to`, for ever.
pub(crate) async fn relay(at: Listener, to: Address, gate: Arc<Gate>) {
    while let Ok((stream, _)) = at.accept().await {
        tokio::spawn(connection(stream, to.clone(), gate.clone()));
    }
}

async fn connection(mut client: Stream, to: Address, gate: Arc<Gate>) {
    let Ok(hello) = greeting::hello(&mut client).await else { return };
    let purpose = hello.purpose;
    let Ok(mut server) = Stream::connect(&to).await else { return };
    let first = plain::encode(&Frame::Hello(hello)).unwrap();
    if server.write_all(&first).await.is_err() {
        return;
    }
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let there = pump(from_client, to_server, &gate, purpose);
    let back = pump(from_server, to_client, &gate, purpose);
    // Either end of it is the end of both.
    tokio::select! { () = there => {}, () = back => {} }
}

async fn pump(
    mut from: tokio::io::ReadHalf<Stream>,
    mut to: tokio::io::WriteHalf<Stream>,
    gate: &Gate,
    purpose: Purpose,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        gate.pass(purpose).await;
        let Ok(got @ 1..) = from.read(&mut buffer).await else { return };
        gate.pass(purpose).await;
        if to.write_all(&buffer[..got]).await.is_err() {
            return;
        }
    }
}
