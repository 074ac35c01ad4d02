//! Options of a training run, and of each method.

use super::average::Average;
use super::groups::Grouping;
use super::guard::{Keep, StopRule};
use super::lora_options::LoraOptions;
use super::optimizer::OptimizerRule;
use super::perturbation::{NoMinimum, StepRule};
use super::run::TrainSettings;
use super::sam::Variant;
use super::schedule::Shape;
use crate::data::Augment;
use crate::engine::Precision;
use crate::objective::Objective;
use crate::options::{Error, as_text, check};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Options of training that fine-tuning and all methods of post-training share. Each has a value;
/// [`TrainArgs`](super::TrainArgs) has those that a user gives.
///
/// They are columns of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Passes over the training images
    pub epochs: usize,
    /// Images in B, the batch of a step; an incomplete last batch is dropped
    pub batch_size: usize,
    /// Highest learning rate
    pub lr: f64,
    /// Learning rate after the warm-up: cosine decay to 0, linear decay to 0, or constant
    pub schedule: Shape,
    /// Epochs of linear warm-up; 0.5 is half an epoch
    pub warmup: f64,
    /// Momentum
    pub momentum: f64,
    /// Nesterov momentum: on, or off
    pub nesterov: bool,
    /// Weight decay
    pub weight_decay: f64,
    /// Weight decay of norms, biases and other tensors with one dimension: on, or off
    pub decay_all: bool,
    /// Label smoothing
    pub label_smoothing: f64,
    /// Keep an average of the updated weights: `ema:DECAY` over steps, or `swa:N` over the last N
    /// epochs.
    ///
    /// Once averaging has begun, the average is evaluated on the validation images and kept.
    #[serde(with = "as_text::option")]
    pub average: Option<Average>,
    /// Clip the gradient of the updated layers to this norm
    pub clip: Option<f64>,
    /// Augmentation of training images: `flip`, `shift=PIXELS`, `crop=MIN_AREA`, comma-separated
    #[serde(with = "as_text")]
    pub augment: Augment,
    /// Augmented views of each image, one per epoch in turn [default: as many as epochs]
    pub views: Option<usize>,
    /// Precision of matrix products in training and in frozen layers: f32, or bf16 operands with
    /// f32 accumulation. On a GPU, bf16 also stores the activations between embedding and head in
    /// bf16. Weights, diagnosis and line searches stay f32
    #[serde(with = "as_text")]
    pub precision: Precision,
    /// Images per thread at a time. Gradients are summed over all of B before the step, so the step
    /// does not change; smaller values use less memory [default: by memory]
    pub micro_batch: Option<usize>,
    /// Split B into K micro-batches (gradient accumulation)
    pub accumulate: Option<usize>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch_size: 128,
            lr: 0.01,
            schedule: Shape::Cosine,
            warmup: 0.0,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
            decay_all: true,
            label_smoothing: 0.0,
            average: None,
            clip: None,
            augment: Augment::default(),
            views: None,
            precision: Precision::F32,
            micro_batch: None,
            accumulate: None,
        }
    }
}

impl TrainOptions {
    /// The options with a batch of all images if they are fewer than `batch_size`, which is the default.
    /// The second value is a note that says so.
    pub fn fitted_to(&self, images: usize) -> (Self, Option<String>) {
        let usual = self.batch_size;
        if images == 0 || images >= usual {
            return (self.clone(), None);
        }
        let note = format!(
            "the training set has {images} images, fewer than the default `batch_size` of {usual}: \
             each batch is the whole training set"
        );
        (Self { batch_size: images, ..self.clone() }, Some(note))
    }

