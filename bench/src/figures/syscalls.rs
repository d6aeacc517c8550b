//! Counts system calls of running processes, by `perf` and the kernel's tracepoint.
//!
//! Counting costs time in every call, so what is counted is not what is timed.

use crate::sampling::Process;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};

const TRACEPOINT: &str = "raw_syscalls:sys_enter";

/// A count that goes on.
#[derive(Debug)]
pub struct Counting {
    perf: Child,
    /// Ends the count when closed.
    stdin: Option<ChildStdin>,
    stderr: ChildStderr,
}

impl Counting {
    /// Starts to count what `processes` call; it has begun when this returns.
    ///
    /// # Errors
    /// In words for the report, when it cannot be counted here.
    pub fn start(processes: &[Process]) -> Result<Counting, String> {
        if processes.is_empty() {
            return Err("there is no server process".to_owned());
        }
        let ids: Vec<String> = processes.iter().map(|process| process.id.to_string()).collect();
        let mut perf = Command::new("perf");
        // perf starts its command once it counts, and counts until the command ends.
        perf.args(["stat", "-x", ",", "-e", TRACEPOINT, "-p", &ids.join(","), "--", "cat"]);
        perf.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut perf = perf.env("LC_ALL", "C").spawn().map_err(|e| format!("perf: {e}"))?;
        let pipes = (perf.stdin.take(), perf.stdout.take(), perf.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err("perf: no pipes".to_owned());
        };
        let mut line = String::new();
        let begun = stdin.write_all(b"\n").is_ok()
            && BufReader::new(stdout).read_line(&mut line).is_ok_and(|length| length > 0);
        let counting = Counting { perf, stdin: Some(stdin), stderr };
        if begun { Ok(counting) } else { Err(counting.why()) }
    }

    /// How many there were.
    ///
    /// # Errors
    /// In words for the report, when perf does not say.
    pub fn end(mut self) -> Result<u64, String> {
        self.stdin = None;
        let said = self.said();
        count(&said).ok_or_else(|| reason(&said))
    }

    fn why(mut self) -> String {
        self.stdin = None;
        reason(&self.said())
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        // What cannot be read is missing from the text, and the count with it.
        let _ = self.stderr.read_to_string(&mut said);
        let _ = self.perf.wait();
        said
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.stdin = None;
        // Both fail only when it is gone already.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

/// The sum over lines such as `1234,,raw_syscalls:sys_enter,…`; perf says `<not counted>` when there were none.
fn count(said: &str) -> Option<u64> {
    let mut counts = said.lines().filter(|line| line.contains(TRACEPOINT)).filter_map(|line| {
        match line.split(',').next()? {
            "<not counted>" => Some(0),
            number => number.parse().ok(),
        }
    });
    let first: u64 = counts.next()?;
    Some(first + counts.sum::<u64>())
}

fn reason(said: &str) -> String {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    format!("perf cannot count: {}", line.unwrap_or("it says nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_perf_says() {
        assert_eq!(count("12,,raw_syscalls:sys_enter,100,100.00,,\n"), Some(12));
        assert_eq!(count("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), Some(0));
        assert_eq!(count("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(count("event syntax error\n"), None);
        assert_eq!(reason("\n event syntax error\n"), "perf cannot count: event syntax error");
    }

    #[test]
    fn says_why_it_does_not_count() {
        assert!(Counting::start(&[]).unwrap_err().contains("no server"));
        assert!(Counting::start(&[Process::new("none", u32::MAX)]).is_err());
    }
}
