//! The kernels for the host: `kernels/**/*.cu` as C++ against the SIMT runtime, one static library.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// What it is built from.
const SOURCES: [&str; 3] = ["kernels", "kernels/simt", "kernels/simt/probes"];
/// `address` builds it, and links what cargo builds, under gcc's address sanitizer.
const SANITIZE: &str = "CODIT_SIMT_SANITIZE";

/// Compiles and links.
pub fn build() {
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build/simt.rs");
    println!("cargo:rerun-if-env-changed={SANITIZE}");

    let mut library = cc::Build::new();
    library
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .flag("-xc++") // .cu too
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Wno-unknown-pragmas") // #pragma unroll
        .flag("-fno-strict-aliasing") // nvcc takes none of the liberties that C++ gives here
        .flag("-ffp-contract=off") // the same numbers on every machine
        .flag("-ftls-model=initial-exec") // blockIdx and threadIdx are thread-local
        .include("kernels")
        .files(SOURCES.into_iter().flat_map(sources));
    match env::var(SANITIZE).as_deref() {
        Err(_) | Ok("") => {}
        Ok("address") => sanitize_addresses(&mut library),
        Ok(other) => panic!("{SANITIZE}={other}: it can be address"),
    }
    // Whole, because nothing but its own registration refers to a kernel.
    library.link_lib_modifier("+whole-archive").compile("codit_simt");
}

/// The sanitizer's runtime goes whole into what cargo links: rustc links without a driver's own libraries, and from a
/// shared one after libc nothing would be intercepted.
fn sanitize_addresses(library: &mut cc::Build) {
    library.flag("-fsanitize=address").flag("-fno-omit-frame-pointer").debug(true);
    let asked = library.get_compiler().to_command().arg("-print-file-name=libasan.a").output();
    let runtime = String::from_utf8(asked.expect("the C++ compiler runs").stdout).expect("a path in UTF-8");
    let runtime = Path::new(runtime.trim());
    assert!(runtime.is_absolute(), "{SANITIZE}=address needs g++ and its libasan.a");
    println!("cargo:rustc-link-arg=-Wl,--whole-archive,{},--no-whole-archive", runtime.display());
}

/// The translation units of a folder, in the order of their names.
fn sources(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap_or_else(|e| panic!("{folder}: {e}")).path())
        .filter(|path| is_source(path))
        .collect();
    files.sort();
    files
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cu" || extension == "cpp")
}
