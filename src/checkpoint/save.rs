//! Saving a checkpoint as it came: layout, names, types, order and metadata.

use super::error::Error;
use super::numbers::{Stored, same_bits};
use super::output::{check_writable, is_file_name, replace, replace_with, target};
use super::settings::{CONFIG_KEY, PREPROCESSOR_FILE, PREPROCESSOR_KEY};
use super::{Checkpoint, Entry, Header, PROVENANCE_KEY, Provenance};
use crate::vit::Weights;
use candle_core::{DType, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

impl Checkpoint {
    /// [`check_writable`], and whether saving there would overwrite this checkpoint or join it
    /// with another model's configuration.
    ///
    /// # Errors
    /// [`Error::Output`], with the reason.
    pub fn check_output(&self, out: &Path) -> Result<(), Error> {
        check_writable(out)?;
        let refuse = |reason: &str| {
            Err(Error::Output { path: out.to_path_buf(), reason: reason.to_string() })
        };
        let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        if same(&target(out), &self.path) {
            return refuse("it is the checkpoint being read, which is never overwritten");
        }
        if !is_file_name(out) && self.settings.is_none() && out.join("config.json").exists() {
            return refuse("the folder holds a config.json, and this checkpoint has none");
        }
        if !is_file_name(out) && same(out, self.path.parent().unwrap_or(Path::new("."))) {
            return refuse("it is the folder of the checkpoint being read");
        }
        Ok(())
    }

    /// Writes `weights` in place of this checkpoint's own and returns the weights file's path.
    ///
    /// Names, types, order of header and data, and metadata stay; `planish.provenance` gains an
    /// entry. A tensor that equals the loaded one keeps its bytes; others are rounded to the
    /// stored type. If `out` ends in `.safetensors` it becomes a file that carries its
    /// configuration in its metadata, else a folder with `model.safetensors` and `config.json`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check_output`]; [`Error::Changed`] if the file on disk is no longer
    /// the one that was read; [`Error::Overflow`]; [`Error::Io`].
    pub fn save(
        &self,
        out: &Path,
        weights: &Weights,
        provenance: &Provenance,
    ) -> Result<PathBuf, Error> {
        self.check_output(out)?;
        let bytes = self.reread()?;
        let pairs: Vec<(String, Tensor)> =
            weights.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        let own: HashMap<String, Tensor> = self.names.to_file(&pairs)?.into_iter().collect();
        let header =
            Header { metadata: self.new_metadata(out, provenance)?, ..self.header.clone() };
        let path = target(out);
        replace(&path, |file| {
            let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(&path, "write"));
            put(&header.to_bytes())?;
            for entry in self.header.in_file_order() {
                let old = self.header.bytes_of(entry, &bytes);
                match own.get(&entry.name) {
                    Some(tensor) => match changed(entry, old, tensor)? {
                        Some(new) => put(&new)?,
                        None => put(old)?,
                    },
                    None => put(old)?,
                }
            }
            Ok(())
        })?;
        if let (false, Some(settings)) = (is_file_name(out), &self.settings) {
            replace_with(&out.join("config.json"), settings.text.as_bytes())?;
        }
        if let (false, Some(images)) = (is_file_name(out), &self.images) {
            replace_with(&out.join(PREPROCESSOR_FILE), images.text.as_bytes())?;
        }
        Ok(path)
    }

    fn new_metadata(
        &self,
        out: &Path,
        latest: &Provenance,
    ) -> Result<Vec<(String, String)>, Error> {
        let mut steps = provenance(&self.path, &self.metadata)?;
        steps.push(to_value(latest)?);
        let mut metadata = self.metadata.clone();
        put(&mut metadata, PROVENANCE_KEY, Value::Array(steps).to_string());
        for (key, settings) in [(CONFIG_KEY, &self.settings), (PREPROCESSOR_KEY, &self.images)] {
            let Some(settings) = settings else { continue };
            let carried = metadata.iter().any(|(known, _)| known == key);
            if carried || is_file_name(out) {
                put(&mut metadata, key, settings.text.clone());
            }
        }
        Ok(metadata)
    }
}

/// Replaces a value where it stands, or adds it at the end.
fn put(metadata: &mut Vec<(String, String)>, key: &str, value: String) {
    match metadata.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => *old = value,
        None => metadata.push((key.to_string(), value)),
    }
}

/// A provenance entry as JSON.
pub(super) fn to_value(provenance: &Provenance) -> Result<Value, Error> {
    serde_json::to_value(provenance)
        .map_err(|source| Error::Json { place: PROVENANCE_KEY.into(), source })
}

/// The steps already recorded in a file's metadata, the oldest first.
///
/// # Errors
/// [`Error::Json`] or [`Error::Setting`] if what stands there is not a list.
pub(super) fn provenance(path: &Path, metadata: &[(String, String)]) -> Result<Vec<Value>, Error> {
    let Some((_, text)) = metadata.iter().find(|(key, _)| key == PROVENANCE_KEY) else {
        return Ok(Vec::new());
    };
    let place = format!("{}: metadata `{PROVENANCE_KEY}`", path.display());
    match serde_json::from_str(text) {
        Ok(Value::Array(steps)) => Ok(steps),
        Ok(other) => Err(Error::Setting {
            place,
            key: PROVENANCE_KEY.into(),
            expected: "a list".into(),
            found: super::header::kind(&other).into(),
            remedy: "remove the key from the file's metadata".into(),
        }),
        Err(source) => Err(Error::Json { place, source }),
    }
}

/// The bytes of a tensor that differs from the stored one, or none if it does not.
fn changed(entry: &Entry, old: &[u8], tensor: &Tensor) -> Result<Option<Vec<u8>>, Error> {
    let stored = Stored::parse(&entry.dtype).unwrap_or(Stored::F32);
    let tensor = match tensor.dtype() {
        DType::F64 => tensor.clone(),
        _ => tensor.to_dtype(DType::F32)?,
    };
    if same_bits(&stored.decode(old, &entry.shape, tensor.dtype())?, &tensor)? {
        return Ok(None);
    }
    let new = stored.encode(&tensor)?;
    if finite(&tensor)? && !finite(&stored.decode(&new, &entry.shape, DType::F64)?)? {
        return Err(Error::Overflow { tensor: entry.name.clone(), dtype: stored.name() });
    }
    Ok(Some(new))
}

fn finite(tensor: &Tensor) -> Result<bool, Error> {
    let values = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok(values.iter().all(|x| x.is_finite()))
}
