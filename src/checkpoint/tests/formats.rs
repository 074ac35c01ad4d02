//! Malformed files of the formats other than safetensors: each is a typed error with a remedy.

use super::*;
use std::io::Write;
use std::path::PathBuf;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/checkpoints").join(name)
}

/// What opening a file with these bytes gives.
fn opened(name: &str, bytes: &[u8]) -> Result<Checkpoint, Error> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let load = Load { heads: Some(2), weights: Some("model".into()), ..Load::default() };
    Checkpoint::open(&path, &load)
}

/// The message of [`Error::Damaged`].
fn damage(name: &str, bytes: &[u8]) -> String {
    match opened(name, bytes) {
        Err(error @ Error::Damaged { .. }) => error.to_string(),
        other => panic!("{name}: {:?}", other.map(|found| found.recognised)),
    }
}

/// A zip archive of uncompressed files.
fn archive(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A file of torch.save with this pickle and a storage `0` of 16 bytes.
fn saved(pickle: &[u8]) -> Vec<u8> {
    let files = [("a/data.pkl", pickle), ("a/data/0", &[0; 16]), ("a/byteorder", b"little")];
    archive(&files, CompressionMethod::Stored)
}

/// Pickles, in pieces.
mod pickled {
    pub fn text(text: &str) -> Vec<u8> {
        [&b"X"[..], &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    pub fn int(n: i32) -> Vec<u8> {
        [&b"J"[..], &n.to_le_bytes()[..]].concat()
    }

    pub fn name(module: &str, name: &str) -> Vec<u8> {
        format!("c{module}\n{name}\n").into_bytes()
    }

    pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
        [b"(".to_vec(), items.concat(), b"t".to_vec()].concat()
    }

    pub fn storage(class: &str, key: &str, len: i32) -> Vec<u8> {
        let parts = [text("storage"), name("torch", class), text(key), text("cpu"), int(len)];
        [tuple(&parts), b"Q".to_vec()].concat()
    }

    pub fn tensor(storage: Vec<u8>, offset: i32, shape: &[i32], stride: &[i32]) -> Vec<u8> {
        let sizes = |list: &[i32]| tuple(&list.iter().map(|&n| int(n)).collect::<Vec<_>>());
        let arguments = tuple(&[storage, int(offset), sizes(shape), sizes(stride)]);
        [name("torch._utils", "_rebuild_tensor_v2"), arguments, b"R".to_vec()].concat()
    }

    pub fn dict(key: &str, value: Vec<u8>) -> Vec<u8> {
        [b"\x80\x02}".to_vec(), text(key), value, b"s.".to_vec()].concat()
    }
}

#[test]
fn pickles_that_call_code_are_refused() {
    let call = |module: &str, name: &str| {
        let call = [pickled::name(module, name), pickled::tuple(&[pickled::text("true")])];
        pickled::dict("x", [call.concat(), b"R".to_vec()].concat())
    };
    let stack_global = |module: &str, name: &str| {
        let parts = [pickled::text(module), pickled::text(name), b"\x93".to_vec()];
        pickled::dict("x", parts.concat())
    };
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch._utils", "_import_dotted_name"),
        ("timm.models.vision_transformer", "VisionTransformer"),
        ("collections", "OrderedDict.__init__"),
        ("numpy", "load"),
    ] {
        for bytes in [call(module, name), stack_global(module, name)] {
            let found = opened("x.pth", &saved(&bytes)).unwrap_err();
            let message = found.to_string();
            assert!(matches!(found, Error::PythonObject { .. }), "{message}");
            assert!(message.contains(&format!("\"{module}.{name}\"")), "{message}");
            assert!(message.contains("model.state_dict()"), "{message}");
        }
    }
    // The older instructions that import a name are not known.
    let found = damage("x.pth", &saved(b"(ios\nsystem\n."));
    assert!(found.contains("protocol 2 or later"), "{found}");
    // The older format is read by the same machine.
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let row = [&magic[..], &call("os", "system")].concat();
    assert!(matches!(opened("x.pt", &row), Err(Error::PythonObject { .. })));
}

#[test]
fn malformed_pickles() {
    let deep = [b"\x80\x02".to_vec(), vec![b']'; 100_000], b".".to_vec()].concat();
    let nested = [vec![b'('; 50_000], vec![b't'; 50_000], b".".to_vec()].concat();
    let many = [vec![b']'; (1 << 18) + 1], b".".to_vec()].concat();
    let again = [b"]".to_vec(), vec![b'2'; (1 << 20) + 1], b".".to_vec()].concat();
    let cyclic = [&b"}q\x00"[..], &pickled::text("a"), b"h\x00s."].concat();
    let tensor = pickled::tensor(pickled::storage("FloatStorage", "0", 4), 0, &[2], &[1]);
    for (pickle, part) in [
        (b"".to_vec(), "one that is cut short"),
        (b"\x80\x02".to_vec(), "one that is cut short"),
        (b"X\xff\xff\xff\xffab".to_vec(), "one that is cut short"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab".to_vec(), "one that is cut short"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab".to_vec(), "one that is cut short"),
        (b"\x8b\xff\xff\xff\xffab".to_vec(), "one that is cut short"),
        (b".".to_vec(), "a value on the stack"),
        (b"t.".to_vec(), "a mark on the stack"),
        (b"h\x07.".to_vec(), "number 7"),
        (b"]}s.".to_vec(), "a value on the stack"),
        (b"}(]u.".to_vec(), "a key alone"),
        (b"K\x01a.".to_vec(), "a value on the stack"),
        (b"K\x01K\x02a.".to_vec(), "a list"),
        (b"NNR.".to_vec(), "the name of a type"),
        (b"NQ.".to_vec(), "a tuple of arguments"),
        (b"]Q.".to_vec(), "the reference of a storage"),
        (b"\x86.".to_vec(), "enough values"),
        (b"\xfe.".to_vec(), "the byte 0xfe"),
        (b"N.".to_vec(), "a dict of tensors"),
        (b"].".to_vec(), "a dict of tensors"),
        (pickled::dict("a", b"N".to_vec()), "a dict of tensors"),
        (tensor, "one that is cut short"),
        (cyclic, "a dict of tensors"),
        (deep, "a dict of tensors"),
        (nested, "a dict of tensors"),
        (many, "at most 262144 values"),
        (again, "at most 1048576 values"),
    ] {
        let message = damage("x.pth", &saved(&pickle));
        let start = &pickle[..pickle.len().min(20)];
        assert!(message.contains(part), "{start:?}: {message}");
        assert!(message.contains("download or write it again"), "{message}");
    }
}

#[test]
fn tensors_stay_inside_their_storages() {
    let of = |storage: Vec<u8>, offset, shape: &[i32], stride: &[i32]| {
        pickled::dict("a", pickled::tensor(storage, offset, shape, stride))
    };
    let floats = || pickled::storage("FloatStorage", "0", 4);
    for (pickle, part) in [
        (of(floats(), 0, &[5], &[1]), "a storage of 4 elements"),
        (of(floats(), 4, &[1], &[1]), "a storage of 4 elements"),
        (of(floats(), 0, &[2, 2], &[3, 2]), "a storage of 4 elements"),
        // Ten thousand million elements that are one.
        (of(floats(), 0, &[100_000, 100_000], &[0, 0]), "a storage of 4 elements"),
        (of(floats(), 0, &[i32::MAX; 8], &[i32::MAX; 8]), "a storage of 4 elements"),
        (of(floats(), -1, &[1], &[1]), "shape and strides"),
        (of(floats(), 0, &[-1], &[1]), "shape and strides"),
        (of(floats(), 0, &[1], &[1, 1]), "a storage of 4 elements"),
        (of(floats(), 0, &[1; 9], &[1; 9]), "shape and strides"),
        (of(pickled::storage("DoubleStorage", "0", 4), 0, &[3], &[1]), "a storage of 2 elements"),
        (of(pickled::storage("UntypedStorage", "0", 4), 0, &[3], &[1]), "a storage of bytes"),
        (of(pickled::storage("FloatStorage", "7", 4), 0, &[3], &[1]), "the storage \"7\""),
        (of(pickled::storage("FloatStorage", "../0", 4), 0, &[3], &[1]), "the storage \"../0\""),
        (of(pickled::storage("FloatStorage", &"0".repeat(99), 4), 0, &[3], &[1]), "the reference"),
        (of(pickled::int(3), 0, &[3], &[1]), "shape and strides"),
    ] {
        let message = damage("x.pth", &saved(&pickle));
        assert!(message.contains(part), "{message}");
    }
    // Many names of the same bytes.
    let one = pickled::tensor(pickled::storage("FloatStorage", "0", 1000), 0, &[1000], &[1]);
    let mut pickle = [b"\x80\x02}".to_vec(), pickled::text("a0"), one, b"q\x00s".to_vec()].concat();
    for i in 1..50 {
        pickle.extend([pickled::text(&format!("a{i}")), b"h\x00s".to_vec()].concat());
    }
    pickle.push(b'.');
    let files = [("a/data.pkl", &*pickle), ("a/data/0", &[0; 4000])];
    let message = damage("x.pth", &archive(&files, CompressionMethod::Stored));
    assert!(message.contains("tensors of at most twice the file"), "{message}");
}

#[test]
fn malformed_archives() {
    let pickle = b"\x80\x02}.";
    let stored = CompressionMethod::Stored;
    let of = |files: &[(&str, &[u8])]| archive(files, stored);
    for (bytes, part) in [
        (b"".to_vec(), "begins differently"),
        (b"PK".to_vec(), "begins differently"),
        (b"PK\x03\x04".to_vec(), "a readable archive"),
        (b"{}".to_vec(), "begins differently"),
        (b"\x80\x02N.".to_vec(), "another pickle"),
        (of(&[]), "begins differently"),
        (of(&[("a/b", b"")]), "a file data.pkl"),
        (of(&[("a/data.pkl", pickle), ("a/constants.pkl", b"")]), "TorchScript"),
        (of(&[("a/data.pkl", pickle), ("a/byteorder", b"big")]), "little-endian"),
    ] {
        let message = damage("x.pth", &bytes);
        assert!(message.contains(part), "{message}");
    }
    // A pickle that was changed after the archive was written.
    let mut changed = saved(&pickled::dict("abcdef", b"N".to_vec()));
    let at = changed.windows(6).position(|bytes| bytes == b"abcdef").unwrap();
    changed[at] = b'b';
    assert!(damage("x.pth", &changed).contains("intact bytes"));
    // The number of the compression method, in both headers of an entry.
    let compressed = |mut bytes: Vec<u8>, name: &[u8]| {
        for (magic, field) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
            for at in 0..bytes.len() - name.len() {
                let header = bytes[..at].windows(4).rposition(|four| four == magic);
                if let (true, Some(header)) = (bytes[at..].starts_with(name), header)
                    && at - header <= 46
                {
                    bytes[header + field] = 8;
                }
            }
        }
        bytes
    };
    let whole = saved(&pickled::dict("a", b"N".to_vec()));
    for name in ["a/data.pkl", "a/data/0"] {
        let message = damage("x.pth", &compressed(whole.clone(), name.as_bytes()));
        assert!(message.contains("uncompressed"), "{message}");
    }
    let npz = fs::read(reference("google.npz")).unwrap();
    let message = damage("x.npz", &compressed(npz, b"opt/target/cls.npy"));
    assert!(message.contains("numpy.savez"), "{message}");
    let legacy = fs::read(reference("legacy.pt")).unwrap();
    let zip = fs::read(reference("script.pth")).unwrap();
    let npz = fs::read(reference("google.npz")).unwrap();
    for (name, whole) in [("x.pt", legacy), ("x.pth", zip), ("x.npz", npz)] {
        assert!(opened(name, &whole).is_ok());
        // The last bytes of an archive are its directory, so every cut is found.
        for length in (0..whole.len()).step_by(61) {
            damage(name, &whole[..length]);
        }
    }
}

