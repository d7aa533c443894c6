//! Tables, as Markdown that reads well as it is, and figures in them.

use std::fmt;

/// A table: the first column to the left, the others to the right.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With this heading.
    pub fn new<T: Into<String>>(heading: impl IntoIterator<Item = T>) -> Self {
        Self { rows: vec![heading.into_iter().map(Into::into).collect()] }
    }

    /// Adds a line.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |column: usize| cells(column).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(2)).collect();
        for (line, row) in self.rows.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                if column == 0 { write!(f, "| {cell:<width$} |")? } else { write!(f, " {cell:>width$} |")? }
            }
            writeln!(f)?;
            if line == 0 {
                for (column, width) in widths.iter().enumerate() {
                    if column == 0 {
                        write!(f, "|:{:-<width$}-|", "")?;
                    } else {
                        write!(f, "-{:->width$}:|", "")?;
                    }
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// Each value once, in the order in which they come first.
///
/// ```
/// assert_eq!(lpc_cli::measure::firsts([3, 1, 3, 2]), [3, 1, 2]);
/// ```
pub fn firsts<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut firsts = Vec::new();
    for value in values {
        if !firsts.contains(&value) {
            firsts.push(value);
        }
    }
    firsts
}

/// A time with three digits that mean something.
///
/// ```
/// use lpc_cli::measure::time;
/// assert_eq!([394, 3_512, 45_020, 1_234_567].map(time), ["394 ns", "3.51 µs", "45.0 µs", "1.23 ms"]);
/// ```
pub fn time(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (nanoseconds as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanoseconds as f64 / 1e6, "ms"),
        _ => (nanoseconds as f64 / 1e9, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// A size as thresholds are written.
///
/// ```
/// use lpc_cli::measure::size;
/// assert_eq!([256, 4096, 64 << 20, 1000].map(size), ["256B", "4KiB", "64MiB", "1000B"]);
/// ```
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["peer", "add"]);
        table.row(["lpc", "3.51 µs"]);
        table.row(["another"]);
        let expected =
            "| peer    |     add |\n|:--------|--------:|\n| lpc     | 3.51 µs |\n| another |         |\n";
        assert_eq!(table.to_string(), expected);
    }
}
