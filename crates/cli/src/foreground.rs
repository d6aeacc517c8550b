//! Runs a node in this process until a signal.

use crate::{
    args::{FaultArg, NodeSettings, QuickStartArgs, StoreArgs, TimingArgs},
    failure::Failure,
    greeting::Served,
    layout::Layout,
    stop::StopSignals,
};
use holdfast_io::net::Address;
use holdfast_node::{Config, DiskConfig, Ready, StoreConfig, TimingConfig, VolumeConfig};
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const MIB: u64 = 1 << 20;
/// Longest wait, after a signal, for a node that does not serve yet. Formatting and
/// recovering may take longer, and may be cut off anywhere.
const STARTING_STOP_MAX: Duration = Duration::from_secs(3);
/// A second signal ended it, as a shell says it: 128 + SIGINT.
const KILLED: i32 = 130;

/// The quick start of a single node, with its volume.
pub(crate) async fn single(args: QuickStartArgs) -> Result<ExitCode, Failure> {
    Layout::check(&args.dir.data_dir, 1)?;
    run(single_config(args), announce_volume).await
}

/// `holdfast node`
pub(crate) async fn node(settings: NodeSettings) -> Result<ExitCode, Failure> {
    if let Layout::Nodes(nodes) = Layout::of(&settings.data_dir) {
        let dir = settings.data_dir.display();
        return Err(format!(
            "{dir} holds the data of {nodes} nodes; name one of them, such as --data-dir {dir}/node1, or choose another directory"
        )
        .into());
    }
    run(node_config(settings)?, announce_node).await
}

