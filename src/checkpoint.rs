//! A Hugging Face checkpoint as a set of named files: a folder on disk, or one built into the program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The shape of the model.
pub const CONFIG_FILE: &str = "config.json";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The weights, where they are in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Which file each tensor is in, where the weights are in several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The files of one model. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    id: String,
    revision: Option<String>,
    files: Files,
}

#[derive(Debug, Clone)]
enum Files {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// How much of a model is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parts {
    /// config.json, which says the model's shape.
    Config,
    /// That, the tokenizer, the chat template and the rest that is small.
    Text,
    /// Those and the weights.
    All,
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
        let (id, files) = (folder.display().to_string(), Files::Folder(folder.to_owned()));
        Ok(Self { id, revision: None, files })
    }

    /// The checkpoint of a repository of models at a commit, in `folder`.
    #[cfg(feature = "hub")]
    pub(crate) fn snapshot(repository: &str, commit: &str, folder: PathBuf) -> Self {
        let (id, revision) = (repository.to_owned(), Some(commit.to_owned()));
        Self { id, revision, files: Files::Folder(folder) }
    }

    /// A checkpoint whose files are built into the program.
    pub fn embedded(id: &str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { id: id.to_owned(), revision: None, files: Files::Embedded(files) }
    }

    /// What records call this model: the folder as it was given, the repository, or the embedded model's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The commit, where the checkpoint is of a repository.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// Where `file` is, for messages.
    pub fn path(&self, file: &str) -> PathBuf {
        match &self.files {
            Files::Folder(folder) => folder.join(file),
            Files::Embedded(_) => Path::new(&self.id).join(file),
        }
    }

    /// Whether there is a file `file`.
    pub fn has(&self, file: &str) -> bool {
        match &self.files {
            Files::Folder(folder) => folder.join(file).exists(),
            Files::Embedded(files) => files.iter().any(|(name, _)| *name == file),
        }
    }

    /// Whether the files are there that no model can do without.
    #[cfg(feature = "hub")]
    pub(crate) fn has_parts(&self, parts: Parts) -> bool {
        let has_weights = || self.weight_files().is_ok_and(|files| files.iter().all(|file| self.has(file)));
        self.has(CONFIG_FILE)
            && (parts < Parts::Text || self.has(TOKENIZER_FILE))
            && (parts < Parts::All || has_weights())
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

    /// The file of each tensor, where there is an index that says so. It names safetensors files beside it only.
    ///
    /// # Errors
    /// [`Error::File`] if it is not such an index.
    pub fn index(&self) -> Result<Option<BTreeMap<String, String>>> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Some(bytes) = self.find(INDEX_FILE)? else { return Ok(None) };
        let complain = |message: String| Error::file(self.path(INDEX_FILE), message);
        let Index { weight_map } = serde_json::from_slice(&bytes)
            .map_err(|error| complain(format!("not an index of safetensors files: {error}")))?;
        // It must not lead out of the checkpoint's folder.
        let foreign = |file: &&String| {
            let strange = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
            file.contains(strange) || !file.ends_with(".safetensors")
        };
        match weight_map.values().find(foreign) {
            Some(file) => Err(complain(format!(
                "weight_map names {file:?}; it may name only *.safetensors files next to it"
            ))),
            None => Ok(Some(weight_map)),
        }
    }

    /// The files that hold the weights: those that the index names, unless one file holds all.
    ///
    /// # Errors
    /// As [`Checkpoint::index`].
    pub fn weight_files(&self) -> Result<Vec<String>> {
        if self.has(WEIGHTS_FILE) {
            return Ok(vec![WEIGHTS_FILE.to_owned()]);
        }
        let Some(index) = self.index()? else { return Ok(vec![WEIGHTS_FILE.to_owned()]) };
        let mut files: Vec<String> = index.into_values().collect();
        files.sort_unstable();
        files.dedup();
        Ok(files)
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

/// Bytes of a hash as it is written.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
