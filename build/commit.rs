//! Tells the program of which commit it is.
//!
//! The program includes git's log of HEAD and takes the commit from its last line. So a new commit compiles the program
//! anew, and neither the library nor the kernels.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::files;

/// Names the log. Where there is no git, as in a tarball, it is an empty file.
pub fn find() {
    println!("cargo:rerun-if-changed=build/commit.rs");
    let log = log_of_head().unwrap_or_else(|| {
        let empty = files::out_dir().join("no-commit");
        files::write(&empty, b"");
        empty
    });
    println!("cargo:rustc-env=CODIT_LOG_OF_HEAD={}", log.display());
}

fn log_of_head() -> Option<PathBuf> {
    // A tarball may be unpacked within the repository of something else.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    let package = env::var_os("CARGO_MANIFEST_DIR")?;
    let is_own = fs::canonicalize(top).ok()? == fs::canonicalize(package).ok()?;
    let log = Path::new(&git(&["rev-parse", "--git-path", "logs/HEAD"])?).canonicalize().ok()?;
    is_own.then_some(log)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
