//! Compiles the kernels for the host: `kernels/**/*.cu` as C++ against the SIMT runtime, into one static library, and
//! the interpreter of PTX into another.

use std::env;
use std::path::Path;

use crate::files;

/// Folders of the library's translation units.
const FOLDERS: [&str; 3] = ["kernels", "kernels/simt", "kernels/simt/probes"];
/// Folder of the interpreter of PTX.
const INTERPRETER: &str = "kernels/simt/ptx";
/// Environment variable. `address` builds the library with gcc's `AddressSanitizer` and links the sanitizer into
/// cargo's binaries.
const SANITIZE: &str = "CODIT_SIMT_SANITIZE";

/// Compiles and links both libraries.
///
/// The first one includes the header that `abi::generate` writes.
pub fn build() {
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build/simt.rs");
    println!("cargo:rerun-if-env-changed={SANITIZE}");

    let mut kernels = library("c++17");
    kernels
        .opt_level(2)
        .flag("-xc++") // the host compiler does not know the extension .cu
        .flag("-ftls-model=initial-exec") // blockIdx and threadIdx are thread-local
        .include("kernels")
        .include(files::out_dir())
        .files(FOLDERS.into_iter().flat_map(|folder| files::in_folder(Path::new(folder), &["cu", "cpp"])));
    let mut interpreter = library("c++20");
    interpreter
        .opt_level(3) // turns loops over the lanes into vector code
        .flag("-fno-math-errno")
        .flag("-fno-trapping-math")
        .files(files::in_folder(Path::new(INTERPRETER), &["cpp"]));
    match env::var(SANITIZE).as_deref() {
        Err(_) | Ok("") => {}
        Ok("address") => {
            sanitize_addresses(&mut kernels);
            sanitize_addresses(&mut interpreter);
            link_sanitizer(&kernels);
        }
        Ok(other) => panic!("{SANITIZE}={other}: the only value is address"),
    }
    // The interpreter uses functions of the other library, and the linker reads libraries in their order.
    interpreter.compile("codit_ptx");
    // The linker must keep the whole archive: nothing refers to a kernel except its own registration.
    kernels.link_lib_modifier("+whole-archive").compile("codit_simt");
}

fn library(standard: &str) -> cc::Build {
    let mut library = cc::Build::new();
    library
        .cpp(true)
        .std(standard)
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Wno-unknown-pragmas") // #pragma unroll
        .flag("-fno-strict-aliasing") // nvcc does not assume strict aliasing
        .flag("-ffp-contract=off"); // gives the same numbers on every machine
    library
}

fn sanitize_addresses(library: &mut cc::Build) {
    library.flag("-fsanitize=address").flag("-fno-omit-frame-pointer").debug(true);
}

/// Links the sanitizer's whole static runtime into cargo's binaries.
///
/// rustc links without the options that add the sanitizer's own libraries. A shared runtime that is loaded after libc
/// intercepts nothing.
fn link_sanitizer(library: &cc::Build) {
    let output = library.get_compiler().to_command().arg("-print-file-name=libasan.a").output();
    let runtime = String::from_utf8(output.expect("the C++ compiler runs").stdout).expect("a path in UTF-8");
    let runtime = Path::new(runtime.trim());
    assert!(runtime.is_absolute(), "{SANITIZE}=address needs g++ and its libasan.a");
    println!("cargo:rustc-link-arg=-Wl,--whole-archive,{},--no-whole-archive", runtime.display());
}
