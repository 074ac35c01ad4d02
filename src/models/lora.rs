//! Low-rank adapters of weights: LoRA (Hu et al., ICLR 2022), its rank-stabilised scaling
//! (Kalajdzievski 2023) and DoRA (Liu et al., ICML 2024).
//!
//! An adapted weight is an expression of the frozen weight W and of new parameters: W + s·BA, and for
//! DoRA m ⊙ (W + s·BA)/‖W + s·BA‖ with the norm of each row. [`adapted`] declares a network with such
//! expressions, and [`merged`] evaluates one. An adapter may change a block of rows of a weight, since
//! some libraries store queries, keys and values as one weight and others as three.

use super::network::{Network, Param, ParamId};
use super::run::{Node, Run};
use super::trace::Traced;
use super::{Error, Init, Layer, Weights};
use crate::tape::Value;
use candle_core::{DType, Device, Tensor};
use planish_kernels::{
    Add, DualTensor, LayerScale, MatMul, Prepend, Products, Result as KernelResult, Scale,
    TransposeTokens, WeightRows,
};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// A weight, or one of several equal blocks of its rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Canonical name: `blocks.0.attn.qkv.weight`.
    pub weight: String,
    /// Index of the block.
    pub index: usize,
    /// Number of blocks.
    pub count: usize,
}

impl Target {
    /// The module, with the letter of the block: `blocks.0.attn.qkv`, `blocks.0.attn.qkv.q`.
    pub fn module(&self) -> String {
        let module = self.weight.strip_suffix(".weight").unwrap_or(&self.weight);
        match (self.count, self.index) {
            (1, _) => module.to_string(),
            // Queries, keys and values are the only weights that a library splits.
            (3, index @ 0..3) => format!("{module}.{}", ["q", "k", "v"][index]),
            (_, index) => format!("{module}.{index}"),
        }
    }

    /// Its rows among the `rows` of the weight.
    pub fn rows(&self, rows: usize) -> Range<usize> {
        let size = rows / self.count.max(1);
        self.index * size..(self.index + 1) * size
    }
}

/// Whether a name is the module's, or that of its last parts.
pub(crate) fn is_named(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The adapter of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraUpdate {
    /// What it changes.
    pub target: Target,
    /// Rank r.
    pub rank: usize,
    /// s.
    pub scale: f64,
    /// Whether it is a DoRA adapter, with a magnitude m.
    pub magnitude: bool,
}

impl LoraUpdate {
    /// Names of A (r, I), B (O, r) and, for DoRA, m (O) among the network's parameters.
    pub fn params(&self) -> Vec<String> {
        let module = self.target.module();
        let kinds = ["lora_A", "lora_B", "lora_magnitude"];
        let count = if self.magnitude { 3 } else { 2 };
        kinds[..count].iter().map(|kind| format!("{module}.{kind}")).collect()
    }
}

/// s = α/r, or α/√r with rank-stabilised scaling.
pub fn scale(alpha: f64, rank: usize, rank_stabilised: bool) -> f64 {
    let rank = rank as f64;
    alpha / if rank_stabilised { rank.sqrt() } else { rank }
}

/// The network with these adapters. Their parameters follow those of `network`. A is initialised as
/// in peft, U(±1/√I); B with 0, so a new LoRA adapter changes nothing. m has to be set to the norms of
/// the rows of W; see [`row_norms`].
///
/// # Errors
/// A target that is not a matrix of the network.
pub fn adapted(network: &Network, updates: &[LoraUpdate]) -> Result<Network, Error> {
    let mut builder = network.config().declare();
    let mut by_weight: BTreeMap<ParamId, Vec<&LoraUpdate>> = BTreeMap::new();
    for update in updates {
        let weight = &update.target.weight;
        let unfit = || Error::NotAdaptable { name: weight.clone() };
        let id = network.param(weight).ok_or_else(unfit)?;
        by_weight.entry(ParamId(id)).or_default().push(update);
    }
    for (id, updates) in by_weight {
        let Param { name, shape, .. } = &network.params()[id.0];
        let unfit = || Error::NotAdaptable { name: name.clone() };
        let &[rows, columns] = shape.as_slice() else { return Err(unfit()) };
        let count = updates[0].target.count;
        let mut parts: Vec<Option<LoraTerm>> = vec![None; count];
        for update in updates {
            let names = update.params();
            let size = update.target.rows(rows).len();
            let uniform = Init::Uniform(1.0 / (columns as f64).sqrt());
            // With a leading 1, blocks of rows are stacked as tokens are.
            let a = builder.adapter(id, &names[0], &[1, update.rank, columns], uniform);
            let b = builder.adapter(id, &names[1], &[1, size, update.rank], Init::Constant(0.0));
            let ones = Init::Constant(1.0);
            let m = names.get(2).map(|name| builder.adapter(id, name, &[size], ones));
            let part = LoraTerm { a, b, m, scale: update.scale };
            *parts.get_mut(update.target.index).ok_or_else(unfit)? = Some(part);
        }
        builder.express(id, move |run, own| expression(run, &own, &parts));
    }
    Network::new(network.config().clone(), builder, network.input(), network.classes())
}

/// The parameters of the adapter of one block of rows.
#[derive(Clone, Copy)]
struct LoraTerm {
    a: ParamId,
    b: ParamId,
    m: Option<ParamId>,
    scale: f64,
}

/// The adapted weight, from the frozen one.
fn expression(run: &mut dyn Run, own: &Node, parts: &[Option<LoraTerm>]) -> KernelResult<Node> {
    let size = own.dims()[0] / parts.len().max(1);
    let mut blocks: Vec<Option<Node>> = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let Some(part) = part else {
            blocks.push(None);
            continue;
        };
        let (b, a) = (run.param(part.b)?, run.param(part.a)?);
        // In the type of the weights, so that the merged weight is the same function.
        let product = run.op(MatMul { products: Products::default() }, &[&b, &a])?;
        let update = run.op(Scale { factor: part.scale }, &[&product])?;
        blocks.push(Some(match part.m {
            None => update,
            Some(m) => {
                let rows = rows_of(run, own, i, size, parts.len())?;
                let sum = run.op(Add, &[&update, &rows])?;
                let m = run.param(m)?;
                scale_rows(run, &sum, &m)?
            }
        }));
    }
    let dora = parts.iter().flatten().any(|part| part.m.is_some());
    let Some(some) = blocks.iter().flatten().next().cloned() else { return Ok(own.clone()) };
    let zeros = run.op(Scale { factor: 0.0 }, &[&some])?;
    let mut stacked: Option<Node> = None;
    for (i, block) in blocks.into_iter().enumerate().rev() {
        let block = match block {
            Some(block) => block,
            None if dora => {
                let rows = rows_of(run, own, i, size, parts.len())?;
                run.op(Add, &[&zeros, &rows])?
            }
            None => zeros.clone(),
        };
        stacked = Some(match stacked {
            None => block,
            Some(below) => run.op(Prepend, &[&block, &below])?,
        });
    }
    let stacked = stacked.unwrap_or(zeros);
    // DoRA's blocks contain the frozen rows already.
    let base = if dora { run.op(Scale { factor: 0.0 }, &[own])? } else { own.clone() };
    run.op(Add, &[&base, &stacked])
}

