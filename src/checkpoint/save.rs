//! Saves a checkpoint with its layout, names, types, order and metadata.

use super::error::Error;
use super::names::{Alias, Names};
use super::numbers::{TensorDtype, moved};
use super::on_disk::OnDisk;
use super::output::{check_space, check_writable, is_file_name, replace, replace_with, target};
use super::patch::Patch;
use super::provenance::{provenance, to_value};
use super::read::read_weights;
use super::reader::Dialect;
use super::settings::{CONFIG_KEY, PREPROCESSOR_FILE, PREPROCESSOR_KEY, Settings};
use super::{Checkpoint, Entry, Header, PROVENANCE_KEY, Provenance, Refused, hex};
use crate::models::Weights;
use candle_core::{DType, Tensor};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How many weights training changed, and how many of them rounding changed back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounding {
    /// Weights whose trained value differs from the loaded one.
    pub moved: usize,
    /// Of these, weights whose stored value is unchanged because the type cannot distinguish the
    /// two.
    pub unchanged: usize,
}

/// The result of a save.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedCheckpoint {
    /// The weights file.
    pub path: PathBuf,
    /// Effect of rounding to the stored types.
    pub rounding: Rounding,
    /// The undo file, if the checkpoint itself was replaced.
    pub undo: Option<PathBuf>,
}

/// The next state of a checkpoint.
pub(super) struct Next {
    /// Difference from the file that was read.
    pub patch: Patch,
    /// Effect of rounding to the stored types.
    pub rounding: Rounding,
}

/// The command that records a step under this method.
fn command(method: &str) -> &str {
    match method.split(' ').next() {
        Some(own @ ("calibrate" | "finetune" | "fix" | "merge")) => own,
        _ => "post-train",
    }
}

impl Checkpoint {
    /// [`check_writable`] and [`check_space`]; also refuses to overwrite this checkpoint, or anything but an earlier result of
    /// the same step on it, and to combine it with another model's configuration. `method` is that of
    /// the step's [`Provenance`].
    ///
    /// # Errors
    /// [`Error::Output`], with the reason.
    pub fn check_output(&self, out: &Path, method: &str) -> Result<(), Error> {
        check_writable(out)?;
        let bytes =
            self.header.entries.iter().map(|entry| entry.span.1.saturating_sub(entry.span.0));
        check_space(out, bytes.sum::<usize>() as u64)?;
        let refuse = |reason: &str| {
            Err(Error::Output { path: out.to_path_buf(), reason: reason.to_string() })
        };
        let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        if same(&target(out), &self.path) {
            return refuse("it is the input checkpoint, which is never overwritten");
        }
        let there = target(out);
        if there.exists() {
            match self.step_from_here(&there) {
                None => {
                    return refuse(
                        "it already holds another checkpoint, which is never overwritten",
                    );
                }
                Some(found) if command(&found) != command(method) => {
                    return refuse(&format!(
                        "it already holds the result of {} on this checkpoint, which only the same \
                         command overwrites",
                        command(&found)
                    ));
                }
                Some(_) => {}
            }
        }
        if !is_file_name(out) && self.settings.is_none() && out.join("config.json").exists() {
            return refuse("the folder has a config.json, and this checkpoint has none");
        }
        if !is_file_name(out) && same(out, self.path.parent().unwrap_or(Path::new("."))) {
            return refuse("it is the folder of the input checkpoint");
        }
        Ok(())
    }

    /// The method of the step that made a file from this checkpoint; `None` for any other file.
    fn step_from_here(&self, file: &Path) -> Option<String> {
        let found = OnDisk::open(file).ok()?;
        let steps = provenance(file, &found.header.metadata).unwrap_or_default();
        let last = steps.last().and_then(Provenance::parse)?;
        (last.parent_digest.as_deref() == Some(&self.digest)).then_some(last.method)
    }

    /// Writes the checkpoint with `weights` in place of its own and reports what was written.
    ///
    /// Names, types, metadata, and the order of header and data are kept; `planish.provenance`
    /// gains an entry. A tensor that equals the loaded one keeps its bytes; others are rounded to
    /// the stored type. If `out` ends in `.safetensors`, the result is a file with its
    /// configuration in the metadata; otherwise a folder with `model.safetensors` and
    /// `config.json`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check_output`]; [`Error::Changed`] if the file on disk is no longer
    /// the one that was read; [`Error::Overflow`]; [`Error::Io`].
    pub fn save(
        &self,
        out: &Path,
        weights: &Weights,
        provenance: &Provenance,
    ) -> Result<SavedCheckpoint, Error> {
        self.write(out, weights, self.settings.as_ref(), provenance)
    }

