//! Reads canonical names, shapes and tensors from a file with a verified header.

use super::adapter::Adapter;
use super::error::Mismatch;
use super::layout::Family;
use super::names::Names;
use super::on_disk::OnDisk;
use super::{Entry, Error, Header, TensorDtype};
use super::{convnext, mixer, timm};
use crate::models::{Config, Network, Param, Weights};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Shapes by canonical name.
pub(super) type Shapes = HashMap<String, Vec<usize>>;

/// The configuration as far as the tensors determine it.
///
/// # Errors
/// [`Error::Dtype`]; [`Error::NoClassifier`] for a whole model without a head; otherwise
/// [`Error::Tensors`] with all missing, unexpected and misshapen tensors.
pub(super) fn structure(path: &Path, names: &Names, header: &Header) -> Result<Config, Error> {
    let (shapes, parts) = shapes(path, names, header)?;
    let found = match names.layout.family() {
        Family::Vit => {
            timm::structure(&shapes, names.layout, names.distillation()).map(Config::Vit)
        }
        Family::Mixer => mixer::structure(&shapes).map(Config::Mixer),
        Family::ConvNext => convnext::structure(&shapes, names.layout).map(Config::ConvNext),
    };
    let mut report = match found {
        Ok(config) if parts.is_empty() => return Ok(config),
        Ok(_) => Mismatch::default(),
        Err(report) => *report,
    };
    let headless = !shapes.keys().any(|name| in_head(name));
    let rest = |report: &Mismatch| {
        let missing = report.missing.iter().any(|name| !in_head(name));
        missing || !report.unexpected.is_empty() || !report.misshapen.is_empty()
    };
    if headless && !rest(&report) && parts.is_empty() {
        return Err(Error::NoClassifier { path: path.into(), layout: names.layout.name() });
    }
    report.rename(|canonical| names.of(canonical).join(" + "));
    report.missing.extend(parts.missing);
    report.unexpected.extend(parts.unexpected);
    report.misshapen.extend(parts.misshapen);
    let (path, layout) = (path.to_path_buf(), names.layout.name());
    Err(Error::Tensors { path, layout, report: Box::new(report) })
}

/// Refuses tensors without elements. They take no bytes, so their other dimensions are unbounded:
/// check this before multiplying dimensions.
pub(super) fn nonempty(shapes: &Shapes) -> Result<(), Box<Mismatch>> {
    let empty = shapes.iter().filter(|(_, shape)| shape.contains(&0));
    let mut misshapen: Vec<_> = empty
        .map(|(name, shape)| {
            (name.clone(), shape.iter().map(|&n| n.max(1)).collect(), shape.clone())
        })
        .collect();
    if misshapen.is_empty() {
        return Ok(());
    }
    misshapen.sort_unstable();
    Err(Box::new(Mismatch { misshapen, ..Mismatch::default() }))
}

/// Compares the tensors with those that a network declares. `free` names a tensor and a dimension of
/// it that may have any size.
pub(super) fn compare(params: &[Param], shapes: &Shapes, free: Option<(&str, usize)>) -> Mismatch {
    let mut out = Mismatch::default();
    for Param { name, shape, .. } in params {
        let mut shape = shape.clone();
        match shapes.get(name) {
            None => out.missing.push(name.clone()),
            Some(found) => {
                if let Some((_, axis)) = free.filter(|(free, _)| free == name)
                    && found.len() == shape.len()
                {
                    shape[axis] = found[axis];
                }
                if *found != shape {
                    out.misshapen.push((name.clone(), shape, found.clone()));
                }
            }
        }
    }
    let known: HashSet<&String> = params.iter().map(|param| &param.name).collect();
    out.unexpected = shapes.keys().filter(|name| !known.contains(name)).cloned().collect();
    out.unexpected.sort_unstable();
    out
}

/// Shapes of canonical tensors. Also, under the file's names: missing parts, parts whose shape
/// differs from that of the first part, and tensors that belong to none.
fn shapes(path: &Path, names: &Names, header: &Header) -> Result<(Shapes, Mismatch), Error> {
    let mut out = Shapes::new();
    let mut report = Mismatch { unexpected: names.foreign.clone(), ..Mismatch::default() };
    // For each canonical tensor, the shape of its parts.
    let mut shared: HashMap<&str, &[usize]> = HashMap::new();
    for entry in names.entries(header) {
        let Some(part) = names.part(&entry.name) else { continue };
        if TensorDtype::parse(&entry.dtype).is_none() {
            return Err(Error::Dtype {
                path: path.into(),
                tensor: entry.name.clone(),
                found: entry.dtype.clone(),
            });
        }
        let first = *shared.entry(&part.canonical).or_insert(&entry.shape);
        if first != entry.shape.as_slice() {
            report.misshapen.push((entry.name.clone(), first.to_vec(), entry.shape.clone()));
        }
        let mut whole = first.to_vec();
        if let Some(rows) = whole.first_mut() {
            *rows = rows.saturating_mul(part.count);
        }
        if let Some(shape) = names.layout.canonical_shape(&part.canonical, &whole) {
            whole = shape;
        }
        out.insert(part.canonical.clone(), whole);
    }
    for canonical in shared.keys() {
        report.missing.extend(names.gaps(canonical));
    }
    report.missing.sort_unstable();
    Ok((out, report))
}

