//! Text output for growing subsets of V, which show whether V is large enough.

use super::diagnosis::{value, with_error};
use crate::render::table::{Align, Style, Table};
use planish::diagnose::findings::Findings;
use planish::diagnose::ranking::{LayerSample, Sampling};
use planish::diagnose::spectrum::Estimated;
use planish::format::{ABSENT, count};
use planish::report::diagnosis::DiagnosisReport;

/// A figure of a layer.
type Quantity = fn(&LayerSample) -> Option<Estimated>;

/// One table per quantity with a column per subset, then the outcome.
pub fn text(report: &DiagnosisReport) -> String {
    let samples = &report.convergence;
    let mut out = String::new();
    if let Some(last) = samples.last() {
        let quantities: [(&str, Quantity); 3] = [
            ("ΔL cross-fit", |l| l.delta_l_nats),
            ("κ cross-fit", |l| l.kappa),
            ("λ_max", |l| l.largest_eigenvalue),
        ];
        for (title, of) in quantities {
            if last.layers.iter().all(|l| of(l).is_none()) {
                continue;
            }
            let sizes: Vec<String> =
                samples.iter().map(|s| format!("{} images", count(s.images as u64))).collect();
            let mut columns = vec![(title, Align::Left)];
            columns.extend(sizes.iter().map(|size| (size.as_str(), Align::Right)));
            let mut table = Table::new(&columns);
            for (i, layer) in last.layers.iter().enumerate() {
                let cells = samples
                    .iter()
                    .map(|s| s.layers.get(i).and_then(of).map_or(ABSENT.into(), |e| value(&e)));
                table.row(std::iter::once(layer.name.clone()).chain(cells));
            }
            out += &format!("\n{}", table.render(Style::of_stdout()));
        }
        let losses = samples.iter().map(|s| format!("{} ({})", value(&s.loss_nats), s.images));
        out += &format!("\nvalidation loss: {}\n", losses.collect::<Vec<_>>().join(", "));
    }
    if let Some(sampling) = &report.sampling {
        out += &ending(sampling, &report.findings);
    }
    out
}

/// Whether the ranking was decided, and which layers are too close if not.
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
            "no ranking: all {} images were used, and no layer is eligible\n",
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
        "all {} images were used before the ranking was decided to within {percent}%: {}\n",
        sampling.images,
        open.join("; ")
    )
}
