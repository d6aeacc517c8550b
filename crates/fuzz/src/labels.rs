//! What runs came to, by name: the coverage that any compiler can measure.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

/// Bytes of a label at most: a label names an outcome, it does not describe the input.
const LABEL_BYTES_MAX: usize = 120;

/// The outcomes seen.
#[derive(Debug, Default)]
pub struct Labels {
    seen: Option<BTreeSet<String>>,
    line: String,
}

impl Labels {
    /// Collects them.
    #[must_use]
    pub fn collecting() -> Self {
        Self { seen: Some(BTreeSet::new()), line: String::new() }
    }

    /// Does not: for a fuzzer, which has better means.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Notes an outcome. Digits become `#`, so that a message can be a label.
    ///
    /// # Panics
    /// If it is too long for a name.
    pub fn see(&mut self, label: fmt::Arguments<'_>) {
        let Self { seen: Some(seen), line } = self else { return };
        allocation_counter::opt_out(|| {
            line.clear();
            let written = line.write_fmt(label);
            assert!(written.is_ok(), "a label says what it is");
            let mut name = String::with_capacity(line.len());
            for char in line.chars() {
                match char {
                    '0'..='9' if name.ends_with('#') => {}
                    '0'..='9' => name.push('#'),
                    char => name.push(char),
                }
            }
            assert!(name.len() <= LABEL_BYTES_MAX, "no label: {name}");
            seen.insert(name);
        });
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().flatten().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_make_another_label() {
        let mut labels = Labels::collecting();
        for block in [7, 812] {
            labels.see(format_args!("block {block} of 2x3"));
        }
        assert_eq!(labels.iter().collect::<Vec<_>>(), ["block # of #x#"]);
        let mut none = Labels::none();
        none.see(format_args!("anything"));
        assert_eq!(none.iter().count(), 0);
    }
}
