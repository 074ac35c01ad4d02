//! Images and labels: readers, preprocessing, splits.
//!
//! A reader ([`idx`], [`cifar`], [`folder`], [`csv`],
//! [`webdataset`], [`parquet`], [`tensors`]) turns files into a [`Split`].
//! [`Split::pixels`] applies [`Preprocess`] and [`Augment`] and returns `(B,C,H,W)`. Image files
//! are decoded on every access; only the other formats are held in memory. [`choose`] assigns
//! splits to roles, [`folds`] divides a split by class, [`order`] defines every random stream.

mod ahead;
mod augment;
mod braces;
mod channels;
mod choose;
pub mod cifar;
mod cifar_c;
pub mod cifar_python;
mod class_error;
mod classes;
pub mod csv;
mod decode;
mod domains;
mod error;
mod files;
mod fitted;
mod flat;
pub mod folder;
pub mod folds;
mod gif;
pub mod idx;
mod info;
mod inverse_dct;
mod join;
mod jpeg;
mod libjpeg;
mod options;
pub mod order;
mod origin;
pub mod parquet;
mod parquet_table;
mod prepare;
mod preprocess;
mod resample;
pub mod sources;
mod split;
mod store;
pub mod tensors;
mod tiff;
mod transform;
mod walk;
pub mod webdataset;

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
pub use split::Split;

/// A data set: its splits, with the names of its files.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Folder or file.
    pub path: PathBuf,
    /// `idx`, `cifar`, `folder`, `csv`, `webdataset`, `parquet`, `tensors`, `several` or, without labels, `images`.
    pub kind: &'static str,
    /// Whether labels are class names, which must be the checkpoint's. Otherwise they are class numbers, with or
    /// without names.
    pub(crate) by_name: bool,
    /// Notes for readers of the figures.
    pub notes: Vec<String>,
    splits: Vec<Split>,
}

impl DataSet {
    /// Opens `tensors:FILE`, `tensors:FOLDER`, a CSV file, tar archives (`train-{000..012}.tar`), Parquet
    /// files, or a folder. The folder's content decides whether it
    /// is read as IDX files, CIFAR's binary files or pickles, or folders of image files.
    ///
    /// # Errors
    /// Those of [`idx::open`], [`cifar::open`], [`cifar_python::open`], [`folder::open`], [`csv::open`], [`webdataset::open`], [`parquet::open`] and [`tensors::open`].
    pub fn open(spec: &str) -> Result<Self, Error> {
        Self::open_with(spec, true)
    }

    /// The same; with `whole`, each file that a list names must exist.
    fn open_with(spec: &str, whole: bool) -> Result<Self, Error> {
        let found = |path: PathBuf, kind, splits| {
            let by_name = matches!(kind, "folder" | "csv");
            Self { path, kind, by_name, notes: Vec::new(), splits }
        };
        if let Some(path) = spec.strip_prefix("tensors:").map(PathBuf::from) {
            let splits = tensors::open(&path)?;
            return Ok(found(path, "tensors", splits));
        }
        let path = PathBuf::from(spec);
        if csv::is_csv(&path) {
            let splits = csv::open(&path, whole)?;
            return Ok(found(path, "csv", splits));
        }
        if !path.is_dir()
            && let Some(set) = Self::containers(spec)?
        {
            return Ok(set);
        }
        idx::check_folder(&path)?;
        if let Some(splits) = idx::open(&path)? {
            return Ok(found(path, "idx", splits));
        }
        if let Some(splits) = cifar::open(&path)? {
            return Ok(found(path, "cifar", splits));
        }
        if let Some(splits) = cifar_python::open(&path)? {
            return Ok(found(path, "cifar", splits));
        }
        if let Some(set) = Self::containers(spec)? {
            return Ok(set);
        }
        let (splits, notes) = folder::open(&path)?;
        Ok(Self { notes, ..found(path, "folder", splits) })
    }

    /// Tar archives or Parquet files.
    fn containers(spec: &str) -> Result<Option<Self>, Error> {
        let path = PathBuf::from(spec);
        if let Some(webdataset::Shards { splits, notes, named }) = webdataset::open(spec)? {
            return Ok(Some(Self { path, kind: "webdataset", by_name: named, notes, splits }));
        }
        let set = |parquet::Found { splits, named }| Self {
            path,
            kind: "parquet",
            by_name: named,
            notes: Vec::new(),
            splits,
        };
        Ok(parquet::open(spec)?.map(set))
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
