//! A row operation as the launch planner sees it.

use super::launch::{Address, Plane, Planner};

/// What a row operation reads and writes on a GPU, and over how many rows.
pub struct Call<const I: usize, const O: usize> {
    /// Makes the launches.
    pub planner: Planner,
    /// K.
    pub tangents: usize,
    /// What is read.
    pub inputs: [Plane; I],
    /// Which of them are one row for all.
    pub shared: [bool; I],
    /// What is written.
    pub outputs: [Plane; O],
    /// The labels of [`crate::cpu::RowKernel::labels`].
    pub labels: Address,
    /// Memory for partial sums, [`Planner::sum_scratch`] bytes.
    pub scratch: Address,
    /// Rows, and columns of the first operand.
    pub sizes: [usize; 2],
}