/// Damaged copies of valid files are read as something else, or are an error; nothing panics.
#[test]
fn damaged_copies_do_not_panic() {
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let names = [
        ("legacy.pt", "x.pt"),
        ("script.pth", "x.pth"),
        ("views.pth", "x.pth"),
        ("google.npz", "x.npz"),
    ];
    for (source, name) in names {
        let whole = fs::read(reference(source)).unwrap();
        let mut errors = 0;
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random(4) {
                let at = random(bytes.len());
                bytes[at] = [0, 0xff, bytes[at] ^ (1 << random(8))][random(3)];
            }
            errors += usize::from(opened(name, &bytes).is_err());
        }
        assert!(errors > 0, "{source}");
    }
}

/// A folder with the shards of the reference and another index.
fn with_index(change: impl FnOnce(&mut Value)) -> Error {
    let dir = TempDir::new().unwrap();
    for entry in fs::read_dir(reference("transformers-shards")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    fs::write(&path, index.to_string()).unwrap();
    open(dir.path()).unwrap_err()
}

#[test]
fn malformed_indices_of_shards() {
    let shard = "model-00001-of-00002.safetensors";
    for path in
        ["/etc/passwd", "../model.safetensors", "a/b", "..", ".", "", "/", "..\\x.safetensors"]
    {
        let found = with_index(|index| index["weight_map"]["classifier.bias"] = json!(path));
        let message = found.to_string();
        assert!(matches!(found, Error::Damaged { .. }), "{path}: {message}");
        assert!(message.contains("the name of a file in the same folder"), "{message}");
    }
    for (found, part) in [
        (with_index(|index| *index = json!([])), "an object of tensor and file names"),
        (with_index(|index| index["weight_map"] = json!("x")), "found a string"),
        (with_index(|index| index["weight_map"]["classifier.bias"] = json!(3)), "found 3"),
        (with_index(|index| index["weight_map"]["more"] = json!(shard)), "no such tensor"),
        (
            with_index(|index| {
                index["weight_map"].as_object_mut().unwrap().remove("classifier.bias");
            }),
            "a tensor of the index",
        ),
        (
            with_index(|index| {
                let map = index["weight_map"].as_object_mut().unwrap();
                for (name, file) in map {
                    if name == "classifier.bias" {
                        let other = file.as_str().unwrap().contains("00001");
                        *file = json!(format!(
                            "model-0000{}-of-00002.safetensors",
                            1 + i32::from(other)
                        ));
                    }
                }
            }),
            "as the index says",
        ),
    ] {
        let message = found.to_string();
        assert!(matches!(found, Error::Damaged { .. }), "{message}");
        assert!(message.contains(part), "{message}");
    }
    let absent = with_index(|index| index["weight_map"]["more"] = json!("absent.safetensors"));
    assert!(matches!(absent, Error::Io { .. }), "{absent}");
    let damaged = with_index(|index| index["weight_map"]["more"] = json!("config.json"));
    assert!(matches!(damaged, Error::Header { .. }), "{damaged}");
}

/// An array with this header text and 16 bytes.
fn array(header: &str) -> Vec<u8> {
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &[0; 16]].concat()
}

