//! `holdfast volume …`

use super::show;
use crate::{
    args::{OutputArg, VolumeCommand},
    failure::Failure,
    size,
    table::Table,
};
use holdfast_api::types::{
    AttachVolume, Changed, CreateVolume, ResizeVolume, VolumePhase, VolumeStatus,
};
use std::{fmt::Write, process::ExitCode};

/// Asks, and shows the volume after the change.
pub(crate) async fn run(command: &VolumeCommand) -> Result<ExitCode, Failure> {
    match command {
        VolumeCommand::Create(args) => {
            let create = CreateVolume {
                name: args.name.to_string(),
                size_bytes: args.size,
                logical_block_bytes: Some(args.block_size),
                replicas: args.replicas,
                min_replicas: Some(args.min_replicas),
            };
            changed(args.api.client().await?.create_volume(&create).await?, &args.output)?;
        }
        VolumeCommand::List { api, output } => {
            show(&api.client().await?.volumes().await?, output.output, |found| volumes(found))?;
        }
        VolumeCommand::Show { name, api, output } => {
            show(&api.client().await?.volume(name.as_str()).await?, output.output, volume)?;
        }
        VolumeCommand::Delete { name, api } => {
            api.client().await?.delete_volume(name.as_str()).await?;
        }
        VolumeCommand::Resize(args) => {
            let resize = ResizeVolume { size_bytes: args.size };
            let client = args.api.client().await?;
            changed(client.resize_volume(args.name.as_str(), &resize).await?, &args.output)?;
        }
        VolumeCommand::Attach { name, node, read_only, api, output } => {
            let attach = AttachVolume { node: node.clone(), read_only: *read_only };
            changed(api.client().await?.attach_volume(name.as_str(), &attach).await?, output)?;
        }
        VolumeCommand::Detach { name, api, output } => {
            changed(api.client().await?.detach_volume(name.as_str()).await?, output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn changed(changed: Changed, output: &OutputArg) -> Result<(), Failure> {
    if let Some(notice) = &changed.notice {
        eprintln!("holdfast: {notice}");
    }
    show(&changed.volume, output.output, volume)
}

/// A row for each volume.
pub(super) fn volumes(volumes: &[VolumeStatus]) -> String {
    let headings =
        ["VOLUME", "SIZE", "STATE", "NODE", "REPLICAS", "EPOCH", "COMMITTED", "APPLIED", "CLIENTS"];
    let mut table = Table::new(&headings, &[1, 4, 5, 6, 7, 8]);
    for volume in volumes {
        table.row([
            volume.name.clone(),
            size::show(volume.size_bytes),
            state(volume),
            volume.attached.as_ref().map(|attached| attached.node.clone()).unwrap_or_default(),
            replicas(volume),
            volume.epoch.to_string(),
            volume.commit_lsn.to_string(),
            volume.applied_lsn.to_string(),
            volume.sessions.to_string(),
        ]);
    }
    table.to_string()
}

fn state(volume: &VolumeStatus) -> String {
    match volume.phase {
        VolumePhase::Active => volume.state.clone(),
        VolumePhase::Deleting => "deleting".to_owned(),
    }
}

/// Those that count, of those that are wanted.
fn replicas(volume: &VolumeStatus) -> String {
    let voters = volume.replicas.iter().filter(|replica| replica.voter).count();
    format!("{voters}/{}", volume.replicas_wanted)
}

/// One volume and its replicas.
fn volume(volume: &VolumeStatus) -> String {
    let mut out = String::new();
    let attached = match &volume.attached {
        None => "nowhere".to_owned(),
        Some(attached) => {
            let uri = attached.uri.as_ref().map(|uri| format!(" at {uri}")).unwrap_or_default();
            let read_only = if attached.read_only { ", read-only" } else { "" };
            format!("on {}{uri}{read_only}", attached.node)
        }
    };
    let (size, block) = (size::show(volume.size_bytes), volume.logical_block_bytes);
    // Writing to a String cannot fail.
    let _ = writeln!(out, "volume     {} ({})", volume.name, volume.id);
    let _ = writeln!(out, "size       {size} ({} bytes) in blocks of {block}", volume.size_bytes);
    let _ = writeln!(out, "state      {}", state(volume));
    let _ = writeln!(out, "attached   {attached}");
    let _ = writeln!(
        out,
        "replicas   {} count, generation {}, down to {} may serve",
        replicas(volume),
        volume.generation,
        volume.min_replicas
    );
    let _ = writeln!(
        out,
        "log        epoch {}, committed {}, applied {}",
        volume.epoch, volume.commit_lsn, volume.applied_lsn
    );
    let _ = writeln!(out, "clients    {}, {} in flight", volume.sessions, volume.in_flight);
    let headings = ["REPLICA ON", "COUNTS", "STATE", "LAG", "LAST", "APPLIED", "DISK", "ID"];
    let mut table = Table::new(&headings, &[3, 4, 5]);
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for replica in &volume.replicas {
        table.row([
            replica.node.clone(),
            if replica.voter { "yes" } else { "learner" }.to_owned(),
            replica.state.clone(),
            number(replica.lag),
            number(replica.last_lsn),
            number(replica.applied_lsn),
            replica.disk.clone(),
            replica.id.clone(),
        ]);
    }
    let _ = write!(out, "\n{table}");
    out
}
