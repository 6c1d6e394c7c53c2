//! A Hugging Face checkpoint as a set of named files: a folder on disk, or one built into the program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::mapped_file::MappedFile;
use crate::python_json;

/// The file with the model's shape.
pub const CONFIG_FILE: &str = "config.json";
/// The file with the tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The file with the weights, if one file holds all of them.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file that lists where each tensor is, if several files hold the weights.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The end of the name of a file with weights.
pub(crate) const WEIGHTS_ENDING: &str = ".safetensors";

/// The most bytes of a file that holds no weights. The largest published tokenizer.json has 34 MB.
pub(crate) const LARGEST_SMALL_FILE: u64 = 256 << 20;
/// The first bytes of what git leaves in place of a file until Git LFS has fetched it.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

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
    Mapped(Arc<MappedFile>),
    /// A file that is built into the program.
    Static(&'static [u8]),
    /// Bytes that are created at run time.
    Owned(Arc<[u8]>),
}

impl Bytes {
    /// Lets the system reclaim the memory of a range that is unlikely to be read again.
    pub fn forget(&self, range: Range<usize>) {
        if let Self::Mapped(file) = self {
            file.forget(range);
        }
    }

    /// Checks that nobody has written to the file since it was mapped.
    ///
    /// # Errors
    /// [`Error::Io`] if somebody has.
    pub fn check_unchanged(&self) -> Result<()> {
        match self {
            Self::Mapped(file) => file.check_unchanged(),
            Self::Static(_) | Self::Owned(_) => Ok(()),
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
        if !folder.exists() {
            return Err(Error::file(folder, "no such folder"));
        }
        if !folder.is_dir() {
            return Err(Error::file(
                folder,
                "a file, not a folder; give the folder of a Hugging Face checkpoint, with config.json and safetensors files",
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
    /// If the file cannot be read, is a Git LFS pointer, or is larger than such a file can be.
    pub fn find(&self, file: &str) -> Result<Option<Bytes>> {
        let path = match &self.files {
            Files::Folder(folder) => folder.join(file),
            Files::Embedded(files) => {
                return Ok(files
                    .iter()
                    .find(|(name, _)| *name == file)
                    .map(|(_, bytes)| Bytes::Static(bytes)));
            }
        };
        let found = if file.ends_with(WEIGHTS_ENDING) { map(&path)? } else { read(&path)? };
        match found {
            Some(bytes) if bytes.starts_with(LFS_POINTER) => {
                let message = "a Git LFS pointer, not the file itself; run git lfs pull in its folder";
                Err(Error::file(path, message))
            }
            found => Ok(found),
        }
    }

    /// The bytes of `file`.
    ///
    /// # Errors
    /// If the checkpoint lacks the file, and those of [`Checkpoint::find`].
    pub fn read(&self, file: &str) -> Result<Bytes> {
        self.find(file)?.ok_or_else(|| match self.foreign_format() {
            Some(format) => Error::file(self.path(""), format),
            None => Error::file(self.path(file), "no such file in the checkpoint"),
        })
    }

    /// What the folder holds if it is no checkpoint of a model in safetensors files, and the remedy.
    pub(crate) fn foreign_format(&self) -> Option<String> {
        let Files::Folder(folder) = &self.files else { return None };
        if self.has(CONFIG_FILE) && (self.has(WEIGHTS_FILE) || self.has(INDEX_FILE)) {
            return None;
        }
        let names: Vec<String> = fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        FOREIGN_FORMATS.iter().find_map(|(start, end, format)| {
            let mut found = names.iter().filter(|name| name.starts_with(start) && name.ends_with(end));
            Some(format.replace("FILE", found.next()?))
        })
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
        let Index { weight_map } = python_json::from_slice(&bytes)
            .map_err(|error| complain(format!("not an index of safetensors files: {error}")))?;
        // A file name must not lead out of the checkpoint's folder.
        let foreign = |file: &&String| {
            let strange = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
            file.contains(strange) || !file.ends_with(WEIGHTS_ENDING)
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

/// What folders hold that are no checkpoints in safetensors files: how a file's name begins and ends, and the message, in
/// which FILE stands for the file. The first match counts.
const FOREIGN_FORMATS: [(&str, &str, &str); 6] = [
    (
        "adapter_config",
        ".json",
        "an adapter (LoRA), not a model; merge it into its base first, with transformers and peft: \
         AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)",
    ),
    (
        "",
        ".gguf",
        "FILE is in the format GGUF, which is not supported; give the model's safetensors files, or convert it with \
         transformers: AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=\"FILE\").save_pretrained(NEW_FOLDER)",
    ),
    (
        "consolidated",
        "",
        "FILE is in the format of the model's authors; give the files in the format of transformers: config.json, \
         tokenizer.json and model*.safetensors",
    ),
    ("pytorch_model", "", PICKLED),
    ("", ".pth", PICKLED),
    (
        "models--",
        "",
        "a cache of the hub, not a model; name the model as owner/name, or give a folder in models--*/snapshots",
    ),
];

const PICKLED: &str = "FILE is a pickle of PyTorch, which can run code when it is read, so it is not supported; convert \
    it with transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)";

/// Reads a file that holds no weights into memory, so that it cannot change any more.
fn read(path: &Path) -> Result<Option<Bytes>> {
    let Some((file, length)) = open(path)? else { return Ok(None) };
    if length > LARGEST_SMALL_FILE {
        let message = format!("has {length} bytes; such a file has at most {LARGEST_SMALL_FILE}");
        return Err(Error::file(path, message));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(LARGEST_SMALL_FILE).read_to_end(&mut bytes).map_err(Error::io(path, "cannot read"))?;
    Ok(Some(Bytes::Owned(bytes.into())))
}

fn map(path: &Path) -> Result<Option<Bytes>> {
    let Some((file, length)) = open(path)? else { return Ok(None) };
    if length == 0 {
        return Ok(Some(Bytes::Static(&[])));
    }
    Ok(Some(Bytes::Mapped(MappedFile::new(path, file)?)))
}

/// Opens a file and returns its length too; `None` if it does not exist.
fn open(path: &Path) -> Result<Option<(File, u64)>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() => {
            return Err(Error::file(
                path,
                "a link to a file that is not there; remove it, or download the file again",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "cannot open")(error)),
    };
    if !metadata.is_file() {
        // Opening a named pipe would wait for its writer.
        let kind = if metadata.is_dir() { "a folder" } else { "a device, a pipe or a socket" };
        return Err(Error::file(path, format!("{kind}, not a file of a checkpoint")));
    }
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    Ok(Some((file, metadata.len())))
}

/// Whether a model's name can only be meant as the path of a folder.
pub fn is_path(name: &str) -> bool {
    name.starts_with(['/', '.', '~']) || name.ends_with('/')
}

/// The bytes of a hash in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
