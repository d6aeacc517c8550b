//! `holdfast` without a subcommand: several nodes on this machine, each a process, with
//! a volume that has a replica on each of the first three.

mod demo;

use crate::{
    args::{FaultArg, NodeSettings, QuickStartArgs, StoreArgs, TimingArgs},
    failure::Failure,
    layout::{NodesDir, node_dir, node_name},
    stop::StopSignals,
    supervisor::{NodeCommand, Supervisor},
};
use clap::{ArgMatches, Args, Command, parser::ValueSource};
use holdfast_io::net::{Address, Listener};
use holdfast_node::Config;
use std::{
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Longest wait for ports of nodes whose parent was killed a moment ago, and pause between looks.
const PORTS_FREE_MAX: Duration = Duration::from_secs(3);
const PORTS_FREE_POLL: Duration = Duration::from_millis(50);

/// Runs them until a signal.
pub(crate) async fn run(args: &QuickStartArgs, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    refuse_single(args)?;
    let signals = StopSignals::new()?;
    let dir = &args.dir.data_dir;
    let ports = Ports { address: args.address, nodes: args.nodes };
    // Before anything is written: a port that is taken is the commonest mistake. Nodes
    // that were killed with their parent a moment ago may not have given theirs back yet.
    let _held = NodesDir::open(dir, args.nodes, async |again| {
        ports.check(if again { PORTS_FREE_MAX } else { Duration::ZERO }).await
    })
    .await?;
    let commands = (0..args.nodes).map(|index| command(args, matches, ports, index)).collect();
    let supervisor = Supervisor::start(commands)?;
    supervisor.run(signals, demo::serve(args, ports)).await
}

fn refuse_single(args: &QuickStartArgs) -> Result<(), Failure> {
    let single = &args.single;
    let given = [
        ("--nbd", single.nbd.is_some()),
        ("--nbd-socket", single.nbd_socket.is_some()),
        ("--disk", single.disk.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(format!(
            "{option} is for one node, and {} are to run; give --nodes 1, or run each by `holdfast node`",
            args.nodes
        )
        .into()),
    }
}

/// The nodes' addresses: the first one's have the usual ports, the others' the next ones.
#[derive(Clone, Copy, Debug)]
struct Ports {
    address: IpAddr,
    nodes: u8,
}

impl Ports {
    fn nbd(self, index: u8) -> SocketAddr {
        SocketAddr::new(self.address, Config::NBD_PORT_DEFAULT + u16::from(index))
    }

    fn peer(self, index: u8) -> SocketAddr {
        SocketAddr::new(self.address, Config::PEER_PORT_DEFAULT + u16::from(index))
    }

    fn api(self, index: u8) -> SocketAddr {
        SocketAddr::new(self.address, Config::API_PORT_DEFAULT + u16::from(index))
    }

    /// Where this machine reaches what listens on an address.
    fn reach(self, address: SocketAddr) -> SocketAddr {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, address.port())
    }

    /// Refuses when a port is taken for longer than `within`.
    async fn check(self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        for index in 0..self.nodes {
            for address in [self.nbd(index), self.peer(index), self.api(index)] {
                // Each is bound and given back.
                while let Err(error) = Listener::bind(&Address::Tcp(address)).await {
                    let may_pass = error.kind() == io::ErrorKind::AddrInUse;
                    if !may_pass || Instant::now() >= deadline {
                        return Err(format!("{error} (--address)"));
                    }
                    sleep(PORTS_FREE_POLL).await;
                }
            }
        }
        Ok(())
    }
}

/// How to start node `index`.
fn command(args: &QuickStartArgs, matches: &ArgMatches, ports: Ports, index: u8) -> NodeCommand {
    let name = node_name(index);
    let mut words: Vec<OsString> = vec!["node".into()];
    let mut option = |name: &str, value: OsString| words.extend([name.into(), value]);
    option("--data-dir", node_dir(&args.dir.data_dir, index).into());
    option("--name", name.clone().into());
    option("--listen", ports.peer(index).to_string().into());
    option("--advertise", ports.reach(ports.peer(index)).to_string().into());
    option("--nbd", ports.nbd(index).to_string().into());
    option("--nbd-advertise", ports.reach(ports.nbd(index)).to_string().into());
    option("--api", ports.api(index).to_string().into());
    option("--api-advertise", ports.reach(ports.api(index)).to_string().into());
    for seed in 0..args.nodes {
        option("--seed", ports.reach(ports.peer(seed)).to_string().into());
    }
    for (name, value) in handed_on(matches) {
        option(&name, value);
    }
    NodeCommand { name, args: words, without_env: settings_env() }
}

/// What was given of the settings that each node has.
fn handed_on(matches: &ArgMatches) -> Vec<(String, OsString)> {
    let command = Command::new("each");
    let command =
        TimingArgs::augment_args(FaultArg::augment_args(StoreArgs::augment_args(command)));
    let mut given = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let source = matches.value_source(id);
        let said = matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        if let (true, Some(long), Some(mut values)) = (said, arg.get_long(), matches.get_raw(id))
            && let Some(value) = values.next()
        {
            given.push((format!("--{long}"), value.to_owned()));
        }
    }
    given
}

