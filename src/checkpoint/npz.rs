//! Reads the Vision Transformers of Google's JAX code (`vision_transformer` and `big_vision`): an
//! `.npz` archive with one array for each parameter.
//!
//! The tensors get timm's names and arrangement: a kernel of a linear layer is transposed, queries,
//! keys and values are stacked, and the patch projection becomes (D, C, P, P) from (P, P, C, D).

use super::contents::{Contents, StoredTensor};
use super::on_disk::damaged;
use super::spelling::index;
use super::view::{Storage, View, contiguous};
use super::vit_in_jax::{WRITER, configuration};
use super::{CONFIG_KEY, Error};
use regex::Regex;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Longest header of an array, in bytes; NumPy's are below 200.
const LONGEST_HEADER: u16 = 4096;

/// What NumPy writes before the header of an array: magic bytes and version 1.0.
const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// The array that every model has, by which a prefix of all names is found.
const EMBEDDING: &str = "embedding/kernel";

/// An array in the archive.
#[derive(Clone, Debug)]
struct Array {
    dtype: &'static str,
    /// Bytes of an element.
    item: usize,
    shape: Vec<usize>,
    storage: Storage,
}

/// How an array is arranged as timm's tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Arrangement {
    /// As it is.
    Same,
    /// In one dimension.
    Flat,
    /// (inputs, outputs) as (outputs, inputs); several dimensions of outputs are joined.
    Kernel,
    /// The same with several dimensions of inputs.
    OutKernel,
    /// (height, width, inputs, outputs) as (outputs, inputs, height, width).
    Patches,
}

/// timm's name of an array, the part of this tensor, the number of parts, and the arrangement.
fn timm_name(name: &str) -> Option<(String, usize, usize, Arrangement)> {
    use Arrangement::{Flat, Kernel, OutKernel, Patches, Same};
    let whole = |name: &str, how| Some((name.to_string(), 0, 1, how));
    match name {
        "cls" => return whole("cls_token", Same),
        "embedding/kernel" => return whole("patch_embed.proj.weight", Patches),
        "embedding/bias" => return whole("patch_embed.proj.bias", Same),
        "Transformer/posembed_input/pos_embedding" | "pos_embedding" => {
            return whole("pos_embed", Same);
        }
        "Transformer/encoder_norm/scale" => return whole("norm.weight", Same),
        "Transformer/encoder_norm/bias" => return whole("norm.bias", Same),
        "head/kernel" => return whole("head.weight", Kernel),
        "head/bias" => return whole("head.bias", Same),
        _ => {}
    }
    let dotted = name.strip_prefix("Transformer/encoderblock_")?.replacen('/', ".", 1);
    let (block, inner) = index(&dotted)?;
    let (module, kind) = inner.rsplit_once('/')?;
    let parameter = match kind {
        "kernel" | "scale" => "weight",
        "bias" => "bias",
        _ => return None,
    };
    // big_vision counts modules of each kind; the older code counts all modules.
    let (attention, rest) = module.split_once('/').unwrap_or((module, ""));
    let (own, part, parts, how) = match (attention, rest, kind) {
        ("LayerNorm_0", "", "scale" | "bias") => ("norm1", 0, 1, Same),
        ("LayerNorm_1" | "LayerNorm_2", "", "scale" | "bias") => ("norm2", 0, 1, Same),
        (
            "MultiHeadDotProductAttention_0" | "MultiHeadDotProductAttention_1",
            "query" | "key" | "value",
            "kernel" | "bias",
        ) => {
            let part = match rest {
                "query" => 0,
                "key" => 1,
                _ => 2,
            };
            ("attn.qkv", part, 3, if kind == "kernel" { Kernel } else { Flat })
        }
        ("MultiHeadDotProductAttention_0" | "MultiHeadDotProductAttention_1", "out", _) => {
            ("attn.proj", 0, 1, if kind == "kernel" { OutKernel } else { Same })
        }
        ("MlpBlock_0" | "MlpBlock_3", "Dense_0" | "Dense_1", "kernel" | "bias") => {
            let name = if rest == "Dense_0" { "mlp.fc1" } else { "mlp.fc2" };
            (name, 0, 1, if kind == "kernel" { Kernel } else { Same })
        }
        _ => return None,
    };
    Some((format!("blocks.{block}.{own}.{parameter}"), part, parts, how))
}

