//! Reads files of `torch.save`: a zip archive since PyTorch 1.6, a row of pickles before that.
//!
//! The archive holds `NAME/data.pkl`, the pickled value, in which each tensor refers to a storage;
//! the bytes of storage K are `NAME/data/K`. The older format has five pickles: a magic number, a
//! version, facts about the machine, the value, and the keys of the storages; then, for each key, the
//! number of elements in eight bytes, and the elements.

use super::choice::choose;
use super::contents::{Contents, StoredTensor};
use super::names::is_model;
use super::view::{Storage, View};
use super::{Error, on_disk::damaged};
use crate::pickle::{Id, Pickle, Refusal, Tensor, Value};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// The number with which the older format begins, in little-endian bytes.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The version of the older format.
const VERSION: i64 = 1001;
/// The first bytes of a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";
/// Levels of dicts in dicts that are searched for a model.
const LEVELS: usize = 4;
/// Longest path of keys to a model, in bytes.
const LONGEST_PATH: usize = 256;
/// The library that writes these files, for error messages.
const WRITER: &str = "torch.save";

/// A file that is being read.
struct Reading<'a> {
    path: &'a Path,
    file: &'a File,
    /// Index of the file among those of the checkpoint.
    index: usize,
    len: u64,
}

/// The bytes of all storages, by key.
type Storages = HashMap<Box<str>, Storage>;

/// The tensors of one model of a file. `wanted` chooses among several.
///
/// # Errors
/// [`Error::Damaged`], [`Error::PythonObject`]; those of [`choose`].
pub(super) fn read(
    path: &Path,
    file: &File,
    index: usize,
    wanted: Option<&str>,
) -> Result<Contents, Error> {
    let len = file.metadata().map_err(Error::io(path, "read"))?.len();
    let reading = Reading { path, file, index, len };
    let mut start = Vec::new();
    let rewound = (&mut &*file).take(ZIP.len() as u64).read_to_end(&mut start);
    rewound.and_then(|_| (&mut &*file).rewind()).map_err(Error::io(path, "read"))?;
    let (pickle, storages) = match start.as_slice() {
        ZIP => reading.archive()?,
        [0x80, ..] => reading.row_of_pickles()?,
        _ => {
            let found = "a file that begins differently".to_string();
            return Err(reading.damaged("format", "a file of torch.save".into(), found));
        }
    };
    reading.model(&pickle, &storages, wanted)
}

