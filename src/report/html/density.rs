//! The spectral density of each layer's matrices.

use super::chart::{Axis, Colour, svg};
use super::text::{figure, paragraph};
use crate::diagnose::findings::Findings;
use crate::diagnose::spectrum::DensityOf;
use crate::format::{number, percent};
use crate::objective::Matrix;

/// Densities below this share of the maximum are drawn at this level, to cut off the tails of the
/// Gaussians.
const FLOOR: f64 = 1e-5;

/// One chart per matrix; `None` if no density was measured.
pub fn densities(findings: &Findings) -> Option<String> {
    let all = findings.layers.iter().flat_map(|l| l.spectra.iter().map(move |s| (l, s)));
    let one = |(layer, spectrum): (&crate::diagnose::findings::LayerResult, &_)| {
        let spectrum: &crate::diagnose::spectrum::Spectrum = spectrum;
        let of = match spectrum.matrix {
            Matrix::Hessian => layer.name.clone(),
            Matrix::GaussNewton => format!("{} (GN)", layer.name),
        };
        spectrum.density.as_ref().map(|density| chart(&of, density))
    };
    let drawn: String = all.filter_map(one).collect();
    (!drawn.is_empty()).then(|| {
        paragraph(
            "Density of the eigenvalues, smoothed by a Gaussian, from stochastic Lanczos \
             quadrature. The vertical axis is logarithmic, so that single large eigenvalues are \
             visible.",
        ) + &format!("<div class=\"charts small\">\n{drawn}</div>\n")
    })
}

fn chart(of: &str, density: &DensityOf) -> String {
    let highest = density.density.iter().copied().fold(0.0, f64::max);
    let raised = |y: &f64| y.max(FLOOR * highest);
    let points: Vec<(f64, f64)> =
        density.grid.iter().copied().zip(density.density.iter().map(raised)).collect();
    let ends = density.grid.first().zip(density.grid.last());
    let told = format!(
        "From {} to {}; {} of the eigenvalues are below 0.",
        ends.map_or(String::new(), |e| number(*e.0)),
        ends.map_or(String::new(), |e| number(*e.1)),
        percent(density.below_zero.value)
    );
    let title = format!("Spectral density of {of}");
    let axes = (
        Axis::around("eigenvalue", points.iter().map(|p| p.0)),
        Axis::log("", points.iter().map(|p| p.1)),
    );
    let drawn = svg((400, 320), (&title, &told), axes, 92, |c| {
        c.x_axis();
        c.y_axis();
        c.line(&points, Colour::Blue, 3);
    });
    figure(&title, &format!("{} below 0", percent(density.below_zero.value)), &drawn)
}
