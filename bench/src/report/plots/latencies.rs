//! Latency percentiles on a logarithmic axis, which all panels share.

use super::panels::{self, Area, Row, beside};
use super::{Drawn, Palette};
use crate::outcome::{Block, JobOutcome, Latency};
use plotters::coord::combinators::IntoLogRange;
use plotters::element::{Circle, PathElement};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, ShapeStyle};
use std::ops::Range;

/// Radii of the dots of p50, p99 and p99.9, in pixels.
const RADII: [i32; 3] = [6, 4, 3];
/// Of the line through them.
const LINE_WIDTH: u32 = 2;
/// How far the axis goes beyond the least and the most.
const BEYOND: f64 = 1.3;
/// When there is nothing to draw, µs.
const NOTHING: Range<f64> = 10.0..1_000.0;

/// Draws them for every job of the block.
pub(super) fn draw(block: &Block, palette: &Palette<'_>, svg: &mut String) -> Drawn {
    let range = range(block);
    panels::draw(block, svg, |area, job| {
        panel(area, &panels::rows(block, palette, job), job, range.clone())
    })
}

fn panel(area: &Area<'_>, rows: &[Row<'_>], job: &JobOutcome, range: Range<f64>) -> Drawn {
    let heading = format!("{}, µs: p50, p99, p99.9", job.job.title);
    let mut chart = panels::chart(area, &heading, range.clone().log_scale(), rows)?;
    for row in rows {
        let colour = row.colour;
        let Some(figures) = row.median else {
            chart.draw_series([beside(
                (range.start, row.height),
                "failed".to_owned(),
                HPos::Left,
            )])?;
            continue;
        };
        let points = percentiles(figures.latency).map(|us| (us.max(range.start), row.height));
        let line: ShapeStyle = colour.stroke_width(LINE_WIDTH);
        chart.draw_series([PathElement::new(points, line)])?;
        let dots = points.into_iter().zip(RADII);
        chart
            .draw_series(dots.map(|(point, radius)| Circle::new(point, radius, colour.filled())))?;
    }
    Ok(())
}

fn percentiles(latency: Latency) -> [f64; 3] {
    [latency.p50_us, latency.p99_us, latency.p99_9_us]
}

/// What the axis has to reach over.
fn range(block: &Block) -> Range<f64> {
    let results = block.jobs.iter().flat_map(|job| &job.results);
    let medians = results.filter_map(|result| result.median.as_ref());
    let all = medians.flat_map(|figures| percentiles(figures.latency));
    let positive = all.filter(|&us| us > 0.0 && us.is_finite());
    let ends = positive.fold(None, |ends: Option<(f64, f64)>, us| {
        let (least, most) = ends.unwrap_or((us, us));
        Some((least.min(us), most.max(us)))
    });
    ends.map_or(NOTHING, |(least, most)| least / BEYOND..most * BEYOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn dots_are_as_far_apart_as_logarithms() {
        let mut block = sample::block();
        let latency = Latency { p50_us: 10.0, p99_us: 100.0, p99_9_us: 1_000.0, mean_us: 11.0 };
        let results = block.jobs.iter_mut().flat_map(|job| &mut job.results);
        results
            .filter_map(|result| result.median.as_mut())
            .for_each(|figures| figures.latency = latency);
        let mut svg = String::new();
        draw(&block, &Palette::new(std::slice::from_ref(&block)), &mut svg).unwrap();
        let x = |line: &str| line.split("cx=\"").nth(1)?.split('"').next()?.parse::<f64>().ok();
        let xs: Vec<f64> = svg.lines().filter_map(x).collect();
        // Five results that did not fail.
        assert_eq!(xs.len(), 5 * 3, "{svg}");
        assert!(xs[1] > xs[0] + 10.0, "{xs:?}");
        assert!(((xs[2] - xs[1]) - (xs[1] - xs[0])).abs() <= 2.0, "{xs:?}");
    }
}
