//! JPEG files by libjpeg itself, which Pillow decodes with, too.
//!
//! Decoders are free in how they spread colour stored at half the resolution, and round as they
//! like: levels differ by up to 16 between them. So the library is the same: the exact integer
//! transform ("islow") and linear interpolation of colour ("fancy upsampling").
//!
//! A scan that is damaged still decodes, with a warning, to the levels that Pillow gives on x86-64.

use mozjpeg_sys::J_COLOR_SPACE;

use super::decode::{Flaw, Frame, check_size};
use super::libjpeg::Decoder;

/// Most scans of one image. Encoders write about ten; each makes the decoder go over the whole
/// image, so that a small file of thousands would keep it busy for hours. libjpeg-turbo's own tests
/// on hostile files draw the line here.
const MOST_SCANS: usize = 500;

/// The image in the `bytes` of a JPEG file: grey has one channel, all else is RGB.
///
/// # Errors
/// [`Flaw::Truncated`] without an end marker, [`Flaw::TooLarge`], and [`Flaw::Jpeg`].
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, Flaw> {
    // The library would make up what is missing.
    let scans = scans(bytes).ok_or(Flaw::Truncated("JPEG"))?;
    if scans > MOST_SCANS {
        let found = format!("expected at most {MOST_SCANS} scans, found {scans}");
        return Err(Flaw::Jpeg(found));
    }
    let file = Decoder::open(bytes).map_err(Flaw::Jpeg)?;
    let (width, height) = file.size();
    check_size(width, height)?;
    let (colours, stored) = match file.components() {
        1 => (J_COLOR_SPACE::JCS_GRAYSCALE, 1),
        3 => (J_COLOR_SPACE::JCS_RGB, 3),
        4 => (J_COLOR_SPACE::JCS_CMYK, 4),
        n => return Err(Flaw::Jpeg(format!("expected 1, 3 or 4 channels, found {n}"))),
    };
    let decoded = file.decode(colours, stored).map_err(Flaw::Jpeg)?;
    let (channels, levels) = match stored {
        4 => (3, rgb(&decoded.levels)),
        n => (n, decoded.levels),
    };
    let shape = [channels, height as usize, width as usize];
    Ok(Frame { levels, shape, damage: decoded.warning })
}

/// Channels of the image in the `bytes` of a JPEG file, 1 (grey) or 3 (RGB), by its header; `None` if
/// the header cannot be read.
pub(super) fn channels(bytes: &[u8]) -> Option<usize> {
    let file = Decoder::open(bytes).ok()?;
    Some(if file.components() == 1 { 1 } else { 3 })
}

/// RGB of inverted CMYK, where 255 is no ink, in Pillow's integers: K − ⌊(255 − C)·K / 255⌉.
fn rgb(cmyk: &[u8]) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let level = |light: u8, white: u8| {
        let dark = (255 - u16::from(light)) * u16::from(white) + 128;
        white.saturating_sub((((dark >> 8) + dark) >> 8) as u8)
    };
    pixels.iter().flat_map(|&[c, m, y, k]| [level(c, k), level(m, k), level(y, k)]).collect()
}

/// How many scans there are before the end marker; none without that marker. Pillow refuses a
/// file that ends before it. It is looked for after the scans, not inside a segment such as an
/// embedded thumbnail.
///
/// Markers are 0xFF and a code that is neither 0 (a data byte 0xFF) nor 0xFF (padding). Restart
/// markers 0xD0 to 0xD7, the start 0xD8 and codes below 0xC0 stand alone; the latter occur in damaged
/// scans only, where libjpeg passes over them. All others but the end, 0xD9, are followed by a length of
/// two bytes, which counts itself. A scan starts with 0xDA.
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
