//! Lists, reads and writes files. Every failure ends the build with the file's name.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The files of a folder that have one of the extensions, sorted by name.
pub fn in_folder(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| has_extension(path, extensions)).collect()
}

/// The files of a folder and its subfolders that have one of the extensions.
pub fn below(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let folders = entries(folder).into_iter().filter(|path| path.is_dir());
    let deeper = folders.flat_map(|folder| below(&folder, extensions));
    in_folder(folder, extensions).into_iter().chain(deeper).collect()
}

/// The contents of a file.
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The contents of a text file.
pub fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes a file.
pub fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The folder in which cargo expects the build's results.
pub fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
}

/// The paths in a folder, sorted by name.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|extension| extensions.iter().any(|expected| extension == *expected))
}
