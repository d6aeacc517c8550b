//! Server and client over a real socket.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use holdfast_api::{client, server, types::Status};
use holdfast_io::net::{Address, Listener};
use std::{future::Future, pin::Pin, sync::Arc};
use tokio::sync::oneshot;

struct Fixed(Option<Status>);

impl server::Service for Fixed {
    fn status(&self) -> Pin<Box<dyn Future<Output = Option<Status>> + Send + '_>> {
        Box::pin(async { self.0.clone() })
    }
}

fn sample() -> Status {
    Status {
        version: "0".into(),
        node: "n".into(),
        listeners: vec![],
        disks: vec![],
        volumes: vec![],
    }
}

async fn ask(answer: Option<Status>) -> Result<Status, client::ClientError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(holdfast_api::SOCKET_NAME);
    let listener = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async move { stopped.await.unwrap_or(()) };
    let serving = tokio::spawn(server::serve(listener, Arc::new(Fixed(answer)), until));
    let got = client::status(&path).await;
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    got
}

#[tokio::test]
async fn the_status_arrives_as_sent() {
    assert_eq!(ask(Some(sample())).await.unwrap(), sample());
}

#[tokio::test]
async fn a_node_that_starts_is_told_from_one_that_is_absent() {
    let starting = ask(None).await.unwrap_err().to_string();
    assert!(starting.contains("starting"), "{starting}");
    let absent = client::status("/nonexistent/api.sock".as_ref()).await.unwrap_err();
    assert!(absent.to_string().contains("is `holdfast` running"), "{absent}");
}
