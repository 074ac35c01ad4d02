//! Reads a checkpoint that is spread over several files. `model.safetensors.index.json` or
//! `pytorch_model.bin.index.json` names the file of each tensor.

use super::contents::{Contents, StoredTensor};
use super::locate::{Format, format};
use super::on_disk::{OnDisk, damaged, open_file};
use super::view::{Storage, View, contiguous};
use super::{Error, Header, header::kind, torch};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path};

/// The library that writes these files, for error messages.
const WRITER: &str = "save_pretrained";

/// The files, and the tensors of all of them. `wanted` is the option `weights`.
///
/// # Errors
/// [`Error::Damaged`] if index and files do not fit; those of each file.
pub(super) fn read(path: &Path, wanted: Option<&str>) -> Result<(Vec<File>, Contents), Error> {
    let fail = |place: &str, expected: &str, found: String| {
        damaged(path, place, expected.into(), found, WRITER)
    };
    let text = std::fs::read(path).map_err(Error::io(path, "read the index"))?;
    let json: Value = serde_json::from_slice(&text)
        .map_err(|source| Error::Json { place: path.display().to_string(), source })?;
    let Some(Value::Object(map)) = json.get("weight_map") else {
        let found = json.get("weight_map").map_or("nothing", kind).to_string();
        return Err(fail("weight_map", "an object of tensor and file names", found));
    };
    let mut shard_of: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, shard) in map {
        let shard = shard.as_str().filter(|shard| is_plain(shard));
        let Some(shard) = shard else {
            let expected = "the name of a file in the same folder";
            let found = map.get(name).map_or(String::new(), Value::to_string);
            return Err(fail(&format!("weight_map of \"{name}\""), expected, found));
        };
        shard_of.insert(name, shard);
    }
    let shards: BTreeSet<&str> = shard_of.values().copied().collect();
    let mut files = Vec::new();
    let mut all = Contents::default();
    for shard in shards {
        let place = path.with_file_name(shard);
        let (file, contents) = one(&place, files.len(), wanted)?;
        for tensor in &contents.tensors {
            let indexed = shard_of.remove(tensor.name.as_str());
            if indexed != Some(shard) {
                let expected = match indexed {
                    Some(other) => format!("the tensor in \"{other}\", as the index says"),
                    None => "a tensor of the index, and each once".into(),
                };
                let found = format!("it in \"{shard}\"");
                return Err(fail(&format!("tensor \"{}\"", tensor.name), &expected, found));
            }
        }
        files.push(file);
        all.tensors.extend(contents.tensors);
        all.chosen = all.chosen.or(contents.chosen);
        if all.metadata.is_empty() {
            all.metadata = contents.metadata;
        }
    }
    if let Some((name, shard)) = shard_of.first_key_value() {
        let expected = format!("the tensor in \"{shard}\"");
        return Err(fail(&format!("tensor \"{name}\""), &expected, "no such tensor there".into()));
    }
    Ok((files, all))
}

/// Whether a text is the name of a file, and not a path that leaves the folder.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\'])
}

/// One of the files.
fn one(path: &Path, index: usize, wanted: Option<&str>) -> Result<(File, Contents), Error> {
    if format(path) == Some(Format::Torch) {
        let file = open_file(path)?;
        let contents = torch::read(path, &file, index, wanted)?;
        return Ok((file, contents));
    }
    let shard = OnDisk::open(path)?;
    let file = open_file(path)?;
    Ok((file, of_safetensors(path, &shard.header, index)?))
}

/// The tensors of a safetensors file.
fn of_safetensors(path: &Path, header: &Header, file: usize) -> Result<Contents, Error> {
    let mut tensors = Vec::new();
    for entry in &header.entries {
        let (start, end) = entry.span;
        let len = end - start;
        let storage = Storage { file, start: (header.data_start + start) as u64, len: len as u64 };
        // Bytes, since a type may have less than eight bits.
        let view = contiguous(&[len]).map(|stride| View::new(storage, 1, 0, vec![len], stride));
        let view = view.unwrap_or_else(|| Err("too many bytes".into())).map_err(|found| {
            let place = format!("tensor \"{}\"", entry.name);
            damaged(path, &place, "bytes inside the file".into(), found, WRITER)
        })?;
        tensors.push(StoredTensor {
            name: entry.name.clone(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            views: vec![view],
        });
    }
    Ok(Contents { tensors, metadata: header.metadata.clone(), chosen: None })
}
