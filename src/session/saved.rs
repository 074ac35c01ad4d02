//! Saved logits.

use super::tensors::{self, f32_bytes, write_tensors};
use crate::evaluate::{PredictionsInfo, Scores, Temperatures};
use crate::output;
use crate::predictions::{Error as Unscored, Predictions};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why saved logits cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; save the logits again by `planish eval` with `dump`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not a safetensors file.
    #[error("{}: is not a valid safetensors file ({source}); save the logits again by `planish eval` with `dump`",
        .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: safetensors::SafeTensorError,
    },
    /// A tensor is missing, or of the wrong type or shape.
    #[error("{}: expected \"{name}\" as {expected}, found {found}; save the logits by `planish eval` with `dump`",
        .path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// The expected tensor.
        expected: String,
        /// The tensor found.
        found: String,
    },
    /// A temperature or label is invalid.
    #[error("{}: \"{name}\" holds {found} at image {image}, expected {expected}; save the logits by \
        `planish eval` with `dump`", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// Position of the image, from 0.
        image: usize,
        /// The expected value.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// The file differs from the one that the report was made with.
    #[error(
        "{}: its SHA-256 is {found}, but {} was made with {expected}; save both again \
         by `planish eval` with `dump`", .path.display(), .report.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The report with the digest.
        report: PathBuf,
        /// Digest in the report.
        expected: String,
        /// Digest of the file.
        found: String,
    },
    /// The logits cannot be scored.
    #[error("{}: {source}", .path.display())]
    Unscored {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Unscored,
    },
}

/// Logits and the temperature of each image.
#[derive(Clone, Debug)]
pub struct SavedLogits {
    /// The logits.
    pub predictions: Predictions,
    /// T of each image, above 0.
    pub temperatures: Vec<f64>,
    /// Whether the temperatures were in the file; otherwise they are 1.
    pub tempered: bool,
}

impl SavedLogits {
    /// Scores at T = 1, and at the temperatures.
    pub fn scores(&self) -> [Scores; 2] {
        let at = |image: usize| self.temperatures.get(image).copied().unwrap_or(1.0);
        [Scores::at(&self.predictions, |_| 1.0), Scores::at(&self.predictions, at)]
    }
}

/// Writes `logits` (N,C) f32, `labels` (N) i64 and `temperature` (N) f64, the temperature at which
/// each image was scored.
///
/// # Errors
/// Those of [`write_tensors`]; a file that cannot be read back.
pub fn write(
    path: &Path,
    predictions: &Predictions,
    temperatures: &Temperatures,
) -> crate::error::Result<PredictionsInfo> {
    let logits = predictions.values().iter().map(|&z| z as f32);
    let labels = predictions.labels().iter().flat_map(|&y| i64::from(y).to_le_bytes());
    let (n, c) = (predictions.images(), predictions.classes());
    let scored_at = (0..n).flat_map(|image| temperatures.at(image).to_le_bytes());
    let tensors: [tensors::Raw; 3] = [
        ("logits".into(), Dtype::F32, vec![n, c], f32_bytes(logits)),
        ("labels".into(), Dtype::I64, vec![n], labels.collect()),
        ("temperature".into(), Dtype::F64, vec![n], scored_at.collect()),
    ];
    write_tensors(path, &tensors)?;
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    Ok(PredictionsInfo { path: path.display().to_string(), digest: digest(&bytes) })
}

/// Whether the file has logits rather than a model, according to its header.
pub fn is_saved(path: &Path) -> bool {
    let header = || {
        let mut file = std::fs::File::open(path).ok()?;
        let mut length = [0; 8];
        file.read_exact(&mut length).ok()?;
        let mut text = Vec::new();
        file.take(u64::from_le_bytes(length).min(MAX_HEADER)).read_to_end(&mut text).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    };
    header().is_some_and(|header| header.get("logits").is_some())
}

/// Maximum length of a safetensors header in bytes, as the format defines it.
const MAX_HEADER: u64 = 100_000_000;

/// Reads a file written by [`write()`] or by another program; T is 1 if there is no `temperature`.
/// `report` is the report with the file's name, and the digest in it.
///
/// # Errors
/// Anything that prevents scoring the logits.
pub fn read(path: &Path, report: Option<(&Path, &str)>) -> Result<SavedLogits, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    if let Some((report, expected)) = report {
        let found = digest(&bytes);
        if found != expected {
            let (path, report, expected) = (path.into(), report.into(), expected.into());
            return Err(Error::Changed { path, report, expected, found });
        }
    }
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|source| Error::Damaged { path: path.into(), source })?;
    let wrong = |name, expected: &str, found| Error::Tensor {
        path: path.into(),
        name,
        expected: expected.into(),
        found,
    };
    let get = |name: &'static str, kind: Dtype, expected: &str| {
        let tensor = tensors.tensor(name).map_err(|_| wrong(name, expected, "none".into()))?;
        match tensor.dtype() == kind {
            true => Ok(tensor),
            false => Err(wrong(name, expected, told(&tensor))),
        }
    };
    let logits = get("logits", Dtype::F32, "F32 of shape (N,C)")?;
    let &[n, classes] = logits.shape() else {
        return Err(wrong("logits", "F32 of shape (N,C)", told(&logits)));
    };
    let of_images = |tensor: TensorView<'_>, name, kind: &str| match *tensor.shape() == [n] {
        true => Ok(tensor.data().to_vec()),
        false => Err(wrong(name, &format!("{kind} of shape ({n})"), told(&tensor))),
    };
    let labels = of_images(get("labels", Dtype::I64, "I64")?, "labels", "I64")?;
    let value = |name, image, expected, found| Error::Value {
        path: path.into(),
        name,
        image,
        expected,
        found,
    };
    let labels: Vec<u32> = eights(&labels, i64::from_le_bytes)
        .enumerate()
        .map(|(i, y)| {
            u32::try_from(y).map_err(|_| value("labels", i, "a class from 0", y.to_string()))
        })
        .collect::<Result<_, _>>()?;
    let tempered = tensors.names().contains(&"temperature");
    let temperatures = match tempered {
        false => vec![1.0; n],
        true => {
            let given = of_images(get("temperature", Dtype::F64, "F64")?, "temperature", "F64")?;
            eights(&given, f64::from_le_bytes).collect()
        }
    };
    if let Some(i) = temperatures.iter().position(|t| !(t.is_finite() && *t > 0.0)) {
        let found = temperatures[i].to_string();
        return Err(value("temperature", i, "a number above 0", found));
    }
    let (values, _) = logits.data().as_chunks::<4>();
    let values = values.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
    let unscored = |source| Error::Unscored { path: path.into(), source };
    let predictions = Predictions::new(values, classes, &labels).map_err(unscored)?;
    predictions.check_logits().map_err(unscored)?;
    Ok(SavedLogits { predictions, temperatures, tempered })
}

fn told(tensor: &TensorView) -> String {
    format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape())
}

fn eights<T>(bytes: &[u8], of: fn([u8; 8]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<8>().0.iter().map(move |b| of(*b))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks, before any work, that the file can be written.
///
/// # Errors
/// Those of [`output::check`].
pub fn check(path: Option<&Path>) -> Result<(), output::Error> {
    path.map_or(Ok(()), output::check)
}