    /// Rejects values out of range and options without effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> Result<(), Error> {
        check::count("epochs", self.epochs)?;
        check::count("batch_size", self.batch_size)?;
        check::not_negative("warmup", self.warmup)?;
        if self.warmup > self.epochs as f64 {
            let expected = format!("at most `epochs`, {}", self.epochs);
            return Err(Error::value("warmup", expected, self.warmup));
        }
        check::positive("lr", self.lr)?;
        check::share("momentum", self.momentum)?;
        check::not_negative("weight_decay", self.weight_decay)?;
        check::share("label_smoothing", self.label_smoothing)?;
        if let Some(Average::Swa(epochs)) = self.average
            && epochs > self.epochs
        {
            let expected = format!("swa of at most `epochs`, {}", self.epochs);
            return Err(Error::value("average", expected, format!("swa:{epochs}")));
        }
        self.clip.map_or(Ok(()), |norm| check::positive("clip", norm))?;
        self.views.map_or(Ok(()), |views| check::count("views", views))?;
        self.micro_batch.map_or(Ok(()), |n| check::count("micro_batch", n))?;
        if let Some(parts) = self.accumulate
            && !(1..=self.batch_size).contains(&parts)
        {
            let expected = format!("1 to {}, the images in B", self.batch_size);
            return Err(Error::value("accumulate", expected, parts));
        }
        if self.micro_batch.is_some() && self.accumulate.is_some() {
            let text = "expected one of `micro_batch` and `accumulate`: both set the same size";
            return Err(Error::Conflict(text.into()));
        }
        if self.views.is_some() && self.augment == Augment::default() {
            let (option, applies_to) = ("views".into(), "augmented images (`augment`)".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        Ok(())
    }

    /// The settings of the loop.
    pub fn settings(
        &self,
        optimizer: OptimizerRule,
        keep: Keep,
        stop: StopRule,
        seed: u64,
    ) -> TrainSettings {
        TrainSettings {
            epochs: self.epochs,
            batch_size: self.batch_size,
            lr: self.lr,
            schedule: self.schedule,
            warmup: self.warmup,
            clip: self.clip,
            optimizer,
            weight_decay: self.weight_decay,
            label_smoothing: self.label_smoothing,
            grouping: Grouping { decay_all: self.decay_all, ..Grouping::default() },
            l2_sp: None,
            average: self.average,
            keep,
            stop,
            seed,
        }
    }

    /// SGD with this momentum.
    pub fn sgd(&self) -> OptimizerRule {
        // Without momentum, both rules are the same.
        OptimizerRule::Sgd {
            momentum: self.momentum,
            nesterov: self.nesterov && self.momentum > 0.0,
        }
    }

    /// The model with this label smoothing, precision and micro-batch size.
    pub fn configured(&self, model: &Objective) -> Objective {
        let mut model = model.clone();
        model.smoothing = self.label_smoothing;
        model.precision = self.precision;
        if let Some(n) = self.micro_batch() {
            model.micro_batch = n.min(self.batch_size);
        }
        model
    }

    /// Images in a micro-batch, if set by the user.
    pub fn micro_batch(&self) -> Option<usize> {
        self.micro_batch.or(self.accumulate.map(|parts| self.batch_size.div_ceil(parts)))
    }
}

/// Options of the perturbation in PoL and PoF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LineOptions {
    /// Images in B′, the batch that the perturbation is computed on.
    pub perturb_batch: usize,
    /// Γ: the perturbation is γ times the step to the minimum, γ ~ U(0, Γ).
    pub gamma: f64,
    /// How that step is found. Default: one Hessian-vector product below the last block, else a
    /// line search.
    pub step: Option<StepRule>,
    /// What happens without a minimum.
    pub no_minimum: NoMinimum,
    /// Whether B′ is drawn with replacement.
    pub perturb_replacement: bool,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self {
            perturb_batch: 256,
            gamma: 2.0,
            step: None,
            no_minimum: NoMinimum::Reject,
            perturb_replacement: false,
        }
    }
}