/// The tensors of an archive under timm's names, with timm's configuration in the metadata. Arrays
/// that belong to no Vision Transformer keep their names, so that they are reported.
///
/// # Errors
/// [`Error::Damaged`].
pub(super) fn read(path: &Path, file: &File) -> Result<Contents, Error> {
    let arrays = arrays(path, file)?;
    let fail = |name: &str, expected: &str, found: String| {
        damaged(path, &format!("array \"{name}\""), expected.into(), found, WRITER)
    };
    let embedding = arrays.iter().map(|(name, _)| name);
    let Some(prefix) = embedding.filter_map(|name| name.strip_suffix(EMBEDDING)).next() else {
        return Err(fail(EMBEDDING, "the patch projection of a Vision Transformer", "none".into()));
    };
    let mut order: Vec<String> = Vec::new();
    let mut parts: HashMap<String, Vec<Option<StoredTensor>>> = HashMap::new();
    let mut heads = None;
    for (name, array) in &arrays {
        // An optimizer's state lies beside the parameters.
        let Some(own) = name.strip_prefix(prefix) else { continue };
        let (canonical, part, count, how) =
            timm_name(own).unwrap_or_else(|| (own.to_string(), 0, 1, Arrangement::Same));
        let (shape, view) = arranged(array, how)
            .map_err(|found| fail(name, "an array of a Vision Transformer", found))?;
        if let ([_, h, _], "attn.qkv.weight") = (&*array.shape, suffix(&canonical)) {
            heads = heads.or(Some(*h));
        }
        let slots = parts.entry(canonical.clone()).or_insert_with(|| {
            order.push(canonical.clone());
            vec![None; count]
        });
        let dtype = array.dtype.to_string();
        let stored = StoredTensor { name: canonical.clone(), dtype, shape, views: vec![view] };
        match slots.get_mut(part) {
            Some(slot @ None) => *slot = Some(stored),
            _ => return Err(fail(name, "each parameter once", format!("\"{canonical}\" twice"))),
        }
    }
    let mut tensors = Vec::new();
    for canonical in order {
        let slots = parts.remove(&canonical).unwrap_or_default();
        let Some(all) = slots.into_iter().collect::<Option<Vec<StoredTensor>>>() else {
            let expected = "query, key and value of each block";
            return Err(fail(&canonical, expected, "only some of them".into()));
        };
        tensors.push(stacked(all).map_err(|found| {
            fail(&canonical, "query, key and value of the same shape and type", found)
        })?);
    }
    let configuration = configuration(&tensors, heads);
    let mut metadata = vec![("format".to_string(), "pt".to_string())];
    metadata.extend(configuration.map(|text| (CONFIG_KEY.to_string(), text)));
    Ok(Contents { tensors, metadata, chosen: None })
}

/// The name inside a block.
fn suffix(canonical: &str) -> &str {
    let inner = canonical.strip_prefix("blocks.").and_then(index);
    inner.map_or(canonical, |(_, rest)| rest)
}

/// Parts stacked along the first dimension.
fn stacked(parts: Vec<StoredTensor>) -> Result<StoredTensor, String> {
    let mut parts = parts.into_iter();
    let Some(mut whole) = parts.next() else { return Err("none".into()) };
    let one = whole.shape.clone();
    for part in parts {
        if (&part.shape, &part.dtype) != (&one, &whole.dtype) {
            return Err(format!("{} {one:?} and {} {:?}", whole.dtype, part.dtype, part.shape));
        }
        whole.views.extend(part.views);
        if let (Some(rows), Some(more)) = (whole.shape.first_mut(), part.shape.first()) {
            *rows = rows.saturating_add(*more);
        }
    }
    Ok(whole)
}

