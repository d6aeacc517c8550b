//! Serves the API.

use crate::{Service, routes};
use holdfast_io::net::{Address, Listener, Stream};
use std::{
    future::{Future, IntoFuture as _},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

/// Pause after a failed accept (out of descriptors, usually), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest wait, at a stop, for requests under way: a client that sent a part of one
/// would hold the stop up for ever.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Serves until `stop` resolves, then lets requests under way finish, if they do soon.
pub async fn serve(
    listener: Listener,
    service: Arc<dyn Service>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = routes::router(service);
    let (stopping, stopped) = oneshot::channel();
    let stop = async move {
        stop.await;
        // The receiver is gone when serving has ended by itself.
        let _ = stopping.send(());
    };
    let overdue = async {
        let _ = stopped.await;
        tokio::time::sleep(FINISH_MAX).await;
    };
    let served = axum::serve(Connections(listener), router).with_graceful_shutdown(stop);
    let served = served.into_future();
    tokio::select! {
        ended = served => ended,
        () = overdue => Ok(()),
    }
}

/// Feeds axum from our own listener.
struct Connections(Listener);

impl axum::serve::Listener for Connections {
    type Io = Stream;
    type Addr = Address;

    async fn accept(&mut self) -> (Stream, Address) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Address> {
        Ok(self.0.local_addr().clone())
    }
}
