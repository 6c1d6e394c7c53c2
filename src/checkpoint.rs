//! A Hugging Face checkpoint as a set of named files: a folder on disk, or one built into the program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The file with the model's shape.
pub const CONFIG_FILE: &str = "config.json";
/// The file with the tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The file with the weights, if one file holds all of them.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file that lists where each tensor is, if several files hold the weights.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The files of one model. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    id: String,
    revision: Option<String>,
    files: Files,
    /// Counts the bytes of the weights that are asked for.
    counter: Option<Arc<AtomicU64>>,
}

#[derive(Debug, Clone)]
enum Files {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// The parts of a model that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parts {
    /// config.json, which gives the model's shape.
    Config,
    /// Also the tokenizer, the chat template and the other small files.
    Text,
    /// Also the weights.
    All,
}

/// The bytes of a file. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Bytes {
    /// A memory-mapped file.
    Mapped(Arc<Mmap>),
    /// A file that is built into the program.
    Static(&'static [u8]),
    /// Bytes that are created at run time.
    Owned(Arc<[u8]>),
}

impl Bytes {
    /// Lets the system reclaim the memory of a range that is unlikely to be read again.
    pub fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is read-only and backed by a file, so the system reads dropped pages from the file
            // again.
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
        Ok(Self { id, revision: None, files, counter: None })
    }

    /// The checkpoint in `folder`, which holds a commit of a model repository.
    #[cfg(feature = "hub")]
    pub(crate) fn snapshot(repository: &str, commit: &str, folder: PathBuf) -> Self {
        let (id, revision) = (repository.to_owned(), Some(commit.to_owned()));
        Self { id, revision, files: Files::Folder(folder), counter: None }
    }

    /// A checkpoint whose files are built into the program.
    pub fn embedded(id: &str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { id: id.to_owned(), revision: None, files: Files::Embedded(files), counter: None }
    }

    /// Counts the bytes of the weights in `counter` as they are loaded, for those who wait for them.
    #[must_use]
    pub fn counting(self, counter: Arc<AtomicU64>) -> Self {
        Self { counter: Some(counter), ..self }
    }

    /// So many bytes of the weights are about to be loaded.
    pub(crate) fn count(&self, bytes: usize) {
        if let Some(counter) = &self.counter {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The name of this model in records: the folder as given, the repository, or the embedded model's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The commit, if the checkpoint comes from a repository.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The path of `file`, for messages.
    pub fn path(&self, file: &str) -> PathBuf {
        match &self.files {
            Files::Folder(folder) => folder.join(file),
            Files::Embedded(_) => Path::new(&self.id).join(file),
        }
    }

    /// Whether the checkpoint has the file `file`.
    pub fn has(&self, file: &str) -> bool {
        match &self.files {
            Files::Folder(folder) => folder.join(file).exists(),
            Files::Embedded(files) => files.iter().any(|(name, _)| *name == file),
        }
    }

    /// Whether the checkpoint has the files of `parts` that every model needs.
    #[cfg(feature = "hub")]
    pub(crate) fn has_parts(&self, parts: Parts) -> bool {
        let has_weights = || self.weight_files().is_ok_and(|files| files.iter().all(|file| self.has(file)));
        self.has(CONFIG_FILE)
            && (parts < Parts::Text || self.has(TOKENIZER_FILE))
            && (parts < Parts::All || has_weights())
    }

    /// The bytes of `file`, or `None` if the checkpoint has no such file.
    ///
    /// # Errors
    /// If the file exists but cannot be mapped.
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
    /// If the checkpoint lacks the file or the file cannot be mapped.
    pub fn read(&self, file: &str) -> Result<Bytes> {
        self.find(file)?.ok_or_else(|| Error::file(self.path(file), "no such file in the checkpoint"))
    }

    /// The file of each tensor, if the checkpoint has an index. The index names only safetensors files in the same
    /// folder.
    ///
    /// # Errors
    /// [`Error::File`] if the index is invalid.
    pub fn index(&self) -> Result<Option<BTreeMap<String, String>>> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Some(bytes) = self.find(INDEX_FILE)? else { return Ok(None) };
        let complain = |message: String| Error::file(self.path(INDEX_FILE), message);
        let Index { weight_map } = serde_json::from_slice(&bytes)
            .map_err(|error| complain(format!("not an index of safetensors files: {error}")))?;
        // A file name must not lead out of the checkpoint's folder.
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

    /// The files that hold the weights: the single weights file if it exists, or else the files that the index names.
    ///
    /// # Errors
    /// The errors of [`Checkpoint::index`].
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
    // SAFETY: the map is read-only, and the file's length is checked against its header before use. No reader of
    // mapped weights can guard against a model file that is rewritten during a run.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "cannot map"))?;
    Ok(Some(Bytes::Mapped(Arc::new(map))))
}

/// The bytes of a hash in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
