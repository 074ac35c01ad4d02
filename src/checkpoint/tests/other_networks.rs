//! Configurations of networks whose tensors look like a plain Vision Transformer's.

use super::super::timm_names::Named;
use super::layouts::in_layout;
use super::*;
use crate::models::vit::{Activation, Pooling};

/// The parts of an [`Error::NotComputed`].
#[track_caller]
fn refusal(result: Result<Checkpoint, Error>) -> [String; 3] {
    match result.unwrap_err() {
        Error::NotComputed { key, found, means, .. } => [key, found, means].map(String::from),
        other => panic!("{other}"),
    }
}

/// Opens a valid timm model with a changed configuration.
fn timm(pointer: &str, value: Value) -> Result<Checkpoint, Error> {
    let mut configuration = configuration();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    configuration.pointer_mut(parent).unwrap()[key] = value;
    open(folder(&raw(&small()), &configuration).path())
}

/// `tests/reference/make_timm_names.py` takes the meaning of each name from timm's modules.
#[test]
fn names_match_the_networks_that_timm_builds() {
    let file = include_str!("../../../tests/reference/timm_names.json");
    let rows: Vec<Value> = serde_json::from_str(file).unwrap();
    assert_eq!(rows.len(), 440);
    for row in rows {
        let name = row["name"].as_str().unwrap();
        let named = Named::new(name);
        let network = row["network"].as_str().unwrap();
        if network != "plain" {
            assert!(named.other().is_some(), "{name}");
            continue;
        }
        assert_eq!(named.other(), None, "{name}");
        assert!(named.is_known(), "{name}");
        let heads = named.heads().map_or(row["heads"].clone(), Value::from);
        assert_eq!(heads, row["heads"], "{name}");
        assert_eq!(named.eps().unwrap_or(arch::TIMM_EPS), row["eps"], "{name}");
        let activation = match named.activation() {
            None | Some(Ok(Activation::Gelu)) => "gelu",
            Some(Ok(Activation::GeluTanh)) => "gelu_tanh",
            Some(Ok(Activation::QuickGelu)) => "quick_gelu",
            Some(Ok(Activation::SwiGlu)) => "swiglu",
            Some(Err(why)) => panic!("{name}: {why}"),
        };
        assert_eq!(activation, row["activation"], "{name}");
        let said = |feature: &str| row[feature].as_bool().unwrap_or(false);
        assert_eq!(named.post_norm(), said("post_norm"), "{name}");
        assert_eq!(named.no_final_norm(), said("no_final_norm"), "{name}");
        assert_eq!(named.pools_prefix(), said("pools_prefix"), "{name}");
        // If the name does not determine pooling, the tensors do.
        if let Some(pooling) = named.pooling() {
            assert_eq!(arch::pooling_name(pooling), row["pooling"], "{name}");
        }
    }
}

/// huggingface/pytorch-image-models#1568: same tensors, but with norms in other places.
#[test]
fn post_norm_blocks_are_recognised_by_name() {
    for name in
        ["vit_base_patch16_rpn_224", "timm/vit_base_patch16_rpn_224.sw_in1k", "My-ViT-RPN-small"]
    {
        let found = timm("/architecture", json!(name)).unwrap();
        assert!(found.config.vit().unwrap().post_norm, "{name}");
    }
    // timm's post-norm blocks have no LayerScale.
    let scaled = raw(&Config { layer_scale: true, ..small() });
    let mut rpn = configuration();
    rpn["architecture"] = json!("vit_base_patch16_rpn_224");
    let found = open(folder(&scaled, &rpn).path()).unwrap_err();
    assert!(matches!(found, Error::Contradiction { key: "architecture", .. }), "{found}");
    // An argument that only initialises the norms.
    rpn["model_args"]["init_values"] = json!(1e-5);
    assert!(open(folder(&raw(&small()), &rpn).path()).unwrap().config.vit().unwrap().post_norm);
}

