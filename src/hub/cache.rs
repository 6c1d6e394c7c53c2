//! The cache of models, in the layout of Python's `huggingface_hub`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use hf_hub::Cache;

use super::name::ModelName;
use crate::checkpoint::Checkpoint;

/// The cache.
#[derive(Debug)]
pub(super) struct ModelCache {
    folders: Cache,
}

impl ModelCache {
    pub fn new(folders: Cache) -> Self {
        Self { folders }
    }

    /// The checkpoint of the model in the cache, if there is one.
    pub fn find(&self, name: &ModelName) -> Option<Checkpoint> {
        let of_commit = |commit: &str| {
            let checkpoint = self.checkpoint(name, commit);
            checkpoint.path("").is_dir().then_some(checkpoint)
        };
        match fs::read_to_string(self.reference(name, name.revision())) {
            Ok(commit) => of_commit(commit.trim()),
            Err(_) => of_commit(name.revision()),
        }
    }

    /// The snapshot of the model at `commit`. It may lack files or not exist yet.
    pub fn checkpoint(&self, name: &ModelName, commit: &str) -> Checkpoint {
        let folder = self.folders.repo(name.at(commit)).pointer_path(commit);
        Checkpoint::snapshot(&name.repository, commit, folder)
    }

    /// The path of the blob with the hash `etag`.
    pub fn blob(&self, name: &ModelName, commit: &str, etag: &str) -> PathBuf {
        self.folders.repo(name.at(commit)).blob_path(etag)
    }

    /// Records that the model's revision is at `commit` now. A cache that cannot be written stays as it is, for the
    /// record only spares others a question to the hub.
    pub fn set_commit(&self, name: &ModelName, commit: &str) {
        let recorded = fs::read_to_string(self.reference(name, name.revision()));
        if recorded.is_ok_and(|recorded| recorded.trim() == commit) {
            return;
        }
        let _ = self.folders.repo(name.at(name.revision())).create_ref(commit);
    }

    /// The path of the file that records the commit of a revision.
    pub fn reference(&self, name: &ModelName, revision: &str) -> PathBuf {
        let repository = self.folders.path().join(name.at(revision).folder_name());
        repository.join("refs").join(revision)
    }
}

/// Makes `path`, in a snapshot, a link to `blob`.
pub(super) fn link(blob: &Path, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
    std::os::unix::fs::symlink(target, path)
}