/// Shape and view of timm's tensor.
fn arranged(array: &Array, how: Arrangement) -> Result<(Vec<usize>, View), String> {
    let shape = &array.shape;
    let odd = || format!("shape {shape:?}");
    let product = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let (shape, stride) = match (how, shape.as_slice()) {
        (Arrangement::Same, _) => (shape.clone(), contiguous(shape)),
        (Arrangement::Flat, dims) => (vec![product(dims).ok_or_else(odd)?], Some(vec![1])),
        (Arrangement::Kernel, [inputs, outputs @ ..]) if !outputs.is_empty() => {
            let outputs = product(outputs).ok_or_else(odd)?;
            (vec![outputs, *inputs], Some(vec![1, outputs]))
        }
        (Arrangement::OutKernel, [inputs @ .., outputs]) if !inputs.is_empty() => {
            (vec![*outputs, product(inputs).ok_or_else(odd)?], Some(vec![1, *outputs]))
        }
        (Arrangement::Patches, &[h, w, i, o]) => {
            let row = product(&[w, i, o]);
            let pixel = product(&[i, o]);
            (vec![o, i, h, w], row.zip(pixel).map(|(row, pixel)| vec![1, o, row, pixel]))
        }
        _ => return Err(odd()),
    };
    let view = View::new(array.storage, array.item, 0, shape.clone(), stride.ok_or_else(odd)?)?;
    Ok((shape, view))
}

/// All arrays of an archive, by name without `.npy`, in the archive's order.
fn arrays(path: &Path, file: &File) -> Result<Vec<(String, Array)>, Error> {
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    let broken = |error: zip::result::ZipError| {
        let (expected, found) = ("a readable archive".into(), error.to_string());
        damaged(path, "zip archive", expected, found, WRITER)
    };
    let pattern =
        r"^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \}\s*$";
    let header = Regex::new(pattern)
        .map_err(|error| damaged(path, "array", "a pattern".into(), error.to_string(), WRITER))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut out = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(broken)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let Some(name) = name.strip_suffix(".npy") else { continue };
        let fail = |expected: &str, found: String| {
            damaged(path, &format!("array \"{name}\""), expected.into(), found, WRITER)
        };
        let start = entry.data_start().unwrap_or(u64::MAX);
        let size = entry.size();
        if entry.compression() != CompressionMethod::Stored {
            let expected = "an uncompressed array, as numpy.savez writes it";
            return Err(fail(expected, "a compressed one".into()));
        }
        if start.checked_add(size).is_none_or(|end| end > length) {
            return Err(fail("an array inside the file", "one that is cut short".into()));
        }
        let mut begin = [0; 10];
        let read = entry.read_exact(&mut begin).is_ok() && begin.starts_with(MAGIC);
        let text_len = u16::from_le_bytes([begin[8], begin[9]]);
        let mut text = Vec::new();
        if read && text_len <= LONGEST_HEADER {
            // An error leaves the text too short to match.
            let _ = (&mut entry).take(text_len.into()).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let Some(found) = header.captures(&text) else {
            return Err(fail("a header of NumPy's format 1.0", format!("\"{text}\"")));
        };
        let (dtype, item) = match &found[1] {
            "<f4" => ("F32", 4),
            "<f2" => ("F16", 2),
            "<f8" => ("F64", 8),
            "<i4" => ("I32", 4),
            "<i8" => ("I64", 8),
            "<u4" => ("U32", 4),
            other => {
                return Err(fail("numbers of type <f4, <f2 or <f8", format!("\"{other}\"")));
            }
        };
        let dims = found[3].split(',').map(str::trim).filter(|dim| !dim.is_empty());
        let shape: Option<Vec<usize>> = dims.map(|dim| dim.parse().ok()).collect();
        let Some(shape) = shape else {
            return Err(fail("a shape of whole numbers", found[3].to_string()));
        };
        if &found[2] == "True" && shape.len() > 1 {
            let expected = "an array in C order (numpy.ascontiguousarray)";
            return Err(fail(expected, "one in Fortran order".into()));
        }
        let before = u64::from(text_len) + begin.len() as u64;
        let storage = Storage { file: 0, start: start + before, len: size.saturating_sub(before) };
        out.push((name.to_string(), Array { dtype, item, shape, storage }));
    }
    Ok(out)
}
