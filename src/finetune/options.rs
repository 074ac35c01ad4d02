//! Options of fine-tuning.

use crate::checkpoint::Load;
use crate::data::{FinetuneSubset, OnBadSample};
use crate::options::{Error, as_text, check};
use crate::train::{
    AscentArgs, Keep, L2Sp, LoraOptions, MethodArgs, MethodName, MethodOptions, OptimizerRule,
    TrainArgs, TrainOptions,
};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;

/// All options of fine-tuning except the seed. These are also the flags of `finetune`.
///
/// Fine-tuning has other defaults than post-training: [`FinetuneOptions::training`] fills in its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(
    feature = "cli",
    derive(clap::Args),
    command(
        group = clap::ArgGroup::new("model").required(true),
        mut_arg("epochs", |arg| arg.help("Passes over the training images [default: 10]")),
        mut_arg("batch_size", |arg| arg.visible_alias("batch")),
        mut_arg("lr", |arg| arg.help("Highest learning rate [default: 0.05 for sgd, 0.001 for adamw]")),
        mut_arg("momentum", |arg| arg.help("Momentum of sgd [default: 0.9]")),
        mut_arg("nesterov", |arg| arg.help("Nesterov momentum of sgd: on, or off [default: on]")),
        mut_arg("rho", |arg| arg.help("ρ: length of SAM's ascent step [default: 0.05]")),
        mut_args(|arg| match arg.get_id().as_str() {
            "rho" | "friendly_sigma" | "friendly_lambda" => arg.help_heading("Training options"),
            _ => arg,
        }),
        mut_arg("weight_decay", |arg| {
            arg.help("Weight decay, on every tensor unless --decay-all off [default: 0]")
        }),
    )
)]
pub struct FinetuneOptions {
    /// Architecture of a new model, such as vit_nano_patch7_28
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "NAME", group = "model", help_heading = "Model options")
    )]
    pub arch: Option<String>,
    /// Checkpoint to start from
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "CKPT", group = "model", help_heading = "Model options")
    )]
    pub from: Option<PathBuf>,
    /// Output: a folder, or a .safetensors file
    #[cfg_attr(feature = "cli", arg(long, value_name = "NEW", help_heading = "Model options"))]
    pub out: PathBuf,
    /// Replace the head with a new one, even if the checkpoint's head fits
    #[cfg_attr(feature = "cli", arg(long, requires = "from", help_heading = "Model options"))]
    pub reset_head: bool,
    /// Settings missing from the checkpoint, or the normalisation of a new model.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub load: Load,
    /// Images: class folders, a CSV file, Parquet files, tar archives, an IDX or CIFAR folder, or tensors:FILE or FOLDER; repeatable
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "D", required = true, help_heading = "Data options")
    )]
    #[serde(with = "crate::data::sources")]
    pub data: Vec<String>,
    /// Train on images A to B - 1 of the training split, in stored order
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "A..B", value_parser = crate::options::text::range,
        help_heading = "Data options"
    ))]
    pub train_range: Option<Range<usize>>,
    /// Train on N images, in proportion to the classes
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", help_heading = "Data options"))]
    pub train_samples: Option<usize>,
    /// Fraction of the training split held out for validation [default: 0.1, or 0 with a split `val`]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F", help_heading = "Data options"))]
    pub val_fraction: Option<f64>,
    /// What to do with an image file that cannot be decoded.
    ///
    /// `fail` stops with an error. `skip` decodes all files before the run and leaves out bad ones, with a
    /// note. A JPEG file with damaged data counts as bad for `skip`; `fail` uses it as decoded, with
    /// a note.
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_enum,
            value_name = "fail|skip",
            default_value = "fail",
            hide_possible_values = true,
            help_heading = "Data options"
        )
    )]
    pub on_bad_sample: OnBadSample,
    /// Optimizer
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "sgd|adamw",
            default_value = "sgd",
            help_heading = "Training options"
        )
    )]
    pub optimizer: OptimizerName,
    /// Options that post-training has, too.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub train: TrainArgs,
    /// Train the head alone for this many epochs first, on features that are computed once (LP-FT).
    ///
    /// A new head starts at random values, and its first gradients would disturb pretrained layers.
    /// This phase uses the images without augmentation.
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "EPOCHS",
            default_value_t = 0,
            hide_default_value = true,
            help_heading = "Training options"
        )
    )]
    pub head_first: usize,
    /// Train the last EPOCHS epochs with SAM.
    ///
    /// A few final epochs of SAM work nearly as well as SAM throughout. In these epochs, each step
    /// computes two gradients.
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "EPOCHS",
            default_value_t = 0,
            hide_default_value = true,
            help_heading = "Training options"
        )
    )]
    pub sam_last: usize,
    /// Method of --sam-last
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "sam|friendly-sam",
            default_value = "sam",
            hide_possible_values = true,
            help_heading = "Training options",
            hide_short_help = true
        )
    )]
    pub sam_variant: SamVariant,
    /// The ascent step of SAM.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub ascent: AscentArgs,
    /// Penalty α/2 ‖w − w⁰‖² on the distance from `--from`, and β/2 ‖w‖² on the head (L2-SP)
    #[serde(with = "as_text::option")]
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "ALPHA,BETA",
            help_heading = "Training options",
            hide_short_help = true
        )
    )]
    pub l2_sp: Option<L2Sp>,
    /// Multiply the learning rate by D for each layer below the head
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "D",
            allow_negative_numbers = true,
            help_heading = "Training options",
            hide_short_help = true,
            conflicts_with = "auto_rgn"
        )
    )]
    pub layer_decay: Option<f64>,
    /// Scale the learning rate of each layer by ‖g‖/‖w‖, relative to the largest (Auto-RGN)
    #[cfg_attr(
        feature = "cli",
        arg(long, help_heading = "Training options", hide_short_help = true)
    )]
    pub auto_rgn: bool,
    /// Weights to keep: best (lowest validation loss) or last [default: best with validation images,
    /// else last]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "best|last", help_heading = "Training options")
    )]
    pub keep: Option<Keep>,
    /// Layers whose linear layers get adapters: names or globs, comma-separated [default: all blocks]
    #[cfg_attr(feature = "cli", arg(long, value_name = "L", help_heading = "Adapter options"))]
    pub layers: Option<String>,
    /// Low-rank adapters.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub lora: LoraOptions,
    /// Overwrite an existing checkpoint
    #[cfg_attr(feature = "cli", arg(long, help_heading = "Advanced options"))]
    pub force: bool,
}