/// Names are refused even if the tensors are not those of a Vision Transformer.
#[test]
fn other_networks_are_recognised_by_name() {
    let tensors = HashMap::from([("conv1.weight".into(), (Dtype::F32, vec![1], vec![0; 4]))]);
    let explicit = json!({"architecture": "vit_base_patch16_xp_224"});
    let message = open(folder(&tensors, &explicit).path()).unwrap_err().to_string();
    for part in ["config.json: \"architecture\" is \"vit_base", "Vision Transf", "use a plain"] {
        assert!(message.contains(part), "{message}");
    }
}

/// Activations leave no trace in the tensors (timm 1.0.31, `timm/models/convnext.py`).
#[test]
fn convnexts_with_another_activation_are_recognised_by_name() {
    for (name, activation) in [
        ("test_convnext.r160_in1k", Some("tanh GELU")),
        ("test_convnext2", Some("tanh GELU")),
        ("test_convnext3", Some("SiLU")),
        ("convnext_tiny.fb_in22k", None),
        ("convnextv2_atto", None),
    ] {
        let found = Named::new(name).other();
        assert_eq!(found.is_some(), activation.is_some(), "{name}");
        assert!(activation.is_none_or(|part| found.unwrap().contains(part)), "{name}: {found:?}");
    }
}

#[test]
fn arguments_of_other_networks() {
    for (argument, value, part) in [
        ("act_layer", json!("relu"), "another activation"),
        ("act_layer", json!("silu"), "another activation"),
        ("attn_layer", json!("diff"), "another attention"),
        ("block_fn", json!("ResPostBlock"), "another block"),
        ("embed_layer", json!("hybrid"), "patch embedding"),
        ("embed_norm_layer", json!("layernorm"), "after the patch projection"),
        ("global_pool", json!("avgmax"), "another pooling"),
        ("global_pool", json!(""), "another pooling"),
        ("mlp_layer", json!("swiglu"), "another MLP"),
        ("norm_layer", json!("rmsnorm"), "another norm"),
        ("pos_embed", json!("none"), "\"none\""),
        ("scale_attn_norm", json!(true), "inside the attention"),
        ("scale_mlp_norm", json!(true), "inside the MLP"),
        ("use_naflex", json!(true), "any size"),
        ("use_rot_pos_emb", json!(true), "does not know"),
        ("rope_type", json!("mixed"), "does not know"),
        ("swiglu_mlp", json!(false), "does not know"),
        ("strange", json!(0), "does not know"),
    ] {
        let key = format!("/model_args/{argument}");
        let [key, found, means] = refusal(timm(&key, value.clone()));
        assert_eq!((key, found), (format!("model_args.{argument}"), value.to_string()));
        assert!(means.contains(part), "{argument}: {means}");
    }
    for (pointer, value) in [("/act_layer", json!("relu")), ("/block_fn", json!("ResPostBlock"))] {
        let [key, _, means] = refusal(timm(pointer, value));
        assert!(means.contains("outside `model_args`"), "{key}: {means}");
    }
    let problem = timm("/problem_type", json!("multi_label_classification"));
    assert_eq!(refusal(problem)[0], "problem_type");
}

#[test]
fn arguments_without_effect() {
    for (argument, value) in [
        ("drop_path_rate", json!(0.1)),
        ("patch_drop_rate", json!(0.5)),
        ("weight_init", json!("jax")),
        ("dynamic_img_size", json!(true)),
        ("qk_norm", json!(false)),
        ("norm_layer", Value::Null),
        ("attn_layer", json!("")),
        ("pos_embed", json!("learn")),
        ("proj_bias", json!(true)),
        ("final_norm", json!(true)),
        ("init_values", json!(0.0)),
        ("act_layer", json!("GELU")),
        ("strange", Value::Null),
    ] {
        let found = timm(&format!("/model_args/{argument}"), value).unwrap();
        assert_eq!(found.config.vit().unwrap(), &small(), "{argument}");
    }
    let found = timm("/trained_by", json!("us")).unwrap();
    assert!(found.assumed.join("; ").contains("\"trained_by\" in"), "{:?}", found.assumed);
}

