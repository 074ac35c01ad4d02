//! The safetensors header: eight bytes of length, then JSON; the tensors' bytes follow.
//!
//! The crate `safetensors` does not keep the order of names and accepts duplicate names. Saving a
//! file unchanged needs the order, and a duplicate name is ambiguous, so the header is parsed here.
//! Format: <https://github.com/huggingface/safetensors#format>.

use super::{Error, TensorDtype};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::path::Path;

/// Maximum header length that the format allows, in bytes.
const LONGEST: usize = 100_000_000;

/// What the header says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Tensor name in the file.
    pub name: String,
    /// Type, as the format spells it.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// First byte and one past the last, relative to the end of the header.
    pub span: (usize, usize),
}

/// A verified header: spans lie within the file, have no gaps, do not overlap and have the size
/// that type and shape require.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `__metadata__`, in the file's order.
    pub metadata: Vec<(String, String)>,
    /// Tensors, in the header's order.
    pub entries: Vec<Entry>,
    /// Offset of the tensors' bytes.
    pub data_start: usize,
}

/// A JSON object that keeps order and repeated keys.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Bits of one element of a type.
fn bits(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" => 8,
        "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

impl Header {
    /// Bytes of the length field.
    pub const LENGTH_FIELD: usize = 8;

    /// Reads and verifies the header of a whole file.
    ///
    /// # Errors
    /// [`Error::Header`], with the place, the expected and the found content.
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Header, Error> {
        let header = Header::parse(path, bytes)?;
        header.verify(path, bytes.len() - header.data_start)?;
        Ok(header)
    }

    /// Number of header bytes after the length field `prefix`; `None` if the prefix is too short or
    /// its value exceeds the limit of the format.
    pub(super) fn rest(prefix: &[u8]) -> Option<usize> {
        let length = u64::from_le_bytes(prefix.try_into().ok()?);
        usize::try_from(length).ok().filter(|&n| n <= LONGEST)
    }

    /// Parses the header at the beginning of `bytes`, without verifying the spans.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Header, Error> {
        let fail = |place: &str, expected: String, found: String| Error::Header {
            path: path.to_path_buf(),
            place: place.to_string(),
            expected,
            found,
        };
        let Some((prefix, rest)) = bytes.split_first_chunk::<{ Header::LENGTH_FIELD }>() else {
            let found = format!("a file of {} bytes", bytes.len());
            return Err(fail("header length", "8 bytes".into(), found));
        };
        let json = Header::rest(prefix)
            .ok_or_else(|| {
                let found = format!("{} bytes", u64::from_le_bytes(*prefix));
                fail("header length", format!("at most {LONGEST} bytes"), found)
            })
            .and_then(|n| {
                rest.get(..n).ok_or_else(|| {
                    let found = format!("{} bytes after the length field", rest.len());
                    fail("header", format!("{n} bytes"), found)
                })
            })?;
        let Pairs(pairs) = serde_json::from_slice(json)
            .map_err(|e| fail("header", "a JSON object".into(), e.to_string()))?;
        let mut header = Header {
            metadata: Vec::new(),
            entries: Vec::new(),
            data_start: Header::LENGTH_FIELD + json.len(),
        };
        let mut seen = std::collections::HashSet::new();
        for (name, value) in pairs {
            if !seen.insert(name.clone()) {
                let place = format!("header entry \"{name}\"");
                return Err(fail(&place, "each name once".into(), "it twice".into()));
            }
            if name == "__metadata__" {
                header.metadata = metadata(value)
                    .map_err(|found| fail("__metadata__", "strings under names".into(), found))?;
            } else {
                let read = entry(&name, &value).map_err(|(expected, found)| {
                    fail(&format!("tensor \"{name}\""), expected.into(), found)
                })?;
                header.entries.push(read);
            }
        }
        Ok(header)
    }

    /// Checks that the spans cover `available` bytes of data without gaps.
    pub(super) fn verify(&self, path: &Path, available: usize) -> Result<(), Error> {
        self.check_spans(available).map_err(|(place, expected, found)| Error::Header {
            path: path.to_path_buf(),
            place,
            expected,
            found,
        })
    }

    /// Spans must follow one another from the first byte to the last.
    fn check_spans(&self, available: usize) -> Result<(), (String, String, String)> {
        let mut at = 0;
        for entry in self.in_file_order() {
            let (start, end) = entry.span;
            if start != at {
                return Err((
                    format!("tensor \"{}\": data_offsets", entry.name),
                    format!("a start at byte {at}, where the tensor before it ends"),
                    format!("byte {start}"),
                ));
            }
            at = end;
        }
        if at != available {
            return Err((
                "data after the header".into(),
                format!("{at} bytes"),
                format!("{available} bytes"),
            ));
        }
        Ok(())
    }

    /// The same tensors in the same order, without gaps, each with the bytes that its type and shape
    /// require.
    pub(super) fn packed(mut self) -> Header {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|&i| self.entries[i].span);
        let mut at = 0;
        for i in order {
            let entry = &mut self.entries[i];
            let size = match TensorDtype::parse(&entry.dtype) {
                Some(stored) => entry.shape.iter().product::<usize>() * stored.size(),
                None => entry.span.1 - entry.span.0,
            };
            entry.span = (at, at + size);
            at += size;
        }
        self
    }

    /// Tensors in order of their spans.
    pub fn in_file_order(&self) -> Vec<&Entry> {
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_by_key(|entry| entry.span);
        order
    }

    /// The serialised header with length field and padding. The tensors' bytes begin at a multiple
    /// of eight, as the format requires.
    pub fn to_bytes(&self) -> Vec<u8> {
        let string = |s: &str| Value::from(s).to_string();
        let mut parts = Vec::new();
        if !self.metadata.is_empty() {
            let pairs: Vec<String> =
                self.metadata.iter().map(|(k, v)| format!("{}:{}", string(k), string(v))).collect();
            parts.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
        }
        for entry in &self.entries {
            let shape: Vec<String> = entry.shape.iter().map(usize::to_string).collect();
            parts.push(format!(
                "{}:{{\"dtype\":{},\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                string(&entry.name),
                string(&entry.dtype),
                shape.join(","),
                entry.span.0,
                entry.span.1,
            ));
        }
        let mut json = format!("{{{}}}", parts.join(",")).into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut out = (json.len() as u64).to_le_bytes().to_vec();
        out.extend(json);
        out
    }
}

