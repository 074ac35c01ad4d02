//! Options of a diagnosis.

use super::{Estimator, Options, spectrum};
use crate::objective::Matrix;
use crate::options::{Error, check};
use crate::vit::layers::{layers, select};
use crate::vit::{Config, Error as ModelError, Granularity, Layer};
use serde::{Deserialize, Serialize};

/// What is measured, on how many images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Diagnosis options"))]
pub struct DiagnoseOptions {
    /// Validation images to use, in proportion to the classes [default: all]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub samples: Option<usize>,
    /// Layers: names or globs, separated by commas [default: all, by --granularity]
    #[cfg_attr(feature = "cli", arg(long, value_name = "L"))]
    pub layer: Option<String>,
    /// How finely the model is cut into layers
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, default_value = "block", conflicts_with = "layer")
    )]
    pub granularity: Granularity,
    /// How each layer's Δw is found
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value = "line"))]
    pub estimator: EstimatorName,
    /// The longest Δw of Newton-CG, as a share of the layer's weight norm [default: 0.1]
    #[cfg_attr(feature = "cli", arg(long, value_name = "R", allow_negative_numbers = true))]
    pub radius: Option<f64>,
    /// Hessian-vector products of Newton-CG at most, for each layer and fold [default: 20]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub iterations: Option<usize>,
    /// Measure each layer's top eigenvalues, trace and effective dimension, too
    #[cfg_attr(feature = "cli", arg(long))]
    pub spectrum: bool,
    /// Measure its spectral density, too; takes several times as long
    #[cfg_attr(feature = "cli", arg(long))]
    pub density: bool,
    /// Top eigenvalues that `--spectrum` measures, 1 to 20 [default: 3]
    #[cfg_attr(feature = "cli", arg(long, value_name = "K"))]
    pub eigenvalues: Option<usize>,
    /// The matrix that `--spectrum` measures: the Hessian, or with `ggn` the Gauss-Newton matrix, too
    #[cfg_attr(feature = "cli", arg(long, value_enum))]
    pub operator: Option<Matrix>,
    /// Measure a quarter and a half of V, too: whether V is large enough
    #[cfg_attr(feature = "cli", arg(long))]
    pub convergence: bool,
    /// Use more and more of V until the ranking of the layers is known to within this relative
    /// standard error, such as 5%
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "P", value_parser = crate::options::text::percent, conflicts_with = "convergence"
    ))]
    pub until_stderr: Option<f64>,
}

/// How a layer's Δw is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum EstimatorName {
    /// the first minimum along the gradient
    #[default]
    Line,
    /// Steihaug's truncated Newton-CG in a trust region
    Newton,
}

impl DiagnoseOptions {
    /// Refuses values out of range, and options that have no effect.
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
        match self.eigenvalues {
            Some(n) if !(1..=20).contains(&n) => Err(Error::value("eigenvalues", "1 to 20", n)),
            _ => Ok(()),
        }
    }

    /// The layers that are measured.
    ///
    /// # Errors
    /// A name that matches none.
    pub fn layers(&self, config: &Config) -> Result<Vec<Layer>, ModelError> {
        match &self.layer {
            Some(pattern) => select(config, pattern),
            None => Ok(layers(config, self.granularity)),
        }
    }

    /// How layers are measured, with so much memory at hand, MiB.
    pub fn measured(&self, room_mib: f64, seed: u64) -> Options {
        let mut matrices = vec![Matrix::Hessian];
        if self.operator == Some(Matrix::GaussNewton) {
            matrices.push(Matrix::GaussNewton);
        }
        Options {
            estimator: match self.estimator {
                EstimatorName::Line => Estimator::Line,
                EstimatorName::Newton => Estimator::Newton {
                    radius: self.radius.unwrap_or(0.1),
                    iterations: self.iterations.unwrap_or(20),
                },
            },
            spectrum: (self.spectrum || self.density).then(|| spectrum::Settings {
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
    fn options_without_an_effect_are_refused() {
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
    }
}