/// A method and its layers. Each variant has exactly the options that it reads.
///
/// Layer names follow [`select`](crate::models::layers::select). If PoL or SGD name no layers, a plan
/// chooses them; SAM and its variants then update all layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum MethodOptions {
    /// Update u without a perturbation: the control.
    Sgd {
        /// u.
        update: Option<String>,
        /// Adapters of the linear layers of u, trained instead of u.
        #[serde(flatten)]
        lora: LoraOptions,
    },
    /// Perturb p along a batch's gradient, update u.
    Pol {
        /// p.
        perturb: Option<String>,
        /// u.
        update: Option<String>,
        /// The perturbation.
        #[serde(flatten)]
        line: LineOptions,
    },
    /// Perturb the head, update all other layers.
    Pof {
        /// The perturbation.
        #[serde(flatten)]
        line: LineOptions,
    },
    /// Sharpness-aware minimisation.
    Sam {
        /// u.
        update: Option<String>,
        /// ρ, the length of the ascent step.
        rho: f64,
    },
    /// SAM along the gradient without its moving average.
    FriendlySam {
        /// u.
        update: Option<String>,
        /// ρ.
        rho: f64,
        /// σ, the share of the average that is removed.
        friendly_sigma: f64,
        /// λ of the average.
        friendly_lambda: f64,
    },
    /// SAM on tensors that a bandit draws for each step.
    SlSam {
        /// u.
        update: Option<String>,
        /// ρ.
        rho: f64,
        /// s, the mean share of tensors drawn.
        active_share: f64,
    },
    /// SAM with an ascent step scaled by the weights.
    Asam {
        /// u.
        update: Option<String>,
        /// ρ.
        rho: f64,
        /// η, added to |w|.
        asam_eta: f64,
    },
    /// SAM with an ascent step only at every k-th step.
    Looksam {
        /// u.
        update: Option<String>,
        /// ρ.
        rho: f64,
        /// k.
        look_every: usize,
        /// α, the weight of the reused component in the steps between.
        look_alpha: f64,
    },
    /// SAM that perturbs only normalisation layers.
    SamNorm {
        /// u.
        update: Option<String>,
        /// ρ.
        rho: f64,
    },
}

/// Names of the methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum MethodName {
    /// perturb one layer, update another
    Pol,
    /// perturb the head, update all other layers
    Pof,
    /// sharpness-aware minimisation: update with the gradient after an ascent step
    Sam,
    /// SAM with an ascent direction from which the gradient's moving average is subtracted
    FriendlySam,
    /// SAM on a random subset of tensors in each step, sampled by a bandit from gradient norms
    SlSam,
    /// SAM with an ascent step scaled by the weights
    Asam,
    /// SAM with an ascent step only at every k-th step
    Looksam,
    /// SAM that perturbs only normalisation layers
    SamNorm,
    /// update without a perturbation: the control
    Sgd,
}

impl MethodName {
    /// All methods.
    pub const ALL: [MethodName; 9] = [
        MethodName::Pol,
        MethodName::Pof,
        MethodName::Sam,
        MethodName::FriendlySam,
        MethodName::SlSam,
        MethodName::Asam,
        MethodName::Looksam,
        MethodName::SamNorm,
        MethodName::Sgd,
    ];

    /// Its name in reports, on the command line and in study files.
    pub fn name(self) -> &'static str {
        match self {
            MethodName::Pol => "pol",
            MethodName::Pof => "pof",
            MethodName::Sam => "sam",
            MethodName::FriendlySam => "friendly-sam",
            MethodName::SlSam => "sl-sam",
            MethodName::Asam => "asam",
            MethodName::Looksam => "looksam",
            MethodName::SamNorm => "sam-norm",
            MethodName::Sgd => "sgd",
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            MethodName::Pol => "PoL",
            MethodName::Pof => "PoF",
            MethodName::Sam => "SAM",
            MethodName::FriendlySam => "Friendly-SAM",
            MethodName::SlSam => "SL-SAM",
            MethodName::Asam => "ASAM",
            MethodName::Looksam => "LookSAM",
            MethodName::SamNorm => "norm-only SAM",
            MethodName::Sgd => "SGD",
        }
    }

    /// The method with that name.
    pub fn named(name: &str) -> Option<MethodName> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Names of the options that it reads.
    pub fn options(self) -> Vec<String> {
        let fields = serde_json::to_value(MethodOptions::default_of(self));
        let fields = fields.as_ref().ok().and_then(Value::as_object);
        let names = fields.into_iter().flat_map(|fields| fields.keys().cloned());
        names.filter(|name| name != "method").collect()
    }
}

impl Default for MethodOptions {
    /// PoL on the layers of the plan.
    fn default() -> Self {
        Self::default_of(MethodName::Pol)
    }
}

