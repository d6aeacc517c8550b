//! One row for each job: rates side by side, and how they compare.

use super::grid::Grid;
use super::{reference, words};
use crate::outcome::{Block, Column, Figures, Job};

/// From this size on an operation counts by its bytes.
const LARGE_BYTES: u64 = 1 << 20;

/// How columns are headed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// By their ids, for a terminal.
    Short,
    /// By their titles.
    Long,
}

/// In which unit a job's rate is told.
pub(super) fn unit(job: &Job) -> &'static str {
    if job.block_bytes >= LARGE_BYTES { "MB/s" } else { "IOPS" }
}

/// A rate in that unit.
pub(super) fn rate(job: &Job, figures: &Figures) -> f64 {
    if job.block_bytes >= LARGE_BYTES { figures.megabytes_per_s } else { figures.iops }
}

/// Those that took part.
pub(super) fn present(block: &Block) -> impl Iterator<Item = &Column> {
    block.columns.iter().filter(|column| column.absent.is_none())
}

/// The table.
pub(super) fn grid(block: &Block, names: Names) -> Grid {
    let mut head = vec!["job".to_owned(), String::new()];
    head.extend(present(block).map(|column| match names {
        Names::Short => column.id.clone(),
        Names::Long => column.title.clone(),
    }));
    let to = reference(block).map(|column| column.id.as_str());
    let mut grid = Grid::new(head).words(2);
    for job in &block.jobs {
        let mut row = vec![job.job.title.clone(), unit(&job.job).to_owned()];
        row.extend(present(block).map(|column| {
            let Some(result) = job.of(&column.id) else { return words::NONE.to_owned() };
            let Some(figures) = &result.median else { return "failed".to_owned() };
            let rate = words::count(rate(&job.job, figures));
            let others = to.filter(|&to| to != column.id);
            match others.and_then(|to| job.ratio(&column.id, to)) {
                Some(value) => format!("{rate} ({})", words::ratio(value)),
                None => rate,
            }
        }));
        grid.row(row);
    }
    grid
}

/// What the numbers in it are.
pub(super) fn legend(block: &Block) -> String {
    let turns = match block.interleaved {
        true => "servers took turns in every round",
        false => "each server did all its rounds before the next came up",
    };
    match reference(block) {
        Some(column) => format!("Medians; in brackets the ratio to {}; {turns}.", column.title),
        None => format!("Medians; {turns}."),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn says_how_they_compare() {
        let text = grid(&sample::block(), Names::Short).text();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "job                           holdfast-x3  qemu-nbd",
                "4k random write QD32  IOPS  3,000 (1.50×)     2,000",
                "1 MiB write QD8       MB/s    400 (0.40×)     1,000",
                "4k random read QD1    IOPS         failed     7,000",
            ]
        );
        assert!(legend(&sample::block()).contains("ratio to qemu-nbd"));
    }

    #[test]
    fn compares_with_another_where_there_is_no_baseline() {
        let mut block = sample::block();
        let renamed = block.columns.iter_mut().find(|column| column.id == "qemu-nbd");
        renamed.unwrap().id = "ceph".to_owned();
        for result in block.jobs.iter_mut().flat_map(|job| &mut job.results) {
            result.column = result.column.replace("qemu-nbd", "ceph");
        }
        assert!(grid(&block, Names::Short).text().contains("3,000 (1.50×)"));
    }
}
