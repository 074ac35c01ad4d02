//! Options of a bench.

use crate::cache::CacheOptions;
use crate::options::Error;
use crate::train::{MethodArgs, MethodName, PresetOptions, TrainOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Upper limit of `seeds`. A larger number is probably a typing error.
const MAX_SEEDS: u64 = 1000;

/// A method to compare with its control: every [`MethodName`] but `sgd`, which is the control, and
/// `pol-head`, PoL with the head as p.
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
    pub const ALL: [BenchMethod; 9] = [
        Self::of(MethodName::Pof),
        Self::of(MethodName::Pol),
        Self::POL_HEAD,
        Self::of(MethodName::Sam),
        Self::of(MethodName::FriendlySam),
        Self::of(MethodName::SlSam),
        Self::of(MethodName::Asam),
        Self::of(MethodName::Looksam),
        Self::of(MethodName::SamNorm),
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

    /// Whether it needs a plan.
    pub fn is_planned(self) -> bool {
        self.method == MethodName::Pol
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
        found.ok_or_else(|| match name == MethodName::Sgd.name() {
            true => Error::Conflict(CONTROL.into()),
            false => Error::value("methods", format!("names from {known}"), name),
        })
    }
}

/// Why `sgd` is not a method of a bench.
const CONTROL: &str = "`methods`: sgd is the control that every method is compared with, and always runs: \
                       leave it out; to run sgd alone, use `planish post-train` with `method` sgd";

/// Reads a name of a method, and explains why `sgd` is none.
#[cfg(feature = "cli")]
#[derive(Clone)]
struct BenchMethodParser;

#[cfg(feature = "cli")]
impl clap::builder::TypedValueParser for BenchMethodParser {
    type Value = BenchMethod;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<BenchMethod, clap::Error> {
        if value == MethodName::Sgd.name() {
            let text = CONTROL.replace('`', "");
            return Err(command.clone().error(clap::error::ErrorKind::ValueValidation, text));
        }
        clap::builder::EnumValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(
        &self,
    ) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        use clap::ValueEnum;
        let all = BenchMethod::value_variants().iter();
        Some(Box::new(all.filter_map(ValueEnum::to_possible_value)))
    }
}

#[cfg(feature = "cli")]
impl clap::ValueEnum for BenchMethod {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self.perturbs_head {
            true => {
                let value = clap::builder::PossibleValue::new(self.name());
                Some(value.help("pol, with the head perturbed"))
            }
            false => self.method.to_possible_value(),
        }
    }
}

/// Options of a bench. These are also the flags of `bench`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(
    feature = "cli",
    derive(clap::Args),
    command(mut_args(crate::train::preset::with_defaults))
)]
pub struct BenchOptions {
    /// Methods to run, each with its control
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_parser = BenchMethodParser,
            value_delimiter = ',',
            default_value = "pof,pol,pol-head",
            default_value_ifs([("preset", "pof2022", "pof"), ("preset", "pol", "pol")]),
            help_heading = "Bench options"
        )
    )]
    pub methods: Vec<BenchMethod>,
    /// Published settings. In `train` they are filled in already.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub preset: PresetOptions,
    /// Number of training seeds; fewer than three give no verdict
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N", default_value_t = Self::default().seeds, help_heading = "Bench options"
    ))]
    pub seeds: u64,
    /// Use the plan of this `diagnose` report for PoL [default: diagnose first]
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
    pub train: TrainOptions,
    /// Where frozen activations are kept.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub cache: CacheOptions,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            methods: BenchMethod::ALL[..3].to_vec(),
            preset: PresetOptions::default(),
            seeds: 5,
            plan: None,
            samples: None,
            remeasure: None,
            of_methods: MethodArgs::default(),
            train: TrainOptions::default(),
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
        self.train.check()?;
        self.cache.check()?;
        let MethodArgs { perturb, update, .. } = &self.of_methods;
        let methods: Vec<MethodName> = self.methods.iter().map(|own| own.method).collect();
        self.of_methods.check_read_by(&methods)?;
        if perturb.is_some() && self.methods.iter().all(|m| !m.is_planned() || m.perturbs_head) {
            let (option, applies_to) = ("perturb".into(), "the method pol".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        if self.plan.is_some() && perturb.is_some() && update.is_some() {
            let text = "`plan` has no effect, because `perturb` and `update` name both layers; \
                        remove one of the three";
            return Err(Error::Conflict(text.into()));
        }
        match (1..=MAX_SEEDS).contains(&self.seeds) {
            true => Ok(()),
            false => Err(Error::value("seeds", format!("1 to {MAX_SEEDS}"), self.seeds)),
        }
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
    use crate::train::AscentArgs;

    #[test]
    fn methods_have_names() {
        for method in BenchMethod::ALL {
            assert_eq!(BenchMethod::try_from(String::from(method)), Ok(method));
        }
        let of = |name| BenchMethod::ALL.iter().any(|own| own.method == name);
        assert!(MethodName::ALL.into_iter().all(|name| of(name) == (name != MethodName::Sgd)));
        let error = BenchMethod::try_from("sgd".to_owned()).unwrap_err().to_string();
        assert!(error.contains("sgd is the control") && error.contains("post-train"), "{error}");
        let error = BenchMethod::try_from("adam".to_owned()).unwrap_err().to_string();
        assert!(error.contains("pof, pol, pol-head, sam") && error.contains("adam"), "{error}");
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
            let methods = methods.to_vec();
            BenchOptions { methods, of_methods, ..BenchOptions::default() }.check()
        };
        let perturb = || MethodArgs { perturb: Some("head".into()), ..MethodArgs::default() };
        assert_eq!(with(&BenchMethod::ALL, perturb()), Ok(()));
        let refused = with(&[BenchMethod::POL_HEAD], perturb());
        assert!(matches!(refused, Err(Error::NoEffect { .. })));
        let rho = MethodArgs { ascent: AscentArgs::of_rho(0.1), ..MethodArgs::default() };
        assert!(matches!(with(&[BenchMethod::POL_HEAD], rho), Err(Error::NoEffect { .. })));
        let none = BenchOptions { seeds: 0, ..BenchOptions::default() };
        assert_eq!(none.check(), Err(Error::value("seeds", "1 to 1000", 0)));
    }
}
