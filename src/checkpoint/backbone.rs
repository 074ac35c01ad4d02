//! Files without a head.

use super::layout::Family;
use super::names::Names;
use super::{Checkpoint, Entry, Error, Header, Layout, TensorDtype};

/// The header with a head for so many classes, as wide as the features: the last norm, or twice that
/// in DINOv2.
pub(super) fn with_head(names: &Names, header: &Header, classes: usize) -> Header {
    let (head, norms) = match names.layout.family() {
        Family::ConvNext => ("head.fc", ["head.norm.weight", "norm.weight"]),
        Family::Vit | Family::Mixer => ("head", ["norm.weight", "fc_norm.weight"]),
    };
    let canonical = |entry: &Entry| names.part(&entry.name).map(|part| part.canonical.clone());
    let find = |name: &str| header.entries.iter().find(|e| canonical(e).as_deref() == Some(name));
    // A Vision Transformer without a last norm is as wide as its embedding.
    let last = norms.into_iter().chain(["patch_embed.proj.weight"]).find_map(find);
    let width = last.and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
    let width = match names.layout {
        Layout::TransformersDinov2 => width.saturating_mul(2),
        _ => width,
    };
    let mut out = header.clone();
    for (tensor, shape) in [("weight", vec![classes, width]), ("bias", vec![classes])] {
        for name in names.of(&format!("{head}.{tensor}")) {
            out.entries.push(Entry {
                name,
                dtype: TensorDtype::F32.name().into(),
                shape: shape.clone(),
                span: (usize::MAX, usize::MAX),
            });
        }
    }
    out.packed()
}

impl Checkpoint {
    /// Checks that the library of a file without a head can load it with one.
    ///
    /// # Errors
    /// [`Error::NotComputed`] for the vision tower of CLIP or SigLIP alone.
    pub fn check_new_head(&self) -> Result<(), Error> {
        let Some(settings) = self.settings.as_ref().filter(|_| self.headless) else {
            return Ok(());
        };
        let key = "model_type";
        match settings.text(key)? {
            Some("clip_vision_model" | "siglip_vision_model") => {
                let means = "transformers has no classifier for the tower alone";
                let computes = "a new head for CLIPModel and SiglipModel";
                let remedy = "save the whole model, as CLIPModel or SiglipModel";
                Err(settings.not_computed(key, means, computes, remedy))
            }
            _ => Ok(()),
        }
    }
}
