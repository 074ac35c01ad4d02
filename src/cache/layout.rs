//! The header of a file, and where its parts lie.
//!
//! A file is a safetensors file, so that other programs can open it: `activations`, (N, …), and
//! `checksums`, (N), the CRC-32 of each row's bytes; the metadata hold the key and what a user wants
//! to know of it.

use super::{Error, FORMAT, Result, Stored};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Most bytes that a header may have; ours have some hundred.
const MOST: u64 = 1 << 16;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Images.
    pub rows: usize,
    /// Shape of one image's activations.
    pub row: Vec<usize>,
    /// Their type.
    pub stored: Stored,
}

/// What a file says of itself, for the user's eyes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its key.
    #[serde(rename = "planish.key")]
    pub key: String,
    /// [`super::FORMAT`] of the build that wrote it; empty in files that are older than this entry.
    #[serde(rename = "planish.format", default)]
    pub format: String,
    /// The checkpoint.
    pub model: String,
    /// Data set and split.
    pub data: String,
    /// The stage's name.
    pub stage: String,
    /// Which view of the images; `plain` without augmentation.
    pub view: String,
    /// Version of planish that wrote it.
    pub version: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    #[serde(rename = "__metadata__")]
    about: About,
    activations: Info,
    checksums: Info,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl Layout {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row.iter().fold(self.stored.bytes(), |n, &d| n.saturating_mul(d))
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        (self.rows as u64).saturating_mul(self.row_bytes() as u64)
    }

    /// Memory for all rows, none of it used.
    pub(crate) fn room(&self) -> Vec<u8> {
        let mut rows = Vec::new();
        rows.reserve_exact(usize::try_from(self.bytes()).unwrap_or(0));
        rows
    }

    /// Bytes of a file, its header taken at its largest.
    pub fn file_bytes(&self) -> u64 {
        self.bytes().saturating_add(4 * self.rows as u64).saturating_add(MOST)
    }

    fn infos(&self) -> [Info; 2] {
        let (from, to) = (self.bytes(), self.bytes().saturating_add(4 * self.rows as u64));
        let shape = std::iter::once(self.rows).chain(self.row.iter().copied()).collect();
        [
            Info { dtype: self.stored.name().into(), shape, data_offsets: [0, from] },
            Info { dtype: "U32".into(), shape: vec![self.rows], data_offsets: [from, to] },
        ]
    }

    /// The header: its length in 8 bytes, then JSON, padded with spaces to a multiple of 8.
    pub(super) fn header(&self, about: &About) -> Vec<u8> {
        let [activations, checksums] = self.infos();
        let head = Head { about: about.clone(), activations, checksums };
        // Strings and numbers alone always have a JSON form.
        let mut json = serde_json::to_vec(&head).unwrap_or_default();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut json);
        bytes
    }

    /// Holds a header's JSON against this layout and key.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first part that differs.
    pub(super) fn check(&self, path: &Path, json: &[u8], key: &str) -> Result<()> {
        let damaged = |place: &str, expected: String, found: String| Error::Damaged {
            path: path.into(),
            place: place.into(),
            expected,
            found,
        };
        let head: Head = serde_json::from_slice(json)
            .map_err(|e| damaged("header", "the header planish wrote".into(), e.to_string()))?;
        if head.about.format != FORMAT {
            return Err(damaged("format", FORMAT.into(), head.about.format));
        }
        if head.about.key != key {
            return Err(damaged("key", key.into(), head.about.key));
        }
        let [activations, checksums] = self.infos();
        for (name, expected, found) in [
            ("activations", activations, head.activations),
            ("checksums", checksums, head.checksums),
        ] {
            if expected != found {
                return Err(damaged(name, format!("{expected:?}"), format!("{found:?}")));
            }
        }
        Ok(())
    }
}

/// The length of a header from the file's first 8 bytes, if it is one that planish may have written.
pub(super) fn header_length(first: [u8; 8]) -> Option<usize> {
    let length = u64::from_le_bytes(first);
    usize::try_from(length).ok().filter(|_| (1..=MOST).contains(&length))
}

/// What a header's JSON says of the file, if it is one of these files.
pub(super) fn read_about(json: &[u8]) -> Option<(About, Vec<usize>, String)> {
    let head: Head = serde_json::from_slice(json).ok()?;
    Some((head.about, head.activations.shape, head.activations.dtype))
}