/// Variables that would tell every node the same, where each is told its own.
fn settings_env() -> Vec<OsString> {
    let command = NodeSettings::augment_args(Command::new("node"));
    command.get_arguments().filter_map(|arg| arg.get_env()).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory, FromArgMatches};

    fn quick_start(words: &[&str]) -> (QuickStartArgs, ArgMatches) {
        let words = ["holdfast"].iter().chain(words);
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        (Cli::from_arg_matches(&matches).unwrap().quick_start, matches)
    }

    /// Every child's command line is one that the program understands.
    #[test]
    fn nodes_are_told_what_the_quick_start_was() {
        let words = ["--wal-segments", "8", "--capacity", "2GiB", "--lease-ms", "700"];
        let (args, matches) = quick_start(&words);
        let ports = Ports { address: args.address, nodes: args.nodes };
        let command = command(&args, &matches, ports, 1);
        assert_eq!(command.name, "node2");
        let words = [OsString::from("holdfast")].into_iter().chain(command.args);
        let cli = <Cli as clap::Parser>::try_parse_from(words).unwrap();
        let Some(crate::args::Command::Node(node)) = cli.command else { panic!("{cli:?}") };
        let settings = node.settings;
        assert_eq!(settings.store.wal_segments, 8);
        assert_eq!(settings.store.capacity, Some(2 << 30));
        assert_eq!(settings.timing.lease_ms, 700);
        assert_eq!(settings.network.listen, "127.0.0.1:10820".parse().unwrap());
        assert_eq!(settings.network.nbd.0, Some("127.0.0.1:10810".parse().unwrap()));
        assert_eq!(settings.network.api.0, Some("127.0.0.1:10830".parse().unwrap()));
        assert_eq!(
            settings.network.seed,
            ["127.0.0.1:10819", "127.0.0.1:10820", "127.0.0.1:10821"]
        );
        assert!(command.without_env.iter().any(|name| name == "HOLDFAST_CONFIG"));
    }

    #[test]
    fn every_interface_is_advertised_as_one_that_can_be_reached() {
        let ports = Ports { address: "0.0.0.0".parse().unwrap(), nodes: 3 };
        assert_eq!(ports.reach(ports.nbd(0)), "127.0.0.1:10809".parse().unwrap());
        let ports = Ports { address: "::".parse().unwrap(), nodes: 3 };
        assert_eq!(ports.reach(ports.api(2)), "[::1]:10831".parse().unwrap());
    }

    #[test]
    fn settings_of_one_node_are_refused_for_several() {
        for words in [["--disk", "/x"], ["--nbd", "none"], ["--nbd-socket", "/x"]] {
            let (args, _) = quick_start(&words);
            let refused = refuse_single(&args).unwrap_err().to_string();
            assert!(refused.contains(words[0]) && refused.contains("--nodes 1"), "{refused}");
        }
    }
}
