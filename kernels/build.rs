//! With feature `cuda`, compiles every kernel file to PTX. The driver compiles PTX for the GPU it
//! finds (compute capability 8.0 or newer).
//!
//! The compiler is `$NVCC`, else `$CUDA_HOME/bin/nvcc`, else `nvcc` from the path.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

fn main() -> ExitCode {
    for variable in ["NVCC", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=src");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let nvcc = env::var_os("NVCC").map(PathBuf::from).unwrap_or_else(|| {
        env::var_os("CUDA_HOME").map_or("nvcc".into(), |home| Path::new(&home).join("bin/nvcc"))
    });
    let mut list = String::from("&[\n");
    for source in sources(Path::new("src"))? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let ptx = out.join(format!("{name}.ptx"));
        let mut command = Command::new(&nvcc);
        command.args(["-O3", "-std=c++17", "-arch=compute_80", "-ptx"]);
        command.arg(&source).arg("-o").arg(&ptx);
        let status = command.status().map_err(|error| {
            let (nvcc, hint) = (nvcc.display(), "set NVCC or CUDA_HOME, or build without `cuda`");
            io::Error::other(format!("cannot run the CUDA compiler {nvcc}: {error}; {hint}"))
        })?;
        if !status.success() {
            return Err(io::Error::other(format!("{} does not compile", source.display())));
        }
        list += &format!("    ({name:?}, include_str!({:?})),\n", ptx.display().to_string());
    }
    fs::write(out.join("ptx.rs"), list + "]\n")
}

fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "cu") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
