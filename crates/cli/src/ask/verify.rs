//! `holdfast replica verify`

use super::show;
use crate::{
    args::{ApiArgs, Output},
    failure::{DIFFERENT, Failure, INCOMPLETE},
    table::Table,
};
use holdfast_api::types::{Verdict, VerifyReport};
use holdfast_meta::VolumeName;
use std::{fmt::Write, process::ExitCode};

/// Compares; the exit code says what came out.
pub(crate) async fn run(
    name: &VolumeName,
    api: &ApiArgs,
    output: Output,
) -> Result<ExitCode, Failure> {
    let report = api.client().await?.verify_volume(name.as_str()).await?;
    show(&report, output, table)?;
    Ok(match report.verdict {
        Verdict::Identical => ExitCode::SUCCESS,
        Verdict::Different => ExitCode::from(DIFFERENT),
        Verdict::Incomplete => ExitCode::from(INCOMPLETE),
    })
}

fn table(report: &VerifyReport) -> String {
    let mut replicas = Table::new(&["REPLICA ON", "COUNTS", "BLOCKS", "COMPARED", "ID"], &[2]);
    for replica in &report.replicas {
        replicas.row([
            replica.node.clone(),
            if replica.voter { "yes" } else { "learner" }.to_owned(),
            replica.blocks.to_string(),
            match &replica.error {
                None => "yes".to_owned(),
                Some(error) => format!("no: {error}"),
            },
            replica.id.clone(),
        ]);
    }
    let mut out = replicas.to_string();
    if !report.differences.is_empty() {
        let mut table = Table::new(&["DIFFERS ON", "SLOT", "BLOCK", "HOW"], &[1, 2]);
        for difference in &report.differences {
            table.row([
                difference.node.clone(),
                difference.slot.to_string(),
                difference.block.to_string(),
                difference.what.clone(),
            ]);
        }
        let _ = write!(out, "\n{table}");
        let more = report.differences_found.saturating_sub(report.differences.len() as u64);
        if more > 0 {
            let _ = writeln!(out, "and {more} more");
        }
    }
    let verdict = match report.verdict {
        Verdict::Identical => "identical".to_owned(),
        Verdict::Different => format!("DIFFERENT: {} found", report.differences_found),
        Verdict::Incomplete => "incomplete: not all replicas could be compared".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "\nvolume {} at LSN {}: {} slots, {} blocks compared: {verdict}",
        report.volume, report.lsn, report.slots_compared, report.blocks_compared
    );
    out
}
