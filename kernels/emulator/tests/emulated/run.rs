//! Moves tensors to and from emulator memory and runs launches.

use crate::buffer::Buffer;
use crate::emulator::launch;
use candle_core::{DType, Device, Tensor};
use planish_kernels::cuda::{Address, Launch, Plane, Planner, StorageType};
use planish_kernels::{DualTensor, Result};

/// A tensor in emulator memory.
pub struct In {
    value: Buffer,
    tangent: Option<Buffer>,
}

impl In {
    pub fn plane(&self) -> Plane {
        let tangent = self.tangent.as_ref().map_or(0, Buffer::address);
        Plane { value: self.value.address(), tangent }
    }
}

/// Settings of one operation's launches.
pub struct Run {
    pub order: u32,
    pub planner: Planner,
    pub k: usize,
    pub stored: StorageType,
}

/// The numbers of a tensor in f64.
fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Runs launches in order.
pub fn go(launches: &[Launch], order: u32) {
    for one in launches {
        // SAFETY: addresses are those of live buffers with the planned sizes.
        unsafe { launch(one, order) }.unwrap();
    }
}

impl Run {
    /// Settings for an operation on these tensors.
    pub fn new(order: u32, threads: Option<u32>, on: &[&DualTensor]) -> Self {
        // Rows may be bf16 while parameters are f32.
        let narrowest = on.iter().map(|x| Self::stored_as(x.value())).min_by_key(|s| s.bytes());
        let stored = narrowest.unwrap_or(StorageType::F64);
        let k = on.iter().map(|x| x.tangents()).max().unwrap_or(0);
        Self { order, planner: Planner { stored, threads }, k, stored }
    }

    /// Storage type of a tensor.
    fn stored_as(x: &Tensor) -> StorageType {
        match x.dtype() {
            DType::F32 => StorageType::F32,
            DType::BF16 => StorageType::Bf16,
            _ => StorageType::F64,
        }
    }

    pub fn input(&self, x: &DualTensor) -> In {
        let buffer = |x: &Tensor| Buffer::numbers(Self::stored_as(x), &numbers(x));
        In { value: buffer(x.value()), tangent: x.tangent().map(buffer) }
    }

    fn blank(&self, dims: &[usize], stored: StorageType) -> In {
        let bytes = dims.iter().product::<usize>() * stored.bytes();
        let tangent = (self.k > 0).then(|| Buffer::blank(self.k * bytes));
        In { value: Buffer::blank(bytes), tangent }
    }

    fn read(&self, x: &In, dims: &[usize], stored: StorageType) -> Result<DualTensor> {
        let dtype = match stored {
            StorageType::F32 => DType::F32,
            StorageType::F64 => DType::F64,
            StorageType::Bf16 => DType::BF16,
        };
        let tensor = |buffer: &Buffer, dims: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_vec(buffer.read(stored), dims, &Device::Cpu)?.to_dtype(dtype)?)
        };
        let tangent = match &x.tangent {
            Some(tangent) => Some(tensor(tangent, &[&[self.k], dims].concat())?),
            None => None,
        };
        DualTensor::new(tensor(&x.value, dims)?, tangent)
    }

    /// Runs launches that write one output of shape `dims`.
    pub fn output(
        &self,
        dims: &[usize],
        plan: impl FnOnce(Plane) -> Result<Vec<Launch>>,
    ) -> Result<DualTensor> {
        let y = self.blank(dims, self.stored);
        go(&plan(y.plane())?, self.order);
        self.read(&y, dims, self.stored)
    }

    /// Runs launches that write two outputs of shape `dims`.
    pub fn two(
        &self,
        dims: &[usize],
        plan: impl FnOnce([Plane; 2]) -> Result<Vec<Launch>>,
    ) -> Result<[DualTensor; 2]> {
        let [a, b] = [self.blank(dims, self.stored), self.blank(dims, self.stored)];
        go(&plan([a.plane(), b.plane()])?, self.order);
        Ok([self.read(&a, dims, self.stored)?, self.read(&b, dims, self.stored)?])
    }

    /// Runs launches that sum over `rows` rows of `n`, with results of shapes `dims`.
    pub fn sums<const N: usize>(
        &self,
        dims: [&[usize]; N],
        [rows, n]: [usize; 2],
        plan: impl FnOnce([Plane; N], Address) -> Result<Vec<Launch>>,
    ) -> Result<[DualTensor; N]> {
        let sum_type = self.stored.arithmetic();
        let scratch = Buffer::blank(self.planner.sum_scratch(N, rows, n, self.k));
        let sums = dims.map(|dims| self.blank(dims, sum_type));
        go(&plan(sums.each_ref().map(In::plane), scratch.address())?, self.order);
        let mut read = Vec::new();
        for (sum, dims) in sums.iter().zip(dims) {
            read.push(self.read(sum, dims, sum_type)?);
        }
        Ok(read.try_into().unwrap())
    }

    /// Runs a linear rearrangement on the value, and on the tangents as one longer batch. `plan`
    /// receives source and target addresses and the number of tangents in the batch (1 for the
    /// value).
    pub fn linear(
        &self,
        dims: &[usize],
        x: Plane,
        plan: impl Fn([Address; 2], usize) -> Result<Vec<Launch>>,
    ) -> Result<DualTensor> {
        let y = self.blank(dims, self.stored);
        let to = y.plane();
        go(&plan([x.value, to.value], 1)?, self.order);
        if self.k > 0 {
            go(&plan([x.tangent, to.tangent], self.k)?, self.order);
        }
        self.read(&y, dims, self.stored)
    }
}