/// Block `i` of the rows of a weight.
fn rows_of(
    run: &mut dyn Run,
    own: &Node,
    i: usize,
    size: usize,
    count: usize,
) -> KernelResult<Node> {
    match count {
        1 => Ok(own.clone()),
        _ => run.op(WeightRows { from: i * size, to: (i + 1) * size }, &[own]),
    }
}

/// m ⊙ V/‖V‖ by rows, for V of shape (1, O, I). The norm is constant in derivatives, as in peft (Liu et
/// al. 2024, §4.3).
fn scale_rows(run: &mut dyn Run, v: &Node, m: &Node) -> KernelResult<Node> {
    let inverse = match v {
        Node::Value(value) => {
            let tensor = value.tensor().value();
            let norms = row_norms(tensor)?;
            let inverse = norms.recip()?.to_dtype(tensor.dtype())?.to_device(tensor.device())?;
            Node::Value(Value::constant(DualTensor::constant(inverse)))
        }
        Node::Shape(shape) => Node::Shape(Traced::of_parameters(vec![shape.dims[1]])),
    };
    let factors = run.op(LayerScale, &[m, &inverse])?;
    let columns = run.op(TransposeTokens, &[v])?;
    let scaled = run.op(LayerScale, &[&columns, &factors])?;
    run.op(TransposeTokens, &[&scaled])
}

/// Euclidean norms of the rows of a matrix (O, I) or (1, O, I), in f64 on the CPU.
///
/// # Errors
/// A device error.
pub fn row_norms(matrix: &Tensor) -> candle_core::Result<Tensor> {
    let columns = matrix.dims().last().copied().unwrap_or(1).max(1);
    let matrix = matrix.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let values = matrix.flatten_all()?.to_vec1::<f64>()?;
    let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    let norms: Vec<f64> = values.chunks(columns).map(norm).collect();
    let count = norms.len();
    Tensor::from_vec(norms, count, &Device::Cpu)
}

/// The numbers of an adapter: A and B as matrices, and DoRA's m as a vector.
#[derive(Clone, Debug)]
pub struct Factors {
    /// A: (r, I).
    pub a: Tensor,
    /// B: (O, r).
    pub b: Tensor,
    /// m: (O).
    pub m: Option<Tensor>,
    /// s.
    pub scale: f64,
}

impl Factors {
    /// The merged rows: W + s·BA, or m ⊙ (W + s·BA)/‖W + s·BA‖. Computed in f64 and rounded once to the
    /// type of W.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn merge(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let wide = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64);
        let update = (wide(&self.b)?.matmul(&wide(&self.a)?)? * self.scale)?;
        let sum = (wide(rows)? + update.reshape(rows.dims())?)?;
        let merged = match &self.m {
            None => sum,
            Some(m) => {
                let size = rows.dim(0)?;
                let flat = sum.reshape((size, ()))?;
                let factors = (wide(m)?.reshape(size)? / row_norms(&flat)?)?;
                flat.broadcast_mul(&factors.reshape((size, 1))?)?.reshape(rows.dims())?
            }
        };
        merged.to_dtype(rows.dtype())
    }
}

