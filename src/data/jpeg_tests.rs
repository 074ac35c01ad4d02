use super::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

#[test]
fn the_end_marker_is_searched_for_outside_segments() {
    let start = [0xFF, 0xD8];
    let segment = [0xFF, 0xE1, 0x00, 0x06, 0xFF, 0xD9, 0xFF, 0xD9];
    let scan = [0xFF, 0xDA, 0x00, 0x02, 0x12, 0xFF, 0x00, 0xFF, 0xD0, 0x34];
    let whole = [&start[..], &segment, &scan, &scan, &[0xFF, 0xD9, 0x77]].concat();
    assert_eq!(scans(&whole), Some(2));
    let padded = [&start[..], &scan, &[0xFF, 0xFF, 0xFF, 0xD9]].concat();
    assert_eq!(scans(&padded), Some(1));
    let reserved = [&start[..], &scan, &[0xFF, 0x5A, 0xFF, 0xF0], &[0xFF, 0xD9]].concat();
    assert_eq!(scans(&reserved), None);
    let reserved = [&start[..], &scan, &[0xFF, 0x5A, 0x34, 0x56], &[0xFF, 0xD9]].concat();
    assert_eq!(scans(&reserved), Some(1));
    for cut in 0..whole.len() - 1 {
        assert_eq!(scans(&whole[..cut]), None, "{cut}");
    }
}

/// The reference JPEGs.
fn files() -> Vec<(String, Vec<u8>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/images.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let file = |(name, view): (String, safetensors::tensor::TensorView)| {
        let name = name.strip_suffix("/file").filter(|name| name.starts_with("jpeg"))?.to_owned();
        Some((name, view.data().to_vec()))
    };
    let mut files: Vec<_> = tensors.into_iter().filter_map(file).collect();
    files.sort();
    files
}

#[test]
fn channels_match_the_decoded_image() {
    let files = files();
    for (name, bytes) in &files {
        assert_eq!(channels(bytes), Some(decode(bytes).unwrap().shape[0]), "{name}");
    }
    assert!(files.iter().any(|(_, bytes)| channels(bytes) == Some(1)), "one image is grey");
    assert_eq!(channels(b"\xFF\xD8 nothing"), None);
}

/// Where the frame's header starts: 0xFF, 0xC0 to 0xC2, length (2), precision, height, width.
fn frame(bytes: &[u8]) -> usize {
    bytes.windows(2).position(|w| w[0] == 0xFF && (0xC0..=0xC2).contains(&w[1])).unwrap()
}

#[test]
fn corrupt_files_are_refused_or_decoded_and_never_crash() {
    let files = files();
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let (mut decoded, mut refused) = (0, 0);
    for round in 0..200 {
        let mut bytes = files[round % files.len()].1.clone();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(2..bytes.len());
            bytes[at] = random.random();
        }
        if round % 4 == 0 {
            bytes.truncate(random.random_range(0..bytes.len()));
            bytes.extend([0xFF, 0xD9]);
        }
        match decode(&bytes) {
            Ok(Frame { levels, shape, .. }) => {
                assert_eq!(levels.len(), shape.iter().product::<usize>());
                decoded += 1;
            }
            Err(cause) => {
                assert!(!cause.to_string().is_empty());
                refused += 1;
            }
        }
    }
    println!("{decoded} decoded, {refused} refused");
    assert!(decoded > 0 && refused > 0);
}

#[test]
fn a_huge_size_in_a_header_allocates_no_memory() {
    for (name, mut bytes) in files().into_iter().take(3) {
        let at = frame(&bytes);
        bytes[at + 5..at + 9].copy_from_slice(&[0xFF, 0x00, 0xFF, 0x00]);
        let cause = decode(&bytes).unwrap_err();
        assert!(
            matches!(cause, DecodeError::TooLarge { width: 0xFF00, height: 0xFF00 }),
            "{name}: {cause}"
        );
    }
}

#[test]
fn a_file_of_thousands_of_scans_is_refused() {
    let (_, bytes) = files().into_iter().find(|(name, _)| name == "jpeg-progressive-420").unwrap();
    let scan = bytes.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap();
    let (head, rest) = bytes.split_at(scan);
    let many = [head, &rest[..rest.len() - 2].repeat(MOST_SCANS), &rest[rest.len() - 2..]].concat();
    let message = decode(&many).unwrap_err().to_string();
    assert!(message.contains("at most 500 scans"), "{message}");
}

#[test]
fn the_library_error_is_reported() {
    let (_, mut bytes) = files().remove(0);
    let at = frame(&bytes);
    bytes[at + 4] = 12;
    let message = decode(&bytes).unwrap_err().to_string();
    assert_eq!(message, "cannot be decoded: Unsupported JPEG data precision 12");
}
