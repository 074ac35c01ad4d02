//! Operations at the shapes of a ViT-B/16 on 224² images: verified first, then timed.
//!
//! `cargo bench -p planish-kernels`. Runs them as a gradient does: every thread has its own four
//! images, and all threads run in parallel. Row operations print GB/s, counting every number read
//! or written once, and the fraction of a large copy. Products print GFLOP/s and the fraction of
//! one large product. Copy and product are measured alternately with each operation.

use candle_core::{DType, Device, Tensor};
use planish_kernels::{
    Add, Attention, CrossEntropy, DepthwiseConv, DualTensor, Gelu, GeluForm, GlobalResponseNorm,
    LayerNorm, Linear, Op, Saved, Softmax, TokenPatches, TransposeTokens,
};
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[path = "../../src/bin/planish/allocator.rs"]
mod allocator;
mod ceilings;
use ceilings::{Ceilings, median};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs per measurement; prints the median.
const RUNS: usize = 7;
/// f32 against f64, relative to the norm: 6e-8 per rounding, with sums over thousands of rows.
const TOLERANCE: f64 = 1e-5;

/// Images per thread.
const IMAGES: usize = 4;
const TOKENS: usize = 197;
const HEADS: usize = 12;
const DIM: usize = 768;

/// An operation, the inputs whose gradient is timed, and its number of multiply-adds.
struct Case {
    name: &'static str,
    op: Box<dyn Op>,
    dims: Vec<Vec<usize>>,
    output: Vec<usize>,
    /// Inputs whose gradient is timed. Empty to time the value.
    needs_grad: Vec<bool>,
    /// Multiply-adds of the value pass; 0 for a row operation.
    products: usize,
}

/// Seeded numbers in (−1.5, 1.5).
fn numbers(dims: &[usize], seed: u64) -> Outcome<Tensor> {
    let values = ceilings::numbers(dims.iter().product(), seed).into_iter().map(|x| 1.5 * x);
    Ok(Tensor::from_vec(values.collect(), dims, &Device::Cpu)?)
}

fn dual(dims: &[usize], seed: u64, tangents: usize) -> Outcome<DualTensor> {
    let block: Vec<usize> = std::iter::once(tangents).chain(dims.iter().copied()).collect();
    let tangent = if tangents > 0 { Some(numbers(&block, seed + 100)?) } else { None };
    Ok(DualTensor::new(numbers(dims, seed)?, tangent)?)
}

fn to_f64(x: &DualTensor) -> Outcome<DualTensor> {
    let tangent = x.tangent().map(|t| t.to_dtype(DType::F64)).transpose()?;
    Ok(DualTensor::new(x.value().to_dtype(DType::F64)?, tangent)?)
}

