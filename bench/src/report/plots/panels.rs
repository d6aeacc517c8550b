//! A panel for each job, with a row for each server.

use super::{Drawn, Palette};
use crate::outcome::{Block, Column, Figures, JobOutcome};
use crate::report::summary::present;
use crate::report::words;
use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{EmptyElement, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoFont, RGBColor, TextStyle, WHITE};
use std::error::Error;
use std::ops::Add;

/// Panels side by side; so many are as wide as a page.
const ACROSS: usize = 3;
/// Pixels.
const WIDTH: u32 = 460;
const ROW_HEIGHT: u32 = 22;
/// Above the rows, for the job.
const HEADING_HEIGHT: f64 = 16.0;
/// Below them, for the axis.
const AXIS_HEIGHT: u32 = 24;
/// All that is not rows: heading, axis, margins.
const REST_HEIGHT: u32 = 76;
/// Left of the rows, for the names.
const NAMES_WIDTH: u32 = 150;
/// Around a panel.
const MARGIN: u32 = 10;
/// Between a word and what it belongs to.
const GAP: i32 = 6;
const TEXT_HEIGHT: f64 = 13.0;
/// Of the numbers on an axis.
const AXIS_TEXT_HEIGHT: f64 = 12.0;
/// Numbers on an axis.
const LABELS: usize = 5;

/// Where a panel is drawn.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A panel's coordinates: figures to the right, rows upwards.
pub(super) type Chart<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, RangedCoordf64>>;

/// A word beside a point.
pub(super) type Word<'a> =
    <EmptyElement<(f64, f64), SVGBackend<'a>> as Add<Text<'static, (i32, i32), String>>>::Output;

/// A server's row in a panel.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) colour: RGBColor,
    /// Of its middle.
    pub(super) height: f64,
    /// The server.
    pub(super) column: &'a Column,
    /// None when no round ended well.
    pub(super) median: Option<&'a Figures>,
}

/// The rows of a panel, each 1 high, the first uppermost.
pub(super) fn rows<'a>(
    block: &'a Block,
    palette: &Palette<'_>,
    job: &'a JobOutcome,
) -> Vec<Row<'a>> {
    let servers = present(block).count();
    let row = |(index, column): (usize, &'a Column)| {
        let median = job.of(&column.id).and_then(|result| result.median.as_ref());
        let height = (servers - index) as f64 - 0.5;
        Row { colour: palette.of(column), height, column, median }
    };
    present(block).enumerate().map(row).collect()
}

/// Draws `panel` for every job of the block.
pub(super) fn draw(
    block: &Block,
    svg: &mut String,
    panel: impl Fn(&Area<'_>, &JobOutcome) -> Drawn,
) -> Drawn {
    let across = ACROSS.min(block.jobs.len()).max(1);
    let down = block.jobs.len().div_ceil(ACROSS).max(1);
    let height = u32::try_from(present(block).count())? * ROW_HEIGHT + REST_HEIGHT;
    let size = (u32::try_from(across)? * WIDTH, u32::try_from(down)? * height);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, job) in root.split_evenly((down, across)).iter().zip(&block.jobs) {
        panel(area, job)?;
    }
    root.present()?;
    Ok(())
}

/// A panel with its heading, its axis and the names of its rows.
pub(super) fn chart<'a, 'b, X>(
    area: &'a Area<'b>,
    heading: &str,
    x: X,
    rows: &[Row<'_>],
) -> Result<Chart<'a, 'b, X::CoordDescType>, Box<dyn Error>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .caption(heading, ("sans-serif", HEADING_HEIGHT))
        .y_label_area_size(NAMES_WIDTH)
        .x_label_area_size(AXIS_HEIGHT)
        .build_cartesian_2d(x, 0.0..rows.len().max(1) as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(LABELS)
        .label_style(("sans-serif", AXIS_TEXT_HEIGHT))
        .x_label_formatter(&|value| words::axis(*value))
        .axis_style(BLACK.mix(0.3))
        .light_line_style(BLACK.mix(0.0))
        .draw()?;
    let left = chart.x_range().start;
    let name = |row: &Row<'_>| beside((left, row.height), row.column.title.clone(), HPos::Right);
    chart.draw_series(rows.iter().map(name))?;
    Ok(chart)
}

/// At its left when `side` is what the word ends at, else at its right.
pub(super) fn beside<'a>(point: (f64, f64), word: String, side: HPos) -> Word<'a> {
    let shift = if matches!(side, HPos::Right) { -GAP } else { GAP };
    let style: TextStyle<'static> = ("sans-serif", TEXT_HEIGHT).into_font().color(&BLACK);
    let style = style.pos(Pos::new(side, VPos::Center));
    EmptyElement::at(point) + Text::new(word, (shift, 0), style)
}
