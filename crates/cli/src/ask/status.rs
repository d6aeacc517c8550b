//! `holdfast status`

use super::{disk::disks, node::nodes, show, volume::volumes};
use crate::{
    args::{ApiArgs, Output},
    failure::Failure,
};
use holdfast_api::types::Status;
use std::{fmt::Write, process::ExitCode};

/// Asks for everything and shows it.
pub(crate) async fn run(api: &ApiArgs, output: Output) -> Result<ExitCode, Failure> {
    let status = api.client().await?.status().await?;
    show(&status, output, table)?;
    Ok(ExitCode::SUCCESS)
}

fn table(status: &Status) -> String {
    let cluster = &status.cluster;
    let mut out = match &cluster.id {
        Some(id) => format!("cluster {id}"),
        None => "no cluster yet".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = match &cluster.leader {
        Some(leader) => writeln!(out, ", led by {leader} (term {})", cluster.term),
        None => writeln!(out, ", without a leader (term {})", cluster.term),
    };
    let _ = writeln!(out, "asked {} ({}), holdfast {}", status.name, status.node, status.version);
    for listener in &status.listeners {
        let _ = writeln!(out, "listening at {listener}");
    }
    if let Some(stale) = &cluster.stale {
        let _ = writeln!(out, "MAY BE OLD: {stale}");
    }
    let _ = write!(out, "\n{}", nodes(&status.nodes));
    let _ = write!(out, "\n{}", disks(&status.disks));
    for disk in &status.disks {
        let Some(recovery) = &disk.recovery else { continue };
        let _ = writeln!(
            out,
            "{} on {}: last start read {} of log in {} ms, {} records: {}",
            disk.path,
            disk.node,
            crate::size::show(recovery.wal_bytes),
            recovery.took_ms,
            recovery.records,
            recovery.end
        );
        if recovery.suspect {
            let _ = writeln!(out, "  SUSPECT: its log may have lost what it acknowledged");
        }
    }
    let _ = write!(out, "\n{}", volumes(&status.volumes));
    out
}
