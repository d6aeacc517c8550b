//! Commands that ask a running node: one question, one answer printed.

mod disk;
mod node;
mod status;
mod verify;
mod version;
mod volume;

pub(crate) use disk::run as disk;
pub(crate) use node::run as node;
pub(crate) use status::run as status;
pub(crate) use verify::run as verify;
pub(crate) use version::run as version;
pub(crate) use volume::run as volume;

use crate::{args::Output, failure::Failure, print::print};
use serde::Serialize;

/// Prints an answer: for people as `table` shows it, for scripts as it came.
fn show<T: Serialize>(
    answer: &T,
    output: Output,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Table => table(answer),
        Output::Json => {
            serde_json::to_string_pretty(answer).map_err(|error| error.to_string())? + "\n"
        }
    };
    Ok(print(|out| out.write_all(text.as_bytes()))?)
}
