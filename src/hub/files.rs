//! Files of the cache, which others may have put there: no link is written through, and nothing waits for a pipe's other end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK` of Linux: opening a pipe does not wait.
const NO_WAIT: i32 = 0o4000;
/// `O_NOFOLLOW` of Linux: a link is an error.
const NO_LINK: i32 = 0o400_000;
/// Bytes of the longest text that is read: a commit, or a token.
const LONGEST_TEXT: u64 = 64 << 10;

/// Opens the regular file at `path` for appending and reading, or creates it.
pub(super) fn open_to_append(path: &Path) -> io::Result<File> {
    let file =
        File::options().create(true).append(true).read(true).custom_flags(NO_LINK | NO_WAIT).open(path)?;
    check_kind(&file)?;
    Ok(file)
}

/// The text in the regular file at `path`, or in that which a link there leads to.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(NO_WAIT).open(path)?;
    check_kind(&file)?;
    let mut text = String::new();
    file.take(LONGEST_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

/// Puts a file with this text in the place of whatever is at `path`.
pub(super) fn write_text(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = File::options().write(true).create_new(true).open(&temporary)?;
    file.write_all(text.as_bytes()).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

fn check_kind(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file; remove it")) }
}
