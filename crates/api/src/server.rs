//! Serves the API.

use crate::types::Status;
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use holdfast_io::net::{Address, Listener, Stream};
use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

/// Pause after a failed accept (out of descriptors, usually), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the API needs from the daemon.
pub trait Service: Send + Sync + 'static {
    /// The node's state now, or `None` while it is starting or stopping.
    fn status(&self) -> Pin<Box<dyn Future<Output = Option<Status>> + Send + '_>>;
}

/// Serves until `stop` resolves, then lets requests under way finish.
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
    axum::serve(Connections(listener), router).with_graceful_shutdown(stop).await
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
