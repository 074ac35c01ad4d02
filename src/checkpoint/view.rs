//! A tensor as it lies in a file: bytes of a storage, read with strides.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of a file that hold the elements of one or several tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// Which of the checkpoint's files.
    pub file: usize,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A verified view: all its elements lie within the storage, and it has no more elements than the
/// storage, so that a small file cannot describe a large tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    storage: Storage,
    /// Bytes of an element.
    item: usize,
    /// First element, counted from the start of the storage.
    offset: usize,
    shape: Vec<usize>,
    /// Elements from one index to the next, for each dimension.
    stride: Vec<usize>,
}

/// Strides of a tensor whose elements lie in order, the last dimension first.
pub(super) fn contiguous(shape: &[usize]) -> Option<Vec<usize>> {
    let mut out = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        out[axis - 1] = out[axis].checked_mul(shape[axis])?;
    }
    Some(out)
}

/// Number of elements; `None` if it overflows.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))
}

impl View {
    /// Verifies a view. The error says what does not fit.
    pub fn new(
        storage: Storage,
        item: usize,
        offset: usize,
        shape: Vec<usize>,
        stride: Vec<usize>,
    ) -> Result<View, String> {
        let held = usize::try_from(storage.len).unwrap_or(usize::MAX) / item.max(1);
        let outside = || {
            format!(
                "shape {shape:?} with strides {stride:?} from element {offset} of a storage of \
                 {held} elements"
            )
        };
        let count = elements(&shape).filter(|&n| n <= held && shape.len() == stride.len());
        let count = count.ok_or_else(outside)?;
        if count > 0 {
            let last = shape
                .iter()
                .zip(&stride)
                .try_fold(offset, |at, (&dim, &step)| at.checked_add((dim - 1).checked_mul(step)?));
            if last.is_none_or(|last| last >= held) {
                return Err(outside());
            }
        }
        Ok(View { storage, item, offset, shape, stride })
    }

    /// Bytes of the tensor.
    pub fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.item
    }

    /// The index of its file.
    pub fn file(&self) -> usize {
        self.storage.file
    }

    /// Reads the elements in order.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    pub fn read(&self, mut file: &File) -> io::Result<Vec<u8>> {
        if self.len() == 0 {
            return Ok(Vec::new());
        }
        let span: usize =
            self.shape.iter().zip(&self.stride).map(|(dim, step)| (dim - 1) * step).sum();
        let mut bytes = vec![0; (span + 1) * self.item];
        file.seek(SeekFrom::Start(self.storage.start + (self.offset * self.item) as u64))?;
        file.read_exact(&mut bytes)?;
        let ordered = contiguous(&self.shape).is_some_and(|ordered| {
            let mut steps = self.shape.iter().zip(ordered.iter().zip(&self.stride));
            steps.all(|(&dim, (ordered, step))| dim == 1 || ordered == step)
        });
        Ok(if ordered { bytes } else { self.gather(&bytes) })
    }

    /// The elements in order, from the bytes between the first and the last one.
    fn gather(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        loop {
            out.extend_from_slice(&bytes[at * self.item..(at + 1) * self.item]);
            let mut axis = self.shape.len();
            loop {
                if axis == 0 {
                    return out;
                }
                axis -= 1;
                index[axis] += 1;
                at += self.stride[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.stride[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn view(len: u64, offset: usize, shape: &[usize], stride: &[usize]) -> Result<View, String> {
        View::new(Storage { file: 0, start: 3, len }, 2, offset, shape.into(), stride.into())
    }

    #[test]
    fn reads_with_strides() {
        let mut file = tempfile::tempfile().unwrap();
        // Elements 0..12 of two bytes, after three others.
        file.write_all(&[255; 3]).unwrap();
        (0..12u16).for_each(|x| file.write_all(&x.to_le_bytes()).unwrap());
        let read = |offset, shape: &[usize], stride: &[usize]| -> Vec<u16> {
            let bytes = view(24, offset, shape, stride).unwrap().read(&file).unwrap();
            bytes.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b)).collect()
        };
        assert_eq!(read(1, &[2, 3], &[3, 1]), [1, 2, 3, 4, 5, 6]);
        // A transposed matrix of shape 3 × 4.
        assert_eq!(read(0, &[4, 3], &[1, 4]), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(read(2, &[2, 1, 2], &[5, 9, 2]), [2, 4, 7, 9]);
        assert_eq!(read(11, &[], &[]), [11]);
        assert_eq!(read(0, &[0, 5], &[1, 1]), [0u16; 0]);
    }

    #[test]
    fn refuses_elements_outside_of_the_storage() {
        let max = usize::MAX;
        for (offset, shape, stride) in [
            (1, vec![12], vec![1]),
            (0, vec![13], vec![1]),
            (0, vec![2], vec![12]),
            (0, vec![2], vec![max]),
            (max, vec![2], vec![1]),
            (12, vec![], vec![]),
            (0, vec![max, max], vec![0, 0]),
            // Repeats one element.
            (0, vec![1000, 1000], vec![0, 0]),
            (0, vec![2, 2], vec![1]),
        ] {
            let message = view(24, offset, &shape, &stride).unwrap_err();
            assert!(message.contains("a storage of 12 elements"), "{message}");
        }
    }
}
