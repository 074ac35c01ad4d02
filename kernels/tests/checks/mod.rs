//! Checks for every operation, on any device, in f64 with seeded inputs: value against a naive
//! loop; VJP and JVP against central differences; the adjoint identity; the tangent of the VJP.

mod naive;

use candle_core::{DType, Device, Tensor};
use planish_kernels::registry::Sample;
use planish_kernels::{DualTensor, Op, Saved};

/// Relative to the norm of the reference. The rounding error of f64 is 1e-16 per term, with some
/// hundred terms per sum.
const EXACT: f64 = 1e-13;
/// Central differences with step h = 1e-5: truncation h² ≈ 1e-10, rounding 1e-16/h ≈ 1e-11.
const DIFFERENCES: f64 = 2e-9;
/// The rounding error of f32 is 6e-8. Sums and cancellation cost one digit.
const SINGLE: f64 = 2e-6;
const STEP: f64 = 1e-5;

/// A seeded stream of numbers in (−1.5, 1.5) from SplitMix64, the same on every machine.
pub struct Stream(pub u64);
impl Stream {
    /// The next number.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        3.0 * ((z ^ (z >> 31)) as f64 / u64::MAX as f64) - 1.5
    }
    /// Numbers for a tensor of shape `dims`.
    pub fn numbers(&mut self, dims: &[usize]) -> Vec<f64> {
        (0..dims.iter().product()).map(|_| self.next()).collect()
    }
}

/// A CPU tensor.
pub fn tensor(x: &[f64], dims: &[usize], dtype: DType) -> Tensor {
    Tensor::from_slice(x, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// The numbers of a tensor in f64.
pub fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Euclidean norm.
pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|a| a * a).sum::<f64>().sqrt()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

/// Asserts that the Euclidean distance is at most `tolerance` × the norm of `expected`.
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let error = norm(&found.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>());
    let scale = norm(expected).max(1e-3);
    assert!(error <= tolerance * scale, "{what}: error {error:e} against norm {scale:e}");
}

/// One operation on one set of inputs, with or without tangents.
struct Case<'a> {
    op: &'a dyn Op,
    dims: &'a [Vec<usize>],
    dtype: DType,
}

impl Case<'_> {
    /// Inputs as dual tensors. `tangents[i]` holds the K tangents of input i, if any.
    fn inputs(&self, x: &[Vec<f64>], tangents: &[Option<Vec<f64>>]) -> Vec<DualTensor> {
        x.iter()
            .zip(self.dims)
            .zip(tangents)
            .map(|((x, dims), t)| {
                let tangent = t.as_ref().map(|t| {
                    let k = t.len() / x.len();
                    let shape: Vec<usize> =
                        std::iter::once(k).chain(dims.iter().copied()).collect();
                    tensor(t, &shape, self.dtype)
                });
                DualTensor::new(tensor(x, dims, self.dtype), tangent).unwrap()
            })
            .collect()
    }

    fn value(&self, x: &[Vec<f64>], tangents: &[Option<Vec<f64>>]) -> DualTensor {
        let inputs = self.inputs(x, tangents);
        self.op.value(&inputs.iter().collect::<Vec<_>>()).unwrap()
    }

    /// The VJP, given only what the operation asks to save.
    fn vjp(
        &self,
        x: &[Vec<f64>],
        tangents: &[Option<Vec<f64>>],
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Vec<Option<DualTensor>> {
        let inputs = self.inputs(x, tangents);
        let y = self.op.value(&inputs.iter().collect::<Vec<_>>()).unwrap();
        let save = self.op.save_set(needs_grad);
        let saved = Saved {
            inputs: inputs
                .iter()
                .enumerate()
                .map(|(i, x)| (save.inputs >> i & 1 == 1).then(|| x.clone()))
                .collect(),
            output: save.output.then_some(y),
            dims: self.dims.to_vec(),
        };
        self.op.vjp(&saved, gy, needs_grad).unwrap()
    }
}

fn shifted(x: &[Vec<f64>], direction: &[Vec<f64>], h: f64) -> Vec<Vec<f64>> {
    x.iter()
        .zip(direction)
        .map(|(x, d)| x.iter().zip(d).map(|(a, b)| a + h * b).collect())
        .collect()
}

