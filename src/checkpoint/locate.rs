//! Finds the weights file of a path, and its format.

use super::{Error, adapter, hub};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Weights in a folder, the preferred first.
const IN_FOLDER: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// How a checkpoint is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One safetensors file.
    Safetensors,
    /// Several files with an index.
    Shards,
    /// A file of `torch.save`.
    Torch,
    /// NumPy's `.npz`.
    Numpy,
}

impl Format {
    /// In words, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "a safetensors file",
            Format::Shards => "a checkpoint of several files",
            Format::Torch => "a file of torch.save",
            Format::Numpy => "a NumPy archive",
        }
    }
}

/// The format of a file by its name.
pub(super) fn format(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?;
    if name.ends_with(".index.json") {
        return Some(Format::Shards);
    }
    match name.strip_suffix(".tar").filter(|rest| rest.ends_with(".pth")).unwrap_or(name) {
        name if name.ends_with(".safetensors") => Some(Format::Safetensors),
        name if name.ends_with(".npz") => Some(Format::Numpy),
        name if [".pth", ".pt", ".bin", ".ckpt"].iter().any(|end| name.ends_with(end)) => {
            Some(Format::Torch)
        }
        _ => None,
    }
}

/// The weights file of a path: the file itself, or the one in a folder. A folder may hold one file
/// or shards, as safetensors or, if there are none, as PyTorch's `.bin`. A path that does not exist
/// may be the id of a model in the Hugging Face cache.
///
/// # Errors
/// [`Error::NotACheckpoint`] for a file of another kind; [`Error::IsAdapter`], [`Error::NotCached`];
/// [`Error::Io`].
pub fn weights_file(path: &Path) -> Result<PathBuf, Error> {
    let not = |found: &str| Error::NotACheckpoint { path: path.into(), found: found.into() };
    let about = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && format(path).is_none() => {
            match hub::folder(path) {
                Some(folder) => return weights_file(&folder?),
                None => Err(error),
            }
        }
        about => about,
    };
    let about = about.map_err(Error::io(path, "find the checkpoint"))?;
    if about.is_dir() {
        if let Some(found) = IN_FOLDER.iter().map(|name| path.join(name)).find(|p| p.is_file()) {
            return Ok(found);
        }
        return Err(match adapter::base_of(path) {
            Some(base) => Error::IsAdapter { path: path.into(), base },
            None => not(&dangling(path).unwrap_or("a folder without weights".into())),
        });
    }
    if format(path).is_some() {
        return Ok(path.to_path_buf());
    }
    Err(match path.extension().and_then(|e| e.to_str()) {
        Some(other) => not(&format!("a .{other} file")),
        None => not("a file without an extension"),
    })
}

/// Weights in a folder that are a link to nowhere, in words.
fn dangling(folder: &Path) -> Option<String> {
    let link = IN_FOLDER.iter().find(|name| folder.join(name).is_symlink())?;
    Some(format!("\"{link}\", a link to a file that does not exist"))
}
