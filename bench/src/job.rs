//! What fio is asked, and what it answers.

use holdfast_tests::{Error, Result, tools};
use serde::{Deserialize, Serialize};
use std::process::Command;

/// One kind of load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Job {
    /// How the table names it.
    pub name: String,
    /// fio's `--rw`.
    pub rw: String,
    /// fio's `--bs`.
    pub bs: String,
    /// fio's `--iodepth`.
    pub depth: u32,
}

impl Job {
    fn new(name: &str, rw: &str, bs: &str, depth: u32) -> Job {
        Job { name: name.to_owned(), rw: rw.to_owned(), bs: bs.to_owned(), depth }
    }

    /// The loads that are compared.
    #[must_use]
    pub fn all() -> Vec<Job> {
        vec![
            Job::new("4k random write QD1", "randwrite", "4k", 1),
            Job::new("4k random write QD32", "randwrite", "4k", 32),
            Job::new("4k random read QD32", "randread", "4k", 32),
            Job::new("1m write QD8", "write", "1m", 8),
        ]
    }

    fn writes(&self) -> bool {
        self.rw.contains("write")
    }

    /// Runs it for `seconds` on the first `area_bytes` of what `uri` serves.
    ///
    /// # Errors
    /// When fio fails.
    pub fn run(&self, uri: &str, area_bytes: u64, seconds: u32) -> Result<Figures> {
        let mut fio = self.fio(uri, area_bytes);
        fio.args(["--time_based", "--randrepeat=0", "--norandommap"]);
        let out = tools::succeed(fio.arg(format!("--runtime={seconds}")))?;
        Figures::parse(&out, self.writes())
    }

    fn fio(&self, uri: &str, area_bytes: u64) -> Command {
        let mut fio = Command::new("fio");
        fio.args(["--name=bench", "--ioengine=nbd", "--numjobs=1", "--output-format=json"]);
        fio.arg(format!("--uri={uri}"));
        fio.arg(format!("--rw={}", self.rw)).arg(format!("--bs={}", self.bs));
        fio.arg(format!("--iodepth={}", self.depth)).arg(format!("--size={area_bytes}"));
        fio
    }
}

/// Writes all of the area once, so that no later job meets what was never written.
///
/// # Errors
/// When fio fails.
pub fn fill(uri: &str, area_bytes: u64) -> Result<()> {
    let job = Job::new("fill", "write", "1m", 8);
    tools::succeed(&mut job.fio(uri, area_bytes)).map(drop)
}

/// What fio measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Operations a second.
    pub iops: f64,
    /// 10⁶ bytes a second.
    pub megabytes_per_s: f64,
    /// Mean completion latency, µs.
    pub mean_us: f64,
    /// Median, µs.
    pub p50_us: f64,
    /// µs.
    pub p99_us: f64,
    /// µs.
    pub p99_9_us: f64,
    /// CPU time of the server, user and system, for each operation, µs.
    pub cpu_us_per_op: f64,
    /// Operations done.
    pub operations: u64,
}

impl Figures {
    fn parse(out: &str, writes: bool) -> Result<Figures> {
        let bad = |what: &str| Error::Tool(format!("fio: {what}\n{out}"));
        // fio says first that it is connected.
        let start = out.find('{').ok_or_else(|| bad("no JSON"))?;
        let json: serde_json::Value =
            serde_json::from_str(&out[start..]).map_err(|error| bad(&error.to_string()))?;
        let side = &json["jobs"][0][if writes { "write" } else { "read" }];
        let number = |value: &serde_json::Value| value.as_f64().ok_or_else(|| bad("no number"));
        let latency = &side["clat_ns"];
        let percentile = |name: &str| number(&latency["percentile"][name]).map(|ns| ns / 1e3);
        Ok(Figures {
            iops: number(&side["iops"])?,
            megabytes_per_s: number(&side["bw_bytes"])? / 1e6,
            mean_us: number(&latency["mean"])? / 1e3,
            p50_us: percentile("50.000000")?,
            p99_us: percentile("99.000000")?,
            p99_9_us: percentile("99.900000")?,
            cpu_us_per_op: 0.0,
            operations: side["total_ios"].as_u64().ok_or_else(|| bad("no count"))?,
        })
    }

    /// The median of each figure by itself.
    ///
    /// # Panics
    /// Without samples.
    #[must_use]
    pub fn median(samples: &[Figures]) -> Figures {
        assert!(!samples.is_empty(), "a median of nothing");
        let median = |get: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(get).collect();
            values.sort_by(f64::total_cmp);
            let middle = values.len() / 2;
            match values.len() % 2 {
                0 => f64::midpoint(values[middle - 1], values[middle]),
                _ => values[middle],
            }
        };
        Figures {
            iops: median(|f| f.iops),
            megabytes_per_s: median(|f| f.megabytes_per_s),
            mean_us: median(|f| f.mean_us),
            p50_us: median(|f| f.p50_us),
            p99_us: median(|f| f.p99_us),
            p99_9_us: median(|f| f.p99_9_us),
            cpu_us_per_op: median(|f| f.cpu_us_per_op),
            operations: samples.iter().map(|f| f.operations).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_fio_says() {
        let out = r#"fio: connected to NBD server
{"jobs":[{"read":{},"write":{"iops":100.5,"bw_bytes":2000000,"total_ios":7,
"clat_ns":{"mean":5000,"percentile":{"50.000000":4000,"99.000000":9000,"99.900000":9500}}}}]}"#;
        let figures = Figures::parse(out, true).unwrap();
        assert_eq!((figures.iops, figures.megabytes_per_s, figures.operations), (100.5, 2.0, 7));
        assert_eq!((figures.p50_us, figures.p99_us, figures.p99_9_us), (4.0, 9.0, 9.5));
        assert!(Figures::parse(out, false).is_err());
        assert!(Figures::parse("no", true).is_err());
    }

    #[test]
    fn takes_the_median() {
        let of = |iops: &[f64]| {
            let samples: Vec<Figures> =
                iops.iter().map(|iops| Figures { iops: *iops, ..Figures::default() }).collect();
            Figures::median(&samples).iops
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
