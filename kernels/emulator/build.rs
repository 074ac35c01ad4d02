//! Compiles every kernel beside the library's sources, and the emulator, as C++.
//!
//! Elsewhere than on Linux on x86-64, whose fibers it knows, there is nothing to compile.
//! `PLANISH_SANITIZE=address` builds them, and the tests, with AddressSanitizer.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let kernels = here.join("../src");
    for changed in [&here.join("cpp"), &kernels] {
        println!("cargo:rerun-if-changed={}", changed.display());
    }
    println!("cargo:rerun-if-env-changed=PLANISH_SANITIZE");
    println!("cargo:rustc-check-cfg=cfg(sanitized)");
    let target = ["CARGO_CFG_TARGET_OS", "CARGO_CFG_TARGET_ARCH"].map(env::var);
    if target != [Ok("linux".into()), Ok("x86_64".into())] {
        return Ok(());
    }
    let mut build = cc::Build::new();
    // Quick to compile, and right: at 2 the vectoriser of straight-line code in GCC 12.2 makes wrong
    // sums of two tangents of f32 over rows of several tiles. With -fno-tree-slp-vectorize it does
    // not, and its own check for undefined behaviour finds none here.
    build.cpp(true).std("c++17").opt_level(1).include(here.join("cpp")).include(&kernels);
    build.define("KERNELS_ON_CPU", None).warnings(true).extra_warnings(true);
    // As exact on every machine, and packs may be read as bytes.
    build.flag("-ffp-contract=off").flag("-fno-strict-aliasing").flag("-Wno-unknown-pragmas");
    if env::var("PLANISH_SANITIZE").is_ok_and(|which| which == "address") {
        // Stacks are the emulator's own, which the sanitizer would take for overruns.
        build.flag("-fsanitize=address").flag("--param=asan-stack=0");
        println!("cargo:rustc-link-arg=-lasan");
        println!("cargo:rustc-cfg=sanitized");
    }
    build.file(here.join("cpp/fibers.cpp")).file(here.join("cpp/launch.cpp"));
    for source in sources(&kernels)?.iter().chain(&sources(&here.join("cpp"))?) {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let unit = out.join(format!("{name}.kernels.cpp"));
        fs::write(&unit, format!("#include \"{}\"\n", source.display()))?;
        build.file(unit);
    }
    // Kernels register themselves: nothing refers to them by symbol.
    build.link_lib_modifier("+whole-archive").compile("planish_emulator");
    Ok(())
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
