use super::*;
use candle_core::Device;

/// Writes a file with unusual orders of header and data. Returns the names in header order.
fn shuffled(path: &Path) -> Vec<String> {
    let tensors = raw(&small());
    let mut names: Vec<String> =
        small().declare().params().iter().map(|p| p.name.clone()).collect();
    names.reverse();
    let (mut spans, mut at, mut data) = (HashMap::new(), 0, Vec::<u8>::new());
    let middle = names.len() / 2;
    for name in names[middle..].iter().chain(&names[..middle]) {
        let bytes = &tensors[name].2;
        spans.insert(name, (at, at + bytes.len()));
        at += bytes.len();
        data.extend(bytes);
    }
    let entry = |name: &String| {
        let shape = &tensors[name].1;
        let (start, end) = spans[name];
        format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
    };
    let entries: Vec<String> = names.iter().map(entry).collect();
    let metadata = json!({"z": "1", "format": "pt", CONFIG_KEY: configuration().to_string()});
    let json = format!(r#"{{"__metadata__":{metadata},{}}}"#, entries.join(","));
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json.bytes());
    file.extend(data);
    fs::write(path, file).unwrap();
    names
}

fn read(path: &Path) -> (Vec<u8>, Header) {
    let bytes = fs::read(path).unwrap();
    let header = Header::read(path, &bytes).unwrap();
    (bytes, header)
}

#[test]
fn untouched_weights_are_saved_byte_for_byte_in_order() {
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("a.safetensors"), dir.path().join("new/b.safetensors"));
    let names = shuffled(&from);
    let checkpoint = open(&from).unwrap();
    let path = checkpoint.save(&to, &checkpoint.weights, &provenance("pol")).unwrap().path;
    assert_eq!(path, to);
    let ((old, before), (new, after)) = (read(&from), read(&to));
    assert_eq!(old[before.data_start..], new[after.data_start..]);
    assert_eq!(after.data_start % 8, 0);
    assert!(after.entries.iter().map(|e| &e.name).eq(&names));
    assert_eq!(before.entries, after.entries);
    assert_eq!(before.metadata, after.metadata[..3]);
    assert_eq!(after.metadata[3].0, PROVENANCE_KEY);
    assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
    // The `safetensors` crate can read the file.
    safetensors::SafeTensors::deserialize(&new).unwrap();
    let reopened = open(&to).unwrap();
    assert_eq!(reopened.provenance, Some(provenance("pol")));
    let third = dir.path().join("c.safetensors");
    reopened.save(&third, &reopened.weights, &provenance("sgd")).unwrap();
    let steps = super::super::provenance::provenance(&third, &read(&third).1.metadata).unwrap();
    let methods: Vec<_> = steps.iter().map(|step| step["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["pol", "sgd"]);
}

#[test]
fn only_trained_tensors_change_and_keep_their_type() {
    let mut tensors = raw(&small());
    let stored = [1.0f32, 2.0, 3.0].map(half::f16::from_f32);
    let bytes: Vec<u8> = stored.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensors.insert("head.bias".into(), (Dtype::F16, vec![3], bytes));
    let third = (1.0f64 / 3.0).to_le_bytes().repeat(8);
    tensors.insert("norm.bias".into(), (Dtype::F64, vec![8], third.clone()));
    let dir = folder(&tensors, &configuration());
    let checkpoint = open(dir.path()).unwrap();
    let out = TempDir::new().unwrap();
    let to = out.path().join("tuned");
    let i = checkpoint.weights.index("head.bias").unwrap();
    let trained = Tensor::new(&[1.0f32, 2.0 + 2f32.powi(-10), -0.1], &Device::Cpu).unwrap();
    let weights = checkpoint.weights.with(&[(i, trained)]);
    let path = checkpoint.save(&to, &weights, &provenance("sgd")).unwrap().path;
    assert_eq!(path, to.join("model.safetensors"));
    let bytes = fs::read(&path).unwrap();
    let saved = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, (dtype, shape, old)) in &tensors {
        let view = saved.tensor(name).unwrap();
        assert_eq!((view.dtype(), view.shape()), (*dtype, shape.as_slice()));
        assert_eq!(view.data() == old, name != "head.bias", "{name}");
    }
    // Untrained f64 values are kept even if f32 cannot represent them.
    assert_eq!(saved.tensor("norm.bias").unwrap().data(), third);
    let expected = [1.0, 2.0, -0.1].map(half::f16::from_f32);
    let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(saved.tensor("head.bias").unwrap().data(), expected);
    let (old, new) = (dir.path().join("config.json"), to.join("config.json"));
    assert_eq!(fs::read(old).unwrap(), fs::read(new).unwrap());
    let metadata = &read(&path).1.metadata;
    assert!(metadata.contains(&("note".into(), "kept é".into())));
    let huge = Tensor::new(&[1e6f32, 0.0, 0.0], &Device::Cpu).unwrap();
    let other = out.path().join("huge");
    let found = checkpoint.save(&other, &weights.with(&[(i, huge)]), &provenance("sgd"));
    assert!(matches!(found, Err(Error::Overflow { dtype: "F16", .. })));
}

