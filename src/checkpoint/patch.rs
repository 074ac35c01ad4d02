//! A patch: the tensors that differ between two files, and what else is needed to turn one file
//! into the other byte for byte.
//!
//! A patch is a safetensors file with the changed tensors under their names. Its metadata entry
//! `planish.patch` is JSON: `from`, the SHA-256 digests of the files it applies to; `to`, the
//! digest of the result; `header`, the result's header as text.

use super::on_disk::OnDisk;
use super::output::{is_file_name, replace, replace_with, target};
use super::settings::{PREPROCESSOR_FILE, Settings};
use super::{Entry, Error, Header, Refused, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Metadata key of a patch.
pub const PATCH_KEY: &str = "planish.patch";

/// The schema that this version writes.
const SCHEMA: &str = "planish.patch/1";

/// The metadata entry.
#[derive(Serialize, Deserialize)]
struct PatchMetadata {
    schema: String,
    from: Vec<String>,
    to: String,
    header: String,
}

/// The tensors of a file that differ from those of other files, which are given by their digests.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// SHA-256 of each file that it applies to, in hex.
    pub from: Vec<String>,
    /// SHA-256 of the result, in hex.
    pub to: String,
    /// The result's header: length field, JSON and padding.
    pub(super) header: Vec<u8>,
    /// Changed tensors, by name.
    pub(super) tensors: HashMap<String, Vec<u8>>,
}

impl Patch {
    /// The patch that turns file `a` into file `b`.
    ///
    /// # Errors
    /// Either file cannot be read or is not valid safetensors; [`Refused::OtherConfiguration`];
    /// [`Error::Changed`].
    pub fn between(a: &Path, b: &Path) -> Result<Patch, Error> {
        let (base, result) = (OnDisk::open(a)?, OnDisk::open(b)?);
        let [old, new] = [(a, &base), (b, &result)]
            .map(|(path, file)| Settings::find(path, &file.header.metadata, true));
        if let (Some(old), Some(new)) = (old?, new?)
            && !old.same_values(&new)
        {
            return Err(Refused::OtherConfiguration { a: old.place, b: new.place }.into());
        }
        let from = base.digest()?;
        let mut tensors = HashMap::new();
        let to = result.digest_with(|entry, new| {
            if base.tensor(entry)?.as_ref() != Some(&new) {
                tensors.insert(entry.name.clone(), new);
            }
            Ok(())
        })?;
        // The digest must be of the files compared: fails if one was written meanwhile.
        if base.digest()? != from {
            return Err(Error::Changed { path: a.into() });
        }
        Ok(Patch { from: vec![from], to, header: result.header_bytes, tensors })
    }

    /// Names of its tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Bytes of its tensors.
    pub fn size(&self) -> usize {
        self.tensors.values().map(Vec::len).sum()
    }

