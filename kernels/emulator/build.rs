//! Compiles every kernel file and the emulator as C++.
//!
//! Only on Linux on x86-64, for which the fibers are written; elsewhere there is nothing to
//! compile. With `PLANISH_SANITIZE=address` the kernels and tests are built with AddressSanitizer.

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
    // Level 1 compiles quickly and correctly. At level 2 the SLP vectoriser of GCC 12.2 miscompiles
    // sums of two f32 tangents over rows of several tiles: -fno-tree-slp-vectorize fixes it, and
    // the undefined behaviour sanitizer finds nothing.
    build.cpp(true).std("c++17").opt_level(1).include(here.join("cpp")).include(&kernels);
    build.define("KERNELS_ON_CPU", None).warnings(true).extra_warnings(true);
    // No fused multiply-add, so that results are the same on every machine. Packs are accessed as
    // bytes.
    build.flag("-ffp-contract=off").flag("-fno-strict-aliasing").flag("-Wno-unknown-pragmas");
    if env::var("PLANISH_SANITIZE").is_ok_and(|which| which == "address") {
        // Fibers have their own stacks, which the sanitizer would report as overruns.
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
    // Kernels register themselves in static initialisers, so no symbol refers to them.
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
