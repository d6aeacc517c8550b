//! `holdfast node list|join|remove`

use super::show;
use crate::{args::NodeCommand, failure::Failure, table::Table};
use holdfast_api::types::{JoinCluster, NodeRole, NodeStatus};
use std::process::ExitCode;

/// Asks, and shows the nodes.
pub(crate) async fn run(command: &NodeCommand) -> Result<ExitCode, Failure> {
    match command {
        NodeCommand::List { api, output } => {
            show(&api.client().await?.nodes().await?, output.output, |found| nodes(found))?;
        }
        NodeCommand::Join { seed, api, output } => {
            let join = JoinCluster { seed: seed.clone() };
            show(&api.client().await?.join(&join).await?, output.output, |found| nodes(found))?;
        }
        NodeCommand::Remove { node, force, api } => {
            api.client().await?.remove_node(node, *force).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each node.
pub(super) fn nodes(nodes: &[NodeStatus]) -> String {
    let mut table =
        Table::new(&["NODE", "ZONE", "ROLE", "STATE", "NODES", "API", "NBD", "ID"], &[]);
    for node in nodes {
        let role = match node.role {
            NodeRole::Leader => "leader",
            NodeRole::Voter => "voter",
            NodeRole::Learner => "learner",
            NodeRole::None => "none",
        };
        table.row([
            node.name.clone(),
            node.zone.clone(),
            role.to_owned(),
            if node.online { "online" } else { "offline" }.to_owned(),
            node.peer.clone(),
            node.api.clone(),
            node.nbd.clone(),
            node.id.clone(),
        ]);
    }
    let mut text = table.to_string();
    for node in nodes {
        if let Some(error) = &node.error {
            text += &format!("{}: {error}\n", node.name);
        }
    }
    text
}
