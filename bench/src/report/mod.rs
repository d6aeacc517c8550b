//! What people read of an outcome: a table in the terminal, a report in Markdown, plots as SVG.
//!
//! All of it is made from the [`Outcome`] alone, so it can be made again from `outcome.json`.
//!
//! - `words`: numbers as text; `grid`: tables as text and as Markdown;
//! - `summary`: one row a job; `details`: one table a job; `scale`: how cost grows;
//! - `markdown`: the report; `plots`: its pictures;
//! - [`load`], [`merge`]: outcomes of earlier runs, for one report of them all.

mod details;
mod grid;
mod markdown;
mod merge;
mod plots;
#[cfg(test)]
mod sample;
mod scale;
mod summary;
mod words;

pub use merge::{load, merge};

use crate::outcome::{BASELINE, Block, Column, Outcome};
use holdfast_tests::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The report's file; the plots lie beside it.
const REPORT: &str = "report.md";

/// The summary for a terminal.
#[must_use]
pub fn terminal(outcome: &Outcome) -> String {
    let mut text = String::new();
    for block in &outcome.blocks {
        let table = summary::grid(block, summary::Names::Short);
        text += &format!("{}\n\n{}", block.title, table.text());
        text += &format!("{}\n", summary::legend(block));
        for column in &block.columns {
            if let Some(why) = &column.absent {
                text += &format!("{} did not take part: {why}\n", column.title);
            }
        }
        text += "\n";
    }
    if let Some(scale) = &outcome.scale {
        text += &scale::facts(scale).text();
    }
    text
}

/// Writes the report and its plots to `dir`, which there is, and returns their paths, the report first.
///
/// # Errors
/// When a plot cannot be drawn or a file cannot be written.
pub fn save(outcome: &Outcome, dir: &Path) -> Result<Vec<PathBuf>> {
    let pictures = plots::all(outcome)?;
    let mut files = vec![(REPORT.to_owned(), markdown::report(outcome))];
    files.extend(pictures.into_iter().map(|picture| (picture.file, picture.svg)));
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
        paths.push(path);
    }
    Ok(paths)
}

/// Whom the others of a block are compared with: [`BASELINE`], or, where it took no part, the
/// first that is not Holdfast. None where there are no others.
fn reference(block: &Block) -> Option<&Column> {
    /// What the ids of Holdfast's columns begin with.
    const OURS: &str = "holdfast";
    if summary::present(block).count() < 2 {
        return None;
    }
    let baseline = summary::present(block).find(|column| column.id == BASELINE);
    baseline.or_else(|| summary::present(block).find(|column| !column.id.starts_with(OURS)))
}
