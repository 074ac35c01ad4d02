//! Writes an adapter as peft's folder, with `adapter_config.json` and `adapter_model.safetensors`.
//!
//! transformers 4 and 5 give the modules of a Vision Transformer other names, and peft finds modules by
//! the names of the version at hand. So an adapter of such a model is written under both names; peft
//! ignores those that the model does not have.

use super::adapter::{CLASSES_KEY, WEIGHTS_FILE, WRAPPER};
use super::adapter_config::CONFIG_FILE;
use super::output::{check_writable, is_file_name, replace, replace_with};
use super::provenance::to_value;
use super::{
    Checkpoint, Entry, Error, Header, PROVENANCE_KEY, Provenance, TensorDtype, transformers,
};
use crate::models::lora::{Factors, LoraUpdate, Target, is_named};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// An adapter to write.
#[derive(Clone, Debug)]
pub struct NewAdapter {
    /// Rank r of every module.
    pub rank: usize,
    /// α.
    pub alpha: f64,
    /// Whether the scale is α/√r.
    pub rank_stabilised: bool,
    /// Whether it is DoRA.
    pub magnitude: bool,
    /// A, B and m by target.
    pub updates: Vec<(Target, Factors)>,
    /// Tensors that are stored whole, such as the head's, by canonical name.
    pub whole: Vec<(String, Tensor)>,
    /// Names of the classes of the head.
    pub class_names: ClassNames,
}

/// Names of the classes of an adapter's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassNames {
    /// Those of the checkpoint that it is for.
    OfBase,
    /// Those of the images that the head was trained on; `None` if these have no names.
    Own(Option<Vec<String>>),
}

/// The module of a parameter: its name without `weight` or `bias`.
pub(super) fn module(name: &str) -> Option<&str> {
    name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))
}

impl Checkpoint {
    /// The names of the parts of a canonical tensor, without wrappers, in each spelling of the library:
    /// first as in the file.
    fn spellings(&self, canonical: &str) -> Vec<Vec<String>> {
        let own = self.names.of(canonical);
        let own: Vec<String> = own
            .iter()
            .map(|name| name.strip_prefix(self.names.prefix.as_str()).unwrap_or(name).to_string())
            .collect();
        let other = self.layout.sibling().map(|sibling| {
            let rooted = |name: String| match transformers::in_backbone(&name) {
                true => format!("{}{name}", self.names.root()),
                false => name,
            };
            sibling.names(canonical).into_iter().map(rooted).collect::<Vec<_>>()
        });
        let other = other.filter(|other| *other != own);
        std::iter::once(own).chain(other).collect()
    }

    /// The parts of a weight that can have an adapter of their own, each with the names of its module:
    /// the canonical one, and those of the library.
    pub fn adapter_targets(&self, weight: &str) -> Vec<(Target, Vec<String>)> {
        let spellings = self.spellings(weight);
        let count = spellings.first().map_or(1, Vec::len);
        let part = |index: usize| {
            let target = Target { weight: weight.into(), index, count };
            let of_library = spellings.iter().filter_map(|names| module(names.get(index)?));
            let names = module(weight).into_iter().chain(of_library).map(str::to_string);
            (target, names.collect())
        };
        (0..count).map(part).collect()
    }

    /// Checks that peft can load an adapter of these modules.
    ///
    /// # Errors
    /// [`Error::NoAdapterFormat`].
    pub fn check_adapter(&self, updates: &[LoraUpdate]) -> Result<(), Error> {
        updates.iter().try_for_each(|update| self.modules(&update.target).map(|_| ()))
    }

    /// The library's names of a target's module.
    fn modules(&self, target: &Target) -> Result<Vec<String>, Error> {
        let unfit =
            || Error::NoAdapterFormat { module: target.module(), layout: self.layout.name() };
        let own = self.names.of(&target.weight).into_iter().nth(target.index).ok_or_else(unfit)?;
        // A 1×1 convolution has the numbers of a linear layer, but other adapters.
        let linear = |entry: &&Entry| entry.name == own && entry.shape.len() == 2;
        self.header.entries.iter().find(linear).ok_or_else(unfit)?;
        let names = self.spellings(&target.weight);
        let found = names.iter().map(|names| module(names.get(target.index)?).map(str::to_string));
        found.collect::<Option<_>>().ok_or_else(unfit)
    }

