//! Serves the API.

use crate::types::Status;
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use holdfast_io::net::{Address, Listener, Stream};
use std::{
    future::{Future, IntoFuture as _},
    io,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

/// Pause after a failed accept (out of descriptors, usually), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest wait, at a stop, for requests under way: a client that sent a part of one
/// would hold the stop up for ever.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// What the API needs from the daemon.
pub trait Service: Send + Sync + 'static {
    /// The node's state now, or `None` while it is starting or stopping.
    fn status(&self) -> Pin<Box<dyn Future<Output = Option<Status>> + Send + '_>>;
}

/// Serves until `stop` resolves, then lets requests under way finish, if they do soon.
pub async fn serve(
    listener: Listener,
    service: Arc<dyn Service>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(ready))
        .route("/v1/status", get(status))
        .with_state(service);
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

async fn ready(State(service): State<Arc<dyn Service>>) -> StatusCode {
    match service.status().await {
        Some(_) => StatusCode::OK,
        None => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn status(State(service): State<Arc<dyn Service>>) -> Result<Json<Status>, StatusCode> {
    service.status().await.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    struct Nothing;

    impl Service for Nothing {
        fn status(&self) -> Pin<Box<dyn Future<Output = Option<Status>> + Send + '_>> {
            Box::pin(async { None })
        }
    }

    #[tokio::test]
    async fn half_a_request_holds_no_stop_up() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("api"));
        let listener = Listener::bind(&address).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, Arc::new(Nothing), async {
            let _ = stopped.await;
        }));
        let mut client = Stream::connect(&address).await.unwrap();
        client.write_all(b"GET /he").await.unwrap();
        // Until the server has read it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(stop);
        let ended = tokio::time::timeout(FINISH_MAX + Duration::from_secs(10), served).await;
        ended.expect("ends in time").unwrap().unwrap();
    }
}