    /// [`Checkpoint::save`] with a head that was trained on other classes than the checkpoint's.
    /// The configuration gets their number and their names in training order, and the old names are
    /// removed. The number of classes may change.
    ///
    /// # Errors
    /// [`Error::ClassNames`] if the number of names is not the number of classes; those of
    /// [`Checkpoint::save`].
    pub fn save_with_classes(
        &self,
        out: &Path,
        weights: &Weights,
        names: Option<&[String]>,
        provenance: &Provenance,
    ) -> Result<SavedCheckpoint, Error> {
        let head = self.network.blocks().pop().and_then(|head| head.tensors.first().copied());
        let classes = match head {
            Some(head) => weights.tensor(head).dim(0)?,
            None => self.network.classes(),
        };
        check_names(names, classes)?;
        let dialect = Dialect::of(self.settings.as_ref(), self.layout);
        let settings =
            self.settings.as_ref().map(|found| found.with_classes(dialect, names, classes));
        self.write(out, weights, settings.as_ref(), provenance)
    }

    /// Writes weights, configuration and preprocessing.
    fn write(
        &self,
        out: &Path,
        weights: &Weights,
        settings: Option<&Settings>,
        provenance: &Provenance,
    ) -> Result<SavedCheckpoint, Error> {
        self.check_output(out, &provenance.method)?;
        let (settings, images) = self.with_image_options(settings);
        let old = self.reopen()?;
        let metadata = self.metadata_of(out, settings.as_ref(), images.as_ref(), provenance)?;
        let next = self.next(&old, weights, metadata)?;
        let path = target(out);
        replace(&path, |file| {
            next.patch.apply(&self.path, &old, &mut |bytes| {
                file.write_all(bytes).map_err(Error::io(&path, "write"))
            })
        })
        .map_err(|error| self.or_changed(error))?;
        if let (false, Some(settings)) = (is_file_name(out), &settings) {
            replace_with(&out.join("config.json"), settings.text.as_bytes())?;
        }
        if let (false, Some(images)) = (is_file_name(out), &images) {
            replace_with(&out.join(PREPROCESSOR_FILE), images.text.as_bytes())?;
        }
        Ok(SavedCheckpoint { path, rounding: next.rounding, undo: None })
    }

    /// Converts an error: a mismatch means that the file changed on disk.
    pub(super) fn or_changed(&self, error: Error) -> Error {
        match error {
            Error::Refused(Refused::Parent { .. } | Refused::Patched { .. }) => {
                Error::Changed { path: self.path.clone() }
            }
            other => other,
        }
    }

    /// The file with `weights` and `metadata`, as its difference from the file that was read.
    pub(super) fn next(
        &self,
        old: &OnDisk,
        weights: &Weights,
        metadata: Vec<(String, String)>,
    ) -> Result<Next, Error> {
        let pairs: Vec<(String, Tensor)> =
            weights.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        let own: HashMap<String, Tensor> = self.names.to_file(&pairs)?.into_iter().collect();
        let untied = self.untied(&own)?;
        let next = Header { metadata, ..self.header.reshaped(&own) };
        let header = next.clone().with_untied(&untied, &own).to_bytes();
        let (mut tensors, mut rounding) = (HashMap::new(), Rounding::default());
        let mut hash = Sha256::new();
        hash.update(&header);
        let read = old.digest_with(|entry, bytes| {
            for alias in untied.iter().filter(|alias| alias.stored == entry.name) {
                let name = &alias.entry.name;
                let new = own.get(name).map(|t| changed(entry, &bytes, t, &mut rounding));
                let new = new.transpose()?.flatten().unwrap_or_else(|| bytes.clone());
                tensors.insert(name.clone(), new);
            }
            let new = match own.get(&entry.name) {
                Some(tensor) => changed(entry, &bytes, tensor, &mut rounding)?,
                None => None,
            };
            hash.update(new.as_ref().unwrap_or(&bytes));
            if let Some(new) = new {
                tensors.insert(entry.name.clone(), new);
            }
            Ok(())
        })?;
        for new in untied.iter().filter_map(|alias| tensors.get(&alias.entry.name)) {
            hash.update(new);
        }
        self.unchanged(&read)?;
        // An adapter's head that the file lacks comes last.
        for entry in next.in_file_order() {
            let Some(tensor) = own.get(&entry.name) else { continue };
            if old.header.entries.iter().all(|known| known.name != entry.name) {
                let bytes = TensorDtype::F32.encode(tensor)?;
                hash.update(&bytes);
                rounding.moved += tensor.elem_count();
                tensors.insert(entry.name.clone(), bytes);
            }
        }
        let (from, to) = (vec![self.file_digest.clone()], hex(&hash.finalize()));
        Ok(Next { patch: Patch { from, to, header, tensors }, rounding })
    }

