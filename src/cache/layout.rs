//! Header and layout of a cache file.
//!
//! A cache file is a safetensors file, so that other programs can open it: `activations`, (N, …),
//! and `checksums`, (N), the CRC-32 of each row's bytes. The metadata have the key and a
//! description for the user.

use super::{ActivationDtype, Error, FORMAT, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Maximum header length in bytes; actual headers have some hundred.
const MOST: u64 = 1 << 16;

/// Content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationLayout {
    /// Number of images.
    pub rows: usize,
    /// Shape of one image's activations.
    pub row: Vec<usize>,
    /// Their type.
    pub stored: ActivationDtype,
}

/// Description of a file for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its key.
    #[serde(rename = "planish.key")]
    pub key: String,
    /// [`super::FORMAT`] of the build that wrote it; empty in files older than this entry.
    #[serde(rename = "planish.format", default)]
    pub format: String,
    /// The checkpoint.
    pub model: String,
    /// Data set and split.
    pub data: String,
    /// The stage's name.
    pub stage: String,
    /// The view of the images; `plain` without augmentation.
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

impl ActivationLayout {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row.iter().fold(self.stored.bytes(), |n, &d| n.saturating_mul(d))
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        (self.rows as u64).saturating_mul(self.row_bytes() as u64)
    }

    /// Allocates capacity for all rows.
    pub(crate) fn room(&self) -> Vec<u8> {
        let mut rows = Vec::new();
        rows.reserve_exact(usize::try_from(self.bytes()).unwrap_or(0));
        rows
    }

    /// Bytes of a file, with the maximum header length.
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
        // Strings and numbers can always be written as JSON.
        let mut json = serde_json::to_vec(&head).unwrap_or_default();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut json);
        bytes
    }

    /// Compares a header's JSON with this layout and key.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first difference.
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

/// The header length from the file's first 8 bytes, if planish may have written it.
pub(super) fn header_length(first: [u8; 8]) -> Option<usize> {
    let length = u64::from_le_bytes(first);
    usize::try_from(length).ok().filter(|_| (1..=MOST).contains(&length))
}

/// Description, shape and type from a header's JSON, if it is that of a cache file.
pub(super) fn read_about(json: &[u8]) -> Option<(About, Vec<usize>, String)> {
    let head: Head = serde_json::from_slice(json).ok()?;
    Some((head.about, head.activations.shape, head.activations.dtype))
}
