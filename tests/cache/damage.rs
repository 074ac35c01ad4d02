//! Damaged or foreign cache files are never used.

use super::small::{images, model};
use super::{names, open, prefix, rows};
use candle_core::DType;
use planish::cache::{
    About, ActivationDtype, ActivationLayout, CacheFileKind, CachePolicy, FORMAT, Writer, clear,
    list,
};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A folder with the cache file of six images at stage 3; returns its name and bytes.
fn cached_file(folder: &Path) -> (String, Vec<u8>) {
    let model = model(DType::F32);
    let all = images(&model, 6);
    open(prefix(&model, &all, 3), CachePolicy::Disk, folder);
    let [name] = names(folder).try_into().unwrap();
    let bytes = fs::read(folder.join(&name)).unwrap();
    (name, bytes)
}

#[test]
fn truncation_flipped_bits_and_wrong_headers_are_detected_and_repaired() {
    let model = model(DType::F32);
    let all = images(&model, 6);
    let folder = tempfile::tempdir().unwrap();
    let (name, good) = cached_file(folder.path());
    let path = folder.path().join(&name);
    let (expected, _) = open(prefix(&model, &all, 3), CachePolicy::Ram, folder.path());
    let expected = rows(&expected, 1);
    let mut cases: Vec<Vec<u8>> = Vec::new();
    for length in [0, 7, 8, 100, good.len() / 2, good.len() - 4, good.len() - 1] {
        cases.push(good[..length].to_vec());
    }
    cases.push([&good[..], &[0]].concat());
    for length in [0, 1, 16, 1 << 16, 1 << 40, u64::MAX] {
        cases.push([&u64::to_le_bytes(length)[..], &good[8..]].concat());
    }
    let text = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + to.len()..]].concat()
    };
    cases.push(text("F32", "F64"));
    cases.push(text("[6,5,8]", "[5,6,8]"));
    cases.push(text("activations", "activationz"));
    cases.push(text(&name[..64], &"0".repeat(64)));
    cases.push(text("{\"__metadata__\"", "{\"__metadata__'"));
    // One flipped bit in each part: first to last row, first to last checksum.
    let data = good.len() - 6 * 4 - 6 * 160;
    for at in (data..good.len()).step_by(37).chain([
        data,
        good.len() - 25,
        good.len() - 24,
        good.len() - 1,
    ]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        cases.push(bytes);
    }
    for (i, bytes) in cases.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let (source, events) = open(prefix(&model, &all, 3), CachePolicy::Disk, folder.path());
        assert_eq!((events.damaged.len(), events.computed, events.found), (1, 6, 0), "case {i}");
        let note = &events.damaged[0];
        assert!(
            note.contains(&name) && note.contains("expected") && note.contains("found"),
            "{note}"
        );
        assert_eq!(rows(&source, 1), expected);
        assert!(fs::read(&path).unwrap() == good, "case {i}");
        assert_eq!(names(folder.path()), [&*name]);
    }
}

/// A valid file with values that this build does not compute.
#[test]
fn rows_that_this_build_does_not_reproduce_are_rejected() {
    let model = model(DType::F32);
    let all = images(&model, 6);
    let folder = tempfile::tempdir().unwrap();
    let (name, good) = cached_file(folder.path());
    let layout = ActivationLayout { rows: 6, row: vec![5, 8], stored: ActivationDtype::F32 };
    for row in [0, 3, 5] {
        let mut rows = good[good.len() - 6 * 4 - 6 * 160..good.len() - 6 * 4].to_vec();
        rows[row * 160] ^= 1;
        let about = About { key: name[..64].into(), format: FORMAT.into(), ..About::default() };
        let mut writer = Writer::create(folder.path(), &layout, &about).unwrap();
        writer.add(&rows).unwrap();
        writer.finish().unwrap();
        let (_, events) = open(prefix(&model, &all, 3), CachePolicy::Disk, folder.path());
        assert_eq!((events.stale, events.found, events.computed), (1, 0, 6));
        assert!(fs::read(folder.path().join(&name)).unwrap() == good);
    }
}