impl MethodOptions {
    /// The method with its published settings.
    ///
    /// ρ is 0.05 for SAM, Friendly-SAM and LookSAM, and 0.01 for SL-SAM, its code's value for ViTs. It is 0.5 for ASAM, its paper's value for CIFAR-10, since |w|
    /// scales the step down. It is 0.5 for norm-only SAM, since norms have few parameters; the
    /// authors' code tries 0.1 to 5.
    pub fn default_of(name: MethodName) -> Self {
        let (update, perturb, line) = (None, None, LineOptions::default());
        match name {
            MethodName::Sgd => Self::Sgd { update, lora: LoraOptions::default() },
            MethodName::Pol => Self::Pol { perturb, update, line },
            MethodName::Pof => Self::Pof { line },
            MethodName::Sam => Self::Sam { update, rho: 0.05 },
            MethodName::FriendlySam => {
                Self::FriendlySam { update, rho: 0.05, friendly_sigma: 1.0, friendly_lambda: 0.9 }
            }
            MethodName::SlSam => Self::SlSam { update, rho: 0.01, active_share: 0.5 },
            MethodName::Asam => Self::Asam { update, rho: 0.5, asam_eta: 0.01 },
            MethodName::Looksam => {
                Self::Looksam { update, rho: 0.05, look_every: 5, look_alpha: 0.7 }
            }
            MethodName::SamNorm => Self::SamNorm { update, rho: 0.5 },
        }
    }

    /// PoL on these layers.
    pub fn pol(perturb: &str, update: &str) -> Self {
        let (perturb, update) = (Some(perturb.to_owned()), Some(update.to_owned()));
        Self::Pol { perturb, update, line: LineOptions::default() }
    }

    /// SGD on these layers.
    pub fn sgd(update: &str) -> Self {
        Self::Sgd { update: Some(update.to_owned()), lora: LoraOptions::default() }
    }

    /// Its name.
    pub fn name(&self) -> MethodName {
        match self {
            Self::Sgd { .. } => MethodName::Sgd,
            Self::Pol { .. } => MethodName::Pol,
            Self::Pof { .. } => MethodName::Pof,
            Self::Sam { .. } => MethodName::Sam,
            Self::FriendlySam { .. } => MethodName::FriendlySam,
            Self::SlSam { .. } => MethodName::SlSam,
            Self::Asam { .. } => MethodName::Asam,
            Self::Looksam { .. } => MethodName::Looksam,
            Self::SamNorm { .. } => MethodName::SamNorm,
        }
    }

    /// u, if set.
    pub fn update(&self) -> Option<&str> {
        match self {
            Self::Pof { .. } => None,
            Self::Sgd { update, .. }
            | Self::Pol { update, .. }
            | Self::Sam { update, .. }
            | Self::FriendlySam { update, .. }
            | Self::SlSam { update, .. }
            | Self::Asam { update, .. }
            | Self::Looksam { update, .. }
            | Self::SamNorm { update, .. } => update.as_deref(),
        }
    }

    /// p, if set.
    pub fn perturb(&self) -> Option<&str> {
        match self {
            Self::Pol { perturb, .. } => perturb.as_deref(),
            _ => None,
        }
    }

    /// The adapters that are trained instead of u; none for other methods than SGD.
    pub fn lora(&self) -> LoraOptions {
        match self {
            Self::Sgd { lora, .. } => lora.clone(),
            _ => LoraOptions::default(),
        }
    }

    /// The variant of SAM and its ρ; `None` for other methods.
    pub fn ascent(&self) -> Option<(Variant, f64)> {
        Some(match *self {
            Self::Sam { rho, .. } => (Variant::Plain, rho),
            Self::FriendlySam { rho, friendly_sigma, friendly_lambda, .. } => {
                (Variant::Friendly { sigma: friendly_sigma, lambda: friendly_lambda }, rho)
            }
            Self::Asam { rho, asam_eta, .. } => (Variant::Adaptive { eta: asam_eta }, rho),
            Self::Looksam { rho, look_every, look_alpha, .. } => {
                (Variant::Look { every: look_every, alpha: look_alpha }, rho)
            }
            Self::SamNorm { rho, .. } => (Variant::Norms, rho),
            Self::Sgd { .. } | Self::Pol { .. } | Self::Pof { .. } | Self::SlSam { .. } => {
                return None;
            }
        })
    }

