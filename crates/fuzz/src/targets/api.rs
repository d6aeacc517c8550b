//! The management API: bytes of a connection, through HTTP and the real router, to a
//! daemon that keeps a catalogue.
//!
//! Checked: a whole request is answered, in the API's form, with a status that the API knows; what was
//! taken apart says the same when it is written down again.

mod daemon;

use crate::{Input, Labels, Target, target::uncounted};
use axum::serve::Listener;
use daemon::Daemon;
use std::{future::pending, io, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::{Builder, Runtime},
    task::yield_now,
};

pub(super) const TARGET: Target = Target {
    name: "api",
    about: "requests to the management API",
    run,
    // The connection's buffers, the body and what it is parsed into, and an answer, which is longest
    // for `/openapi.json`.
    heap_bytes_max: 4 << 20,
    seeds,
};

/// The input's bytes are the connection's.
const RAW: u8 = 1;
const METHODS: [&str; 7] = ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"];
const PATHS: [&str; 17] = [
    "/v1/volumes",
    "/v1/volumes/{}",
    "/v1/volumes/{}/resize",
    "/v1/volumes/{}/attach",
    "/v1/volumes/{}/detach",
    "/v1/volumes/{}/verify",
    "/v1/nodes",
    "/v1/nodes/join",
    "/v1/nodes/{}",
    "/v1/disks",
    "/v1/disks/{}",
    "/v1/version",
    "/v1/status",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/v1/{}",
];
const QUERIES: [&str; 5] = ["", "?", "?force=true", "?force=false", "?{}"];
/// What the API, and HTTP below it, answers with.
const STATUSES: [(&str, &str); 12] = [
    ("100", "go on"),
    ("200", "done"),
    ("400", "invalid"),
    ("404", "not found"),
    ("405", "no such method"),
    ("409", "conflict"),
    ("413", "body too long"),
    ("414", "path too long"),
    ("431", "head too long"),
    ("500", "internal"),
    ("503", "unavailable"),
    ("504", "timeout"),
];
/// Bytes of a name in a path at most, before they are escaped.
const NAME_MAX: usize = 80;
/// Requests on one connection at most.
const REQUESTS_MAX: usize = 8;
/// Turns of the runtime in which a connection's requests are answered: each takes a few.
const TURNS: usize = 500;
/// Bytes that the connection holds in each direction.
const PIPE_BYTES: usize = 64 << 10;

fn run(input: &[u8], labels: &mut Labels) {
    let mut input = Input::new(input);
    let (stream, requests) = match input.u8() {
        RAW => (input.rest().to_vec(), None),
        _ => described(&mut input),
    };
    let daemon = Arc::new(Daemon::default());
    let answers = RUNTIME.with(|runtime| runtime.block_on(exchange(daemon.clone(), &stream)));
    let statuses = judge(&answers, labels);
    if let Some(requests) = requests {
        // A connection is closed behind a request whose body was not wanted.
        assert!((1..=requests).contains(&statuses), "{statuses} answers to {requests} requests");
    }
    daemon.labels(labels);
}

thread_local! {
    static RUNTIME: Runtime = uncounted(|| {
        match Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        }
    });
}

/// Requests that are whole, and how many they are.
fn described(input: &mut Input<'_>) -> (Vec<u8>, Option<usize>) {
    let (mut stream, mut count) = (Vec::new(), 0);
    while count < REQUESTS_MAX && (count == 0 || !input.is_empty()) {
        count += 1;
        let method = input.pick(&METHODS);
        let path = input.pick(&PATHS);
        let query = input.pick(&QUERIES);
        let mut text = || {
            let len = input.below(NAME_MAX);
            escaped(input.bytes(len))
        };
        let mut target = path.to_owned();
        if path.contains("{}") {
            target = target.replace("{}", &text());
        }
        target +=
            &if query.contains("{}") { query.replace("{}", &text()) } else { query.to_owned() };
        let len = usize::from(input.u16());
        let body = input.bytes(len);
        // The last one says so: then the connection ends by itself.
        let close = if input.is_empty() || count == REQUESTS_MAX { "close" } else { "keep-alive" };
        stream.extend_from_slice(
            format!(
                "{method} {target} HTTP/1.1\r\nhost: h\r\nconnection: {close}\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        );
        stream.extend_from_slice(body);
    }
    (stream, Some(count))
}

/// As it may stand in a path: letters, digits and dashes as they are, the rest in hex.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'=' | b'&' => {
                out.push(char::from(*byte));
            }
            other => out += &format!("%{other:02x}"),
        }
    }
    out
}

/// Serves one connection, until the client has said all and heard all.
async fn exchange(daemon: Arc<Daemon>, stream: &[u8]) -> Vec<u8> {
    let (mut client, server) = duplex(PIPE_BYTES);
    let serve = axum::serve(Once(Some(server)), holdfast_api::router(daemon));
    let talk = async {
        let (mut from, mut to) = tokio::io::split(&mut client);
        let mut answers = Vec::new();
        let send = async {
            // It may be refused before it was all sent.
            let _ = to.write_all(stream).await;
            // A connection whose client has said its last is closed unanswered.
            for _ in 0..TURNS {
                yield_now().await;
            }
            let _ = to.shutdown().await;
            pending::<()>().await;
        };
        tokio::select! {
            _ = from.read_to_end(&mut answers) => {}
            () = send => unreachable!("it waits for the answers"),
        }
        answers
    };
    tokio::select! {
        answers = talk => answers,
        _ = serve => unreachable!("it serves for ever"),
    }
}