fn metadata(value: Value) -> Result<Vec<(String, String)>, String> {
    let Value::Object(map) = value else { return Err(kind(&value).into()) };
    map.into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            other => Err(format!("{} under \"{key}\"", kind(&other))),
        })
        .collect()
}

/// The kind of a JSON value, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// One tensor's entry; the error is (expected, found).
fn entry(name: &str, value: &Value) -> Result<Entry, (&'static str, String)> {
    let numbers = |key: &str| -> Option<Vec<usize>> {
        let list = value.get(key)?.as_array()?;
        list.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
    };
    let shown = |key: &str| value.get(key).map_or("nothing".to_string(), Value::to_string);
    let dtype = value.get("dtype").and_then(Value::as_str);
    let (dtype, bits) = dtype
        .and_then(|name| Some((name, bits(name)?)))
        .ok_or_else(|| ("a dtype of the safetensors format", shown("dtype")))?;
    let shape = numbers("shape").ok_or_else(|| ("a shape of whole numbers", shown("shape")))?;
    let span = match numbers("data_offsets").as_deref() {
        Some(&[start, end]) if start <= end => (start, end),
        _ => return Err(("data_offsets [start, end]", shown("data_offsets"))),
    };
    let size = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let size = size.and_then(|n| n.checked_mul(bits)).filter(|n| n.is_multiple_of(8));
    if size.map(|n| n / 8) != Some(span.1 - span.0) {
        let found = format!("{dtype} {shape:?} in {} bytes", span.1 - span.0);
        return Err(("as many bytes as type and shape require", found));
    }
    Ok(Entry { name: name.to_string(), dtype: dtype.to_string(), shape, span })
}
