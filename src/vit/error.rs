//! What can be wrong with a request to the model.

/// A name that means nothing, or weights that do not fit the architecture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer name or glob that matches no layer.
    #[error(
        "no layer is called `{wanted}`{}; the layers are {known}; a block splits into \
         block.0.attn and block.0.mlp, and every tensor has its own name too",
        hint(.nearest)
    )]
    NoLayer {
        /// What was asked for.
        wanted: String,
        /// The closest name there is.
        nearest: Option<String>,
        /// Layers at block granularity.
        known: String,
    },
    /// A glob that matches no layer.
    #[error(
        "no layer matches `{pattern}`; the layers are {known}; a block splits into \
         block.0.attn and block.0.mlp, and every tensor has its own name too"
    )]
    NoMatch {
        /// The glob.
        pattern: String,
        /// Layers at block granularity.
        known: String,
    },
    /// An architecture name that is not known.
    #[error(
        "no architecture is called `{wanted}`: {reason}{}; write vit_SIZE_patchP_S or \
         vit_SIZE_patchP_regR_S, S being the image size in pixels and SIZE one of {known}, \
         for example vit_nano_patch7_28",
        hint(.nearest)
    )]
    NoArchitecture {
        /// What was asked for.
        wanted: String,
        /// Which part of the name failed.
        reason: String,
        /// The closest size there is.
        nearest: Option<String>,
        /// The sizes there are.
        known: String,
    },
    /// Weights that do not fit the configuration.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Canonical name.
        name: String,
        /// Shape the configuration asks for.
        expected: Vec<usize>,
        /// Shape given.
        found: Vec<usize>,
    },
    /// A wrong number of tensors.
    #[error("the configuration has {expected} tensors, found {found}")]
    Count {
        /// Tensors the configuration asks for.
        expected: usize,
        /// Tensors given.
        found: usize,
    },
    /// An operation on a tensor failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}
