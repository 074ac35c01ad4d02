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
    /// The decoder gave up.
    #[error("cannot be decoded: {0}")]
    Decode(#[from] ImageError),
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
    // The decoders would make up what is missing.
    match format {
        ImageFormat::Jpeg if !jpeg_is_whole(bytes) => return Err(Flaw::Truncated("JPEG")),
        ImageFormat::WebP if !webp_is_whole(bytes) => return Err(Flaw::Truncated("WebP")),
        _ => {}
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 * MOST_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels * 3 > MOST_BYTES || decoder.total_bytes() > 2 * MOST_BYTES {
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
    Ok(Frame { levels, shape: [channels, height as usize, width as usize] })
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

/// Whether the JPEG's end marker is there: after the scans, not inside a segment such as an
/// embedded thumbnail. Pillow refuses a file without it.
///
/// Markers are 0xFF and a code that is neither 0 (a data byte 0xFF) nor 0xFF (padding). Restart
/// markers 0xD0 to 0xD7, 0x01 and the start 0xD8 stand alone; all others but the end, 0xD9, are
/// followed by a length of two bytes, which counts itself.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&[mark, code]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        match (mark, code) {
            (0xFF, 0xD9) => return true,
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, 0x02..=0xFE) => {
                let length = bytes.get(at + 2..).and_then(|rest| rest.first_chunk());
                let Some(length) = length else { return false };
                at += 2 + usize::from(u16::from_be_bytes(*length));
            }
            _ => at += 1,
        }
    }
    false
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
    fn the_end_of_a_jpeg_is_looked_for_outside_its_segments() {
        let start = [0xFF, 0xD8];
        let segment = [0xFF, 0xE1, 0x00, 0x06, 0xFF, 0xD9, 0xFF, 0xD9];
        let scan = [0xFF, 0xDA, 0x00, 0x02, 0x12, 0xFF, 0x00, 0xFF, 0xD0, 0x34];
        let whole = [&start[..], &segment, &scan, &[0xFF, 0xD9, 0x77]].concat();
        assert!(jpeg_is_whole(&whole));
        assert!(jpeg_is_whole(&[&start[..], &scan, &[0xFF, 0xFF, 0xFF, 0xD9]].concat()));
        for cut in 0..whole.len() - 1 {
            assert!(!jpeg_is_whole(&whole[..cut]), "{cut}");
        }
    }

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