/// Whether a canonical name belongs to the head. ConvNeXt's last norm is `head.norm`.
fn in_head(name: &str) -> bool {
    name.starts_with("head") && !name.starts_with("head.norm.")
}

/// The model's tensors, decoded and, if the layout splits them, concatenated; and the SHA-256 of
/// the file. Tensors that the file lacks are taken from the adapter. Nothing is merged. The head of a
/// headless file is zero.
pub(super) fn read_weights(
    network: &Network,
    names: &Names,
    file: &OnDisk,
    dtype: DType,
    adapter: Option<&Adapter>,
    headless: bool,
) -> Result<(Weights, String), Error> {
    let mut found: HashMap<String, Tensor> = HashMap::new();
    let digest = file.digest_with(|entry, bytes| {
        // Tensors that the model does not use, such as a pooler, are read only for the digest.
        if names.part(&entry.name).is_some() {
            let stored = TensorDtype::parse(&entry.dtype).unwrap_or(TensorDtype::F32);
            let tensor = stored.decode(&bytes, &entry.shape, dtype)?;
            for alias in names.aliases.iter().filter(|alias| alias.stored == entry.name) {
                found.insert(alias.entry.name.clone(), tensor.clone());
            }
            found.insert(entry.name.clone(), tensor);
        }
        Ok(())
    })?;
    let mut tensors = Vec::new();
    for param in network.params() {
        let canonical = &param.name;
        let mut parts = Vec::new();
        if let Some(whole) = adapter.and_then(|adapter| adapter.replacement(canonical)) {
            tensors.push(whole.reshape(param.shape.as_slice())?.to_dtype(dtype)?);
            continue;
        }
        if headless && in_head(canonical) {
            tensors.push(Tensor::zeros(param.shape.as_slice(), dtype, &Device::Cpu)?);
            continue;
        }
        for own in names.of(canonical) {
            let known = || names.entries(&file.header).map(|entry| entry.name.as_str());
            parts.push(found.remove(&own).ok_or_else(|| Names::unknown(&own, known()))?);
        }
        let whole = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? };
        tensors.push(match names.layout.canonical_shape(canonical, whole.dims()) {
            Some(_) => whole.reshape(param.shape.as_slice())?,
            None => whole,
        });
    }
    Ok((Weights::new(network, tensors)?, digest))
}

impl Header {
    /// A tensor's bytes within the whole file's bytes.
    pub fn bytes_of<'a>(&self, entry: &Entry, bytes: &'a [u8]) -> &'a [u8] {
        let (start, end) = entry.span;
        bytes.get(self.data_start + start..self.data_start + end).unwrap_or(&[])
    }
}

/// Rows of the position embedding.
pub(super) fn position_rows(names: &Names, header: &Header) -> usize {
    let own = names.of("pos_embed");
    let entry = names.entries(header).find(|entry| own.contains(&entry.name));
    let shape = entry.map_or(Vec::new(), |entry| {
        let own = &entry.shape;
        names.layout.canonical_shape("pos_embed", own).unwrap_or_else(|| own.clone())
    });
    shape.get(1).copied().unwrap_or(0)
}

/// Describes an architecture without a name.
pub(super) fn describe(config: &Config) -> String {
    match config {
        Config::Vit(vit) => {
            let [height, width] = vit.patch_size;
            format!(
                "ViT of width {}, depth {}, {} heads, patch {height}×{width}",
                vit.dim, vit.depth, vit.heads
            )
        }
        Config::Mixer(mixer) => {
            let [height, width] = mixer.patch_size;
            format!(
                "MLP-Mixer of width {}, depth {}, patch {height}×{width}",
                mixer.dim, mixer.depth
            )
        }
        Config::ConvNext(convnext) => {
            let version = if convnext.grn { " V2" } else { "" };
            let list = |values: &[usize]| {
                values.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
            };
            format!(
                "ConvNeXt{version} of widths {}, depths {}",
                list(&convnext.dims),
                list(&convnext.depths)
            )
        }
    }
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
