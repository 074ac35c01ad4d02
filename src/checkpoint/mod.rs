//! Checkpoints: recognised by their tensor names, loaded whole or not at all, saved as they came.

mod create;
mod error;
mod header;
mod layout;
mod numbers;
mod output;
mod provenance;
mod save;
mod settings;
mod timm;
mod timm_config;
mod timm_images;

#[cfg(test)]
mod tests;

pub use create::create;
pub use error::{Error, Mismatch};
pub use header::{Entry, Header};
pub use layout::Layout;
pub use numbers::Stored;
pub use output::check_writable;
pub use provenance::{PROVENANCE_KEY, Provenance, Split};
pub use settings::CONFIG_KEY;

use crate::data::{Interpolation, Preprocess, Resize};
use crate::vit::{Config, Weights};
use candle_core::{DType, Tensor};
use layout::Names;
use settings::Settings;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use timm_config::Reader;

/// What the user says where a checkpoint is silent, one field for each flag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `--heads`.
    pub heads: Option<usize>,
    /// `--patch-size`: height and width in pixels; the tensors show it, so it can only confirm.
    pub patch_size: Option<[usize; 2]>,
    /// `--image-size`: height and width in pixels.
    pub image_size: Option<[usize; 2]>,
    /// `--mean`, in units of the full scale.
    pub mean: Option<Vec<f32>>,
    /// `--std`, in units of the full scale.
    pub std: Option<Vec<f32>>,
    /// `--interpolation`.
    pub interpolation: Option<Interpolation>,
    /// `--crop-pct`: the share of the resized image's side that the crop keeps.
    pub crop_pct: Option<f64>,
    /// `--resize`, before any share.
    pub resize: Option<Resize>,
}

/// A checkpoint, read and verified.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The weights file itself, also where a folder was given.
    pub path: PathBuf,
    /// Whose tensor names it uses.
    pub layout: Layout,
    /// The architecture's name in the configuration, or width, depth and patch in words.
    pub architecture: String,
    /// The model.
    pub config: Config,
    /// What to do with images; none if nothing says.
    pub preprocess: Option<Preprocess>,
    /// The parameters, in f32.
    pub weights: Weights,
    /// Stored types and how many tensors have each, the most frequent first: `F16 (148), F32 (4)`.
    pub dtype: String,
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// The file's metadata, in its order.
    pub metadata: Vec<(String, String)>,
    /// Names of the classes, by index.
    pub class_names: Option<Vec<String>>,
    /// What neither tensors nor configuration nor flags say.
    pub assumed: Vec<String>,
    /// The latest step in its making, if planish made it.
    pub provenance: Option<Provenance>,
    names: Names,
    header: Header,
    settings: Option<Settings>,
}

impl Checkpoint {
    /// Reads a `.safetensors` file, or a folder with `model.safetensors` and `config.json`. The
    /// configuration beside a file counts too, then the one in its metadata.
    ///
    /// # Errors
    /// Whatever keeps the model from being known in full; see [`Error`].
    pub fn open(path: &Path, overrides: &Overrides) -> Result<Checkpoint, Error> {
        let given = path;
        let path = weights_file(given)?;
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let header = Header::read(&path, &bytes)?;
        let settings = Settings::find(&path, &header.metadata, given != path)?;
        let names = recognise(&path, &header)?;
        let shapes = shapes(&path, &names, &header)?;
        let structure = timm::structure(&shapes).map_err(|mut report| {
            report.rename(|canonical| names.of(canonical).join(" + "));
            Error::Tensors { path: path.clone(), layout: names.layout.name(), report }
        })?;
        let rows = shapes.get("pos_embed").and_then(|s| s.get(1).copied()).unwrap_or(0);
        let mut reader =
            Reader { path: &path, settings: settings.as_ref(), overrides, assumed: Vec::new() };
        let config = reader.complete(structure, rows)?;
        let preprocess = reader.preprocess(&config)?;
        let architecture = match reader.architecture()? {
            Some(name) => name.to_string(),
            None => describe(&config),
        };
        let assumed = reader.assumed;
        let class_names = class_names(&path, settings.as_ref(), config.classes)?;
        let weights = read_weights(&config, &names, &header, &bytes, DType::F32)?;
        let provenance = save::provenance(&path, &header.metadata)?.pop();
        Ok(Checkpoint {
            layout: names.layout,
            architecture,
            config,
            preprocess,
            weights,
            dtype: dtypes(&header),
            digest: digest(&bytes),
            metadata: header.metadata.clone(),
            class_names,
            assumed,
            provenance: provenance.and_then(|value| serde_json::from_value(value).ok()),
            path,
            names,
            header,
            settings,
        })
    }

