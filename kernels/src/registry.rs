//! Table of all operations, with shapes to test them on. Tests and benchmarks iterate over it. An
//! operation in the table without a reference implementation fails the tests.

use crate::op::Op;
use crate::{
    attention, concat, cross_entropy, depthwise_conv, first_tokens, fused, gelu,
    global_response_norm, layer_norm, linear, matmul, mix_tokens, pointwise, prepend, skip_tokens,
    softmax, swiglu, token_patches, tokens, transpose_tokens, weight_rows,
};

/// An operation with the shapes of its inputs.
pub struct Sample {
    /// The operation.
    pub op: Box<dyn Op>,
    /// Shape of every input.
    pub dims: Vec<Vec<usize>>,
}

impl Sample {
    /// An operation with the shapes of its inputs.
    pub fn new(op: impl Op + 'static, dims: &[&[usize]]) -> Self {
        Self { op: Box::new(op), dims: dims.iter().map(|d| d.to_vec()).collect() }
    }
}

/// Name of an operation and a function that creates its samples.
pub type Entry = (&'static str, fn() -> Vec<Sample>);

/// All operations.
pub const REGISTRY: &[Entry] = &[
    ("linear", linear::samples),
    ("matmul", matmul::samples),
    ("attention", attention::samples),
    ("depthwise_conv", depthwise_conv::samples),
    ("layer_norm", layer_norm::samples),
    ("global_response_norm", global_response_norm::samples),
    ("softmax", softmax::samples),
    ("gelu", gelu::samples),
    ("swiglu", swiglu::samples),
    ("bias_gelu", fused::bias_gelu_samples),
    ("bias_residual", fused::bias_residual_samples),
    ("add", pointwise::add_samples),
    ("layer_scale", pointwise::layer_scale_samples),
    ("scale", pointwise::scale_samples),
    ("patches", tokens::patches_samples),
    ("token_patches", token_patches::samples),
    ("transpose_tokens", transpose_tokens::samples),
    ("weight_rows", weight_rows::samples),
    ("flatten", tokens::flatten_samples),
    ("regroup", tokens::regroup_samples),
    ("prepend", prepend::samples),
    ("concat", concat::samples),
    ("mix_tokens", mix_tokens::samples),
    ("pick_token", tokens::pick_samples),
    ("first_tokens", first_tokens::samples),
    ("skip_tokens", skip_tokens::samples),
    ("mean_tokens", tokens::mean_samples),
    ("cross_entropy", cross_entropy::samples),
];
