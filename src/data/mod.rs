//! Images and labels: readers, preprocessing, splits.
//!
//! A reader ([`idx`], [`cifar`], [`folder`], [`csv`], [`tensors`]) turns files into a [`Split`].
//! [`Split::pixels`] applies [`Preprocess`] and [`Augment`] and returns `(B,C,H,W)`. Image files
//! are decoded on every access; only the other formats are held in memory. [`choose`] assigns
//! splits to roles, [`folds`] divides a split by class, [`order`] defines every random stream.

mod ahead;
mod augment;
mod channels;
mod choose;
pub mod cifar;
mod cifar_c;
mod class_error;
mod classes;
pub mod csv;
mod decode;
mod error;
mod files;
mod fitted;
mod flat;
pub mod folder;
pub mod folds;
pub mod idx;
mod info;
mod inverse_dct;
mod jpeg;
mod libjpeg;
mod options;
pub mod order;
mod origin;
mod prepare;
mod preprocess;
mod resample;
mod split;
mod store;
pub mod tensors;
mod transform;
mod walk;

use std::path::{Path, PathBuf};

pub(crate) use ahead::Ahead;
pub use augment::Augment;
pub use channels::channels_changed;
pub use choose::{Role, RoleRequest, Roles, SplitProvenance, choose, require};
pub use cifar_c::CifarC;
pub use class_error::ClassError;
pub use classes::{
    ClassOrder, first_difference, names_classes, number_classes, renumber, unmatched,
};
pub use decode::DecodeError;
pub use error::Error;
pub use files::DamagedFile;
pub use fitted::{FinetuneSubset, Sample};
pub use info::DataInfo;
pub use options::{DataOptions, OnBadSample, TrainOn};
pub use origin::ValOrigin;
pub use prepare::Augmented;
pub use preprocess::{CropOffset, Interpolation, Moment, Preprocess, Resize};
pub(crate) use resample::filtered;
pub use split::Split;

/// A data set: its splits, with the names of its files.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Folder or file.
    pub path: PathBuf,
    /// `idx`, `cifar`, `folder`, `csv`, `tensors` or, without labels, `images`.
    pub kind: &'static str,
    /// Notes for readers of the figures.
    pub notes: Vec<String>,
    splits: Vec<Split>,
}

impl DataSet {
    /// Opens `tensors:FILE`, `tensors:FOLDER`, a CSV file, or a folder. The folder's content decides whether it
    /// is read as IDX files, CIFAR's binary files, or folders of image files.
    ///
    /// # Errors
    /// Those of [`idx::open`], [`cifar::open`], [`folder::open`], [`csv::open`] and [`tensors::open`].
    pub fn open(spec: &str) -> Result<Self, Error> {
        let found = |path: PathBuf, kind, splits| Self { path, kind, notes: Vec::new(), splits };
        if let Some(path) = spec.strip_prefix("tensors:").map(PathBuf::from) {
            let splits = tensors::open(&path)?;
            return Ok(found(path, "tensors", splits));
        }
        let path = PathBuf::from(spec);
        if csv::is_csv(&path) {
            let splits = csv::open(&path)?;
            return Ok(found(path, "csv", splits));
        }
        idx::check_folder(&path)?;
        if let Some(splits) = idx::open(&path)? {
            return Ok(found(path, "idx", splits));
        }
        if let Some(splits) = cifar::open(&path)? {
            return Ok(found(path, "cifar", splits));
        }
        let (splits, notes) = folder::open(&path)?;
        Ok(Self { notes, ..found(path, "folder", splits) })
    }

    /// Leaves out image files that are damaged or cannot be decoded; see [`Split::sound`]. Returns
    /// the error of each.
    ///
    /// # Errors
    /// [`Error::AllBad`] if no images of a split remain.
    pub fn drop_bad(&mut self, preprocess: Option<&Preprocess>) -> Result<Vec<Error>, Error> {
        let mut all = Vec::new();
        for split in &mut self.splits {
            let (sound, bad) = split.sound(preprocess)?;
            *split = sound;
            all.extend(bad);
        }
        Ok(all)
    }

    /// The damaged files among those decoded so far, split by split; see [`Split::damaged`].
    pub fn damaged(&self) -> Vec<DamagedFile> {
        self.splits.iter().flat_map(Split::damaged).collect()
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

    /// The single split `all` of a file that states no role.
    pub fn only(&self) -> Option<&Split> {
        self.split("all")
    }
}

/// The error for a path that does not exist, or is not of the expected kind.
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