#[test]
fn malformed_numpy_archives() {
    let header = |dtype: &str, order: &str, shape: &str| {
        array(&format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': ({shape}), }}\n"))
    };
    let of = |bytes: &[u8]| archive(&[("embedding/kernel.npy", bytes)], CompressionMethod::Stored);
    let huge = "18446744073709551615, 18446744073709551615, 2, 2";
    for (bytes, part) in [
        (of(b""), "a header of NumPy's format"),
        (of(b"\x93NUMPY\x01\x00\xff\xff"), "a header of NumPy's format"),
        (of(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"), "a header of NumPy's format"),
        (of(&array(&"(".repeat(4000))), "a header of NumPy's format"),
        (of(&header("|O", "False", "1,")), "found \"|O\""),
        (of(&header(">f4", "False", "1,")), "found \">f4\""),
        (of(&header("<f4", "True", "2, 2")), "Fortran order"),
        (of(&header("<f4", "False", "99999999999999999999,")), "whole numbers"),
        (of(&header("<f4", "False", huge)), "an array of a Vision Transformer"),
        (of(&header("<f4", "False", "1, 1, 1, 5")), "a storage of 4 elements"),
        (of(&header("<f4", "False", "2, 2")), "shape [2, 2]"),
        (
            archive(&[("x.npy", &header("<f4", "False", "4,"))], CompressionMethod::Stored),
            "found none",
        ),
    ] {
        let message = damage("x.npz", &bytes);
        assert!(message.contains(part), "{message}");
        assert!(message.contains("numpy.savez"), "{message}");
    }
}

#[test]
fn other_parameters_of_jax_models_are_reported() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.npz");
    let source = fs::File::open(reference("google.npz")).unwrap();
    let mut source = zip::ZipArchive::new(source).unwrap();
    let mut zip = ZipWriter::new(fs::File::create(&path).unwrap());
    for i in 0..source.len() {
        zip.raw_copy_file(source.by_index_raw(i).unwrap()).unwrap();
    }
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("opt/target/pre_logits/bias.npy", stored).unwrap();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n";
    zip.write_all(&array(header)).unwrap();
    zip.finish().unwrap();
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("1 unexpected: pre_logits/bias"), "{message}");
}

#[test]
fn pointers_of_git_lfs_and_adapters() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 96936\n";
    for name in ["x.safetensors", "x.pth", "x.bin", "x.npz"] {
        let found = opened(name, pointer.as_bytes()).unwrap_err();
        let message = found.to_string();
        assert!(matches!(found, Error::LfsPointer { .. }), "{message}");
        assert!(message.contains("git lfs pull"), "{message}");
    }
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    let names_the_option = |error: Error| {
        let message = error.to_string();
        assert!(matches!(error, Error::Adapter { .. } | Error::IsAdapter { .. }), "{message}");
        assert!(message.contains("`adapter`"), "{message}");
    };
    names_the_option(open(dir.path()).unwrap_err());
    let mut tensors = raw(&small());
    let weight = tensors["head.weight"].clone();
    tensors.insert("base_model.model.head.lora_A.weight".into(), weight);
    names_the_option(open(folder(&tensors, &configuration()).path()).unwrap_err());
}