    /// The second names whose values no longer equal those they were stored under.
    fn untied(&self, own: &HashMap<String, Tensor>) -> Result<Vec<Alias>, Error> {
        let mut out = Vec::new();
        for alias in &self.names.aliases {
            let (Some(a), Some(b)) = (own.get(&alias.entry.name), own.get(&alias.stored)) else {
                continue;
            };
            if a.dims() != b.dims() || moved(a, b)?.contains(&true) {
                out.push(alias.clone());
            }
        }
        Ok(out)
    }

    /// The weights as they will be loaded after saving: rounded to the stored types.
    ///
    /// # Errors
    /// [`Error::Overflow`] for a value out of range for its type.
    pub fn as_stored(&self, weights: &Weights) -> Result<Weights, Error> {
        let mut changes = Vec::new();
        for (i, (name, tensor)) in weights.iter().enumerate() {
            // Weights that were not trained are still the tensors that were read. With an adapter, the
            // file does not hold them.
            let read = |k: usize| self.weights.tensor(k).id() == tensor.id();
            if self.adapted.is_none() && self.weights.index(name).is_some_and(read) {
                continue;
            }
            let mut parts = Vec::new();
            for (own, part) in self.names.to_file(&[(name.to_string(), tensor.clone())])? {
                let entry = self.names.entries(&self.header).find(|entry| entry.name == own);
                let entry = entry.ok_or_else(|| Names::unknown(&own, []))?;
                let stored = TensorDtype::parse(&entry.dtype).unwrap_or(TensorDtype::F32);
                let bytes = stored.encode(&part)?;
                let back = stored.decode(&bytes, &entry.shape, part.dtype())?;
                parts.push((own, overflow_free(entry, &part, back)?));
            }
            let canonical = self.names.to_canonical(parts)?;
            changes.extend(canonical.into_iter().map(|(_, tensor)| (i, tensor)));
        }
        Ok(weights.with(&changes))
    }

    /// Names of tensors whose bytes change when their loaded values are stored again. Doubles,
    /// which f32 masters round, are compared as loaded, since saving keeps their bytes.
    ///
    /// # Errors
    /// The file cannot be read any more, or has changed.
    pub fn round_trip(&self) -> Result<Vec<String>, Error> {
        let old = self.reopen()?;
        let weights = match &self.adapted {
            None => self.weights.clone(),
            Some(adapted) => {
                let (names, adapter) = (&self.names, Some(&adapted.adapter));
                read_weights(&self.network, names, &old, DType::F32, adapter, false)?.0
            }
        };
        // The file does not hold what the adapter replaces.
        let replaced = |name: &str| {
            self.adapter().is_some_and(|adapter| adapter.whole.keys().any(|t| t.weight == name))
        };
        let pairs: Vec<(String, Tensor)> = weights
            .iter()
            .filter(|(name, _)| !replaced(name))
            .map(|(name, t)| (name.to_string(), t.clone()))
            .collect();
        let own: HashMap<String, Tensor> = self.names.to_file(&pairs)?.into_iter().collect();
        let mut differing = Vec::new();
        let read = old.digest_with(|entry, bytes| {
            let Some(tensor) = own.get(&entry.name) else { return Ok(()) };
            let stored = TensorDtype::parse(&entry.dtype).unwrap_or(TensorDtype::F32);
            let equal = match stored {
                TensorDtype::F64 => {
                    changed(entry, &bytes, tensor, &mut Rounding::default())?.is_none()
                }
                _ => stored.encode(tensor)? == bytes,
            };
            if !equal {
                differing.push(entry.name.clone());
            }
            Ok(())
        })?;
        self.unchanged(&read)?;
        Ok(differing)
    }

    /// The metadata with one more step in `planish.provenance`.
    pub(super) fn metadata_after(
        &self,
        latest: &Provenance,
    ) -> Result<Vec<(String, String)>, Error> {
        let mut steps = provenance(&self.path, &self.metadata)?;
        if let Some(adapted) = &self.adapted {
            steps.extend(adapted.steps()?);
        }
        steps.push(to_value(latest)?);
        let mut metadata = self.metadata.clone();
        put(&mut metadata, PROVENANCE_KEY, Value::Array(steps).to_string());
        Ok(metadata)
    }

