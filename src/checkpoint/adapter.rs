//! Adapters as peft saves them: a folder with `adapter_config.json` and `adapter_model.safetensors`,
//! which holds A and B of each adapted module, m for DoRA, and whole modules such as the head.

use super::adapter_config::{AdapterConfig, CONFIG_FILE};
use super::adapter_write::{ClassNames, module};
use super::error::few;
use super::header::Header;
use super::layout::LayoutPart;
use super::names::Names;
use super::on_disk::OnDisk;
use super::provenance::provenance;
use super::reader::Dialect;
use super::settings::Settings;
use super::{Entry, Error, Layout, Provenance, TensorDtype, Unmerged, hex};
use crate::models::lora::{
    Factors, LoraUpdate, Target, adapted, is_named, with_factors, with_rows,
};
use crate::models::{Network, Weights};
use candle_core::{DType, Tensor};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the weights in an adapter's folder.
pub(super) const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// peft wraps the model in two modules of these names.
pub(super) const WRAPPER: &str = "base_model.model.";
/// Metadata key of the class names in an adapter that planish wrote: a JSON list, or `null` if the head
/// was trained on images without names. Without the key they are those of the base.
pub(super) const CLASSES_KEY: &str = "planish.classes";

/// An adapter of a checkpoint. Its tensors are stored as f64, which is exact for every stored type.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its folder.
    pub path: PathBuf,
    /// SHA-256 of its configuration and weights, in hex.
    pub digest: String,
    /// The steps in its making that planish recorded, oldest first.
    pub(super) steps: Vec<Value>,
    /// Names of the classes of its head.
    pub(super) class_names: ClassNames,
    /// A, B and m by target.
    pub(super) updates: BTreeMap<Target, Factors>,
    /// Whole tensors by target. The target of a bias is named by the bias.
    pub(super) whole: BTreeMap<Target, Tensor>,
}

/// An adapter as read, before its modules are found in the network.
pub(super) struct Found {
    path: PathBuf,
    config: AdapterConfig,
    digest: String,
    metadata: Vec<(String, String)>,
    steps: Vec<Value>,
    tensors: Vec<(String, Tensor)>,
}

/// Reads the two files of an adapter's folder.
///
/// # Errors
/// [`Error::NotAnAdapter`]; those of the configuration and of the header.
pub(super) fn read(path: &Path) -> Result<Found, Error> {
    let not = |found: &str| Error::NotAnAdapter { path: path.into(), found: found.into() };
    let about = std::fs::metadata(path).map_err(Error::io(path, "find the adapter"))?;
    if !about.is_dir() {
        return Err(not("a file"));
    }
    let (config, weights) = (path.join(CONFIG_FILE), path.join(WEIGHTS_FILE));
    if !config.is_file() {
        return Err(not("a folder without adapter_config.json"));
    }
    if !weights.is_file() {
        let old = path.join("adapter_model.bin").is_file();
        return Err(not(match old {
            true => "adapter_model.bin, which peft saved with safe_serialization=False",
            false => "a folder without adapter_model.safetensors",
        }));
    }
    let text = std::fs::read(&config).map_err(Error::io(&config, "read"))?;
    let mut hash = Sha256::new_with_prefix(b"planish adapter 1");
    hash.update(Sha256::digest(&text));
    let config = AdapterConfig::read(&config, String::from_utf8_lossy(&text).into_owned())?;
    let file = OnDisk::open(&weights)?;
    let mut tensors = Vec::new();
    let digest = file.digest_with(|entry, bytes| {
        let stored = TensorDtype::parse(&entry.dtype).ok_or_else(|| Error::Dtype {
            path: weights.clone(),
            tensor: entry.name.clone(),
            found: entry.dtype.clone(),
        })?;
        tensors.push((entry.name.clone(), stored.decode(&bytes, &entry.shape, DType::F64)?));
        Ok(())
    })?;
    hash.update(&digest);
    Ok(Found {
        path: path.into(),
        config,
        digest: hex(&hash.finalize()),
        steps: provenance(&weights, &file.header.metadata)?,
        metadata: file.header.metadata,
        tensors,
    })
}

/// The base that the adapter in a folder names; `None` if the folder holds no adapter.
pub(super) fn base_of(path: &Path) -> Option<Option<String>> {
    let text = std::fs::read_to_string(path.join(CONFIG_FILE)).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    Some(config["base_model_name_or_path"].as_str().map(str::to_string))
}

