//! Asks the API of a running node.

use crate::types::{
    AddDisk, AttachVolume, Changed, CreateVolume, DiskStatus, ErrorBody, JoinCluster, NodeStatus,
    ResizeVolume, Status, VerifyReport, Version, VolumeStatus,
};
use holdfast_io::net::{Address, Stream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// Longest wait for a connection: the node is near, or not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer to a question. A node gives its peers two seconds for theirs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a change. The node gives up before and says why.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest wait for a comparison, which reads every replica to the end.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(12 * 3600);
/// Largest answer accepted.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where an API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `api.sock` in a data directory.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// `HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match port.map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(_)) => Ok(Self::Tcp(address.to_owned())),
            _ => Err(format!("{text:?} is no API address; give HOST:PORT or unix:/PATH")),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node listens.
    #[error("no node answers at {target} ({source}); is `holdfast` running there?")]
    NotRunning {
        /// Who was asked.
        target: Target,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer in time, or not in a form that we understand.
    #[error("the node at {target} gave no usable answer: {reason}")]
    NoAnswer {
        /// Who was asked.
        target: Target,
        /// Why.
        reason: String,
    },
    /// It answered with an error.
    #[error(transparent)]
    Refused(ErrorBody),
}

/// A client of one node. Every question takes a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
}

