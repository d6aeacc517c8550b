//! What the kernel says of a server's processes: CPU time, bytes written, memory.

use holdfast_tests::{Error, Result};
use std::fs;
use std::time::Duration;

/// A process of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// What it is there for: `node1`.
    pub name: String,
    /// Its number.
    pub id: u32,
}

impl Process {
    /// One with its name.
    #[must_use]
    pub fn new(name: impl Into<String>, id: u32) -> Process {
        Process { name: name.into(), id }
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.id);
        fs::read_to_string(&path).map_err(Error::io(format!("{} of {}", path, self.name)))
    }

    /// What it used so far.
    ///
    /// # Errors
    /// When it is gone, or the system does not say.
    pub fn sample(&self) -> Result<Sample> {
        Ok(Sample {
            cpu: cpu(&self.read("stat")?, OWN),
            written_bytes: self.written_bytes()?,
            // In KiB, proc_pid_status(5).
            peak_rss_bytes: field(&self.read("status")?, "VmHWM:")? << 10,
        })
    }

    /// Bytes that it had the disks write so far, proc_pid_io(5).
    ///
    /// # Errors
    /// When it is gone, or the system does not say.
    pub fn written_bytes(&self) -> Result<u64> {
        field(&self.read("io")?, "write_bytes:")
    }

    /// Has the peak of its memory start again from what it has now. Where the system does
    /// not allow that, the peak is that of its life so far.
    pub fn forget_peak(&self) {
        /// proc_pid_clear_refs(5).
        const RESET_PEAK: &str = "5";
        let _ = fs::write(format!("/proc/{}/clear_refs", self.id), RESET_PEAK);
    }
}

/// What a process used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// User and system time.
    pub cpu: Duration,
    /// Bytes that went to disks.
    pub written_bytes: u64,
    /// The most memory it had since the peak was forgotten.
    pub peak_rss_bytes: u64,
}

/// CPU time, user and system, of all children of this process that have ended and were
/// waited for, and of theirs.
///
/// # Errors
/// When the system does not say.
pub fn cpu_of_ended_children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").map_err(Error::io("/proc/self/stat"))?;
    Ok(cpu(&stat, CHILDREN))
}

/// Fields of proc_pid_stat(5) behind the name, which may contain anything but ends in ')':
/// `utime` is 14.
const OWN: usize = 14 - 3;
/// `cutime`.
const CHILDREN: usize = 16 - 3;

fn cpu(stat: &str, first: usize) -> Duration {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(first).take(2).filter_map(|field| field.parse::<u64>().ok());
    let ticks: u64 = ticks.sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn field(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Error::Tool(format!("no {name} in:\n{text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_process() {
        let process = Process::new("test", std::process::id());
        let sample = process.sample().unwrap();
        assert!(sample.peak_rss_bytes > 1 << 20, "{sample:?}");
        assert!(Process::new("none", u32::MAX).sample().is_err());
    }

    #[test]
    fn finds_times_behind_any_name() {
        let hz = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 {hz} {} {} 0 9 9", 2 * hz, 5 * hz);
        assert_eq!(cpu(&stat, OWN), Duration::from_secs(3));
        assert_eq!(cpu(&stat, CHILDREN), Duration::from_secs(5));
    }
}
