//! Why products are not computed.

/// Why products are not computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Layers with common weights, whose products would have the same names.
    #[error(
        "`layer`: \"{a}\" and \"{b}\" share weights; name disjoint layers, or join them with a glob"
    )]
    Shared {
        /// The first layer.
        a: String,
        /// The second.
        b: String,
    },
    /// Too little memory.
    #[error(
        "layer {layer}: {vectors} vectors and their products need about {need:.0} MiB, but {room:.0} \
         MiB are available; pass fewer vectors, choose a smaller layer, or raise `memory`"
    )]
    Memory {
        /// The layer.
        layer: String,
        /// Number of vectors.
        vectors: usize,
        /// Memory needed, MiB.
        need: f64,
        /// Memory available, MiB.
        room: f64,
    },
    /// Two evaluations of one product differ.
    #[error(
        "two evaluations of one product on {images} images differ; check that the files are not \
         being modified, or skip this check with `no_probe`"
    )]
    Differs {
        /// Number of images.
        images: usize,
    },
}
