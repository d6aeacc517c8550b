//! A table, as text with aligned columns and as Markdown.

/// Rows of cells; the first column is words and the others are figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    words: usize,
}

impl Grid {
    /// An empty one.
    pub(super) fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Grid {
        Grid { head: head.into_iter().map(Into::into).collect(), rows: Vec::new(), words: 1 }
    }

    /// The same with words in the first `columns`.
    pub(super) fn words(self, columns: usize) -> Grid {
        Grid { words: columns, ..self }
    }

    /// Adds a row, as long as the head.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a row is as long as the head: {cells:?}");
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column < self.words {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text += "\n";
        }
        text
    }

    /// For the report.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        // A bar would end the cell.
        let escaped = |row: &Vec<String>| row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let rule = |column| if column < self.words { "---" } else { "--:" }.to_owned();
        let mut text = line(escaped(&self.head));
        text += &line((0..self.head.len()).map(rule).collect());
        self.rows.iter().for_each(|row| text += &line(escaped(row)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(["job", "µs"]);
        grid.row(vec!["read".to_owned(), "7".to_owned()]);
        grid.row(vec!["a|b".to_owned(), "12,345".to_owned()]);
        grid
    }

    #[test]
    fn aligns() {
        assert_eq!(grid().text(), "job       µs\nread       7\na|b   12,345\n");
    }

    #[test]
    fn is_markdown() {
        let expected = "| job | µs |\n| --- | --: |\n| read | 7 |\n| a\\|b | 12,345 |\n";
        assert_eq!(grid().markdown(), expected);
    }
}
