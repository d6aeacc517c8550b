//! The volume that the quick start serves.

use super::Ports;
use crate::{
    args::QuickStartArgs,
    failure::Failure,
    greeting::Served,
    layout::{node_dir, node_name},
};
use holdfast_api::{
    client::{Client, ClientError},
    types::{AttachVolume, CreateVolume, ErrorBody, ErrorCode, VolumeStatus},
};
use holdfast_node::VolumeConfig;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Replicas, as far as there are nodes: what survives the loss of one.
const REPLICAS: u8 = 3;
/// Pause between looks at whether the nodes have come as far as is needed.
const POLL: Duration = Duration::from_millis(100);
/// How long something may take before the log says what is waited for, again and again.
const SAY_AFTER: Duration = Duration::from_secs(10);

/// Waits for the cluster, makes the volume if there is none of its name, attaches it if it
/// is attached nowhere, waits until it is served, and says so.
pub(super) async fn serve(args: &QuickStartArgs, ports: Ports) -> Result<(), Failure> {
    let mut nodes = Nodes::new(args);
    let (volume, created) = nodes.find_or_create(args).await?;
    if volume.attached.is_none() {
        nodes.attach(&volume.name).await?;
    }
    let volume = nodes.served(&volume.name).await?;
    announce(args, ports, &volume, created);
    Ok(())
}

/// Asks the nodes, whichever answers.
struct Nodes {
    clients: Vec<Client>,
    waiting: Waiting,
}

impl Nodes {
    fn new(args: &QuickStartArgs) -> Self {
        let dir = &args.dir.data_dir;
        let clients = (0..args.nodes).map(|index| Client::of_dir(&node_dir(dir, index))).collect();
        Self { clients, waiting: Waiting::new() }
    }

    /// A node that is part of the cluster; the first one, if it is.
    async fn any(&mut self) -> Client {
        loop {
            let mut reason = String::new();
            for client in &self.clients {
                match client.ready().await {
                    Ok(()) => return client.clone(),
                    Err(error) => reason = error.to_string(),
                }
            }
            self.waiting.pause("the cluster to form", &reason).await;
        }
    }

    async fn find_or_create(
        &mut self,
        args: &QuickStartArgs,
    ) -> Result<(VolumeStatus, bool), Failure> {
        let name = args.volume.as_str();
        let replicas = args.nodes.min(REPLICAS);
        loop {
            let client = self.any().await;
            match client.volume(name).await {
                Ok(volume) => return check_geometry(args, volume).map(|volume| (volume, false)),
                Err(ClientError::Refused(ErrorBody { code: ErrorCode::NotFound, .. })) => {}
                Err(error) => {
                    self.waiting.pause("an answer", &error.to_string()).await;
                    continue;
                }
            }
            let create = CreateVolume {
                name: name.to_owned(),
                size_bytes: args.size.unwrap_or(VolumeConfig::SIZE_BYTES_DEFAULT),
                logical_block_bytes: Some(
                    args.block_size.unwrap_or(VolumeConfig::LOGICAL_BLOCK_BYTES_DEFAULT),
                ),
                replicas: Some(replicas),
                min_replicas: None,
            };
            match client.create_volume(&create).await {
                Ok(changed) => return Ok((changed.volume, true)),
                Err(ClientError::Refused(error)) if error.code == ErrorCode::Invalid => {
                    return Err(error.to_string().into());
                }
                // Nodes and their disks come one after the other.
                Err(error) => {
                    let what = format!("room for {replicas} replicas of {name}");
                    self.waiting.pause(&what, &error.to_string()).await;
                }
            }
        }
    }

    async fn attach(&mut self, name: &str) -> Result<(), Failure> {
        let attach = AttachVolume { node: Some(node_name(0)), read_only: false };
        loop {
            match self.any().await.attach_volume(name, &attach).await {
                Ok(_) => return Ok(()),
                Err(ClientError::Refused(error)) if error.code == ErrorCode::Invalid => {
                    return Err(error.to_string().into());
                }
                Err(error) => {
                    let what = format!("{name} to be attached on {}", node_name(0));
                    self.waiting.pause(&what, &error.to_string()).await;
                }
            }
        }
    }

    /// The volume once it is served.
    async fn served(&mut self, name: &str) -> Result<VolumeStatus, Failure> {
        /// What [`VolumeStatus::state`] says then.
        const SERVING: &str = "serving";
        loop {
            let reason = match self.any().await.volume(name).await {
                Ok(volume) if volume.state == SERVING => return Ok(volume),
                Ok(volume) => format!("it is {}", volume.state),
                Err(error) => error.to_string(),
            };
            self.waiting.pause(&format!("{name} to be served"), &reason).await;
        }
    }
}

/// Pauses, and says now and then what for.
struct Waiting {
    said: Instant,
}

impl Waiting {
    fn new() -> Self {
        Self { said: Instant::now() }
    }

    async fn pause(&mut self, what: &str, reason: &str) {
        if self.said.elapsed() >= SAY_AFTER {
            self.said = Instant::now();
            tracing::warn!("waiting for {what}: {reason}");
        }
        sleep(POLL).await;
    }
}

fn check_geometry(args: &QuickStartArgs, held: VolumeStatus) -> Result<VolumeStatus, Failure> {
    let same = args.size.is_none_or(|size| size == held.size_bytes)
        && args.block_size.is_none_or(|block| block == held.logical_block_bytes);
    if same {
        return Ok(held);
    }
    Err(format!(
        "volume {} exists with {} bytes in blocks of {}; leave --size and --block-size out, or choose another --volume",
        held.name, held.size_bytes, held.logical_block_bytes
    )
    .into())
}

fn announce(args: &QuickStartArgs, ports: Ports, volume: &VolumeStatus, created: bool) {
    let dir = &args.dir.data_dir;
    let attached = volume.attached.as_ref().map(|attached| attached.node.as_str());
    // Served by a node that joined later, it is reached there; the first node's clients
    // are told so by the commands below.
    let index = (0..args.nodes).find(|&index| attached == Some(node_name(index).as_str()));
    let Some(index) = index else {
        let node = attached.unwrap_or("another node");
        tracing::warn!(
            "{} is attached on {node}, which is none of these nodes; `holdfast volume attach {} --node node1` brings it here",
            volume.name,
            volume.name
        );
        return;
    };
    let on: Vec<&str> = volume.replicas.iter().map(|replica| replica.node.as_str()).collect();
    let option = match dir.to_str() {
        Some("./holdfast-data") => String::new(),
        _ => format!(" --data-dir {}", dir.display()),
    };
    Served {
        volume: &volume.name,
        size_bytes: volume.size_bytes,
        created,
        place: format!(
            "in {}, replicas on {}, served by {}",
            dir.display(),
            on.join(", "),
            node_name(index)
        ),
        tcp: Some(ports.reach(ports.nbd(index))),
        unix: &node_dir(dir, index).join("nbd.sock"),
        further: vec![
            format!("  holdfast status{option}"),
            format!("  holdfast replica verify {}{option}", volume.name),
            String::new(),
            "Each node is a process: kill one, and it is started again.".to_owned(),
        ],
    }
    .announce();
}
