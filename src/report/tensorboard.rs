//! TensorBoard event files: records of `tensorflow.Event` messages in TFRecord framing.
//!
//! A record is its length (u64, little-endian), the masked CRC-32C of these eight bytes, the
//! message, and the masked CRC-32C of the message; the mask is that of TensorFlow's
//! `core/lib/hash/crc32c.h`. Of the messages (`core/util/event.proto`,
//! `core/framework/summary.proto`) only scalars are written.

/// Header record of a file.
pub fn start(wall_time: f64) -> Vec<u8> {
    let mut event = double(1, wall_time);
    event.extend(bytes(3, b"brain.Event:2"));
    record(&event)
}

/// Record of one scalar at a step.
pub fn scalar(wall_time: f64, step: u64, tag: &str, value: f32) -> Vec<u8> {
    let mut one = bytes(1, tag.as_bytes());
    // Field 2, fixed 32-bit.
    one.push(2 << 3 | 5);
    one.extend(value.to_le_bytes());
    let mut event = double(1, wall_time);
    // Field 2, varint.
    event.push(2 << 3);
    event.extend(variable(step));
    event.extend(bytes(5, &bytes(1, &one)));
    record(&event)
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(&length).to_le_bytes());
    out.extend(message);
    out.extend(masked(message).to_le_bytes());
    out
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A fixed 64-bit field.
fn double(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

/// A length-delimited field: string or message.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(variable(value.len() as u64));
    out.extend(value);
    out
}

/// Varint: seven bits per byte, lowest first.
fn variable(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_varints_match_the_specifications() {
        // RFC 3720, B.4: CRC-32C of 32 bytes of 0 is 0x8a9136aa; the mask is undone by hand.
        let unmasked = masked(&[0; 32]).wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(unmasked, 0x8a91_36aa);
        // Example from the Protocol Buffers documentation: 150 is 96 01.
        assert_eq!(variable(150), [0x96, 0x01]);
        assert_eq!(variable(0), [0]);
    }

    #[test]
    fn record_has_length_message_and_checksums() {
        let record = scalar(0.0, 3, "a", 1.0);
        let length = record.len() - 16;
        assert_eq!(record[..8], (length as u64).to_le_bytes());
        // wall_time 0, step 3, summary { value { tag "a", simple_value 1 } }.
        let message = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[0x10, 3, 0x2a, 10, 0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0x80, 0x3f],
        ]
        .concat();
        assert_eq!(record[12..12 + length], message);
    }
}
