//! A test folder with small images and a model, and functions that run the program.

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

pub const F32: &str = "F32";
pub const I64: &str = "I64";

/// A temporary working folder.
pub struct Bench {
    folder: TempDir,
    /// An IDX folder: 40 training and 40 test images of 14×14, labels 0, 1, 2, 3, 0, …
    pub data: String,
    /// A folder with a model for this data, if created by [`Bench::with_model`].
    pub model: String,
}

/// Result of running the program.
pub struct Output {
    pub success: bool,
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

impl Output {
    /// Asserts exit code 1 and a single error line that contains all these parts.
    pub fn fails_with(&self, parts: &[&str]) {
        self.stops_with(1, parts);
    }

    /// Like [`fails_with`](Self::fails_with), but with exit code 2 for an invalid command line.
    #[allow(dead_code)]
    pub fn is_refused_with(&self, parts: &[&str]) {
        self.stops_with(2, parts);
    }

    fn stops_with(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{} {}", self.output, self.errors);
        assert!(self.errors.starts_with("error: "), "{}", self.errors);
        assert_eq!(self.errors.lines().count(), 1, "{}", self.errors);
        for part in parts {
            assert!(self.errors.contains(part), "`{part}` is not in: {}", self.errors);
        }
    }
}

impl Bench {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut bench = Self { folder, data: String::new(), model: String::new() };
        bench.data = bench.idx("data", 4);
        bench.model = bench.path("model");
        bench
    }

    pub fn with_model() -> Self {
        let bench = Self::new();
        let made = bench.run(&[
            "finetune",
            "--arch",
            "vit_nano_patch7_14",
            "--data",
            &bench.data,
            "--epochs",
            "1",
            "--batch",
            "8",
            "--val-fraction",
            "0",
            "--out",
            &bench.model,
        ]);
        assert!(made.success, "{}", made.errors);
        bench
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.plain(&[words, &["--threads", "2"]].concat())
    }

    /// Runs a command that does not compute.
    pub fn plain(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
        command.args(words).current_dir(self.folder.path());
        // Do not use the cache of the user.
        command.env("XDG_CACHE_HOME", self.path("xdg"));
        let out = command.output().unwrap();
        Output {
            success: out.status.success(),
            code: out.status.code(),
            output: String::from_utf8(out.stdout).unwrap(),
            errors: String::from_utf8(out.stderr).unwrap(),
        }
    }

    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// An IDX folder in which the brightness of an image determines its class.
    pub fn idx(&self, name: &str, classes: usize) -> String {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        for (prefix, shade) in [("train", 0), ("t10k", 9)] {
            let mut images = vec![0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 14, 0, 0, 0, 14];
            let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 40];
            for i in 0..40 {
                let label = i % classes;
                labels.push(label as u8);
                images.extend((0..196).map(|j| (40 * label + (shade + 7 * i + 13 * j) % 64) as u8));
            }
            fs::write(format!("{path}/{prefix}-images-idx3-ubyte"), images).unwrap();
            fs::write(format!("{path}/{prefix}-labels-idx1-ubyte"), labels).unwrap();
        }
        path
    }

    /// A safetensors file of ones and twos.
    pub fn write(&self, name: &str, tensors: &[(&str, &str, Vec<usize>)]) {
        let raw: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape)| {
                let n: usize = shape.iter().product();
                let dtype = if *dtype == F32 { Dtype::F32 } else { Dtype::I64 };
                let bytes: Vec<u8> = match dtype {
                    Dtype::F32 => {
                        (0..n).flat_map(|i| (1.0 + (i % 2) as f32).to_le_bytes()).collect()
                    }
                    _ => (0..n).flat_map(|i| (i as i64).to_le_bytes()).collect(),
                };
                (*name, dtype, shape.clone(), bytes)
            })
            .collect();
        let views = raw.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        fs::write(self.path(name), serialize(views, None).unwrap()).unwrap();
    }
}

/// One tensor of a file.
pub struct Raw {
    pub shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Raw {
    pub fn is_f32(&self) -> bool {
        self.dtype == Dtype::F32
    }
    pub fn f32s(&self) -> Vec<f32> {
        self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
    pub fn f64s(&self) -> Vec<f64> {
        self.bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }
    pub fn i64s(&self) -> Vec<i64> {
        self.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }
}

/// The tensors of a file, by name.
pub fn tensors(path: &str) -> BTreeMap<String, Raw> {
    let bytes = fs::read(path).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |view: TensorView| Raw {
        shape: view.shape().to_vec(),
        dtype: view.dtype(),
        bytes: view.data().to_vec(),
    };
    read.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect()
}
