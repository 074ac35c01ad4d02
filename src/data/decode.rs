//! Decodes an image file to 8-bit levels, with the result of Pillow's `convert("RGB")`.
//!
//! JPEG, PNG, WebP, BMP, TIFF and GIF, recognised by content, not by file name. Common data loaders use
//! `Image.open(f).convert("RGB")`, so checkpoints were trained on its output. Its quirks are
//! reproduced: transparency is dropped without blending; EXIF rotation, colour profiles and gamma
//! are ignored; four-channel JPEGs are always read as inverted CMYK; 16-bit colour keeps its high
//! byte, but 16-bit grey is clipped at 255. Animations give their first frame.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

/// Maximum size of a decoded image in bytes: Pillow's limit of 178,956,970 RGB pixels.
pub(super) const MOST_BYTES: u64 = 1 << 29;

/// A decoded image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// `(H,W,C)`, C being 1 (grey) or 3 (RGB).
    pub levels: Vec<u8>,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// The decoder's warning about damaged data, if it continued.
    pub damage: Option<String>,
}

/// What is wrong with an image file.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The operating system could not read the file.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The format is not supported.
    #[error("expected a JPEG, PNG, WebP, BMP, TIFF or GIF image, found other content")]
    Format,
    /// A JPEG without its end marker, or a WebP shorter than its header states.
    #[error("truncated: the {0} data end early")]
    Truncated(&'static str),
    /// More pixels than Pillow accepts.
    #[error("expected at most 178956970 pixels, found {width}×{height}")]
    TooLarge {
        /// Width in pixels, from the header.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The preprocessing cannot handle the image.
    #[error("{0}")]
    Unfit(Box<super::Error>),
    /// The PNG, WebP or BMP decoder failed.
    #[error("cannot be decoded: {0}")]
    Decode(#[from] ImageError),
    /// The JPEG decoder failed with this message.
    #[error("cannot be decoded: {0}")]
    Jpeg(String),
    /// The GIF decoder failed with this message.
    #[error("cannot be decoded: {0}")]
    Gif(String),
    /// The TIFF decoder failed with this message.
    #[error("cannot be decoded: {0}")]
    Tiff(String),
    /// A BMP image of an unusual kind.
    #[error(
        "BMP images with {0} are not read: save the image as PNG, or as BMP with 24 bits per pixel"
    )]
    Bmp(String),
    /// The JPEG decoder continued after this warning.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Decodes the image in a file's `bytes`.
///
/// # Errors
/// A [`DecodeError`]. Truncated files are refused where Pillow refuses them, never padded.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let format = match image::guess_format(bytes) {
        Ok(format) => format,
        Err(_) => return Err(DecodeError::Format),
    };
    match format {
        ImageFormat::Jpeg => return super::jpeg::decode(bytes),
        ImageFormat::Gif => return super::gif::decode(bytes),
        ImageFormat::Tiff => return super::tiff::decode(bytes),
        ImageFormat::Bmp => check_bmp(bytes)?,
        ImageFormat::Png => {}
        // The decoder would invent the missing data.
        ImageFormat::WebP if !webp_is_whole(bytes) => return Err(DecodeError::Truncated("WebP")),
        ImageFormat::WebP => {}
        _ => return Err(DecodeError::Format),
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 * MOST_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    if decoder.total_bytes() > 2 * MOST_BYTES {
        return Err(DecodeError::TooLarge { width, height });
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

/// Channels of the image in a file's `bytes`, 1 (grey) or 3 (RGB), according to its header; `None`
/// if it is not an image.
pub(super) fn channels(bytes: &[u8]) -> Option<usize> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => super::jpeg::channels(bytes),
        ImageFormat::Gif | ImageFormat::Bmp => Some(decode(bytes).ok()?.shape[0]),
        ImageFormat::Tiff => super::tiff::channels(bytes),
        format @ (ImageFormat::Png | ImageFormat::WebP) => {
            let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder();
            Some(if decoder.ok()?.color_type().has_color() { 3 } else { 1 })
        }
        _ => None,
    }
}

/// Refuses images that need too much memory, before allocating any.
pub(super) fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    let bytes = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(3);
    if bytes > MOST_BYTES { Err(DecodeError::TooLarge { width, height }) } else { Ok(()) }
}

/// Refuses BMP images that Pillow reads in another way: 16 bits per pixel, compressed rows, colours at unusual
/// bits. The header has its length at byte 14, bits per pixel at 28, the compression at 30 and masks at 54.
fn check_bmp(bytes: &[u8]) -> Result<(), DecodeError> {
    let word = |at: usize| {
        let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
        four.map(|four| u32::from_le_bytes(*four)).ok_or(DecodeError::Truncated("BMP"))
    };
    let (header, bits) = (word(14)?, word(26)? >> 16);
    if header < 40 {
        return Err(DecodeError::Bmp(format!("a header of {header} bytes")));
    }
    match (word(30)?, bits) {
        (0, 1 | 4 | 8 | 24 | 32) => Ok(()),
        (3, 32) if [word(54)?, word(58)?, word(62)?] == [0xFF_0000, 0xFF00, 0xFF] => Ok(()),
        (compression, bits) => {
            Err(DecodeError::Bmp(format!("{bits} bits per pixel and compression {compression}")))
        }
    }
}

/// The high byte of each sample.
pub(super) fn high(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|v| (v >> 8) as u8).collect()
}

/// Pixels of N samples, without their last sample, the alpha.
pub(super) fn without_alpha<const N: usize>(samples: &[u8]) -> Vec<u8> {
    let (pixels, _) = samples.as_chunks::<N>();
    pixels.iter().flat_map(|pixel| &pixel[..N - 1]).copied().collect()
}

/// Whether a WebP has all bytes that its RIFF header states: bytes 4 to 7, little-endian, are the
/// file size minus 8.
fn webp_is_whole(bytes: &[u8]) -> bool {
    let promised = bytes.get(4..).and_then(|rest| rest.first_chunk());
    promised.is_some_and(|n| u64::from(u32::from_le_bytes(*n)) + 8 <= bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_content_is_recognised() {
        assert!(matches!(decode(b""), Err(DecodeError::Empty)));
        assert!(matches!(decode(b"<html>not found</html>"), Err(DecodeError::Format)));
        assert!(matches!(decode(b"%PDF-1.4"), Err(DecodeError::Format)));
        assert!(matches!(decode(b"DDS |\0\0\0"), Err(DecodeError::Format)));
        // A GIF without frames.
        let empty = decode(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;");
        assert!(matches!(empty, Err(DecodeError::Gif(_))), "{empty:?}");
    }

    #[test]
    fn a_huge_size_in_a_header_allocates_no_memory() {
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
        assert!(matches!(error, DecodeError::TooLarge { width: 0xFF_FFFF, .. }), "{error}");
    }
}