/// The tensors of one module.
#[derive(Default)]
struct Module {
    a: Option<Tensor>,
    b: Option<Tensor>,
    m: Option<Tensor>,
}

impl Module {
    /// A and B as matrices, and m; otherwise what is wrong.
    fn factors(self, dora: bool) -> Result<(Tensor, Tensor, Option<Tensor>), &'static str> {
        let (Some(a), Some(b)) = (self.a, self.b) else { return Err("no lora_A or lora_B") };
        match (dora, &self.m) {
            (true, None) => return Err("no lora_magnitude_vector"),
            (false, Some(_)) => {
                return Err("lora_magnitude_vector, although `use_dora` is not true");
            }
            _ => {}
        }
        let both = matrix(&a).zip(matrix(&b)).ok_or("lora_A and lora_B are not matrices")?;
        Ok((both.0, both.1, self.m))
    }
}

impl Found {
    /// Finds the adapter's modules among the names of a layout. If several names denote one module, as
    /// in adapters for both spellings of transformers, the first counts.
    ///
    /// # Errors
    /// [`Error::AdapterModules`], with the modules that the layout does not have;
    /// [`Error::AdapterTensors`] for an incomplete module or a missing head.
    pub fn resolve(self, layout: Layout) -> Result<Adapter, Error> {
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        let mut whole: Vec<(String, Tensor)> = Vec::new();
        for (name, tensor) in &self.tensors {
            let name = name.strip_prefix(WRAPPER).unwrap_or(name);
            // Some versions of peft keep the names of its own wrappers.
            let name = name.replace(".modules_to_save.", ".").replace(".default.", ".");
            let name = name.as_str();
            let ends = |end: &str| name.strip_suffix(end);
            let magnitude =
                || ends(".lora_magnitude_vector").or_else(|| ends(".lora_magnitude_vector.weight"));
            let tensor = tensor.clone();
            if let Some(module) = ends(".lora_A.weight") {
                modules.entry(module.into()).or_default().a = Some(tensor);
            } else if let Some(module) = ends(".lora_B.weight") {
                modules.entry(module.into()).or_default().b = Some(tensor);
            } else if let Some(module) = magnitude() {
                modules.entry(module.into()).or_default().m = Some(tensor);
            } else {
                whole.push((name.to_string(), tensor));
            }
        }
        let stored: Vec<&str> = modules.keys().map(String::as_str).collect();
        let stored = stored.into_iter().chain(whole.iter().filter_map(|(name, _)| module(name)));
        let stored: Vec<String> = stored.map(str::to_string).collect();
        let mut strange = Vec::new();
        let mut incomplete = Vec::new();
        let mut updates = BTreeMap::new();
        for (module, found) in modules {
            let Some(target) = target(layout, &format!("{module}.weight")) else {
                strange.push(module);
                continue;
            };
            match found.factors(self.config.dora) {
                Ok((a, b, m)) => {
                    let scale = self.config.scale(&module, a.dims()[0])?;
                    let m = m.map(|m| m.flatten_all()).transpose()?;
                    updates.entry(target).or_insert(Factors { a, b, m, scale });
                }
                Err(what) => incomplete.push(format!("{module}: {what}")),
            }
        }
        let mut tensors = BTreeMap::new();
        for (name, tensor) in whole {
            match target(layout, &name) {
                Some(target) => {
                    tensors.entry(target).or_insert(tensor);
                }
                None => strange.push(name),
            }
        }
        let (path, layout_name) = (self.path.clone(), layout.name());
        if !strange.is_empty() {
            strange.sort_unstable();
            return Err(Error::AdapterModules { path, layout: layout_name, found: few(&strange) });
        }
        let absent = |wanted: &&String| !stored.iter().any(|module| is_named(module, wanted));
        for module in self.config.whole.iter().filter(absent) {
            incomplete
                .push(format!("{module}: no parameters, although `modules_to_save` names it"));
        }
        if updates.is_empty() && incomplete.is_empty() {
            incomplete.push("no lora_A and lora_B of any module".into());
        }
        if !incomplete.is_empty() {
            return Err(Error::AdapterTensors { path, found: few(&incomplete) });
        }
        let classes = self.metadata.iter().find(|(key, _)| key == CLASSES_KEY);
        let classes = classes.and_then(|(_, list)| serde_json::from_str(list).ok());
        Ok(Adapter {
            path,
            digest: self.digest,
            steps: self.steps,
            class_names: classes.map_or(ClassNames::OfBase, ClassNames::Own),
            updates,
            whole: tensors,
        })
    }
}

