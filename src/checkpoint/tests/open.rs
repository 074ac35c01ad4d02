use super::*;
use crate::models::vit::{Activation, FinalNorm, Pooling};

/// The model is the one in `tests/reference/make_timm_dir.py`.
#[test]
fn opens_a_timm_checkpoint() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/timm-tiny");
    let checkpoint = open(&dir).unwrap();
    let config = &checkpoint.config.vit().unwrap();
    assert_eq!((config.dim, config.depth, config.heads, config.mlp_dim), (12, 2, 3, 48));
    assert_eq!((config.classes, config.channels, config.registers), (4, 3, 2));
    assert_eq!((config.image_size, config.patch_size), ([16, 16], [8, 8]));
    assert!(config.class_token && config.layer_scale && config.qkv_bias && config.patch_bias);
    assert!(!config.position_covers_prefix && !config.norm_pre);
    assert_eq!((config.pooling, config.final_norm), (Pooling::Mean, FinalNorm::AfterPool));
    assert_eq!((config.activation, config.eps), (Activation::Gelu, 1e-6));
    let preprocess = checkpoint.preprocess.unwrap();
    // floor(16 / 0.9) = 17.
    assert_eq!(preprocess.resize, Resize::ShortSide(17));
    assert_eq!(preprocess.crop_offset, CropOffset::HalfToEven);
    assert_eq!(preprocess.interpolation, Interpolation::Bicubic);
    assert_eq!((preprocess.mean, preprocess.std), (vec![0.5; 3], vec![0.5; 3]));
    assert_eq!(checkpoint.class_names.unwrap(), ["cat", "dog", "bird", "fish"]);
    assert_eq!(checkpoint.architecture, "vit_tiny_patch16_224");
    assert_eq!((checkpoint.dtype.as_str(), checkpoint.layout), ("F32", Layout::Timm));
    let file = fs::read(dir.join("model.safetensors")).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&file).unwrap();
    for (name, tensor) in checkpoint.weights.iter() {
        assert_eq!(
            TensorDtype::F32.encode(tensor).unwrap(),
            reference.tensor(name).unwrap().data()
        );
    }
}

#[test]
fn a_bare_file_takes_options_and_records_assumptions() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bare.safetensors");
    write(&path, &raw(&small()), &[]);
    let overrides = Load { heads: Some(2), ..Load::default() };
    let checkpoint = Checkpoint::open(&path, &overrides).unwrap();
    assert_eq!(checkpoint.config.vit().unwrap(), &small());
    assert_eq!(checkpoint.preprocess, None);
    let assumed = checkpoint.assumed.join("; ");
    for part in ["image size 28×28", "pooling: token", "ε: 1e-6", "exact GELU"] {
        assert!(assumed.contains(part), "{assumed}");
    }
    let overrides = Load {
        mean: Some(vec![0.1]),
        std: Some(vec![0.2]),
        resize: Some(Resize::Squash),
        interpolation: Some(Interpolation::Nearest),
        ..overrides
    };
    let preprocess = Checkpoint::open(&path, &overrides).unwrap().preprocess.unwrap();
    assert_eq!((preprocess.resize, preprocess.mean), (Resize::Squash, vec![0.1]));
}

#[test]
fn a_bare_file_may_contain_its_configuration() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bare.safetensors");
    write(&path, &raw(&small()), &[(CONFIG_KEY, &configuration().to_string())]);
    // A configuration in the file takes precedence over config.json.
    fs::write(dir.path().join("config.json"), r#"{"model_args": {"num_heads": 4}}"#).unwrap();
    assert_eq!(open(&path).unwrap().config.vit().unwrap().heads, 2);
    write(&path, &raw(&small()), &[]);
    assert_eq!(open(&path).unwrap().config.vit().unwrap().heads, 4);
}

