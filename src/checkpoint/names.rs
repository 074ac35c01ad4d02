//! The tensor names in a file, resolved through layout and wrappers.

use super::choice::choose;
use super::error::few;
use super::layout::LayoutPart;
use super::rules::Rules;
use super::{Entry, Error, Header, Layout, Load, transformers};
use crate::models::vit::Distillation;
use crate::nearest::nearest;
use candle_core::Tensor;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Canonical names of embeddings begin with one of these, in all families.
const EMBEDDINGS: [&str; 2] = ["patch_embed.", "stem."];

/// Most wrappers around a model whose names form its prefix.
const MOST_WRAPPERS: usize = 16;

/// The names in a file and their canonical tensors.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The layout.
    pub layout: Layout,
    /// Prefix of every name.
    pub prefix: String,
    /// Key of the chosen model, if the file has several.
    pub chosen: Option<String>,
    /// Prefix of a backbone's names after that: `vit.`, or empty.
    root: &'static str,
    /// From a name in the file to the part of a canonical tensor.
    parts: HashMap<String, LayoutPart>,
    /// From a canonical name to the file's names of its parts; `None` for a missing part.
    own: HashMap<String, Vec<Option<String>>>,
    /// Shapes in the file of tensors with more or fewer dimensions of size 1.
    shapes: HashMap<String, Vec<usize>>,
    /// Names that are not used by a classifier or were left aside, in the file's order.
    pub ignored: Vec<String>,
    /// Names that the layout does not have, or second names of a tensor, in the file's order.
    pub foreign: Vec<String>,
    /// Tensors that the file stores under another name.
    pub aliases: Vec<Alias>,
    /// Number of names that are as in the layout's sibling.
    strangers: usize,
}

/// A tensor that shares its values with another one. `safetensors.torch.save_model` stores such
/// values once and notes the second name in the metadata.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    /// The entry under the second name.
    pub entry: Entry,
    /// The name that the values are stored under.
    pub stored: String,
}

/// The prefix that ends in a dot and that all names share.
fn shared_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some((first, rest)) = names.split_first() else { return "" };
    let mut length = first.len();
    for name in rest {
        length = first.bytes().zip(name.bytes()).take(length).take_while(|(a, b)| a == b).count();
    }
    // A cut after a dot, which is one byte, is at a character boundary.
    let end = first.as_bytes()[..length].iter().rposition(|&byte| byte == b'.');
    end.map_or("", |end| &first[..=end])
}

/// The layout that knows most of the names after some part of their shared prefix, that part's
/// length, and the number of known names.
fn nearest_layout(names: &[&str]) -> (Layout, usize, usize) {
    let prefix = shared_prefix(names);
    let dots = prefix.match_indices('.').map(|(at, _)| at + 1);
    let cuts = std::iter::once(0).chain(dots.take(MOST_WRAPPERS));
    let mut best = (Layout::Timm, 0, 0);
    for cut in cuts {
        let stripped: Vec<&str> = names.iter().map(|name| &name[cut..]).collect();
        let (layout, matching) = Layout::nearest(&stripped);
        // The shortest prefix wins a tie.
        if matching > best.2 {
            best = (layout, cut, matching);
        }
    }
    best
}

/// Whether names may be those of a whole model: a layout knows half of them, also an embedding.
pub(super) fn is_model(names: &[&str]) -> bool {
    let (layout, cut, matching) = nearest_layout(names);
    let embeds = |name: &&str| {
        let part = layout.part(&name[cut..]);
        part.is_some_and(|part| EMBEDDINGS.iter().any(|stem| part.canonical.starts_with(stem)))
    };
    matching * 2 >= names.len() && names.iter().any(embeds)
}