    /// Rejects values out of range.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Sgd { lora, .. } => lora.check(),
            Self::Pol { line, .. } | Self::Pof { line } => {
                check::count("perturb_batch", line.perturb_batch)?;
                check::positive("gamma", line.gamma)
            }
            Self::Sam { rho, .. } | Self::SamNorm { rho, .. } => check::positive("rho", *rho),
            Self::FriendlySam { rho, friendly_sigma, friendly_lambda, .. } => {
                check::positive("rho", *rho)?;
                check::not_negative("friendly_sigma", *friendly_sigma)?;
                check::share("friendly_lambda", *friendly_lambda)
            }
            Self::SlSam { rho, active_share, .. } => {
                check::positive("rho", *rho)?;
                check::up_to_one("active_share", *active_share)
            }
            Self::Asam { rho, asam_eta, .. } => {
                check::positive("rho", *rho)?;
                check::positive("asam_eta", *asam_eta)
            }
            Self::Looksam { rho, look_every, look_alpha, .. } => {
                check::positive("rho", *rho)?;
                check::count("look_every", *look_every)?;
                check::not_negative("look_alpha", *look_alpha)
            }
        }
    }
}

/// The error for an option that the method does not read. Names the methods that do.
pub fn no_effect(option: &str) -> Error {
    let of = MethodName::ALL.into_iter().filter(|m| m.options().iter().any(|o| o == option));
    let of: Vec<&str> = of.map(MethodName::name).collect();
    let word = if of.len() == 1 { "method" } else { "methods" };
    let applies_to = format!("the {word} {}", of.join(", "));
    Error::NoEffect { option: option.into(), applies_to }
}

/// Which weights to keep: as requested, or by default the best if there are validation images and
/// the last otherwise.
///
/// # Errors
/// The best are requested without validation images.
pub fn keep_or_default(asked: Option<Keep>, has_validation: bool) -> Result<Keep, Error> {
    match (asked, has_validation) {
        (Some(Keep::Best), false) => Err(Error::Conflict(
            "`keep` best: expected validation images, found none; add validation images, or set \
             `keep` to last"
                .into(),
        )),
        (Some(keep), _) => Ok(keep),
        (None, true) => Ok(Keep::Best),
        (None, false) => Ok(Keep::Last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::take;
    use serde_json::{Map, json};

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn methods_name_their_options() {
        let line = ["perturb_batch", "gamma", "step", "no_minimum", "perturb_replacement"];
        assert_eq!(MethodName::Pol.options(), [&["perturb", "update"][..], &line].concat());
        assert_eq!(MethodName::Pof.options(), line);
        assert_eq!(MethodName::Sgd.options()[..3], ["update", "lora", "lora_alpha"]);
        assert_eq!(MethodName::Asam.options(), ["update", "rho", "asam_eta"]);
    }

    #[test]
    fn methods_round_trip_through_json() {
        for name in MethodName::ALL {
            let method = MethodOptions::default_of(name);
            let text = serde_json::to_string(&method).unwrap();
            assert_eq!(serde_json::from_str::<MethodOptions>(&text).unwrap(), method, "{text}");
            assert_eq!((method.name(), MethodName::named(name.name())), (name, Some(name)));
        }
    }

    #[test]
    fn rejects_values_out_of_range() {
        let with = |value| {
            let train = take::<TrainOptions>(&mut given(value))?;
            train.check()
        };
        assert_eq!(with(json!({ "lr": 0.1, "gamma": 3, "augment": "flip" })), Ok(()));
        let refused = |value, option: &str| {
            let error = with(value).unwrap_err();
            assert!(matches!(&error, Error::Value { option: o, .. } if o == option), "{error}");
        };
        refused(json!({ "lr": 0 }), "lr");
        refused(json!({ "epochs": 0 }), "epochs");
        refused(json!({ "momentum": 1 }), "momentum");
        refused(json!({ "clip": -1 }), "clip");
        refused(json!({ "epochs": 2, "warmup": 3 }), "warmup");
        refused(json!({ "batch_size": 4, "accumulate": 5 }), "accumulate");
        refused(json!({ "schedule": "sine" }), "schedule");
        let twice = with(json!({ "micro_batch": 2, "accumulate": 2 }));
        assert!(matches!(twice, Err(Error::Conflict(_))));
        assert!(matches!(with(json!({ "views": 2 })), Err(Error::NoEffect { .. })));
    }
}
