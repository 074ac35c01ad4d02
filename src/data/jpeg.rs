//! Decodes JPEG files with libjpeg, which Pillow also uses.
//!
//! JPEG decoders may upsample colour and round differently, which changes levels by up to 16. The
//! same library and settings are therefore used: the exact integer transform ("islow") and linear
//! interpolation of colour ("fancy upsampling").
//!
//! A damaged scan is decoded, with a warning, to the levels that Pillow gives on x86-64.

use mozjpeg_sys::J_COLOR_SPACE;

use super::decode::{DecodeError, Frame, check_size};
use super::libjpeg::Decoder;

/// Maximum number of scans of one image. Encoders write about ten. Each scan makes the decoder
/// process the whole image, so a small file with thousands of scans would take hours.
/// libjpeg-turbo's tests on hostile files use the same limit.
const MOST_SCANS: usize = 500;

/// Decodes a JPEG file: a grey image has one channel, others are converted to RGB.
///
/// # Errors
/// [`DecodeError::Truncated`] without an end marker, [`DecodeError::TooLarge`], and [`DecodeError::Jpeg`].
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
    // The library would invent the missing data.
    let scans = scans(bytes).ok_or(DecodeError::Truncated("JPEG"))?;
    if scans > MOST_SCANS {
        let found = format!("expected at most {MOST_SCANS} scans, found {scans}");
        return Err(DecodeError::Jpeg(found));
    }
    let file = Decoder::open(bytes).map_err(DecodeError::Jpeg)?;
    let (width, height) = file.size();
    check_size(width, height)?;
    let (colours, stored) = match file.components() {
        1 => (J_COLOR_SPACE::JCS_GRAYSCALE, 1),
        3 => (J_COLOR_SPACE::JCS_RGB, 3),
        4 => (J_COLOR_SPACE::JCS_CMYK, 4),
        n => return Err(DecodeError::Jpeg(format!("expected 1, 3 or 4 channels, found {n}"))),
    };
    let decoded = file.decode(colours, stored).map_err(DecodeError::Jpeg)?;
    let (channels, levels) = match stored {
        4 => (3, rgb_of_inverted(&decoded.levels)),
        n => (n, decoded.levels),
    };
    let shape = [channels, height as usize, width as usize];
    Ok(Frame { levels, shape, damage: decoded.warning })
}

/// Channels of the image in a JPEG file, 1 (grey) or 3 (RGB), according to its header; `None` if
/// the header cannot be read.
pub(super) fn channels(bytes: &[u8]) -> Option<usize> {
    let file = Decoder::open(bytes).ok()?;
    Some(if file.components() == 1 { 1 } else { 3 })
}

/// Converts inverted CMYK, where 255 is no ink, to RGB with Pillow's integers: K − ⌊(255 − C)·K /
/// 255⌉.
pub(super) fn rgb_of_inverted(cmyk: &[u8]) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let level = |light: u8, white: u8| {
        let dark = (255 - u16::from(light)) * u16::from(white) + 128;
        white.saturating_sub((((dark >> 8) + dark) >> 8) as u8)
    };
    pixels.iter().flat_map(|&[c, m, y, k]| [level(c, k), level(m, k), level(y, k)]).collect()
}

/// Number of scans before the end marker; `None` without that marker, since Pillow refuses such a
/// file. The marker is searched for after the scans, not inside a segment such as an embedded
/// thumbnail.
///
/// A marker is 0xFF and a code that is neither 0 (a data byte 0xFF) nor 0xFF (padding). Restart
/// markers 0xD0 to 0xD7, the start 0xD8 and codes below 0xC0 have no payload; codes below 0xC0
/// occur only in damaged scans, where libjpeg skips them. All others except the end, 0xD9, are
/// followed by a length of two bytes, which includes itself. A scan starts with 0xDA.
fn scans(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut scans) = (0, 0);
    while let Some(&[mark, code]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        match (mark, code) {
            (0xFF, 0xD9) => return Some(scans),
            (0xFF, 0x00..=0xBF | 0xD0..=0xD8) => at += 2,
            (0xFF, 0xC0..=0xFE) => {
                let length = bytes.get(at + 2..).and_then(|rest| rest.first_chunk())?;
                at += 2 + usize::from(u16::from_be_bytes(*length));
                scans += usize::from(code == 0xDA);
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
#[path = "jpeg_tests.rs"]
mod tests;
