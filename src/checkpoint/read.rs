//! From a verified header to canonical names, shapes and tensors.

use super::error::few;
use super::layout::{Names, wrapper};
use super::settings::Settings;
use super::timm::Shapes;
use super::{Entry, Error, Header, Layout, Stored};
use crate::vit::{Config, Weights};
use candle_core::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Layout and wrappers of the names.
pub(super) fn recognise(path: &Path, header: &Header) -> Result<Names, Error> {
    let own: Vec<&str> = header.entries.iter().map(|entry| entry.name.as_str()).collect();
    let prefix = wrapper(&own);
    let stripped: Vec<&str> = own.iter().map(|name| &name[prefix.len()..]).collect();
    let (layout, matching) = Layout::nearest(&stripped);
    // Half the names decide: with fewer, lists of missing tensors would only bewilder.
    if matching == 0 || matching * 2 < own.len() {
        let names: Vec<String> = own.iter().map(|name| format!("`{name}`")).collect();
        return Err(Error::Layout {
            path: path.into(),
            found: if names.is_empty() { "no tensors".into() } else { few(&names) },
            layout: layout.name(),
            matching,
            total: own.len(),
        });
    }
    Ok(Names { layout, prefix })
}

/// Shapes of canonical tensors; names the layout does not know keep their own.
pub(super) fn shapes(path: &Path, names: &Names, header: &Header) -> Result<Shapes, Error> {
    let mut out = Shapes::new();
    for entry in &header.entries {
        if Stored::parse(&entry.dtype).is_none() {
            return Err(Error::Dtype {
                path: path.into(),
                tensor: entry.name.clone(),
                found: entry.dtype.clone(),
            });
        }
        let stripped = entry.name.get(names.prefix.len()..).unwrap_or(&entry.name);
        let part = names.layout.part(stripped);
        let canonical = part.map_or(stripped.to_string(), |part| part.canonical);
        match out.get_mut(&canonical) {
            None => {
                out.insert(canonical, entry.shape.clone());
            }
            Some(whole) => {
                if let (Some(rows), Some(more)) = (whole.first_mut(), entry.shape.first()) {
                    *rows = rows.saturating_add(*more);
                }
            }
        }
    }
    Ok(out)
}

/// The model's tensors, decoded and, where the layout splits them, put together.
pub(super) fn read_weights(
    config: &Config,
    names: &Names,
    header: &Header,
    bytes: &[u8],
    dtype: DType,
) -> Result<Weights, Error> {
    let entries: HashMap<&str, &Entry> =
        header.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut tensors = Vec::new();
    for (canonical, _) in config.tensors() {
        let mut parts = Vec::new();
        for own in names.of(&canonical) {
            let entry = entries
                .get(own.as_str())
                .ok_or_else(|| Names::unknown(&own, entries.keys().copied()))?;
            parts.push(header.tensor(entry, bytes, dtype)?);
        }
        tensors.push(if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? });
    }
    Ok(Weights::new(config, tensors)?)
}

impl Header {
    /// A tensor's bytes in the whole file's.
    pub fn bytes_of<'a>(&self, entry: &Entry, bytes: &'a [u8]) -> &'a [u8] {
        let (start, end) = entry.span;
        bytes.get(self.data_start + start..self.data_start + end).unwrap_or(&[])
    }

    /// A tensor's values.
    fn tensor(&self, entry: &Entry, bytes: &[u8], dtype: DType) -> Result<Tensor, Error> {
        let stored = Stored::parse(&entry.dtype).unwrap_or(Stored::F32);
        Ok(stored.decode(self.bytes_of(entry, bytes), &entry.shape, dtype)?)
    }
}

/// Names of the classes, as many as the head has.
pub(super) fn class_names(
    path: &Path,
    settings: Option<&Settings>,
    classes: usize,
) -> Result<Option<Vec<String>>, Error> {
    let Some(settings) = settings else { return Ok(None) };
    let key = "label_names";
    let nested = "pretrained_cfg.label_names";
    let names = match settings.names(key)? {
        Some(names) => Some(names),
        None => settings.names(nested)?,
    };
    match names {
        Some(names) if names.len() != classes => Err(Error::Contradiction {
            path: path.into(),
            place: settings.place.as_str().into(),
            key: "number of label_names",
            stated: names.len().to_string().into(),
            shown: classes.to_string().into(),
            tensor: "`head.weight`",
        }),
        names => Ok(names),
    }
}

/// An architecture without a name.
pub(super) fn describe(config: &Config) -> String {
    let [height, width] = config.patch_size;
    format!(
        "ViT of width {}, depth {}, {} heads, patch {height}×{width}",
        config.dim, config.depth, config.heads
    )
}

/// Stored types, the most frequent first.
pub(super) fn dtypes(header: &Header) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &header.entries {
        *counts.entry(&entry.dtype).or_default() += 1;
    }
    if let (1, Some((only, _))) = (counts.len(), counts.iter().next()) {
        return only.to_string();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    let parts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} ({n})")).collect();
    parts.join(", ")
}
