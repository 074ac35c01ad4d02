//! Where images lie: in memory, or in files.

use super::files::Files;

/// Where the pixels of a data file lie: all images have one shape and follow one another.
#[derive(Debug)]
pub(super) struct Images {
    /// The bytes as read.
    pub bytes: Vec<u8>,
    /// Where the first image begins.
    pub start: usize,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// True: f32, little-endian, `(C,H,W)`, already normalised. False: u8 levels, `(H,W,C)`.
    pub prepared: bool,
}

impl Images {
    /// Bytes of one image; the readers have checked that it does not overflow.
    fn stride(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.prepared { 4 } else { 1 }
    }

    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let from = self.start.checked_add(row.checked_mul(self.stride())?)?;
        self.bytes.get(from..from.checked_add(self.stride())?)
    }
}

/// Where the images of a split are.
#[derive(Debug)]
pub(super) enum Store {
    /// In memory, all of one shape.
    Memory(Images),
    /// In files of their own, each decoded when asked for.
    Files(Files),
}
