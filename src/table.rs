//! Plain aligned tables, as kubectl prints them.

/// Aligns columns by their widest cell; two blanks between them, none at the end of a line.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut columns = Columns::default();
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    columns.widen(rows);
    columns.render(std::slice::from_ref(&header)) + &columns.render(rows)
}

/// Columns of a table that comes in pieces: they grow as wider cells come and never shrink.
#[derive(Debug, Default)]
pub(crate) struct Columns(Vec<usize>);

impl Columns {
    /// Makes room for `rows`.
    pub(crate) fn widen(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            self.0.resize(self.0.len().max(row.len()), 0);
            for (width, cell) in self.0.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }

    /// The next piece.
    pub(crate) fn render(&mut self, rows: &[Vec<String>]) -> String {
        self.widen(rows);
        let mut text = String::new();
        for row in rows {
            let line: String = row
                .iter()
                .zip(&self.0)
                .map(|(cell, width)| format!("{cell:<width$}  "))
                .collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A duration as people write it: `42s`, `5m12s`, `3h04m`, `2d06h`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let rows = vec![
            vec!["n1".into(), "Established".into()],
            vec!["node-2".into(), "Idle".into()],
        ];
        let text = render(&["NODE", "STATE"], &rows);
        assert_eq!(text, "NODE    STATE\nn1      Established\nnode-2  Idle\n");
    }

    #[test]
    fn a_table_in_pieces_keeps_its_columns() {
        let row = |cells: [&str; 2]| vec![cells.map(str::to_owned).to_vec()];
        let mut columns = Columns::default();
        let mut text = columns.render(&row(["A", "B"]));
        for cells in [["wide", "1"], ["x", "2"]] {
            text += &columns.render(&row(cells));
        }
        assert_eq!(text, "A  B\nwide  1\nx     2\n");
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (312, "5m12s"),
            (11_040, "3h04m"),
            (194_400, "2d06h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