#[test]
fn wrapper_prefixes_are_stripped_and_restored() {
    let wrapped: HashMap<String, Raw> = raw(&small())
        .into_iter()
        .map(|(name, raw)| (format!("module._orig_mod.model.{name}"), raw))
        .collect();
    let dir = folder(&wrapped, &configuration());
    let checkpoint = open(dir.path()).unwrap();
    assert_eq!(checkpoint.config.vit().unwrap(), &small());
    let wrapped_name = "module._orig_mod.model.head.bias".to_string();
    assert_eq!(checkpoint.file_tensors("head.bias").unwrap(), std::slice::from_ref(&wrapped_name));
    let bias = checkpoint.weights.get("head.bias").unwrap().clone();
    let stored_names = checkpoint.to_file(&[("head.bias".into(), bias)]).unwrap();
    assert_eq!(stored_names[0].0, wrapped_name);
    let canonical = checkpoint.to_canonical(stored_names).unwrap();
    assert_eq!(canonical[0].0, "head.bias");
    let misspelled = vec![("head.bais".to_string(), canonical[0].1.clone())];
    assert!(matches!(checkpoint.to_canonical(misspelled), Err(Error::UnknownTensor { .. })));
    let message = checkpoint.file_tensors("head.bais").unwrap_err().to_string();
    assert!(message.contains("did you mean \"head.bias\""), "{message}");
}

#[test]
fn variants_are_inferred_from_shapes() {
    let variants: [fn(&mut Config); 6] = [
        |c| (c.layer_scale, c.norm_pre, c.patch_bias) = (true, true, false),
        |c| c.qkv_bias = false,
        |c| (c.pooling, c.final_norm) = (Pooling::Mean, FinalNorm::AfterPool),
        |c| (c.class_token, c.pooling) = (false, Pooling::Mean),
        |c| (c.registers, c.position_covers_prefix) = (3, false),
        |c| (c.registers, c.channels, c.patch_size, c.image_size) = (3, 3, [4, 4], [12, 12]),
    ];
    for change in variants {
        let mut config = small();
        change(&mut config);
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("bare.safetensors");
        write(&path, &raw(&config), &[]);
        let overrides = Load { heads: Some(2), ..Load::default() };
        assert_eq!(Checkpoint::open(&path, &overrides).unwrap().config.vit().unwrap(), &config);
    }
}

#[test]
fn a_non_square_grid_needs_the_image_size() {
    let mut config = small();
    config.image_size = [14, 21];
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bare.safetensors");
    write(&path, &raw(&config), &[]);
    let overrides = Load { heads: Some(2), ..Load::default() };
    let message = Checkpoint::open(&path, &overrides).unwrap_err().to_string();
    assert!(message.contains("7 rows") && message.contains("`image_size`"), "{message}");
    let overrides = Load { image_size: Some([14, 21]), ..overrides };
    assert_eq!(Checkpoint::open(&path, &overrides).unwrap().config.vit().unwrap(), &config);
    let overrides = Load { image_size: Some([28, 28]), ..overrides };
    let found = Checkpoint::open(&path, &overrides).unwrap_err();
    assert!(matches!(found, Error::Contradiction { key: "image size", .. }), "{found}");
}

#[test]
fn f16_bf16_and_f64_are_converted_to_f32() {
    for (dtype, stored) in [
        (Dtype::F16, TensorDtype::F16),
        (Dtype::BF16, TensorDtype::Bf16),
        (Dtype::F64, TensorDtype::F64),
    ] {
        let mut tensors = raw(&small());
        let values = [1.5f32, -0.25, 3.0];
        let bytes = match dtype {
            Dtype::F16 => {
                values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()
            }
            Dtype::BF16 => {
                values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()
            }
            _ => values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect::<Vec<u8>>(),
        };
        tensors.insert("head.bias".into(), (dtype, vec![3], bytes));
        let dir = folder(&tensors, &configuration());
        let checkpoint = open(dir.path()).unwrap();
        let bias = checkpoint.weights.get("head.bias").unwrap();
        assert_eq!(bias.to_vec1::<f32>().unwrap(), values);
        assert!(checkpoint.dtype.ends_with(&format!("{} (1)", stored.name())));
        let wide = checkpoint.weights_as(DType::F64).unwrap();
        let bias = wide.get("head.bias").unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(bias, values.map(f64::from));
    }
}
