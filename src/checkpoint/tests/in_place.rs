use super::*;
use candle_core::Device;
use sha2::{Digest, Sha256};

/// A checkpoint as a single file in its own folder.
pub(super) fn file() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vit.safetensors");
    let text = configuration().to_string();
    write(&path, &raw(&small()), &[("note", "kept é"), (CONFIG_KEY, &text)]);
    (dir, path)
}

fn undo_file(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.planish-undo.safetensors", path.display()))
}

/// Tunes one tensor in place: adds `by` to it.
fn tune(path: &Path, name: &str, by: f64) -> SavedCheckpoint {
    let checkpoint = open(path).unwrap();
    let held = checkpoint.hold().unwrap();
    let i = checkpoint.weights.index(name).unwrap();
    let trained = (checkpoint.weights.tensor(i) + by).unwrap();
    let weights = checkpoint.weights.with(&[(i, trained)]);
    checkpoint.save_over(&held, &weights, &provenance("pol")).unwrap()
}

fn names_in(dir: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn tuning_in_place_and_undoing_it_restores_every_byte() {
    let (dir, path) = file();
    let before = fs::read(&path).unwrap();
    let saved = tune(&path, "head.bias", 0.5);
    assert_eq!(
        (saved.path.as_path(), saved.rounding),
        (&*path, Rounding { moved: 3, unchanged: 0 })
    );
    assert_eq!(saved.undo, Some(undo_file(&path.canonicalize().unwrap())));
    let tuned = open(&path).unwrap();
    assert_eq!(tuned.provenance, Some(provenance("pol")));
    // The undo file is a safetensors file with only the replaced tensor.
    let bytes = fs::read(undo_file(&path)).unwrap();
    let kept = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(kept.names(), ["head.bias"]);
    assert_eq!(kept.tensor("head.bias").unwrap().data(), raw(&small())["head.bias"].2);
    let undone = undo(&path).unwrap();
    assert_eq!(
        (undone.tensors, undone.digest),
        (vec!["head.bias".to_string()], hex(&Sha256::digest(&before)))
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names_in(&dir), ["vit.safetensors"]);
    let again = undo(&path);
    assert!(matches!(again, Err(Error::Refused(Refused::NoUndo { .. }))), "{again:?}");
}

#[test]
fn undo_returns_to_the_state_before_the_first_of_many_tunings() {
    let (_dir, path) = file();
    let before = fs::read(&path).unwrap();
    for (name, by) in [("head.bias", 1.0), ("norm.weight", -1.0), ("head.bias", 2.0)] {
        tune(&path, name, by);
    }
    assert_eq!(undo(&path).unwrap().tensors, ["head.bias", "norm.weight"]);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn undo_works_after_an_interruption_at_any_point() {
    let (_dir, path) = file();
    let mut states = vec![fs::read(&path).unwrap()];
    for (name, by) in [("head.bias", 1.0), ("norm.weight", -1.0)] {
        tune(&path, name, by);
        // Undo files are written first, so an interruption leaves the previous checkpoint.
        let undo_bytes = fs::read(undo_file(&path)).unwrap();
        let newest = fs::read(&path).unwrap();
        for state in &states {
            fs::write(&path, state).unwrap();
            let undone = undo(&path).unwrap();
            assert_eq!(undone.tensors.is_empty(), state == &states[0]);
            assert_eq!(fs::read(&path).unwrap(), states[0]);
            fs::write(undo_file(&path), &undo_bytes).unwrap();
        }
        fs::write(&path, &newest).unwrap();
        states.push(newest);
    }
}

#[test]
fn an_undo_file_of_another_state_is_never_overwritten() {
    let (_dir, path) = file();
    tune(&path, "head.bias", 1.0);
    let kept = fs::read(undo_file(&path)).unwrap();
    let mut other = raw(&small());
    other.get_mut("head.bias").unwrap().2.fill(0);
    write(&path, &other, &[(CONFIG_KEY, &configuration().to_string())]);
    let stale = |e: Error| assert!(matches!(e, Error::Refused(Refused::StaleUndo { .. })), "{e}");
    stale(undo(&path).unwrap_err());
    stale(open(&path).unwrap().hold().unwrap_err());
    assert_eq!(fs::read(undo_file(&path)).unwrap(), kept);
}

#[test]
fn a_damaged_undo_file_is_reported_and_nothing_is_written() {
    let (_dir, path) = file();
    tune(&path, "head.bias", 1.0);
    let tuned = fs::read(&path).unwrap();
    fs::write(undo_file(&path), b"no patch").unwrap();
    for error in [undo(&path).unwrap_err(), open(&path).unwrap().hold().unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, Error::Refused(Refused::DamagedUndo { .. })), "{text}");
        assert!(text.contains("planish-undo") && text.contains("move it away"), "{text}");
    }
    assert_eq!(fs::read(&path).unwrap(), tuned);
    assert_eq!(fs::read(undo_file(&path)).unwrap(), b"no patch");
}

