//! Layers: named groups of tensors, the unit of diagnosis and post-training.

use super::network::{Param, Stage};
use super::{Error, Network};
use crate::nearest::nearest;
use serde::{Deserialize, Serialize};

/// Granularity of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Granularity {
    /// as users know them: embed, block.0 …, norm, head
    #[default]
    Block,
    /// the parts of each block, such as block.0.attn and block.0.mlp
    Sublayer,
    /// every tensor on its own, under its canonical name
    Tensor,
}

impl Granularity {
    /// From coarsest to finest.
    pub const ALL: [Granularity; 3] =
        [Granularity::Block, Granularity::Sublayer, Granularity::Tensor];
}

/// A named group of tensors and the stages of the forward pass that use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The layer's name, or the glob of a joint layer.
    pub name: String,
    /// Indices in [`Network::params`], ascending.
    pub tensors: Vec<usize>,
    /// First stage that uses one of the tensors.
    pub first_stage: usize,
    /// Last stage that uses one of the tensors.
    pub last_stage: usize,
}

/// All layers of a network, from input to output. At the granularity of tensors, those of adapters
/// follow; for the others see [`adapters`].
pub fn layers(network: &Network, granularity: Granularity) -> Vec<Layer> {
    let tensors = granularity == Granularity::Tensor;
    grouped(network, granularity, |param| tensors || !param.adapter)
}

/// The parameters of the adapters in each layer: `block.0.lora`, `block.0.attn.lora`.
pub fn adapters(network: &Network, granularity: Granularity) -> Vec<Layer> {
    let mut out = grouped(network, granularity, |param| param.adapter);
    if granularity != Granularity::Tensor {
        out.iter_mut().for_each(|layer| layer.name += ".lora");
    }
    out
}

fn grouped(
    network: &Network,
    granularity: Granularity,
    wanted: impl Fn(&Param) -> bool,
) -> Vec<Layer> {
    let mut out: Vec<Layer> = Vec::new();
    for (i, param) in network.params().iter().enumerate().filter(|(_, param)| wanted(param)) {
        let (stage, name) = (param.stage, network.layer_name(i, granularity));
        // Names of tensors are unique.
        let same = |layer: &&mut Layer| granularity != Granularity::Tensor && layer.name == name;
        match out.iter_mut().rev().find(same) {
            Some(layer) => {
                layer.tensors.push(i);
                layer.first_stage = layer.first_stage.min(stage);
                layer.last_stage = layer.last_stage.max(stage);
            }
            None => {
                out.push(Layer { name, tensors: vec![i], first_stage: stage, last_stage: stage })
            }
        }
    }
    out
}

impl Network {
    /// The layers at block granularity.
    pub fn blocks(&self) -> Vec<Layer> {
        layers(self, Granularity::Block)
    }

    /// The layers between the first, which embeds the image, and those at the end in whose weights the
    /// logits are linear.
    pub fn trunk(&self) -> Vec<Layer> {
        let end = self.trunk_end();
        self.blocks().into_iter().skip(1).filter(|layer| layer.last_stage < end).collect()
    }

    /// The last layer of the trunk; the last of all layers if there is no trunk.
    pub fn last_block(&self) -> Layer {
        let last = self.trunk().pop().or_else(|| self.blocks().pop());
        last.unwrap_or_else(|| everything(self))
    }

    /// First stage of the layers at the end in whose weights the logits are linear.
    pub fn trunk_end(&self) -> usize {
        let blocks = self.blocks();
        let linear = blocks.iter().rev().take_while(|layer| self.is_linear_in(layer));
        linear.map(|layer| layer.first_stage).last().unwrap_or(self.stages())
    }

    /// Name of the layer that holds a parameter.
    fn layer_name(&self, param: usize, granularity: Granularity) -> String {
        let param = &self.params()[param];
        let Stage { layer, part, .. } = self.stage(param.stage);
        let layer = &self.layer_names()[*layer];
        match (granularity, part) {
            (Granularity::Tensor, _) => param.name.clone(),
            (Granularity::Sublayer, Some(part)) => format!("{layer}.{}", part.name),
            _ => layer.clone(),
        }
    }
}

