//! Runs fio on a server's volumes and reads what it measured.
//!
//! fio ends after a time, or after a number of bytes, but not after both. A job that writes
//! is therefore started with the longest time that it may take, says every second how far
//! it is, and is interrupted when it is far enough; fio then answers for what it did.

use crate::outcome::{Figures, Job, Latency};
use crate::sampling::cpu_of_ended_children;
use crate::subject::Volume;
use holdfast_tests::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// The first second that fio speaks of is a little shorter.
const STATUS_SLACK_S: f64 = 0.25;
/// fio does not bear a signal while it ends, and so close to its end it may be ending.
const ENDING_S: f64 = 1.5;
/// Lines of fio's that may wait to be read.
const LINES_WAITING: usize = 1 << 10;
/// A server that does not answer keeps fio from ending; then it is killed.
const END_WITHIN: Duration = Duration::from_secs(60);
/// What fio answers when it was interrupted and all went well.
const INTERRUPTED: i32 = 128;

/// How long a job goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// Once over every volume.
    Once,
    /// For a time, and until enough was written.
    Until {
        /// Seconds, at least.
        seconds: f64,
        /// Bytes written by the client, at least.
        written_bytes: u64,
        /// Seconds, at most.
        seconds_max: f64,
    },
}

impl Length {
    /// For `seconds` and no longer.
    #[must_use]
    pub fn seconds(seconds: f64) -> Length {
        Length::Until { seconds, written_bytes: 0, seconds_max: seconds }
    }

    /// Whether fio is to be asked how far it is.
    fn is_watched(self) -> bool {
        matches!(self, Length::Until { written_bytes: 1.., .. })
    }

    /// Whether fio has done enough and would go on.
    fn is_over(self, job: &Value) -> bool {
        let Length::Until { seconds, written_bytes, seconds_max } = self else { return false };
        let ran_s = job["mixed"]["runtime"].as_f64().unwrap_or(0.0) / 1e3;
        let written = job["write"]["io_bytes"].as_u64().unwrap_or(0);
        let is_enough = ran_s + STATUS_SLACK_S >= seconds && written >= written_bytes;
        self.is_watched() && is_enough && ran_s + ENDING_S < seconds_max
    }
}

/// Runs `job` on `volumes`, each of `volume_bytes`. The figures of the server's processes are left out.
///
/// # Errors
/// When fio fails, or a server does not answer it.
pub fn run(job: &Job, volumes: &[Volume], volume_bytes: u64, length: Length) -> Result<Figures> {
    let mut fio = Command::new("fio");
    fio.args(["--output-format=json", "--group_reporting"]);
    if length.is_watched() {
        fio.arg("--status-interval=1");
    }
    for (index, volume) in volumes.iter().enumerate() {
        fio.arg(format!("--name=volume{index}")).args(&volume.fio_args);
        fio.args(arguments(job, volume_bytes, length));
        fio.envs(volume.environment.iter().map(|(name, value)| (name, value)));
    }
    let before = cpu_of_ended_children()?;
    let last = answer(fio, length)?;
    let cpu = cpu_of_ended_children()?.saturating_sub(before);
    let mut figures = read(&last, job)?;
    figures.client_cpu_us_per_op = cpu.as_secs_f64() * 1e6 / figures.operations.max(1) as f64;
    Ok(figures)
}

fn arguments(job: &Job, volume_bytes: u64, length: Length) -> Vec<String> {
    let part = volume_bytes / u64::from(job.connections);
    let mut args = vec![
        format!("--rw={}", job.rw),
        format!("--bs={}", job.block_bytes),
        format!("--iodepth={}", job.depth),
        format!("--numjobs={}", job.connections),
        format!("--size={part}"),
        format!("--offset_increment={part}"),
        "--randrepeat=0".to_owned(),
        "--norandommap".to_owned(),
        "--unified_rw_reporting=both".to_owned(),
        // From submission on: an engine may spend time there.
        "--lat_percentiles=1".to_owned(),
        "--clat_percentiles=0".to_owned(),
        "--percentile_list=50:99:99.9".to_owned(),
    ];
    if let Some(reads) = job.reads_percent {
        args.push(format!("--rwmixread={reads}"));
    }
    if job.fsync_every > 0 {
        args.push(format!("--fsync={}", job.fsync_every));
    }
    if let Length::Until { seconds_max, .. } = length {
        args.push("--time_based".to_owned());
        args.push(format!("--runtime={}ms", (seconds_max * 1e3).ceil()));
    }
    args
}

/// The last that fio says of itself, having ended it in time.
fn answer(mut fio: Command, length: Length) -> Result<Value> {
    fio.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = fio.spawn().map_err(Error::io("run fio"))?;
    let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::Tool("fio: no pipes".to_owned()));
    };
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        // What cannot be read is missing from a message.
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let (sender, lines) = sync_channel(LINES_WAITING);
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(std::result::Result::ok);
        // Nobody listens once fio was killed.
        lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    let last = follow(&child, &lines, length);
    if last.is_err() {
        // It fails only when it is gone already.
        let _ = child.kill();
    }
    let status = child.wait().map_err(Error::io("wait for fio"))?;
    let (last, errors) = (last?, errors.join().unwrap_or_default());
    match (status.code(), last) {
        (Some(0 | INTERRUPTED), Some(last)) if last["jobs"][0]["error"] == 0 => Ok(last),
        (_, last) => {
            let last = last.map(|last| last["jobs"][0]["error"].to_string());
            let last = last.unwrap_or_else(|| "nothing".to_owned());
            Err(Error::Tool(format!("{fio:?}: {status}\njob error: {last}\n{errors}")))
        }
    }
}

