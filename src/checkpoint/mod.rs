//! Checkpoints. The layout is recognised by the tensor names. Loading is all or nothing, and saving
//! keeps the layout, names, types and order.

mod adapter;
mod adapter_config;
mod adapter_write;
mod arguments;
mod class_names;
mod convnext;
mod create;
mod error;
mod header;
mod in_place;
mod info;
mod layout;
mod load;
mod lock;
mod mixer;
mod names;
mod numbers;
mod on_disk;
mod output;
mod patch;
mod provenance;
mod read;
mod reader;
mod refused;
mod save;
mod settings;
mod spelling;
mod stated;
mod timm;
mod timm_config;
mod timm_grid;
mod timm_images;
mod timm_names;
mod torchvision;
mod transformers;
mod transformers_config;
mod transformers_images;

#[cfg(test)]
mod tests;

pub use adapter::Adapter;
pub use adapter_write::{NewAdapter, check_adapter_output, standing_adapter};
pub use create::create;
pub use error::{Error, Mismatch};
pub use header::{Entry, Header};
pub use in_place::{InPlace, Undone, undo};
pub use info::{AdapterInfo, CheckpointInfo};
pub use layout::Layout;
pub use load::Load;
pub use numbers::Stored;
pub use output::{check_writable, standing};
pub use patch::{PATCH_KEY, Patch};
pub use provenance::{PROVENANCE_KEY, Provenance, Split};
pub use refused::Refused;
pub use save::{Rounding, Saved};
pub use settings::{CONFIG_KEY, PREPROCESSOR_KEY};

use crate::data::Preprocess;
use crate::models::{Config, Network, Weights};
use candle_core::{DType, Tensor};
use layout::Family;
use names::Names;
use on_disk::OnDisk;
use read::{describe, dtypes, position_rows, read_weights, structure};
use reader::{Dialect, Reader, check_network};
use settings::Settings;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A checkpoint, read and verified.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Path of the weights file, also if a folder was given.
    pub path: PathBuf,
    /// Layout of the tensor names.
    pub layout: Layout,
    /// How the layout was recognised: `timm: 152 of 152 tensor names`, and the ignored names.
    pub recognised: String,
    /// The architecture's name in the configuration, or width, depth and patch size in words.
    pub architecture: String,
    /// The configuration that states this name, which may not match the tensors; `None` if the
    /// words describe the tensors.
    pub architecture_from: Option<String>,
    /// The model.
    pub config: Config,
    /// Its network.
    pub network: Arc<Network>,
    /// Image preprocessing; `None` if it is not stated.
    pub preprocess: Option<Preprocess>,
    /// The parameters, in f32.
    pub weights: Weights,
    /// Stored types with the number of tensors of each, most frequent first: `F16 (148), F32 (4)`.
    pub dtype: String,
    /// SHA-256 of the file, in hex. With an adapter, a fingerprint of both.
    pub digest: String,
    /// The file's metadata, in order.
    pub metadata: Vec<(String, String)>,
    /// Names of the classes, by index.
    pub class_names: Option<Vec<String>>,
    /// Assumptions where neither tensors nor configuration nor options state a value.
    pub assumed: Vec<String>,
    /// The options it was opened with.
    pub loaded_with: Load,
    /// The latest step in its making, if planish made it and this version can parse the entry.
    /// Saving keeps the whole list in any case.
    pub provenance: Option<Provenance>,
    /// All steps in its making that this version can parse, oldest first.
    pub history: Vec<Provenance>,
    adapted: Option<Arc<Adapted>>,
    names: Names,
    /// The header with the shapes of the adapter's head, if there is one.
    header: Header,
    settings: Option<Settings>,
    images: Option<Settings>,
}

/// A network with the parameters of an adapter beside those of its base, and their values.
pub type Unmerged = (Network, Weights);

/// The adapter of a checkpoint, and what is known about the file of its base.
#[derive(Debug)]
struct Adapted {
    adapter: Adapter,
    header: Header,
    digest: String,
}

impl Adapted {
    /// The steps that a checkpoint with the merged adapter records before its own.
    fn steps(&self) -> Result<Vec<serde_json::Value>, Error> {
        if !self.adapter.steps.is_empty() {
            return Ok(self.adapter.steps.clone());
        }
        let step = Provenance {
            method: "adapter".into(),
            perturb: Vec::new(),
            update: Vec::new(),
            seed: 0,
            version: env!("CARGO_PKG_VERSION").into(),
            parent_digest: Some(self.digest.clone()),
            data_digest: None,
            split: None,
            sample: None,
            settings: serde_json::json!({
                "adapter": self.adapter.path.display().to_string(),
                "adapter_digest": self.adapter.digest,
            }),
        };
        Ok(vec![provenance::to_value(&step)?])
    }
}

