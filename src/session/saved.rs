//! Logits that one run saved and another reads.

use super::tensors::{self, f32_bytes, write_tensors};
use crate::evaluate::{Error as Unscored, Predictions, PredictionsInfo, Scores, Temperatures};
use crate::output;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why saved logits cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; run `planish eval --dump` again", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no safetensors file.
    #[error("{}: is no sound safetensors file ({source}); run `planish eval --dump` again",
        .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// A tensor is missing or of another kind.
    #[error("{}: expected `{name}` as {expected}, found {found}; save it by `planish eval --dump`",
        .path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A temperature or label is none.
    #[error("{}: `{name}` holds {found} at image {image}, expected {expected}; save it by `planish \
        eval --dump`", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// Position of the image, from 0.
        image: usize,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The file is not the one that the report was made with.
    #[error(
        "{}: its SHA-256 is {found}, but {} was made with {expected}; run `planish eval --dump` \
         again, for both", .path.display(), .report.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The report that names it.
        report: PathBuf,
        /// Digest in the report.
        expected: String,
        /// The file's.
        found: String,
    },
    /// The logits cannot be scored.
    #[error("{}: {source}", .path.display())]
    Unscored {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Unscored,
    },
}

/// Logits and the temperature of each image.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The logits.
    pub predictions: Predictions,
    /// T of each image, above 0.
    pub temperatures: Vec<f64>,
    /// Whether they were told, and not taken for 1.
    pub tempered: bool,
}

impl Saved {
    /// Scores as the logits are, and at the temperatures.
    pub fn scores(&self) -> [Scores; 2] {
        let at = |image: usize| self.temperatures.get(image).copied().unwrap_or(1.0);
        [Scores::at(&self.predictions, |_| 1.0), Scores::at(&self.predictions, at)]
    }
}

/// Writes `logits` (N,C) f32, `labels` (N) i64 and `temperature` (N) f64, the one that each image
/// was scored at.
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

/// Whether the file holds logits rather than a model: its header tells.
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

/// Bytes of a safetensors header at most, as the format has it.
const MAX_HEADER: u64 = 100_000_000;

/// Reads what [`write()`] wrote, or another program in its place; without `temperature` T is 1.
/// `report` is the report that names it, with the digest that it tells.
///
/// # Errors
/// Anything that keeps the logits from being scored.
pub fn read(path: &Path, report: Option<(&Path, &str)>) -> Result<Saved, Error> {
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
    Ok(Saved { predictions, temperatures, tempered })
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

/// Finds out before any work whether the file can be written.
///
/// # Errors
/// Those of [`output::check`].
pub fn check(path: Option<&Path>) -> Result<(), output::Error> {
    path.map_or(Ok(()), output::check)
}
