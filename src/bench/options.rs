//! Options of a bench.

use crate::cache::CacheOptions;
use crate::options::Error;
use crate::train::{MethodArgs, MethodName, PresetOptions, TrainArgs};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Upper limit of `seeds`. A larger number is probably a typing error.
const MAX_SEEDS: u64 = 1000;

/// A method to compare with its control, plain SGD on the same layers: every [`MethodName`], and `pol-head`,
/// PoL with the head as p. `sgd` is compared with its adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BenchMethod {
    /// The method.
    pub method: MethodName,
    /// Whether PoL perturbs the head instead of the layer in the plan.
    pub perturbs_head: bool,
}

impl BenchMethod {
    /// All of them.
    pub const ALL: [BenchMethod; 10] = [
        Self::of(MethodName::Pof),
        Self::of(MethodName::Pol),
        Self::POL_HEAD,
        Self::of(MethodName::Sam),
        Self::of(MethodName::FriendlySam),
        Self::of(MethodName::SlSam),
        Self::of(MethodName::Asam),
        Self::of(MethodName::Looksam),
        Self::of(MethodName::SamNorm),
        Self::of(MethodName::Sgd),
    ];

    /// PoL with the head as p.
    pub const POL_HEAD: BenchMethod = Self { method: MethodName::Pol, perturbs_head: true };

    const fn of(method: MethodName) -> Self {
        Self { method, perturbs_head: false }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        if self.perturbs_head { "pol-head" } else { self.method.name() }
    }

    /// Whether a plan names layers of it that the options do not name.
    pub fn is_planned(self, named: &MethodArgs) -> bool {
        let MethodArgs { perturb, update, .. } = named;
        match self.method {
            MethodName::Pol => update.is_none() || perturb.is_none() && !self.perturbs_head,
            MethodName::Sgd => update.is_none(),
            _ => false,
        }
    }
}

impl From<BenchMethod> for String {
    fn from(method: BenchMethod) -> String {
        method.name().into()
    }
}

impl TryFrom<String> for BenchMethod {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let known = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|method| method.name() == name);
        found.ok_or_else(|| Error::value("methods", format!("names from {known}"), name))
    }
}

#[cfg(feature = "cli")]
impl clap::ValueEnum for BenchMethod {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let value = clap::builder::PossibleValue::new(self.name());
        match (self.perturbs_head, self.method) {
            (true, _) => Some(value.help("pol, with the head perturbed")),
            (false, MethodName::Sgd) => Some(value.help("train low-rank adapters; needs --lora")),
            (false, method) => method.to_possible_value(),
        }
    }
}

/// Options of a bench. These are also the flags of `bench`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct BenchOptions {
    /// Methods to run, each with its control [default: the preset's, else pof,pol,pol-head]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, value_delimiter = ',', help_heading = "Bench options")
    )]
    pub methods: Option<Vec<BenchMethod>>,
    /// Published settings.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub preset: PresetOptions,
    /// Number of training seeds; fewer than three give no verdict
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N", default_value_t = Self::default().seeds, help_heading = "Bench options"
    ))]
    pub seeds: u64,
    /// Take layers that --update and --perturb do not set from this `diagnose` report [default: diagnose
    /// first]
    #[cfg_attr(feature = "cli", arg(long, value_name = "REPORT", help_heading = "Bench options"))]
    pub plan: Option<PathBuf>,
    /// Number of validation images for the diagnosis [default: all]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "N", help_heading = "Bench options", hide_short_help = true)
    )]
    pub samples: Option<usize>,
    /// Number of validation images for ΔL and κ before and after tuning. [default: all, or --samples]
    ///
    /// The first seed measures ΔL and κ of the perturbed and updated layers before and after. 0
    /// turns this off.
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "N", help_heading = "Advanced options", hide_short_help = true)
    )]
    pub remeasure: Option<usize>,
    /// Options of the methods; each applies to the methods that read it.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub of_methods: MethodArgs,
    /// Training options.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub train: TrainArgs,
    /// Where frozen activations are kept.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub cache: CacheOptions,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            methods: None,
            preset: PresetOptions::default(),
            seeds: 5,
            plan: None,
            samples: None,
            remeasure: None,
            of_methods: MethodArgs::default(),
            train: TrainArgs::default(),
            cache: CacheOptions::default(),
        }
    }
}