fn difference(plus: &[f64], minus: &[f64]) -> Vec<f64> {
    plus.iter().zip(minus).map(|(a, b)| (a - b) / (2.0 * STEP)).collect()
}

fn plane(t: &Tensor, k: usize) -> Vec<f64> {
    numbers(&t.get(k).unwrap())
}

/// Checks for every set of inputs whether the operation is affine in them: the second difference
/// f(x) − 2 f(x + d) + f(x + 2d) vanishes.
fn check_affine(case: &Case, what: &str, x: &[Vec<f64>], stream: &mut Stream) {
    let none = vec![None; x.len()];
    let direction: Vec<Vec<f64>> = case.dims.iter().map(|dims| stream.numbers(dims)).collect();
    for set in 1..1usize << x.len() {
        let inputs: Vec<bool> = (0..x.len()).map(|i| set >> i & 1 == 1).collect();
        let moved = |h: f64| {
            let chosen: Vec<Vec<f64>> = direction
                .iter()
                .zip(&inputs)
                .map(|(d, chosen)| d.iter().map(|d| if *chosen { *d } else { 0.0 }).collect())
                .collect();
            numbers(case.value(&shifted(x, &chosen, h), &none).value())
        };
        let [at, once, twice] = [0.0, 1.0, 2.0].map(moved);
        let second: Vec<f64> =
            at.iter().zip(&once).zip(&twice).map(|((a, b), c)| a - 2.0 * b + c).collect();
        let negligible = |x: &[f64]| norm(x) <= 1e-9 * norm(&once).max(1e-3);
        let change: Vec<f64> = at.iter().zip(&once).map(|(a, b)| b - a).collect();
        match case.op.is_affine_in(&inputs) {
            true => assert!(negligible(&second), "{what}: {inputs:?} is not"),
            // A sample may be so small that the output is constant, such as softmax of one column.
            false => {
                assert!(!negligible(&second) || negligible(&change), "{what}: {inputs:?} is");
            }
        }
    }
}