impl Checkpoint {
    /// Reads a `.safetensors` file, or a folder with `model.safetensors` and `config.json`. For a
    /// file, the configuration in its metadata has priority over a `config.json` next to it; for a
    /// folder, the `config.json` has priority.
    ///
    /// # Errors
    /// Anything that keeps the model from being fully known; see [`Error`].
    pub fn open(path: &Path, overrides: &Load) -> Result<Checkpoint, Error> {
        overrides.check()?;
        let given = path;
        let path = weights_file(given)?;
        let adapter = overrides.adapter.as_deref().map(adapter::read).transpose()?;
        let file = OnDisk::open(&path)?;
        let mut header = file.header.clone();
        let mut settings = Settings::find(&path, &header.metadata, given != path)?;
        let names = Names::recognise(&path, &header);
        // A plain answer for a network that planish does not compute comes first.
        let family = names.as_ref().map_or(Family::Vit, |names| names.layout.family());
        settings.as_ref().map_or(Ok(()), |settings| check_network(settings, family))?;
        let mut names = names?;
        let dialect = Dialect::of(settings.as_ref(), names.layout);
        let adapter = adapter.map(|found| found.resolve(names.layout)).transpose()?;
        if let Some(adapter) = &adapter {
            header = adapter.overlaid(&header, &names);
            names = Names::recognise(&path, &header)?;
            settings = settings.map(|found| adapter.classes_in(&found, dialect));
        }
        let structure = structure(&path, &names, &header);
        let structure = match &adapter {
            Some(adapter) => structure.map_err(|source| adapter.misfit(source))?,
            None => structure?,
        };
        let rows = position_rows(&names, &header);
        let images = match dialect {
            Dialect::Timm => None,
            Dialect::Transformers => Settings::find_images(&path, &header.metadata, given != path)?,
        };
        let mut reader = Reader {
            path: &path,
            layout: names.layout,
            dialect,
            settings: settings.as_ref(),
            images: images.as_ref(),
            overrides,
            assumed: Vec::new(),
        };
        let config = match structure {
            Config::Vit(config) => Config::Vit(reader.complete(config, rows)?),
            Config::Mixer(config) => Config::Mixer(reader.complete_mixer(config)?),
            Config::ConvNext(config) => Config::ConvNext(reader.complete_convnext(config)?),
        };
        let network = Arc::new(config.network()?);
        let preprocess = reader.preprocess(&config)?;
        let (architecture, architecture_from) = match (reader.architecture()?, &settings) {
            (Some(name), Some(named_by)) => (name.to_string(), Some(named_by.place.clone())),
            _ => (describe(&config), None),
        };
        let class_names = reader.class_names(config.classes())?;
        let assumed = reader.assumed;
        let (mut weights, mut digest) =
            read_weights(&network, &names, &file, DType::F32, adapter.as_ref())?;
        let mut steps = provenance::provenance(&path, &header.metadata)?;
        let adapted = match adapter {
            None => None,
            Some(adapter) => {
                adapter.check(&network)?;
                adapter.merge(&network, &mut weights)?;
                steps.extend(adapter.steps.iter().cloned());
                let both = adapter.digest_with(&digest);
                let digest = std::mem::replace(&mut digest, both);
                Some(Arc::new(Adapted { adapter, header: file.header.clone(), digest }))
            }
        };
        let steps: Vec<Option<Provenance>> =
            steps.into_iter().map(|step| serde_json::from_value(step).ok()).collect();
        Ok(Checkpoint {
            layout: names.layout,
            recognised: names.recognition(header.entries.len()),
            architecture,
            architecture_from,
            config,
            network,
            preprocess,
            weights,
            dtype: dtypes(&header),
            digest,
            metadata: header.metadata.clone(),
            class_names,
            assumed,
            loaded_with: overrides.clone(),
            provenance: steps.last().cloned().flatten(),
            history: steps.into_iter().flatten().collect(),
            path,
            adapted,
            names,
            header,
            settings,
            images,
        })
    }