#[test]
fn any_shared_prefix_is_removed() {
    for prefix in ["net.", "encoder.", "vit.", "model.backbone.", "a.b.c.d."] {
        let wrapped: HashMap<String, Raw> =
            raw(&small()).into_iter().map(|(name, raw)| (format!("{prefix}{name}"), raw)).collect();
        let dir = folder(&wrapped, &configuration());
        let checkpoint = open(dir.path()).unwrap();
        assert_eq!(checkpoint.config.vit().unwrap(), &small());
        assert_eq!(checkpoint.file_tensors("head.bias").unwrap(), [format!("{prefix}head.bias")]);
        assert!(checkpoint.recognised.contains(&format!("each after \"{prefix}\"")));
    }
}

#[test]
fn one_of_two_models_in_a_safetensors_file() {
    let mut both = HashMap::new();
    for (name, (dtype, shape, bytes)) in raw(&small()) {
        both.insert(format!("state_dict_ema.{name}"), (dtype, shape.clone(), vec![0; bytes.len()]));
        both.insert(format!("state_dict.{name}"), (dtype, shape, bytes));
    }
    let dir = folder(&both, &configuration());
    assert!(matches!(open(dir.path()), Err(Error::SeveralModels { .. })));
    let of = |weights: &str| {
        Checkpoint::open(dir.path(), &Load { weights: Some(weights.into()), ..Load::default() })
    };
    let (model, ema) = (of("model").unwrap(), of("ema").unwrap());
    assert_ne!(model.digest, ema.digest);
    let bias = |checkpoint: &Checkpoint| {
        let bias = checkpoint.weights.get("blocks.0.mlp.fc1.weight").unwrap();
        bias.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert!(bias(&ema).iter().all(|&x| x == 0.0) && bias(&model).iter().any(|&x| x != 0.0));
    assert!(matches!(of("other"), Err(Error::NoSuchModel { .. })));
    // Saving keeps both models.
    let out = TempDir::new().unwrap();
    ema.save(&out.path().join("new"), &ema.weights, &provenance("sgd")).unwrap();
    let written = fs::read(out.path().join("new/model.safetensors")).unwrap();
    assert_eq!(safetensors::SafeTensors::deserialize(&written).unwrap().len(), both.len());
}