#[test]
fn unknown_architecture_names() {
    let assumed = |name: &str| timm("/architecture", json!(name)).unwrap().assumed.join("; ");
    for name in ["my_vit", "vit_tiny_patch7_ours_28", "resnet50"] {
        let notes = assumed(name);
        let part = format!("\"{name}\" is unknown to planish");
        assert!(notes.contains(&part) && notes.contains("with 2 heads"), "{notes}");
        assert!(notes.contains("layer norm before attention and MLP"), "{notes}");
    }
    for name in ["vit_tiny_patch16_224", "deit3_small_patch16_224.fb_in1k", "vit_nano_patch7_28"] {
        assert!(!assumed(name).contains("is unknown"), "{name}");
    }
    let mut nameless = configuration();
    nameless.as_object_mut().unwrap().remove("architecture");
    let notes = open(folder(&raw(&small()), &nameless).path()).unwrap().assumed.join("; ");
    assert!(notes.contains("blocks: layer norm before attention and MLP"), "{notes}");
}

#[test]
fn heads_norms_and_activation_from_names() {
    let mut wide = small();
    (wide.dim, wide.depth, wide.mlp_dim) = (48, 1, 8);
    let wide = raw(&wide);
    let read = |configuration: Value| open(folder(&wide, &configuration).path());
    let heads =
        |name: &str| read(json!({"architecture": name})).unwrap().config.vit().unwrap().heads;
    // In timm, the base model has 12 heads, and this one of the same width has 16.
    assert_eq!(heads("vit_base_patch16_gap_224"), 16);
    assert_eq!([heads("vit_base_patch16_224"), heads("vit_base_patch16_reg4_gap_256")], [12, 12]);
    let clip = "vit_base_patch16_clip_224";
    assert_eq!(read(json!({"architecture": clip})).unwrap().config.vit().unwrap().eps, 1e-5);
    // In timm, null replaces the architecture's norm with the default norm and its ε.
    let null = json!({"architecture": clip, "model_args": {"norm_layer": null}});
    assert_eq!(read(null).unwrap().config.vit().unwrap().eps, 1e-6);
    let of = |name: &str| {
        let configuration = json!({"architecture": name, "model_args": {"num_heads": 12}});
        read(configuration).unwrap().config.vit().unwrap().activation
    };
    assert_eq!(of("vit_base_patch16_clip_quickgelu_224"), Activation::QuickGelu);
    assert_eq!(of("vit_so400m_patch16_siglip_gap_256"), Activation::GeluTanh);
    assert_eq!(of("vit_so400m_patch14_siglip_gap_224"), Activation::Gelu);
    for name in ["our_siglip_256", "vit_huge_patch16_siglip2_256"] {
        let explicit = |activation: Value| {
            let args = json!({"act_layer": activation, "num_heads": 12});
            read(json!({"architecture": name, "model_args": args}))
        };
        let unspecified = json!({"architecture": name, "model_args": {"num_heads": 12}});
        let [key, _, means] = refusal(read(unspecified));
        assert!(key == "architecture" && means.contains("GELU"), "{means}");
        let activation = explicit(json!("gelu_tanh")).unwrap().config.vit().unwrap().activation;
        assert_eq!(activation, Activation::GeluTanh);
        assert_eq!(
            explicit(Value::Null).unwrap().config.vit().unwrap().activation,
            Activation::Gelu
        );
    }
}

