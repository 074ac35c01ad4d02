//! Errors of data sets, with place, expected, found and remedy.

use std::io;
use std::path::PathBuf;

/// An error of reading, selecting or preparing data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder does not exist, or is of the wrong kind.
    #[error("{path}: expected {expected}, found {found}; {remedy}")]
    Missing {
        /// The path.
        path: PathBuf,
        /// The expected content.
        expected: String,
        /// The content found.
        found: String,
        /// The remedy.
        remedy: String,
    },
    /// The operating system could not read a file.
    #[error("{path}: cannot be read: {source}; check that it is a readable file")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A line of a CSV file.
    #[error("{path}, line {line}: expected {expected}, found {found}; {remedy}")]
    Table {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The expected content.
        expected: String,
        /// The content found.
        found: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// Sources that cannot be joined.
    #[error("{first} and {other}: expected sources of one kind, found sources {found}; {remedy}")]
    Join {
        /// One source.
        first: String,
        /// The other.
        other: String,
        /// How they differ.
        found: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// A file of an archive.
    #[error("{path}, {member}: expected {expected}, found {found}; {remedy}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The file in it, or the part of the archive.
        member: String,
        /// The expected content.
        expected: String,
        /// The content found.
        found: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// An image file that cannot be decoded.
    #[error(
        "{path}: {cause}; repair or remove it, or set `on_bad_sample` to skip to leave out such \
         images"
    )]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: super::DecodeError,
    },
    /// A split without decodable images.
    #[error(
        "{place}: expected at least one valid image, found none among {images}; the first: {first}"
    )]
    AllBad {
        /// Data set and split.
        place: String,
        /// Number of files.
        images: usize,
        /// The error of the first file.
        first: Box<Error>,
    },
    /// An invalid structure of class folders.
    #[error("{path}: expected {expected}, found {found}; {remedy}")]
    Folders {
        /// The folder.
        path: PathBuf,
        /// The expected structure.
        expected: String,
        /// The structure found.
        found: String,
        /// The remedy.
        remedy: String,
    },
    /// Class folders that cannot be numbered as the checkpoint's classes.
    #[error(transparent)]
    Classes(super::ClassError),
    /// A gzip stream that cannot be decompressed.
    #[error("{path}: damaged gzip stream: {source}; download the file again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// The decompressor's error.
        source: io::Error,
    },
    /// A safetensors file whose header is malformed.
    #[error("{path}: not a valid safetensors file: {source}; write it again")]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: safetensors::SafeTensorError,
    },
    /// A header or tensor with a wrong number, type or shape.
    #[error("{path}: {place}: expected {expected}, found {found}; {remedy}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The header field or tensor.
        place: String,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
        /// The remedy.
        remedy: String,
    },
    /// A file shorter than its header states.
    #[error(
        "{path}: truncated: expected {expected} bytes after unpacking, found {found}; \
         download the file again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Size stated by the header, header included, bytes.
        expected: u64,
        /// Size found, bytes.
        found: u64,
    },
    /// A file longer than its header states.
    #[error(
        "{path}: oversized: expected {expected} bytes after unpacking, found more; \
         the header or the file is damaged; download it again"
    )]
    Oversized {
        /// The file.
        path: PathBuf,
        /// Size stated by the header, header included, bytes.
        expected: u64,
    },
    /// The numbers of images and labels differ.
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
    /// A label outside the model's classes.
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
         fix the pipeline that wrote the file"
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Image, from 0.
        index: usize,
        /// The value found.
        found: f32,
    },
    /// Prepared images with a different shape than the model's input.
    #[error(
        "{place}: expected pixel_values of shape (N, {}, {}, {}) as the model takes, found \
         (N, {}, {}, {}); prepare the images for this checkpoint, or set `image_size`",
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
    #[error("{place}: expected at least one image, found none; use data with images")]
    Empty {
        /// Data set, split or file.
        place: String,
    },
    /// A split that a command needs is missing.
    #[error("{place}: expected a {role} split, found {found}; {remedy}")]
    Role {
        /// Data set.
        place: String,
        /// The role: training, validation or test.
        role: &'static str,
        /// The existing splits.
        found: String,
        /// The remedy.
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
    /// Raw images without the checkpoint's preprocessing.
    #[error(
        "{place}: raw images need the checkpoint's preprocessing, found none; \
         set `mean`, `std`, `interpolation` and, unless images are cropped, `resize` to squash"
    )]
    NoPreprocess {
        /// Data set and split.
        place: String,
    },
    /// A preprocessing that is inconsistent, or does not fit the images.
    #[error("preprocessing, {place}: expected {expected}, found {found}; {remedy}")]
    Preprocess {
        /// The field.
        place: &'static str,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// An augmentation that cannot be parsed or applied.
    #[error("augmentation \"{item}\": expected {expected}; correct `augment`")]
    Augment {
        /// The invalid item.
        item: String,
        /// The expected item.
        expected: String,
    },
    /// A setting out of its range.
    #[error("{name}: expected {expected}, found {found}; {remedy}")]
    Setting {
        /// The option or quantity.
        name: &'static str,
        /// Its valid range.
        expected: String,
        /// The value given.
        found: String,
        /// The remedy.
        remedy: &'static str,
    },
}
