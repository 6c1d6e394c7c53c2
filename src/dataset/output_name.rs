//! The names that an output may have.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

/// `x.jsonl` for `x.parquet` and for `x.jsonl.gz`.
fn json_lines_name(output: &Path) -> std::path::PathBuf {
    let stem = output.with_extension("");
    if stem.extension().is_some_and(|extension| extension == "jsonl") {
        stem
    } else {
        output.with_extension("jsonl")
    }
}
