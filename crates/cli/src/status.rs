//! `holdfast status`: asks a running node.

use crate::{args::Output, print::print};
use bytesize::ByteSize;
use holdfast_api::{SOCKET_NAME, client, types::Status};
use std::{fmt::Write, path::Path, process::ExitCode};

pub(crate) async fn run(data_dir: &Path, output: Output) -> Result<ExitCode, String> {
    let status =
        client::status(&data_dir.join(SOCKET_NAME)).await.map_err(|error| error.to_string())?;
    let text = match output {
        Output::Json => {
            let json = serde_json::to_string_pretty(&status).map_err(|error| error.to_string())?;
            json + "\n"
        }
        Output::Table => table(&status),
    };
    print(|out| out.write_all(text.as_bytes()))?;
    Ok(ExitCode::SUCCESS)
}

fn table(status: &Status) -> String {
    let mut out = format!("node {}, holdfast {}\n", status.node, status.version);
    // Writing to a String cannot fail.
    for listener in &status.listeners {
        let _ = writeln!(out, "listening at {listener}");
    }
    for disk in &status.disks {
        let health = disk.failure.as_deref().unwrap_or("healthy");
        let free = ByteSize(disk.free_bytes);
        let _ = writeln!(out, "\ndisk {} ({})", disk.path, disk.id);
        let _ = writeln!(out, "  state     {health}, {free} ready for data");
        let _ = writeln!(out, "  I/O       {}", disk.backend);
        let recovery = &disk.recovery;
        let _ = writeln!(
            out,
            "  last start read {} of log in {} ms, {} records: {}",
            ByteSize(recovery.wal_bytes),
            recovery.took_ms,
            recovery.records,
            recovery.end
        );
        if recovery.suspect {
            let _ = writeln!(out, "  SUSPECT: its log may have lost what it acknowledged");
        }
    }
    let _ = writeln!(
        out,
        "\n{:<24} {:>10} {:>6} {:<10} {:>6} {:>12} {:>12} {:>8}",
        "VOLUME", "SIZE", "BLOCK", "STATE", "EPOCH", "COMMITTED", "APPLIED", "CLIENTS"
    );
    for volume in &status.volumes {
        let _ = writeln!(
            out,
            "{:<24} {:>10} {:>6} {:<10} {:>6} {:>12} {:>12} {:>8}",
            volume.name,
            ByteSize(volume.size_bytes).to_string(),
            volume.logical_block_bytes,
            volume.state,
            volume.epoch,
            volume.commit_lsn,
            volume.applied_lsn,
            volume.sessions
        );
    }
    out
}
