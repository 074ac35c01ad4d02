//! Helpers shared by the tests. Checkpoints are written with the `safetensors` crate, so the tests
//! do not depend on planish's own writer.

mod bad_input;
mod classes;
mod formats;
mod in_place;
mod layouts;
mod open;
mod other_networks;
mod patch;
mod save;
mod stated;
mod towers;
mod transformers;

use super::*;
use crate::data::{CropOffset, Interpolation, Resize};
use crate::models::arch;
use crate::models::vit::Config;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use tempfile::TempDir;

/// Type, shape and bytes of one tensor.
type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// Two blocks of width 8 with two heads, to keep tests fast.
fn small() -> Config {
    let mut config = arch::vit("vit_nano_patch7_28", 3, 1).unwrap();
    (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 2, 2, 16);
    config
}

/// Tensors of a random model as f32 bytes.
fn raw(config: &Config) -> HashMap<String, Raw> {
    let weights = Weights::random(&config.network().unwrap(), 3).unwrap();
    weights
        .iter()
        .map(|(name, tensor)| {
            let bytes = TensorDtype::F32.encode(tensor).unwrap();
            (name.to_string(), (Dtype::F32, tensor.dims().to_vec(), bytes))
        })
        .collect()
}

fn write(path: &Path, tensors: &HashMap<String, Raw>, metadata: &[(&str, &str)]) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    fs::write(path, serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// A folder with the model and a configuration.
fn folder(tensors: &HashMap<String, Raw>, configuration: &Value) -> TempDir {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model.safetensors"), tensors, &[("format", "pt"), ("note", "kept é")]);
    fs::write(dir.path().join("config.json"), configuration.to_string()).unwrap();
    dir
}

/// The configuration that timm writes for [`small`].
fn configuration() -> Value {
    json!({
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "global_pool": "token",
        "model_args": {"img_size": 28, "patch_size": 7, "embed_dim": 8, "depth": 2,
            "num_heads": 2, "in_chans": 1, "mlp_ratio": 2.0, "global_pool": "token"},
        "pretrained_cfg": {"input_size": [1, 28, 28], "crop_pct": 0.9, "crop_mode": "center",
            "interpolation": "bilinear", "mean": [0.25], "std": [0.5]},
    })
}

fn open(path: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(path, &Load::default())
}

fn provenance(method: &str) -> Provenance {
    Provenance {
        method: method.into(),
        perturb: vec!["head".into()],
        update: vec!["block.1".into()],
        seed: 5,
        version: "0.1.0".into(),
        parent_digest: None,
        data_digest: Some("ab".into()),
        split: Some(RecordedSplit { seed: 1, fraction: 0.1 }),
        sample: None,
        settings: serde_json::from_value(json!({"epochs": 5})).unwrap(),
    }
}
