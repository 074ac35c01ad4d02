//! The parameters of a model: one tensor per canonical name.

use super::{Error, Init, Network};
use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// Tensors in the order of [`Network::params`], under their canonical (timm's) names.
///
/// Clones share tensor storage, so changing one layer copies only that layer.
#[derive(Clone, Debug)]
pub struct Weights {
    names: Arc<Names>,
    tensors: Vec<Tensor>,
}

#[derive(Debug)]
struct Names {
    list: Vec<String>,
    index: HashMap<String, usize>,
}

impl Weights {
    /// Takes tensors in the order of [`Network::params`].
    ///
    /// # Errors
    /// A wrong number of tensors, or a tensor with a wrong shape.
    pub fn new(network: &Network, tensors: Vec<Tensor>) -> Result<Weights, Error> {
        let params = network.params();
        if params.len() != tensors.len() {
            return Err(Error::Count { expected: params.len(), found: tensors.len() });
        }
        for (param, tensor) in params.iter().zip(&tensors) {
            if tensor.dims() != param.shape.as_slice() {
                return Err(Error::Shape {
                    name: param.name.clone(),
                    expected: param.shape.clone(),
                    found: tensor.dims().to_vec(),
                });
            }
        }
        let list: Vec<String> = params.iter().map(|param| param.name.clone()).collect();
        let index = list.iter().enumerate().map(|(i, name)| (name.clone(), i)).collect();
        Ok(Weights { names: Arc::new(Names { list, index }), tensors })
    }

    /// The initial values of a new model, in f32; see [`Init`].
    ///
    /// Each tensor has its own ChaCha8 stream, keyed by seed and name, so its values do not depend
    /// on the model's other tensors.
    ///
    /// # Errors
    /// A device error.
    pub fn random(network: &Network, seed: u64) -> Result<Weights, Error> {
        let tensors = network
            .params()
            .iter()
            .map(|param| {
                let count = param.shape.iter().product();
                let values = initial(param.init, &param.name, count, seed);
                Ok(Tensor::from_vec(values, param.shape.as_slice(), &Device::Cpu)?)
            })
            .collect::<Result<_, Error>>()?;
        Weights::new(network, tensors)
    }

    /// Canonical names, in order.
    pub fn names(&self) -> &[String] {
        &self.names.list
    }

    /// The tensor of that canonical name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index(name).map(|i| &self.tensors[i])
    }

    /// The `i`-th tensor.
    ///
    /// # Panics
    /// If `i` is not below [`Weights::len`].
    pub fn tensor(&self, i: usize) -> &Tensor {
        &self.tensors[i]
    }

    /// Index of the tensor with that canonical name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names.index.get(name).copied()
    }

    /// Replaces the `i`-th tensor; the caller must keep its shape.
    ///
    /// # Panics
    /// If `i` is not below [`Weights::len`].
    pub fn set(&mut self, i: usize, tensor: Tensor) {
        debug_assert_eq!(self.tensors[i].dims(), tensor.dims());
        self.tensors[i] = tensor;
    }

    /// A copy with some tensors replaced; all others are shared.
    pub fn with(&self, changes: &[(usize, Tensor)]) -> Weights {
        let mut out = self.clone();
        for (i, tensor) in changes {
            out.set(*i, tensor.clone());
        }
        out
    }

    /// All tensors, each mapped by `f`, which receives the tensor and its index.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn map<E>(
        &self,
        f: impl Fn(usize, &Tensor) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Weights, E> {
        let tensors = self.tensors.iter().enumerate().map(|(i, tensor)| f(i, tensor));
        Ok(Weights { names: self.names.clone(), tensors: tensors.collect::<Result<_, _>>()? })
    }

    /// All tensors in CPU memory; those already there are shared.
    ///
    /// # Errors
    /// A device error.
    pub fn on_the_cpu(&self) -> candle_core::Result<Weights> {
        self.map(|_, tensor| tensor.to_device(&Device::Cpu))
    }

    /// All tensors in another type.
    ///
    /// # Errors
    /// A conversion that candle does not have.
    pub fn to_dtype(&self, dtype: DType) -> Result<Weights, Error> {
        let tensors = self.tensors.iter().map(|t| t.to_dtype(dtype)).collect::<Result<_, _>>()?;
        Ok(Weights { names: self.names.clone(), tensors })
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().map(Tensor::elem_count).sum()
    }

    /// Names and tensors, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.list.iter().map(String::as_str).zip(&self.tensors)
    }
}

fn initial(init: Init, name: &str, count: usize, seed: u64) -> Vec<f32> {
    let digest = Sha256::new()
        .chain_update(b"planish initial weights")
        .chain_update(seed.to_le_bytes())
        .chain_update(name.as_bytes())
        .finalize();
    let mut rng = ChaCha8Rng::from_seed(digest.into());
    match init {
        Init::Normal(std) => normals(&mut rng, count, std),
        Init::Uniform(bound) => {
            (0..count).map(|_| (bound * (2.0 * uniform(&mut rng) - 1.0)) as f32).collect()
        }
        Init::Constant(value) => vec![value; count],
    }
}