/// The matrix (rows, columns) of a linear layer or of a convolution.
fn matrix(tensor: &Tensor) -> Option<Tensor> {
    let rows = *tensor.dims().first().filter(|_| tensor.rank() >= 2 && tensor.elem_count() > 0)?;
    tensor.reshape((rows, ())).ok()
}

/// Prefixes that training scripts and wrappers add to every name.
const WRAPPERS: [&str; 7] = [
    "module.",
    "_orig_mod.",
    "model.",
    "state_dict.",
    "state_dict_ema.",
    "model_ema.",
    "timm_model.",
];

/// A name without the prefixes of wrappers.
fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}

/// The target of a tensor's name: in the layout, in its other spelling, or in another layout of the
/// same networks.
fn target(layout: Layout, name: &str) -> Option<Target> {
    let name = unwrapped(name);
    let first = [Some(layout), layout.sibling()].into_iter().flatten();
    let others = Layout::ALL.into_iter().filter(|other| other.family() == layout.family());
    let part = first.chain(others).find_map(|layout| layout.part(name))?;
    let LayoutPart { canonical, index, count } = part;
    Some(Target { weight: canonical, index, count })
}

impl Adapter {
    /// The file's header with the shapes of the adapter's whole tensors, and with those that the file
    /// lacks, such as the head of a bare backbone.
    pub(super) fn overlaid(&self, header: &Header, names: &Names) -> Header {
        let mut out = header.clone();
        for (target, tensor) in &self.whole {
            let Some(own) = names.of(&target.weight).into_iter().nth(target.index) else {
                continue;
            };
            match out.entries.iter_mut().find(|entry| entry.name == own) {
                Some(entry)
                    if names.layout.canonical_shape(&target.weight, &entry.shape).is_some() =>
                {
                    // The file may have further dimensions of size 1.
                    if entry.shape.iter().product::<usize>() != tensor.elem_count() {
                        entry.shape = tensor.dims().to_vec();
                    }
                }
                Some(entry) => entry.shape = tensor.dims().to_vec(),
                None => out.entries.push(Entry {
                    name: own,
                    dtype: TensorDtype::F32.name().into(),
                    shape: tensor.dims().to_vec(),
                    span: (usize::MAX, usize::MAX),
                }),
            }
        }
        out.packed()
    }

    /// The configuration of the base with the classes of the adapter's head.
    pub(super) fn classes_in(&self, settings: &Settings, dialect: Dialect) -> Settings {
        let Some(head) = self.replacement("head.weight") else { return settings.clone() };
        let classes = head.dims().first().copied().unwrap_or(0);
        match &self.class_names {
            ClassNames::OfBase if settings.classes(dialect) == Some(classes) => settings.clone(),
            ClassNames::OfBase => settings.with_classes(dialect, None, classes),
            ClassNames::Own(names) => {
                let names = names.as_deref().filter(|names| names.len() == classes);
                settings.with_classes(dialect, names, classes)
            }
        }
    }

    /// The error for a base that is no classifier, even with the adapter's head.
    pub(super) fn misfit(&self, source: Error) -> Error {
        let head = self.replacement("head.weight").is_some();
        Error::AdapterBase { path: self.path.clone(), head, source: Box::new(source) }
    }

    /// Whether another program wrote it with a head. Such a file does not state the classes.
    pub(super) fn has_foreign_head(&self) -> bool {
        self.replacement("head.weight").is_some() && self.steps.is_empty()
    }

    /// Checks that it was trained on the checkpoint of this digest, if it states its base.
    ///
    /// # Errors
    /// [`Error::OtherBase`].
    pub(super) fn check_base(&self, digest: &str) -> Result<(), Error> {
        let parent = self.steps.last().and_then(Provenance::parse).and_then(|s| s.parent_digest);
        match parent.filter(|parent| parent != digest) {
            None => Ok(()),
            Some(expected) => {
                let found = digest.to_string();
                Err(Error::OtherBase { path: self.path.clone(), expected, found })
            }
        }
    }

