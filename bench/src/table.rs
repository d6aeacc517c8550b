//! Medians and ratios for people.

use crate::compare::{JobOutcome, Outcome};
use std::fmt::Write;

/// The outcome as a Markdown table. The ratio is of a server's rate to the last one's.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let mut out = String::from(
        "| job | server | IOPS | MB/s | mean µs | p50 µs | p99 µs | p99.9 µs | CPU µs/op | ratio |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for JobOutcome { job, subjects } in &outcome.jobs {
        let last = subjects.last().map_or(0.0, |subject| subject.median.iops);
        for subject in subjects {
            let figures = &subject.median;
            let ratio = figures.iops / last;
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "| {} | {} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {ratio:.2} |",
                job.name,
                subject.name,
                figures.iops,
                figures.megabytes_per_s,
                figures.mean_us,
                figures.p50_us,
                figures.p99_us,
                figures.p99_9_us,
                figures.cpu_us_per_op,
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Plan, SubjectOutcome};
    use crate::job::{Figures, Job};

    #[test]
    fn says_how_they_compare() {
        let subject = |name, iops| SubjectOutcome {
            name,
            median: Figures { iops, ..Figures::default() },
            samples: Vec::new(),
        };
        let job = Job::all().remove(0);
        let subjects = vec![subject("holdfast", 300.0), subject("qemu-nbd", 200.0)];
        let plan = Plan { rounds: 1, seconds: 1, area_bytes: 1, holdfast_args: Vec::new() };
        let text = table(&Outcome { plan, jobs: vec![JobOutcome { job, subjects }] });
        assert!(text.lines().nth(2).unwrap().ends_with("| 1.50 |"), "{text}");
    }
}