/// timm's default for the architecture applies if the configuration does not set pooling.
#[test]
fn pooling_from_names() {
    let read = |name: &str, more: Value| {
        let args = json!({"num_heads": 2, "class_token": true});
        let mut configuration = json!({"architecture": name, "model_args": args});
        configuration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        open(folder(&raw(&small()), &configuration).path()).unwrap().config.vit().unwrap().pooling
    };
    assert_eq!(read("vit_base_patch16_224", json!({})), Pooling::Token);
    assert_eq!(read("vit_base_patch16_gap_224", json!({})), Pooling::Mean);
    let token = json!({"global_pool": "token"});
    assert_eq!(read("vit_base_patch16_gap_224", token), Pooling::Token);
}

/// timm's oldest format stores everything at the top level.
#[test]
fn images_in_timms_old_format() {
    let configuration = json!({
        "architecture": "vit_tiny_patch16_224", "num_classes": 3, "input_size": [1, 28, 28],
        "crop_pct": 0.875, "interpolation": "bicubic", "mean": [0.25], "std": [0.5],
        "model_args": {"num_heads": 2},
    });
    let found = open(folder(&raw(&small()), &configuration).path()).unwrap();
    let preprocess = found.preprocess.unwrap();
    assert_eq!((preprocess.resize, preprocess.mean), (Resize::ShortSide(32), vec![0.25]));
    assert!(!found.assumed.join("; ").contains("without effect"), "{:?}", found.assumed);
}

/// The configuration that transformers writes for [`small`], with changes.
fn transformers(changes: &Value) -> Value {
    let mut out = json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit",
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "image_size": 28, "patch_size": 7, "num_channels": 1, "qkv_bias": true,
    });
    out.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    out
}

fn open_transformers(changes: Value) -> Result<Checkpoint, Error> {
    let tensors = in_layout(&small(), Layout::TransformersOld, "vit.");
    open(folder(&tensors, &transformers(&changes)).path())
}

#[test]
fn other_transformers_networks() {
    for (key, value, part) in [
        ("model_type", json!("vit_msn"), "another network"),
        ("model_type", json!("beit"), "another network"),
        ("architectures", json!(["ViTMSNForImageClassification"]), "another network"),
        ("architectures", json!(["OurViT"]), "another network"),
        ("architectures", json!("OurViT"), "another network"),
        ("hidden_act", json!("silu"), "another activation"),
        ("hidden_act", json!("relu"), "another activation"),
        ("problem_type", json!("regression"), "another loss"),
        ("problem_type", json!("multi_label_classification"), "another loss"),
        ("auto_map", json!({"AutoModel": "ours.OurViT"}), "custom code"),
        ("is_decoder", json!(true), "masked"),
        ("per_layer_config", json!({"0": {"hidden_act": "relu"}}), "layers differ"),
        ("pruned_heads", json!({"0": [1]}), "removed"),
        ("quantization_config", json!({"bits": 8}), "quantized"),
        ("use_mean_pooling", json!(true), "does not know"),
        ("layerscale_value", json!(0.1), "does not know"),
        ("a.b", json!(1), "does not know"),
    ] {
        let [named, found, means] = refusal(open_transformers(json!({key: value})));
        assert_eq!((named.as_str(), found), (key, value.to_string()));
        assert!(means.contains(part), "{key}: {means}");
    }
    let harmless = json!({
        "hidden_dropout_prob": 0.1, "encoder_stride": 16, "pooler_act": "tanh", "dtype": "float32",
        "pruned_heads": {}, "is_decoder": false, "_name_or_path": "x", "use_mean_pooling": null,
        "transformers.js_config": {"dtype": "q8"}, "return_dict": true, "torchscript": false,
        "architectures": ["ViTModel"], "problem_type": "single_label_classification",
    });
    let found = open_transformers(harmless).unwrap();
    assert_eq!(found.config.vit().unwrap(), &Config { eps: 1e-12, ..small() });
    assert_eq!(found.assumed, Vec::<String>::new());
}