    /// Checks the shapes against the network.
    ///
    /// # Errors
    /// [`Error::AdapterShapes`], with every tensor that does not fit.
    pub(super) fn check(&self, network: &Network) -> Result<(), Error> {
        let mut unfit = Vec::new();
        for (target, Factors { a, b, m, .. }) in &self.updates {
            let shape = network.param(&target.weight).map(|i| &network.params()[i].shape);
            let Some(shape) = shape else {
                unfit.push(format!("{} (the network has no such weight)", target.module()));
                continue;
            };
            let rows = target.rows(shape[0]).len();
            let columns: usize = shape[1..].iter().product();
            // Each output of a depthwise convolution has a filter of its own.
            let depthwise = shape.len() == 4 && target.weight.contains("conv_dw");
            let fits = !depthwise
                && shape.len() >= 2
                && a.dims()[1] == columns
                && b.dims() == [rows, a.dims()[0]]
                && m.as_ref().is_none_or(|m| m.elem_count() == rows);
            if !fits {
                unfit.push(format!(
                    "{} (the base has {rows}×{columns}, the adapter {}×{})",
                    target.module(),
                    b.dims()[0],
                    a.dims()[1]
                ));
            }
        }
        for (target, tensor) in &self.whole {
            let shape = network.param(&target.weight).map(|i| &network.params()[i].shape);
            let expected = shape.map(|shape| shape.iter().product::<usize>() / target.count.max(1));
            if expected != Some(tensor.elem_count()) {
                unfit.push(format!(
                    "{} (the base has {}, the adapter {:?})",
                    target.weight,
                    shape.map_or("none".into(), |shape| format!("{shape:?}")),
                    tensor.dims()
                ));
            }
        }
        match unfit.is_empty() {
            true => Ok(()),
            false => Err(Error::AdapterShapes { path: self.path.clone(), found: few(&unfit) }),
        }
    }

    /// The whole tensor that replaces one of the network's; `None` if the adapter has none, or only
    /// some blocks of its rows.
    pub(super) fn replacement(&self, name: &str) -> Option<&Tensor> {
        let target = Target { weight: name.into(), index: 0, count: 1 };
        self.whole.get(&target)
    }

    /// The weights with the adapter's whole tensors in place of their own.
    pub(super) fn replace(&self, network: &Network, weights: &mut Weights) -> Result<(), Error> {
        for (target, tensor) in &self.whole {
            let Some(i) = network.param(&target.weight) else { continue };
            let old = weights.tensor(i);
            let at = target.rows(old.dim(0)?);
            let mut shape = old.dims().to_vec();
            shape[0] = at.len();
            let rows = tensor.reshape(shape)?.to_dtype(old.dtype())?;
            let new = with_rows(old, at, &rows)?;
            weights.set(i, new);
        }
        Ok(())
    }

    /// The weights with the adapter merged.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub(super) fn merge(&self, network: &Network, weights: &mut Weights) -> Result<(), Error> {
        self.replace(network, weights)?;
        for (target, factors) in &self.updates {
            let Some(i) = network.param(&target.weight) else { continue };
            let old = weights.tensor(i);
            let at = target.rows(old.dim(0)?);
            let rows = factors.merge(&old.narrow(0, at.start, at.len())?)?;
            let new = with_rows(old, at, &rows)?;
            weights.set(i, new);
        }
        Ok(())
    }

    /// Its updates, as a network declares them.
    pub fn updates(&self) -> Vec<LoraUpdate> {
        let one = |(target, factors): (&Target, &Factors)| LoraUpdate {
            target: target.clone(),
            rank: factors.a.dims()[0],
            scale: factors.scale,
            magnitude: factors.m.is_some(),
        };
        self.updates.iter().map(one).collect()
    }

    /// The network with the adapter as parameters of its own, and its weights, from those of the base.
    ///
    /// # Errors
    /// [`crate::models::Error::NotAdaptable`] for an adapter of a convolution.
    pub(super) fn beside(
        &self,
        network: &Network,
        mut weights: Weights,
    ) -> Result<Unmerged, Error> {
        self.replace(network, &mut weights)?;
        let updates = self.updates();
        let adapted = adapted(network, &updates)?;
        let factors: Vec<_> = updates.into_iter().zip(self.updates.values().cloned()).collect();
        let weights = with_factors(&adapted, &weights, &factors)?;
        Ok((adapted, weights))
    }

    /// The fingerprint of a base and this adapter.
    pub(super) fn digest_with(&self, base: &str) -> String {
        let mut hash = Sha256::new_with_prefix(b"planish base and adapter 1");
        hash.update(base);
        hash.update(&self.digest);
        hex(&hash.finalize())
    }
}