/// A weight with some of its rows replaced.
///
/// # Errors
/// Shapes that do not fit together.
pub fn with_rows(weight: &Tensor, at: Range<usize>, rows: &Tensor) -> candle_core::Result<Tensor> {
    let total = weight.dim(0)?;
    let mut parts = Vec::with_capacity(3);
    if at.start > 0 {
        parts.push(weight.narrow(0, 0, at.start)?);
    }
    parts.push(rows.clone());
    if at.end < total {
        parts.push(weight.narrow(0, at.end, total - at.end)?);
    }
    if parts.len() == 1 { Ok(rows.clone()) } else { Tensor::cat(&parts, 0) }
}

/// The numbers of one adapter among the weights of an adapted network.
///
/// # Errors
/// A parameter that the weights do not have.
pub fn factors(update: &LoraUpdate, weights: &Weights) -> Result<Factors, Error> {
    let names = update.params();
    let tensor = |name: &String| weights.get(name).cloned().ok_or(Error::Declaration);
    let matrix = |name: &String| Ok::<_, Error>(tensor(name)?.squeeze(0)?);
    let m = names.get(2).map(tensor).transpose()?;
    Ok(Factors { a: matrix(&names[0])?, b: matrix(&names[1])?, m, scale: update.scale })
}

/// The weights of the plain network with the adapters merged.
///
/// # Errors
/// Weights that do not fit the networks.
pub fn merged(
    network: &Network,
    updates: &[LoraUpdate],
    weights: &Weights,
) -> Result<Weights, Error> {
    let base = network
        .params()
        .iter()
        .map(|param| weights.get(&param.name).cloned().ok_or(Error::Declaration));
    let mut out = Weights::new(network, base.collect::<Result<_, _>>()?)?;
    for update in updates {
        let target = &update.target;
        let i = out.index(&target.weight).ok_or(Error::Declaration)?;
        let weight = out.tensor(i).to_device(&Device::Cpu)?;
        let at = target.rows(weight.dim(0)?);
        let rows = factors(update, weights)?.merge(&weight.narrow(0, at.start, at.len())?)?;
        out.set(i, with_rows(&weight, at, &rows)?);
    }
    Ok(out)
}

/// The weights of an adapted network at its start: those of the plain one, and new adapters.
///
/// # Errors
/// Weights that do not fit the network.
pub fn initial(
    network: &Network,
    updates: &[LoraUpdate],
    weights: &Weights,
    seed: u64,
) -> Result<Weights, Error> {
    let random = Weights::random(network, seed)?;
    let tensors = random.iter().map(|(name, new)| weights.get(name).unwrap_or(new).clone());
    let mut out = Weights::new(network, tensors.collect())?;
    for update in updates.iter().filter(|update| update.magnitude) {
        let weight = weights.get(&update.target.weight).ok_or(Error::Declaration)?;
        let at = update.target.rows(weight.dim(0)?);
        let norms = row_norms(&weight.narrow(0, at.start, at.len())?)?;
        let i = update.params().pop().and_then(|m| out.index(&m)).ok_or(Error::Declaration)?;
        out.set(i, norms.to_dtype(weight.dtype())?);
    }
    Ok(out)
}

/// The weights of an adapted network, from those of the plain one and the numbers of the adapters.
///
/// # Errors
/// Weights that do not fit the network.
pub fn with_factors(
    network: &Network,
    weights: &Weights,
    updates: &[(LoraUpdate, Factors)],
) -> Result<Weights, Error> {
    let dtype = weights.tensor(0).dtype();
    let mut own: HashMap<String, Tensor> = HashMap::new();
    for (update, Factors { a, b, m, .. }) in updates {
        let tensors = [Some(a.unsqueeze(0)?), Some(b.unsqueeze(0)?), m.clone()];
        for (name, tensor) in update.params().into_iter().zip(tensors.into_iter().flatten()) {
            own.insert(name, tensor.to_dtype(dtype)?);
        }
    }
    let tensors = network.params().iter().map(|Param { name, .. }| {
        weights.get(name).or_else(|| own.get(name)).cloned().ok_or(Error::Declaration)
    });
    Weights::new(network, tensors.collect::<Result<_, _>>()?)
}

/// Weights that an adapter can change: matrices outside of the head.
pub fn linear_layers(network: &Network) -> Vec<usize> {
    let head = network.blocks().pop();
    let in_head = |i: usize| head.as_ref().is_some_and(|head: &Layer| head.tensors.contains(&i));
    let params = network.params().iter().enumerate();
    params
        .filter(|(i, param)| {
            param.shape.len() == 2
                && param.name.ends_with(".weight")
                && !param.adapter
                && !in_head(*i)
        })
        .map(|(i, _)| i)
        .collect()
}