    /// Writes an adapter of this checkpoint to a folder; returns the weights file. If this checkpoint
    /// was read with an adapter, the new one belongs to the merged weights, which no file holds.
    ///
    /// # Errors
    /// [`Error::Output`] if `out` is not a folder; [`Error::NoAdapterFormat`]; [`Error::Io`].
    pub fn save_adapter(
        &self,
        out: &Path,
        new: &NewAdapter,
        provenance: &Provenance,
    ) -> Result<PathBuf, Error> {
        check_adapter_output(out)?;
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        // Modules by spelling.
        let mut adapted: Vec<BTreeSet<String>> = Vec::new();
        for (target, Factors { a, b, m, .. }) in &new.updates {
            for (i, module) in self.modules(target)?.into_iter().enumerate() {
                let mut put = |end: &str, tensor: &Tensor| {
                    tensors.insert(format!("{WRAPPER}{module}.{end}"), tensor.clone());
                };
                put("lora_A.weight", a);
                put("lora_B.weight", b);
                m.iter().for_each(|m| put("lora_magnitude_vector", m));
                if adapted.len() <= i {
                    adapted.push(BTreeSet::new());
                }
                adapted[i].insert(module);
            }
        }
        let mut whole: BTreeSet<String> = BTreeSet::new();
        for part in self.names.to_file(&new.whole)? {
            let name =
                part.0.strip_prefix(self.names.prefix.as_str()).unwrap_or(&part.0).to_string();
            whole.extend(module(&name).map(str::to_string));
            tensors.insert(format!("{WRAPPER}{name}"), part.1);
        }
        let (modules, layers) = self.choice(&adapted);
        let config = json!({
            "peft_type": "LORA",
            "task_type": null,
            "base_model_name_or_path": self.folder(),
            "auto_mapping": null,
            "inference_mode": true,
            "r": new.rank,
            "lora_alpha": new.alpha,
            "lora_dropout": 0.0,
            "use_rslora": new.rank_stabilised,
            "use_dora": new.magnitude,
            "target_modules": modules,
            "layers_to_transform": layers,
            "layers_pattern": null,
            "modules_to_save": (!whole.is_empty()).then_some(whole),
            "rank_pattern": {},
            "alpha_pattern": {},
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
        });
        let mut metadata = vec![
            ("format".to_string(), "pt".to_string()),
            (PROVENANCE_KEY.to_string(), Value::Array(vec![to_value(provenance)?]).to_string()),
        ];
        if let ClassNames::Own(names) = &new.class_names {
            metadata.push((CLASSES_KEY.to_string(), json!(names).to_string()));
        }
        let entry = |(name, tensor): (&String, &Tensor)| Entry {
            name: name.clone(),
            dtype: TensorDtype::F32.name().into(),
            shape: tensor.dims().to_vec(),
            span: (0, 0),
        };
        let entries = tensors.iter().map(entry).collect();
        let header = Header { metadata, entries, data_start: 0 }.packed();
        let path = out.join(WEIGHTS_FILE);
        replace(&path, |file| {
            let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(&path, "write"));
            put(&header.to_bytes())?;
            tensors.values().try_for_each(|tensor| put(&TensorDtype::F32.encode(tensor)?))
        })?;
        replace_with(&out.join(CONFIG_FILE), format!("{config:#}\n").as_bytes())?;
        Ok(path)
    }

    /// The folder of the checkpoint, or its file.
    fn folder(&self) -> String {
        let whole = self.path.file_name().is_some_and(|name| name == "model.safetensors");
        let folder = self.path.parent().filter(|_| whole).unwrap_or(&self.path);
        match folder.as_os_str().is_empty() {
            true => ".".into(),
            false => folder.display().to_string(),
        }
    }

    /// `target_modules` and `layers_to_transform` for peft: short names and the indices of blocks if
    /// these select exactly the adapted modules, else full names and no indices.
    fn choice(&self, adapted: &[BTreeSet<String>]) -> (Vec<String>, Option<BTreeSet<usize>>) {
        let full = || (adapted.iter().flatten().cloned().collect(), None);
        let (mut short, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for name in adapted.iter().flatten() {
            let Some((index, rest)) = in_block(name) else { return full() };
            layers.insert(index);
            short.insert(rest.to_string());
        }
        let params = self.network.params().iter();
        let names: Vec<Vec<Vec<String>>> = params.map(|p| self.spellings(&p.name)).collect();
        let mut blocks = BTreeSet::new();
        for (spelling, own) in adapted.iter().enumerate() {
            let known = names.iter().filter_map(|all| all.get(spelling)).flatten();
            let modules: BTreeSet<&str> = known.filter_map(|name| module(name)).collect();
            blocks.extend(modules.iter().filter_map(|name| Some(in_block(name)?.0)));
            // peft compares the ends of names.
            let chosen = modules.iter().filter(|name| {
                short.iter().any(|short| is_named(name, short))
                    && in_block(name).is_none_or(|(index, _)| layers.contains(&index))
            });
            if !chosen.copied().eq(own.iter().map(String::as_str)) {
                return full();
            }
        }
        if layers == blocks {
            return (short.into_iter().collect(), None);
        }
        // peft finds an index only after two parts of a name: in `vit.layers.1.mlp.fc1`, and not in
        // `blocks.1.mlp.fc1`.
        let nested = |name: &String| {
            let parts = name.split('.').take_while(|part| part.parse::<usize>().is_err());
            parts.count() >= 2
        };
        match adapted.iter().flatten().all(nested) {
            true => (short.into_iter().collect(), Some(layers)),
            false => full(),
        }
    }
}

/// The index of the block of a module, and its name within the block.
fn in_block(module: &str) -> Option<(usize, &str)> {
    let mut rest = module;
    while let Some((part, after)) = rest.split_once('.') {
        if let Ok(index) = part.parse() {
            // Nested blocks have several indices.
            let single = after.split('.').all(|part| part.parse::<usize>().is_err());
            return single.then_some((index, after));
        }
        rest = after;
    }
    None
}

/// Checks, before long work, that an adapter can be written to `out`.
///
/// # Errors
/// [`Error::Output`].
pub fn check_adapter_output(out: &Path) -> Result<(), Error> {
    match is_file_name(out) {
        true => Err(Error::Output {
            path: out.into(),
            reason: "an adapter is a folder, found the name of a file; set `merge` for a whole \
                     checkpoint"
                .into(),
        }),
        false => check_writable(out),
    }
}

/// The file of an adapter that a save to `out` would replace.
pub fn standing_adapter(out: &Path) -> Option<PathBuf> {
    [WEIGHTS_FILE, CONFIG_FILE].map(|name| out.join(name)).into_iter().find(|path| path.exists())
}
