//! `holdfast wal dump`: every frame and record of a stopped node's log.

use crate::{
    args::{OfflineDisk, Output},
    offline,
    print::print,
};
use holdfast_replica::{Meta, inspect::read_log};
use holdfast_wal::{Dump, DumpEntry, DumpFrame};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(crate) fn dump(which: &OfflineDisk, output: Output) -> Result<ExitCode, String> {
    let mut stopped = offline::open(which)?;
    let log = read_log(&mut *stopped.disk).map_err(|error| error.to_string())?;
    print(|out| match output {
        Output::Table => print_table(out, &log),
        Output::Json => print_json(out, &log),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn describe(entry: &DumpEntry) -> String {
    match Meta::decode(&entry.meta) {
        Ok(meta) => meta.to_string(),
        Err(error) => format!("not understood: {error}"),
    }
}

fn print_table(out: &mut dyn Write, log: &Dump) -> io::Result<()> {
    let show = |out: &mut dyn Write, frame: &DumpFrame| {
        writeln!(out, "{frame}")?;
        frame.entries.iter().try_for_each(|entry| {
            writeln!(out, "    {} (payload {} bytes)", describe(entry), entry.payload_bytes)
        })
    };
    writeln!(out, "log {} from {}", log.stream, log.start.position)?;
    log.frames.iter().try_for_each(|frame| show(out, frame))?;
    writeln!(out, "ends at {}: {}; greatest durable mark {}", log.end, log.finding, log.mark)?;
    if log.mark > log.end {
        writeln!(out, "DAMAGED: something below the durable mark is missing")?;
    }
    if !log.behind.is_empty() {
        writeln!(out, "intact frames behind the end, not part of the log:")?;
        log.behind.iter().try_for_each(|frame| show(out, frame))?;
    }
    Ok(())
}

fn print_json(out: &mut dyn Write, log: &Dump) -> io::Result<()> {
    let object = |frame: &DumpFrame, in_log: bool| -> Value {
        let entries: Vec<Value> = frame
            .entries
            .iter()
            .map(|entry| json!({ "what": describe(entry), "payload_bytes": entry.payload_bytes }))
            .collect();
        json!({
            "position": frame.position.to_string(),
            "kind": frame.kind.to_string(),
            "incarnation": frame.incarnation,
            "mark": frame.mark.to_string(),
            "in_log": in_log,
            "entries": entries,
        })
    };
    for frame in &log.frames {
        writeln!(out, "{}", object(frame, true))?;
    }
    for frame in &log.behind {
        writeln!(out, "{}", object(frame, false))?;
    }
    let end = json!({
        "end": log.end.to_string(),
        "finding": log.finding.to_string(),
        "mark": log.mark.to_string(),
        "damaged": log.mark > log.end,
    });
    writeln!(out, "{end}")
}
