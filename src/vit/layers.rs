//! Layers: named groups of tensors, the unit of diagnosis and post-training.

use super::{Config, Error, stages};
use crate::nearest::nearest;
use serde::{Deserialize, Serialize};

/// Granularity of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Granularity {
    /// embed, block.0 …, norm, head
    #[default]
    Block,
    /// block.i.attn (norm1, attn, ls1) and block.i.mlp (norm2, mlp, ls2) of each block
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
///
/// Stage 0 is the embedding. Block i's attention branch is stage 1 + 2i, its MLP branch 2 + 2i.
/// Stage 1 + 2L is the final norm with the pooling, in either order; stage 2 + 2L is the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The layer's name, or the glob of a joint layer.
    pub name: String,
    /// Positions in [`Config::tensors`], ascending.
    pub tensors: Vec<usize>,
    /// First stage that uses one of the tensors.
    pub first_stage: usize,
    /// Last stage that uses one of the tensors.
    pub last_stage: usize,
}

/// The stage that uses a tensor, by canonical name.
fn stage(config: &Config, tensor: &str) -> usize {
    if let Some((index, rest)) = tensor.strip_prefix("blocks.").and_then(|r| r.split_once('.')) {
        let mlp = ["norm2.", "mlp.", "ls2."].iter().any(|part| rest.starts_with(part));
        return index.parse::<usize>().map_or(0, |i| 1 + 2 * i + usize::from(mlp));
    }
    match tensor.split_once('.').map_or(tensor, |(first, _)| first) {
        "norm" | "fc_norm" => 1 + 2 * config.depth,
        "head" | "head_dist" => 2 + 2 * config.depth,
        _ => 0,
    }
}

/// Name of the layer that holds a tensor of that stage.
fn layer_name(config: &Config, granularity: Granularity, stage: usize, tensor: &str) -> String {
    if granularity == Granularity::Tensor {
        return tensor.to_string();
    }
    let last = 2 * config.depth;
    match stage {
        0 => "embed".into(),
        s if s == last + 1 => "norm".into(),
        s if s == last + 2 => "head".into(),
        s => {
            let block = (s - 1) / 2;
            match granularity {
                Granularity::Sublayer if s % 2 == 1 => format!("block.{block}.attn"),
                Granularity::Sublayer => format!("block.{block}.mlp"),
                _ => format!("block.{block}"),
            }
        }
    }
}

