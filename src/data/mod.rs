//! Images and labels: readers, preprocessing, splits.
//!
//! Image bytes → a reader ([`idx`], [`tensors`]) → [`Split`] → [`Split::pixels`], which applies
//! [`Preprocess`] and [`Augment`] → `(B,C,H,W)`. [`choose`] decides which split plays which role,
//! [`folds`] divides a split by class, [`order`] holds every random stream.

mod augment;
mod choose;
mod error;
pub mod folds;
pub mod idx;
pub mod order;
mod preprocess;
mod resample;
mod split;
pub mod tensors;
mod transform;

use std::path::{Path, PathBuf};

pub use augment::Augment;
pub use choose::{Request, Role, Roles, SplitProvenance, choose, require};
pub use error::Error;
pub use preprocess::{Interpolation, Preprocess, Resize};
pub use split::Split;

/// A data set as it was found: its splits, by the names its files have.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Folder or file.
    pub path: PathBuf,
    /// `idx` or `tensors`.
    pub kind: &'static str,
    splits: Vec<Split>,
}

impl DataSet {
    /// Opens an IDX folder, or `tensors:FILE` or `tensors:FOLDER`.
    ///
    /// # Errors
    /// Those of [`idx::open`] and [`tensors::open`].
    pub fn open(spec: &str) -> Result<Self, Error> {
        match spec.strip_prefix("tensors:").map(PathBuf::from) {
            Some(path) => Ok(Self { splits: tensors::open(&path)?, path, kind: "tensors" }),
            None => {
                let path = PathBuf::from(spec);
                idx::check_folder(&path)?;
                Ok(Self { splits: idx::open(&path)?, path, kind: "idx" })
            }
        }
    }

    /// All splits.
    pub fn splits(&self) -> &[Split] {
        &self.splits
    }

    /// The split of this name; `validation` is the same as `val`.
    pub fn split(&self, name: &str) -> Option<&Split> {
        let name = if name == "validation" { "val" } else { name };
        self.splits.iter().find(|split| split.name() == name)
    }

    /// The training split.
    pub fn train(&self) -> Option<&Split> {
        self.split("train")
    }

    /// The validation split.
    pub fn val(&self) -> Option<&Split> {
        self.split("val")
    }

    /// The test split.
    pub fn test(&self) -> Option<&Split> {
        self.split("test")
    }

    /// The lone split `all` of a file that names no role.
    pub fn only(&self) -> Option<&Split> {
        self.split("all")
    }
}

/// The error for a path that is not there, or is not of the kind expected.
fn missing(path: &Path, expected: &str, remedy: &str) -> Error {
    let found = match (path.is_dir(), path.exists()) {
        (true, _) => "a folder",
        (_, true) => "a file",
        _ => "nothing",
    };
    Error::Missing {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        remedy: remedy.to_owned(),
    }
}