/// Methods of a late phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum SamVariant {
    /// SAM.
    #[default]
    Sam,
    /// Friendly-SAM.
    FriendlySam,
}

impl SamVariant {
    /// The method.
    pub fn method(self) -> MethodName {
        match self {
            SamVariant::Sam => MethodName::Sam,
            SamVariant::FriendlySam => MethodName::FriendlySam,
        }
    }
}

/// Names of the optimizers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum OptimizerName {
    /// Stochastic gradient descent.
    #[default]
    Sgd,
    /// Adam with decoupled weight decay.
    Adamw,
}

impl OptimizerName {
    /// Name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adamw => "adamw",
        }
    }

    /// Default learning rate.
    pub fn lr(self) -> f64 {
        match self {
            Self::Sgd => 0.05,
            Self::Adamw => 0.001,
        }
    }
}

impl Default for FinetuneOptions {
    fn default() -> Self {
        Self {
            arch: None,
            from: None,
            out: PathBuf::new(),
            reset_head: false,
            load: Load::default(),
            data: Vec::new(),
            train_range: None,
            train_samples: None,
            val_fraction: None,
            on_bad_sample: OnBadSample::Fail,
            optimizer: OptimizerName::default(),
            train: TrainArgs::default(),
            head_first: 0,
            sam_last: 0,
            sam_variant: SamVariant::default(),
            ascent: AscentArgs::default(),
            l2_sp: None,
            layer_decay: None,
            auto_rgn: false,
            keep: None,
            layers: None,
            lora: LoraOptions::default(),
            force: false,
        }
    }
}

