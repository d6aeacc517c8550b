//! Server and client over real sockets, and both against the OpenAPI document.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use common::{Served, status, volume};
use holdfast_api::{
    client::{Client, ClientError},
    types::{AddDisk, AttachVolume, CreateVolume, ErrorCode, JoinCluster, ResizeVolume},
};
use holdfast_io::net::{Address, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn code<T>(result: Result<T, ClientError>) -> ErrorCode {
    match result {
        Err(ClientError::Refused(error)) => {
            assert_eq!((&*error.message, &*error.remedy), ("the cause", "the remedy"));
            error.code
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn every_question_reaches_the_daemon_as_it_was_asked() {
    let served = Served::on(&"127.0.0.1:0".parse().unwrap()).await;
    let client = &served.client;
    assert_eq!(code(client.ready().await), ErrorCode::Unavailable);
    assert_eq!(client.version().await.unwrap().protocol, 7);
    assert_eq!(client.status().await.unwrap(), status());
    assert_eq!(client.volumes().await.unwrap(), [volume("demo")]);
    assert_eq!(code(client.volume("a/b").await), ErrorCode::NotFound);
    let create = CreateVolume {
        name: "pg".to_owned(),
        size_bytes: 8192,
        logical_block_bytes: Some(4096),
        replicas: None,
        min_replicas: Some(2),
    };
    assert_eq!(client.create_volume(&create).await.unwrap().volume.name, "pg");
    assert_eq!(code(client.delete_volume("pg").await), ErrorCode::Conflict);
    client.resize_volume("pg", &ResizeVolume { size_bytes: 12288 }).await.unwrap();
    let attach = AttachVolume { node: Some("node2".to_owned()), read_only: true };
    client.attach_volume("pg", &attach).await.unwrap();
    assert_eq!(client.detach_volume("pg").await.unwrap().notice.as_deref(), Some("so"));
    assert_eq!(code(client.verify_volume("pg").await), ErrorCode::Timeout);
    assert_eq!(client.nodes().await.unwrap(), []);
    client.join(&JoinCluster { seed: "h:1".to_owned() }).await.unwrap();
    client.remove_node("node 3", true).await.unwrap();
    client.remove_node("node3", false).await.unwrap();
    assert_eq!(client.disks().await.unwrap(), []);
    let add = AddDisk { path: "/d".to_owned(), capacity_bytes: None };
    assert_eq!(code(client.add_disk(&add).await), ErrorCode::Invalid);
    assert_eq!(code(client.remove_disk("x").await), ErrorCode::Internal);
    let asked = served.fake.asked.lock().unwrap().clone();
    let expected = [
        "ready".to_owned(),
        "status".to_owned(),
        "volumes".to_owned(),
        "volume a/b".to_owned(),
        format!("{create:?}"),
        "delete pg".to_owned(),
        "resize pg 12288".to_owned(),
        format!("attach pg {attach:?}"),
        "detach pg".to_owned(),
        "verify pg".to_owned(),
        "nodes".to_owned(),
        "join h:1".to_owned(),
        "remove node node 3 true".to_owned(),
        "remove node node3 false".to_owned(),
        "disks".to_owned(),
        format!("{add:?}"),
        "remove disk x".to_owned(),
    ];
    assert_eq!(asked, expected);
    served.stop().await;
}

/// What a plain HTTP client gets: status line and body.
async fn raw(address: &Address, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = Stream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn the_document_and_the_server_agree() {
    let served = Served::on(&"127.0.0.1:0".parse().unwrap()).await;
    let (status, text) = raw(&served.address, "GET", "/openapi.json", "").await;
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{name}", "demo").replace("{node}", "n").replace("{disk}", "d");
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let (_, text) = raw(&served.address, &method.to_uppercase(), &path, "").await;
            assert!(!text.contains("no such path"), "{method} {path}: {text}");
            assert!(!text.contains("does not take this method"), "{method} {path}: {text}");
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
        }
    }
    assert_eq!(operations, 18, "one for each handler");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is described");
    }
    assert!(schemas.contains_key("ErrorBody") && schemas.contains_key("Difference"));
    served.stop().await;
}

#[tokio::test]
async fn what_cannot_be_understood_is_answered_in_the_same_form() {
    let served = Served::on(&"127.0.0.1:0".parse().unwrap()).await;
    for (method, path, body, expected, says) in [
        ("GET", "/v2/status", "", 404, "openapi.json"),
        ("PUT", "/v1/status", "", 400, "does not take this method"),
        ("POST", "/v1/volumes", "{", 400, "cannot be understood"),
        ("POST", "/v1/volumes", r#"{"name":"x","size":1}"#, 400, "size"),
        ("POST", "/v1/volumes/x/attach", r#"{"nod":"n"}"#, 400, "nod"),
        ("DELETE", "/v1/nodes/n?force=perhaps", "", 400, "force=true"),
        ("DELETE", "/v1/volumes/x", "", 409, "conflict"),
        ("GET", "/readyz", "", 503, "the remedy"),
    ] {
        let (status, text) = raw(&served.address, method, path, body).await;
        assert_eq!(status, expected, "{method} {path}: {text}");
        assert!(text.contains(says), "{text}");
        let error: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(error["code"].is_string() && error["message"].is_string(), "{text}");
    }
    assert_eq!(raw(&served.address, "GET", "/healthz", "").await.0, 200);
    let (status, _) = raw(&served.address, "POST", "/v1/volumes/x/attach", "").await;
    assert_eq!(status, 200, "no body is an empty one");
    served.stop().await;
}

#[tokio::test]
async fn an_absent_node_is_told_from_one_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let absent = Client::of_dir(dir.path()).status().await.unwrap_err();
    assert!(matches!(absent, ClientError::NotRunning { .. }), "{absent}");
    assert!(absent.to_string().contains("is `holdfast` running"), "{absent}");
    let path = dir.path().join(holdfast_api::SOCKET_NAME);
    let served = Served::on(&Address::Unix(path)).await;
    assert_eq!(Client::of_dir(dir.path()).status().await.unwrap(), status());
    let refused = served.client.delete_volume("x").await.unwrap_err();
    assert_eq!(refused.to_string(), "the cause; the remedy");
    served.stop().await;
}

#[tokio::test]
async fn half_a_request_holds_no_stop_up() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::on(&Address::Unix(dir.path().join("api"))).await;
    let mut client = Stream::connect(&served.address).await.unwrap();
    client.write_all(b"GET /he").await.unwrap();
    // Until the server has read it.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    served.stop().await;
}
