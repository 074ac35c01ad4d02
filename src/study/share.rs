//! The share of a study's cells that a process computes.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Part `index` of `of`, counted from 1: `3/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: usize,
    of: usize,
}

impl Share {
    /// Positions of its cells among `cells` cells. They are contiguous, since neighbours share a
    /// model and its frozen layers. The shares of one `of` are disjoint, cover everything, and
    /// differ in length by at most one cell.
    pub fn range(self, cells: usize) -> Range<usize> {
        // Use 128 bits, so that the product of two counts cannot overflow.
        let end = |part: usize| (part as u128 * cells as u128 / self.of as u128) as usize;
        end(self.index - 1)..end(self.index)
    }
}

impl Share {
    /// The share, of as many shares, that contains the cell at `position`.
    pub fn holding(self, position: usize, cells: usize) -> Option<Share> {
        let all = (1..=self.of).map(|index| Self { index, of: self.of });
        all.into_iter().find(|share| share.range(cells).contains(&position))
    }

    /// A folder for this share next to `whole`: `study-3-of-16` next to `study`. For the share 1/1,
    /// `whole` itself.
    pub fn folder(self, whole: &Path) -> PathBuf {
        if self.of == 1 {
            return whole.into();
        }
        let mut name = whole.file_name().unwrap_or_default().to_os_string();
        name.push(format!("-{}-of-{}", self.index, self.of));
        whole.with_file_name(name)
    }
}

impl Default for Share {
    /// The whole study.
    fn default() -> Self {
        Self { index: 1, of: 1 }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| i.parse().ok().zip(n.parse().ok()));
        match parts {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("expected I/N with I from 1 to N, as in 3/16".into()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}
