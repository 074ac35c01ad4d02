//! The tensor names in a file, resolved through layout and wrappers.

use super::error::few;
use super::layout::Part;
use super::{Error, Header, Layout, transformers};
use crate::models::vit::Distillation;
use crate::nearest::nearest;
use candle_core::Tensor;
use std::collections::HashMap;
use std::path::Path;

/// Prefixes that training scripts and wrappers add to every name.
const WRAPPERS: [&str; 7] = [
    "module.",
    "_orig_mod.",
    "model.",
    "state_dict.",
    "state_dict_ema.",
    "model_ema.",
    "timm_model.",
];

/// A name without the prefixes of wrappers.
pub(super) fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}

/// The names in a file and their canonical tensors.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The layout.
    pub layout: Layout,
    /// Prefix of every name.
    pub prefix: String,
    /// Prefix of a backbone's names after that: `vit.`, or empty.
    root: &'static str,
    /// From a name in the file to the part of a canonical tensor.
    parts: HashMap<String, Part>,
    /// From a canonical name to the file's names of its parts; `None` for a missing part.
    own: HashMap<String, Vec<Option<String>>>,
    /// Shapes in the file of tensors with further dimensions of size 1.
    shapes: HashMap<String, Vec<usize>>,
    /// Names of the layout that a classifier does not use, in the file's order.
    pub ignored: Vec<String>,
    /// Names that the layout does not have, or second names of a tensor, in the file's order.
    pub foreign: Vec<String>,
}

