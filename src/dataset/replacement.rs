//! Replaces a file as a whole: after a crash, the old file or the new one is there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The end of a temporary file's name. Loaders of datasets know no such suffix, and nobody else gives it to a file: what is
/// there of a killed run is removed.
pub(super) const TEMPORARY: &str = ".codit-tmp";

/// A temporary file that is to take another file's place. If it is dropped before that, it is removed.
#[derive(Debug)]
pub(super) struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    is_committed: bool,
}

impl Replacement {
    /// Creates an empty file, open for reading and appending, that is to replace `path`. The caller must hold the lock
    /// of the output, so that no other run uses the temporary file.
    ///
    /// # Errors
    /// [`Error::File`] if something other than the rest of a killed run has the temporary file's name: a symbolic
    /// link, for example, would lead the writes to its target. [`Error::Io`] if the system refuses.
    pub fn create(path: &Path) -> Result<(Self, File)> {
        let temporary = Self::temporary_of(path);
        match fs::symlink_metadata(&temporary) {
            Ok(metadata) if metadata.is_file() => {
                fs::remove_file(&temporary).map_err(Error::io(&temporary, "cannot remove"))?;
            }
            Ok(_) => {
                let message = "not a regular file, and codit writes a temporary file of this name; remove it";
                return Err(Error::file(&temporary, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&temporary, "cannot stat")(error)),
        }
        // `create_new` does not follow a symbolic link that appears in the meantime.
        let file = File::options().read(true).append(true).create_new(true).open(&temporary);
        let file = file.map_err(Error::io(&temporary, "cannot create"))?;
        Ok((Self { path: path.to_owned(), temporary, is_committed: false }, file))
    }

    /// Replaces the file at `path` with one of these contents.
    ///
    /// # Errors
    /// Those of [`Replacement::create`] and [`Replacement::commit`].
    pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
        let (replacement, mut file) = Self::create(path)?;
        file.write_all(contents).map_err(Error::io(&replacement.temporary, "cannot write"))?;
        replacement.commit(&file)
    }

    /// Makes `file`, which [`Replacement::create`] returned, durable, and puts it in the old file's place.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses; the old file is still there then.
    pub fn commit(mut self, file: &File) -> Result<()> {
        file.sync_all().map_err(Error::io(&self.temporary, "cannot sync"))?;
        fs::rename(&self.temporary, &self.path).map_err(Error::io(&self.path, "cannot replace"))?;
        self.is_committed = true;
        sync_folder_of(&self.path)
    }

    /// The path of the temporary file that is to replace `path`.
    pub fn temporary_of(path: &Path) -> PathBuf {
        with_suffix(path, TEMPORARY)
    }

    /// The path of this temporary file.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// `path` with `suffix` at the end of its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the name of the file at `path` survive a crash of the system.
pub(super) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder, "cannot sync"))
}