/// Joins several layers into one, including cross-terms; its name lists theirs.
pub fn join(parts: &[Layer]) -> Layer {
    let mut tensors: Vec<usize> = parts.iter().flat_map(|l| l.tensors.iter().copied()).collect();
    tensors.sort_unstable();
    tensors.dedup();
    Layer {
        name: parts.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(","),
        tensors,
        first_stage: parts.iter().map(|l| l.first_stage).min().unwrap_or(0),
        last_stage: parts.iter().map(|l| l.last_stage).max().unwrap_or(0),
    }
}

/// All tensors as one layer, in the model's order.
pub fn everything(network: &Network) -> Layer {
    Layer {
        name: "*".into(),
        tensors: (0..network.params().len()).collect(),
        first_stage: 0,
        last_stage: network.stages().saturating_sub(1),
    }
}

/// All layers except the head, as one: the feature extractor φ of PoF.
pub fn features(network: &Network) -> Layer {
    let mut parts = layers(network, Granularity::Block);
    parts.pop();
    Layer { name: "features".into(), ..join(&parts) }
}

/// Another name of the glob `*`.
const ALL: &str = "all";

/// The layers in a comma-separated list of exact names (of any granularity) and globs.
///
/// A glob (`*` any characters, `?` one) is matched at the coarsest granularity at which it matches
/// something. It stands for one joint layer: the union of the tensors, including cross-terms. `all` is
/// the glob `*` by another name. A layer named twice counts once.
///
/// # Errors
/// [`Error::NoLayer`] for the first part that matches nothing, [`Error::NoMatch`] if it is a glob.
pub fn select(network: &Network, pattern: &str) -> Result<Vec<Layer>, Error> {
    let levels = Granularity::ALL.map(|granularity| layers(network, granularity));
    let adapters = Granularity::ALL.map(|granularity| adapters(network, granularity));
    let mut out: Vec<Layer> = Vec::new();
    for part in pattern.split(',').map(str::trim) {
        let layer = levels
            .iter()
            .chain(&adapters)
            .find_map(|level| matching(level, part))
            .or_else(|| {
                let all = if part == ALL { matching(&levels[0], "*") } else { None };
                all.map(|all| Layer { name: ALL.into(), ..all })
            })
            .ok_or_else(|| no_layer(&levels, &adapters, part))?;
        if !out.iter().any(|known| known.name == layer.name) {
            out.push(layer);
        }
    }
    Ok(out)
}

/// The layer with that name, or the union of those the glob matches.
fn matching(level: &[Layer], part: &str) -> Option<Layer> {
    level.iter().filter(|layer| glob(part.as_bytes(), layer.name.as_bytes())).cloned().reduce(
        |mut joint, layer| {
            joint.name = part.to_string();
            joint.tensors.extend(layer.tensors);
            joint.first_stage = joint.first_stage.min(layer.first_stage);
            joint.last_stage = joint.last_stage.max(layer.last_stage);
            joint
        },
    )
}

/// Whether the glob matches the whole name. Takes at most |pattern| · |name| steps, because on a
/// mismatch only the latest star needs to consume one more character.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// `a block splits into block.0.attn and block.0.mlp, and `, if a layer has parts.
fn parts_of(levels: &[Vec<Layer>; 3]) -> String {
    let whole = |layer: &&Layer| levels[0].iter().any(|block| block.name == layer.name);
    let mut parts = levels[1].iter().filter(|layer| !whole(layer));
    match (parts.next(), parts.next()) {
        (Some(a), Some(b)) => format!("a block splits into {} and {}, and ", a.name, b.name),
        _ => String::new(),
    }
}

fn no_layer(levels: &[Vec<Layer>; 3], adapters: &[Vec<Layer>; 3], part: &str) -> Error {
    let names = levels.iter().chain(adapters).flatten().map(|layer| layer.name.as_str());
    let known: Vec<&str> = levels[0].iter().map(|layer| layer.name.as_str()).collect();
    let (known, parts) = (known.join(", "), parts_of(levels));
    if part.contains(['*', '?']) {
        return Error::NoMatch { pattern: part.to_string(), known, parts };
    }
    let nearest = nearest(part, names).map(str::to_string);
    Error::NoLayer { wanted: part.to_string(), nearest, known, parts }
}