/// A transformers network has a class token with a position, and no timm-only parts.
#[test]
fn a_transformers_configuration_with_timm_tensors() {
    type Change = fn(&mut Config);
    let variants: [(Change, &str); 6] = [
        (|c| c.class_token = false, "class token"),
        (|c| (c.registers, c.position_covers_prefix) = (3, false), "register"),
        (|c| c.layer_scale = true, "LayerScale"),
        (|c| (c.norm_pre, c.patch_bias) = (true, false), "after the embedding"),
        (|c| c.final_norm = crate::models::vit::FinalNorm::AfterPool, "after the pooling"),
        (|c| c.position_covers_prefix = false, "position"),
    ];
    for (change, part) in variants {
        let mut config = small();
        change(&mut config);
        let found = open(folder(&raw(&config), &transformers(&json!({}))).path()).unwrap_err();
        assert!(matches!(found, Error::Contradiction { .. }), "{part}: {found}");
        assert!(found.to_string().contains(part), "{found}");
    }
    let plain = open(folder(&raw(&small()), &transformers(&json!({}))).path()).unwrap();
    assert_eq!(plain.config.vit().unwrap(), &Config { eps: 1e-12, ..small() });
    let deit = open_transformers(json!({"model_type": "deit"})).unwrap_err();
    assert!(deit.to_string().contains("no distillation"), "{deit}");
}

#[test]
fn image_processors_with_other_steps() {
    let open_with = |changes: Value, overrides: &Load| {
        let tensors = in_layout(&small(), Layout::TransformersOld, "vit.");
        let dir = folder(&tensors, &transformers(&json!({})));
        let mut images = json!({
            "do_resize": true, "size": {"height": 28, "width": 28}, "resample": 2,
            "do_center_crop": false, "image_mean": [0.5], "image_std": [0.25],
        });
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(images.as_object_mut().unwrap().remove(key)),
                value => images[key] = value.clone(),
            }
        }
        fs::write(dir.path().join("preprocessor_config.json"), images.to_string()).unwrap();
        Checkpoint::open(dir.path(), overrides)
    };
    let unspecified = Load::default();
    for (changes, key) in [
        (json!({"image_processor_type": "ConvNextImageProcessor"}), "image_processor_type"),
        (json!({"feature_extractor_type": "OurExtractor"}), "feature_extractor_type"),
        (json!({"image_processor_type": "CLIPImageProcessor", "size": 28}), "image_processor_type"),
        (
            json!({"image_processor_type": "DeiTImageProcessorFast", "resample": null}),
            "image_processor_type",
        ),
        (json!({"crop_pct": 0.9}), "crop_pct"),
        (json!({"do_flip_channel_order": true}), "do_flip_channel_order"),
        (json!({"do_pad": true}), "do_pad"),
        (json!({"pad_size": {"height": 32, "width": 32}}), "pad_size"),
    ] {
        assert_eq!(refusal(open_with(changes.clone(), &unspecified))[0], key);
        // The file is not needed if options set every step.
        let explicit = Load {
            mean: Some(vec![0.1]),
            std: Some(vec![0.2]),
            resize: Some(Resize::Squash),
            interpolation: Some(Interpolation::Bicubic),
            ..Load::default()
        };
        let preprocess = open_with(changes, &explicit).unwrap().preprocess.unwrap();
        assert_eq!((preprocess.mean, preprocess.std), (vec![0.1], vec![0.2]));
    }
    for changes in [
        json!({"image_processor_type": "ViTImageProcessor"}),
        json!({"image_processor_type": "ViTImageProcessorFast", "do_convert_rgb": true}),
        json!({"image_processor_type": "DeiTImageProcessor", "do_pad": false}),
        json!({"image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor"}),
        json!({"feature_extractor_type": "ViTFeatureExtractor", "_processor_class": "x"}),
    ] {
        let preprocess = open_with(changes, &unspecified).unwrap().preprocess.unwrap();
        assert_eq!(preprocess.resize, Resize::Squash);
    }
}