impl Reading<'_> {
    fn damaged(&self, place: &str, expected: String, found: String) -> Error {
        damaged(self.path, place, expected, found, WRITER)
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            // From the archive: a wrong checksum, compressed bytes.
            Refusal::Io(error)
                if matches!(
                    error.kind(),
                    ErrorKind::InvalidData
                        | ErrorKind::InvalidInput
                        | ErrorKind::Other
                        | ErrorKind::Unsupported
                ) =>
            {
                self.damaged("data.pkl", "uncompressed, intact bytes".into(), error.to_string())
            }
            Refusal::Io(error) => Error::io(self.path, "read")(error),
            Refusal::Name(name) => Error::PythonObject { path: self.path.into(), name },
            Refusal::Malformed { expected, found } => self.damaged("pickle", expected, found),
        }
    }

    /// The pickle and the storages of an archive.
    fn archive(&self) -> Result<(Pickle, Storages), Error> {
        let broken = |error: zip::result::ZipError| {
            self.damaged("zip archive", "a readable archive".into(), error.to_string())
        };
        let mut archive = ZipArchive::new(BufReader::new(self.file)).map_err(broken)?;
        let names: Vec<String> = (0..archive.len())
            .filter_map(|i| archive.name_for_index(i).and_then(Result::ok))
            .map(|name| name.into_owned())
            .collect();
        let pickled = |name: &&String| name.split_once('/').is_some_and(|(_, f)| f == "data.pkl");
        let Some(root) = names.iter().find(pickled).and_then(|name| name.strip_suffix("data.pkl"))
        else {
            return Err(self.damaged("zip archive", "a file data.pkl".into(), "none".into()));
        };
        if names.iter().any(|name| name.strip_prefix(root) == Some("constants.pkl")) {
            let found = "a TorchScript program; save its state_dict() with torch.save".to_string();
            return Err(self.damaged("zip archive", "a file of torch.save".into(), found));
        }
        if let Ok(order) = archive.by_name(&format!("{root}byteorder")) {
            let mut text = String::new();
            let read = order.take(16).read_to_string(&mut text);
            if read.is_err() || text != "little" {
                let expected = "numbers in little-endian order".to_string();
                return Err(self.damaged("byteorder", expected, format!("\"{text}\"")));
            }
        }
        let mut storages = Storages::new();
        for name in &names {
            let Some(key) = name.strip_prefix(root).and_then(|rest| rest.strip_prefix("data/"))
            else {
                continue;
            };
            let entry = archive.by_name(name).map_err(broken)?;
            let start = entry.data_start().unwrap_or(u64::MAX);
            let stored = entry.compression() == CompressionMethod::Stored;
            let len = entry.size();
            if !stored || start.checked_add(len).is_none_or(|end| end > self.len) {
                let found = if stored { "others" } else { "compressed bytes" };
                let expected = "uncompressed bytes inside the file".to_string();
                return Err(self.damaged(&format!("\"{name}\""), expected, found.into()));
            }
            storages.insert(key.into(), Storage { file: self.index, start, len });
        }
        let entry = archive.by_name(&format!("{root}data.pkl")).map_err(broken)?;
        let mut entry = BufReader::new(entry);
        let pickle = Pickle::read(&mut entry).map_err(|why| self.refused(why))?;
        // At its end, the archive's checksum is verified.
        io::copy(&mut entry, &mut io::sink()).map_err(|e| self.refused(Refusal::Io(e)))?;
        Ok((pickle, storages))
    }

    /// The pickle and the storages of the older format.
    fn row_of_pickles(&self) -> Result<(Pickle, Storages), Error> {
        let mut input = BufReader::new(self.file);
        let mut next = || Pickle::read(&mut input).map_err(|why| self.refused(why));
        let magic = next()?;
        if *magic.get(magic.root) != Value::Long(MAGIC.to_vec()) {
            let found = "another pickle".to_string();
            return Err(self.damaged("first pickle", "that of torch.save".into(), found));
        }
        let (version, machine) = (next()?, next()?);
        if *version.get(version.root) != Value::Int(VERSION) {
            let found = format!("{:?}", version.get(version.root));
            return Err(self.damaged("version", VERSION.to_string(), found));
        }
        if let Value::Dict(facts) = machine.get(machine.root) {
            let order = |key| machine.text(key) == Some("little_endian");
            let big = |value| *machine.get(value) == Value::Bool(false);
            if facts.iter().any(|&(key, value)| order(key) && big(value)) {
                let expected = "numbers in little-endian order".to_string();
                return Err(self.damaged("byte order", expected, "big-endian".into()));
            }
        }
        let (pickle, keys) = (next()?, next()?);
        let sizes = pickle.element_sizes();
        let mut storages = Storages::new();
        let Value::List(list) = keys.get(keys.root) else {
            let found = "another value".to_string();
            return Err(self.damaged("last pickle", "a list of keys".into(), found));
        };
        for &key in list {
            let place = "storages";
            let Some(key) = keys.text(key) else {
                return Err(self.damaged(place, "keys".into(), "another value".into()));
            };
            let mut count = [0; 8];
            let read = input.read_exact(&mut count).and_then(|()| input.stream_position());
            let start = read.map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => {
                    let expected = format!("{} storages", list.len());
                    self.damaged(place, expected, format!("{} in the file", storages.len()))
                }
                _ => Error::io(self.path, "read")(error),
            })?;
            let size = sizes.get(key).copied().unwrap_or(1) as u64;
            let len = u64::from_le_bytes(count).checked_mul(size);
            let end = len.and_then(|len| start.checked_add(len)).filter(|&end| end <= self.len);
            let (Some(len), Some(end)) = (len, end) else {
                let found = format!("{} bytes in the file", self.len);
                let expected = format!("{} elements of {size} bytes", u64::from_le_bytes(count));
                return Err(self.damaged(place, expected, found));
            };
            storages.insert(key.into(), Storage { file: self.index, start, len });
            input.seek(SeekFrom::Start(end)).map_err(Error::io(self.path, "read"))?;
        }
        Ok((pickle, storages))
    }

    /// The tensors of one model among all dicts.
    fn model(
        &self,
        pickle: &Pickle,
        storages: &Storages,
        wanted: Option<&str>,
    ) -> Result<Contents, Error> {
        let dicts = pickle.dicts_of_tensors();
        let whole = |dict: &&(String, Vec<(&str, &Tensor)>)| {
            is_model(&dict.1.iter().map(|(name, _)| *name).collect::<Vec<_>>())
        };
        let models: Vec<_> = dicts.iter().filter(whole).collect();
        let keys: Vec<&str> = models.iter().map(|(key, _)| key.as_str()).collect();
        let (tensors, chosen) = match models.as_slice() {
            // The names of the largest dict tell what the file holds instead.
            [] => (dicts.iter().max_by_key(|(_, tensors)| tensors.len()), None),
            // The choice may be among the names of this dict.
            [only] if only.0.is_empty() => (Some(*only), None),
            _ => {
                let model = models[choose(self.path, &keys, wanted)?];
                (Some(model), Some(model.0.clone()))
            }
        };
        let Some((_, tensors)) = tensors else {
            let found = "none".to_string();
            return Err(self.damaged("pickle", "a dict of tensors".into(), found));
        };
        let mut stored = Vec::new();
        for (name, tensor) in tensors {
            let place = format!("tensor \"{name}\"");
            let Some(&storage) = storages.get(&tensor.storage) else {
                let expected = format!("the storage \"{}\"", tensor.storage);
                return Err(self.damaged(&place, expected, "none".into()));
            };
            let (dtype, size) = tensor.element;
            let (shape, stride) = (tensor.shape.clone(), tensor.stride.clone());
            let view = View::new(storage, size, tensor.offset, shape, stride).map_err(|found| {
                self.damaged(&place, "elements inside its storage".into(), found)
            })?;
            stored.push(StoredTensor {
                name: name.to_string(),
                dtype: dtype.to_string(),
                shape: tensor.shape.clone(),
                views: vec![view],
            });
        }
        // transformers requires this entry.
        let metadata = vec![("format".to_string(), "pt".to_string())];
        Ok(Contents { tensors: stored, metadata, chosen })
    }
}

