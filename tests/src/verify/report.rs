//! What the verifying client did and what it found.

use super::history::Violation;
use crate::nbd::wire;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Findings that are kept word for word; all are counted.
const KEPT_MAX: usize = 20;

/// Counters and findings of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Reads answered and checked.
    pub reads: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Discards acknowledged.
    pub discards: u64,
    /// Write-zeroes acknowledged.
    pub zeroes: u64,
    /// Flushes acknowledged.
    pub flushes: u64,
    /// Operations that lost their connection before the answer.
    pub unanswered: u64,
    /// Operations refused because there was no space, while that was allowed.
    pub full: u64,
    /// Connections refused by a node that did not serve the volume then.
    pub refused_connections: u64,
    /// Sectors compared with their history.
    pub sectors_checked: u64,
    /// Times that every sector of the volume was read and checked.
    pub sweeps: u64,
    /// Times the server was killed while serving.
    pub crashes: u64,
    /// Times the server was killed before it served.
    pub crashes_starting: u64,
    /// Times the server was stopped by a signal it obeys.
    pub stops: u64,
    /// Longest time an operation waited for its answer.
    pub longest_operation: Duration,
    /// Longest time from a kill or stop to the first answer after it.
    pub longest_outage: Duration,
    /// Longest time under load in which nothing was answered, since it was last set to zero.
    pub longest_silence: Duration,
    /// Reads that returned what they must not, in sectors.
    pub violations: u64,
    /// Error replies, broken protocol, operations without an answer.
    pub errors: u64,
    /// The first of both kinds, in words.
    pub findings: Vec<String>,
}

impl Report {
    /// Operations answered and verified.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.reads + self.writes + self.discards + self.zeroes + self.flushes
    }

    /// Counts an answered operation.
    pub fn answered(&mut self, command: u16, took: Duration) {
        let counter = match command {
            wire::CMD_READ => &mut self.reads,
            wire::CMD_WRITE => &mut self.writes,
            wire::CMD_TRIM => &mut self.discards,
            wire::CMD_WRITE_ZEROES => &mut self.zeroes,
            _ => &mut self.flushes,
        };
        *counter += 1;
        self.longest_operation = self.longest_operation.max(took);
    }

    /// Notes an error.
    pub fn error(&mut self, what: impl fmt::Display) {
        self.errors += 1;
        self.keep(format!("error: {what}"));
    }

    /// Notes the wrong sectors of one read.
    pub fn violations(&mut self, violations: &[Violation], context: &str) {
        self.violations += violations.len() as u64;
        if let Some(Violation { sector, found, allowed }) = violations.first() {
            self.keep(format!(
                "violation: sector {sector} holds {found:?}, allowed {allowed:?} \
                 ({context}, {} such sectors, after {} kills and {} stops)",
                violations.len(),
                self.crashes + self.crashes_starting,
                self.stops
            ));
        }
    }

    fn keep(&mut self, finding: String) {
        if self.findings.len() < KEPT_MAX {
            eprintln!("{finding}");
            self.findings.push(finding);
        }
    }

    /// Whether nothing wrong was found and at least `operations` were verified.
    ///
    /// # Errors
    /// The report in words, with the reason first.
    pub fn verdict(&self, operations: u64) -> Result<(), String> {
        if self.violations > 0 || self.errors > 0 {
            return Err(format!("FAILED\n{self}"));
        }
        if self.operations() < operations {
            return Err(format!("FAILED: fewer than {operations} operations\n{self}"));
        }
        Ok(())
    }

    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "operations": self.operations(),
            "reads": self.reads,
            "writes": self.writes,
            "discards": self.discards,
            "zeroes": self.zeroes,
            "flushes": self.flushes,
            "unanswered": self.unanswered,
            "full": self.full,
            "refused_connections": self.refused_connections,
            "sectors_checked": self.sectors_checked,
            "sweeps": self.sweeps,
            "crashes": self.crashes,
            "crashes_starting": self.crashes_starting,
            "stops": self.stops,
            "longest_operation_ms": self.longest_operation.as_millis() as u64,
            "longest_outage_ms": self.longest_outage.as_millis() as u64,
            "violations": self.violations,
            "errors": self.errors,
            "findings": self.findings,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} operations verified: {} reads, {} writes, {} discards, {} zeroes, {} flushes",
            self.operations(),
            self.reads,
            self.writes,
            self.discards,
            self.zeroes,
            self.flushes
        )?;
        writeln!(
            f,
            "{} sectors checked, {} whole sweeps, {} operations in flight at a crash, {} refused for \
             space",
            self.sectors_checked, self.sweeps, self.unanswered, self.full
        )?;
        writeln!(
            f,
            "{} kills while serving, {} while starting, {} clean stops",
            self.crashes, self.crashes_starting, self.stops
        )?;
        writeln!(
            f,
            "longest operation {} ms, longest outage {} ms",
            self.longest_operation.as_millis(),
            self.longest_outage.as_millis()
        )?;
        write!(f, "{} sectors wrong, {} errors", self.violations, self.errors)?;
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}
