//! One table for each job: every figure of every server, and its processes one by one.

use super::grid::Grid;
use super::summary::present;
use super::{reference, words};
use crate::outcome::{Block, Figures, JobOutcome, JobResult};

const MIB: f64 = (1 << 20) as f64;

/// All figures of a job.
pub(super) fn servers(block: &Block, job: &JobOutcome) -> Grid {
    let flushes = job.job.fsync_every > 0;
    let mut head = vec![
        "server",
        "IOPS",
        "of rounds",
        "MB/s",
        "ratio",
        "mean µs",
        "p50",
        "p99",
        "p99.9",
        "p99.9 / p50",
    ];
    if flushes {
        head.extend(["flush p50 µs", "p99", "p99.9"]);
    }
    head.extend(["CPU µs/op", "of the client", "syscalls/op", "bytes written/byte", "peak MiB"]);
    let mut grid = Grid::new(head);
    for column in present(block) {
        let Some(result) = job.of(&column.id) else { continue };
        let Some(figures) = &result.median else { continue };
        let to = reference(block).and_then(|to| job.ratio(&column.id, &to.id));
        let latency = figures.latency;
        let mut row = vec![
            column.title.clone(),
            words::count(figures.iops),
            range(result),
            words::figure(figures.megabytes_per_s),
            to.map_or_else(|| words::NONE.to_owned(), words::ratio),
            words::figure(latency.mean_us),
            words::figure(latency.p50_us),
            words::figure(latency.p99_us),
            words::figure(latency.p99_9_us),
            words::figure(latency.p99_9_us / latency.p50_us),
        ];
        if flushes {
            let flush = figures.flush;
            row.push(words::figure_or_none(flush.map(|flush| flush.p50_us)));
            row.push(words::figure_or_none(flush.map(|flush| flush.p99_us)));
            row.push(words::figure_or_none(flush.map(|flush| flush.p99_9_us)));
        }
        row.extend([
            words::figure_or_none(figures.cpu_us_per_op),
            words::figure(figures.client_cpu_us_per_op),
            words::figure_or_none(figures.syscalls_per_op),
            words::figure_or_none(figures.written_per_byte),
            memory(figures),
        ]);
        grid.row(row);
    }
    grid
}

/// The processes of every server.
pub(super) fn processes(block: &Block, job: &JobOutcome) -> Grid {
    let head = ["server", "process", "CPU µs/op", "bytes written/byte", "peak MiB"];
    let mut grid = Grid::new(head).words(2);
    for column in present(block) {
        let median = job.of(&column.id).and_then(|result| result.median.as_ref());
        for process in median.iter().flat_map(|figures| &figures.processes) {
            grid.row(vec![
                column.title.clone(),
                process.name.clone(),
                words::figure(process.cpu_us_per_op),
                words::figure_or_none(process.written_per_byte),
                words::count(process.peak_rss_bytes as f64 / MIB),
            ]);
        }
    }
    grid
}

/// The least and the most of the rounds.
fn range(result: &JobResult) -> String {
    let all = || result.samples.iter().map(|figures| figures.iops);
    match (all().reduce(f64::min), all().reduce(f64::max)) {
        (Some(least), Some(most)) => format!("{}–{}", words::count(least), words::count(most)),
        _ => words::NONE.to_owned(),
    }
}

fn memory(figures: &Figures) -> String {
    match figures.processes.is_empty() {
        true => words::NONE.to_owned(),
        false => words::count(figures.peak_rss_bytes as f64 / MIB),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn has_every_figure() {
        let block = sample::block();
        let text = servers(&block, &block.jobs[0]).markdown();
        let row = text.lines().find(|line| line.starts_with("| Holdfast")).unwrap();
        let cells = "3,000 | 2,900–3,100 | 12.3 | 1.50× | 10.0 | 9.00 | 20.0 | 45.0 | 5.00 | 40.0 | 7.00 | – | 7.10 | 96";
        assert_eq!(row, format!("| Holdfast, 3 replicas | {cells} |"));
        let text = processes(&block, &block.jobs[0]).markdown();
        assert!(text.contains("| Holdfast, 3 replicas | node1 | 20.0 | 2.40 | 64 |"), "{text}");
    }

    #[test]
    fn has_flushes_where_they_are_asked_for() {
        let mut block = sample::block();
        assert!(!servers(&block, &block.jobs[0]).markdown().contains("flush"));
        block.jobs[0].job.fsync_every = 1;
        assert!(servers(&block, &block.jobs[0]).markdown().contains("flush p50 µs"));
    }
}
