//! A method with its layers and settings, independent of the data.

use super::Result;
use super::lora_options::LoraOptions;
use super::method::Method;
use super::method_args::{AscentArgs, MethodArgs};
use super::options::MethodName;
use super::perturbation::{NoMinimum, Perturber, StepRule};
use super::pof::Pof;
use super::pol::Pol;
use super::sam::{Sam, Variant};
use super::sgd::Sgd;
use super::sl_sam::SlSam;
use crate::forecast::{Perturbing, step_work};
use crate::models::{Layer, Network};
use crate::random::{stream, unit};
use serde::Serialize;

/// A method as it is computed: SAM's variants are one method with different ascent steps. Users choose it
/// by [`MethodOptions`](super::MethodOptions).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedMethod {
    /// Perturb p, update u.
    Pol,
    /// Perturb the head, update all other layers.
    Pof,
    /// Ascent step and update on the same layers.
    Sam(Variant),
    /// SAM on tensors that a bandit draws.
    SlSam {
        /// Mean share of tensors drawn.
        share: f64,
    },
    /// Update u without a perturbation.
    Sgd,
}

impl ResolvedMethod {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        self.method_name().name()
    }

    /// The method that users choose.
    pub fn method_name(self) -> MethodName {
        match self {
            ResolvedMethod::Pol => MethodName::Pol,
            ResolvedMethod::Pof => MethodName::Pof,
            ResolvedMethod::Sam(Variant::Plain) => MethodName::Sam,
            ResolvedMethod::Sam(Variant::Adaptive { .. }) => MethodName::Asam,
            ResolvedMethod::Sam(Variant::Friendly { .. }) => MethodName::FriendlySam,
            ResolvedMethod::Sam(Variant::Look { .. }) => MethodName::Looksam,
            ResolvedMethod::Sam(Variant::Norms) => MethodName::SamNorm,
            ResolvedMethod::SlSam { .. } => MethodName::SlSam,
            ResolvedMethod::Sgd => MethodName::Sgd,
        }
    }
}

/// A method with all its settings.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The method.
    pub method: ResolvedMethod,
    /// The layer to update.
    pub update: Layer,
    /// The layer to perturb down its own batch's gradient; `None` for SAM and SGD.
    pub perturb: Option<Layer>,
    /// Γ.
    pub gamma: f64,
    /// Examples in B′.
    pub perturb_batch: usize,
    /// How η* is found.
    pub rule: StepRule,
    /// What happens without a minimum.
    pub no_minimum: NoMinimum,
    /// Whether B′ is drawn with replacement.
    pub perturb_replacement: bool,
    /// ρ of SAM and SL-SAM.
    pub rho: f64,
    /// Adapters of the linear layers of `update`, trained instead of it.
    pub lora: LoraOptions,
}

/// Default step rule: one Hessian-vector product if a point of the line costs a forward pass of
/// much of the network, else a line search.
pub fn default_rule(network: &Network, perturb: &Layer) -> StepRule {
    match perturb.first_stage < network.last_block().first_stage {
        true => StepRule::Newton,
        false => StepRule::Search,
    }
}

impl Recipe {
    /// The control: plain SGD on the same layers.
    pub fn control(&self) -> Recipe {
        Recipe {
            method: ResolvedMethod::Sgd,
            perturb: None,
            rho: 0.0,
            lora: LoraOptions::default(),
            ..self.clone()
        }
    }

    /// Whether it is plain SGD, the control of others.
    pub fn is_control(&self) -> bool {
        self.method == ResolvedMethod::Sgd && self.lora.lora.is_none()
    }

    /// The lowest stage that is touched. All stages below are frozen.
    pub fn first_stage(&self) -> usize {
        let perturbed = self.perturb.as_ref().map_or(usize::MAX, |p| p.first_stage);
        self.update.first_stage.min(perturbed)
    }