/// ‖x − y‖ / ‖y‖ of value or tangents.
fn distance(x: &Tensor, y: &Tensor) -> Outcome<f64> {
    let norm = |x: Tensor| -> Outcome<f64> { Ok(x.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    let difference = norm((x.to_dtype(DType::F64)? - y)?)?;
    Ok(difference / norm(y.clone())?.max(f64::MIN_POSITIVE))
}

impl Case {
    fn new(name: &'static str, op: impl Op + 'static, dims: &[&[usize]], output: &[usize]) -> Self {
        let dims = dims.iter().map(|d| d.to_vec()).collect();
        let op = Box::new(op);
        Self { name, op, dims, output: output.to_vec(), needs_grad: Vec::new(), products: 0 }
    }

    fn vjp(mut self, needs_grad: &[bool]) -> Self {
        self.needs_grad = needs_grad.to_vec();
        self
    }

    fn products(mut self, count: usize) -> Self {
        self.products = count;
        self
    }

    fn run(&self, x: &[DualTensor], y: &DualTensor, gy: &DualTensor) -> Outcome<Vec<DualTensor>> {
        if self.needs_grad.is_empty() {
            return Ok(vec![self.op.value(&x.iter().collect::<Vec<_>>())?]);
        }
        let saved = Saved {
            inputs: x.iter().cloned().map(Some).collect(),
            output: Some(y.clone()),
            dims: self.dims.clone(),
        };
        Ok(self.op.vjp(&saved, gy, &self.needs_grad)?.into_iter().flatten().collect())
    }

    /// Inputs, output and its gradient.
    fn operands(&self, tangents: usize) -> Outcome<(Vec<DualTensor>, DualTensor, DualTensor)> {
        let x = self.dims.iter().enumerate().map(|(i, d)| dual(d, i as u64, tangents));
        let x = x.collect::<Outcome<Vec<_>>>()?;
        let y = self.op.value(&x.iter().collect::<Vec<_>>())?;
        let gy = dual(y.dims(), 9, tangents)?;
        Ok((x, y, gy))
    }

    /// Count of numbers read and written once each, including tangents.
    fn planes(&self, results: &[DualTensor], tangents: usize) -> usize {
        let sizes = |dims: &Vec<usize>| dims.iter().product::<usize>();
        let mut count: usize = results.iter().map(DualTensor::numel).sum();
        if self.needs_grad.is_empty() {
            count += self.dims.iter().map(sizes).sum::<usize>();
        } else {
            let save = self.op.save_set(&self.needs_grad);
            let saved = self.dims.iter().enumerate().filter(|(i, _)| save.inputs >> i & 1 == 1);
            count += saved.map(|(_, dims)| sizes(dims)).sum::<usize>();
            count += sizes(&self.output) * (1 + usize::from(save.output));
        }
        count * (1 + tangents)
    }

    fn measure(&self, tangents: usize, machine: &mut Ceilings) -> Outcome<()> {
        let threads = rayon::current_num_threads();
        let sets = (0..threads).map(|_| self.operands(tangents)).collect::<Outcome<Vec<_>>>()?;
        let (x, y, gy) = &sets[0];
        let found = self.run(x, y, gy)?;
        let wide = x.iter().map(to_f64).collect::<Outcome<Vec<_>>>()?;
        let wide_y = self.op.value(&wide.iter().collect::<Vec<_>>())?;
        let expected = self.run(&wide, &wide_y, &to_f64(gy)?)?;
        for (f, e) in found.iter().zip(&expected) {
            let mut error = distance(f.value(), e.value())?;
            if let (Some(f), Some(e)) = (f.tangent(), e.tangent()) {
                error = error.max(distance(f, e)?);
            }
            if error > TOLERANCE || error.is_nan() {
                return Err(format!("{}: f32 differs from f64 by {error:e}", self.name).into());
            }
        }
        let (mut times, mut shares) = (Vec::new(), Vec::new());
        let products = self.products as f64 * 2.0;
        // Product rule: in the forward pass, the tangent of each operand costs one more product.
        let gradients = self.needs_grad.iter().filter(|w| **w).count().max(1) as f64;
        let flops = (threads * (1 + 2 * tangents)) as f64 * products * gradients;
        let bytes = 4.0 * (threads * self.planes(&found, tangents)) as f64;
        for _ in 0..RUNS {
            let best = if self.products > 0 { machine.product() } else { machine.copy() };
            let time = together(|thread| {
                let (x, y, gy) = &sets[thread];
                self.run(x, y, gy).map_err(|e| e.to_string())
            })?;
            let time = time.as_secs_f64();
            times.push(time);
            shares.push(if self.products > 0 { flops } else { bytes } / time / best);
        }
        let (time, share) = (median(times), 100.0 * median(shares));
        let what = if self.needs_grad.is_empty() { "value" } else { "vjp" };
        let (rate, unit, of) = match self.products {
            0 => (bytes / time / 1e9, "GB/s", "copy"),
            _ => (flops / time / 1e9, "GFLOP/s", "product"),
        };
        println!(
            "{:<18}{what:<6} K={tangents} {:>8.2} ms {rate:>7.1} {unit:<7} {share:>4.0} % of {of}",
            self.name,
            time * 1e3
        );
        Ok(())
    }
}

/// Runs the work on every thread at once. Measures from when all threads are awake until the last
/// one is done.
fn together<T>(work: impl Fn(usize) -> Result<T, String> + Sync) -> Outcome<Duration> {
    let awake = AtomicUsize::new(0);
    let spans = rayon::broadcast(|thread| {
        awake.fetch_add(1, Ordering::AcqRel);
        while awake.load(Ordering::Acquire) < thread.num_threads() {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        let result = std::hint::black_box(work(thread.index()));
        let end = Instant::now();
        result.map(|_| (start, end))
    });
    let spans = spans.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (start, end) = (spans.iter().map(|s| s.0).min(), spans.iter().map(|s| s.1).max());
    Ok(end.zip(start).map(|(end, start)| end - start).unwrap_or_default())
}

fn cases() -> Vec<Case> {
    let rows = IMAGES * TOKENS;
    let (x, h) = ([rows, DIM], [rows, 4 * DIM]);
    let qkv = [IMAGES, TOKENS, 3 * DIM];
    let (scores, mixed) = ([IMAGES, HEADS, TOKENS, TOKENS], [IMAGES, TOKENS, DIM]);
    let attention = 2 * IMAGES * TOKENS * TOKENS * DIM;
    let norm = || LayerNorm { eps: 1e-6 };
    let loss = || CrossEntropy {
        labels: (0..rows as u32).map(|i| i % 100).collect::<Vec<_>>().into(),
        smoothing: 0.1,
    };
    let gelu = |form| Gelu { form };
    let linear: [&[usize]; 3] = [&x, &[4 * DIM, DIM], &[4 * DIM]];
    let macs = rows * DIM * 4 * DIM;
    vec![
        Case::new("gelu", gelu(GeluForm::Exact), &[&h], &h),
        Case::new("gelu", gelu(GeluForm::Exact), &[&h], &h).vjp(&[true]),
        Case::new("gelu tanh", gelu(GeluForm::Tanh), &[&h], &h),
        Case::new("gelu tanh", gelu(GeluForm::Tanh), &[&h], &h).vjp(&[true]),
        Case::new("softmax", Softmax, &[&scores], &scores),
        Case::new("softmax", Softmax, &[&scores], &scores).vjp(&[true]),
        Case::new("layer_norm", norm(), &[&x, &[DIM], &[DIM]], &x),
        Case::new("layer_norm x", norm(), &[&x, &[DIM], &[DIM]], &x).vjp(&[true, false, false]),
        Case::new("layer_norm γ, β", norm(), &[&x, &[DIM], &[DIM]], &x).vjp(&[false, true, true]),
        Case::new("add", Add, &[&x, &x], &x),
        Case::new("cross_entropy", loss(), &[&[rows, 1000]], &[rows]),
        Case::new("cross_entropy", loss(), &[&[rows, 1000]], &[rows]).vjp(&[true]),
        Case::new("linear", Linear::default(), &linear, &h).products(macs),
        Case::new("linear x", Linear::default(), &linear, &h)
            .vjp(&[true, false, false])
            .products(macs),
        Case::new("linear W", Linear::default(), &linear, &h)
            .vjp(&[false, true, false])
            .products(macs),
        Case::new("attention", Attention::new(HEADS), &[&qkv], &mixed).products(attention),
        // The attention map again, and two products for each of its factors.
        Case::new("attention", Attention::new(HEADS), &[&qkv], &mixed)
            .vjp(&[true])
            .products(attention / 2 * 5),
    ]
    .into_iter()
    .chain(on_grids())
    .chain([[56, 96], [14, 384], [7, 768]].into_iter().flat_map(depthwise_convs))
    .collect()
}

/// Row operations and rearrangements of grids of tokens: of a ConvNeXt-T V2 on 14 × 14 and 28 × 28
/// tokens, and of a Mixer-B.
fn on_grids() -> Vec<Case> {
    let norm = || GlobalResponseNorm { eps: 1e-6 };
    let (hidden, c) = ([IMAGES, 196, 1536], [1536]);
    let patches = TokenPatches { grid: [28; 2], size: [2; 2] };
    let case = |name| Case::new(name, norm(), &[&hidden, &c, &c], &hidden);
    vec![
        case("grn"),
        case("grn x").vjp(&[true, false, false]),
        case("grn x, γ, β").vjp(&[true, true, true]),
        Case::new("transpose_tokens", TransposeTokens, &[&[IMAGES, 196, 768]], &[IMAGES, 768, 196]),
        Case::new("token_patches", patches, &[&[IMAGES, 784, 192]], &[IMAGES, 196, 768]),
    ]
}

/// Convolutions of a ConvNeXt-T on 224² images, on a grid of `side` × `side` tokens.
fn depthwise_convs([side, c]: [usize; 2]) -> Vec<Case> {
    let op = DepthwiseConv { grid: [side; 2], kernel: [7; 2], padding: [3; 2] };
    let (x, w) = ([IMAGES, side * side, c], [c, 1, 7, 7]);
    let names = match side {
        56 => ["conv 56", "conv 56 x", "conv 56 w"],
        14 => ["conv 14", "conv 14 x", "conv 14 w"],
        _ => ["conv 7", "conv 7 x", "conv 7 w"],
    };
    let case =
        |name| Case::new(name, op, &[&x, &w, &[c]], &x).products(49 * x.iter().product::<usize>());
    vec![
        case(names[0]),
        case(names[1]).vjp(&[true, false, false]),
        case(names[2]).vjp(&[false, true, false]),
    ]
}

fn main() -> Outcome<()> {
    allocator::keep_pages();
    let mut machine = Ceilings::new();
    println!(
        "{} threads, copy {:.1} GB/s, product {:.0} GFLOP/s",
        rayon::current_num_threads(),
        machine.copy() / 1e9,
        machine.product() / 1e9
    );
    // Optional arguments: names, or parts of names, of operations to run.
    let selected: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let picked =
        |c: &Case| selected.is_empty() || selected.iter().any(|w| c.name.contains(w.as_str()));
    for case in cases().into_iter().filter(picked) {
        for tangents in 0..=2 {
            case.measure(tangents, &mut machine)?;
        }
    }
    Ok(())
}
