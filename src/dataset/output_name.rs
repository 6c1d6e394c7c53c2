//! The names that an output may have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::replacement::{TEMPORARY, with_suffix};
use crate::error::{Error, Result};

/// Formats that a name can promise by its last suffix, and that the output does not have.
const OTHER_FORMATS: [(&str, &[&str]); 6] = [
    (
        "a compressed file",
        &["gz", "gzip", "zst", "zstd", "bz2", "xz", "lz4", "br", "zip", "7z", "tar", "tgz"],
    ),
    ("Parquet", &["parquet", "geoparquet"]),
    ("Arrow", &["arrow", "feather", "ipc"]),
    ("one JSON array", &["json"]),
    ("a table", &["csv", "tsv", "xlsx", "xls", "ods"]),
    ("a database", &["db", "sqlite", "sqlite3", "duckdb", "avro", "orc", "lance", "h5", "hdf5"]),
];

/// The longest name, in bytes: 255 with what the manifest's temporary file has at its end.
const LONGEST: usize = 255 - Manifest::SUFFIX.len() - TEMPORARY.len();

/// Refuses a name that is no file's, or that promises another format than JSON lines.
///
/// # Errors
/// [`Error::File`] with the remedy.
pub(super) fn check_name(output: &Path) -> Result<()> {
    let fault = |message: String| Err(Error::file(output, message));
    let bytes = output.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(Error::Setting("the output has an empty name; give a file such as out.jsonl".into()));
    }
    if bytes == b"-" {
        return fault(
            "records are not written to standard output, because a run that is killed must find them again; give a \
             file such as out.jsonl (or ./- for a file of this name)"
                .into(),
        );
    }
    if bytes.ends_with(b"/") {
        return fault("the name of a folder; give a file to write, such as out.jsonl in it".into());
    }
    if output.file_name().is_some_and(|name| name.len() > LONGEST) {
        return fault(format!(
            "the name is longer than {LONGEST} bytes, and the manifest's must fit too; shorten it"
        ));
    }
    let extension = output.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    match OTHER_FORMATS.iter().find(|(_, extensions)| extensions.contains(&&*extension)) {
        Some((format, _)) => fault(format!(
            "the name is that of {format}, and codit writes JSON lines without compression; give a name such as {}, \
             and convert the file after the run",
            json_lines_name(output).display()
        )),
        None => Ok(()),
    }
}

/// `x.jsonl` for `x.parquet`, `x.jsonl.gz` and `x.json.gz`.
fn json_lines_name(output: &Path) -> PathBuf {
    let name = output.with_extension("");
    let stem = if name.extension().is_some_and(is_json) { name.with_extension("") } else { name };
    with_suffix(&stem, ".jsonl")
}

fn is_json(extension: &OsStr) -> bool {
    extension == "json" || extension == "jsonl"
}