/// Accepts one connection and no more.
struct Once(Option<DuplexStream>);

impl Listener for Once {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(stream) => (stream, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks at the answers, and counts them. An answer to HEAD has no body although it says how long it is, so
/// answers are found by their first line.
fn judge(answers: &[u8], labels: &mut Labels) -> usize {
    const FIRST: &[u8] = b"HTTP/1.";
    const STATUS_AT: usize = "HTTP/1.1 ".len();
    let starts: Vec<usize> = answers
        .windows(FIRST.len())
        .enumerate()
        // Not within a text of an answer's body.
        .filter(|(at, window)| {
            *window == FIRST && (*at == 0 || b"}]\nl".contains(&answers[at - 1]))
        })
        .map(|(at, _)| at)
        .collect();
    assert!(answers.is_empty() || starts.first() == Some(&0), "not an answer");
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(answers.len());
        let answer = &answers[*start..end];
        let status = String::from_utf8_lossy(&answer[STATUS_AT..][..3]).into_owned();
        let Some((_, name)) = STATUSES.iter().find(|(code, _)| *code == status) else {
            panic!("status {status}")
        };
        labels.see(format_args!("status: {name}"));
        let Some(split) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            panic!("an answer without an end of its head")
        };
        let (head, body) = (String::from_utf8_lossy(&answer[..split]), &answer[split + 4..]);
        if head.contains("application/json") && !body.is_empty() {
            let json: Result<serde_json::Value, _> = serde_json::from_slice(body);
            let Ok(json) = json else { panic!("no JSON: {}", String::from_utf8_lossy(body)) };
            if !status.starts_with('2') {
                assert!(json["code"].is_string() && json["message"].is_string(), "{json}");
            }
        }
    }
    starts.len()
}

/// Every method on every path, and bodies that are right, nearly right and wrong.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut add = |method: u8, path: u8, query: u8, name: &str, body: &str| {
        let mut seed = vec![0, method, path, query];
        if PATHS[usize::from(path)].contains("{}") {
            seed.push(name.len() as u8);
            seed.extend_from_slice(name.as_bytes());
        }
        seed.extend((body.len() as u16).to_le_bytes());
        seed.extend_from_slice(body.as_bytes());
        seeds.push(seed);
    };
    for path in 0..PATHS.len() as u8 {
        for method in 0..3 {
            add(method, path, 0, "demo", "");
        }
        add(3, path, 0, "d e", "{}");
    }
    for query in 0..4 {
        add(2, 8, query, "node1", "");
    }
    let creates = [
        r#"{"name":"demo","size_bytes":4096}"#,
        r#"{"name":"a","size_bytes":8192,"replicas":1,"min_replicas":1,"logical_block_bytes":512}"#,
        r#"{"name":"a","size_bytes":-1}"#,
        r#"{"name":"A b","size_bytes":1e3,"no":null}"#,
        r#"{"name":"a","size_bytes":18446744073709551615,"replicas":255}"#,
        r#"{"name":"x"#,
        "[[[[[[[[[[[[[[[[",
    ];
    for body in creates {
        add(1, 0, 0, "", body);
    }
    add(1, 2, 0, "demo", r#"{"size_bytes":8192}"#);
    add(1, 3, 0, "demo", r#"{"node":"node1","read_only":true}"#);
    add(1, 3, 0, "demo", r#"{"read_only":"yes"}"#);
    add(1, 7, 0, "", r#"{"seed":"h:1"}"#);
    add(1, 9, 0, "", r#"{"path":"/d","capacity_bytes":5}"#);
    let life = [
        (1u8, 0u8, creates[0]),
        (1, 3, "{}"),
        (1, 2, r#"{"size_bytes":8192}"#),
        (2, 1, ""),
        (1, 4, ""),
        (2, 1, ""),
        (0, 0, ""),
    ];
    let mut seed = vec![0];
    for (method, path, body) in life {
        seed.extend([method, path, 0]);
        if path != 0 {
            seed.push(4);
            seed.extend(b"demo");
        }
        seed.extend((body.len() as u16).to_le_bytes());
        seed.extend(body.as_bytes());
    }
    seeds.push(seed);
    let raws = [
        "GET /v1/volumes HTTP/1.1\r\n\r\n",
        "GET /v1/version HTTP/1.0\r\n\r\n",
        "POST /v1/volumes HTTP/1.1\r\ntransfer-encoding: chunked\r\nhost: h\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "POST /v1/volumes HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n{",
        "GET http://h/v1/status?x#y HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        "HFnbd",
        "\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for raw in raws {
        let mut seed = vec![RAW];
        seed.extend_from_slice(raw.as_bytes());
        seeds.push(seed);
    }
    seeds
}
