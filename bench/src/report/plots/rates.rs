//! Rates as bars, each panel with a scale of its own.

use super::panels::{self, Area, Row, beside};
use super::{Drawn, Palette};
use crate::outcome::{Block, JobOutcome};
use crate::report::summary::{rate, unit};
use crate::report::words;
use plotters::element::Rectangle;
use plotters::style::Color;
use plotters::style::text_anchor::HPos;

/// How far the axis goes beyond the longest bar, to have room for its number.
const BEYOND: f64 = 1.25;
/// How much of its row's height a bar takes.
const THICKNESS: f64 = 0.7;

/// Draws them for every job of the block.
pub(super) fn draw(block: &Block, palette: &Palette<'_>, svg: &mut String) -> Drawn {
    panels::draw(block, svg, |area, job| panel(area, &panels::rows(block, palette, job), job))
}

fn panel(area: &Area<'_>, rows: &[Row<'_>], job: &JobOutcome) -> Drawn {
    let rate = |row: &Row<'_>| row.median.map(|figures| rate(&job.job, figures));
    let most = rows.iter().filter_map(rate).reduce(f64::max).filter(|&most| most > 0.0);
    let heading = format!("{}, {}", job.job.title, unit(&job.job));
    let mut chart = panels::chart(area, &heading, 0.0..most.unwrap_or(1.0) * BEYOND, rows)?;
    let bar = |row: &Row<'_>| {
        let (below, above) = (row.height - THICKNESS / 2.0, row.height + THICKNESS / 2.0);
        Some(Rectangle::new([(0.0, below), (rate(row)?, above)], row.colour.filled()))
    };
    chart.draw_series(rows.iter().filter_map(bar))?;
    let number = |row: &Row<'_>| {
        let text = rate(row).map_or_else(|| "failed".to_owned(), words::count);
        beside((rate(row).unwrap_or(0.0), row.height), text, HPos::Left)
    };
    chart.draw_series(rows.iter().map(number))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// The widths of the bars, which are the rectangles that are not the background.
    fn widths(svg: &str) -> Vec<f64> {
        let bars =
            svg.lines().filter(|line| line.starts_with("<rect") && !line.contains("#FFFFFF"));
        let width = |line: &str| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok();
        bars.filter_map(width).collect()
    }

    #[test]
    fn bars_are_as_long_as_rates_are_high() {
        let (block, mut svg) = (sample::block(), String::new());
        draw(&block, &Palette::new(std::slice::from_ref(&block)), &mut svg).unwrap();
        let widths = widths(&svg);
        // Two servers with two jobs, and one with a third.
        let [ours, theirs, our_mb, their_mb, _] = widths[..] else { panic!("{widths:?}\n{svg}") };
        assert!((ours / theirs - 1.5).abs() < 0.02, "{widths:?}");
        assert!((our_mb / their_mb - 0.4).abs() < 0.02, "{widths:?}");
    }

    #[test]
    fn names_jobs_servers_and_numbers() {
        let (block, mut svg) = (sample::block(), String::new());
        draw(&block, &Palette::new(std::slice::from_ref(&block)), &mut svg).unwrap();
        for text in [
            "4k random write QD32, IOPS",
            "1 MiB write QD8, MB/s",
            "Holdfast, 3 replicas",
            "3,000",
            "failed",
        ] {
            assert!(svg.contains(text), "no {text:?} in {svg}");
        }
        assert!(!svg.contains("Ceph"), "who took no part has no row");
    }
}
