//! `holdfast disk list|add|remove`

use super::show;
use crate::{args::DiskCommand, failure::Failure, size, table::Table};
use holdfast_api::types::{AddDisk, DiskStatus};
use std::{path::absolute, process::ExitCode, slice};

/// Asks, and shows the disks.
pub(crate) async fn run(command: &DiskCommand) -> Result<ExitCode, Failure> {
    match command {
        DiskCommand::List { api, output } => {
            show(&api.client().await?.disks().await?, output.output, |found| disks(found))?;
        }
        DiskCommand::Add { path, capacity, api, output } => {
            // The node has a working directory of its own.
            let path = absolute(path)
                .map_err(|error| format!("{} is no path: {error}", path.display()))?;
            let Some(path) = path.to_str() else {
                return Err(format!("{} is no text that can be sent", path.display()).into());
            };
            let add = AddDisk { path: path.to_owned(), capacity_bytes: *capacity };
            let added = api.client().await?.add_disk(&add).await?;
            show(&added, output.output, |added| disks(slice::from_ref(added)))?;
        }
        DiskCommand::Remove { disk, api } => api.client().await?.remove_disk(disk).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each disk.
pub(super) fn disks(disks: &[DiskStatus]) -> String {
    let headings = ["NODE", "PATH", "STATE", "FREE", "CAPACITY", "REPLICAS", "DISK I/O", "ID"];
    let mut table = Table::new(&headings, &[3, 4, 5]);
    for disk in disks {
        let state = match (&disk.failure, &disk.backend) {
            (Some(_), _) => "FAILED",
            (None, Some(_)) => "healthy",
            (None, None) => "unknown",
        };
        table.row([
            disk.node.clone(),
            disk.path.clone(),
            state.to_owned(),
            disk.free_bytes.map(size::show).unwrap_or_default(),
            size::show(disk.capacity_bytes),
            disk.replicas.to_string(),
            disk.backend.clone().unwrap_or_default(),
            disk.id.clone(),
        ]);
    }
    let mut text = table.to_string();
    for disk in disks {
        if let Some(failure) = &disk.failure {
            text += &format!("{} on {}: {failure}\n", disk.path, disk.node);
        }
    }
    text
}