    /// The adapter it was read with.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapted.as_ref().map(|adapted| &adapted.adapter)
    }

    /// SHA-256 of the file, without an adapter, in hex.
    fn file_digest(&self) -> &str {
        self.adapted.as_ref().map_or(&self.digest, |adapted| &adapted.digest)
    }

    /// Reads the parameters again as F32 or F64. F64 is exact for a file that stores doubles.
    ///
    /// # Errors
    /// The file cannot be read any more, or has changed.
    pub fn weights_as(&self, dtype: DType) -> Result<Weights, Error> {
        let (file, adapter) = (self.reopen()?, self.adapter());
        let (mut weights, digest) =
            read_weights(&self.network, &self.names, &file, dtype, adapter)?;
        self.unchanged(&digest)?;
        if let Some(adapter) = adapter {
            adapter.merge(&self.network, &mut weights)?;
        }
        Ok(weights)
    }

    /// The network with the adapter's A, B and m as parameters of its own, instead of merged, and its
    /// weights as F32 or F64; `None` without an adapter.
    ///
    /// # Errors
    /// An adapter of a convolution; those of [`Checkpoint::weights_as`].
    pub fn unmerged(&self, dtype: DType) -> Result<Option<Unmerged>, Error> {
        let Some(adapter) = self.adapter() else { return Ok(None) };
        let (network, names, file) = (&self.network, &self.names, self.reopen()?);
        let (weights, digest) = read_weights(network, names, &file, dtype, Some(adapter))?;
        self.unchanged(&digest)?;
        adapter.beside(network, weights).map(Some)
    }

    /// Opens the file again. The caller checks with [`Checkpoint::unchanged`] that the tensors are
    /// the same.
    fn reopen(&self) -> Result<OnDisk, Error> {
        let changed = |error| match error {
            Error::Header { .. } => Error::Changed { path: self.path.clone() },
            other => other,
        };
        let file = OnDisk::open(&self.path).map_err(changed)?;
        let header = self.adapted.as_ref().map_or(&self.header, |adapted| &adapted.header);
        match file.header == *header {
            true => Ok(file),
            false => Err(Error::Changed { path: self.path.clone() }),
        }
    }

    /// Checks that a digest is that of the file that was read.
    fn unchanged(&self, digest: &str) -> Result<(), Error> {
        match digest == self.file_digest() {
            true => Ok(()),
            false => Err(Error::Changed { path: self.path.clone() }),
        }
    }

    /// The names in the file of a canonical tensor; several if the layout splits it.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] if the model has no such tensor.
    pub fn file_tensors(&self, canonical: &str) -> Result<Vec<String>, Error> {
        match self.weights.index(canonical) {
            Some(_) => Ok(self.names.of(canonical)),
            None => Err(Names::unknown(canonical, self.weights.names().iter().map(String::as_str))),
        }
    }

    /// Converts canonical tensors (gradients, products, weights) to the names in the file.
    ///
    /// # Errors
    /// A tensor cannot be split as its layout requires.
    pub fn to_file(&self, canonical: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Error> {
        self.names.to_file(canonical)
    }

    /// Converts tensors under the names in the file to canonical ones: the inverse of
    /// [`Checkpoint::to_file`].
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] for a name this checkpoint does not have.
    pub fn to_canonical(&self, own: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, Error> {
        let known = || self.header.entries.iter().map(|entry| entry.name.as_str());
        if let Some((name, _)) = own.iter().find(|(name, _)| !known().any(|k| k == name)) {
            return Err(Names::unknown(name, known()));
        }
        self.names.to_canonical(own)
    }
}

/// The weights file of a path: the file itself, or `model.safetensors` in a folder.
///
/// # Errors
/// [`Error::NotACheckpoint`] for a file of another kind; [`Error::Io`].
pub fn weights_file(path: &Path) -> Result<PathBuf, Error> {
    let not = |found: &str| Error::NotACheckpoint { path: path.into(), found: found.into() };
    let about = std::fs::metadata(path).map_err(Error::io(path, "find the checkpoint"))?;
    if about.is_dir() {
        let inside = path.join("model.safetensors");
        let index = "model.safetensors.index.json";
        return match inside.is_file() {
            true => Ok(inside),
            false if let Some(base) = adapter::base_of(path) => {
                Err(Error::IsAdapter { path: path.into(), base })
            }
            false if path.join(index).is_file() => Err(Error::Sharded { path: path.into(), index }),
            false => Err(not("a folder without model.safetensors")),
        };
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => Ok(path.to_path_buf()),
        Some(other) => Err(not(&format!("a .{other} file"))),
        None => Err(not("a file without an extension")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
