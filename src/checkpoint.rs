//! A Hugging Face checkpoint as a set of named files: a folder on disk, or one built into the program.

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The files of one model. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    id: String,
    files: Files,
}

#[derive(Debug, Clone)]
enum Files {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// A file's bytes, mapped or built in. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Bytes {
    /// A mapped file.
    Mapped(Arc<Mmap>),
    /// Part of the program.
    Static(&'static [u8]),
    /// Made while running.
    Owned(Arc<[u8]>),
}

impl Bytes {
    /// Lets the system have back the memory of a range that will hardly be read again.
    pub fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is of a file and read-only, so that what is dropped is had from the file again.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Checkpoint {
    /// A checkpoint in `folder`.
    ///
    /// # Errors
    /// If `folder` is not a directory.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::file(
                folder,
                "not a folder; give a Hugging Face checkpoint folder with config.json",
            ));
        }
        Ok(Self { id: folder.display().to_string(), files: Files::Folder(folder.to_owned()) })
    }

    /// A checkpoint whose files are built into the program.
    pub fn embedded(id: &str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { id: id.to_owned(), files: Files::Embedded(files) }
    }

    /// What records call this model: the folder as it was given, or the embedded model's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where `file` is, for messages.
    pub fn path(&self, file: &str) -> PathBuf {
        match &self.files {
            Files::Folder(folder) => folder.join(file),
            Files::Embedded(_) => Path::new(&self.id).join(file),
        }
    }

    /// The bytes of `file`, or `None` where the checkpoint has no such file.
    ///
    /// # Errors
    /// If the file is there but cannot be mapped.
    pub fn find(&self, file: &str) -> Result<Option<Bytes>> {
        match &self.files {
            Files::Folder(_) => map(&self.path(file)),
            Files::Embedded(files) => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| Bytes::Static(bytes)))
            }
        }
    }

    /// The bytes of `file`.
    ///
    /// # Errors
    /// If the checkpoint lacks the file or it cannot be mapped.
    pub fn read(&self, file: &str) -> Result<Bytes> {
        self.find(file)?.ok_or_else(|| Error::file(self.path(file), "no such file in the checkpoint"))
    }
}

fn map(path: &Path) -> Result<Option<Bytes>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "cannot open")(error)),
    };
    let length = fs::metadata(path).map_err(Error::io(path, "cannot stat"))?.len();
    if length == 0 {
        return Ok(Some(Bytes::Static(&[])));
    }
    // SAFETY: the map is read-only; a model file that is rewritten while a run reads it is outside what any
    // reader of mapped weights can defend against, and the file's length is checked against its header before use.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "cannot map"))?;
    Ok(Some(Bytes::Mapped(Arc::new(map))))
}