#[test]
fn a_second_writer_and_a_changed_file_are_refused() {
    let (dir, path) = file();
    let checkpoint = open(&path).unwrap();
    let held = checkpoint.hold().unwrap();
    let second = checkpoint.hold();
    assert!(matches!(second, Err(Error::Refused(Refused::Locked { .. }))), "{second:?}");
    assert!(matches!(undo(&path), Err(Error::Refused(Refused::Locked { .. }))));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = checkpoint.save_over(&held, &checkpoint.weights, &provenance("pol"));
    assert!(matches!(found, Err(Error::Changed { .. })), "{found:?}");
    drop(held);
    assert!(matches!(checkpoint.hold(), Err(Error::Changed { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(names_in(&dir), ["vit.safetensors"]);
}

#[cfg(unix)]
#[test]
fn permissions_are_kept_and_links_followed() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path) = file();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let links = TempDir::new().unwrap();
    let link = links.path().join("model.safetensors");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let before = fs::read(&path).unwrap();
    tune(&link, "head.bias", 1.0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_ne!(fs::read(&path).unwrap(), before);
    for file in [&path, &undo_file(&path)] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o640);
    }
    assert_eq!(names_in(&links), ["model.safetensors"]);
    assert_eq!(names_in(&dir).len(), 2);
    undo(&link).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[cfg(unix)]
#[test]
fn leftover_temp_files_are_replaced_and_links_not_followed() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path) = file();
    let victim = dir.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    let temp_link = dir.path().join(".vit.safetensors.planish-new");
    std::os::unix::fs::symlink(&victim, &temp_link).unwrap();
    let temp_undo = dir.path().join(".vit.safetensors.planish-undo-new");
    fs::write(&temp_undo, "cut short").unwrap();
    fs::set_permissions(&temp_undo, fs::Permissions::from_mode(0o400)).unwrap();
    tune(&path, "head.bias", 1.0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(
        names_in(&dir),
        ["victim", "vit.safetensors", "vit.safetensors.planish-undo.safetensors"]
    );
}

#[test]
fn missing_disk_space_is_detected_before_writing() {
    let (_dir, path) = file();
    let held = open(&path).unwrap().hold().unwrap();
    held.check_space(0).unwrap();
    let found = held.check_space(u64::MAX).unwrap_err();
    assert!(matches!(found, Error::Refused(Refused::NoSpace { .. })), "{found}");
}

#[test]
fn rounding_to_the_stored_type_is_counted() {
    let mut tensors = raw(&small());
    let ones: Vec<u8> = [half::bf16::ONE; 3].iter().flat_map(|x| x.to_le_bytes()).collect();
    tensors.insert("head.bias".into(), (Dtype::BF16, vec![3], ones));
    let dir = folder(&tensors, &configuration());
    let checkpoint = open(dir.path()).unwrap();
    let i = checkpoint.weights.index("head.bias").unwrap();
    // The next bf16 number after 1 is 1 + 2⁻⁷. The first value rounds to 1, the second changes, and
    // the third was not trained.
    let trained = Tensor::new(&[1.0 + 2f32.powi(-9), 1.0 + 2f32.powi(-7), 1.0], &Device::Cpu);
    let weights = checkpoint.weights.with(&[(i, trained.unwrap())]);
    let out = TempDir::new().unwrap();
    let saved =
        checkpoint.save(&out.path().join("b.safetensors"), &weights, &provenance("sgd")).unwrap();
    assert_eq!(saved.rounding, Rounding { moved: 2, unchanged: 1 });
}
