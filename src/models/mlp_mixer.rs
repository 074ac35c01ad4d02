//! MLP-Mixer, Tolstikhin et al., NeurIPS 2021 (arXiv:2105.01601), as in timm.
//!
//! Stages: the patch projection, (B, C, H, W) → (B, T, D); for each block an MLP over the tokens of
//! each channel and an MLP over the channels of each token, (B, T, D) → (B, T, D); the final norm and
//! the mean over tokens, → (B, D); and the head, → (B, classes).

use super::{Branch, Builder, Error, Init, Network, Node, Run, StageBuilder};
use planish_kernels::{Add, GeluForm, MeanTokens, Patches, Result, TransposeTokens};
use serde::Serialize;

const TOKENS: Branch = Branch { name: "tokens", title: "token MLP" };
const CHANNELS: Branch = Branch { name: "channels", title: "channel MLP" };

/// Standard deviation of timm's initial biases in the MLPs.
const BIAS_STD: f64 = 1e-6;

/// Configuration of an MLP-Mixer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Height and width of the input in pixels.
    pub image_size: [usize; 2],
    /// Height and width of a patch in pixels.
    pub patch_size: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Width D of the token stream.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Hidden width of the MLP over tokens.
    pub token_mlp_dim: usize,
    /// Hidden width of the MLP over channels.
    pub channel_mlp_dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// ε of every layer norm.
    pub eps: f64,
}

impl Config {
    /// Number of tokens T.
    pub fn tokens(&self) -> usize {
        (self.image_size[0] / self.patch_size[0]) * (self.image_size[1] / self.patch_size[1])
    }

    /// The network.
    ///
    /// Initial values are timm's: Glorot's uniform distribution for the MLPs' weights and N(0, 10⁻¹²)
    /// for their biases; N(0, 1/fan-in) for the patch projection, which timm truncates at two standard
    /// deviations; zeros for its bias and for the head; norms 1 and 0.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn network(&self) -> std::result::Result<Network, Error> {
        let [height, width] = self.image_size;
        let input = [self.channels, height, width];
        Network::new(super::Config::Mixer(self.clone()), self.declare(), input, self.classes)
    }

    /// Declares parameters and stages.
    pub fn declare(&self) -> Builder {
        let mut b = Builder::new();
        b.layer("stem");
        b.stage(None, |s| self.stem(s));
        for block in 0..self.depth {
            b.layer(format!("block.{block}"));
            b.stage(Some(TOKENS), |s| self.mix_tokens(s, block));
            b.stage(Some(CHANNELS), |s| self.mix_channels(s, block));
        }
        b.layer("norm");
        b.stage(None, |s| {
            let norm = s.layer_norm("norm", self.dim, self.eps);
            move |run, x| {
                let normed = run.layer_norm(norm, &x)?;
                run.op(MeanTokens { skip: 0 }, &[&normed])
            }
        });
        b.layer("head");
        b.stage(None, |s| {
            let head = s.linear("head", [self.dim, self.classes], true, Init::Constant(0.0));
            move |run, x| run.linear(head, &x)
        });
        b
    }

    fn stem(&self, s: &mut StageBuilder) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, size) = (self.dim, self.patch_size);
        let fan_in = self.channels * size[0] * size[1];
        let normal = Init::Normal(1.0 / (fan_in as f64).sqrt());
        let shape = [d, self.channels, size[0], size[1]];
        let proj = s.patch_projection("stem.proj", shape, normal, Some(Init::Constant(0.0)));
        move |run, pixels| {
            let patches = run.op(Patches { size }, &[&pixels])?;
            run.patch_projection(proj, &patches)
        }
    }

    /// x + mlp(norm(x)ᵀ)ᵀ.
    fn mix_tokens(
        &self,
        s: &mut StageBuilder,
        block: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (name, tokens) = (format!("blocks.{block}"), self.tokens());
        let norm = s.layer_norm(&format!("{name}.norm1"), self.dim, self.eps);
        let [fc1, fc2] = mlp(s, &format!("{name}.mlp_tokens"), [tokens, self.token_mlp_dim]);
        move |run, x| {
            let h = run.layer_norm(norm, &x)?;
            let h = run.op(TransposeTokens, &[&h])?;
            let h = run.linear_gelu(fc1, GeluForm::Exact, &h)?;
            let h = run.linear(fc2, &h)?;
            let h = run.op(TransposeTokens, &[&h])?;
            run.op(Add, &[&x, &h])
        }
    }

    /// x + mlp(norm(x)).
    fn mix_channels(
        &self,
        s: &mut StageBuilder,
        block: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let name = format!("blocks.{block}");
        let norm = s.layer_norm(&format!("{name}.norm2"), self.dim, self.eps);
        let sizes = [self.dim, self.channel_mlp_dim];
        let [fc1, fc2] = mlp(s, &format!("{name}.mlp_channels"), sizes);
        move |run, x| {
            let h = run.layer_norm(norm, &x)?;
            let h = run.linear_gelu(fc1, GeluForm::Exact, &h)?;
            run.residual(&x, fc2, None, &h)
        }
    }
}

/// The two linear layers of an MLP.
fn mlp(s: &mut StageBuilder, name: &str, [width, hidden]: [usize; 2]) -> [super::Linear; 2] {
    let glorot = Init::Uniform((6.0 / (width + hidden).max(1) as f64).sqrt());
    let mut linear = |part: &str, [inputs, outputs]: [usize; 2]| {
        let weight = s.param(format!("{name}.{part}.weight"), &[outputs, inputs], glorot);
        let bias = s.param(format!("{name}.{part}.bias"), &[outputs], Init::Normal(BIAS_STD));
        super::Linear { weight, bias: Some(bias) }
    };
    [linear("fc1", [width, hidden]), linear("fc2", [hidden, width])]
}
