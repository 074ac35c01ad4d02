//! Options of a diagnosis.

use super::halvings::MOST_REPEATS;
use super::{Estimator, MeasureOptions, spectrum};
use crate::checkpoint::{Checkpoint, Unmerged};
use crate::data::Roles;
use crate::models::layers::{layers, select};
use crate::models::{Error as ModelError, Granularity, Layer, Network};
use crate::objective::Matrix;
use crate::options::{Error, check};
use crate::remedies::{Remedy, RemedySession};
use candle_core::DType;
use serde::{Deserialize, Serialize};

/// Default number of ways to halve V.
pub const REPEATS: usize = 5;

/// What is measured, and on how many images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Diagnosis options"))]
pub struct DiagnoseOptions {
    /// Number of validation images to use, stratified by class [default: all]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub samples: Option<usize>,
    /// Layers: names or globs, comma-separated [default: all, by --granularity]
    #[cfg_attr(feature = "cli", arg(long, value_name = "L"))]
    pub layer: Option<String>,
    /// Granularity of the layers
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, default_value = "block", conflicts_with = "layer")
    )]
    pub granularity: Granularity,
    /// Loss on which ΔL and κ are measured
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, default_value = "calibrated", hide_short_help = true)
    )]
    pub basis: Basis,
    /// Number of times to split the validation images into halves, 1 to 15; a move is found on one
    /// half and measured on the other [default: 5]
    #[cfg_attr(feature = "cli", arg(long, value_name = "R", hide_short_help = true))]
    pub repeats: Option<usize>,
    /// How each layer's Δw is found
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, default_value = "line", hide_short_help = true)
    )]
    pub estimator: EstimatorName,
    /// Trust-region radius of Newton-CG, as a fraction of the layer's weight norm [default: 0.1]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "R", allow_negative_numbers = true, hide_short_help = true)
    )]
    pub radius: Option<f64>,
    /// Maximum Hessian-vector products of Newton-CG per layer and fold [default: 20]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", hide_short_help = true))]
    pub iterations: Option<usize>,
    /// Also measure each layer's top eigenvalues, trace and effective dimension
    #[cfg_attr(feature = "cli", arg(long))]
    pub spectrum: bool,
    /// Also measure the spectral density; takes several times as long
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub density: bool,
    /// Number of top eigenvalues that `--spectrum` measures, 1 to 20 [default: 3]
    #[cfg_attr(feature = "cli", arg(long, value_name = "K", hide_short_help = true))]
    pub eigenvalues: Option<usize>,
    /// Matrix that `--spectrum` measures: the Hessian; with `ggn`, also the Gauss-Newton matrix
    #[cfg_attr(feature = "cli", arg(long, value_enum, hide_short_help = true))]
    pub operator: Option<Matrix>,
    /// Also measure on a quarter and a half of the validation images, to check whether they are enough
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub convergence: bool,
    /// Add validation images until the layer ranking is known to within this relative standard
    /// error, such as 5%
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "P", value_parser = crate::options::text::percent, conflicts_with = "convergence"
    ))]
    pub until_stderr: Option<f64>,
    /// Also move layers along other directions: towards the weights before fine-tuning
    /// (toward:CKPT0), towards 0 (decay), or along one epoch of training (train, perturbed).
    ///
    /// `toward` moves each layer alone, and also all layers, prefixes and suffixes together. The
    /// other remedies move each layer alone. `train` trains each layer with SGD for one epoch.
    /// `perturbed` does the same with PoL's perturbation of the head. For both, the step length is
    /// chosen on V. Both take settings, as in train:lr=0.03:weight-decay=0.01 or
    /// perturbed:perturb=norm.
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "toward:CKPT0,decay", value_delimiter = ',')
    )]
    pub remedies: Vec<Remedy>,
}

/// The loss that layers are measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Basis {
    /// loss after temperature scaling: ΔL is what a layer removes beyond a temperature
    #[default]
    Calibrated,
    /// loss without temperature scaling, as in the paper
    Raw,
}

impl Basis {
    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Basis::Calibrated => "calibrated",
            Basis::Raw => "raw",
        }
    }
}

/// How a layer's Δw is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum EstimatorName {
    /// first minimum along the gradient
    #[default]
    Line,
    /// Steihaug's truncated Newton-CG in a trust region
    Newton,
}