    /// Writes it as a safetensors file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Header`] if its own header is damaged.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        replace(path, |file| self.fill(path, file))
    }

    /// Writes its bytes.
    pub(super) fn fill(&self, path: &Path, file: &mut impl Write) -> Result<(), Error> {
        let target = self.target(path)?;
        let carried = target.in_file_order().into_iter();
        let mut at = 0;
        let entries: Vec<Entry> = carried
            .filter(|entry| self.tensors.contains_key(&entry.name))
            .map(|entry| {
                let start = at;
                at += entry.span.1 - entry.span.0;
                Entry { span: (start, at), ..entry.clone() }
            })
            .collect();
        let about = PatchMetadata {
            schema: SCHEMA.into(),
            from: self.from.clone(),
            to: self.to.clone(),
            header: String::from_utf8_lossy(&self.header[Header::LENGTH_FIELD..]).into_owned(),
        };
        let about = serde_json::to_string(&about)
            .map_err(|source| Error::Json { place: PATCH_KEY.into(), source })?;
        let metadata = vec![(PATCH_KEY.to_string(), about)];
        let header = Header { metadata, entries, data_start: 0 };
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path, "write"));
        put(&header.to_bytes())?;
        header.entries.iter().try_for_each(|entry| put(&self.tensors[&entry.name]))
    }

    /// Reads a patch.
    ///
    /// # Errors
    /// [`Refused::NotAPatch`] for a file of another kind; [`Error::Header`], [`Error::Io`].
    pub fn read(path: &Path) -> Result<Patch, Error> {
        let file = OnDisk::open(path)?;
        let not = |found: String| Error::from(Refused::NotAPatch { path: path.into(), found });
        let about = file.header.metadata.iter().find(|(key, _)| key == PATCH_KEY);
        let (_, about) = about.ok_or_else(|| not(format!("no metadata \"{PATCH_KEY}\"")))?;
        let about: PatchMetadata = serde_json::from_str(about).map_err(|e| not(e.to_string()))?;
        if about.schema != SCHEMA {
            return Err(not(format!("schema \"{}\"", about.schema)));
        }
        if about.from.is_empty() {
            return Err(not("no digest of a file that it applies to".into()));
        }
        let mut header = (about.header.len() as u64).to_le_bytes().to_vec();
        header.extend(about.header.bytes());
        let named = |entry: &Entry| Ok((entry.name.clone(), file.bytes_of(entry)?));
        let tensors = file.header.entries.iter().map(named).collect::<Result<_, Error>>()?;
        let patch = Patch { from: about.from, to: about.to, header, tensors };
        patch.target(path)?;
        Ok(patch)
    }

    /// The result's header, verified as far as possible without the data.
    pub(super) fn target(&self, path: &Path) -> Result<Header, Error> {
        let header = Header::parse(path, &self.header)?;
        header.verify(path, header.in_file_order().last().map_or(0, |e| e.span.1))?;
        Ok(header)
    }

    /// Writes the result of applying it to `base`, piece by piece, with `put`.
    ///
    /// # Errors
    /// [`Refused::Parent`] if the patch was not made for `base`; [`Refused::Patched`] if the digest
    /// of the result is wrong; errors of `put`.
    pub(super) fn apply(
        &self,
        path: &Path,
        base: &OnDisk,
        put: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let found = base.digest()?;
        if !self.from.contains(&found) {
            let (path, expected) = (path.into(), self.from.clone());
            return Err(Refused::Parent { path, expected, found }.into());
        }
        let mut hash = Sha256::new();
        let mut both = |bytes: &[u8]| {
            hash.update(bytes);
            put(bytes)
        };
        both(&self.header)?;
        for entry in self.target(path)?.in_file_order() {
            match self.tensors.get(&entry.name) {
                Some(own) => both(own)?,
                None => both(&base.tensor(entry)?.unwrap_or_default())?,
            }
        }
        let found = hex(&hash.finalize());
        match found == self.to {
            true => Ok(()),
            false => {
                Err(Refused::Patched { path: path.into(), expected: self.to.clone(), found }.into())
            }
        }
    }

    /// Applies it to the file `base` and writes the result to `out`, atomically.
    ///
    /// # Errors
    /// [`Refused::Parent`] if the patch was not made for `base`; [`Refused::Patched`] if the patch
    /// is damaged; [`Error::Io`].
    pub fn write_applied(&self, base: &Path, out: &Path) -> Result<(), Error> {
        let from = OnDisk::open(base)?;
        replace(out, |file| {
            self.apply(base, &from, &mut |bytes| {
                file.write_all(bytes).map_err(Error::io(out, "write"))
            })
        })
    }

    /// [`Patch::write_applied`] to a file, or to a folder that also gets a copy of the
    /// configuration next to `base`; returns the path of the weights file.
    ///
    /// # Errors
    /// Those of [`Patch::write_applied`]; [`Error::Output`] for a folder with another checkpoint,
    /// or with a configuration if there is none next to `base`.
    pub fn save_applied(&self, base: &Path, out: &Path) -> Result<PathBuf, Error> {
        let path = target(out);
        if is_file_name(out) {
            self.write_applied(base, &path)?;
            return Ok(path);
        }
        let refuse = |reason: String| Err(Error::Output { path: out.into(), reason });
        let there = || OnDisk::open(&path)?.digest();
        if path.exists() && there().map_or(true, |digest| digest != self.to) {
            return refuse(
                "it already holds another checkpoint, which is never overwritten".into(),
            );
        }
        let mut beside = Vec::new();
        for name in ["config.json", PREPROCESSOR_FILE] {
            let (own, there) = (base.with_file_name(name), out.join(name));
            match std::fs::read(&own) {
                Ok(bytes) => beside.push((there, bytes)),
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&own, "read")(e));
                }
                Err(_) if there.exists() => {
                    return refuse(format!(
                        "the folder holds a {name}, and this checkpoint has none"
                    ));
                }
                Err(_) => {}
            }
        }
        self.write_applied(base, &path)?;
        beside.iter().try_for_each(|(there, bytes)| replace_with(there, bytes))?;
        Ok(path)
    }
}