impl Pickle {
    /// Bytes of an element of each storage.
    fn element_sizes(&self) -> HashMap<&str, usize> {
        let storages = self.values().filter_map(|value| match value {
            Value::Storage(storage) => Some((&*storage.0, storage.1.map_or(1, |(_, size)| size))),
            _ => None,
        });
        storages.collect()
    }

    /// All dicts that hold tensors under texts, with the path of keys to each, joined by dots.
    fn dicts_of_tensors(&self) -> Vec<(String, Vec<(&str, &Tensor)>)> {
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        let mut next: Vec<(String, Id)> = vec![(String::new(), self.root)];
        for _ in 0..LEVELS {
            for (path, id) in std::mem::take(&mut next) {
                let Value::Dict(pairs) = self.get(id) else { continue };
                if !seen.insert(id) {
                    continue;
                }
                let mut tensors: Vec<(&str, &Tensor)> = Vec::new();
                let mut places: HashMap<&str, usize> = HashMap::new();
                for &(key, value) in pairs {
                    let Some(key) = self.text(key) else { continue };
                    match self.get(value) {
                        // A key that is set twice has its last value.
                        Value::Tensor(tensor) => match places.get(key) {
                            Some(&place) => tensors[place].1 = tensor,
                            None => {
                                places.insert(key, tensors.len());
                                tensors.push((key, tensor));
                            }
                        },
                        Value::Dict(_) if path.len() + key.len() < LONGEST_PATH => {
                            let dot = if path.is_empty() { "" } else { "." };
                            next.push((format!("{path}{dot}{key}"), value));
                        }
                        _ => {}
                    }
                }
                if !tensors.is_empty() {
                    out.push((path, tensors));
                }
            }
        }
        out
    }
}
