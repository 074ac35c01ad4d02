//! A small model and its derivatives from PyTorch, from tests/reference/.

use candle_core::{DType, Device, Tensor};
use planish::engine::Engine;
use planish::models::vit::{Activation, Config, Distillation, FinalNorm, Pooling};
use planish::models::{Network, Weights};
use planish::objective::{Activations, Objective};
use std::collections::HashMap;
use std::sync::Arc;

pub struct Reference {
    pub name: String,
    pub network: Arc<Network>,
    tensors: HashMap<String, Tensor>,
}

impl Reference {
    pub fn open(path: &std::path::Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into(),
            network: Arc::new(
                config(&serde_json::from_str(&metadata["config"]).unwrap()).network().unwrap(),
            ),
            tensors: candle_core::safetensors::load(path, &Device::Cpu).unwrap(),
        }
    }

    pub fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }

    pub fn objective(&self, dtype: DType, micro_batch: usize) -> Objective {
        let tensors = self
            .network
            .params()
            .iter()
            .map(|param| self.get(&format!("model/{}", param.name)).to_dtype(dtype).unwrap())
            .collect();
        let weights = Weights::new(&self.network, tensors).unwrap();
        let mut objective = Objective::new(self.network.clone(), weights, &Engine::cpu());
        objective.micro_batch = micro_batch;
        objective
    }

    pub fn examples(&self) -> Activations {
        let labels: Vec<i64> = self.get("labels").to_vec1().unwrap();
        Activations {
            stage: 0,
            values: self.get("pixel_values").clone(),
            labels: labels.iter().map(|&l| l as u32).collect(),
        }
    }
}

pub fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn config(json: &serde_json::Value) -> Config {
    let n = |key: &str| json[key].as_u64().unwrap() as usize;
    let b = |key: &str| json[key].as_bool().unwrap();
    let two = |key: &str| [0, 1].map(|i| json[key][i].as_u64().unwrap() as usize);
    Config {
        image_size: two("image_size"),
        patch_size: two("patch_size"),
        channels: n("channels"),
        dim: n("dim"),
        depth: n("depth"),
        heads: n("heads"),
        mlp_dim: n("mlp_dim"),
        classes: n("classes"),
        class_token: b("class_token"),
        distillation: Distillation::None,
        registers: n("registers"),
        position_covers_prefix: b("position_covers_prefix"),
        registers_without_position: false,
        position_resize: None,
        patch_bias: b("patch_bias"),
        qkv_bias: b("qkv_bias"),
        layer_scale: b("layer_scale"),
        post_norm: json["post_norm"].as_bool().unwrap_or(false),
        qk_norm: json["qk_norm"].as_bool().unwrap_or(false),
        norm_pre: b("norm_pre"),
        final_norm: match json["final_norm"].as_str().unwrap() {
            "before_pool" => FinalNorm::BeforePool,
            "after_pool" => FinalNorm::AfterPool,
            _ => FinalNorm::None,
        },
        pooling: match json["pooling"].as_str().unwrap() {
            "token" => Pooling::Token,
            "mean" => Pooling::Mean,
            "map" => Pooling::Attention,
            other => panic!("pooling {other}"),
        },
        pool_prefix: json["pool_prefix"].as_bool().unwrap_or(false),
        activation: match json["activation"].as_str().unwrap() {
            "gelu" => Activation::Gelu,
            "gelu_tanh" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            "swiglu" => Activation::SwiGlu,
            other => panic!("activation {other}"),
        },
        eps: json["eps"].as_f64().unwrap(),
    }
}