#[test]
fn a_file_that_changes_during_a_run_stops_it() {
    let model = model(DType::F32);
    let all = images(&model, 6);
    let folder = tempfile::tempdir().unwrap();
    let (name, good) = cached_file(folder.path());
    let (source, _) = open(prefix(&model, &all, 3), CachePolicy::Disk, folder.path());
    let mut bytes = good.clone();
    let last = bytes.len() - 6 * 4 - 1;
    bytes[last] ^= 4;
    fs::write(folder.path().join(&name), &bytes).unwrap();
    assert!(source.batch(&[(0, 0), (0, 4)]).is_ok());
    let error = source.batch(&[(0, 4), (0, 5)]).unwrap_err().to_string();
    assert!(error.contains("row 5") && error.contains("run again"), "{error}");
    fs::write(folder.path().join(&name), &good[..good.len() - 500]).unwrap();
    assert!(source.batch(&[(0, 5)]).is_err());
    // A deleted file remains readable for processes that have it open.
    fs::write(folder.path().join(&name), &good).unwrap();
    fs::remove_file(folder.path().join(&name)).unwrap();
    assert!(source.batch(&[(0, 5)]).is_ok());
}

#[test]
fn a_file_appears_only_when_complete() {
    let folder = tempfile::tempdir().unwrap();
    let layout = ActivationLayout { rows: 2, row: vec![3], stored: ActivationDtype::F32 };
    let about = About { key: "a".repeat(64), format: FORMAT.into(), ..About::default() };
    let mut writer = Writer::create(folder.path(), &layout, &about).unwrap();
    writer.add(&[1; 12]).unwrap();
    assert!(writer.add(&[1; 11]).is_err());
    let [part] = names(folder.path()).try_into().unwrap();
    assert!(part.ends_with(".planish-part"), "{part}");
    assert!(matches!(list(folder.path()).unwrap()[0].found, CacheFileKind::BeingWritten));
    // The unfinished file of a running process is kept.
    assert_eq!(clear(folder.path(), Duration::ZERO).unwrap().0, 0);
    assert!(writer.finish().is_err(), "a row is missing");
    assert!(names(folder.path()).is_empty());

    // The unfinished file of a killed run is removed by the next run, if it is old enough.
    let leftover = folder.path().join(&part);
    for (age, kept) in [(0, true), (3600, false)] {
        let file = fs::File::create(&leftover).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        drop(file);
        let mut listed = list(folder.path()).unwrap().into_iter();
        assert!(listed.any(|entry| matches!(entry.found, CacheFileKind::Abandoned)));
        let mut writer = Writer::create(folder.path(), &layout, &about).unwrap();
        writer.add(&[1; 24]).unwrap();
        writer.finish().unwrap();
        assert_eq!(leftover.exists(), kept);
    }
    fs::write(&leftover, "").unwrap();
    fs::write(folder.path().join("mine.safetensors"), "precious").unwrap();
    assert_eq!(clear(folder.path(), Duration::ZERO).unwrap().0, 2);
    assert_eq!(names(folder.path()), ["mine.safetensors"]);
}

#[test]
fn concurrent_runs_do_not_interfere() {
    let model = model(DType::F32);
    let all = images(&model, 30);
    let folder = tempfile::tempdir().unwrap();
    let (expected, _) = open(prefix(&model, &all, 3), CachePolicy::Ram, folder.path());
    let expected = rows(&expected, 1);
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (source, events) =
                        open(prefix(&model, &all, 3), CachePolicy::Disk, folder.path());
                    assert_eq!((events.damaged.len(), events.stale), (0, 0));
                    assert_eq!(rows(&source, 1), expected);
                });
            }
        });
        let [name] = names(folder.path()).try_into().unwrap();
        fs::remove_file(folder.path().join(name)).unwrap();
    }
}
