//! The two factors of a product, in the order in which it reads them.

use super::{Buffer, LANES};

/// Rows of a left factor that are kept side by side.
pub(super) const TILE: usize = 12;
/// Columns of a right factor that are kept side by side.
pub(super) const PANEL: usize = LANES;

/// A matrix in row order inside a slice: what a factor is made of.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// `data` as rows of `columns` each.
    pub const fn new(data: &'a [f32], columns: usize) -> Self {
        Self {
            data,
            rows: data.len() / columns,
            columns,
            stride: columns,
        }
    }

    /// A part of the rows and columns.
    pub fn part(self, first_row: usize, rows: usize, first_column: usize, columns: usize) -> Self {
        Self {
            data: &self.data[first_row * self.stride + first_column..],
            rows,
            columns,
            stride: self.stride,
        }
    }

    fn row(&self, at: usize) -> &'a [f32] {
        &self.data[at * self.stride..][..self.columns]
    }
}

/// A left factor [rows, depth]: tiles of rows, each in the order of the depth.
#[derive(Debug, Clone, Default)]
pub struct Left {
    pub(super) rows: usize,
    pub(super) depth: usize,
    tiles: Buffer,
}

impl Left {
    fn empty(rows: usize, depth: usize) -> Self {
        // One column more than the tiles have, so that a tile can be read from any row on.
        let columns = rows.div_ceil(TILE) * depth + 1;
        let mut tiles = Buffer::stale(columns * TILE);
        // The last tile may have fewer rows than are written.
        tiles[rows / TILE * depth * TILE..].fill(0.0);
        Self { rows, depth, tiles }
    }

    /// Packs a matrix.
    pub fn new(matrix: Rows<'_>) -> Self {
        let (rows, depth) = (matrix.rows, matrix.columns);
        let mut left = Self::empty(rows, depth);
        if depth == 0 {
            return left;
        }
        let tiles = left.tiles.chunks_exact_mut(depth * TILE);
        for (first, tile) in (0..rows).step_by(TILE).zip(tiles) {
            let tile = tile.as_chunks_mut::<TILE>().0;
            if first + TILE <= rows {
                // Whole tiles: twelve rows side by side, without a check per element.
                let lines: [&[f32]; TILE] =
                    std::array::from_fn(|row| &matrix.row(first + row)[..depth]);
                for (at, slots) in tile.iter_mut().enumerate().take(depth) {
                    for (slot, line) in slots.iter_mut().zip(lines) {
                        *slot = line[at];
                    }
                }
            } else {
                for row in first..rows {
                    for (slots, &value) in tile.iter_mut().zip(matrix.row(row)) {
                        slots[row - first] = value;
                    }
                }
            }
        }
        left
    }

    /// Packs the transpose of a matrix.
    pub fn transposed(matrix: Rows<'_>) -> Self {
        let (rows, depth) = (matrix.columns, matrix.rows);
        let mut left = Self::empty(rows, depth);
        for at in 0..depth {
            for (tile, values) in matrix.row(at).chunks(TILE).enumerate() {
                let from = (tile * depth + at) * TILE;
                left.tiles[from..from + values.len()].copy_from_slice(values);
            }
        }
        left
    }

    /// Rows from `first` on, at each depth from `from` to `to`; twelve of them, of which those
    /// are meant that the matrix has.
    #[inline(always)]
    pub(super) fn columns(&self, first: usize, from: usize, to: usize) -> &[[f32; TILE]] {
        let start = (first / TILE * self.depth + from) * TILE + first % TILE;
        self.tiles[start..start + (to - from) * TILE].as_chunks().0
    }
}

/// A right factor [depth, columns]: panels of columns, each in the order of the depth.
#[derive(Debug, Clone, Default)]
pub struct Right {
    pub(super) depth: usize,
    pub(super) columns: usize,
    panels: Buffer,
}

impl Right {
    fn empty(depth: usize, columns: usize) -> Self {
        let mut panels = Buffer::stale(columns.div_ceil(PANEL) * depth * PANEL);
        // The last panel may have fewer columns than are written.
        panels[columns / PANEL * depth * PANEL..].fill(0.0);
        Self {
            depth,
            columns,
            panels,
        }
    }

    /// Packs a matrix.
    pub fn new(matrix: Rows<'_>) -> Self {
        let (depth, columns) = (matrix.rows, matrix.columns);
        let mut right = Self::empty(depth, columns);
        for at in 0..depth {
            for (panel, values) in matrix.row(at).chunks(PANEL).enumerate() {
                let from = (panel * depth + at) * PANEL;
                right.panels[from..from + values.len()].copy_from_slice(values);
            }
        }
        right
    }

    /// Packs the transpose of a matrix.
    pub fn transposed(matrix: Rows<'_>) -> Self {
        let (depth, columns) = (matrix.columns, matrix.rows);
        let mut right = Self::empty(depth, columns);
        let lines = right.panels.as_chunks_mut::<PANEL>().0;
        for (panel, lines) in lines.chunks_exact_mut(depth.max(1)).enumerate() {
            for lane in 0..PANEL.min(columns - panel * PANEL) {
                for (line, &value) in lines.iter_mut().zip(matrix.row(panel * PANEL + lane)) {
                    line[lane] = value;
                }
            }
        }
        right
    }

    /// The transpose of this factor, [columns, depth].
    #[must_use]
    pub fn to_transposed(&self) -> Self {
        let mut turned = Self::empty(self.columns, self.depth);
        for panel in 0..self.columns.div_ceil(PANEL) {
            let first = panel * PANEL;
            for (at, line) in self.lines(panel, 0, self.depth).iter().enumerate() {
                let target = (at / PANEL) * self.columns + first;
                for (lane, &value) in line.iter().enumerate().take(self.columns - first) {
                    turned.panels[(target + lane) * PANEL + at % PANEL] = value;
                }
            }
        }
        turned
    }

    /// A panel's columns side by side, at each depth from `from` to `to`.
    #[inline(always)]
    pub(super) fn lines(&self, panel: usize, from: usize, to: usize) -> &[[f32; PANEL]] {
        let start = panel * self.depth;
        self.panels[(start + from) * PANEL..(start + to) * PANEL]
            .as_chunks()
            .0
    }

    /// Rows of the factor.
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Columns of the factor.
    pub const fn columns(&self) -> usize {
        self.columns
    }
}