#[cfg(test)]
mod tests {
    use super::super::arch;
    use super::*;

    fn network() -> Network {
        let mut config = arch::vit("vit_nano_patch7_28", 10, 1).unwrap();
        (config.layer_scale, config.norm_pre) = (true, true);
        config.network().unwrap()
    }

    fn tensor_names(network: &Network, layer: &Layer) -> Vec<String> {
        layer.tensors.iter().map(|&i| network.params()[i].name.clone()).collect()
    }

    #[test]
    fn every_tensor_is_in_one_layer_of_each_granularity() {
        let network = network();
        for granularity in Granularity::ALL {
            let layers = layers(&network, granularity);
            let all: Vec<usize> = layers.iter().flat_map(|l| l.tensors.clone()).collect();
            assert!(all.into_iter().eq(0..network.params().len()), "{granularity:?}");
            assert!(layers.windows(2).all(|w| w[0].last_stage <= w[1].first_stage));
        }
    }

    #[test]
    fn names_and_stages() {
        let network = network();
        let blocks = layers(&network, Granularity::Block);
        let names: Vec<_> = blocks.iter().map(|l| l.name.as_str()).collect();
        let expected = ["embed", "block.0", "block.1", "block.2", "block.3", "block.4", "block.5"];
        assert_eq!(names[..7], expected);
        assert_eq!(names[7..], ["norm", "head"]);
        assert_eq!((blocks[2].first_stage, blocks[2].last_stage), (3, 4));
        assert_eq!((blocks[7].first_stage, blocks[8].first_stage), (13, 14));
        let embed = tensor_names(&network, &blocks[0]);
        assert!(embed.contains(&"norm_pre.bias".into()) && embed.contains(&"pos_embed".into()));
        let sublayers = layers(&network, Granularity::Sublayer);
        let attention = &sublayers[3];
        assert_eq!(attention.name, "block.1.attn");
        assert_eq!((attention.first_stage, attention.last_stage), (3, 3));
        let expected = ["norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias"]
            .into_iter()
            .chain(["attn.proj.weight", "attn.proj.bias", "ls1.gamma"])
            .map(|name| format!("blocks.1.{name}"));
        assert!(tensor_names(&network, attention).into_iter().eq(expected));
    }

    #[test]
    fn selects_names_lists_and_globs() {
        let network = network();
        let one = |pattern: &str| {
            let mut found = select(&network, pattern).unwrap();
            assert_eq!(found.len(), 1, "{pattern}");
            found.remove(0)
        };
        assert_eq!(one("head"), network.blocks()[8]);
        assert_eq!(one("block.5.mlp").first_stage, 12);
        assert_eq!(tensor_names(&network, &one("pos_embed")), ["pos_embed"]);
        let joint = one("block.?*");
        assert_eq!((joint.name.as_str(), joint.first_stage, joint.last_stage), ("block.?*", 1, 12));
        assert_eq!(one("*").tensors.len(), network.params().len());
        let attention = one("*.attn");
        assert_eq!((attention.first_stage, attention.last_stage), (1, 11));
        let biases = one("blocks.*.qkv.bias");
        assert_eq!(biases.tensors.len(), 6);
        let [all, star] = ["all", "*"].map(|name| select(&network, name).unwrap().remove(0));
        assert_eq!((all.name.as_str(), all.tensors), ("all", star.tensors));
        let list = select(&network, "head, block.1,head").unwrap();
        assert_eq!(list.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["head", "block.1"]);
    }

    #[test]
    fn errors_for_unknown_names_list_the_layers() {
        let message = select(&network(), "head,block.9").unwrap_err().to_string();
        assert!(message.contains("\"block.9\"") && message.contains("embed, block.0"), "{message}");
        assert!(
            message.contains("splits into block.0.attn and block.0.mlp, and every"),
            "{message}"
        );
        assert!(message.contains("did you mean \"block.0\"?"), "{message}");
        assert!(select(&network(), "").is_err());
        let message = select(&network(), "xyz*").unwrap_err().to_string();
        assert!(message.starts_with("no layer matches \"xyz*\"; the layers are embed, block.0,"));
        assert!(matches!(select(&network(), "bloc?"), Err(Error::NoMatch { .. })));
    }

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxb", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
