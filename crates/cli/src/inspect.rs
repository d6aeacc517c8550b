//! `holdfast replica inspect`: what a stopped node's disk holds, and whether it
//! agrees with itself. Exit code 1 if it does not.

use crate::{
    args::{OfflineDisk, Output},
    offline,
    print::print,
};
use holdfast_replica::inspect::{Inspection, inspect};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(crate) fn run(which: &OfflineDisk, deep: bool, output: Output) -> Result<ExitCode, String> {
    let mut stopped = offline::open(which)?;
    let found = inspect(&mut *stopped.disk, deep).map_err(|error| error.to_string())?;
    print(|out| match output {
        Output::Table => table(out, &found),
        Output::Json => writeln!(out, "{:#}", as_json(&found)),
    })?;
    Ok(if found.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(out: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    write!(out, "{}", found.store)?;
    let (entries, frames) = (found.log_entries, found.log_frames);
    writeln!(out, "log: {entries} entries in {frames} frames; {}", found.log_end)?;
    if found.suspect {
        writeln!(out, "SUSPECT: the log ends below what had been durable")?;
    }
    Ok(())
}

fn as_json(found: &Inspection) -> Value {
    let store = &found.store;
    let volumes: Vec<Value> = store
        .volumes
        .iter()
        .map(|volume| {
            json!({
                "volume": volume.volume,
                "replica": volume.replica,
                "history": volume.history,
                "blocks": volume.blocks,
                "applied_lsn": volume.applied,
                "promised_epoch": volume.promised,
                "suspect": volume.suspect,
                "removing": volume.removing,
                "mapped_slots": volume.mapped_slots,
                "mapped_blocks": volume.mapped_blocks,
                "tombstones": volume.tombstones,
            })
        })
        .collect();
    json!({
        "disk": store.disk,
        "checkpoint": store.generation,
        "slots": store.slots,
        "free_slots": store.free_slots,
        "data_slots": store.data_slots,
        "metadata_slots": store.meta_slots,
        "blocks_checked": store.blocks_checked,
        "volumes": volumes,
        "faults": store.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "log": {
            "frames": found.log_frames,
            "entries": found.log_entries,
            "end": found.log_end,
            "suspect": found.suspect,
        },
    })
}
