use super::*;

/// The error for a valid model with a changed configuration.
fn with_setting(pointer: &str, value: Value) -> Error {
    let mut configuration = configuration();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    configuration.pointer_mut(parent).unwrap()[key] = value;
    open(folder(&raw(&small()), &configuration).path()).unwrap_err()
}

/// The error for changed tensors with a valid configuration.
fn with_tensors(change: impl FnOnce(&mut HashMap<String, Raw>)) -> Error {
    let mut tensors = raw(&small());
    change(&mut tensors);
    open(folder(&tensors, &configuration()).path()).unwrap_err()
}

fn zeros(shape: &[usize]) -> Raw {
    (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

fn header_error(bytes: &[u8]) -> String {
    let found = Header::read(Path::new("x.safetensors"), bytes).unwrap_err();
    assert!(matches!(found, Error::Header { .. }), "{found}");
    // Reading from disk gives the same error.
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    let on_disk = OnDisk::open(&path).unwrap_err().to_string();
    assert_eq!(on_disk, found.to_string().replace("x.safetensors", &path.display().to_string()));
    found.to_string()
}

fn with_header(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn every_truncation_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.safetensors");
    let one = HashMap::from([("head.bias".to_string(), zeros(&[3]))]);
    write(&path, &one, &[("format", "pt")]);
    let whole = fs::read(&path).unwrap();
    assert!(Header::read(&path, &whole).is_ok());
    for length in 0..whole.len() {
        header_error(&whole[..length]);
    }
    header_error(&[whole, vec![0]].concat());
}

#[test]
fn malformed_headers() {
    let tensor = |dtype: &str, shape: &str, span: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{span}}}"#)
    };
    let valid = tensor("F32", "[1]", "[0,4]");
    let one =
        |dtype: &str, shape: &str, span: &str| format!(r#"{{"a":{}}}"#, tensor(dtype, shape, span));
    assert!(header_error(&u64::MAX.to_le_bytes()).contains("at most 100000000 bytes"));
    assert!(header_error(&with_header("{", 0)).contains("a JSON object"));
    assert!(header_error(&with_header("[]", 0)).contains("a JSON object"));
    assert!(header_error(&with_header(&"[".repeat(100_000), 0)).contains("a JSON object"));
    let huge = "[18446744073709551615,18446744073709551615]";
    let max = usize::MAX;
    for (json, part) in [
        (one("F31", "[1]", "[0,4]"), "a dtype"),
        (one("F32", "[-1]", "[0,4]"), "a shape"),
        (one("F32", "[1.5]", "[0,4]"), "a shape"),
        (one("F32", "[2]", "[0,4]"), "as many bytes"),
        (one("F32", huge, "[0,4]"), "as many bytes"),
        (one("F4", "[1]", "[0,0]"), "as many bytes"),
        (one("F32", "[1]", "[4,0]"), "data_offsets"),
        (one("F32", "[1]", &format!("[0,{max}]")), "as many bytes"),
        (one("F32", "[1]", &format!("[{},{max}]", max - 4)), "a start at byte 0"),
        (one("F32", "[1]", "[0]"), "data_offsets"),
        (format!(r#"{{"a":{valid},"a":{valid}}}"#), "each name once"),
        (format!(r#"{{"a":{valid},"b":{valid}}}"#), "a start at byte 4"),
        (r#"{"__metadata__":{"a":1}}"#.into(), "strings"),
        (r#"{"a":7}"#.into(), "a dtype"),
    ] {
        let message = header_error(&with_header(&json, 4));
        assert!(message.contains(part), "{json}: {message}");
    }
}

#[test]
fn paths_without_a_checkpoint() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(open(&dir.path().join("absent")), Err(Error::Io { .. })));
    assert!(matches!(open(dir.path()), Err(Error::NotACheckpoint { .. })));
    let other = dir.path().join("model.h5");
    fs::write(&other, "x").unwrap();
    assert!(open(&other).unwrap_err().to_string().contains("a .h5 file"));
}

#[test]
fn tensors_that_do_not_form_a_model() {
    let found = with_tensors(|t| {
        t.remove("blocks.1.mlp.fc2.bias");
        t.insert("head_dist.weight".into(), zeros(&[3, 8]));
        t.insert("norm.bias".into(), zeros(&[9]));
    });
    let message = found.to_string();
    for part in [
        "1 missing: blocks.1.mlp.fc2.bias",
        "1 unexpected: head_dist.weight",
        "norm.bias (expected [8], found [9])",
        "timm",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let found = with_tensors(|t| {
        let moved = t.remove("blocks.1.ls1.gamma").unwrap_or_else(|| zeros(&[8]));
        t.insert("blocks.18446744073709551615.ls1.gamma".into(), moved);
    });
    assert!(matches!(found, Error::Tensors { .. }), "{found}");
}

#[test]
fn missing_key_tensors() {
    for key in ["patch_embed.proj.weight", "pos_embed", "head.weight", "norm.weight"] {
        let message = with_tensors(|t| drop(t.remove(key))).to_string();
        assert!(message.contains(&format!("missing: {key}")), "{message}");
    }
    let message = with_tensors(|t| t.retain(|name, _| !name.starts_with("blocks."))).to_string();
    assert!(message.contains("missing: blocks.0"), "{message}");
}

#[test]
fn invalid_shapes() {
    for shape in [vec![0, usize::MAX], vec![usize::MAX, 0, 7, 7], vec![8, 1, 7], vec![]] {
        let found = with_tensors(|t| {
            t.insert("patch_embed.proj.weight".into(), zeros_of(&shape));
        });
        assert!(matches!(found, Error::Tensors { .. }), "{shape:?}: {found}");
    }
}

/// Like `zeros`, for shapes with a zero whose other sizes overflow when multiplied.
fn zeros_of(shape: &[usize]) -> Raw {
    let count = if shape.contains(&0) { 0 } else { shape.iter().product() };
    (Dtype::F32, shape.to_vec(), vec![0; 4 * count])
}

#[test]
fn wrong_dtype() {
    let found = with_tensors(|t| {
        t.insert("head.bias".into(), (Dtype::I32, vec![3], vec![0; 12]));
    });
    let message = found.to_string();
    assert!(matches!(found, Error::Dtype { .. }));
    assert!(message.contains("\"head.bias\"") && message.contains("found I32"), "{message}");
}

#[test]
fn other_kinds_of_models() {
    let message = with_tensors(|t| {
        t.clear();
        t.insert("layer1.0.conv1.weight".into(), zeros(&[2]));
    })
    .to_string();
    assert!(message.contains("layer1.0.conv1.weight") && message.contains("0 of 1"), "{message}");
    assert!(with_tensors(HashMap::clear).to_string().contains("no tensors"));
}

#[test]
fn a_configuration_that_contradicts_the_tensors() {
    for (pointer, value) in [
        ("/num_classes", json!(4)),
        ("/model_args/embed_dim", json!(16)),
        ("/model_args/depth", json!(3)),
        ("/model_args/in_chans", json!(3)),
        ("/model_args/patch_size", json!([7, 14])),
        ("/model_args/img_size", json!(56)),
        ("/model_args/img_size", json!([usize::MAX / 7 * 7, usize::MAX / 7 * 7])),
        ("/model_args/num_heads", json!(3)),
        ("/model_args/num_heads", json!(0)),
        ("/model_args/reg_tokens", json!(4)),
        ("/model_args/qkv_bias", json!(false)),
        ("/model_args/pre_norm", json!(true)),
        ("/model_args/fc_norm", json!(true)),
        ("/model_args/class_token", json!(false)),
        ("/model_args/no_embed_class", json!(true)),
        ("/model_args/init_values", json!(1e-5)),
        ("/model_args/proj_bias", json!(false)),
        ("/model_args/final_norm", json!(false)),
        ("/model_args/mlp_ratio", json!(4.0)),
        ("/label_names", json!(["a"])),
    ] {
        let found = with_setting(pointer, value);
        let message = found.to_string();
        assert!(matches!(found, Error::Contradiction { .. }), "{pointer}: {message}");
        assert!(message.contains("config.json") && message.contains("the tensors of"), "{message}");
    }
}

#[test]
fn unsupported_settings() {
    for (pointer, value, part) in [
        ("/model_args/depth", json!("2"), "a whole number"),
        ("/model_args/img_size", json!([1, 2, 3]), "[height, width]"),
        ("/model_args", json!(["depth"]), "an object"),
        ("/pretrained_cfg/mean", json!([0.5, 0.5]), "for each of 1 channels"),
        ("/pretrained_cfg/std", json!([0.0]), "above 0"),
        // Means and deviations in levels, although pixels are divided by 255 first.
        ("/pretrained_cfg/mean", json!([127.5]), "divide levels by 255"),
        ("/pretrained_cfg/std", json!([58.4]), "divide levels by 255"),
        ("/pretrained_cfg/mean", json!([-0.5]), "from 0 to 1"),
        ("/pretrained_cfg/interpolation", json!("lanczos"), "`interpolation`"),
        ("/pretrained_cfg/crop_mode", json!("border"), "`resize`"),
        ("/pretrained_cfg/crop_pct", json!(0.0), "a share above 0"),
        ("/pretrained_cfg/crop_pct", json!(1e-300), "a share above 0"),
    ] {
        let found = with_setting(pointer, value);
        assert!(matches!(found, Error::Setting { .. }), "{pointer}: {found}");
        assert!(found.to_string().contains(part), "{found}");
    }
    let dir = folder(&raw(&small()), &json!([]));
    assert!(matches!(open(dir.path()), Err(Error::Setting { .. })));
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Json { .. })));
}

#[test]
fn heads_are_never_guessed() {
    let mut configuration = configuration();
    configuration["architecture"] = json!("my_model");
    configuration["model_args"]["num_heads"] = Value::Null;
    let dir = folder(&raw(&small()), &configuration);
    let found = open(dir.path()).unwrap_err();
    assert!(matches!(found, Error::HeadsUnknown { .. }), "{found}");
    let mut wide = small();
    (wide.dim, wide.depth, wide.mlp_dim) = (192, 1, 8);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bare.safetensors");
    write(&path, &raw(&wide), &[]);
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("`heads`") && message.contains("usually have 3"), "{message}");
    write(&path, &raw(&wide), &[(CONFIG_KEY, r#"{"architecture":"vit_tiny_patch16_224"}"#)]);
    assert_eq!(open(&path).unwrap().config.vit().unwrap().heads, 3);
    // The name states the heads as well as a configuration would.
    let six = Load { heads: Some(6), ..Load::default() };
    let found = Checkpoint::open(&path, &six).unwrap_err();
    assert!(matches!(found, Error::Option { option: "heads", .. }), "{found}");
}

#[test]
fn contradictory_options() {
    let dir = folder(&raw(&small()), &configuration());
    for overrides in [
        Load { heads: Some(4), ..Load::default() },
        Load { patch_size: Some([16, 16]), ..Load::default() },
        Load { image_size: Some([224, 224]), ..Load::default() },
        Load { image_size: Some([29, 29]), ..Load::default() },
        Load { mean: Some(vec![0.5; 3]), ..Load::default() },
    ] {
        let found = Checkpoint::open(dir.path(), &overrides).unwrap_err().to_string();
        assert!(found.contains('`'), "{found}");
    }
}
