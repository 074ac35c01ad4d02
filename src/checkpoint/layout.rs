//! Layouts: the tensor names that a library gives to the same model.
//!
//! To add one: a file beside `timm.rs` with its two name maps and its reading of shapes and
//! configuration, a variant here, and a line in each `match`.

use super::{Error, timm};
use crate::nearest::nearest;
use candle_core::Tensor;
use std::collections::HashMap;

/// Prefixes that training scripts and wrappers put before every name.
const WRAPPERS: [&str; 5] = ["module.", "_orig_mod.", "model.", "state_dict.", "timm_model."];

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `timm`'s `VisionTransformer`: the canonical names themselves.
    Timm,
}

/// Where a file's tensor belongs: part `index` of `count`, stacked along the first dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Canonical name.
    pub canonical: String,
    /// Which part.
    pub index: usize,
    /// Of how many.
    pub count: usize,
}

impl Layout {
    /// All layouts, in the order in which equals are preferred.
    pub const ALL: [Layout; 1] = [Layout::Timm];

    /// The library's name.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Timm => "timm",
        }
    }

    /// Where a name without wrappers belongs; none if the layout has no such name.
    pub(super) fn part(self, name: &str) -> Option<Part> {
        match self {
            Layout::Timm => timm::part(name),
        }
    }

    /// The layout's names, without wrappers, whose tensors stacked along the first dimension make
    /// the canonical tensor.
    pub(super) fn names(self, canonical: &str) -> Vec<String> {
        match self {
            Layout::Timm => vec![canonical.to_string()],
        }
    }

    /// The layout that knows most of the names, and how many.
    pub(super) fn nearest(names: &[&str]) -> (Layout, usize) {
        let count = |layout: Layout| names.iter().filter(|n| layout.part(n).is_some()).count();
        let scored = Layout::ALL.map(|layout| (layout, count(layout)));
        // The last maximum is the first in the reverse order.
        scored.into_iter().rev().max_by_key(|&(_, n)| n).unwrap_or((Layout::Timm, 0))
    }
}

/// The longest chain of wrappers that every name begins with.
pub(super) fn wrapper(names: &[&str]) -> String {
    let mut prefix = String::new();
    let wrapped = |prefix: &str| names.iter().all(|name| name.starts_with(prefix));
    while let Some(longer) =
        WRAPPERS.iter().map(|w| format!("{prefix}{w}")).find(|longer| wrapped(longer))
    {
        if names.is_empty() {
            break;
        }
        prefix = longer;
    }
    prefix
}

/// Names in a file, seen through its layout and wrappers.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The layout.
    pub layout: Layout,
    /// What stands before every name.
    pub prefix: String,
}

impl Names {
    /// The checkpoint's own name or names of a canonical tensor, in stacking order.
    pub fn of(&self, canonical: &str) -> Vec<String> {
        let names = self.layout.names(canonical);
        names.into_iter().map(|name| format!("{}{name}", self.prefix)).collect()
    }

    /// Canonical tensors under the checkpoint's own names.
    pub fn to_file(&self, canonical: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Error> {
        let mut out = Vec::new();
        for (name, tensor) in canonical {
            let names = self.of(name);
            let rows = tensor.dim(0)? / names.len();
            for (i, own) in names.iter().enumerate() {
                let part = if names.len() == 1 {
                    tensor.clone()
                } else {
                    tensor.narrow(0, i * rows, rows)?
                };
                out.push((own.clone(), part));
            }
        }
        Ok(out)
    }

    /// The inverse of [`Names::to_file`]: in the order in which canonical names first occur.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] for a name the layout does not have, or a part without its others.
    pub fn to_canonical(
        &self,
        named: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let mut order = Vec::new();
        let mut parts: HashMap<String, Vec<Option<Tensor>>> = HashMap::new();
        for (name, tensor) in named {
            let stripped = name.strip_prefix(&self.prefix);
            let Some(part) = stripped.and_then(|name| self.layout.part(name)) else {
                return Err(Error::UnknownTensor { name, nearest: None });
            };
            let slots = parts.entry(part.canonical.clone()).or_insert_with(|| {
                order.push(part.canonical.clone());
                vec![None; part.count]
            });
            slots[part.index] = Some(tensor);
        }
        let mut out = Vec::with_capacity(order.len());
        for canonical in order {
            let slots = parts.remove(&canonical).unwrap_or_default();
            let missing = slots.iter().position(Option::is_none);
            if let Some(name) = missing.and_then(|i| self.of(&canonical).into_iter().nth(i)) {
                return Err(Error::UnknownTensor { name, nearest: None });
            }
            let mut whole: Vec<Tensor> = slots.into_iter().flatten().collect();
            let tensor = if whole.len() == 1 { whole.remove(0) } else { Tensor::cat(&whole, 0)? };
            out.push((canonical, tensor));
        }
        Ok(out)
    }

    /// An error for a name that does not exist, with the closest of those that do.
    pub fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        let nearest = nearest(name, known).map(str::to_string);
        Error::UnknownTensor { name: name.to_string(), nearest }
    }
}