/// Uniform on the open interval (0, 1).
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// Marsaglia's polar method (SIAM Review 6, 1964). Uses `libm`'s logarithm instead of the
/// platform's, so that a seed gives the same bytes on every machine.
fn normals(rng: &mut ChaCha8Rng, count: usize, std: f64) -> Vec<f32> {
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        let (x, y) = (2.0 * uniform(rng) - 1.0, 2.0 * uniform(rng) - 1.0);
        let s = x * x + y * y;
        if s < 1.0 {
            let scale = std * (-2.0 * libm::log(s) / s).sqrt();
            out.push((scale * x) as f32);
            out.push((scale * y) as f32);
        }
    }
    out.truncate(count);
    out
}

#[cfg(test)]
mod tests {
    use super::super::arch;
    use super::*;

    fn values(weights: &Weights, name: &str) -> Vec<f32> {
        weights.get(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn matches_the_initialisation_of_timm() {
        let mut config = arch::vit("vit_micro_patch7_28", 10, 1).unwrap();
        config.layer_scale = true;
        let network = config.network().unwrap();
        let weights = Weights::random(&network, 7).unwrap();
        assert_eq!(weights.len(), network.params().len());
        assert_eq!(weights.parameters(), network.parameters());
        let sample = values(&weights, "blocks.3.mlp.fc1.weight");
        let n = sample.len() as f64;
        let mean = sample.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let var = sample.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        // Four standard errors: of the mean σ/√n, of the variance σ²√(2/n).
        assert!(mean.abs() < 4.0 * 0.02 / n.sqrt(), "{mean}");
        assert!((var / 0.0004 - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{var}");
        let within = sample.iter().filter(|x| x.abs() < 0.02).count() as f64 / n;
        assert!((within - 0.6827).abs() < 4.0 * (0.6827 * 0.3173 / n).sqrt(), "{within}");
        assert!(values(&weights, "cls_token").iter().all(|x| x.abs() < 1e-5 && *x != 0.0));
        let patch = values(&weights, "patch_embed.proj.weight");
        assert!(patch.iter().all(|x| x.abs() <= 1.0 / 7.0) && patch.iter().any(|x| *x > 0.12));
        assert!(values(&weights, "norm.weight").iter().all(|&x| x == 1.0));
        assert!(values(&weights, "blocks.0.norm2.bias").iter().all(|&x| x == 0.0));
        assert!(values(&weights, "blocks.0.ls1.gamma").iter().all(|&x| x == 1e-5));
        assert!(values(&weights, "head.weight").iter().any(|&x| x != 0.0));
    }

    #[test]
    fn seed_and_name_determine_a_tensor() {
        let small = arch::vit("vit_nano_patch7_28", 10, 1).unwrap();
        let mut other = small.clone();
        (other.depth, other.norm_pre) = (2, true);
        let [small, other] = [small, other].map(|config| config.network().unwrap());
        let (a, b) = (Weights::random(&small, 1).unwrap(), Weights::random(&other, 1).unwrap());
        let name = "blocks.1.attn.qkv.weight";
        assert_eq!(values(&a, name), values(&b, name));
        assert_ne!(values(&a, name), values(&a, "blocks.0.attn.qkv.weight"));
        assert_ne!(values(&a, name), values(&Weights::random(&small, 2).unwrap(), name));
    }

    #[test]
    fn unchanged_tensors_stay_shared() {
        let network = arch::vit("vit_nano_patch7_28", 10, 1).unwrap().network().unwrap();
        let weights = Weights::random(&network, 1).unwrap();
        let i = weights.index("head.bias").unwrap();
        let ones = Tensor::ones(10, DType::F32, &Device::Cpu).unwrap();
        let changed = weights.with(&[(i, ones)]);
        assert_eq!(values(&weights, "head.bias"), [0.0; 10]);
        assert_eq!(values(&changed, "head.bias"), [1.0; 10]);
        assert_eq!(changed.tensor(0).id(), weights.tensor(0).id());
        assert_eq!(weights.to_dtype(DType::F64).unwrap().tensor(i).dtype(), DType::F64);
        assert!(weights.iter().map(|(name, _)| name).eq(weights.names().iter()));
    }

    #[test]
    fn refuses_other_shapes() {
        let network = arch::vit("vit_nano_patch7_28", 10, 1).unwrap().network().unwrap();
        let eleven = arch::vit("vit_nano_patch7_28", 11, 1).unwrap().network().unwrap();
        let weights = Weights::random(&network, 1).unwrap();
        let tensors: Vec<Tensor> = weights.iter().map(|(_, t)| t.clone()).collect();
        let found = Weights::new(&eleven, tensors.clone()).unwrap_err();
        assert!(matches!(found, Error::Shape { name, .. } if name == "head.weight"));
        let found = Weights::new(&network, tensors[1..].to_vec()).unwrap_err();
        assert!(matches!(found, Error::Count { .. }));
    }
}
