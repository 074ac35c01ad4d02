//! Common corruptions: the fifteen image corruptions at five severities of Hendrycks and
//! Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
//! ICLR 2019.
//!
//! A corruption is applied to the 8-bit image after resize and crop, before normalisation. The
//! result depends only on the seed, the image's position, the corruption and the severity.
//! Parameters are those of the authors' programs: of CIFAR-10-C for sides up to 64 pixels, of
//! ImageNet-C above.
//!
//! Three corruptions differ from their programs. Frost is generated, not pasted from photographs
//! (`weather.rs`). Motion blur follows the Python package imagecorruptions, not ImageMagick.
//! ImageNet-C's elastic transform also follows that package, which shifts pixels as far but omits
//! the affine part.

mod blur;
mod canvas;
mod digital;
mod filter;
mod measure;
mod noise;
mod prepared;
mod random;
mod request;
mod result;
mod weather;

use crate::random::stream;
use canvas::Canvas;
pub use measure::{Others, corrupted_matrix, measure, others, preprocessing};
pub use prepared::corrupted;
use random::Random;
pub use request::{Shift, ood};
pub use result::{CorruptedCell, Other, SeverityMeans, Shifts};
use std::fmt;

/// Longest side of images that are corrupted as CIFAR-10-C's.
const SMALL: usize = 64;

/// The source of the parameters for images of this height and width.
pub fn settings([height, width]: [usize; 2]) -> &'static str {
    if height.max(width) <= SMALL { "CIFAR-10-C" } else { "ImageNet-C" }
}

/// A common corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Corruption {
    /// Normal noise on every value.
    GaussianNoise,
    /// Poisson noise: few photons.
    ShotNoise,
    /// Salt and pepper.
    ImpulseNoise,
    /// A lens out of focus.
    DefocusBlur,
    /// Frosted glass.
    GlassBlur,
    /// A camera that moves sideways.
    MotionBlur,
    /// A camera that moves forward.
    ZoomBlur,
    /// Falling snow.
    Snow,
    /// Frost on the lens.
    Frost,
    /// Fog by a plasma fractal.
    Fog,
    /// More light.
    Brightness,
    /// Less contrast.
    Contrast,
    /// Stretched regions.
    ElasticTransform,
    /// Fewer pixels.
    Pixelate,
    /// JPEG at a low quality.
    JpegCompression,
}

impl Corruption {
    /// All, in the paper's order.
    pub const ALL: [Self; 15] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
    ];

    /// The name of its file in CIFAR-10-C.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::ShotNoise => "shot_noise",
            Self::ImpulseNoise => "impulse_noise",
            Self::DefocusBlur => "defocus_blur",
            Self::GlassBlur => "glass_blur",
            Self::MotionBlur => "motion_blur",
            Self::ZoomBlur => "zoom_blur",
            Self::Snow => "snow",
            Self::Frost => "frost",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic_transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg_compression",
        }
    }

    /// The corruption of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an image cannot be corrupted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not an image.
    #[error(
        "expected {height}×{width} pixels of 1 or 3 channels, at least one pixel, found {channels} \
         channels and {bytes} bytes; give images of 8 bits"
    )]
    Shape {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Channels.
        channels: usize,
        /// Bytes given.
        bytes: usize,
    },
    /// A severity outside 1 to 5.
    #[error("severity {found}: expected 1 to 5; ask for one of these")]
    Severity {
        /// What was asked for.
        found: usize,
    },
    /// Prepared tensors are normalised and have no levels.
    #[error(
        "{place}: the images are prepared tensors, and corruptions need 8-bit levels; give the raw \
         images"
    )]
    Prepared {
        /// The split.
        place: String,
    },
    /// The images cannot be read or prepared.
    #[error(transparent)]
    Data(Box<crate::data::Error>),
    /// JPEG refused the image.
    #[error("JPEG cannot hold {height}×{width} pixels; use smaller images")]
    Jpeg {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// What the codec says.
        source: std::io::Error,
    },
}

/// Corrupts one image, `(H,W,C)` levels with C = 1 or 3, at a severity from 1 to 5. `image` is its
/// position in the data set.
///
/// Bytes that are not such an image; an invalid severity; an image too large for JPEG.
/// Levels that are no such image; another severity; an image too large for JPEG.
pub fn corrupt(
    levels: &[u8],
    [height, width, channels]: [usize; 3],
    corruption: Corruption,
    severity: usize,
    seed: u64,
    image: usize,
) -> Result<Vec<u8>, Error> {
    let bytes = height.checked_mul(width).and_then(|n| n.checked_mul(channels));
    if bytes != Some(levels.len()) || levels.is_empty() || !matches!(channels, 1 | 3) {
        let bytes = levels.len();
        return Err(Error::Shape { height, width, channels, bytes });
    }
    if !(1..=5).contains(&severity) {
        return Err(Error::Severity { found: severity });
    }
    let name = format!("corruption {corruption}, severity {severity}, image {image}");
    let random = &mut Random(stream(seed, &name));
    let x = Canvas::new(levels, height, width, channels);
    let (small, s) = (height.max(width) <= SMALL, severity - 1);
    let out = match corruption {
        Corruption::GaussianNoise => noise::gaussian(x, small, s, random),
        Corruption::ShotNoise => noise::shot(x, small, s, random),
        Corruption::ImpulseNoise => noise::impulse(x, small, s, random),
        Corruption::DefocusBlur => blur::defocus(&x, small, s),
        Corruption::GlassBlur => blur::glass(&x, small, s, random),
        Corruption::MotionBlur => blur::motion(&x, small, s, random),
        Corruption::ZoomBlur => blur::zoom(&x, small, s),
        Corruption::Snow => weather::snow(x, small, s, random),
        Corruption::Frost => weather::frost(x, small, s, random),
        Corruption::Fog => weather::fog(x, small, s, random),
        Corruption::Brightness => digital::brightness(x, small, s),
        Corruption::Contrast => digital::contrast(x, small, s),
        Corruption::ElasticTransform => digital::elastic(&x, small, s, random),
        Corruption::Pixelate => return Ok(digital::pixelate(levels, &x, small, s)),
        Corruption::JpegCompression => {
            return digital::jpeg(levels, &x, small, s).map_err(|source| Error::Jpeg {
                height,
                width,
                source,
            });
        }
    };
    Ok(out.levels())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
