//! Checkpoints. The layout is recognised by the tensor names. Loading is all or nothing, and saving
//! keeps the layout, names, types and order.

mod adapter;
mod adapter_config;
mod adapter_write;
mod arguments;
mod backbone;
mod choice;
mod class_names;
mod clip;
mod contents;
mod convnext;
mod create;
mod dinov2;
mod error;
mod header;
mod hub;
mod in_place;
mod info;
mod layout;
mod load;
mod locate;
mod lock;
mod mixer;
mod names;
mod npz;
mod numbers;
mod on_disk;
mod output;
mod patch;
mod provenance;
mod read;
mod reader;
mod refused;
mod rules;
mod save;
mod settings;
mod shards;
mod spelling;
mod stated;
mod timm;
mod timm_config;
mod timm_grid;
mod timm_images;
mod timm_names;
mod torch;
mod torchvision;
mod transformers;
mod transformers_config;
mod transformers_images;
mod view;
mod vit_in_jax;

#[cfg(test)]
mod tests;

pub use adapter::Adapter;
pub use adapter_write::{ClassNames, NewAdapter, check_adapter_output, standing_adapter};
pub use create::create;
pub use error::{Error, Mismatch};
pub use header::{Entry, Header};
pub use in_place::{InPlace, Undone, undo};
pub use info::{AdapterInfo, CheckpointInfo};
pub use layout::Layout;
pub use load::Load;
pub use locate::weights_file;
pub use numbers::TensorDtype;
pub use output::{check_space, check_writable, standing};
pub use patch::{PATCH_KEY, Patch};
pub use provenance::{PROVENANCE_KEY, Provenance, RecordedSplit, SelectionImages, StepSettings};
pub use refused::Refused;
pub use save::{Rounding, SavedCheckpoint};
pub use settings::{CONFIG_KEY, PREPROCESSOR_KEY};

use crate::data::Preprocess;
use crate::models::{Config, Network, Weights};
use candle_core::{DType, Tensor};
use error::few;
use layout::Family;
use names::Names;
use on_disk::OnDisk;
use read::{describe, dtypes, position_rows, read_weights, structure};
use reader::{Dialect, Reader, check_network};
use settings::Settings;
use sha2::{Digest, Sha256};
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
    /// SHA-256 of the file, in hex. If options choose one of its models or rename tensors, of the
    /// file's digest and these options. With an adapter, a fingerprint of both.
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
    /// Whether the file has no head; see [`Checkpoint::open_backbone`].
    pub headless: bool,
    /// The options without those that are not needed for a file written from this one.
    remaining: Load,
    file_digest: String,
    adapted: Option<Arc<Adapted>>,
    names: Names,
    /// The header with the shapes of the adapter's head, if there is one, or of a new one.
    header: Header,
    /// The header of the file, if it has no head.
    bare_header: Option<Header>,
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
            settings: StepSettings::of(
                &serde_json::json!({
                    "adapter": self.adapter.path.display().to_string(),
                    "adapter_digest": self.adapter.digest,
                }),
                None,
            )
            .map_err(|source| Error::Json { place: PROVENANCE_KEY.into(), source })?,
        };
        Ok(vec![provenance::to_value(&step)?])
    }
}

impl Checkpoint {
    /// Reads a file or folder of any known format (see [`weights_file`]) with its `config.json`. For
    /// a file, the configuration in its metadata has priority over a `config.json` next to it; for a
    /// folder, the `config.json` has priority.
    ///
    /// # Errors
    /// Anything that keeps the model from being fully known; see [`Error`].
    pub fn open(path: &Path, overrides: &Load) -> Result<Checkpoint, Error> {
        Self::open_any(path, overrides, None)
    }

    /// Like [`Checkpoint::open`], but a file without a head, a bare backbone, gets a head of zeros for
    /// so many classes; see [`Checkpoint::headless`].
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn open_backbone(
        path: &Path,
        overrides: &Load,
        classes: usize,
    ) -> Result<Checkpoint, Error> {
        Self::open_any(path, overrides, Some(classes))
    }