    /// The options that lead to this recipe, with layers and defaults filled in. PoF, whose layers
    /// are not options, names them too.
    pub fn args(&self) -> MethodArgs {
        let perturbed = self.perturb.as_ref();
        let of_layers = MethodArgs {
            perturb: perturbed.map(|p| p.name.clone()),
            update: Some(self.update.name.clone()),
            perturb_batch: perturbed.map(|_| self.perturb_batch),
            gamma: perturbed.map(|_| self.gamma),
            step: perturbed.map(|_| self.rule),
            no_minimum: perturbed.map(|_| self.no_minimum),
            perturb_replacement: perturbed.map(|_| self.perturb_replacement),
            lora: self.lora.clone(),
            ..MethodArgs::default()
        };
        let sam = || MethodArgs { ascent: AscentArgs::of_rho(self.rho), ..of_layers.clone() };
        let variant = match self.method {
            ResolvedMethod::Sam(variant) => variant,
            ResolvedMethod::SlSam { share } => {
                return MethodArgs { active_share: Some(share), ..sam() };
            }
            _ => return of_layers,
        };
        let sam = sam();
        match variant {
            Variant::Plain | Variant::Norms => sam,
            Variant::Friendly { sigma, lambda } => {
                let (friendly_sigma, friendly_lambda) = (Some(sigma), Some(lambda));
                MethodArgs {
                    ascent: AscentArgs { friendly_sigma, friendly_lambda, ..sam.ascent },
                    ..sam
                }
            }
            Variant::Adaptive { eta } => MethodArgs { asam_eta: Some(eta), ..sam },
            Variant::Look { every, alpha } => {
                MethodArgs { look_every: Some(every), look_alpha: Some(alpha), ..sam }
            }
        }
    }

    /// Floating-point operations of a step per image of B, which has `batch` examples.
    pub fn work(&self, network: &Network, batch: usize) -> f64 {
        let perturbing = match (self.method, &self.perturb) {
            (ResolvedMethod::Sam(variant), _) => Perturbing::Ascent {
                share: variant.ascent_share(),
                norms: variant == Variant::Norms,
            },
            // As if all tensors were drawn: the memory of a step is that of the largest.
            (ResolvedMethod::SlSam { .. }, _) => Perturbing::Ascent { share: 1.0, norms: false },
            (_, Some(layer)) => Perturbing::Line {
                layer,
                newton: self.rule == StepRule::Newton,
                ratio: self.perturb_batch as f64 / batch.max(1) as f64,
            },
            (_, None) => Perturbing::Nothing,
        };
        step_work(network, &self.update, perturbing)
    }

    /// Period after which the kinds of steps repeat: LookSAM takes an ascent step only at every
    /// k-th step.
    pub fn period(&self) -> usize {
        match self.method {
            ResolvedMethod::Sam(Variant::Look { every, .. }) => every.max(1),
            _ => 1,
        }
    }

    /// The method, ready to draw from `examples` training examples.
    ///
    /// # Errors
    /// A batch B′ of size 0 or larger than the training set; norm-only SAM on layers without a
    /// norm.
    pub fn build(&self, network: &Network, examples: usize, seed: u64) -> Result<Box<dyn Method>> {
        let update = self.update.clone();
        if let ResolvedMethod::Sam(variant) = self.method {
            return Ok(Box::new(Sam::new(network, update, variant, self.rho)?));
        }
        if let ResolvedMethod::SlSam { share } = self.method {
            let mut rng = stream(seed, "layers");
            let uniform = move || unit(&mut rng);
            return Ok(Box::new(SlSam::new(network, update, self.rho, share, uniform)));
        }
        let Some(perturb) = &self.perturb else { return Ok(Box::new(Sgd { update })) };
        let mut perturber = Perturber::new(
            perturb.clone(),
            self.gamma,
            self.rule,
            examples,
            self.perturb_batch.min(examples),
            seed,
        )?;
        perturber.no_minimum = self.no_minimum;
        if self.perturb_replacement {
            perturber = perturber.with_replacement();
        }
        Ok(match self.method {
            ResolvedMethod::Pof => Box::new(Pof { features: update, perturber }),
            _ => Box::new(Pol { update, perturber }),
        })
    }
}