#[test]
fn a_folder_saved_as_a_file_contains_its_configuration() {
    let dir = folder(&raw(&small()), &configuration());
    let checkpoint = open(dir.path()).unwrap();
    let to = TempDir::new().unwrap();
    let path = to.path().join("one.safetensors");
    checkpoint.save(&path, &checkpoint.weights, &provenance("pol")).unwrap();
    let reopened = open(&path).unwrap();
    assert_eq!(
        (reopened.config.vit().unwrap(), reopened.preprocess),
        (checkpoint.config.vit().unwrap(), checkpoint.preprocess)
    );
}

#[test]
fn the_input_is_never_overwritten() {
    let dir = folder(&raw(&small()), &configuration());
    let checkpoint = open(dir.path()).unwrap();
    let before = fs::read(&checkpoint.path).unwrap();
    for out in [dir.path().to_path_buf(), checkpoint.path.clone(), dir.path().join("./")] {
        let found = checkpoint.save(&out, &checkpoint.weights, &provenance("pol"));
        assert!(matches!(found, Err(Error::Output { .. })));
    }
    assert_eq!(fs::read(&checkpoint.path).unwrap(), before);
    fs::write(&checkpoint.path, "changed").unwrap();
    let out = dir.path().join("out");
    let found = checkpoint.save(&out, &checkpoint.weights, &provenance("pol"));
    assert!(matches!(found, Err(Error::Changed { .. })));
}

#[test]
fn an_earlier_result_is_replaced_but_another_checkpoint_is_not() {
    let dir = folder(&raw(&small()), &configuration());
    let checkpoint = open(dir.path()).unwrap();
    let child = Provenance { parent_digest: Some(checkpoint.digest.clone()), ..provenance("pol") };
    let out = TempDir::new().unwrap();
    let (to, foreign) = (out.path().join("tuned"), out.path().join("foreign.safetensors"));
    for _ in 0..2 {
        checkpoint.save(&to, &checkpoint.weights, &child).unwrap();
    }
    write(&foreign, &raw(&small()), &[]);
    let before = fs::read(&foreign).unwrap();
    let found = checkpoint.save(&foreign, &checkpoint.weights, &child).unwrap_err().to_string();
    assert!(found.contains("another checkpoint") && found.contains("`out`"), "{found}");
    assert_eq!(fs::read(&foreign).unwrap(), before);
}

#[test]
fn unwritable_outputs() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    fs::create_dir(dir.path().join("x.safetensors")).unwrap();
    for out in [
        file.clone(),
        file.join("deeper/x.safetensors"),
        file.join("folder"),
        dir.path().join("x.safetensors"),
        PathBuf::from("/proc/planish/x.safetensors"),
        PathBuf::new(),
    ] {
        let found = check_writable(&out).unwrap_err();
        assert!(found.to_string().contains("`out`"), "{found}");
    }
    check_writable(&dir.path().join("new/deep/folder")).unwrap();
    check_writable(&dir.path().join("new.safetensors")).unwrap();
    check_writable(Path::new("new.safetensors")).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    let out = dir.path().join("new/folder");
    check_space(&out, 1).unwrap();
    let found = check_space(&out, 1 << 60).unwrap_err().to_string();
    assert!(found.contains("MiB free, and 1099511627777 MiB are needed"), "{found}");
}