    /// Checks that no weight is NaN or infinite.
    ///
    /// # Errors
    /// [`Error::NotFinite`], with the tensors' names in the file.
    pub fn check_finite(&self) -> Result<(), Error> {
        let mut tensors = Vec::new();
        for (i, param) in self.network.params().iter().enumerate() {
            let values = self.weights.tensor(i).flatten_all()?.to_vec1::<f32>()?;
            if values.iter().any(|value| !value.is_finite()) {
                tensors.push(format!("\"{}\"", self.names.of(&param.name).join("\", \"")));
            }
        }
        match tensors.is_empty() {
            true => Ok(()),
            false => Err(Error::NotFinite { path: self.path.clone(), tensors: few(&tensors) }),
        }
    }

    fn open_any(
        path: &Path,
        overrides: &Load,
        classes: Option<usize>,
    ) -> Result<Checkpoint, Error> {
        overrides.check()?;
        let given = path;
        let path = weights_file(given)?;
        let adapter = overrides.adapter.as_deref().map(adapter::read).transpose()?;
        let file = OnDisk::open_any(&path, overrides.weights.as_deref())?;
        let mut header = file.header.clone();
        let remaining = remaining(overrides, &file);
        let mut settings = Settings::find(&path, &header.metadata, given != path)?;
        let names = Names::recognise(&path, &header, &remaining);
        // Refuse unsupported networks first: later errors are less clear.
        let family = names.as_ref().map_or(Family::Vit, |names| names.layout.family());
        settings.as_ref().map_or(Ok(()), |settings| check_network(settings, family))?;
        let mut names = names?;
        let dialect = Dialect::of(settings.as_ref(), names.layout);
        let adapter = adapter.map(|found| found.resolve(names.layout)).transpose()?;
        if let Some(adapter) = &adapter {
            header = adapter.overlaid(&header, &names);
            names = Names::recognise(&path, &header, &remaining)?;
            settings = settings.map(|found| adapter.classes_in(&found, dialect));
        }
        let mut found = structure(&path, &names, &header);
        let mut bare_header = None;
        if let (Err(Error::NoClassifier { .. }), None, Some(classes)) = (&found, &adapter, classes)
        {
            let whole = backbone::with_head(&names, &header, classes);
            names = Names::recognise(&path, &whole, &remaining)?;
            settings = settings.map(|own| own.with_classes(dialect, None, classes));
            found = structure(&path, &names, &whole);
            bare_header = Some(std::mem::replace(&mut header, whole));
        }
        let headless = bare_header.is_some();
        let structure = match &adapter {
            Some(adapter) => found.map_err(|source| adapter.misfit(source))?,
            None => found?,
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
        if adapter.as_ref().is_some_and(Adapter::has_foreign_head) && class_names.is_some() {
            let text =
                "class names: those of the base, because the adapter has a head but no names";
            reader.assumed.push(text.into());
        }
        let assumed = reader.assumed;
        let (mut weights, file_digest) =
            read_weights(&network, &names, &file, DType::F32, adapter.as_ref(), headless)?;
        let mut digest = identity(&file_digest, &names, overrides);
        let mut steps = provenance::provenance(&path, &header.metadata)?;
        let adapted = match adapter {
            None => None,
            Some(adapter) => {
                adapter.check(&network)?;
                adapter.check_base(&digest)?;
                adapter.merge(&network, &mut weights)?;
                steps.extend(adapter.steps.iter().cloned());
                let both = adapter.digest_with(&digest);
                let digest = std::mem::replace(&mut digest, both);
                Some(Arc::new(Adapted { adapter, header: file.header.clone(), digest }))
            }
        };
        let steps: Vec<Option<Provenance>> = steps.iter().map(Provenance::parse).collect();
        Ok(Checkpoint {
            layout: names.layout,
            recognised: names.recognition(header.entries.len(), file.chosen.as_deref()),
            architecture,
            architecture_from,
            config,
            network,
            preprocess,
            weights,
            dtype: dtypes(&header),
            digest,
            file_digest,
            metadata: header.metadata.clone(),
            class_names,
            assumed,
            loaded_with: overrides.clone(),
            remaining,
            provenance: steps.last().cloned().flatten(),
            history: steps.into_iter().flatten().collect(),
            headless,
            path,
            adapted,
            names,
            header,
            bare_header,
            settings,
            images,
        })
    }

    /// The adapter it was read with.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapted.as_ref().map(|adapted| &adapted.adapter)
    }

