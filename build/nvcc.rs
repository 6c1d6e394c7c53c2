//! The kernels for the GPU: each `kernels/*.cu` becomes a fatbin, machine code for the architectures below and PTX for
//! those to come.
//!
//! The compiler is the first that there is of `$NVCC`, `$CUDA_HOME/bin/nvcc`, `$CUDA_PATH/bin/nvcc`, `nvcc` on the
//! `PATH`, and what `kernels/toolchain.sh` brings. Without one (or with `NVCC` set to nothing) the crate is built
//! without kernels: `cfg(codit_kernels)` says which.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::{env, fs, thread};

/// Machine code for these, as far as the compiler knows them. PTX for the first, which any newer GPU can run.
const ARCHITECTURES: [&str; 4] = ["80", "89", "90a", "100"];
/// A list such as `80,90a` to be built instead.
const ARCHITECTURES_VARIABLE: &str = "CODIT_CUDA_ARCHS";
/// Read by nvcc itself; `-lineinfo`, say, shows a profiler the lines of the sources.
const FLAGS_VARIABLE: &str = "NVCC_APPEND_FLAGS";
/// Where `kernels/toolchain.sh` puts it.
const TOOLCHAIN: &str = ".cuda/nvidia/cu13/bin/nvcc";

/// Compiles what has changed and lists it in `OUT_DIR/fatbins.rs`.
pub fn build() {
    println!("cargo:rustc-check-cfg=cfg(codit_kernels)");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build/nvcc.rs");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", FLAGS_VARIABLE, ARCHITECTURES_VARIABLE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let Some(compiler) = Compiler::find() else { return };
    println!("cargo:rustc-cfg=codit_kernels");

    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let kernels: Vec<Kernel> = sources()
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
    /// What the compiler said, ptxas's figures among it.
    fn log(&self) -> PathBuf {
        self.fatbin.with_extension("log")
    }

    /// The hash of what the fatbin was made of.
    fn stamp(&self) -> PathBuf {
        self.fatbin.with_extension("stamp")
    }
}

struct Compiler {
    path: PathBuf,
    /// Such as `13.0`.
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
        let Some(release) = release else { panic!("{}: this is no nvcc: {version}", path.display()) };
        let wanted = env::var(ARCHITECTURES_VARIABLE).unwrap_or_default();
        let wanted: Vec<&str> = if wanted.is_empty() {
            // A compiler that knows 90 knows 90a, which it does not list.
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

    /// Everything that the result depends on.
    fn hash(&self, kernel: &Kernel) -> String {
        let mut hash = DefaultHasher::new();
        format!("{:?} {}", self.command(kernel), self.release).hash(&mut hash);
        env::var(FLAGS_VARIABLE).ok().hash(&mut hash);
        for path in headers(Path::new("kernels")).iter().chain([&kernel.source]) {
            read(path).hash(&mut hash);
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
        write(&kernel.log(), &log);
        write(&kernel.stamp(), hash.as_bytes());
    }
}

/// As many at once as cargo allows.
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

/// `OUT_DIR/ptxas.txt`, read by `.ci/check_ptxas.py`; and warnings, shown.
fn report(out: &Path, kernels: &[Kernel]) {
    let report: Vec<u8> = kernels.iter().flat_map(|kernel| read(&kernel.log())).collect();
    for line in String::from_utf8_lossy(&report).lines() {
        if line.to_lowercase().contains("warning") {
            println!("cargo:warning={line}");
        }
    }
    write(&out.join("ptxas.txt"), &report);
}

/// What `src/device/cuda/kernels.rs` includes.
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
    write(&out.join("fatbins.rs"), text.as_bytes());
}

/// `kernels/*.cu`, in the order of their names.
fn sources() -> Vec<PathBuf> {
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "cu");
    entries(Path::new("kernels")).into_iter().filter(is_source).collect()
}

/// All `.cuh` of a folder and the folders in it.
fn headers(folder: &Path) -> Vec<PathBuf> {
    let (folders, files): (Vec<_>, Vec<_>) = entries(folder).into_iter().partition(|path| path.is_dir());
    let is_header = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "cuh");
    let deeper = folders.iter().flat_map(|folder| headers(folder));
    files.into_iter().filter(is_header).chain(deeper).collect()
}

/// In the order of their names.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn name(source: &Path) -> String {
    source.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
