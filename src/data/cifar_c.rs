//! CIFAR-10-C and CIFAR-100-C (Hendrycks & Dietterich 2019): corrupted test images.
//!
//! One NumPy file per corruption, u8 of shape (5·N, 32, 32, 3): all N images at severity 1, then
//! all at 2, and so on. `labels.npy` holds 5·N labels in the same order.

use super::{Error, Split};
use npyz::{NpyFile, Order};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Number of severities in a file.
const SEVERITIES: usize = 5;

/// A folder of these files.
#[derive(Clone, Debug)]
pub struct CifarC {
    folder: PathBuf,
    labels: Vec<u32>,
}

impl CifarC {
    /// Reads the labels.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Format`] for a file without 5·N labels.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("labels.npy");
        let file = npy(&path)?;
        let shape = file.shape().to_vec();
        let wrong = |found: String| format_error(&path, "5·N integer labels", found);
        let kind = file.dtype().descr();
        let labels: Option<Vec<u32>> = match kind.trim_matches('\'') {
            "|u1" => file.into_vec::<u8>().ok().map(|all| all.into_iter().map(u32::from).collect()),
            "<i8" => file
                .into_vec::<i64>()
                .ok()
                .and_then(|all| all.into_iter().map(|x| u32::try_from(x).ok()).collect()),
            _ => None,
        };
        let labels = labels.ok_or_else(|| wrong(format!("{kind} {shape:?}")))?;
        if shape.len() != 1 || labels.is_empty() || labels.len() % SEVERITIES != 0 {
            return Err(wrong(format!("{kind} {shape:?}")));
        }
        Ok(Self { folder: folder.to_owned(), labels })
    }

    /// Labels of the N images.
    pub fn labels(&self) -> &[u32] {
        &self.labels[..self.labels.len() / SEVERITIES]
    }

    /// The N images of one file at a severity from 1 to 5.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Format`] for a file of the wrong shape or type.
    pub fn split(&self, corruption: &str, severity: usize) -> Result<Split, Error> {
        let path = self.folder.join(format!("{corruption}.npy"));
        let file = npy(&path)?;
        let n = self.labels().len();
        let expected = vec![self.labels.len() as u64, 32, 32, 3];
        let found = format!("{} {:?} {:?}", file.dtype().descr(), file.shape(), file.order());
        if file.shape() != expected || file.order() != Order::C || file.dtype().descr() != "'|u1'" {
            let expected = format!("'|u1' {expected:?} C, as labels.npy has {n} images");
            return Err(format_error(&path, &expected, found));
        }
        let bytes = n * 32 * 32 * 3;
        // The levels follow the header uncompressed; read only those of one severity.
        let mut reader = file.into_inner();
        let read = |source| Error::Read { path: path.clone(), source };
        let skipped = (severity.clamp(1, SEVERITIES) - 1) * bytes;
        std::io::copy(&mut reader.by_ref().take(skipped as u64), &mut std::io::sink())
            .map_err(read)?;
        let mut levels = vec![0; bytes];
        reader.read_exact(&mut levels).map_err(read)?;
        let first = (severity.clamp(1, SEVERITIES) - 1) * n;
        let labels = self.labels[first..first + n].to_vec();
        Split::from_levels(&format!("{corruption} {severity}"), levels, [3, 32, 32], labels)
    }
}

fn npy(path: &Path) -> Result<NpyFile<BufReader<File>>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    NpyFile::new(BufReader::new(file))
        .map_err(|e| format_error(path, "a NumPy file", e.to_string()))
}

fn format_error(path: &Path, expected: &str, found: String) -> Error {
    Error::Format {
        path: path.to_owned(),
        place: "header".into(),
        expected: expected.to_owned(),
        found,
        remedy: "give the folder of CIFAR-10-C or CIFAR-100-C as published".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Writes a file in the format of `numpy.save` (NumPy, `numpy.lib.format`, version 1.0).
    fn save(folder: &Path, name: &str, kind: &str, shape: &str, bytes: &[u8]) {
        let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        let header = format!("{text:<117}\n");
        let length = (header.len() as u16).to_le_bytes();
        let all = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes].concat();
        fs::write(folder.join(name), all).unwrap();
    }

    /// Two images: at severity s, all levels 10 s and 10 s + 1.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let labels: Vec<u8> = [7i64, 3].repeat(5).iter().flat_map(|x| x.to_le_bytes()).collect();
        save(folder.path(), "labels.npy", "<i8", "(10,)", &labels);
        let image = |i: u8| vec![10 * (1 + i / 2) + i % 2; 32 * 32 * 3];
        let levels: Vec<u8> = (0..10).flat_map(image).collect();
        save(folder.path(), "fog.npy", "|u1", "(10, 32, 32, 3)", &levels);
        folder
    }

    #[test]
    fn each_severity_is_read_from_its_range() {
        let folder = folder();
        let files = CifarC::open(folder.path()).unwrap();
        assert_eq!(files.labels(), [7, 3]);
        for severity in 1..=5 {
            let split = files.split("fog", severity).unwrap();
            assert_eq!((split.len(), split.labels()), (2, &[7, 3][..]));
            let levels = vec![10 * severity as u8; 3072];
            let more = vec![10 * severity as u8 + 1; 3072];
            let expected =
                Split::from_levels("", [levels, more].concat(), [3, 32, 32], vec![7, 3]).unwrap();
            assert_eq!(split.image_digest(), expected.image_digest());
        }
    }

    #[test]
    fn files_in_another_format_are_refused() {
        let folder = folder();
        let files = CifarC::open(folder.path()).unwrap();
        let message = |name: &str| files.split(name, 1).unwrap_err().to_string();
        assert!(message("snow").contains("snow.npy"), "{}", message("snow"));
        save(folder.path(), "snow.npy", "|u1", "(10, 32, 32)", &[0; 10 * 1024]);
        assert!(message("snow").contains("[10, 32, 32, 3]"), "{}", message("snow"));
        save(folder.path(), "snow.npy", "|u1", "(10, 32, 32, 3)", &[0; 100]);
        assert!(message("snow").contains("read"), "{}", message("snow"));
        fs::write(folder.path().join("snow.npy"), "snow").unwrap();
        assert!(message("snow").contains("NumPy"), "{}", message("snow"));
        save(folder.path(), "labels.npy", "<i8", "(3,)", &[0; 24]);
        assert!(CifarC::open(folder.path()).unwrap_err().to_string().contains("5·N"));
        save(folder.path(), "labels.npy", "<f4", "(5,)", &[0; 20]);
        assert!(CifarC::open(folder.path()).unwrap_err().to_string().contains("<f4"));
    }
}