/// Serves until a signal; a second one ends the process at once, which loses nothing that
/// was acknowledged.
async fn run(config: Config, announce: fn(&Ready)) -> Result<ExitCode, Failure> {
    let mut signals = StopSignals::new()?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let serving = Arc::new(AtomicBool::new(false));
    let starting = serving.clone();
    tokio::spawn(async move {
        signals.next().await;
        // The node may have failed by itself and be gone already.
        let _ = stop.send(());
        let formatting = async {
            tokio::time::sleep(STARTING_STOP_MAX).await;
            if starting.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = formatting => std::process::exit(0),
            () = signals.next() => std::process::exit(KILLED),
        }
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
        Err(error) => Err(error.to_string().into()),
    }
}

fn single_config(args: QuickStartArgs) -> Config {
    let nbd_default = SocketAddr::new(args.address, Config::NBD_PORT_DEFAULT);
    let disk: Vec<PathBuf> = args.single.disk.into_iter().collect();
    Config {
        name: None,
        zone: String::new(),
        listen: None,
        advertise: None,
        seeds: Vec::new(),
        nbd: args.single.nbd.map_or(Some(nbd_default), |nbd| nbd.0),
        nbd_advertise: None,
        nbd_socket: args.single.nbd_socket,
        api: None,
        api_advertise: None,
        disks: disks(&args.dir.data_dir, &disk, &args.store),
        data_dir: args.dir.data_dir,
        store: store(args.store, args.fault),
        timing: timing(&args.timing),
        voters: 1,
        volume: Some(VolumeConfig {
            name: args.volume,
            size_bytes: args.size,
            logical_block_bytes: args.block_size,
        }),
    }
}

fn node_config(settings: NodeSettings) -> Result<Config, Failure> {
    let usage = |message: String| Err(Failure::usage(message));
    let network = settings.network;
    if settings.timing.election_min_ms >= settings.timing.election_max_ms {
        return usage("--election-min-ms must be less than --election-max-ms".to_owned());
    }
    if settings.timing.heartbeat_ms >= settings.timing.election_min_ms {
        return usage("--heartbeat-ms must be less than --election-min-ms".to_owned());
    }
    if network.advertise.is_none() && network.listen.ip().is_unspecified() {
        return usage(format!(
            "--listen {} is every address of this machine; say with --advertise which of them other nodes are to use",
            network.listen
        ));
    }
    Ok(Config {
        name: settings.name,
        zone: settings.zone.unwrap_or_default(),
        listen: Some(network.listen),
        advertise: network.advertise,
        seeds: network.seed,
        nbd: network.nbd.0,
        nbd_advertise: network.nbd_advertise,
        nbd_socket: network.nbd_socket,
        api: network.api.0,
        api_advertise: network.api_advertise,
        disks: disks(&settings.data_dir, &settings.disks.disk, &settings.store),
        data_dir: settings.data_dir,
        store: store(settings.store, settings.fault),
        timing: timing(&settings.timing),
        voters: settings.voters,
        volume: None,
    })
}

fn disks(data_dir: &Path, given: &[PathBuf], store: &StoreArgs) -> Vec<DiskConfig> {
    let default = [data_dir.join("disk")];
    let paths = if given.is_empty() { &default[..] } else { given };
    let disk = |path: &PathBuf| DiskConfig { path: path.clone(), capacity_bytes: store.capacity };
    paths.iter().map(disk).collect()
}

fn store(args: StoreArgs, fault: FaultArg) -> StoreConfig {
    StoreConfig {
        backend: args.backend.into(),
        segment_bytes: args.wal_segment_mib * MIB as u32,
        segments: args.wal_segments,
        unapplied_bytes_max: u64::from(args.unapplied_mib) * MIB,
        fault: fault.fault,
    }
}

fn timing(args: &TimingArgs) -> TimingConfig {
    TimingConfig {
        lease_ms: args.lease_ms.into(),
        shrink_after_ms: args.shrink_after_ms.into(),
        io_timeout_ms: args.io_timeout_ms.into(),
        heartbeat_ms: args.heartbeat_ms.into(),
        election_ms: (args.election_min_ms.into(), args.election_max_ms.into()),
    }
}

fn announce_volume(ready: &Ready) {
    let Some(volume) = &ready.volume else { return announce_node(ready) };
    let (mut tcp, mut unix) = (None, None);
    for address in &ready.nbd {
        match address {
            Address::Tcp(address) => tcp = Some(*address),
            Address::Unix(path) => unix = Some(path),
        }
    }
    let Some(unix) = unix else { unreachable!("the unix socket is always served") };
    Served {
        volume: &volume.name,
        size_bytes: volume.size_bytes,
        created: volume.created,
        place: format!("in {}; disk I/O: {}", ready.data_dir.display(), ready.backend),
        tcp,
        unix,
        further: Vec::new(),
    }
    .announce();
}

fn announce_node(ready: &Ready) {
    let mut words = vec![format!("ready node {} {}", ready.name, ready.node)];
    let uris = |scheme: &str, addresses: &[Address]| -> Vec<String> {
        addresses
            .iter()
            .map(|address| match address {
                Address::Tcp(address) => format!("{scheme}://{address}"),
                Address::Unix(path) => format!("{scheme}+unix://?socket={}", path.display()),
            })
            .collect()
    };
    words.extend(ready.peer.iter().map(|peer| format!("peer://{peer}")));
    words.extend(uris("nbd", &ready.nbd));
    words.extend(uris("http", &ready.api));
    let mut out = std::io::stdout().lock();
    // Whoever closed our standard output does not want to be told.
    let _ = writeln!(out, "{}", words.join(" ")).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn cli(words: &[&str]) -> Cli {
        Cli::try_parse_from(["holdfast"].iter().chain(words)).unwrap()
    }

    fn single_of(words: &[&str]) -> Config {
        single_config(cli(words).quick_start)
    }

    fn node_of(words: &[&str]) -> Result<Config, String> {
        match cli(words).command {
            Some(Command::Node(node)) => {
                node_config(node.settings).map_err(|failure| failure.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_of_a_single_node() {
        let config = single_of(&["--nodes", "1"]);
        assert_eq!(config.nbd, Some("127.0.0.1:10809".parse().unwrap()));
        assert_eq!((config.listen, config.api, config.voters), (None, None, 1));
        assert_eq!(config.volume.unwrap().name.as_str(), "demo");
        assert_eq!(config.store.unapplied_bytes_max, 256 << 20);
        assert_eq!(config.timing, TimingConfig::default());
        assert_eq!(config.disks[0].path, Path::new("./holdfast-data/disk"));
        let config = single_of(&["--nodes", "1", "--address", "127.9.9.9"]);
        assert_eq!(config.nbd, Some("127.9.9.9:10809".parse().unwrap()));
    }

    #[test]
    fn sizes_are_binary_and_addresses_can_be_off() {
        let words = ["--nodes", "1", "--size", "10GiB", "--nbd", "none", "--block-size", "4096"];
        let config = single_of(&words);
        let volume = config.volume.unwrap();
        assert_eq!(volume.size_bytes, Some(10 << 30));
        assert_eq!(volume.logical_block_bytes, Some(4096));
        assert_eq!(config.nbd, None);
    }

    #[test]
    fn defaults_of_a_node() {
        let config = node_of(&["node"]).unwrap();
        let port = |port| Some(SocketAddr::new("127.0.0.1".parse().unwrap(), port));
        assert_eq!(config.listen, port(Config::PEER_PORT_DEFAULT));
        assert_eq!(config.nbd, port(Config::NBD_PORT_DEFAULT));
        assert_eq!(config.api, port(Config::API_PORT_DEFAULT));
        assert_eq!(config.voters, Config::VOTERS_DEFAULT);
        assert_eq!(config.timing, TimingConfig::default());
        assert!(config.volume.is_none());
        let config = node_of(&["node", "--disk", "/a,/b", "--capacity", "1GiB"]).unwrap();
        let disks: Vec<_> = config.disks.iter().map(|disk| disk.path.to_str().unwrap()).collect();
        assert_eq!(disks, ["/a", "/b"]);
        assert_eq!(config.disks[1].capacity_bytes, Some(1 << 30));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (words, named) in [
            (&["node", "--listen", "0.0.0.0:1"][..], "--advertise"),
            (&["node", "--listen", "[::]:1"], "--advertise"),
            (&["node", "--election-min-ms", "1200"], "--election-max-ms"),
            (&["node", "--heartbeat-ms", "600"], "--election-min-ms"),
        ] {
            let refused = node_of(words).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
        assert!(node_of(&["node", "--listen", "0.0.0.0:1", "--advertise", "n1:1"]).is_ok());
    }
}