    /// The same, with the configuration in the metadata if needed.
    fn metadata_of(
        &self,
        out: &Path,
        settings: Option<&Settings>,
        images: Option<&Settings>,
        latest: &Provenance,
    ) -> Result<Vec<(String, String)>, Error> {
        let mut metadata = self.metadata_after(latest)?;
        for (key, settings) in [(CONFIG_KEY, settings), (PREPROCESSOR_KEY, images)] {
            let Some(settings) = settings else { continue };
            let carried = metadata.iter().any(|(known, _)| known == key);
            if carried || is_file_name(out) {
                put(&mut metadata, key, settings.text.clone());
            }
        }
        Ok(metadata)
    }
}

/// Checks that there is a name for each class, or none.
pub(super) fn check_names(names: Option<&[String]>, classes: usize) -> Result<(), Error> {
    match names.map(<[_]>::len).filter(|&found| found != classes) {
        Some(found) => Err(Error::ClassNames { expected: classes, found }),
        None => Ok(()),
    }
}

impl Header {
    /// The same entries with the shapes of these tensors, the bytes in the same order.
    fn reshaped(&self, tensors: &HashMap<String, Tensor>) -> Header {
        let mut header = self.clone();
        for entry in &mut header.entries {
            if let Some(tensor) = tensors.get(&entry.name) {
                entry.shape = tensor.dims().to_vec();
            }
        }
        header.packed()
    }

    /// The same with tensors of their own, after all others, in place of second names in the
    /// metadata.
    fn with_untied(mut self, untied: &[Alias], tensors: &HashMap<String, Tensor>) -> Header {
        let mut at = self.entries.iter().map(|entry| entry.span.1).max().unwrap_or(0);
        for Alias { entry, .. } in untied {
            self.metadata.retain(|(name, _)| *name != entry.name);
            let shape = tensors.get(&entry.name).map_or(&*entry.shape, Tensor::dims).to_vec();
            let stored = TensorDtype::parse(&entry.dtype).unwrap_or(TensorDtype::F32);
            let end = at + shape.iter().product::<usize>() * stored.size();
            self.entries.push(Entry { shape, span: (at, end), ..entry.clone() });
            at = end;
        }
        self
    }
}

/// Replaces a value in place, or appends it.
fn put(metadata: &mut Vec<(String, String)>, key: &str, value: String) {
    match metadata.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => *old = value,
        None => metadata.push((key.to_string(), value)),
    }
}

/// The bytes of a tensor that differs from the stored one; `None` if it does not.
fn changed(
    entry: &Entry,
    old: &[u8],
    tensor: &Tensor,
    rounding: &mut Rounding,
) -> Result<Option<Vec<u8>>, Error> {
    let stored = TensorDtype::parse(&entry.dtype).unwrap_or(TensorDtype::F32);
    let tensor = match tensor.dtype() {
        DType::F64 => tensor.clone(),
        _ => tensor.to_dtype(DType::F32)?,
    };
    if tensor.dims() != entry.shape {
        let new = stored.encode(&tensor)?;
        let back = stored.decode(&new, tensor.dims(), DType::F64)?;
        overflow_free(entry, &tensor, back)?;
        rounding.moved += tensor.elem_count();
        return Ok(Some(new));
    }
    let loaded = stored.decode(old, &entry.shape, tensor.dtype())?;
    let moved = moved(&loaded, &tensor)?;
    if !moved.contains(&true) {
        return Ok(None);
    }
    let mut new = stored.encode(&tensor)?;
    overflow_free(entry, &tensor, stored.decode(&new, &entry.shape, DType::F64)?)?;
    let size = new.len() / moved.len();
    for ((old, new), moved) in old.chunks(size).zip(new.chunks_mut(size)).zip(moved) {
        if moved {
            rounding.moved += 1;
            rounding.unchanged += usize::from(old == new);
        } else {
            // The loaded value of a double may be rounded.
            new.copy_from_slice(old);
        }
    }
    Ok(Some(new))
}

/// The rounded tensor, unless rounding made a finite number infinite.
fn overflow_free(entry: &Entry, tensor: &Tensor, rounded: Tensor) -> Result<Tensor, Error> {
    if finite(tensor)? && !finite(&rounded)? {
        let dtype = TensorDtype::parse(&entry.dtype).unwrap_or(TensorDtype::F32).name();
        return Err(Error::Overflow { tensor: entry.name.clone(), dtype });
    }
    Ok(rounded)
}

fn finite(tensor: &Tensor) -> Result<bool, Error> {
    let values = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok(values.iter().all(|x| x.is_finite()))
}
