//! The cache of models, in the layout of Python's `huggingface_hub`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::files;
use super::name::ModelName;
use crate::checkpoint::Checkpoint;

/// The cache.
#[derive(Debug)]
pub(super) struct ModelCache {
    pub folder: PathBuf,
}

impl ModelCache {
    /// The checkpoint of the model in the cache, if there is one.
    pub fn find(&self, name: &ModelName) -> Option<Checkpoint> {
        let of_commit = |commit: &str| {
            let checkpoint = self.checkpoint(name, commit);
            checkpoint.path("").is_dir().then_some(checkpoint)
        };
        match files::read_text(&self.reference(name)) {
            Ok(commit) if is_commit(commit.trim()) => of_commit(commit.trim()),
            Ok(_) => None,
            Err(_) => of_commit(name.revision()),
        }
    }

    /// The snapshot of the model at `commit`. It may lack files or not exist yet.
    pub fn checkpoint(&self, name: &ModelName, commit: &str) -> Checkpoint {
        let folder = self.folder_of(name).join("snapshots").join(commit);
        Checkpoint::snapshot(&name.repository, commit, folder)
    }

    /// The path of the blob of that name.
    pub fn blob(&self, name: &ModelName, blob: &str) -> PathBuf {
        self.folder_of(name).join("blobs").join(blob)
    }

    /// Records that the model's revision is at `commit` now. A cache that cannot be written stays as it is, for the
    /// record only spares others a question to the hub.
    pub fn set_commit(&self, name: &ModelName, commit: &str) {
        let reference = self.reference(name);
        if files::read_text(&reference).is_ok_and(|recorded| recorded.trim() == commit) {
            return;
        }
        // The name of a branch may have slashes.
        let folder = reference.parent().unwrap_or(Path::new(""));
        let _ = fs::create_dir_all(folder).and_then(|()| files::write_text(&reference, commit));
    }

    /// The path of the file that records the commit of the model's revision.
    fn reference(&self, name: &ModelName) -> PathBuf {
        self.folder_of(name).join("refs").join(name.revision())
    }

    fn folder_of(&self, name: &ModelName) -> PathBuf {
        self.folder.join(format!("models--{}", name.repository.replace('/', "--")))
    }
}

/// Makes `path`, in a snapshot, a link to `blob`.
pub(super) fn link(blob: &Path, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
    std::os::unix::fs::symlink(target, path)
}

/// Whether the text is a commit of git.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}
