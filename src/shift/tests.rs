//! Compares corruptions with public Python code; see `tests/reference/make_shift.py`.

use super::*;
use safetensors::SafeTensors;
use std::fs;

fn file(name: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/reference/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn shape(of: &[usize]) -> [usize; 3] {
    of.try_into().unwrap()
}

#[test]
fn deterministic_corruptions_match_the_public_programs() {
    let bytes = file("shift.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = 0;
    let mut worst: std::collections::BTreeMap<String, (u8, f64)> = Default::default();
    for (name, expected) in tensors.tensors() {
        let parts: Vec<&str> = name.split('/').collect();
        let [size, corruption, severity] = parts[..] else { continue };
        let image = tensors.tensor(size).unwrap();
        let severity = severity.parse().unwrap();
        let corruption = Corruption::named(corruption).unwrap();
        let found =
            corrupt(image.data(), shape(image.shape()), corruption, severity, 0, 0).unwrap();
        let differences = found.iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b));
        let most = differences.clone().max().unwrap();
        let share = differences.filter(|d| *d > 0).count() as f64 / found.len() as f64;
        println!("{name}: {most} levels at most, {:.2}% off", 100.0 * share);
        let entry = worst.entry(format!("{size} {corruption}")).or_default();
        *entry = (entry.0.max(most), entry.1.max(share));
        seen += 1;
    }
    assert_eq!(seen, 36);
    // The reference sums in f32, so a sum close to the next level may round to it. This mostly
    // affects white and black.
    for (name, (most, share)) in worst {
        let exact = ["jpeg_compression", "contrast", "pixelate"].iter().any(|n| name.ends_with(n));
        let bounds = if exact { (0, 0.0) } else { (1, 0.05) };
        assert!(most <= bounds.0 && share <= bounds.1, "{name}: {most} levels, {share}");
    }
}

#[test]
fn random_corruptions_change_images_as_much_as_the_public_programs() {
    let bytes = file("shift.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&file("shift.json")).unwrap();
    let draws = reference["draws"].as_u64().unwrap() as usize;
    let mut failed = Vec::new();
    for (name, expected) in reference["changes"].as_object().unwrap() {
        let parts: Vec<&str> = name.split('/').collect();
        let image = tensors.tensor(parts[0]).unwrap();
        let (corruption, severity) =
            (Corruption::named(parts[1]).unwrap(), parts[2].parse().unwrap());
        let change = |index: usize| {
            let out = corrupt(image.data(), shape(image.shape()), corruption, severity, 0, index);
            let change: Vec<f64> = out
                .unwrap()
                .iter()
                .zip(image.data())
                .map(|(a, b)| f64::from(*a) - f64::from(*b))
                .collect();
            let mean = change.iter().sum::<f64>() / change.len() as f64;
            let square: f64 = change.iter().map(|x| (x - mean).powi(2)).sum();
            [mean, (square / change.len() as f64).sqrt()]
        };
        let found: Vec<[f64; 2]> = (0..draws).map(change).collect();
        for (i, what) in ["mean", "deviation"].iter().enumerate() {
            let mean = found.iter().map(|f| f[i]).sum::<f64>() / draws as f64;
            let [reference_value, spread] =
                ["mean", "spread"].map(|key| expected[key][i].as_f64().unwrap());
            // Four standard errors of the difference, and a margin. Frost is drawn differently.
            let chance = 4.0 * spread * (2.0 / draws as f64).sqrt();
            let allowed = match corruption {
                Corruption::Frost => chance + 4.0,
                _ => chance + 0.25,
            };
            println!(
                "{name}: {what} of change {mean:.2}, reference {reference_value:.2} ± {chance:.2}"
            );
            if (mean - reference_value).abs() > allowed {
                failed.push(format!(
                    "{name}: {what} {mean} against {reference_value}, allowed {allowed}"
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn any_size_works_and_images_differ() {
    for (h, w, c) in [(1, 1, 3), (1, 7, 1), (5, 2, 3), (28, 28, 1), (17, 70, 1), (33, 66, 3)] {
        let levels: Vec<u8> = (0..h * w * c).map(|i| (37 * i % 256) as u8).collect();
        for corruption in Corruption::ALL {
            for severity in [1, 5] {
                let at = |seed, image| {
                    corrupt(&levels, [h, w, c], corruption, severity, seed, image).unwrap()
                };
                assert_eq!(at(1, 2).len(), levels.len(), "{corruption}");
                assert_eq!(at(1, 2), at(1, 2), "{corruption}");
            }
        }
        if h * w > 100 {
            for corruption in [Corruption::GaussianNoise, Corruption::Fog, Corruption::GlassBlur] {
                let at =
                    |seed, image| corrupt(&levels, [h, w, c], corruption, 5, seed, image).unwrap();
                assert!(at(1, 2) != at(1, 3) && at(1, 2) != at(2, 2), "{corruption}");
            }
        }
    }
}

#[test]
fn invalid_requests_are_reported() {
    let of = |bytes, shape, severity| corrupt(bytes, shape, Corruption::Fog, severity, 0, 0);
    assert!(matches!(of(&[0; 4], [2, 2, 3], 1), Err(Error::Shape { bytes: 4, .. })));
    assert!(matches!(of(&[0; 8], [2, 2, 2], 1), Err(Error::Shape { channels: 2, .. })));
    assert!(matches!(of(&[], [0, 2, 3], 1), Err(Error::Shape { .. })));
    assert!(matches!(of(&[], [usize::MAX, 2, 3], 1), Err(Error::Shape { .. })));
    assert!(matches!(of(&[0], [1, 1, 1], 0), Err(Error::Severity { found: 0 })));
    assert!(matches!(of(&[0], [1, 1, 1], 6), Err(Error::Severity { found: 6 })));
    assert_eq!(Corruption::named("fog"), Some(Corruption::Fog));
    assert_eq!(Corruption::named("rain"), None);
}
