//! Storage of images: in memory, or in files.

use super::files::Files;

/// Pixels in the bytes of a data file: consecutive images of one shape.
#[derive(Debug)]
pub(super) struct ImageBuffer {
    /// The bytes as read.
    pub bytes: Vec<u8>,
    /// Offset of the first image.
    pub start: usize,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// True: f32, little-endian, `(C,H,W)`, already normalised. False: u8 levels, `(H,W,C)`.
    pub prepared: bool,
}

impl ImageBuffer {
    /// Bytes of one image; readers have checked for overflow.
    pub fn stride(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.prepared { 4 } else { 1 }
    }

    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let from = self.start.checked_add(row.checked_mul(self.stride())?)?;
        self.bytes.get(from..from.checked_add(self.stride())?)
    }
}

/// Storage of a split's images.
#[derive(Debug)]
pub(super) enum Store {
    /// In memory, with a common shape.
    Memory(ImageBuffer),
    /// In separate files, decoded on access.
    Files(Files),
}
