//! Files that are mapped into memory, and what becomes of a program when another one changes them.

use std::fs::{File, Metadata};
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use memmap2::{Mmap, UncheckedAdvice};

use crate::error::{Error, Result};

/// The files that are mapped now, for [`shrunk_file`].
static MAPPED: Mutex<Vec<Weak<MappedFile>>> = Mutex::new(Vec::new());

/// A file that is mapped for reading.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    found: State,
    map: Mmap,
}

/// What changes with the contents of a file.
#[derive(Debug, PartialEq)]
struct State {
    length: u64,
    modified: Option<SystemTime>,
}

impl MappedFile {
    /// Maps `file`, which was opened at `path` and is not empty.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses.
    pub fn new(path: &Path, file: File) -> Result<Arc<Self>> {
        let metadata = file.metadata().map_err(Error::io(path, "cannot stat"))?;
        // SAFETY: the map is read-only, and the file's length is checked against its header before use. If another
        // program changes the file, `check_unchanged` finds it; if it cuts it off, a program that
        // handles SIGBUS learns it from `shrunk_file`, and another ends by the signal.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "cannot map"))?;
        let mapped = Arc::new(Self { path: path.to_owned(), file, found: State::of(&metadata), map });
        let mut all = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|file| file.strong_count() > 0);
        all.push(Arc::downgrade(&mapped));
        Ok(mapped)
    }

    /// Lets the system reclaim the memory of a range that is unlikely to be read again.
    pub fn forget(&self, range: Range<usize>) {
        // SAFETY: the map is read-only and backed by a file, so the system reads dropped pages from the file again.
        let _ =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }

    /// Checks that nobody has written to the file since it was mapped.
    ///
    /// # Errors
    /// [`Error::Io`] if somebody has.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(Error::io(&self.path, "cannot stat"))?;
        if State::of(&now) == self.found {
            return Ok(());
        }
        Err(self.was_changed())
    }

    fn was_changed(&self) -> Error {
        let message = "another program has changed it while it was read; see that the file is whole, and run the same \
            command again";
        Error::io(&self.path, "cannot go on")(io::Error::other(message))
    }
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// The error about a mapped file that is shorter than it was, if there is one: for a handler of SIGBUS, which the system
/// sends to who reads a page that such a file lacks.
pub fn shrunk_file() -> Option<Error> {
    // Whoever reads a page does not hold this lock, and a handler must not wait for those who do.
    let all = MAPPED.try_lock().ok()?;
    let is_shorter =
        |file: &Arc<MappedFile>| file.file.metadata().is_ok_and(|now| now.len() < file.found.length);
    all.iter().filter_map(Weak::upgrade).find(is_shorter).map(|file| file.was_changed())
}
