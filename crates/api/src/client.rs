//! Asks the API of a running node.

use crate::types::Status;
use holdfast_io::net::{Address, Stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// Longest wait for an answer; a node that is alive answers in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer accepted.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node listens.
    #[error("no node answers; is `holdfast` running on this data directory? ({source})")]
    NotRunning {
        /// The API's socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer in time, or not in a form that we understand.
    #[error("the node at {} gave no usable answer: {reason}", socket.display())]
    NoAnswer {
        /// The API's socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The node's status, asked over the API's `socket`.
pub async fn status(socket: &Path) -> Result<Status, ClientError> {
    get(socket, "/v1/status").await
}

async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, ClientError> {
    let stream = Stream::connect(&Address::Unix(socket.to_owned()))
        .await
        .map_err(|source| ClientError::NotRunning { socket: socket.to_owned(), source })?;
    let no_answer = |reason: String| ClientError::NoAnswer { socket: socket.to_owned(), reason };
    match timeout(ANSWER_TIMEOUT, exchange(stream, path)).await {
        Ok(Ok(body)) => serde_json::from_slice(&body).map_err(|error| no_answer(error.to_string())),
        Ok(Err(error)) => Err(no_answer(error.to_string())),
        Err(_) => Err(no_answer(format!("nothing within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(stream: Stream, path: &str) -> Result<Bytes, BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", "holdfast").body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::SERVICE_UNAVAILABLE => return Err("it is starting or stopping".into()),
            other => return Err(other.to_string().into()),
        }
        Ok(Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes())
    };
    // The connection only moves while it is polled.
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        body = &mut answer => body,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}
