//! How cost grows, as tables.

use super::grid::Grid;
use super::words;
use crate::outcome::{Curve, ScaleOutcome};

/// The single figures.
pub(super) fn facts(scale: &ScaleOutcome) -> Grid {
    let mut grid = Grid::new(["figure", "reached", "to stay below", "unit"]);
    for fact in &scale.facts {
        grid.row(vec![
            fact.title.clone(),
            words::figure(fact.value),
            words::figure_or_none(fact.below),
            fact.unit.clone(),
        ]);
    }
    grid
}

/// The points of a curve: a row for each x that any line has.
pub(super) fn points(curve: &Curve) -> Grid {
    let head = std::iter::once(&curve.x).chain(curve.series.iter().map(|series| &series.name));
    let mut grid = Grid::new(head.cloned()).words(0);
    let mut xs: Vec<f64> =
        curve.series.iter().flat_map(|series| &series.points).map(|point| point.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    for x in xs {
        let y =
            |points: &[(f64, f64)]| points.iter().find(|point| point.0 == x).map(|point| point.1);
        let ys = curve.series.iter().map(|series| words::figure_or_none(y(&series.points)));
        let x = if x.fract() == 0.0 { words::count(x) } else { words::figure(x) };
        grid.row(std::iter::once(x).chain(ys).collect());
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn puts_lines_side_by_side() {
        let scale = sample::scale();
        let expected = "| volumes | node1 | node2 |\n| --: | --: | --: |\n\
                        | 1 | 0.100 | – |\n| 1,000 | 1.50 | 1.40 |\n";
        assert_eq!(points(&scale.curves[0]).markdown(), expected);
        assert!(facts(&scale).text().contains("idle CPU"));
    }
}
