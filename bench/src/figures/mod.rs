//! One job on one server, measured: what fio says, and what the server's processes used.
//!
//! What a server does in the background afterwards is counted with the job, and is over
//! before the next job starts.

pub mod fio;
pub mod syscalls;

use crate::outcome::{Figures, Job, Latency, ProcessFigures};
use crate::sampling::{Process, Sample};
use crate::subject::Subject;
use fio::Length;
use holdfast_tests::{Error, Result};
use std::time::{Duration, Instant};
use syscalls::Counting;

/// Processes that write nothing for so long have written all.
const QUIET: Duration = Duration::from_millis(200);
/// Most that is waited for that.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// Runs `job` on `subject`. With `counts`, its system calls are counted meanwhile, and when
/// that fails, the second value says why.
///
/// # Errors
/// When fio or the server fails.
pub fn measure(
    subject: &dyn Subject,
    job: &Job,
    volume_bytes: u64,
    length: Length,
    counts: bool,
) -> Result<(Figures, Option<String>)> {
    let processes = subject.processes()?;
    processes.iter().for_each(Process::forget_peak);
    let before = sample(&processes)?;
    let counting = counts.then(|| Counting::start(&processes));
    let mut figures = fio::run(job, subject.volumes(), volume_bytes, length)?;
    subject.settle()?;
    if figures.written_bytes > 0 {
        wait_quiet(&processes)?;
    }
    let mut why_not = None;
    match counting.map(|counting| counting.and_then(Counting::end)) {
        None => {}
        Some(Ok(calls)) => {
            figures.syscalls_per_op = Some(calls as f64 / figures.operations as f64);
        }
        Some(Err(reason)) => why_not = Some(reason),
    }
    account(&mut figures, &processes, &before, &sample(&processes)?);
    Ok((figures, why_not))
}

fn sample(processes: &[Process]) -> Result<Vec<Sample>> {
    processes.iter().map(Process::sample).collect()
}

/// Waits until the processes write no more.
fn wait_quiet(processes: &[Process]) -> Result<()> {
    let written = || processes.iter().map(Process::written_bytes).sum::<Result<u64>>();
    let deadline = Instant::now() + QUIET_WITHIN;
    let mut last = written()?;
    loop {
        std::thread::sleep(QUIET);
        let now = written()?;
        if now == last || processes.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::Server("it does not cease to write".to_owned()));
        }
        last = now;
    }
}

/// Adds what the processes used from `before` to `after`.
fn account(figures: &mut Figures, processes: &[Process], before: &[Sample], after: &[Sample]) {
    let written_bytes = figures.written_bytes as f64;
    let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / figures.operations as f64;
    let used = processes.iter().zip(before.iter().zip(after));
    figures.processes = used
        .map(|(process, (before, after))| ProcessFigures {
            name: process.name.clone(),
            cpu_us_per_op: per_op(after.cpu.saturating_sub(before.cpu)),
            written_per_byte: (written_bytes > 0.0)
                .then(|| (after.written_bytes - before.written_bytes) as f64 / written_bytes),
            peak_rss_bytes: after.peak_rss_bytes,
        })
        .collect();
    if !processes.is_empty() {
        let all = &figures.processes;
        figures.cpu_us_per_op = Some(all.iter().map(|process| process.cpu_us_per_op).sum());
        figures.written_per_byte = all.iter().map(|process| process.written_per_byte).sum();
        figures.peak_rss_bytes = all.iter().map(|process| process.peak_rss_bytes).sum();
    }
}

/// The median of each figure by itself; none without samples.
#[must_use]
pub fn median(samples: &[Figures]) -> Option<Figures> {
    let first = samples.first()?;
    let figure = |get: &dyn Fn(&Figures) -> f64| middle(samples.iter().map(get).collect());
    let optional = |get: &dyn Fn(&Figures) -> Option<f64>| {
        let values: Vec<f64> = samples.iter().filter_map(get).collect();
        (!values.is_empty()).then(|| middle(values))
    };
    let latency = |get: &dyn Fn(&Figures) -> Latency| Latency {
        mean_us: figure(&|f| get(f).mean_us),
        p50_us: figure(&|f| get(f).p50_us),
        p99_us: figure(&|f| get(f).p99_us),
        p99_9_us: figure(&|f| get(f).p99_9_us),
    };
    let process = |index: usize, name: &str| ProcessFigures {
        name: name.to_owned(),
        cpu_us_per_op: figure(&|f| f.processes[index].cpu_us_per_op),
        written_per_byte: optional(&|f| f.processes[index].written_per_byte),
        peak_rss_bytes: figure(&|f| f.processes[index].peak_rss_bytes as f64) as u64,
    };
    let processes = first.processes.iter().enumerate();
    Some(Figures {
        seconds: figure(&|f| f.seconds),
        operations: figure(&|f| f.operations as f64) as u64,
        written_bytes: figure(&|f| f.written_bytes as f64) as u64,
        iops: figure(&|f| f.iops),
        megabytes_per_s: figure(&|f| f.megabytes_per_s),
        latency: latency(&|f| f.latency),
        flush: first.flush.map(|_| latency(&|f| f.flush.unwrap_or_default())),
        cpu_us_per_op: optional(&|f| f.cpu_us_per_op),
        client_cpu_us_per_op: figure(&|f| f.client_cpu_us_per_op),
        syscalls_per_op: optional(&|f| f.syscalls_per_op),
        written_per_byte: optional(&|f| f.written_per_byte),
        peak_rss_bytes: figure(&|f| f.peak_rss_bytes as f64) as u64,
        processes: processes.map(|(index, first)| process(index, &first.name)).collect(),
    })
}

/// The median of one value at least.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(iops: f64) -> Figures {
        let process = ProcessFigures { written_per_byte: Some(iops), ..ProcessFigures::default() };
        Figures { iops, processes: vec![process], ..Figures::default() }
    }

    #[test]
    fn takes_the_median() {
        let median_of = |iops: &[f64]| {
            let samples: Vec<Figures> = iops.iter().copied().map(of).collect();
            median(&samples).unwrap()
        };
        assert_eq!(median_of(&[3.0, 1.0, 2.0]), of(2.0));
        assert_eq!(median_of(&[4.0, 1.0, 2.0, 3.0]), of(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn adds_up_the_processes() {
        let processes = [Process::new("a", 1), Process::new("b", 2)];
        let sample = |cpu_ms, written_bytes| Sample {
            cpu: Duration::from_millis(cpu_ms),
            written_bytes,
            peak_rss_bytes: 5,
        };
        let (before, after) = ([sample(1, 10), sample(2, 0)], [sample(2, 30), sample(5, 30)]);
        let mut figures = Figures { operations: 2, written_bytes: 10, ..Figures::default() };
        account(&mut figures, &processes, &before, &after);
        assert_eq!(figures.cpu_us_per_op, Some(2000.0));
        assert_eq!(figures.written_per_byte, Some(5.0));
        assert_eq!(figures.peak_rss_bytes, 10);
        assert_eq!(figures.processes[1].written_per_byte, Some(3.0));
        // A job that reads says nothing of bytes written.
        figures.written_bytes = 0;
        account(&mut figures, &processes, &before, &after);
        assert_eq!(figures.written_per_byte, None);
    }
}
