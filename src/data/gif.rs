//! The first frame of a GIF, as Pillow reads it.
//!
//! Pixels that the frame does not cover have the frame's transparent index, or index 0. Transparency is dropped:
//! transparent pixels have the colour of their index in the palette.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::decode::{DecodeError, Frame, MOST_BYTES, check_size};

/// Decodes the first frame. An image without a palette is grey.
///
/// # Errors
/// [`DecodeError::Gif`], [`DecodeError::TooLarge`].
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.check_frame_consistency(true);
    if let Some(most) = NonZeroU64::new(MOST_BYTES) {
        options.set_memory_limit(MemoryLimit::Bytes(most));
    }
    let failed = |error: gif::DecodingError| DecodeError::Gif(error.to_string());
    let mut decoder = options.read_info(bytes).map_err(failed)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    check_size(width as u32, height as u32)?;
    let shared = decoder.global_palette().map(<[u8]>::to_vec);
    let Some(frame) = decoder.read_next_frame().map_err(failed)? else {
        return Err(DecodeError::Gif("it has no frames".into()));
    };
    let mut indices = vec![frame.transparent.unwrap_or(0); width * height];
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let own = usize::from(frame.width);
    if own > 0 {
        for (y, row) in frame.buffer.chunks_exact(own).enumerate() {
            let start = (top + y) * width + left;
            indices[start..start + own].copy_from_slice(row);
        }
    }
    let palette = frame.palette.as_ref().or(shared.as_ref());
    let Some(palette) = palette else {
        return Ok(Frame { levels: indices, shape: [1, height, width], damage: None });
    };
    let levels = colours(&indices, palette)
        .map_err(|index| DecodeError::Gif(format!("colour {index} is not in the palette")))?;
    Ok(Frame { levels, shape: [3, height, width], damage: None })
}

/// The RGB colours of indices; the index that the palette does not have, if there is one.
fn colours(indices: &[u8], palette: &[u8]) -> Result<Vec<u8>, u8> {
    let (palette, _) = palette.as_chunks::<3>();
    let mut out = Vec::with_capacity(3 * indices.len());
    for &index in indices {
        out.extend(palette.get(usize::from(index)).ok_or(index)?);
    }
    Ok(out)
}
