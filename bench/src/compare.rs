//! The rounds: every job on every server in turn, in an order that alternates.

use crate::job::{Figures, Job, fill};
use crate::subject::Subject;
use holdfast_tests::Result;
use serde::Serialize;
use std::path::Path;

/// How to compare.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Rounds; the table has their medians.
    pub rounds: u32,
    /// Seconds of each job in each round.
    pub seconds: u32,
    /// Bytes that the jobs touch, written once before.
    pub area_bytes: u64,
    /// Further arguments for Holdfast.
    pub holdfast_args: Vec<String>,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// How.
    pub plan: Plan,
    /// In the order of the jobs.
    pub jobs: Vec<JobOutcome>,
}

/// One job on every server.
#[derive(Clone, Debug, Serialize)]
pub struct JobOutcome {
    /// The job.
    pub job: Job,
    /// qemu-nbd last.
    pub subjects: Vec<SubjectOutcome>,
}

/// One job on one server.
#[derive(Clone, Debug, Serialize)]
pub struct SubjectOutcome {
    /// The server.
    pub name: &'static str,
    /// Of all rounds.
    pub median: Figures,
    /// Each round.
    pub samples: Vec<Figures>,
}

/// Carries the plan out below `dir`, and tells `progress` of every step.
///
/// # Errors
/// When a server or fio fails.
pub fn compare(dir: &Path, plan: Plan, mut progress: impl FnMut(&str)) -> Result<Outcome> {
    let subjects = [
        Subject::cluster(dir, plan.area_bytes, &plan.holdfast_args)?,
        Subject::holdfast(dir, plan.area_bytes, &plan.holdfast_args)?,
        Subject::qemu_nbd(dir, plan.area_bytes)?,
    ];
    for subject in &subjects {
        progress(&format!("writing the area of {}", subject.name));
        fill(&subject.uri, plan.area_bytes)?;
        subject.settle()?;
    }
    let jobs = Job::all();
    let mut samples = vec![vec![Vec::new(); subjects.len()]; jobs.len()];
    for round in 0..plan.rounds as usize {
        for (job, samples) in jobs.iter().zip(&mut samples) {
            for turn in 0..subjects.len() {
                // Who goes first alternates.
                let index = (round + turn) % subjects.len();
                let subject = &subjects[index];
                let before = subject.cpu()?;
                let mut figures = job.run(&subject.uri, plan.area_bytes, plan.seconds)?;
                subject.settle()?;
                // What it did in the background afterwards is counted with it.
                let cpu = subject.cpu()?.saturating_sub(before);
                figures.cpu_us_per_op = cpu.as_secs_f64() * 1e6 / figures.operations.max(1) as f64;
                progress(&format!(
                    "round {}: {:<22} {:<9} {:>8.0} IOPS {:>8.1} MB/s",
                    round + 1,
                    job.name,
                    subject.name,
                    figures.iops,
                    figures.megabytes_per_s
                ));
                samples[index].push(figures);
            }
        }
    }
    let outcomes = jobs.into_iter().zip(samples).map(|(job, samples)| JobOutcome {
        job,
        subjects: subjects
            .iter()
            .zip(samples)
            .map(|(subject, samples)| SubjectOutcome {
                name: subject.name,
                median: Figures::median(&samples),
                samples,
            })
            .collect(),
    });
    Ok(Outcome { jobs: outcomes.collect(), plan })
}
