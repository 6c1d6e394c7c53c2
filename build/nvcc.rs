//! Compiles the kernels for the GPU. Each `kernels/*.cu` becomes a fatbin with machine code for the architectures
//! below and PTX for later ones.
//!
//! The compiler is `$NVCC`, or else the first that exists of `$CUDA_HOME/bin/nvcc`, `$CUDA_PATH/bin/nvcc`, `nvcc` on
//! the `PATH`, and the one that `kernels/toolchain.sh` installs. Without a compiler, or with an empty `NVCC`, the
//! crate has no fatbins. The build sets `cfg(codit_kernels)` only if it has a compiler.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::{env, fs, thread};

use crate::files;

/// The architectures of the machine code. An architecture that the compiler does not know is left out. The PTX is for
/// the first one, so every newer GPU can run it.
const ARCHITECTURES: [&str; 5] = ["80", "89", "90a", "100", "120"];
/// Environment variable with a list such as `80,90a` that replaces [`ARCHITECTURES`].
const ARCHITECTURES_VARIABLE: &str = "CODIT_CUDA_ARCHS";
/// Environment variable with options that nvcc itself reads, for example `-lineinfo` for a profiler that shows source
/// lines.
const FLAGS_VARIABLE: &str = "NVCC_APPEND_FLAGS";
/// Path of the compiler that `kernels/toolchain.sh` installs.
const TOOLCHAIN: &str = ".cuda/nvidia/cu13/bin/nvcc";

/// Compiles the kernels that have changed and lists all fatbins in `OUT_DIR/fatbins.rs`.
pub fn build() {
    println!("cargo:rustc-check-cfg=cfg(codit_kernels)");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build/nvcc.rs");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", FLAGS_VARIABLE, ARCHITECTURES_VARIABLE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let Some(compiler) = Compiler::find() else { return };
    println!("cargo:rustc-cfg=codit_kernels");

    let out = files::out_dir();
    let kernels: Vec<Kernel> = files::in_folder(Path::new("kernels"), &["cu"])
        .into_iter()
        .map(|source| Kernel { fatbin: out.join(name(&source)).with_extension("fatbin"), source })
        .collect();
    compile_all(&compiler, &kernels);
    report(&out, &kernels);
    list(&out, &compiler, &kernels);
}

struct Kernel {
    source: PathBuf,
    fatbin: PathBuf,
}

impl Kernel {
    /// The file with the compiler's output, which contains the statistics of ptxas.
    fn log(&self) -> PathBuf {
        self.fatbin.with_extension("log")
    }

    /// The file with the hash of all inputs of the fatbin.
    fn stamp(&self) -> PathBuf {
        self.fatbin.with_extension("stamp")
    }
}

struct Compiler {
    path: PathBuf,
    /// The release, for example `13.0`.
    release: String,
    architectures: Vec<String>,
}

impl Compiler {
    fn find() -> Option<Self> {
        let path = match env::var_os("NVCC") {
            Some(path) if path.is_empty() => return None,
            Some(path) => PathBuf::from(path),
            None => {
                let home = |variable| env::var_os(variable).map(|home| Path::new(&home).join("bin/nvcc"));
                let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>());
                let folders = on_path.unwrap_or_default().into_iter().map(|folder| folder.join("nvcc"));
                let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
                home("CUDA_HOME")
                    .into_iter()
                    .chain(home("CUDA_PATH"))
                    .chain(folders)
                    .chain([Path::new(&root).join(TOOLCHAIN)])
                    .find(|path| path.is_file())?
            }
        };
        let ask = |question| {
            let output = Command::new(&path).arg(question).output();
            let output = output.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let (version, known) = (ask("--version"), ask("--list-gpu-code"));
        let release = version.split("release ").nth(1).and_then(|rest| rest.split(',').next());
        let Some(release) = release else { panic!("{}: this is not nvcc: {version}", path.display()) };
        let wanted = env::var(ARCHITECTURES_VARIABLE).unwrap_or_default();
        let wanted: Vec<&str> = if wanted.is_empty() {
            // The compiler does not list 90a, but it knows 90a if it lists 90.
            let is_known = |name: &str| known.split_whitespace().any(|code| code == format!("sm_{name}"));
            ARCHITECTURES.into_iter().filter(|name| is_known(name.trim_end_matches('a'))).collect()
        } else {
            wanted.split(',').map(str::trim).collect()
        };
        let architectures = wanted.into_iter().map(str::to_owned).collect();
        Some(Self { release: release.to_owned(), architectures, path })
    }