/// All layers of a model, from input to output.
pub fn layers(config: &Config, granularity: Granularity) -> Vec<Layer> {
    let mut out: Vec<Layer> = Vec::new();
    for (i, (tensor, _)) in config.tensors().iter().enumerate() {
        let stage = stage(config, tensor);
        let name = layer_name(config, granularity, stage, tensor);
        match out.last_mut() {
            Some(layer) if layer.name == name => {
                layer.tensors.push(i);
                layer.first_stage = layer.first_stage.min(stage);
                layer.last_stage = layer.last_stage.max(stage);
            }
            _ => out.push(Layer { name, tensors: vec![i], first_stage: stage, last_stage: stage }),
        }
    }
    out
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
pub fn everything(config: &Config) -> Layer {
    Layer {
        name: "*".into(),
        tensors: (0..config.tensors().len()).collect(),
        first_stage: 0,
        last_stage: stages(config) - 1,
    }
}

/// All layers except the head, as one: the feature extractor φ of PoF.
pub fn features(config: &Config) -> Layer {
    let mut parts = layers(config, Granularity::Block);
    parts.pop();
    Layer { name: "features".into(), ..join(&parts) }
}

/// The layers in a comma-separated list of exact names (of any granularity) and globs.
///
/// A glob (`*` any characters, `?` one) is matched at the coarsest granularity at which it matches
/// something. It stands for one joint layer: the union of the tensors, including cross-terms. A
/// layer named twice counts once.
///
/// # Errors
/// [`Error::NoLayer`] for the first part that matches nothing, [`Error::NoMatch`] if it is a glob.
pub fn select(config: &Config, pattern: &str) -> Result<Vec<Layer>, Error> {
    let levels = Granularity::ALL.map(|granularity| layers(config, granularity));
    let mut out: Vec<Layer> = Vec::new();
    for part in pattern.split(',').map(str::trim) {
        let layer = levels
            .iter()
            .find_map(|level| matching(level, part))
            .ok_or_else(|| no_layer(&levels, part))?;
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

fn no_layer(levels: &[Vec<Layer>; 3], part: &str) -> Error {
    let names = levels.iter().flatten().map(|layer| layer.name.as_str());
    let known: Vec<&str> = levels[0].iter().map(|layer| layer.name.as_str()).collect();
    let known = known.join(", ");
    if part.contains(['*', '?']) {
        return Error::NoMatch { pattern: part.to_string(), known };
    }
    let nearest = nearest(part, names).map(str::to_string);
    Error::NoLayer { wanted: part.to_string(), nearest, known }
}

#[cfg(test)]
mod tests {
    use super::super::arch;
    use super::*;

    fn config() -> Config {
        let mut config = arch::named("vit_nano_patch7_28", 10, 1).unwrap();
        (config.layer_scale, config.norm_pre) = (true, true);
        config
    }

    fn tensor_names(config: &Config, layer: &Layer) -> Vec<String> {
        let all = config.tensors();
        layer.tensors.iter().map(|&i| all[i].0.clone()).collect()
    }

    #[test]
    fn every_tensor_is_in_one_layer_of_each_granularity() {
        let config = config();
        for granularity in Granularity::ALL {
            let layers = layers(&config, granularity);
            let all: Vec<usize> = layers.iter().flat_map(|l| l.tensors.clone()).collect();
            assert!(all.into_iter().eq(0..config.tensors().len()), "{granularity:?}");
            assert!(layers.windows(2).all(|w| w[0].last_stage <= w[1].first_stage));
        }
    }

    #[test]
    fn names_and_stages() {
        let config = config();
        let blocks = layers(&config, Granularity::Block);
        let names: Vec<_> = blocks.iter().map(|l| l.name.as_str()).collect();
        let expected = ["embed", "block.0", "block.1", "block.2", "block.3", "block.4", "block.5"];
        assert_eq!(names[..7], expected);
        assert_eq!(names[7..], ["norm", "head"]);
        assert_eq!((blocks[2].first_stage, blocks[2].last_stage), (3, 4));
        assert_eq!((blocks[7].first_stage, blocks[8].first_stage), (13, 14));
        let embed = tensor_names(&config, &blocks[0]);
        assert!(embed.contains(&"norm_pre.bias".into()) && embed.contains(&"pos_embed".into()));
        let sublayers = layers(&config, Granularity::Sublayer);
        let attention = &sublayers[3];
        assert_eq!(attention.name, "block.1.attn");
        assert_eq!((attention.first_stage, attention.last_stage), (3, 3));
        let expected = ["norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias"]
            .into_iter()
            .chain(["attn.proj.weight", "attn.proj.bias", "ls1.gamma"])
            .map(|name| format!("blocks.1.{name}"));
        assert!(tensor_names(&config, attention).into_iter().eq(expected));
    }

    #[test]
    fn selects_names_lists_and_globs() {
        let config = config();
        let one = |pattern: &str| {
            let mut found = select(&config, pattern).unwrap();
            assert_eq!(found.len(), 1, "{pattern}");
            found.remove(0)
        };
        assert_eq!(one("head"), layers(&config, Granularity::Block)[8]);
        assert_eq!(one("block.5.mlp").first_stage, 12);
        assert_eq!(tensor_names(&config, &one("pos_embed")), ["pos_embed"]);
        let joint = one("block.?*");
        assert_eq!((joint.name.as_str(), joint.first_stage, joint.last_stage), ("block.?*", 1, 12));
        assert_eq!(one("*").tensors.len(), config.tensors().len());
        let attention = one("*.attn");
        assert_eq!((attention.first_stage, attention.last_stage), (1, 11));
        let biases = one("blocks.*.qkv.bias");
        assert_eq!(biases.tensors.len(), 6);
        let list = select(&config, "head, block.1,head").unwrap();
        assert_eq!(list.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["head", "block.1"]);
    }

    #[test]
    fn errors_for_unknown_names_list_the_layers() {
        let message = select(&config(), "head,block.9").unwrap_err().to_string();
        assert!(message.contains("`block.9`") && message.contains("embed, block.0"), "{message}");
        assert!(message.contains("did you mean `block.0`?"), "{message}");
        assert!(select(&config(), "").is_err());
        let message = select(&config(), "xyz*").unwrap_err().to_string();
        assert!(message.starts_with("no layer matches `xyz*`; the layers are embed, block.0,"));
        assert!(matches!(select(&config(), "bloc?"), Err(Error::NoMatch { .. })));
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
