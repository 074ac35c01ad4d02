use super::*;

/// Paths of two files and of a patch, in one folder. B has a tensor of another type, lacks one
/// tensor and has one more.
fn pair() -> (TempDir, PathBuf, PathBuf, PathBuf) {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (a, b, patch) = (at("a.safetensors"), at("b.safetensors"), at("p.safetensors"));
    let mut tensors = raw(&small());
    write(&a, &tensors, &[("note", "kept é")]);
    tensors.get_mut("head.bias").unwrap().2.fill(7);
    tensors.insert("norm.bias".into(), (Dtype::F16, vec![8], vec![1; 16]));
    tensors.remove("norm.weight");
    tensors.insert("extra".into(), (Dtype::U8, vec![3], vec![1, 2, 3]));
    write(&b, &tensors, &[("note", "other \"quoted\""), ("more", "\u{1f33f}")]);
    (dir, a, b, patch)
}

#[test]
fn a_patch_has_only_the_changed_tensors_and_gives_the_same_file() {
    let (dir, a, b, path) = pair();
    Patch::between(&a, &b).unwrap().write(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let contents = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = contents.names();
    names.sort_unstable();
    assert_eq!(names, ["extra", "head.bias", "norm.bias"]);
    let patch = Patch::read(&path).unwrap();
    assert_eq!(patch, Patch::between(&a, &b).unwrap());
    assert_eq!((patch.names(), patch.size()), (names, 3 + 12 + 16));
    let out = dir.path().join("new/c.safetensors");
    patch.write_applied(&a, &out).unwrap();
    assert_eq!(fs::read(out).unwrap(), fs::read(&b).unwrap());
}

#[test]
fn a_patch_applied_in_place_can_be_undone() {
    let (_dir, a, b, _) = pair();
    let before = fs::read(&a).unwrap();
    Patch::between(&a, &b).unwrap().apply_in_place(&a).unwrap();
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    undo(&a).unwrap();
    assert_eq!(fs::read(&a).unwrap(), before);
}

#[test]
fn the_wrong_parent_is_refused_and_unchanged() {
    let (_dir, a, b, _) = pair();
    let patch = Patch::between(&a, &b).unwrap();
    let before = fs::read(&b).unwrap();
    let found = patch.apply_in_place(&b).unwrap_err();
    assert!(matches!(found, Error::Refused(Refused::Parent { .. })), "{found}");
    assert_eq!(fs::read(&b).unwrap(), before);
}

#[test]
fn damaged_patches_are_refused_and_write_nothing() {
    let (dir, a, b, path) = pair();
    let good = Patch::between(&a, &b).unwrap();
    let out = dir.path().join("c.safetensors");
    // One byte of one tensor.
    good.write(&path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = Patch::read(&path).unwrap().write_applied(&a, &out).unwrap_err();
    assert!(matches!(found, Error::Refused(Refused::Patched { .. })), "{found}");
    // A truncated header, and missing tensors.
    let short = Patch { header: good.header[..good.header.len() / 2].to_vec(), ..good.clone() };
    assert!(matches!(short.write_applied(&a, &out), Err(Error::Header { .. })));
    let empty = Patch { tensors: HashMap::new(), ..good };
    assert!(matches!(empty.write_applied(&a, &out), Err(Error::Refused(Refused::Patched { .. }))));
    assert!(!out.exists());
    // Files of other kinds.
    let other = Patch::read(&a).unwrap_err();
    assert!(matches!(other, Error::Refused(Refused::NotAPatch { .. })), "{other}");
    write(&path, &HashMap::new(), &[(PATCH_KEY, r#"{"schema":"planish.patch/9"}"#)]);
    let other = Patch::read(&path).unwrap_err();
    assert!(matches!(other, Error::Refused(Refused::NotAPatch { .. })), "{other}");
}
