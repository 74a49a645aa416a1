//! Markdown tables whose columns line up as text, too.

/// A table: its header, and rows of as many cells.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// The table as Markdown. The first column holds words, the others figures.
    pub(super) fn markdown(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> =
            (0..self.rows[0].len()).map(|column| width(column).unwrap_or(0).max(2)).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                text += &match column {
                    0 => format!("| {cell:<width$} "),
                    _ => format!("| {cell:>width$} "),
                };
            }
            text += "|\n";
            if index == 0 {
                text += &format!("|{}", "-".repeat(widths[0] + 2));
                for width in &widths[1..] {
                    text += &format!("|{}:", "-".repeat(width + 1));
                }
                text += "|\n";
            }
        }
        text
    }
}

/// A figure with thousands set apart, rounded to a whole number.
pub(super) fn whole(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["a", "IOPS"]);
        table.row(vec!["null".to_owned(), whole(1_234_567.4)]);
        table.row(vec!["b".to_owned(), whole(999.0)]);
        let expected = "\
| a    |      IOPS |
|------|----------:|
| null | 1,234,567 |
| b    |       999 |
";
        assert_eq!(table.markdown(), expected);
    }
}
