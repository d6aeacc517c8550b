//! Real processes killed, stopped, cut off and denied space at random, under the
//! verifying client.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chaos;
mod one_node;

use std::path::Path;

/// Keeps the data of a failed run.
fn in_scratch<T>(test: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::Builder::new().prefix("holdfast-crash-").tempdir().unwrap().keep();
    let result = test(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
    result
}
