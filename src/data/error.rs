//! What can be wrong with a data set, said with place, expected, found and remedy.

use std::io;
use std::path::PathBuf;

/// The ways in which reading, choosing or preparing data fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or file that was asked for is not there, or is of the wrong kind.
    #[error("{path}: expected {expected}, found {found}; {remedy}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What should stand there.
        expected: String,
        /// What does.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// The operating system refused to read a file.
    #[error("{path}: cannot be read: {source}; check that it is a readable file")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An image file that gives no image.
    #[error(
        "{path}: {flaw}; mend or remove it, or pass --on-bad-sample skip to go on without such \
         images"
    )]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        flaw: super::Flaw,
    },
    /// A split none of whose images can be decoded.
    #[error(
        "{place}: expected at least one sound image, found none of {images}; the first: {first}"
    )]
    AllBad {
        /// Data set and split.
        place: String,
        /// Number of files.
        images: usize,
        /// What is wrong with the first.
        first: Box<Error>,
    },
    /// Class folders that cannot be what they seem.
    #[error("{path}: expected {expected}, found {found}; {remedy}")]
    Folders {
        /// The folder.
        path: PathBuf,
        /// What would do.
        expected: String,
        /// What there is.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// Class folders that cannot be numbered as the checkpoint's classes.
    #[error(transparent)]
    Classes(super::ClassError),
    /// A gzip stream that does not decompress.
    #[error("{path}: damaged gzip stream: {source}; fetch the file again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// The decompressor's reason.
        source: io::Error,
    },
    /// A safetensors file whose header is malformed.
    #[error("{path}: not a valid safetensors file: {source}; write it again")]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: safetensors::SafeTensorError,
    },
    /// A file header or tensor with the wrong number, type or shape.
    #[error("{path}: {place}: expected {expected}, found {found}; {remedy}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The header field or tensor.
        place: String,
        /// What the format asks for.
        expected: String,
        /// What the file has.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A file that ends before its header says.
    #[error(
        "{path}: truncated: expected {expected} bytes after unpacking, found {found}; \
         fetch the file again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes the header promises, header included.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A file that goes on after its header says it ends.
    #[error(
        "{path}: oversized: expected {expected} bytes after unpacking, found more; \
         the header or the file is damaged, fetch it again"
    )]
    Oversized {
        /// The file.
        path: PathBuf,
        /// Bytes the header promises, header included.
        expected: u64,
    },
    /// Images and labels that cannot belong together.
    #[error(
        "{labels}: expected {images} labels, one per image, found {found}; \
         pair each image file with its own label file"
    )]
    Counts {
        /// The file (and tensor) with the labels.
        labels: String,
        /// Number of images.
        images: usize,
        /// Number of labels.
        found: usize,
    },
    /// A label the model has no class for.
    #[error(
        "{place}, image {index}: expected a label in 0..{classes}, found {label}; use data with \
         the checkpoint's classes, or a checkpoint whose head has at least {} classes",
        u64::from(*label) + 1
    )]
    Label {
        /// Data set and split.
        place: String,
        /// Position in the split, from 0.
        index: usize,
        /// The label.
        label: u32,
        /// Number of classes of the model.
        classes: usize,
    },
    /// A pixel value that is not a finite number.
    #[error(
        "{path}: pixel_values, image {index}: expected finite numbers, found {found}; \
         mend the pipeline that wrote the file"
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Image, from 0.
        index: usize,
        /// The offending value.
        found: f32,
    },
    /// Prepared images of another shape than the model takes.
    #[error(
        "{place}: expected pixel_values of shape (N, {}, {}, {}) as the model takes, found \
         (N, {}, {}, {}); prepare the images for this checkpoint, or pass --image-size",
        want[0], want[1], want[2], found[0], found[1], found[2]
    )]
    Shape {
        /// Data set and split.
        place: String,
        /// Channels, height and width of the model.
        want: [usize; 3],
        /// Channels, height and width of the data.
        found: [usize; 3],
    },
    /// A split without images.
    #[error("{place}: expected at least one image, found none; give data that has images")]
    Empty {
        /// Data set, split or file.
        place: String,
    },
    /// A split that a command needs and nobody gave.
    #[error("{place}: expected a {role} split, found {found}; {remedy}")]
    Role {
        /// Data set.
        place: String,
        /// The role to fill: training, validation or test.
        role: &'static str,
        /// The splits there are.
        found: String,
        /// What to pass.
        remedy: &'static str,
    },
    /// An image number outside its split.
    #[error("{place}: expected image numbers below {len}, found {index}; ask for images it has")]
    Index {
        /// Data set and split.
        place: String,
        /// The number asked for.
        index: usize,
        /// Number of images.
        len: usize,
    },
    /// Raw images, and nothing known of how the checkpoint wants them.
    #[error(
        "{place}: raw images need the checkpoint's preprocessing, found none; \
         pass --mean, --std, --interpolation and, unless images are cropped, --resize squash"
    )]
    NoPreprocess {
        /// Data set and split.
        place: String,
    },
    /// A preprocessing that contradicts itself or the images.
    #[error("preprocessing, {place}: expected {expected}, found {found}; {remedy}")]
    Preprocess {
        /// The field.
        place: &'static str,
        /// What would do.
        expected: String,
        /// What was given.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An augmentation that cannot be read or done.
    #[error("augmentation `{item}`: expected {expected}; correct --augment")]
    Augment {
        /// The item at fault.
        item: String,
        /// What would do.
        expected: String,
    },
    /// A setting out of its range.
    #[error("{name}: expected {expected}, found {found}; {remedy}")]
    Setting {
        /// The flag or quantity.
        name: &'static str,
        /// Its range.
        expected: String,
        /// The value given.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
}
