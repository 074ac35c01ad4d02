//! ConvNeXt, Liu et al., CVPR 2022 (arXiv:2201.03545), and ConvNeXt V2, Woo et al., CVPR 2023
//! (arXiv:2301.00808), as in timm and transformers.
//!
//! Activations are (B, T, D) with T = H·W tokens, row by row: channels last, so that norms and MLPs act
//! on the last dimension. Stages: the stem, a convolution of patches and a norm; for each of the
//! network's stages a downsampling (except the first) and its blocks; the mean over tokens with the
//! final norm, → (B, D); and the head, → (B, classes).

use super::{Builder, Error, Init, Network, Node, Run, StageBuilder};
use planish_kernels::{
    DepthwiseConv, GeluForm, GlobalResponseNorm, MeanTokens, Patches, Result, TokenPatches,
};
use serde::Serialize;

/// Standard deviation of timm's initial weights.
const STD: f64 = 0.02;
/// Initial value of timm's LayerScale.
const LAYER_SCALE: f32 = 1e-6;
/// Side of the depthwise convolution.
pub const KERNEL: usize = 7;
/// Tokens that a downsampling joins, per side.
const STRIDE: usize = 2;
/// ε of global response normalisation.
const GRN_EPS: f64 = 1e-6;

/// Configuration of a ConvNeXt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Height and width of the input in pixels.
    pub image_size: [usize; 2],
    /// Side of the stem's patches in pixels.
    pub patch_size: usize,
    /// Input channels.
    pub channels: usize,
    /// Number of blocks of each stage.
    pub depths: Vec<usize>,
    /// Width of each stage.
    pub dims: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
    /// Whether branches are scaled per channel (V1).
    pub layer_scale: bool,
    /// Whether MLPs have global response normalisation (V2).
    pub grn: bool,
    /// ε of the norms below the last.
    pub eps: f64,
    /// ε of the last norm.
    pub final_eps: f64,
}

impl Config {
    /// Height and width of the tokens in a stage.
    fn grid(&self, stage: usize) -> [usize; 2] {
        let side = self.patch_size.max(1).saturating_mul(STRIDE.saturating_pow(stage as u32));
        self.image_size.map(|pixels| pixels / side)
    }

    /// Width of the last stage.
    pub fn features(&self) -> usize {
        self.dims.last().copied().unwrap_or(0)
    }

    /// The network.
    ///
    /// Initial values are timm's: N(0, 0.02²) for weights, which timm truncates at 100 standard
    /// deviations; zeros for biases and for global response normalisation;
    /// LayerScale 10⁻⁶; norms 1 and 0.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn network(&self) -> std::result::Result<Network, Error> {
        let [height, width] = self.image_size;
        let input = [self.channels, height, width];
        Network::new(super::Config::ConvNext(self.clone()), self.declare(), input, self.classes)
    }

    /// Declares parameters and stages.
    pub fn declare(&self) -> Builder {
        let mut b = Builder::new();
        b.layer("stem");
        b.stage(None, |s| self.stem(s));
        for (stage, &depth) in self.depths.iter().enumerate() {
            if stage > 0 {
                b.layer(format!("stages.{stage}.downsample"));
                b.stage(None, |s| self.downsample(s, stage));
            }
            for block in 0..depth {
                let name = format!("stages.{stage}.blocks.{block}");
                b.layer(name.clone());
                b.stage(None, |s| self.block(s, &name, stage));
            }
        }
        b.layer("norm");
        b.stage(None, |s| {
            let norm = s.layer_norm("head.norm", self.features(), self.final_eps);
            move |run, x| {
                let mean = run.op(MeanTokens { skip: 0 }, &[&x])?;
                run.layer_norm(norm, &mean)
            }
        });
        b.layer("head");
        b.stage(None, |s| {
            let sizes = [self.features(), self.classes];
            let head = s.linear("head.fc", sizes, true, Init::Normal(STD));
            move |run, x| run.linear(head, &x)
        });
        b
    }

    fn stem(&self, s: &mut StageBuilder) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, size) = (self.dims.first().copied().unwrap_or(0), [self.patch_size; 2]);
        let shape = [d, self.channels, size[0], size[1]];
        let (normal, zero) = (Init::Normal(STD), Init::Constant(0.0));
        let conv = s.patch_projection("stem.0", shape, normal, Some(zero));
        let norm = s.layer_norm("stem.1", d, self.eps);
        move |run, pixels| {
            let patches = run.op(Patches { size }, &[&pixels])?;
            let x = run.patch_projection(conv, &patches)?;
            run.layer_norm(norm, &x)
        }
    }

    fn downsample(
        &self,
        s: &mut StageBuilder,
        stage: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (name, size) = (format!("stages.{stage}.downsample"), [STRIDE; 2]);
        let norm = s.layer_norm(&format!("{name}.0"), self.dims[stage - 1], self.eps);
        let shape = [self.dims[stage], self.dims[stage - 1], STRIDE, STRIDE];
        let (normal, zero) = (Init::Normal(STD), Init::Constant(0.0));
        let conv = s.patch_projection(&format!("{name}.1"), shape, normal, Some(zero));
        let grid = self.grid(stage - 1);
        move |run, x| {
            let x = run.layer_norm(norm, &x)?;
            let patches = run.op(TokenPatches { grid, size }, &[&x])?;
            run.patch_projection(conv, &patches)
        }
    }

    /// x + LayerScale(mlp(norm(conv(x)))), with global response normalisation in V2's MLP.
    fn block(
        &self,
        s: &mut StageBuilder,
        name: &str,
        stage: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, grid) = (self.dims[stage], self.grid(stage));
        let scale = self.layer_scale;
        let scale =
            scale.then(|| s.param(format!("{name}.gamma"), &[d], Init::Constant(LAYER_SCALE)));
        let (normal, zero) = (Init::Normal(STD), Init::Constant(0.0));
        let shape = [d, 1, KERNEL, KERNEL];
        let weight = s.param(format!("{name}.conv_dw.weight"), &shape, normal);
        let bias = s.param(format!("{name}.conv_dw.bias"), &[d], zero);
        let norm = s.layer_norm(&format!("{name}.norm"), d, self.eps);
        let fc1 = s.linear(&format!("{name}.mlp.fc1"), [d, 4 * d], true, normal);
        let grn = self.grn.then(|| {
            ["weight", "bias"].map(|part| s.param(format!("{name}.mlp.grn.{part}"), &[4 * d], zero))
        });
        let fc2 = s.linear(&format!("{name}.mlp.fc2"), [4 * d, d], true, normal);
        let conv = DepthwiseConv { grid, kernel: [KERNEL; 2], padding: [KERNEL / 2; 2] };
        move |run, x| {
            let (weight, bias) = (run.param(weight)?, run.param(bias)?);
            let h = run.op(conv, &[&x, &weight, &bias])?;
            let h = run.layer_norm(norm, &h)?;
            let mut h = run.linear_gelu(fc1, GeluForm::Exact, &h)?;
            if let Some([weight, bias]) = grn {
                let (weight, bias) = (run.param(weight)?, run.param(bias)?);
                h = run.op(GlobalResponseNorm { eps: GRN_EPS }, &[&h, &weight, &bias])?;
            }
            run.residual(&x, fc2, scale, &h)
        }
    }
}