impl BenchOptions {
    /// Rejects values out of range, and options that no selected method reads.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> Result<(), Error> {
        self.preset.train(&self.train).check()?;
        self.cache.check()?;
        let methods = self.methods();
        let names: Vec<MethodName> = methods.iter().map(|own| own.method).collect();
        self.of_methods.check_read_by(&names)?;
        self.of_methods.lora.check()?;
        let pol = |own: &BenchMethod| own.method == MethodName::Pol && !own.perturbs_head;
        if self.of_methods.perturb.is_some() && !methods.iter().any(pol) {
            let (option, applies_to) = ("perturb".into(), "the method pol".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        if names.contains(&MethodName::Sgd) && self.of_methods.lora.lora.is_none() {
            let text = "`methods`: sgd always runs, as the control; remove it from the list. To compare low-rank \
                        adapters with sgd, set `lora`. To run sgd alone, use `planish post-train` with \
                        `method` sgd";
            return Err(Error::Conflict(text.into()));
        }
        if self.plan.is_some() && !self.needs_plan() {
            let text = "`plan` has no effect, because the methods and the given layers leave nothing to choose; \
                        remove `plan`, or the option that names the layers";
            return Err(Error::Conflict(text.into()));
        }
        match (1..=MAX_SEEDS).contains(&self.seeds) {
            true => Ok(()),
            false => Err(Error::value("seeds", format!("1 to {MAX_SEEDS}"), self.seeds)),
        }
    }

    /// The methods: the given ones, else the preset's, else three that perturb one layer.
    pub fn methods(&self) -> Vec<BenchMethod> {
        match (&self.methods, self.preset.preset) {
            (Some(methods), _) => methods.clone(),
            (None, Some(preset)) => vec![BenchMethod::of(preset.method())],
            (None, None) => BenchMethod::ALL[..3].to_vec(),
        }
    }

    /// Whether a plan names layers of a method.
    pub(super) fn needs_plan(&self) -> bool {
        self.methods().iter().any(|method| method.is_planned(&self.of_methods))
    }

    /// The training seeds, the first of which is `seed`.
    pub fn seeds(&self, seed: u64) -> Vec<u64> {
        (0..self.seeds).map(|i| seed.wrapping_add(i)).collect()
    }

    /// Number of images on which the first seed measures ΔL and κ again.
    pub(super) fn remeasured(&self) -> usize {
        self.remeasure.or(self.samples).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{AscentArgs, LoraOptions, Preset};

    #[test]
    fn methods_have_names() {
        for method in BenchMethod::ALL {
            assert_eq!(BenchMethod::try_from(String::from(method)), Ok(method));
        }
        let of = |name| BenchMethod::ALL.iter().any(|own| own.method == name);
        assert!(MethodName::ALL.into_iter().all(of));
        let error = BenchMethod::try_from("sdg".to_owned()).unwrap_err().to_string();
        assert!(error.contains("pof, pol, pol-head, sam") && error.contains("sdg"), "{error}");
        let preset = PresetOptions { preset: Some(Preset::Pol) };
        let of_preset = BenchOptions { preset, ..BenchOptions::default() };
        assert_eq!(of_preset.methods(), [BenchMethod::of(MethodName::Pol)]);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn the_flags_have_the_same_defaults() {
        use clap::Parser;
        #[derive(Parser)]
        struct Command {
            #[command(flatten)]
            options: BenchOptions,
        }
        assert_eq!(Command::parse_from(["x"]).options, BenchOptions::default());
    }

    #[test]
    fn rejects_options_without_effect() {
        let with = |methods: &[BenchMethod], of_methods: MethodArgs| {
            let methods = Some(methods.to_vec());
            BenchOptions { methods, of_methods, ..BenchOptions::default() }.check()
        };
        let perturb = || MethodArgs { perturb: Some("head".into()), ..MethodArgs::default() };
        assert_eq!(with(&BenchMethod::ALL[..9], perturb()), Ok(()));
        let refused = with(&[BenchMethod::POL_HEAD], perturb());
        assert!(matches!(refused, Err(Error::NoEffect { .. })));
        let rho = MethodArgs { ascent: AscentArgs::of_rho(0.1), ..MethodArgs::default() };
        assert!(matches!(with(&[BenchMethod::POL_HEAD], rho), Err(Error::NoEffect { .. })));
        // SGD is a method of its own only with adapters.
        let sgd = [BenchMethod::of(MethodName::Sgd)];
        let lora = |lora| MethodArgs { lora, ..MethodArgs::default() };
        assert!(matches!(with(&sgd, MethodArgs::default()), Err(Error::Conflict(_))));
        let rank = LoraOptions { lora: Some(2), ..LoraOptions::default() };
        assert_eq!(with(&sgd, lora(rank.clone())), Ok(()));
        let refused = with(&BenchMethod::ALL[..9], lora(rank));
        assert!(matches!(refused, Err(Error::NoEffect { option, .. }) if option == "lora"));
        let named = MethodArgs { update: Some("norm".into()), ..MethodArgs::default() };
        let plan = BenchOptions {
            methods: Some(vec![BenchMethod::POL_HEAD]),
            of_methods: named,
            plan: Some("plan.json".into()),
            ..BenchOptions::default()
        };
        assert!(matches!(plan.check(), Err(Error::Conflict(_))));
        let none = BenchOptions { seeds: 0, ..BenchOptions::default() };
        assert_eq!(none.check(), Err(Error::value("seeds", "1 to 1000", 0)));
    }
}
