//! The first image of a TIFF file, as Pillow reads it.
//!
//! Grey, RGB and CMYK of 8 bits, black and white, and grey and RGB of 16 bits; RGB also with alpha, which is dropped. A file that Pillow would read in another way is refused, such as one with a palette, a rotation,
//! float samples or JPEG data.

use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{PhotometricInterpretation, Tag};
use tiff::{ColorType, TiffError};

use super::decode::{DecodeError, Frame, MOST_BYTES, check_size, high, without_alpha};
use super::jpeg::rgb_of_inverted;

type Tiff<'a> = Decoder<Cursor<&'a [u8]>>;

/// Decodes the first image: grey has one channel, all others three.
///
/// # Errors
/// [`DecodeError::Tiff`], [`DecodeError::TooLarge`].
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
    let mut file = open(bytes)?;
    let (width, height) = file.dimensions().map_err(failed)?;
    check_size(width, height)?;
    let colour = file.colortype().map_err(failed)?;
    check_tags(&mut file)?;
    let inverted = tag(&mut file, Tag::PhotometricInterpretation, u16::MAX)?
        == PhotometricInterpretation::WhiteIsZero.to_u16();
    let samples = file.read_image().map_err(failed)?;
    let (channels, levels) = match (colour, samples) {
        (ColorType::Gray(1), DecodingResult::U8(bits)) => (1, unpacked(&bits, width)),
        (ColorType::Gray(8), DecodingResult::U8(levels)) => (1, levels),
        (ColorType::RGB(8), DecodingResult::U8(levels)) => (3, levels),
        (ColorType::RGBA(8), DecodingResult::U8(levels)) => (3, without_alpha::<4>(&levels)),
        (ColorType::CMYK(8), DecodingResult::U8(levels)) => {
            (3, rgb_of_inverted(&levels.iter().map(|v| 255 - v).collect::<Vec<_>>()))
        }
        // Pillow's mode I;16: values above 255 are clipped, not scaled.
        (ColorType::Gray(16), DecodingResult::U16(levels)) if !inverted => {
            (1, levels.iter().map(|&v| v.min(255) as u8).collect())
        }
        (ColorType::RGB(16), DecodingResult::U16(levels)) => (3, high(&levels)),
        (ColorType::RGBA(16), DecodingResult::U16(levels)) => {
            (3, without_alpha::<4>(&high(&levels)))
        }
        _ => return Err(unread(&format!("{colour:?} samples"))),
    };
    let expected = u64::from(width) * u64::from(height) * channels as u64;
    if levels.len() as u64 != expected {
        return Err(DecodeError::Tiff(format!(
            "expected {expected} levels, found {}",
            levels.len()
        )));
    }
    Ok(Frame { levels, shape: [channels, height as usize, width as usize], damage: None })
}

/// Channels of the image, 1 (grey) or 3 (RGB), according to its header; `None` if it has none.
pub(super) fn channels(bytes: &[u8]) -> Option<usize> {
    let grey = matches!(open(bytes).ok()?.colortype().ok()?, ColorType::Gray(_));
    Some(if grey { 1 } else { 3 })
}

fn open(bytes: &[u8]) -> Result<Tiff<'_>, DecodeError> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 2 * MOST_BYTES as usize;
    // No part of the file is longer than the file.
    limits.intermediate_buffer_size = bytes.len();
    Ok(Decoder::new(Cursor::new(bytes)).map_err(failed)?.with_limits(limits))
}

fn failed(error: TiffError) -> DecodeError {
    match error {
        TiffError::UnsupportedError(what) => unread(&format!("such images ({what})")),
        error => DecodeError::Tiff(error.to_string()),
    }
}

fn unread(what: &str) -> DecodeError {
    DecodeError::Tiff(format!(
        "{what} are not read: save the image as PNG, or as TIFF with 8-bit RGB"
    ))
}

fn tag(file: &mut Tiff, tag: Tag, otherwise: u16) -> Result<u16, DecodeError> {
    let values = file.find_tag_unsigned_vec::<u16>(tag).map_err(failed)?;
    Ok(values.and_then(|values| values.first().copied()).unwrap_or(otherwise))
}

/// Refuses what changes the image in Pillow but not in this decoder.
fn check_tags(file: &mut Tiff) -> Result<(), DecodeError> {
    if tag(file, Tag::Orientation, 1)? != 1 {
        return Err(unread("rotated or mirrored images"));
    }
    if tag(file, Tag::FillOrder, 1)? != 1 {
        return Err(unread("reversed bits"));
    }
    if tag(file, Tag::PlanarConfiguration, 1)? != 1 {
        return Err(unread("separate planes"));
    }
    // Only 2 is alpha that Pillow drops without more ado: 1 is multiplied in, 0 is not specified.
    if tag(file, Tag::ExtraSamples, 2)? != 2 {
        return Err(unread("colours multiplied by alpha, or with other samples,"));
    }
    if tag(file, Tag::SampleFormat, 1)? != 1 {
        return Err(unread("signed or float samples"));
    }
    Ok(())
}

/// Levels of an image of one bit per pixel; each row starts at a byte.
fn unpacked(bits: &[u8], width: u32) -> Vec<u8> {
    let bytes = (width as usize).div_ceil(8).max(1);
    let row = |row: &[u8]| -> Vec<u8> {
        let set = |x: usize| (row[x / 8] >> (7 - x % 8)) & 1 == 1;
        (0..width as usize).map(|x| if set(x) { 255 } else { 0 }).collect()
    };
    bits.chunks_exact(bytes).flat_map(row).collect()
}