/// The longest chain of wrapper prefixes that all names share.
fn wrapper(names: &[&str]) -> String {
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

impl Names {
    /// Recognises layout and wrappers by the names alone.
    ///
    /// # Errors
    /// [`Error::Layout`] if no layout knows half of the names. Lists of missing tensors would not
    /// help then.
    pub fn recognise(path: &Path, header: &Header) -> Result<Names, Error> {
        let all: Vec<&str> = header.entries.iter().map(|entry| entry.name.as_str()).collect();
        let prefix = wrapper(&all);
        let stripped: Vec<&str> = all.iter().map(|name| &name[prefix.len()..]).collect();
        let (layout, matching) = Layout::nearest(&stripped);
        if matching == 0 || matching * 2 < all.len() {
            let names: Vec<String> = all.iter().map(|name| format!("`{name}`")).collect();
            return Err(Error::Layout {
                path: path.into(),
                found: if names.is_empty() { "no tensors".into() } else { few(&names) },
                layout: layout.name(),
                matching,
                total: all.len(),
            });
        }
        let mut out = Names {
            layout,
            prefix,
            root: "",
            parts: HashMap::new(),
            own: HashMap::new(),
            shapes: HashMap::new(),
            ignored: Vec::new(),
            foreign: Vec::new(),
        };
        for (entry, stripped) in header.entries.iter().zip(stripped) {
            out.add(&entry.name, stripped);
            let part = out.parts.get(&entry.name);
            if part.is_some_and(|part| layout.squeezes(&part.canonical)) {
                out.shapes.insert(entry.name.clone(), entry.shape.clone());
            }
        }
        Ok(out)
    }

    fn add(&mut self, name: &str, stripped: &str) {
        let sibling = || self.layout.sibling()?.part(stripped);
        let Some(part) = self.layout.part(stripped).or_else(sibling) else {
            let list =
                if self.layout.ignores(stripped) { &mut self.ignored } else { &mut self.foreign };
            return list.push(name.to_string());
        };
        if self.layout.is_transformers() && self.root.is_empty() {
            self.root = transformers::root(stripped);
        }
        let slots =
            self.own.entry(part.canonical.clone()).or_insert_with(|| vec![None; part.count]);
        match slots.get_mut(part.index) {
            Some(slot @ None) => {
                *slot = Some(name.to_string());
                self.parts.insert(name.to_string(), part);
            }
            _ => self.foreign.push(name.to_string()),
        }
    }

    /// Prefix of a backbone's names: `vit.`, or empty.
    pub fn root(&self) -> &'static str {
        self.root
    }

    /// The canonical part of a tensor in the file.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.get(name)
    }

    /// The file's names of a canonical tensor, in stacking order; the usual name for a missing one.
    pub fn of(&self, canonical: &str) -> Vec<String> {
        let known = self.own.get(canonical);
        if let Some(complete) = known.and_then(|slots| slots.iter().cloned().collect()) {
            return complete;
        }
        let usual = self.layout.names(canonical).into_iter().map(|name| {
            let backbone = self.layout.is_transformers() && transformers::in_backbone(&name);
            format!("{}{}{name}", self.prefix, if backbone { self.root } else { "" })
        });
        usual
            .enumerate()
            .map(|(i, usual)| known.and_then(|slots| slots.get(i).cloned()?).unwrap_or(usual))
            .collect()
    }

    /// The names of missing parts of a canonical tensor of which other parts exist.
    pub fn gaps(&self, canonical: &str) -> Vec<String> {
        let Some(slots) = self.own.get(canonical) else { return Vec::new() };
        let gaps = slots.iter().zip(self.of(canonical)).filter(|(slot, _)| slot.is_none());
        gaps.map(|(_, name)| name).collect()
    }

    /// Distillation tokens and heads in the file. timm's models have both token and head;
    /// transformers' models with one classifier call it `classifier`, those with two call it
    /// `cls_classifier`.
    pub fn distillation(&self) -> Distillation {
        let has = |name: &str| self.own.contains_key(name);
        let head = self.of("head.weight");
        let two = !self.layout.is_transformers()
            || has("head_dist.weight")
            || head.iter().any(|own| own.ends_with("cls_classifier.weight"));
        match has("dist_token") {
            false => Distillation::None,
            true if two => Distillation::TokenAndHead,
            true => Distillation::Token,
        }
    }

    /// How the layout was recognised, in words.
    pub fn recognition(&self, total: usize) -> String {
        let mut out =
            format!("{}: {} of {total} tensor names", self.layout.name(), self.parts.len());
        if let Some(sibling) = self.layout.sibling() {
            let strange = |own: &&String| self.layout.part(&own[self.prefix.len()..]).is_none();
            let strangers = self.parts.keys().filter(strange).count();
            if strangers > 0 {
                out += &format!(", {strangers} as in {}", sibling.name());
            }
        }
        if !self.prefix.is_empty() {
            out += &format!(", each after `{}`", self.prefix);
        }
        if !self.ignored.is_empty() {
            out += &format!(", {} ignored: {}", self.ignored.len(), few(&self.ignored));
        }
        out
    }

    /// Converts canonical tensors to the names in the file.
    pub fn to_file(&self, canonical: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Error> {
        let mut out = Vec::new();
        for (name, tensor) in canonical {
            let names = self.of(name);
            let rows = tensor.dim(0)? / names.len();
            for (i, own) in names.iter().enumerate() {
                let part = match names.len() {
                    1 => tensor.clone(),
                    _ => tensor.narrow(0, i * rows, rows)?,
                };
                out.push((own.clone(), self.unsqueezed(own, part)?));
            }
        }
        Ok(out)
    }

    /// The inverse of [`Names::to_file`], in order of the first occurrence of each canonical name.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] for a name that the layout does not have, or a part without the
    /// others.
    pub fn to_canonical(
        &self,
        named: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let mut order = Vec::new();
        let mut parts: HashMap<String, Vec<Option<Tensor>>> = HashMap::new();
        for (name, tensor) in named {
            let Some(part) = self.part(&name) else {
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
            out.push((canonical.clone(), self.squeezed(&canonical, tensor)?));
        }
        Ok(out)
    }

    /// A part in the shape that the file has for it.
    fn unsqueezed(&self, own: &str, part: Tensor) -> Result<Tensor, Error> {
        Ok(match self.shapes.get(own) {
            Some(shape) => part.reshape(shape.as_slice())?,
            None => part,
        })
    }

    /// A canonical tensor without the further dimensions that the file may have.
    fn squeezed(&self, canonical: &str, tensor: Tensor) -> Result<Tensor, Error> {
        if !self.layout.squeezes(canonical) {
            return Ok(tensor);
        }
        let shape: Vec<usize> = tensor.dims().iter().copied().filter(|&n| n != 1).collect();
        Ok(tensor.reshape(shape)?)
    }

    /// An error for an unknown name, with the closest known one.
    pub fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        let nearest = nearest(name, known).map(str::to_string);
        Error::UnknownTensor { name: name.to_string(), nearest }
    }
}
