//! Row operations with the shapes of a ViT-B/16 on a batch of 128: time compared with bytes over
//! the copy rate.

use super::Outcome;
use super::machine::{Machine, numbers};
use candle_core::{Device, Tensor};
use planish_kernels::{
    Add, CrossEntropy, DualTensor, Gelu, GeluForm, LayerNorm, Op, Saved, Softmax,
};

/// An operation with the shapes of its operands and of its value, or of its gradient for some
/// operands.
struct Case {
    name: &'static str,
    op: Box<dyn Op>,
    dims: Vec<Vec<usize>>,
    needs_grad: Option<Vec<bool>>,
}

fn dual(dims: &[usize], tangents: usize, device: &Device) -> Outcome<DualTensor> {
    let on_device = |dims: &[usize]| -> Outcome<Tensor> {
        let numbers = numbers(dims.iter().product(), dims.len() as u64);
        Ok(Tensor::from_vec(numbers, dims, &Device::Cpu)?.to_device(device)?)
    };
    let block: Vec<usize> = std::iter::once(tangents).chain(dims.iter().copied()).collect();
    let tangent = if tangents > 0 { Some(on_device(&block)?) } else { None };
    Ok(DualTensor::new(on_device(dims)?, tangent)?)
}

impl Case {
    fn value(name: &'static str, op: impl Op + 'static, dims: &[&[usize]]) -> Self {
        let dims = dims.iter().map(|dims| dims.to_vec()).collect();
        Self { name, op: Box::new(op), dims, needs_grad: None }
    }

    fn vjp(self, needs_grad: &[bool]) -> Self {
        Self { needs_grad: Some(needs_grad.to_vec()), ..self }
    }

    /// Seconds, and bytes if each operand is moved once.
    fn measure(&self, machine: &Machine, device: &Device, tangents: usize) -> Outcome<[f64; 2]> {
        let x = self.dims.iter().map(|dims| dual(dims, tangents, device));
        let x = x.collect::<Outcome<Vec<_>>>()?;
        let operands: Vec<&DualTensor> = x.iter().collect();
        let y = self.op.value(&operands)?;
        let planes = |x: &DualTensor| (x.numel() * (1 + x.tangents())) as f64;
        let Some(needs_grad) = &self.needs_grad else {
            let seconds = machine.fastest(|| Ok(self.op.value(&operands).map(drop)?))?;
            return Ok([seconds, 4.0 * (planes(&y) + x.iter().map(planes).sum::<f64>())]);
        };
        let gy = dual(y.dims(), tangents, device)?;
        let save = self.op.save_set(needs_grad);
        let saved_inputs = x.iter().enumerate().filter(|(i, _)| save.inputs >> i & 1 == 1);
        let mut bytes = saved_inputs.map(|(_, x)| planes(x)).sum::<f64>() + planes(&gy);
        if save.output {
            bytes += planes(&y);
        }
        let inputs = x.iter().cloned().map(Some).collect();
        let saved = Saved { inputs, output: Some(y), dims: self.dims.clone() };
        let run = || self.op.vjp(&saved, &gy, needs_grad);
        bytes += run()?.iter().flatten().map(planes).sum::<f64>();
        Ok([machine.fastest(|| Ok(run().map(drop)?))?, 4.0 * bytes])
    }
}

fn cases(large: bool) -> Vec<Case> {
    let [images, heads, tokens, dim] = if large { [128, 12, 197, 768] } else { [1, 2, 5, 8] };
    let rows = images * tokens;
    let (x, h, scores) = ([rows, dim], [rows, 4 * dim], [images, heads, tokens, tokens]);
    let norm = |name| Case::value(name, LayerNorm { eps: 1e-6 }, &[&x, &[dim], &[dim]]);
    let gelu = |name| Case::value(name, Gelu { form: GeluForm::Exact }, &[&h]);
    let softmax = |name| Case::value(name, Softmax, &[&scores]);
    let labels: Vec<u32> = (0..rows as u32).map(|i| i % 4).collect();
    let loss = CrossEntropy { labels: labels.into(), smoothing: 0.0 };
    vec![
        norm("layer norm, value"),
        norm("layer norm, vjp of x").vjp(&[true, false, false]),
        norm("layer norm, vjp of γ, β").vjp(&[false, true, true]),
        softmax("softmax of scores, value"),
        softmax("softmax of scores, vjp").vjp(&[true]),
        gelu("GELU, value"),
        gelu("GELU, vjp").vjp(&[true]),
        Case::value("sum", Add, &[&x, &x]),
        Case::value("cross-entropy of 100", loss, &[&[rows, 100]]),
    ]
}

/// Prints the times.
pub fn tell(machine: &mut Machine, large: bool) -> Outcome<()> {
    let copy = machine.copy()?;
    println!(
        "\n## Row operations\n\n\
         | operation, f32 | tangents | MB | µs | at the copy's rate, µs | of a copy |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |"
    );
    let device = machine.device().clone();
    for case in cases(large) {
        for tangents in 0..=2 {
            let [seconds, bytes] = case.measure(machine, &device, tangents)?;
            println!(
                "| {} | {tangents} | {:.1} | {:.1} | {:.1} | {:.0} % |",
                case.name,
                bytes / 1e6,
                seconds * 1e6,
                bytes / copy * 1e6,
                100.0 * bytes / copy / seconds
            );
        }
    }
    Ok(())
}