/// Reads document after document, and interrupts fio when one says that it has done enough.
fn follow(child: &Child, lines: &Receiver<String>, length: Length) -> Result<Option<Value>> {
    let mut deadline = match length {
        Length::Once => None,
        Length::Until { seconds_max, .. } => {
            Some(Instant::now() + Duration::from_secs_f64(seconds_max) + END_WITHIN)
        }
    };
    let (mut last, mut text, mut interrupted) = (None, String::new(), false);
    loop {
        let line = match deadline {
            None => lines.recv().ok(),
            Some(at) => {
                use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
                match lines.recv_timeout(at.saturating_duration_since(Instant::now())) {
                    Ok(line) => Some(line),
                    Err(Disconnected) => None,
                    Err(Timeout) => return Err(Error::Server("fio gets no answer".to_owned())),
                }
            }
        };
        let Some(line) = line else { return Ok(last) };
        // Documents begin and end in the first column; between them fio says what it likes.
        if line == "{" {
            text.clear();
        }
        text.push_str(&line);
        if line != "}" {
            continue;
        }
        let document: Value = serde_json::from_str(&text)
            .map_err(|error| Error::Tool(format!("fio: {error} in:\n{text}")))?;
        if !interrupted && length.is_over(&document["jobs"][0]) {
            interrupted = true;
            deadline = Some(Instant::now() + END_WITHIN);
            // It may have ended by itself just now.
            let _ = kill_process(Pid::from_child(child), Signal::INT);
        }
        last = Some(document);
    }
}

fn read(document: &Value, job: &Job) -> Result<Figures> {
    let measured = &document["jobs"][0];
    let bad = |what: &str| Error::Tool(format!("fio: no {what} in:\n{measured:#}"));
    let number = |value: &Value, what: &str| value.as_f64().ok_or_else(|| bad(what));
    let count = |value: &Value, what: &str| value.as_u64().ok_or_else(|| bad(what));
    let latency = |side: &Value| -> Result<Latency> {
        let us = |value: &Value| Ok(number(value, "latency")? / 1e3);
        let latency = &side["lat_ns"];
        let percentile = |name: &str| us(&latency["percentile"][name]);
        Ok(Latency {
            mean_us: us(&latency["mean"])?,
            p50_us: percentile("50.000000")?,
            p99_us: percentile("99.000000")?,
            p99_9_us: percentile("99.900000")?,
        })
    };
    let all = &measured["mixed"];
    let operations = count(&all["total_ios"], "count")?;
    if operations == 0 {
        return Err(bad("operation"));
    }
    Ok(Figures {
        seconds: number(&all["runtime"], "runtime")? / 1e3,
        operations,
        written_bytes: count(&measured["write"]["io_bytes"], "bytes")?,
        iops: number(&all["iops"], "rate")?,
        megabytes_per_s: number(&all["bw_bytes"], "rate")? / 1e6,
        latency: latency(all)?,
        flush: (job.fsync_every > 0).then(|| latency(&measured["sync"])).transpose()?,
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job;

    fn document() -> Value {
        let lat =
            r#"{"mean":5000,"percentile":{"50.000000":4000,"99.000000":9000,"99.900000":9500}}"#;
        let text = format!(
            r#"{{"jobs":[{{"error":0,"write":{{"io_bytes":8192}},"sync":{{"lat_ns":{lat}}},
            "mixed":{{"runtime":2000,"iops":100.5,"bw_bytes":2000000,"total_ios":7,"lat_ns":{lat}}}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn reads_what_fio_says() {
        let jobs = job::all();
        let flushes = jobs.iter().find(|job| job.fsync_every > 0).unwrap();
        let figures = read(&document(), flushes).unwrap();
        assert_eq!((figures.iops, figures.megabytes_per_s, figures.operations), (100.5, 2.0, 7));
        assert_eq!((figures.seconds, figures.written_bytes), (2.0, 8192));
        let latency = figures.latency;
        assert_eq!((latency.p50_us, latency.p99_us, latency.p99_9_us), (4.0, 9.0, 9.5));
        assert_eq!(figures.flush, Some(latency));
        assert!(read(&Value::Null, flushes).is_err());
        assert_eq!(read(&document(), &jobs[0]).unwrap().flush, None);
    }

    #[test]
    fn goes_on_until_both_are_reached() {
        let job = &document()["jobs"][0];
        let until = |seconds, written_bytes, seconds_max| Length::Until {
            seconds,
            written_bytes,
            seconds_max,
        };
        let length = |seconds, written_bytes| until(seconds, written_bytes, 9.0);
        assert!(length(2.0, 8192).is_over(job));
        assert!(!length(2.0, 8193).is_over(job));
        assert!(!length(3.0, 8192).is_over(job));
        // It ends by itself.
        assert!(!until(2.0, 8192, 2.0).is_over(job));
        assert!(!Length::seconds(2.0).is_over(job));
    }

    #[test]
    fn connections_share_the_volume() {
        let jobs = job::all();
        let many = jobs.iter().find(|job| job.connections == 4).unwrap();
        let args = arguments(many, 1 << 20, Length::seconds(0.3));
        for arg in ["--size=262144", "--offset_increment=262144", "--numjobs=4", "--runtime=300ms"]
        {
            assert!(args.iter().any(|other| other == arg), "{arg} in {args:?}");
        }
    }
}
