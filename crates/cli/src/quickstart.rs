//! Runs a node in the foreground, and tells a newcomer what to do with it.

use bytesize::ByteSize;
use holdfast_node::{Config, Ready};
use std::{io::Write, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// Serves until a signal; a second one ends the process at once, which loses
/// nothing that was acknowledged.
pub(crate) async fn run(config: Config) -> Result<ExitCode, String> {
    let cannot = |error: std::io::Error| format!("cannot handle signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        // The node may have failed by itself and be gone already.
        let _ = stop.send(());
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    let stopped = async move {
        let _ = stopped.await;
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
    let unix = format!("nbd+unix:///{volume}?socket={}", ready.nbd_socket.display());
    let tcp = ready.nbd.map(|address| format!("nbd://{address}/{volume}"));
    let uri = tcp.as_deref().unwrap_or(&unix);
    let attach = match ready.nbd {
        Some(address) => {
            format!("nbd-client {} {} /dev/nbd0 -N {volume}", address.ip(), address.port())
        }
        None => format!("nbd-client -unix {} /dev/nbd0 -N {volume}", ready.nbd_socket.display()),
    };
    let both = tcp.iter().chain([&unix]).cloned().collect::<Vec<_>>();
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
        serving = both.join("\n            "),
        ready_uris = both.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_for_programs() {
        let ready = Ready {
            data_dir: "./holdfast-data".into(),
            nbd: Some("127.0.0.1:10809".parse().unwrap()),
            nbd_socket: "./holdfast-data/nbd.sock".into(),
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