    fn command(&self, kernel: &Kernel) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["-fatbin", "-std=c++17", "-O3", "-Xptxas", "-v", "-I", "kernels"]);
        for name in &self.architectures {
            command.arg(format!("-gencode=arch=compute_{name},code=sm_{name}"));
        }
        if let Some(first) = self.architectures.first() {
            let ptx = first.trim_end_matches(char::is_alphabetic);
            command.arg(format!("-gencode=arch=compute_{ptx},code=compute_{ptx}"));
        }
        command.arg("-o").arg(&kernel.fatbin).arg(&kernel.source);
        command
    }

    /// A hash of all inputs of the fatbin.
    fn hash(&self, kernel: &Kernel) -> String {
        let mut hash = DefaultHasher::new();
        format!("{:?} {}", self.command(kernel), self.release).hash(&mut hash);
        env::var(FLAGS_VARIABLE).ok().hash(&mut hash);
        for path in files::below(Path::new("kernels"), &["cuh"]).iter().chain([&kernel.source]) {
            files::read(path).hash(&mut hash);
        }
        format!("{:016x}", hash.finish())
    }

    fn compile(&self, kernel: &Kernel) {
        let hash = self.hash(kernel);
        if fs::read_to_string(kernel.stamp()).is_ok_and(|stamp| stamp == hash) && kernel.fatbin.is_file() {
            return;
        }
        let _ = fs::remove_file(kernel.stamp());
        let output = self.command(kernel).output();
        let Output { status, stdout, stderr } =
            output.unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        let log = [stdout, stderr].concat();
        assert!(status.success(), "{}:\n{}", kernel.source.display(), String::from_utf8_lossy(&log));
        files::write(&kernel.log(), &log);
        files::write(&kernel.stamp(), hash.as_bytes());
    }
}

/// Compiles the kernels in parallel, with as many jobs as cargo allows.
fn compile_all(compiler: &Compiler, kernels: &[Kernel]) {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let queue = Mutex::new(kernels.iter());
    let next = || queue.lock().expect("no thread panics while it takes a kernel").next();
    thread::scope(|scope| {
        for _ in 0..kernels.len().min(jobs) {
            scope.spawn(|| {
                while let Some(kernel) = next() {
                    compiler.compile(kernel);
                }
            });
        }
    });
}

/// Writes `OUT_DIR/ptxas.txt` for `.ci/check_ptxas.py`, and shows the compiler's warnings.
fn report(out: &Path, kernels: &[Kernel]) {
    let report: Vec<u8> = kernels.iter().flat_map(|kernel| files::read(&kernel.log())).collect();
    for line in String::from_utf8_lossy(&report).lines() {
        if line.to_lowercase().contains("warning") {
            println!("cargo:warning={line}");
        }
    }
    files::write(&out.join("ptxas.txt"), &report);
}

/// Writes the list that `src/device/cuda/kernels.rs` includes.
fn list(out: &Path, compiler: &Compiler, kernels: &[Kernel]) {
    let entry = |kernel: &Kernel| {
        let (family, fatbin) = (name(&kernel.source), kernel.fatbin.display().to_string());
        format!("    ({family:?}, include_bytes!({fatbin:?})),\n")
    };
    let entries: String = kernels.iter().map(entry).collect();
    let Compiler { release, architectures, .. } = compiler;
    let text = format!(
        "pub const RELEASE: &str = {release:?};\n\
         pub const ARCHITECTURES: &[&str] = &{architectures:?};\n\
         pub const FATBINS: &[(&str, &[u8])] = &[\n{entries}];\n"
    );
    files::write(&out.join("fatbins.rs"), text.as_bytes());
}

fn name(source: &Path) -> String {
    source.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
