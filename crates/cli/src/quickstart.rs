//! Runs a node in the foreground, and tells a newcomer what to do with it.

use bytesize::ByteSize;
use holdfast_io::net::Address;
use holdfast_node::{Config, Ready};
use std::{
    io::Write,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::signal::unix::{SignalKind, signal};

/// signal(7); the same number on every architecture that we build for.
const SIGXFSZ: i32 = 25;

/// Serves until a signal; a second one ends the process at once, which loses
/// nothing that was acknowledged.
pub(crate) async fn run(config: Config) -> Result<ExitCode, String> {
    let cannot = |error: std::io::Error| format!("cannot handle signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    // A limit on file size then fails one write instead of killing the process.
    let _limit = signal(SignalKind::from_raw(SIGXFSZ)).map_err(cannot)?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let serving = Arc::new(AtomicBool::new(false));
    let starting = serving.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        if !starting.load(Ordering::Relaxed) {
            // Formatting or recovering, which may take a while and may be cut off
            // anywhere; no client is there yet.
            std::process::exit(0);
        }
        // The node may have failed by itself and be gone already.
        let _ = stop.send(());
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    let stopped = async move {
        let _ = stopped.await;
    };
    let announce = |ready: &Ready| {
        serving.store(true, Ordering::Relaxed);
        announce(ready);
    };
    match holdfast_node::run(config, announce, stopped).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.to_string()),
    }
}

fn announce(ready: &Ready) {
    let mut out = std::io::stdout().lock();
    // Whoever closed our standard output does not want to be told.
    let _ = out.write_all(greeting(ready).as_bytes()).and_then(|()| out.flush());
}

fn greeting(ready: &Ready) -> String {
    let volume = &ready.volume;
    let size = ByteSize(ready.size_bytes);
    let verb = if ready.created { "created" } else { "opened" };
    let uris: Vec<String> = ready.nbd.iter().rev().map(|address| uri(address, volume)).collect();
    let uri = &uris[0];
    let attach = match &ready.nbd[ready.nbd.len() - 1] {
        Address::Tcp(address) => {
            format!("nbd-client {} {} /dev/nbd0 -N {volume}", address.ip(), address.port())
        }
        Address::Unix(path) => {
            format!("nbd-client -unix {} /dev/nbd0 -N {volume}", path.display())
        }
    };
    format!(
        "\
volume {volume} ({size}) {verb} in {dir}; disk I/O: {backend}
serving at  {serving}

  nbdinfo '{uri}'
  fio --name={volume} --ioengine=nbd --uri='{uri}' --rw=randwrite --bs=4k --iodepth=32 --size={size_bytes} --time_based --runtime=10
  qemu-img convert -p -n -O raw disk.img '{uri}'
  nbdcopy -p '{uri}' backup.img
  {attach}

Ctrl-C stops it; started again, it serves the same bytes.
ready {ready_uris}
",
        dir = ready.data_dir.display(),
        backend = ready.backend,
        size_bytes = ready.size_bytes,
        serving = uris.join("\n            "),
        ready_uris = uris.join(" "),
    )
}

/// NBD URI specification, "unix sockets" and "TCP".
fn uri(address: &Address, volume: &str) -> String {
    match address {
        Address::Tcp(address) => format!("nbd://{address}/{volume}"),
        Address::Unix(path) => format!("nbd+unix:///{volume}?socket={}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_for_programs() {
        let ready = Ready {
            data_dir: "./holdfast-data".into(),
            nbd: vec![
                Address::Unix("./holdfast-data/nbd.sock".into()),
                Address::Tcp("127.0.0.1:10809".parse().unwrap()),
            ],
            volume: "demo".into(),
            size_bytes: 1 << 30,
            created: true,
            backend: "threads".into(),
        };
        let text = greeting(&ready);
        assert_eq!(
            text.lines().last().unwrap(),
            "ready nbd://127.0.0.1:10809/demo nbd+unix:///demo?socket=./holdfast-data/nbd.sock"
        );
        assert!(text.contains("1.0 GiB"), "{text}");
    }
}
