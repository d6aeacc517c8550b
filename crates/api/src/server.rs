//! Serves the API.

use crate::types::Status;
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use std::{future::Future, io, pin::Pin, sync::Arc};
use tokio::net::UnixListener;

/// What the API needs from the daemon.
pub trait Service: Send + Sync + 'static {
    /// The node's state now, or `None` while it is starting or stopping.
    fn status(&self) -> Pin<Box<dyn Future<Output = Option<Status>> + Send + '_>>;
}

/// Serves until `stop` resolves, then lets requests under way finish.
pub async fn serve(
    listener: UnixListener,
    service: Arc<dyn Service>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(ready))
        .route("/v1/status", get(status))
        .with_state(service);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
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
