//! Plots, as SVG.
//!
//! Those of jobs have a panel for each job, and in it a row for each server, named at its left;
//! a server has its colour in all of them.
//!
//! - `panels`: what those two have in common; `rates`: bars; `latencies`: percentiles;
//! - `curves`: how cost grows.

mod curves;
mod latencies;
mod panels;
mod rates;

use crate::outcome::{Block, Column, Curve, Outcome};
use holdfast_tests::{Error, Result};
use plotters::style::RGBColor;

/// What there is no error type of ours for.
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Told apart also by those who see fewer colours: Okabe and Ito, "Color Universal Design", 2008, without
/// yellow and with grey for black.
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
];

/// Of the `index`th server of a run, or line of a curve.
fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Which server has which colour in all plots of a run.
#[derive(Clone, Debug)]
struct Palette<'a>(Vec<&'a str>);

impl<'a> Palette<'a> {
    fn new(blocks: &'a [Block]) -> Palette<'a> {
        let mut ids: Vec<&str> = Vec::new();
        for column in blocks.iter().flat_map(|block| &block.columns) {
            if !ids.contains(&column.id.as_str()) {
                ids.push(&column.id);
            }
        }
        Palette(ids)
    }

    fn of(&self, column: &Column) -> RGBColor {
        colour(self.0.iter().position(|id| *id == column.id).unwrap_or_default())
    }
}

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// Its name.
    pub(super) file: String,
    /// What is in it.
    pub(super) svg: String,
}

/// Every plot of an outcome.
pub(super) fn all(outcome: &Outcome) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    let mut draw = |file: String, draw: &dyn Fn(&mut String) -> Drawn| -> Result<()> {
        let mut svg = String::new();
        draw(&mut svg).map_err(|error| Error::Tool(format!("draw {file}: {error}")))?;
        pictures.push(Picture { file, svg });
        Ok(())
    };
    let palette = Palette::new(&outcome.blocks);
    for (index, block) in outcome.blocks.iter().enumerate() {
        draw(rates_file(index), &|svg| rates::draw(block, &palette, svg))?;
        draw(latencies_file(index), &|svg| latencies::draw(block, &palette, svg))?;
    }
    for curve in outcome.scale.iter().flat_map(|scale| &scale.curves) {
        draw(curve_file(curve), &|svg| curves::draw(curve, svg))?;
    }
    Ok(pictures)
}

/// The plot of rates of the `index`th block.
pub(super) fn rates_file(index: usize) -> String {
    format!("rates-{}.svg", index + 1)
}

/// The plot of latencies of the `index`th block.
pub(super) fn latencies_file(index: usize) -> String {
    format!("latencies-{}.svg", index + 1)
}

/// The plot of a curve.
pub(super) fn curve_file(curve: &Curve) -> String {
    format!("scale-{}.svg", curve.id)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_server_keeps_its_colour() {
        let mut blocks = [sample::block(), sample::block()];
        blocks[1].columns.reverse();
        let palette = Palette::new(&blocks);
        for column in &blocks[0].columns {
            let same =
                blocks[1].columns.iter().filter(|other| palette.of(other) == palette.of(column));
            assert_eq!(same.map(|other| &other.id).collect::<Vec<_>>(), [&column.id]);
        }
    }

    #[test]
    fn draws_what_there_is_and_survives_what_there_is_not() {
        let mut outcome = sample::outcome();
        assert_eq!(all(&outcome).unwrap().len(), 5);
        for block in &mut outcome.blocks {
            block.jobs.iter_mut().for_each(|job| job.results.clear());
        }
        for curve in &mut outcome.scale.as_mut().unwrap().curves {
            curve.series.clear();
        }
        assert_eq!(all(&outcome).unwrap().len(), 5);
        outcome.blocks.iter_mut().for_each(|block| block.jobs.clear());
        assert_eq!(all(&outcome).unwrap().len(), 5);
    }
}