impl Client {
    /// Asks the node at `target`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target }
    }

    /// Asks the node that runs on the data directory `data_dir`.
    #[must_use]
    pub fn of_dir(data_dir: &Path) -> Self {
        Self::new(Target::Unix(data_dir.join(crate::SOCKET_NAME)))
    }

    /// `GET /readyz`: whether the node serves; the error says what it waits for.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.ask(Method::GET, "/readyz", NO_BODY, ANSWER_TIMEOUT).await
    }

    /// `GET /v1/version`.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.ask(Method::GET, "/v1/version", NO_BODY, ANSWER_TIMEOUT).await
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", NO_BODY, ANSWER_TIMEOUT).await
    }

    /// `GET /v1/volumes`.
    pub async fn volumes(&self) -> Result<Vec<VolumeStatus>, ClientError> {
        self.ask(Method::GET, "/v1/volumes", NO_BODY, ANSWER_TIMEOUT).await
    }

    /// `GET /v1/volumes/{name}`.
    pub async fn volume(&self, name: &str) -> Result<VolumeStatus, ClientError> {
        self.ask(Method::GET, &volume(name, ""), NO_BODY, ANSWER_TIMEOUT).await
    }

    /// `POST /v1/volumes`.
    pub async fn create_volume(&self, create: &CreateVolume) -> Result<Changed, ClientError> {
        self.ask(Method::POST, "/v1/volumes", Some(create), CHANGE_TIMEOUT).await
    }

    /// `DELETE /v1/volumes/{name}`.
    pub async fn delete_volume(&self, name: &str) -> Result<(), ClientError> {
        self.ask(Method::DELETE, &volume(name, ""), NO_BODY, CHANGE_TIMEOUT).await
    }

    /// `POST /v1/volumes/{name}/resize`.
    pub async fn resize_volume(
        &self,
        name: &str,
        resize: &ResizeVolume,
    ) -> Result<Changed, ClientError> {
        self.ask(Method::POST, &volume(name, "/resize"), Some(resize), CHANGE_TIMEOUT).await
    }

    /// `POST /v1/volumes/{name}/attach`.
    pub async fn attach_volume(
        &self,
        name: &str,
        attach: &AttachVolume,
    ) -> Result<Changed, ClientError> {
        self.ask(Method::POST, &volume(name, "/attach"), Some(attach), CHANGE_TIMEOUT).await
    }

    /// `POST /v1/volumes/{name}/detach`.
    pub async fn detach_volume(&self, name: &str) -> Result<Changed, ClientError> {
        self.ask(Method::POST, &volume(name, "/detach"), NO_BODY, CHANGE_TIMEOUT).await
    }

    /// `POST /v1/volumes/{name}/verify`.
    pub async fn verify_volume(&self, name: &str) -> Result<VerifyReport, ClientError> {
        self.ask(Method::POST, &volume(name, "/verify"), NO_BODY, VERIFY_TIMEOUT).await
    }

    /// `GET /v1/nodes`.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, ClientError> {
        self.ask(Method::GET, "/v1/nodes", NO_BODY, ANSWER_TIMEOUT).await
    }

    /// `POST /v1/nodes/join`.
    pub async fn join(&self, join: &JoinCluster) -> Result<Vec<NodeStatus>, ClientError> {
        self.ask(Method::POST, "/v1/nodes/join", Some(join), CHANGE_TIMEOUT).await
    }

    /// `DELETE /v1/nodes/{name}?force=`.
    pub async fn remove_node(&self, node: &str, force: bool) -> Result<(), ClientError> {
        let path = format!("/v1/nodes/{}?force={force}", segment(node));
        self.ask(Method::DELETE, &path, NO_BODY, CHANGE_TIMEOUT).await
    }

    /// `GET /v1/disks`.
    pub async fn disks(&self) -> Result<Vec<DiskStatus>, ClientError> {
        self.ask(Method::GET, "/v1/disks", NO_BODY, ANSWER_TIMEOUT).await
    }

    /// `POST /v1/disks`.
    pub async fn add_disk(&self, add: &AddDisk) -> Result<DiskStatus, ClientError> {
        self.ask(Method::POST, "/v1/disks", Some(add), CHANGE_TIMEOUT).await
    }

    /// `DELETE /v1/disks/{id}`.
    pub async fn remove_disk(&self, disk: &str) -> Result<(), ClientError> {
        let path = format!("/v1/disks/{}", segment(disk));
        self.ask(Method::DELETE, &path, NO_BODY, CHANGE_TIMEOUT).await
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        within: Duration,
    ) -> Result<T, ClientError> {
        let no_answer =
            |reason: String| ClientError::NoAnswer { target: self.target.clone(), reason };
        let body = match body.map(serde_json::to_vec).transpose() {
            Ok(body) => body.unwrap_or_default(),
            Err(error) => return Err(no_answer(error.to_string())),
        };
        let stream = self.connect().await?;
        let (status, answer) = match timeout(within, exchange(stream, method, path, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(no_answer(error.to_string())),
            Err(_) => return Err(no_answer(format!("nothing within {} s", within.as_secs()))),
        };
        if !status.is_success() {
            return Err(match serde_json::from_slice(&answer) {
                Ok(error) => ClientError::Refused(error),
                Err(_) => no_answer(status.to_string()),
            });
        }
        // Nothing is an answer too: it is JSON's null.
        let answer: &[u8] = if answer.is_empty() { b"null" } else { &answer };
        serde_json::from_slice(answer).map_err(|error| no_answer(error.to_string()))
    }

    async fn connect(&self) -> Result<Stream, ClientError> {
        let connect = async {
            match &self.target {
                Target::Unix(path) => Stream::connect(&Address::Unix(path.clone())).await,
                Target::Tcp(address) => TcpStream::connect(address).await.and_then(Stream::tcp),
            }
        };
        let connected = timeout(CONNECT_TIMEOUT, connect).await;
        connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ClientError::NotRunning { target: self.target.clone(), source })
    }
}

const NO_BODY: Option<&()> = None;

fn volume(name: &str, action: &str) -> String {
    format!("/v1/volumes/{}{action}", segment(name))
}

/// Text as one segment of a path (RFC 3986 §2.1): what is not unreserved is escaped.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    stream: Stream,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "holdfast")
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(body))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok((status, body))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_written() {
        let tcp = |address: &str| Ok(Target::Tcp(address.to_owned()));
        assert_eq!("node1:10829".parse(), tcp("node1:10829"));
        assert_eq!("http://[::1]:7/".parse(), tcp("[::1]:7"));
        assert_eq!("unix:/run/api.sock".parse(), Ok(Target::Unix("/run/api.sock".into())));
        for bad in ["", "unix:", "node1", ":10829", "node1:http", "/run/api.sock"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(volume("a/b ?", "/attach"), "/v1/volumes/a%2Fb%20%3F/attach");
    }
}