impl DiagnoseOptions {
    /// Rejects values out of range and options without effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> Result<(), Error> {
        let newton = self.estimator == EstimatorName::Newton;
        let spectrum = self.spectrum || self.density;
        for (given, read, option, with) in [
            (self.radius.is_some(), newton, "radius", "`estimator` newton"),
            (self.iterations.is_some(), newton, "iterations", "`estimator` newton"),
            (self.eigenvalues.is_some(), spectrum, "eigenvalues", "`spectrum`"),
            (self.operator.is_some(), spectrum, "operator", "`spectrum`"),
        ] {
            if given && !read {
                let (option, applies_to) = (option.into(), with.into());
                return Err(Error::NoEffect { option, applies_to });
            }
        }
        self.radius.map_or(Ok(()), |radius| check::up_to_one("radius", radius))?;
        self.iterations.map_or(Ok(()), |n| check::count("iterations", n))?;
        self.samples.map_or(Ok(()), |n| check::count("samples", n))?;
        match self.repeats {
            Some(n) if !(1..=MOST_REPEATS).contains(&n) => {
                return Err(Error::value("repeats", format!("1 to {MOST_REPEATS}"), n));
            }
            _ => {}
        }
        match self.eigenvalues {
            Some(n) if !(1..=20).contains(&n) => Err(Error::value("eigenvalues", "1 to 20", n)),
            _ => Ok(()),
        }
    }

    /// The layers to measure.
    ///
    /// # Errors
    /// A name that matches no layer.
    pub fn layers(&self, network: &Network) -> Result<Vec<Layer>, ModelError> {
        match &self.layer {
            Some(pattern) => select(network, pattern),
            None => Ok(layers(network, self.granularity)),
        }
    }

    /// The layers to measure, and the model that has them if it is not the checkpoint's own: with an
    /// adapter, layers such as `block.0.lora` exist only if it is not merged.
    ///
    /// # Errors
    /// A name that matches no layer; an adapter that cannot be kept beside its base.
    pub fn layers_of(
        &self,
        checkpoint: &Checkpoint,
    ) -> crate::error::Result<(Vec<Layer>, Option<Unmerged>)> {
        match (self.layers(&checkpoint.network), checkpoint.adapter()) {
            (Ok(layers), _) => Ok((layers, None)),
            (Err(error), None) => Err(error.into()),
            (Err(_), Some(_)) => {
                let unmerged = checkpoint.unmerged(DType::F32)?;
                let network = unmerged.as_ref().map_or(&*checkpoint.network, |(own, _)| own);
                Ok((self.layers(network)?, unmerged))
            }
        }
    }

    /// The search along remedies, if any was asked for. With `layer`, only those layers move, each
    /// alone.
    ///
    /// # Errors
    /// Parameters of an adapter as layers; those of [`RemedySession::open`].
    pub fn remedies_of(
        &self,
        checkpoint: &Checkpoint,
        roles: &Roles,
        (layers, unmerged): (&[Layer], bool),
    ) -> crate::error::Result<Option<RemedySession>> {
        if self.remedies.is_empty() {
            return Ok(None);
        }
        if unmerged {
            let text = "`remedies` moves whole layers; an adapter's parameters are not layers: name other \
                        layers, or leave out `layer`";
            return Err(Error::Conflict(text.into()).into());
        }
        let joint = match &self.layer {
            Some(_) => Vec::new(),
            None => checkpoint.network.blocks(),
        };
        RemedySession::open(&self.remedies, checkpoint, roles, layers.to_vec(), joint).map(Some)
    }

    /// Measurement options, given the available memory in MiB.
    pub fn measured(&self, room_mib: f64, seed: u64) -> MeasureOptions {
        let mut matrices = vec![Matrix::Hessian];
        if self.operator == Some(Matrix::GaussNewton) {
            matrices.push(Matrix::GaussNewton);
        }
        MeasureOptions {
            basis: self.basis,
            raw_too: true,
            repeats: self.repeats.unwrap_or(REPEATS),
            estimator: match self.estimator {
                EstimatorName::Line => Estimator::Line,
                EstimatorName::Newton => Estimator::Newton {
                    radius: self.radius.unwrap_or(0.1),
                    iterations: self.iterations.unwrap_or(20),
                },
            },
            spectrum: (self.spectrum || self.density).then(|| spectrum::SpectrumOptions {
                matrices,
                largest: self.eigenvalues.unwrap_or(3),
                whole: true,
                density: self.density,
                room: room_mib,
                seed,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_options_without_effect() {
        assert_eq!(DiagnoseOptions::default().check(), Ok(()));
        let radius = DiagnoseOptions { radius: Some(0.5), ..DiagnoseOptions::default() };
        assert!(matches!(radius.check(), Err(Error::NoEffect { .. })));
        let newton = DiagnoseOptions { estimator: EstimatorName::Newton, ..radius };
        assert_eq!(newton.check(), Ok(()));
        let wide = DiagnoseOptions { radius: Some(1.5), ..newton };
        assert_eq!(
            wide.check(),
            Err(Error::value("radius", "a number above 0 and at most 1", 1.5))
        );
        let many =
            DiagnoseOptions { eigenvalues: Some(21), density: true, ..DiagnoseOptions::default() };
        assert_eq!(many.check(), Err(Error::value("eigenvalues", "1 to 20", 21)));
        for repeats in [0, 16] {
            let options = DiagnoseOptions { repeats: Some(repeats), ..DiagnoseOptions::default() };
            assert_eq!(options.check(), Err(Error::value("repeats", "1 to 15", repeats)));
        }
    }
}
