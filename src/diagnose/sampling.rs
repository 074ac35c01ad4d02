//! Growing samples of V, to check whether V is large enough.

use super::findings::{Findings, Fitted};
use super::measurer::Measurer;
use super::ranking::{ConvergencePoint, LayerSample, Sampling};
use super::spectrum::Estimated;
use crate::error::Result;

/// Initial sample size of `until_stderr`.
const FIRST: usize = 250;
/// Smallest sample worth measuring.
const FEWEST: usize = 8;

/// Results on the last sample.
pub struct SampledFindings {
    /// The sample, unless it is all of V.
    pub part: Option<Measurer>,
    /// The results on it.
    pub findings: Findings,
    /// The results on every sample; empty if only all of V was measured.
    pub samples: Vec<ConvergencePoint>,
    /// Outcome of `until_stderr`.
    pub sampling: Option<Sampling>,
}

/// Sample sizes, ending with `most`.
pub fn sizes(most: usize, convergence: bool, until: bool) -> Vec<usize> {
    let mut sizes = Vec::new();
    if until {
        sizes.extend((0..).map(|k| FIRST << k).take_while(|&n| n < most));
    } else if convergence {
        sizes.extend([most / 4, most / 2]);
    }
    sizes.retain(|&n| n >= FEWEST);
    sizes.push(most);
    sizes
}

/// Measures one sample after another until the last, or until the ranking is decided. The flag
/// passed to `measure` says whether to measure everything requested or only what samples are
/// compared by.
pub fn measure(
    work: &Measurer,
    part: &dyn Fn(usize) -> Result<Measurer>,
    sizes: &[usize],
    until: Option<f64>,
    measure: impl Fn(&Measurer, bool) -> Result<Findings>,
) -> Result<SampledFindings> {
    let most = sizes.last().copied().unwrap_or(0);
    let mut samples = Vec::new();
    for &size in sizes.iter().filter(|&&size| size < most) {
        let subject = part(size)?;
        let findings = measure(&subject, false)?;
        samples.push(sample(&findings, size));
        if let Some(tolerance) = until.filter(|&tolerance| decided(&findings, tolerance)) {
            // The spectrum on a sample is less than the user asked for.
            let findings = match findings.layers.iter().all(|l| l.spectra.is_empty()) {
                true => findings,
                false => measure(&subject, true)?,
            };
            let sampling =
                Sampling { until_stderr: tolerance, decided: true, images: size, available: most };
            return Ok(SampledFindings {
                part: Some(subject),
                findings,
                samples,
                sampling: Some(sampling),
            });
        }
    }
    let findings = measure(work, true)?;
    if !samples.is_empty() {
        samples.push(sample(&findings, most));
    }
    let sampling = until.map(|tolerance| Sampling {
        until_stderr: tolerance,
        decided: decided(&findings, tolerance),
        images: most,
        available: most,
    });
    Ok(SampledFindings { part: None, findings, samples, sampling })
}

fn decided(findings: &Findings, tolerance: f64) -> bool {
    let ranking = findings.ranking.as_ref();
    ranking.is_some_and(|r| r.update.is_decided(tolerance) && r.perturb.is_decided(tolerance))
}

fn sample(findings: &Findings, images: usize) -> ConvergencePoint {
    let fitted = |f: &Fitted| f.cross_fit.map(|value| Estimated { value, stderr: f.stderr });
    let layers = findings.layers.iter().map(|l| LayerSample {
        name: l.name.clone(),
        delta_l_nats: fitted(&l.delta_l_nats),
        kappa: fitted(&l.kappa),
        largest_eigenvalue: l.spectra.first().and_then(|s| {
            let value = s.largest.first()?.value;
            Some(Estimated { value, stderr: s.largest_stderr })
        }),
    });
    let loss = &findings.loss_nats;
    ConvergencePoint {
        images,
        loss_nats: Estimated { value: loss.validation, stderr: loss.stderr },
        layers: layers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_grow_to_all_images() {
        assert_eq!(sizes(2000, false, false), [2000]);
        assert_eq!(sizes(2000, true, false), [500, 1000, 2000]);
        assert_eq!(sizes(1100, false, true), [250, 500, 1000, 1100]);
        assert_eq!(sizes(250, false, true), [250]);
        assert_eq!(sizes(20, true, false), [10, 20]);
    }
}