    /// The parameters read again in F32 or F64; for a file that stores doubles, F64 is exact.
    ///
    /// # Errors
    /// If the file can no longer be read, or has changed.
    pub fn weights_as(&self, dtype: DType) -> Result<Weights, Error> {
        read_weights(&self.config, &self.names, &self.header, &self.reread()?, dtype)
    }

    /// The file's bytes once more, if they are still the same.
    fn reread(&self) -> Result<Vec<u8>, Error> {
        let bytes = std::fs::read(&self.path).map_err(Error::io(&self.path, "read again"))?;
        match digest(&bytes) == self.digest {
            true => Ok(bytes),
            false => Err(Error::Changed { path: self.path.clone() }),
        }
    }

    /// The checkpoint's own name of a canonical tensor, or its names where the layout splits it.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] if the model has no such tensor.
    pub fn file_tensors(&self, canonical: &str) -> Result<Vec<String>, Error> {
        match self.weights.index(canonical) {
            Some(_) => Ok(self.names.of(canonical)),
            None => Err(Names::unknown(canonical, self.weights.names().iter().map(String::as_str))),
        }
    }

    /// Canonical tensors (gradients, products, weights) under the checkpoint's own names.
    ///
    /// # Errors
    /// If a tensor cannot be split as its layout asks.
    pub fn to_file(&self, canonical: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Error> {
        self.names.to_file(canonical)
    }

    /// Tensors under the checkpoint's own names, as canonical ones.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] for a name this checkpoint does not have.
    pub fn from_file(&self, own: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, Error> {
        let known = || self.header.entries.iter().map(|entry| entry.name.as_str());
        if let Some((name, _)) = own.iter().find(|(name, _)| !known().any(|k| k == name)) {
            return Err(Names::unknown(name, known()));
        }
        self.names.from_file(own)
    }
}

/// The weights file that a path means.
fn weights_file(path: &Path) -> Result<PathBuf, Error> {
    let not = |found: &str| Error::NotACheckpoint { path: path.into(), found: found.into() };
    let about = std::fs::metadata(path).map_err(Error::io(path, "find the checkpoint"))?;
    if about.is_dir() {
        let inside = path.join("model.safetensors");
        return if inside.is_file() { Ok(inside) } else { Err(not("a folder without it")) };
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => Ok(path.to_path_buf()),
        Some(other) => Err(not(&format!("a .{other} file"))),
        None => Err(not("a file without an extension")),
    }
}

fn recognise(path: &Path, header: &Header) -> Result<Names, Error> {
    let own: Vec<&str> = header.entries.iter().map(|entry| entry.name.as_str()).collect();
    let prefix = layout::wrapper(&own);
    let stripped: Vec<&str> = own.iter().map(|name| &name[prefix.len()..]).collect();
    let (layout, matching) = Layout::nearest(&stripped);
    // Half the names decide: with fewer, lists of missing tensors would only bewilder.
    if matching == 0 || matching * 2 < own.len() {
        let names: Vec<String> = own.iter().map(|name| format!("`{name}`")).collect();
        return Err(Error::Layout {
            path: path.into(),
            found: if names.is_empty() { "no tensors".into() } else { error::few(&names) },
            layout: layout.name(),
            matching,
            total: own.len(),
        });
    }
    Ok(Names { layout, prefix })
}

/// Shapes of canonical tensors; names the layout does not know keep their own.
fn shapes(path: &Path, names: &Names, header: &Header) -> Result<timm::Shapes, Error> {
    let mut out = timm::Shapes::new();
    for entry in &header.entries {
        if Stored::parse(&entry.dtype).is_none() {
            return Err(Error::Dtype {
                path: path.into(),
                tensor: entry.name.clone(),
                found: entry.dtype.clone(),
            });
        }
        let stripped = entry.name.get(names.prefix.len()..).unwrap_or(&entry.name);
        let part = names.layout.part(stripped);
        let canonical = part.map_or(stripped.to_string(), |part| part.canonical);
        match out.get_mut(&canonical) {
            None => {
                out.insert(canonical, entry.shape.clone());
            }
            Some(whole) => {
                if let (Some(rows), Some(more)) = (whole.first_mut(), entry.shape.first()) {
                    *rows = rows.saturating_add(*more);
                }
            }
        }
    }
    Ok(out)
}

fn read_weights(
    config: &Config,
    names: &Names,
    header: &Header,
    bytes: &[u8],
    dtype: DType,
) -> Result<Weights, Error> {
    let entries: std::collections::HashMap<&str, &Entry> =
        header.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut tensors = Vec::new();
    for (canonical, _) in config.tensors() {
        let mut parts = Vec::new();
        for own in names.of(&canonical) {
            let entry = entries
                .get(own.as_str())
                .ok_or_else(|| Names::unknown(&own, entries.keys().copied()))?;
            parts.push(header.tensor(entry, bytes, dtype)?);
        }
        tensors.push(if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? });
    }
    Ok(Weights::new(config, tensors)?)
}

impl Header {
    /// A tensor's bytes in the whole file's.
    fn bytes_of<'a>(&self, entry: &Entry, bytes: &'a [u8]) -> &'a [u8] {
        let (start, end) = entry.span;
        bytes.get(self.data_start + start..self.data_start + end).unwrap_or(&[])
    }

    /// A tensor's values.
    fn tensor(&self, entry: &Entry, bytes: &[u8], dtype: DType) -> Result<Tensor, Error> {
        let stored = Stored::parse(&entry.dtype).unwrap_or(Stored::F32);
        Ok(stored.decode(self.bytes_of(entry, bytes), &entry.shape, dtype)?)
    }
}

fn class_names(
    path: &Path,
    settings: Option<&Settings>,
    classes: usize,
) -> Result<Option<Vec<String>>, Error> {
    let Some(settings) = settings else { return Ok(None) };
    let key = "label_names";
    let nested = "pretrained_cfg.label_names";
    let names = match settings.names(key)? {
        Some(names) => Some(names),
        None => settings.names(nested)?,
    };
    match names {
        Some(names) if names.len() != classes => Err(Error::Contradiction {
            path: path.into(),
            place: settings.place.clone(),
            key: "number of label_names",
            stated: names.len().to_string(),
            shown: classes.to_string(),
            tensor: "`head.weight`".into(),
        }),
        names => Ok(names),
    }
}

fn describe(config: &Config) -> String {
    let [height, width] = config.patch_size;
    format!(
        "ViT of width {}, depth {}, {} heads, patch {height}×{width}",
        config.dim, config.depth, config.heads
    )
}

fn dtypes(header: &Header) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &header.entries {
        *counts.entry(&entry.dtype).or_default() += 1;
    }
    if let (1, Some((only, _))) = (counts.len(), counts.iter().next()) {
        return only.to_string();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    let parts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} ({n})")).collect();
    parts.join(", ")
}

/// SHA-256 in hex.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
