//! Growing parts of V: whether V is large enough.

use super::show::{value, with_error};
use crate::subject::Subject;
use crate::table::{Align, Style, Table};
use planish::diagnose::findings::{Findings, Fitted};
use planish::diagnose::ranking::{LayerSample, Sample, Sampling};
use planish::diagnose::spectrum::Estimated;
use planish::format::{ABSENT, count};

/// Images that `--until-stderr` starts from.
const FIRST: usize = 250;
/// Fewest images that a part is worth measuring on.
const FEWEST: usize = 8;

/// What was found on the last part.
pub(super) struct Found {
    /// The part, unless it is all of V.
    pub part: Option<Subject>,
    /// What it shows.
    pub findings: Findings,
    /// The same figures on every part; empty if all of V alone was measured.
    pub samples: Vec<Sample>,
    /// How `--until-stderr` ended.
    pub sampling: Option<Sampling>,
}

/// How many images each part has, `most` at last.
pub(super) fn sizes(most: usize, convergence: bool, until: bool) -> Vec<usize> {
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

/// Measures part after part, to the last, or until the ranking is decided. `measure` is told
/// whether everything asked for is wanted, or only what parts are compared by.
pub(super) fn measure(
    work: &Subject,
    part: &dyn Fn(usize) -> anyhow::Result<Subject>,
    sizes: &[usize],
    until: Option<f64>,
    measure: impl Fn(&Subject, bool) -> anyhow::Result<Findings>,
) -> anyhow::Result<Found> {
    let most = sizes.last().copied().unwrap_or(0);
    let mut samples = Vec::new();
    for &size in sizes.iter().filter(|&&size| size < most) {
        let subject = part(size)?;
        let findings = measure(&subject, false)?;
        samples.push(sample(&findings, size));
        if let Some(tolerance) = until.filter(|&tolerance| decided(&findings, tolerance)) {
            // A part's spectrum is less than what was asked for.
            let findings = match findings.layers.iter().all(|l| l.spectra.is_empty()) {
                true => findings,
                false => measure(&subject, true)?,
            };
            let sampling =
                Sampling { until_stderr: tolerance, decided: true, images: size, available: most };
            return Ok(Found { part: Some(subject), findings, samples, sampling: Some(sampling) });
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
    Ok(Found { part: None, findings, samples, sampling })
}

fn decided(findings: &Findings, tolerance: f64) -> bool {
    let ranking = findings.ranking.as_ref();
    ranking.is_some_and(|r| r.update.is_decided(tolerance) && r.perturb.is_decided(tolerance))
}

fn sample(findings: &Findings, images: usize) -> Sample {
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
    Sample {
        images,
        loss_nats: Estimated { value: loss.validation, stderr: loss.stderr },
        layers: layers.collect(),
    }
}

/// A figure of a layer.
type Quantity = fn(&LayerSample) -> Option<Estimated>;

/// A table for each quantity, a column for each part; and how it ended.
pub(super) fn show(found: &Found) -> String {
    let mut out = String::new();
    if let Some(last) = found.samples.last() {
        let quantities: [(&str, Quantity); 3] = [
            ("ΔL cross-fit", |l| l.delta_l_nats),
            ("κ cross-fit", |l| l.kappa),
            ("λ_max", |l| l.largest_eigenvalue),
        ];
        for (title, of) in quantities {
            if last.layers.iter().all(|l| of(l).is_none()) {
                continue;
            }
            let sizes: Vec<String> = found
                .samples
                .iter()
                .map(|s| format!("{} images", count(s.images as u64)))
                .collect();
            let mut columns = vec![(title, Align::Left)];
            columns.extend(sizes.iter().map(|size| (size.as_str(), Align::Right)));
            let mut table = Table::new(&columns);
            for (i, layer) in last.layers.iter().enumerate() {
                let cells = found
                    .samples
                    .iter()
                    .map(|s| s.layers.get(i).and_then(of).map_or(ABSENT.into(), |e| value(&e)));
                table.row(std::iter::once(layer.name.clone()).chain(cells));
            }
            out += &format!("\n{}", table.render(Style::of_stdout()));
        }
        let losses =
            found.samples.iter().map(|s| format!("{} ({})", value(&s.loss_nats), s.images));
        out += &format!("\nvalidation loss: {}\n", losses.collect::<Vec<_>>().join(", "));
    }
    if let Some(sampling) = &found.sampling {
        out += &ending(sampling, &found.findings);
    }
    out
}

/// Whether the ranking was decided, and what stands in the way if not.
fn ending(sampling: &Sampling, findings: &Findings) -> String {
    let percent = 100.0 * sampling.until_stderr;
    if sampling.decided {
        return format!(
            "the ranking is decided to within {percent}% on {} of {} images\n",
            sampling.images, sampling.available
        );
    }
    let Some(ranking) = &findings.ranking else {
        return format!(
            "the images ended at {} and no layer is eligible, so there is no ranking\n",
            sampling.images
        );
    };
    let mut open = Vec::new();
    for (what, standing) in [("ΔL", &ranking.update), ("κ", &ranking.perturb)] {
        if !standing.is_decided(sampling.until_stderr) {
            let best = with_error(Some(standing.value), standing.stderr);
            let near = standing.rivals.iter().min_by(|a, b| a.behind.total_cmp(&b.behind));
            let near = near.map_or(String::new(), |r| {
                format!(", {} behind by {}", r.name, with_error(Some(r.behind), r.stderr))
            });
            open.push(format!("{what} of {} is {best}{near}", standing.best));
        }
    }
    format!(
        "the images ended at {} before the ranking was decided to within {percent}%: {}\n",
        sampling.images,
        open.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_to_all_images() {
        assert_eq!(sizes(2000, false, false), [2000]);
        assert_eq!(sizes(2000, true, false), [500, 1000, 2000]);
        assert_eq!(sizes(1100, false, true), [250, 500, 1000, 1100]);
        assert_eq!(sizes(250, false, true), [250]);
        assert_eq!(sizes(20, true, false), [10, 20]);
    }
}
