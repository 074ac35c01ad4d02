//! Strided matrices inside a buffer.

/// A batch of matrices inside a buffer, batched over two nested dimensions.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Offset of the first matrix.
    pub offset: usize,
    /// Rows per matrix.
    pub rows: usize,
    /// Columns per matrix.
    pub cols: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
    /// Sizes of the outer and inner batch dimension.
    pub batch: [usize; 2],
    /// Distance between matrices in each batch dimension.
    pub batch_strides: [usize; 2],
}

impl View {
    /// One row-major matrix.
    pub fn matrix(rows: usize, cols: usize) -> Self {
        Self {
            offset: 0,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
            batch: [1, 1],
            batch_strides: [0, 0],
        }
    }

    /// `outer` × `inner` contiguous row-major matrices.
    pub fn batched(outer: usize, inner: usize, rows: usize, cols: usize) -> Self {
        let size = rows * cols;
        Self {
            batch: [outer, inner],
            batch_strides: [inner * size, size],
            ..Self::matrix(rows, cols)
        }
    }

    /// Each matrix transposed.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// One past the last index of the view; 0 if the view is empty.
    pub(crate) fn end(&self) -> usize {
        if self.rows * self.cols * self.batch[0] * self.batch[1] == 0 {
            return 0;
        }
        let last = |n: usize, stride: usize| (n - 1) * stride;
        1 + self.offset
            + last(self.rows, self.row_stride)
            + last(self.cols, self.col_stride)
            + last(self.batch[0], self.batch_strides[0])
            + last(self.batch[1], self.batch_strides[1])
    }

    /// Indices of the numbers of the first matrix.
    pub(crate) fn indices(self) -> impl Iterator<Item = usize> {
        let column = move |c: usize| self.offset + c * self.col_stride;
        (0..self.rows)
            .flat_map(move |r| (0..self.cols).map(move |c| r * self.row_stride + column(c)))
    }

    /// Offset of matrix `i` of the batch.
    pub(crate) fn start(&self, i: usize) -> usize {
        let (outer, inner) = (i / self.batch[1], i % self.batch[1]);
        self.offset + outer * self.batch_strides[0] + inner * self.batch_strides[1]
    }
}
