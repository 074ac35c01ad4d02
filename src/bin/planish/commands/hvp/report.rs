//! The report of `planish hvp`.

use crate::message::in_flags;
use planish::checkpoint::CheckpointInfo;
use planish::curvature::Probe;
use planish::data::{DamagedFile, DataInfo};
use planish::format::{count, number};
use planish::objective::Matrix;
use planish::run::RunInfo;
use planish::session::bad_samples::damage_note;
use std::path::Path;

/// The `--json` report.
#[derive(serde::Serialize)]
pub(super) struct Report {
    pub schema: &'static str,
    pub run: RunInfo,
    pub checkpoint: CheckpointInfo,
    pub data: DataInfo,
    /// Damaged image files that were decoded in part and used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    pub operator: Matrix,
    pub loss_nats: f64,
    /// Comparison of two evaluations; `None` with `--no-probe`.
    pub determinism: Option<Probe>,
    pub layers: Vec<LayerProducts>,
}

#[derive(serde::Serialize)]
pub(super) struct LayerProducts {
    pub name: String,
    pub parameters: usize,
    pub gradient_norm: f64,
    pub products: Vec<OneProduct>,
    /// Number of vectors per pass.
    pub vectors_at_once: usize,
}

/// ‖v‖, ‖Av‖ and vᵀAv/vᵀv.
#[derive(serde::Serialize)]
pub(super) struct OneProduct {
    pub vector: String,
    pub vector_norm: f64,
    pub product_norm: f64,
    pub rayleigh: Option<f64>,
}

impl Report {
    /// The printed text.
    pub fn text(&self, out: &Path) -> String {
        let symbol = if self.operator == Matrix::GaussNewton { "G" } else { "H" };
        let mut lines = vec![format!(
            "loss {} nats over {} images of split {}; written to {}",
            number(self.loss_nats),
            count(self.data.images as u64),
            self.data.split,
            out.display()
        )];
        if let Some(probe) = &self.determinism {
            let n = probe.examples;
            lines.push(format!("two evaluations of a product on {n} images were bit-identical"));
        }
        for layer in &self.layers {
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
        lines.extend(damage_note(&self.damaged).map(|note| format!("note: {}", in_flags(&note))));
        lines.join("\n")
    }
}