    /// Reads the parameters again as F32 or F64. F64 is exact for a file that stores doubles.
    ///
    /// # Errors
    /// The file cannot be read any more, or has changed.
    pub fn weights_as(&self, dtype: DType) -> Result<Weights, Error> {
        let (file, adapter) = (self.reopen()?, self.adapter());
        let (mut weights, digest) =
            read_weights(&self.network, &self.names, &file, dtype, adapter, self.headless)?;
        self.unchanged(&digest)?;
        if let Some(adapter) = adapter {
            adapter.merge(&self.network, &mut weights)?;
        }
        Ok(weights)
    }

    /// The options with which a file written from this checkpoint opens.
    pub fn options_of_saved(&self) -> &Load {
        &self.remaining
    }

    /// The network with the adapter's A, B and m as parameters of its own, instead of merged, and its
    /// weights as F32 or F64; `None` without an adapter.
    ///
    /// # Errors
    /// An adapter of a convolution; those of [`Checkpoint::weights_as`].
    pub fn unmerged(&self, dtype: DType) -> Result<Option<Unmerged>, Error> {
        let Some(adapter) = self.adapter() else { return Ok(None) };
        let (network, names, file) = (&self.network, &self.names, self.reopen()?);
        let (weights, digest) = read_weights(network, names, &file, dtype, Some(adapter), false)?;
        self.unchanged(&digest)?;
        adapter.beside(network, weights).map(Some)
    }

    /// Opens the file again. The caller checks with [`Checkpoint::unchanged`] that the tensors are
    /// the same.
    fn reopen(&self) -> Result<OnDisk, Error> {
        let changed = |error| match error {
            Error::Header { .. } | Error::Damaged { .. } => {
                Error::Changed { path: self.path.clone() }
            }
            other => other,
        };
        let wanted = self.loaded_with.weights.as_deref();
        let file = OnDisk::open_any(&self.path, wanted).map_err(changed)?;
        let own = self.bare_header.as_ref().unwrap_or(&self.header);
        let header = self.adapted.as_ref().map_or(own, |adapted| &adapted.header);
        match file.header == *header {
            true => Ok(file),
            false => Err(Error::Changed { path: self.path.clone() }),
        }
    }

    /// Checks that a digest is that of the file that was read.
    fn unchanged(&self, digest: &str) -> Result<(), Error> {
        match digest == self.file_digest {
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
        let known = || self.names.entries(&self.header).map(|entry| entry.name.as_str());
        if let Some((name, _)) = own.iter().find(|(name, _)| !known().any(|k| k == name)) {
            return Err(Names::unknown(name, known()));
        }
        self.names.to_canonical(own)
    }
}

/// The options that a written file needs. An adapter is merged into it, and its weights are already
/// chosen if the format of this one has several models.
fn remaining(load: &Load, file: &OnDisk) -> Load {
    let load = load.without_adapter();
    match file.chosen {
        Some(_) => Load { weights: None, ..load },
        None => load,
    }
}

/// What tells this model from all others: the file, and the options by which several models can be
/// read from it.
fn identity(file_digest: &str, names: &Names, load: &Load) -> String {
    if names.chosen.is_none() && load.rename.is_empty() && load.ignore.is_empty() {
        return file_digest.to_string();
    }
    let chosen = names.chosen.as_deref().unwrap_or_default();
    let text = serde_json::json!([file_digest, chosen, load.rename, load.ignore]).to_string();
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
