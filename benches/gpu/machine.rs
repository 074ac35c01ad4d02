//! Measured peak rates of the device.

use super::Outcome;
use candle_core::{Device, Tensor};
use planish::device::Gpu;
use planish_kernels::{DualTensor, MatMul, Op, Products};
use std::error::Error;
use std::time::Instant;

/// Runs per peak rate; the fastest counts.
const RUNS: usize = 5;

/// Operands of the measurements.
pub struct Machine {
    device: Device,
    products: Products,
    factors: [DualTensor; 2],
    side: usize,
    copied: Tensor,
    host: Tensor,
}

impl Machine {
    pub fn new(device: &Device, products: Products, large: bool) -> Outcome<Self> {
        let (side, count) = if large { (8192, 1 << 28) } else { (16, 1 << 10) };
        let on_device = |n: usize, dims: &[usize]| -> Outcome<Tensor> {
            let x = Tensor::from_vec(numbers(n, 7), dims, &Device::Cpu)?;
            Ok(x.to_device(device)?)
        };
        let factor = || {
            Ok::<_, Box<dyn Error>>(DualTensor::constant(on_device(side * side, &[side, side])?))
        };
        let host_len = count / 8;
        Ok(Self {
            factors: [factor()?, factor()?],
            side,
            copied: on_device(count, &[count])?,
            host: Tensor::from_vec(numbers(host_len, 8), &[host_len], &Device::Cpu)?,
            device: device.clone(),
            products,
        })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits until all submitted work is complete.
    pub fn wait(&self) -> Outcome<()> {
        Ok(self.device.synchronize()?)
    }

    /// Seconds of the fastest of several runs, after a warm-up run.
    pub fn fastest(&self, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
        work()?;
        let mut fastest_run = f64::INFINITY;
        for _ in 0..RUNS {
            self.wait()?;
            let clock = Instant::now();
            work()?;
            self.wait()?;
            fastest_run = fastest_run.min(clock.elapsed().as_secs_f64());
        }
        Ok(fastest_run)
    }

    /// Bytes read and written per second by a copy within device memory.
    pub fn copy(&mut self) -> Outcome<f64> {
        let all = std::slice::from_ref(&self.copied);
        let copy = || planish::vector::concat(all).map(drop);
        let seconds = self.fastest(|| Ok(copy()?))?;
        Ok(8.0 * self.copied.elem_count() as f64 / seconds)
    }

    /// Operations per second of one large square matrix product in f32 or TF32.
    pub fn product(&mut self) -> Outcome<f64> {
        let [a, b] = &self.factors;
        let op = MatMul { products: self.products };
        let seconds = self.fastest(|| Ok(op.value(&[a, b]).map(drop)?))?;
        Ok(2.0 * (self.side as f64).powi(3) / seconds)
    }

    /// Upload rate from CPU memory, bytes per second.
    fn upload(&self) -> Outcome<f64> {
        let seconds = self.fastest(|| Ok(self.host.to_device(&self.device).map(drop)?))?;
        Ok(4.0 * self.host.elem_count() as f64 / seconds)
    }

    /// Prints the peak rates.
    pub fn tell(&mut self, gpu: &Gpu) -> Outcome<()> {
        let (copy, product, upload) = (self.copy()?, self.product()?, self.upload()?);
        println!(
            "## Ceilings of this device\n\n\
             | what | measured |\n| --- | ---: |\n\
             | memory | {} MiB, {} free |\n\
             | copy within it, read and written | {:.0} GB/s |\n\
             | one product of side {}, f32 | {:.1} TFLOP/s |\n\
             | from the CPU's memory, pageable | {:.1} GB/s |",
            gpu.bytes() >> 20,
            gpu.free() >> 20,
            copy / 1e9,
            self.side,
            product / 1e12,
            upload / 1e9,
        );
        Ok(())
    }
}

/// The median of some measurements.
pub fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x.get(x.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `count` seeded numbers in (−1, 1) (SplitMix64).
pub fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
    let draw = |_| {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z >> 40) as f32) / (1 << 23) as f32 - 1.0
    };
    (0..count).map(draw).collect()
}
