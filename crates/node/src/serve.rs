//! Accepts NBD connections: haggling runs here, on the control plane, and the
//! socket then moves to its volume's shard for good.

use crate::{
    deadlines::Deadlines,
    exports::ExportList,
    handshakes::{Handshakes, Place},
};
use holdfast_block::BlockDevice;
use holdfast_engine::runtime::{Shard, ShardHandle};
use holdfast_frontend::nbd::{self, Connections, HandshakeEnd, Limits, Negotiated};
use holdfast_io::net::{Detached, Listener, Stream};
use holdfast_types::VolumeId;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// Connections in transmission at a time, all volumes together: with the bound on
/// what each may have in flight it bounds the memory that clients can make us hold.
const CONNECTIONS_MAX: usize = 256;
/// Longest wait of a client behind its handshake for one of them to end.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// Longest wait of a client for a volume that is attached here and not served yet: a
/// restart, an owed lease, a recovery.
const SERVED_WAIT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of descriptors, usually), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest wait, at a stop, for clients to take the replies that they have coming.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Accepts connections until the node stops.
#[derive(Clone)]
pub(crate) struct Acceptor {
    shard: ShardHandle,
    exports: ExportList,
    handshakes: Handshakes,
    slots: Arc<Semaphore>,
    /// Requests that wait longer are answered with an error.
    io_timeout: Option<Duration>,
    stopped: watch::Receiver<bool>,
}

impl Acceptor {
    pub(crate) fn new(
        shard: ShardHandle,
        exports: ExportList,
        io_timeout: Option<Duration>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { shard, exports, handshakes: Handshakes::default(), slots, io_timeout, stopped }
    }

    pub(crate) async fn accept(self, listener: Listener) {
        loop {
            tokio::select! {
                () = until_stopped(self.stopped.clone()) => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Here and not in the task: tasks do not begin in the order of arrival.
                        let place = self.handshakes.enter();
                        tokio::spawn(self.clone().connection(stream, peer.to_string(), place));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an NBD connection");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
    }

    async fn connection(self, mut stream: Stream, peer: String, mut place: Place) {
        let limits = Limits::default();
        let ready = async {
            let negotiated = nbd::negotiate(&mut stream, &self.exports, &limits).await?;
            // Only who is through takes a slot: dawdlers keep no one from one.
            let slot = timeout(CONNECTION_WAIT, self.slots.clone().acquire_owned()).await;
            Ok::<_, HandshakeEnd>((negotiated, slot))
        };
        let ready = tokio::select! {
            () = until_stopped(self.stopped.clone()) => return,
            () = place.lost() => return tracing::debug!(peer, "too slow a handshake, others wait"),
            ready = ready => ready,
        };
        drop(place);
        let (negotiated, slot) = match ready {
            Err(end) => return tracing::debug!(peer, %end, "no transmission"),
            Ok((negotiated, Ok(Ok(slot)))) => (negotiated, slot),
            Ok(_) => {
                let most = CONNECTIONS_MAX;
                return tracing::warn!(
                    peer,
                    most,
                    "all connections are taken; a client is sent away"
                );
            }
        };
        let Some(volume) = self.exports.volume(&negotiated.export) else { return };
        let served = tokio::select! {
            () = until_stopped(self.stopped.clone()) => return,
            served = self.exports.served(volume, SERVED_WAIT) => served,
        };
        if !served {
            return tracing::info!(peer, %volume, "a client is sent away: the volume is not served yet");
        }
        let Ok(socket) = stream.detach() else { return };
        let io_timeout = self.io_timeout;
        let serving = self.shard.spawn(move |shard| async move {
            serve_here(&shard, volume, socket, negotiated, io_timeout, &peer).await;
            drop(slot);
        });
        if serving.await.is_err() {
            tracing::debug!("the shard stopped before a connection reached it");
        }
    }

    /// Makes every connection answer what it has and close. A client that does not
    /// take its replies is waited for no longer than [`CLOSE_MAX`].
    pub(crate) async fn close_connections(&self) {
        let closing = self.shard.run(|_| async {
            let all: Vec<Connections> =
                CONNECTIONS.with_borrow(|all| all.values().cloned().collect());
            all.iter().for_each(Connections::stop);
            for connections in &all {
                connections.idle().await;
            }
        });
        if tokio::time::timeout(CLOSE_MAX, closing).await.is_err() {
            tracing::warn!("clients did not take their replies; their connections are dropped");
        }
    }
}

std::thread_local! {
    /// The NBD connections of each volume of the shard whose thread this is.
    static CONNECTIONS: RefCell<BTreeMap<VolumeId, Connections>> = const { RefCell::new(BTreeMap::new()) };
}

async fn serve_here(
    shard: &Shard,
    volume: VolumeId,
    socket: Detached,
    negotiated: Negotiated,
    io_timeout: Option<Duration>,
    peer: &str,
) {
    let Some(device) = shard.volume(volume) else {
        return tracing::debug!(peer, %volume, "volume was detached during a handshake");
    };
    let (told, now) = (&negotiated.geometry, device.geometry());
    if told.size_bytes > now.size_bytes || told.read_only != now.read_only {
        // It comes again and is told what is true.
        return tracing::debug!(peer, %volume, "volume changed during a handshake");
    }
    let device: Rc<dyn BlockDevice> = match io_timeout {
        None => device,
        Some(within) => Rc::new(Deadlines::new(device, within)),
    };
    let stream = match socket.attach() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(peer, %error, "cannot serve a connection"),
    };
    let connections = CONNECTIONS.with_borrow_mut(|all| all.entry(volume).or_default().clone());
    tracing::debug!(peer, %volume, "client connected");
    let end = nbd::serve(stream, negotiated, device, &connections, shard.pool()).await;
    tracing::debug!(peer, %volume, ?end, "client left");
}

/// Resolves when the node stops.
pub(crate) async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and so is the node.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
