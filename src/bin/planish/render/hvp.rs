//! Text output of `hvp`.

use crate::message::in_flags;
use planish::format::{count, number};
use planish::objective::Matrix;
use planish::report::hvp::HvpReport;
use planish::session::bad_samples::damage_note;
use std::path::Path;

/// Norms by layer and vector; `out` is the file of the tensors.
pub fn text(report: &HvpReport, out: &Path) -> String {
    let symbol = if report.operator == Matrix::GaussNewton { "G" } else { "H" };
    let mut lines = vec![format!(
        "loss {} nats over {} images of split {}; written to {}",
        number(report.loss_nats),
        count(report.data.images as u64),
        report.data.split,
        out.display()
    )];
    if let Some(probe) = &report.determinism {
        let n = probe.examples;
        lines.push(format!("two evaluations of a product on {n} images were bit-identical"));
    }
    for layer in &report.layers {
        for product in &layer.products {
            lines.push(format!(
                "{}: ‖g‖ {}, v = {}: ‖v‖ {}, ‖{symbol}v‖ {}, vᵀ{symbol}v/vᵀv {}",
                layer.name,
                number(layer.gradient_norm),
                product.vector,
                number(product.vector_norm),
                number(product.product_norm),
                product.rayleigh.map_or("–".into(), number),
            ));
        }
    }
    lines.extend(damage_note(&report.damaged).map(|note| format!("note: {}", in_flags(&note))));
    lines.join("\n")
}
