//! How cost grows: lines.

use super::{Drawn, colour};
use crate::outcome::Curve;
use crate::report::words;
use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Circle, PathElement};
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color, WHITE};

/// Pixels.
const SIZE: (u32, u32) = (720, 400);
const MARGIN: u32 = 14;
const HEADING_HEIGHT: f64 = 18.0;
const TEXT_HEIGHT: f64 = 13.0;
const X_LABELS_HEIGHT: u32 = 44;
const Y_LABELS_WIDTH: u32 = 70;
const LINE_WIDTH: u32 = 2;
const DOT_RADIUS: i32 = 4;
/// Of the piece of line before a name.
const KEY_WIDTH: i32 = 18;
/// How far the axes go beyond the most.
const BEYOND: f64 = 1.1;

/// Draws a curve.
pub(super) fn draw(curve: &Curve, svg: &mut String) -> Drawn {
    let points = || curve.series.iter().flat_map(|series| &series.points);
    let xs = || points().map(|point| point.0);
    let most = xs().reduce(f64::max).filter(|&most| most > 0.0).unwrap_or(1.0) * BEYOND;
    if !curve.x_logarithmic {
        return lines(curve, svg, 0.0..most);
    }
    let least = xs().filter(|&x| x > 0.0).reduce(f64::min).unwrap_or(most / BEYOND);
    lines(curve, svg, (least / BEYOND..most).log_scale())
}

fn lines<X>(curve: &Curve, svg: &mut String, x: X) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let ys = curve.series.iter().flat_map(|series| &series.points).map(|point| point.1);
    // From zero, or what grows a little would look as if it grew much.
    let most = ys.reduce(f64::max).filter(|&most| most > 0.0).unwrap_or(1.0) * BEYOND;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(MARGIN)
        .caption(&curve.title, ("sans-serif", HEADING_HEIGHT))
        .x_label_area_size(X_LABELS_HEIGHT)
        .y_label_area_size(Y_LABELS_WIDTH)
        .build_cartesian_2d(x, 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc(&curve.x)
        .y_desc(&curve.y)
        .label_style(("sans-serif", TEXT_HEIGHT))
        .x_label_formatter(&|value| words::axis(*value))
        .y_label_formatter(&|value| words::axis(*value))
        .light_line_style(BLACK.mix(0.0))
        .draw()?;
    for (index, series) in curve.series.iter().enumerate() {
        let colour = colour(index);
        let points = || series.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(LINE_WIDTH)))?
            .label(&series.name)
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + KEY_WIDTH, y)], colour.stroke_width(LINE_WIDTH))
            });
        chart.draw_series(points().map(|point| Circle::new(point, DOT_RADIUS, colour.filled())))?;
    }
    if !curve.series.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", TEXT_HEIGHT))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn has_axes_lines_and_dots() {
        for x_logarithmic in [false, true] {
            let curve = Curve { x_logarithmic, ..sample::scale().curves.remove(0) };
            let mut svg = String::new();
            draw(&curve, &mut svg).unwrap();
            for text in ["Idle CPU by volumes", "volumes", "CPU, % of one core", "node1", "node2"] {
                assert!(svg.contains(text), "no {text:?} in {svg}");
            }
            assert_eq!(svg.matches("<circle").count(), 3);
        }
    }
}