/// Runs every check on one sample of operation `name`.
pub fn check(name: &str, sample: &Sample, stream: &mut Stream) {
    let case = Case { op: &*sample.op, dims: &sample.dims, dtype: DType::F64 };
    let what = |check: &str| format!("{name} {:?} {:?}: {check}", sample.op, sample.dims);
    assert_eq!(sample.op.name(), name);
    let x: Vec<Vec<f64>> = sample.dims.iter().map(|d| stream.numbers(d)).collect();
    let none = vec![None; x.len()];
    let all = vec![true; x.len()];

    let y = case.value(&x, &none);
    assert!(y.tangent().is_none(), "{}", what("a constant has no tangent"));
    let expected = naive::value(sample, &x);
    assert_close(&what("value"), &numbers(y.value()), &expected, EXACT);
    let dims: Vec<&[usize]> = sample.dims.iter().map(Vec::as_slice).collect();
    assert_eq!(sample.op.shape(&dims).unwrap(), y.dims(), "{}", what("shape"));
    check_affine(&case, &what("affine"), &x, stream);
    let single = Case { dtype: DType::F32, ..case };
    assert_close(&what("f32"), &numbers(single.value(&x, &none).value()), &expected, SINGLE);

    // Five tangents are passed as two, two and one, so every instantiation runs.
    const K: usize = 5;
    let directions: Vec<Vec<Vec<f64>>> =
        (0..K).map(|_| sample.dims.iter().map(|d| stream.numbers(d)).collect()).collect();
    let block: Vec<Option<Vec<f64>>> = (0..x.len())
        .map(|i| Some(directions.iter().flat_map(|d| d[i].clone()).collect()))
        .collect();
    let gy = stream.numbers(y.dims());
    let ty = case.value(&x, &block);
    assert_close(&what("value with tangents"), &numbers(ty.value()), &expected, EXACT);
    let cotangent = DualTensor::constant(tensor(&gy, y.dims(), DType::F64));
    let gx: Vec<Vec<f64>> = case
        .vjp(&x, &none, &cotangent, &all)
        .into_iter()
        .map(|g| numbers(g.unwrap().value()))
        .collect();
    // A cotangent with its own tangents, as in the middle of a backward pass.
    let g_directions: Vec<Vec<f64>> = (0..K).map(|_| stream.numbers(y.dims())).collect();
    let mut shape = vec![K];
    shape.extend(y.dims());
    let dual_cotangent = DualTensor::new(
        tensor(&gy, y.dims(), DType::F64),
        Some(tensor(&g_directions.concat(), &shape, DType::F64)),
    )
    .unwrap();
    let dual_gx = case.vjp(&x, &block, &dual_cotangent, &all);

    for k in 0..K {
        let (plus, minus) = (shifted(&x, &directions[k], STEP), shifted(&x, &directions[k], -STEP));
        let jvp = plane(ty.tangent().unwrap(), k);
        let by_difference = difference(
            &numbers(case.value(&plus, &none).value()),
            &numbers(case.value(&minus, &none).value()),
        );
        assert_close(&what("JVP against differences"), &jvp, &by_difference, DIFFERENCES);
        let left: f64 = gx.iter().zip(&directions[k]).map(|(g, d)| dot(g, d)).sum();
        let right = dot(&gy, &jvp);
        let scale = norm(&gy) * norm(&jvp);
        assert!((left - right).abs() <= EXACT * scale.max(1.0), "{}", what("adjoint identity"));

        let cotangent_at = |h: f64| {
            let g: Vec<f64> = gy.iter().zip(&g_directions[k]).map(|(a, b)| a + h * b).collect();
            DualTensor::constant(tensor(&g, y.dims(), DType::F64))
        };
        let up = case.vjp(&plus, &none, &cotangent_at(STEP), &all);
        let down = case.vjp(&minus, &none, &cotangent_at(-STEP), &all);
        for i in 0..x.len() {
            let g = dual_gx[i].as_ref().unwrap();
            assert_close(&what("VJP with its tangent"), &numbers(g.value()), &gx[i], EXACT);
            let expected = difference(
                &numbers(up[i].as_ref().unwrap().value()),
                &numbers(down[i].as_ref().unwrap().value()),
            );
            let found = match g.tangent() {
                Some(t) => plane(t, k),
                None => vec![0.0; expected.len()],
            };
            assert_close(&what("tangent of the VJP"), &found, &expected, DIFFERENCES);
        }
    }

    // VJP against central differences of ⟨gy, f(x)⟩, for every number of every input.
    for i in 0..x.len() {
        let mut expected = Vec::new();
        for j in 0..x[i].len() {
            let moved = |h: f64| {
                let mut z = x.clone();
                z[i][j] += h;
                dot(&gy, &numbers(case.value(&z, &none).value()))
            };
            expected.push((moved(STEP) - moved(-STEP)) / (2.0 * STEP));
        }
        assert_close(&what("VJP against differences"), &gx[i], &expected, DIFFERENCES);
    }

    // Each input's tangent and gradient alone: operations must not need what is absent or not
    // requested.
    for i in 0..x.len() {
        let mut only = none.clone();
        only[i] = block[i].clone();
        let jvp = plane(case.value(&x, &only).tangent().unwrap(), 0);
        let mut zeros = directions[0].clone();
        for (j, z) in zeros.iter_mut().enumerate() {
            if j != i {
                z.fill(0.0);
            }
        }
        let by_difference = difference(
            &numbers(case.value(&shifted(&x, &zeros, STEP), &none).value()),
            &numbers(case.value(&shifted(&x, &zeros, -STEP), &none).value()),
        );
        assert_close(&what("JVP of one input"), &jvp, &by_difference, DIFFERENCES);
        let mut needs_grad = vec![false; x.len()];
        needs_grad[i] = true;
        let g = case.vjp(&x, &none, &cotangent, &needs_grad);
        assert_close(
            &what("VJP of one input"),
            &numbers(g[i].as_ref().unwrap().value()),
            &gx[i],
            EXACT,
        );
    }
}