/// The models in a list of names: keys, each with the indices of its names. Empty if it is not a
/// list of several models.
fn models(names: &[&str]) -> Vec<(String, Vec<usize>)> {
    let shared = shared_prefix(names).len();
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (i, name) in names.iter().enumerate() {
        let Some((key, _)) = name[shared..].split_once('.') else { continue };
        let group = *known.entry(key).or_insert_with(|| {
            groups.push((key.to_string(), Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(i);
    }
    groups.retain(|(key, members)| {
        let inner: Vec<&str> =
            members.iter().map(|&i| &names[i][shared + key.len() + 1..]).collect();
        is_model(&inner)
    });
    groups
}

impl Names {
    /// Recognises layout, prefix and chosen model by the names alone.
    ///
    /// # Errors
    /// [`Error::Layout`] if no layout knows half of the names. Lists of missing tensors would not
    /// help then. [`Error::SeveralModels`], [`Error::NoSuchModel`], [`Error::Adapter`];
    /// [`Error::Options`] for an invalid rule for names.
    pub fn recognise(path: &Path, header: &Header, load: &Load) -> Result<Names, Error> {
        let rules = Rules::new(load)?;
        let all: Vec<&str> = header.entries.iter().map(|entry| entry.name.as_str()).collect();
        rules.check_used(&all)?;
        if let Some(name) = all.iter().find(|name| name.contains(".lora_A.")) {
            return Err(Error::Adapter { path: path.into(), found: format!("tensor \"{name}\"") });
        }
        let mut ignored: Vec<bool> = all.iter().map(|name| rules.ignores(name)).collect();
        let renamed: Vec<Cow<str>> = all.iter().map(|name| rules.rename(name)).collect();
        let used =
            |ignored: &[bool]| -> Vec<usize> { (0..all.len()).filter(|&i| !ignored[i]).collect() };
        let listed = used(&ignored);
        let names_of = |indices: &[usize]| -> Vec<&str> {
            indices.iter().map(|&i| renamed[i].as_ref()).collect()
        };
        let names = names_of(&listed);
        let models = models(&names);
        let keys: Vec<&str> = match models.as_slice() {
            [] => vec![shared_prefix(&names).trim_end_matches('.')],
            some => some.iter().map(|(key, _)| key.as_str()).collect(),
        };
        let chosen = choose(path, &keys, load.weights.as_deref())?;
        if models.len() > 1 {
            let kept: HashSet<usize> = models[chosen].1.iter().map(|&k| listed[k]).collect();
            (0..all.len()).for_each(|i| ignored[i] |= !kept.contains(&i));
        }
        let listed = used(&ignored);
        let names = names_of(&listed);
        let (layout, cut, matching) = nearest_layout(&names);
        if matching == 0 || matching * 2 < names.len() {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            return Err(Error::Layout {
                path: path.into(),
                found: if names.is_empty() { "no tensors".into() } else { few(&names) },
                layout: layout.name(),
                matching,
                total: names.len(),
            });
        }
        let mut out = Names {
            layout,
            prefix: names.first().map_or(String::new(), |name| name[..cut].to_string()),
            chosen: (models.len() > 1).then(|| keys[chosen].to_string()),
            root: "",
            parts: HashMap::new(),
            own: HashMap::new(),
            shapes: HashMap::new(),
            ignored: Vec::new(),
            foreign: Vec::new(),
            aliases: Vec::new(),
            strangers: 0,
        };
        for (i, entry) in header.entries.iter().enumerate() {
            match ignored[i] {
                true => out.ignored.push(entry.name.clone()),
                false => out.add(entry, &renamed[i][cut..]),
            }
        }
        for alias in aliases(header) {
            let name = rules.rename(&alias.entry.name);
            let stripped = name.strip_prefix(out.prefix.as_str()).unwrap_or("");
            // Metadata may hold other texts, so only names of the layout count.
            let named = layout.part(stripped).is_some() && !rules.ignores(&alias.entry.name);
            if named && out.parts.contains_key(&alias.stored) {
                out.add(&alias.entry, stripped);
                out.aliases.push(alias);
            }
        }
        Ok(out)
    }

    fn add(&mut self, entry: &Entry, stripped: &str) {
        let name = &entry.name;
        let own = self.layout.part(stripped);
        let stranger = own.is_none();
        let sibling = || self.layout.sibling()?.part(stripped);
        let Some(part) = own.or_else(sibling) else {
            let list =
                if self.layout.ignores(stripped) { &mut self.ignored } else { &mut self.foreign };
            return list.push(name.clone());
        };
        if self.layout.is_transformers() && self.root.is_empty() {
            self.root = transformers::root(stripped);
        }
        let slots =
            self.own.entry(part.canonical.clone()).or_insert_with(|| vec![None; part.count]);
        match slots.get_mut(part.index) {
            Some(slot @ None) => {
                *slot = Some(name.clone());
                self.strangers += usize::from(stranger);
                if self.layout.canonical_shape(&part.canonical, &entry.shape).is_some() {
                    self.shapes.insert(name.clone(), entry.shape.clone());
                }
                self.parts.insert(name.clone(), part);
            }
            _ => self.foreign.push(name.clone()),
        }
    }

    /// The entries of a header, and those of the names that it stores under another name.
    pub fn entries<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Entry> {
        header.entries.iter().chain(self.aliases.iter().map(|alias| &alias.entry))
    }

    /// Prefix of a backbone's names: `vit.`, or empty.
    pub fn root(&self) -> &'static str {
        self.root
    }

    /// The canonical part of a tensor in the file.
    pub fn part(&self, name: &str) -> Option<&LayoutPart> {
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

    /// How the layout was recognised, in words. `key` is that of the model in the file.
    pub fn recognition(&self, total: usize, key: Option<&str>) -> String {
        let known = self.parts.len() - self.aliases.len();
        let mut out = format!("{}: {known} of {total} tensor names", self.layout.name());
        if let Some(sibling) = self.layout.sibling().filter(|_| self.strangers > 0) {
            out += &format!(", {} as in {}", self.strangers, sibling.name());
        }
        if let Some(key) = key {
            out += &format!(", under \"{key}\"");
        }
        if !self.prefix.is_empty() {
            out += &format!(", each after \"{}\"", self.prefix);
        }
        for Alias { entry, stored } in &self.aliases {
            out += &format!(", \"{}\" stored as \"{stored}\"", entry.name);
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
            out.push((canonical.clone(), self.in_canonical_shape(&canonical, tensor)?));
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

    /// A tensor of the file in its canonical shape.
    fn in_canonical_shape(&self, canonical: &str, tensor: Tensor) -> Result<Tensor, Error> {
        match self.layout.canonical_shape(canonical, tensor.dims()) {
            Some(shape) => Ok(tensor.reshape(shape)?),
            None => Ok(tensor),
        }
    }

    /// An error for an unknown name, with the closest known one.
    pub fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        let nearest = nearest(name, known).map(str::to_string);
        Error::UnknownTensor { name: name.to_string(), nearest }
    }
}

/// Names in the metadata whose values are the names of stored tensors.
fn aliases(header: &Header) -> Vec<Alias> {
    let entry = |name: &str| header.entries.iter().find(|entry| entry.name == name);
    let pairs = header.metadata.iter().filter(|(name, _)| entry(name).is_none());
    pairs
        .filter_map(|(name, stored)| {
            let entry = Entry { name: name.clone(), ..entry(stored)?.clone() };
            Some(Alias { entry, stored: stored.clone() })
        })
        .collect()
}
