//! Errors of the model.

/// An unknown name, or weights that do not fit the architecture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer name that matches no layer.
    #[error(
        "there is no layer \"{wanted}\"{}; the layers are {known}; {}every tensor is a layer too",
        hint(.nearest), .parts
    )]
    NoLayer {
        /// The requested name.
        wanted: String,
        /// The closest known name.
        nearest: Option<String>,
        /// Layers at block granularity.
        known: String,
        /// An example of the parts of a layer, if any has parts.
        parts: String,
    },
    /// A glob that matches no layer.
    #[error(
        "no layer matches \"{pattern}\"; the layers are {known}; {}every tensor is a layer too",
        .parts
    )]
    NoMatch {
        /// The glob.
        pattern: String,
        /// Layers at block granularity.
        known: String,
        /// An example of the parts of a layer, if any has parts.
        parts: String,
    },
    /// An unknown architecture name.
    #[error(
        "there is no architecture \"{wanted}\": {reason}{}; the forms are vit_SIZE_patchP_S, \
         vit_SIZE_patchP_regR_S, mixer_SIZE_patchP_S, convnext_SIZE_patchP_S or \
         convnextv2_SIZE_patchP_S, where S is the image size in pixels and SIZE is one of {known}; for example vit_nano_patch7_28",
        hint(.nearest)
    )]
    NoArchitecture {
        /// The requested name.
        wanted: String,
        /// Which part of the name is invalid.
        reason: String,
        /// The closest known size.
        nearest: Option<String>,
        /// The known sizes of each family.
        known: String,
    },
    /// Weights that do not fit the network.
    #[error("tensor \"{name}\": expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Canonical name.
        name: String,
        /// The parameter's shape.
        expected: Vec<usize>,
        /// The given shape.
        found: Vec<usize>,
    },
    /// A wrong number of tensors.
    #[error("the network has {expected} tensors, found {found}")]
    Count {
        /// Number of tensors of the network.
        expected: usize,
        /// Number of tensors given.
        found: usize,
    },
    /// A weight that cannot have an adapter.
    #[error("\"{name}\": expected a weight of a linear layer, which an adapter can change")]
    NotAdaptable {
        /// Canonical name.
        name: String,
    },
    /// Two parameters of one name, or stages without a layer.
    #[error("the network declares two parameters of one name, or no layer")]
    Declaration,
    /// A network whose last stage does not give one logit per class.
    #[error("the network's output has shape {found:?}, expected {expected} logits")]
    Output {
        /// Number of classes.
        expected: usize,
        /// Shape of the last stage's output for one image.
        found: Vec<usize>,
    },
    /// Shapes of the network do not fit together.
    #[error("the configuration gives no network: {0}")]
    Network(#[from] planish_kernels::Error),
    /// An operation on a tensor failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_default()
}