impl FinetuneOptions {
    /// Rejects values out of range and options that have no effect.
    ///
    /// # Errors
    /// The first invalid option.
    pub fn check(&self) -> Result<(), Error> {
        if self.arch.is_some() == self.from.is_some() {
            let text = "expected one of `arch`, for a new model, and `from`, for a checkpoint";
            return Err(Error::Conflict(text.into()));
        }
        if self.reset_head && self.from.is_none() {
            let (option, applies_to) = ("reset_head".into(), "a checkpoint (`from`)".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        for (option, given) in
            [("adapter", self.load.adapter.is_some()), ("lora", self.lora.lora.is_some())]
        {
            if given && self.from.is_none() {
                let applies_to = "a checkpoint (`from`)".into();
                return Err(Error::NoEffect { option: option.into(), applies_to });
            }
        }
        self.lora.check()?;
        if self.layers.is_some() && self.lora.lora.is_none() {
            let (option, applies_to) = ("layers".into(), "adapters (`lora`)".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        if let Some(range) = self.train_range.as_ref().filter(|range| range.is_empty()) {
            let found = format!("{}..{}", range.start, range.end);
            return Err(Error::value("train_range", "A..B with A less than B", found));
        }
        self.load.check()?;
        let train = self.training();
        train.check()?;
        if let (Some(_), None) = (self.l2_sp, &self.from) {
            let (option, applies_to) = ("l2_sp".into(), "a checkpoint (`from`)".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        for (option, given) in [("l2_sp", self.l2_sp.is_some()), ("auto_rgn", self.auto_rgn)] {
            if given && self.lora.lora.is_some() {
                let text = format!(
                    "`{option}` is about whole weights, and `lora` trains adapters of them: remove one of \
                     the two"
                );
                return Err(Error::Conflict(text));
            }
        }
        self.layer_decay.map_or(Ok(()), |decay| check::up_to_one("layer_decay", decay))?;
        if self.layer_decay.is_some() && self.auto_rgn {
            let text = "expected `layer_decay` or `auto_rgn`, found both; each sets the learning rates of layers: \
                        remove one";
            return Err(Error::Conflict(text.into()));
        }
        if self.head_first > 0 && self.lora.freeze_head {
            let text =
                "`head_first` trains the head, and `freeze_head` freezes it: remove one of the two";
            return Err(Error::Conflict(text.into()));
        }
        self.late()?;
        self.val_fraction.map_or(Ok(()), |fraction| check::share("val_fraction", fraction))
    }

    /// The method of the last `sam_last` epochs, if there are any.
    ///
    /// # Errors
    /// More epochs than the run has; options of SAM without such epochs, or out of range.
    pub fn late(&self) -> Result<Option<MethodOptions>, Error> {
        if self.sam_last == 0 {
            let given = [
                ("sam_variant", self.sam_variant != SamVariant::default()),
                ("rho", self.ascent.rho.is_some()),
                ("friendly_sigma", self.ascent.friendly_sigma.is_some()),
                ("friendly_lambda", self.ascent.friendly_lambda.is_some()),
            ];
            return match given.into_iter().find(|(_, given)| *given) {
                None => Ok(None),
                Some((option, _)) => {
                    let (option, applies_to) =
                        (option.into(), "epochs with SAM (`sam_last`)".into());
                    Err(Error::NoEffect { option, applies_to })
                }
            };
        }
        if self.sam_last > self.training().epochs {
            let expected = format!("at most `epochs`, {}", self.training().epochs);
            return Err(Error::value("sam_last", expected, self.sam_last));
        }
        let args = MethodArgs { ascent: self.ascent.clone(), ..MethodArgs::default() };
        args.method(self.sam_variant.method()).map(Some)
    }

    /// The training options, with the defaults of fine-tuning in place of missing ones.
    pub fn training(&self) -> TrainOptions {
        self.train.over(TrainOptions {
            epochs: 10,
            lr: self.optimizer.lr(),
            nesterov: true,
            ..TrainOptions::default()
        })
    }

    /// The same for so many training images. The default batch is cut to them, with a note.
    pub(super) fn training_on(&self, images: usize) -> (TrainOptions, Option<String>) {
        match self.train.batch_size {
            Some(_) => (self.training(), None),
            None => self.training().fitted_to(images),
        }
    }

    /// The optimizer.
    pub fn rule(&self) -> OptimizerRule {
        match self.optimizer {
            OptimizerName::Sgd => self.training().sgd(),
            OptimizerName::Adamw => OptimizerRule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        }
    }

    /// How the training images are taken from the training split if `fraction` of it is held out.
    pub fn fitted(&self, fraction: f64, seed: u64) -> FinetuneSubset {
        FinetuneSubset {
            seed,
            fraction,
            range: self.train_range.as_ref().map(|range| [range.start, range.end]),
            samples: self.train_samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Average;

    fn options() -> FinetuneOptions {
        FinetuneOptions { arch: Some("vit_nano_patch7_28".into()), ..Default::default() }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert_eq!(options().check(), Ok(()));
        let refused = |options: FinetuneOptions, option: &str| {
            let error = options.check().unwrap_err();
            assert!(matches!(&error, Error::Value { option: o, .. } if o == option), "{error}");
        };
        let train = TrainArgs { lr: Some(0.0), ..options().train };
        refused(FinetuneOptions { train, ..options() }, "lr");
        let train = TrainArgs { label_smoothing: Some(1.0), ..options().train };
        refused(FinetuneOptions { train, ..options() }, "label_smoothing");
        let train = TrainArgs { average: Some(Average::Swa(11)), ..options().train };
        refused(FinetuneOptions { train, ..options() }, "average");
        refused(FinetuneOptions { layer_decay: Some(0.0), ..options() }, "layer_decay");
        let l2_sp = Some(L2Sp { alpha: 0.1, beta: 0.1 });
        let without_effect = FinetuneOptions { l2_sp, ..options() }.check();
        assert!(matches!(without_effect, Err(Error::NoEffect { .. })));
        refused(FinetuneOptions { val_fraction: Some(1.0), ..options() }, "val_fraction");
        refused(FinetuneOptions { train_range: Some(5..5), ..options() }, "train_range");
        refused(FinetuneOptions { sam_last: 11, ..options() }, "sam_last");
        let ascent = AscentArgs::of_rho(0.0);
        refused(FinetuneOptions { sam_last: 1, ascent: ascent.clone(), ..options() }, "rho");
        let sigma = AscentArgs { friendly_sigma: Some(1.0), ..AscentArgs::default() };
        for late in [
            FinetuneOptions { ascent, ..options() },
            FinetuneOptions { sam_variant: SamVariant::FriendlySam, ..options() },
            FinetuneOptions { sam_last: 1, ascent: sigma, ..options() },
        ] {
            assert!(matches!(late.check(), Err(Error::NoEffect { .. })));
        }
        let fresh = FinetuneOptions { reset_head: true, ..options() };
        assert!(matches!(fresh.check(), Err(Error::NoEffect { .. })));
        let both = FinetuneOptions { from: Some("vit".into()), ..options() };
        for start in [both, FinetuneOptions::default()] {
            assert!(matches!(start.check(), Err(Error::Conflict(_))));
        }
    }

    #[test]
    fn options_round_trip_through_json() {
        let options = FinetuneOptions {
            train_range: Some(0..9),
            optimizer: OptimizerName::Adamw,
            train: TrainArgs { epochs: Some(3), views: Some(2), ..TrainArgs::default() },
            ..options()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<FinetuneOptions>(&text).unwrap(), options, "{text}");
    }
    #[cfg(feature = "cli")]
    #[test]
    fn defaults_of_the_command_line_are_those_of_the_struct() {
        use clap::{Args, FromArgMatches};
        let parse = |words: &[&str]| {
            let command = FinetuneOptions::augment_args(clap::Command::new("finetune"));
            let all = ["finetune", "--arch", "vit_nano_patch7_28", "--data", "", "--out", "x"];
            let found = command.try_get_matches_from([&all[..], words].concat()).unwrap();
            FinetuneOptions::from_arg_matches(&found).unwrap()
        };
        let data = vec![String::new()];
        assert_eq!(parse(&[]), FinetuneOptions { data, out: "x".into(), ..options() });
        let lr = |words: &[&str]| parse(words).training().lr;
        assert_eq!((lr(&[]), lr(&["--optimizer", "adamw"])), (0.05, 0.001));
        assert_eq!(lr(&["--lr", "0.5", "--optimizer", "adamw"]), 0.5);
        let training = FinetuneOptions::default().training();
        assert_eq!((training.epochs, training.nesterov, training.batch_size), (10, true, 128));
    }
}
