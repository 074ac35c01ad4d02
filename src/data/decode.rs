//! From the bytes of an image file to 8-bit levels, as Pillow's `convert("RGB")` gives them.
//!
//! JPEG, PNG and WebP, recognised by content, never by the file's name. What every loader of the
//! field does by `Image.open(f).convert("RGB")` is done here too, its oddities included, since a
//! checkpoint was trained on the outcome: transparency is dropped without blending, EXIF
//! rotation, colour profiles and gamma are not applied, four-channel JPEGs are taken as inverted
//! CMYK whether they say so or not, 16-bit colour keeps its high byte, but 16-bit grey is cut off
//! at 255. Of an animation the first frame counts.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

/// Most bytes one decoded image may have: Pillow's own limit of 178,956,970 RGB pixels.
const MOST_BYTES: u64 = 1 << 29;

/// A decoded image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// `(H,W,C)`, C being 1 (grey) or 3 (RGB).
    pub levels: Vec<u8>,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// What is damaged, where the decoder warned and went on.
    pub damage: Option<String>,
}

/// What is wrong with an image file.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The operating system refused to read it.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Zero bytes.
    #[error("the file is empty")]
    Empty,
    /// Not one of the formats.
    #[error("expected a JPEG, PNG or WebP image, found other content")]
    Format,
    /// A JPEG without its end marker, or a WebP shorter than its header says.
    #[error("truncated: the {0} data end early")]
    Truncated(&'static str),
    /// More pixels than Pillow would take.
    #[error("expected at most 178956970 pixels, found {width}×{height}")]
    TooLarge {
        /// Pixels across, as the header says.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The preprocessing cannot take it.
    #[error("{0}")]
    Unfit(Box<super::Error>),
    /// The decoder of PNG or WebP gave up.
    #[error("cannot be decoded: {0}")]
    Decode(#[from] ImageError),
    /// The decoder of JPEG gave up, with this message.
    #[error("cannot be decoded: {0}")]
    Jpeg(String),
    /// The decoder of JPEG went on after this warning.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// The image in a file's `bytes`.
///
/// # Errors
/// A [`Flaw`]; truncated files are refused where Pillow refuses them, never filled up.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, Flaw> {
    if bytes.is_empty() {
        return Err(Flaw::Empty);
    }
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => format,
        _ => return Err(Flaw::Format),
    };
    match format {
        ImageFormat::Jpeg => return super::jpeg::decode(bytes),
        // The decoder would make up what is missing.
        ImageFormat::WebP if !webp_is_whole(bytes) => return Err(Flaw::Truncated("WebP")),
        _ => {}
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 * MOST_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    if decoder.total_bytes() > 2 * MOST_BYTES {
        return Err(Flaw::TooLarge { width, height });
    }
    let image = DynamicImage::from_decoder(decoder)?;
    let (channels, levels) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        DynamicImage::ImageLumaA8(image) => (1, without_alpha::<2>(&image)),
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        DynamicImage::ImageRgba8(image) => (3, without_alpha::<4>(&image)),
        // Pillow's mode I;16: values above 255 are clipped, not scaled.
        DynamicImage::ImageLuma16(image) => (1, image.iter().map(|&v| v.min(255) as u8).collect()),
        DynamicImage::ImageLumaA16(image) => (1, without_alpha::<2>(&high(&image))),
        DynamicImage::ImageRgb16(image) => (3, high(&image)),
        DynamicImage::ImageRgba16(image) => (3, without_alpha::<4>(&high(&image))),
        other => (3, other.into_rgb8().into_raw()),
    };
    Ok(Frame { levels, shape: [channels, height as usize, width as usize], damage: None })
}

/// Channels of the image in a file's `bytes`, 1 (grey) or 3 (RGB), by its header; `None` for what is
/// no image.
pub(super) fn channels(bytes: &[u8]) -> Option<usize> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => super::jpeg::channels(bytes),
        format @ (ImageFormat::Png | ImageFormat::WebP) => {
            let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder();
            Some(if decoder.ok()?.color_type().has_color() { 3 } else { 1 })
        }
        _ => None,
    }
}

/// Refuses what takes too much memory, before any is taken.
pub(super) fn check_size(width: u32, height: u32) -> Result<(), Flaw> {
    let bytes = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(3);
    if bytes > MOST_BYTES { Err(Flaw::TooLarge { width, height }) } else { Ok(()) }
}

/// The high byte of each sample.
fn high(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|v| (v >> 8) as u8).collect()
}

/// Pixels of N samples without their last, the alpha.
fn without_alpha<const N: usize>(samples: &[u8]) -> Vec<u8> {
    let (pixels, _) = samples.as_chunks::<N>();
    pixels.iter().flat_map(|pixel| &pixel[..N - 1]).copied().collect()
}

/// Whether a WebP has the bytes its RIFF header promises: their number, less eight, stands in
/// bytes 4 to 7, little-endian.
fn webp_is_whole(bytes: &[u8]) -> bool {
    let promised = bytes.get(4..).and_then(|rest| rest.first_chunk());
    promised.is_some_and(|n| u64::from(u32::from_le_bytes(*n)) + 8 <= bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_told_apart() {
        assert!(matches!(decode(b""), Err(Flaw::Empty)));
        assert!(matches!(decode(b"<html>not found</html>"), Err(Flaw::Format)));
        assert!(matches!(decode(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"), Err(Flaw::Format)));
    }

    #[test]
    fn a_header_that_promises_too_much_takes_no_memory() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0x00, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0xFF, 8, 2, 0, 0, 0]);
        // CRC-32 of the chunk's type and body (ISO 3309), bit by bit.
        let crc = !png[12..].iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
            })
        });
        png.extend(crc.to_be_bytes());
        png.extend(b"\0\0\0\0IDAT\x35\xAF\x06\x1E");
        let error = decode(&png).unwrap_err();
        assert!(matches!(error, Flaw::TooLarge { width: 0xFF_FFFF, .. }), "{error}");
    }
}