#[test]
fn a_created_model_opens_again() {
    let mut config = small();
    (config.layer_scale, config.registers, config.position_covers_prefix) = (true, 2, false);
    let weights = Weights::random(&config.network().unwrap(), 1).unwrap();
    let preprocess = Preprocess {
        image_size: [28, 28],
        channels: 1,
        resize: Resize::ShortSide(31),
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.286],
        std: vec![0.353],
    };
    let classes = ["a", "b", "c"].map(String::from);
    let dir = TempDir::new().unwrap();
    let other = Preprocess { crop_offset: CropOffset::Down, ..preprocess.clone() };
    let refused = create(
        dir.path(),
        &config.clone().into(),
        Some(&other),
        &weights,
        None,
        &provenance("finetune"),
    );
    assert!(matches!(refused, Err(Error::Inexpressible { reason }) if reason.contains("crop")));
    for out in [dir.path().join("folder"), dir.path().join("file.safetensors")] {
        let origin = provenance("finetune");
        create(&out, &config.clone().into(), Some(&preprocess), &weights, Some(&classes), &origin)
            .unwrap();
        let checkpoint = open(&out).unwrap();
        assert_eq!(checkpoint.config.vit().unwrap(), &config);
        assert_eq!(checkpoint.preprocess.as_ref(), Some(&preprocess));
        assert_eq!(checkpoint.class_names.as_deref(), Some(classes.as_slice()));
        assert_eq!(checkpoint.provenance, Some(origin));
        for ((_, a), (_, b)) in checkpoint.weights.iter().zip(weights.iter()) {
            assert!(!numbers::moved(a, b).unwrap().contains(&true));
        }
    }
    config.eps = 1e-12;
    let out = dir.path().join("other");
    let found = create(&out, &config.into(), None, &weights, None, &provenance("finetune"));
    assert!(matches!(found, Err(Error::Inexpressible { .. })));
}

#[test]
fn a_file_that_changes_during_a_command_is_detected_by_every_reader() {
    let (_dir, path) = super::in_place::file();
    let whole = fs::read(&path).unwrap();
    let start = OnDisk::open(&path).unwrap().header.data_start;
    let mut other_data = whole.clone();
    other_data[start] ^= 1;
    let mut other_header = whole.clone();
    assert_eq!(std::mem::replace(&mut other_header[start - 1], b'\n'), b' ', "padding");
    let shorter = whole[..whole.len() - 1].to_vec();
    let longer = [&whole[..], &[0]].concat();
    for bytes in [other_data, shorter, longer] {
        fs::write(&path, &whole).unwrap();
        let checkpoint = open(&path).unwrap();
        let opened = checkpoint.reopen().unwrap();
        fs::write(&path, &bytes).unwrap();
        let mut found = vec![checkpoint.weights_as(DType::F64).map(|_| ())];
        found.push(checkpoint.round_trip().map(|_| ()));
        if bytes.len() <= whole.len() {
            found.push(opened.digest().and_then(|digest| checkpoint.unchanged(&digest)));
        }
        for found in found {
            assert!(matches!(found, Err(Error::Changed { .. })), "{found:?}, {}", bytes.len());
        }
    }
    // An equivalent header with different bytes is detected by the digest.
    fs::write(&path, &whole).unwrap();
    let checkpoint = open(&path).unwrap();
    fs::write(&path, other_header).unwrap();
    assert!(matches!(checkpoint.weights_as(DType::F32), Err(Error::Changed { .. })));
}

#[test]
fn a_file_that_changes_during_saving_is_not_reported_as_a_damaged_patch() {
    let (_dir, path) = super::in_place::file();
    let checkpoint = open(&path).unwrap();
    let old = checkpoint.reopen().unwrap();
    let next = checkpoint.next(&old, &checkpoint.weights, Vec::new()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let applied = next.patch.apply(&path, &old, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(checkpoint.or_changed(applied), Error::Changed { .. }));
}
