//! Downloads files of a repository into the cache and verifies them.

use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiError, ApiRepo};
use sha2::{Digest, Sha256};

use super::cache::{self, ModelCache};
use super::listing::{HubFile, Listing};
use super::messages::Messages;
use super::name::ModelName;
use crate::checkpoint::{Checkpoint, hex};
use crate::error::{Error, Result};

/// A transfer fails after this many consecutive tries without a byte.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The progress of a fetch, for those who watch it.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// `done` of `size` bytes of `file` are downloaded.
    Transfer {
        /// `owner/name`.
        repository: &'a str,
        /// The file's name.
        file: &'a str,
        /// Bytes that are downloaded.
        done: u64,
        /// Bytes in all.
        size: u64,
    },
    /// Another process is fetching `file`; this one waits for it.
    Waiting {
        /// `owner/name`.
        repository: &'a str,
        /// The file's name.
        file: &'a str,
    },
    /// The hub cannot be reached, and the cache has all that is needed.
    FromCache {
        /// `owner/name`.
        repository: &'a str,
        /// The commit that the cache has.
        commit: &'a str,
        /// Why the hub cannot be reached.
        reason: &'a str,
    },
}

/// The transfers of one repository at one commit.
pub(super) struct Transfers<'a> {
    pub api: &'a Api,
    pub cache: &'a ModelCache,
    pub messages: &'a Messages,
    pub name: &'a ModelName,
    pub listing: &'a Listing,
    /// The snapshot to which files are added.
    pub checkpoint: &'a Checkpoint,
    pub watch: &'a mut dyn FnMut(Event<'_>),
}

impl Transfers<'_> {
    /// Downloads `file` into the snapshot, if the repository has it and the snapshot lacks it.
    pub fn fetch(&mut self, file: &str) -> Result<()> {
        match self.listing.find(file) {
            Some(file) if !self.checkpoint.has(&file.name) => self.bring(file),
            _ => Ok(()),
        }
    }

    fn bring(&mut self, file: &HubFile) -> Result<()> {
        let (name, commit) = (self.name, &self.listing.sha);
        let blob = file.etag().map(|etag| self.cache.blob(name, commit, etag));
        let path = self.checkpoint.path(&file.name);
        // A link without a blob would block the new one.
        let _ = fs::remove_file(&path);
        loop {
            if let Some(blob) = &blob
                && fs::metadata(blob).is_ok_and(|found| file.size.is_none_or(|size| size == found.len()))
            {
                return cache::link(blob, &path).map_err(|error| self.messages.unwritable(name, &error));
            }
            match self.transfer(file, blob.as_deref()) {
                Ok(()) => break,
                Err(ApiError::LockAcquisition(_)) => {
                    (self.watch)(Event::Waiting { repository: &name.repository, file: &file.name });
                }
                Err(error) => return Err(self.untransferred(file, &error)),
            }
        }
        // hf-hub records the commit as a branch of that name.
        let _ = fs::remove_file(self.cache.reference(name, commit));
        self.check(file)
    }

    /// Transfers `file`, with retries as long as bytes arrive.
    fn transfer(&mut self, file: &HubFile, blob: Option<&Path>) -> std::result::Result<(), ApiError> {
        let repo: ApiRepo = self.api.repo(self.name.at(&self.listing.sha));
        let part = blob.map(|blob| blob.with_extension("part"));
        let arrived = || part.as_ref().and_then(|part| fs::metadata(part).ok()).map_or(0, |part| part.len());
        if let Some(part) = &part
            && file.size.is_some_and(|size| arrived() >= size)
        {
            // The file is complete, but the program ended before it was moved to its place. hf-hub would request
            // bytes beyond the end.
            fs::remove_file(part)?;
        }
        let (mut fruitless, mut before) = (0, arrived());
        loop {
            let watcher = Watcher {
                repository: &self.name.repository,
                file: &file.name,
                done: 0,
                size: 0,
                watch: self.watch,
            };
            match repo.download_with_progress(&file.name, watcher) {
                Err(error) if may_pass(&error) && fruitless + 1 < TRIES => {
                    fruitless = if arrived() > before { 0 } else { fruitless + 1 };
                    before = arrived();
                    thread::sleep(FIRST_PAUSE * 2u32.pow(fruitless));
                }
                result => return result.map(drop),
            }
        }
    }

    /// Verifies the length and, if it is known, the SHA-256 of a download. A wrong file is removed.
    fn check(&self, file: &HubFile) -> Result<()> {
        let bytes = self.checkpoint.read(&file.name)?;
        let fault = match (file.size, &file.lfs) {
            (Some(size), _) if size != bytes.len() as u64 => {
                Some(format!("has {} bytes in place of {size}", bytes.len()))
            }
            (_, Some(lfs)) if hex(&Sha256::digest(&*bytes)) != lfs.sha256 => {
                Some("has another SHA-256 than the repository says".to_owned())
            }
            _ => None,
        };
        let Some(fault) = fault else { return Ok(()) };
        let path = self.checkpoint.path(&file.name);
        let removed = fs::canonicalize(&path).and_then(fs::remove_file).and_then(|()| fs::remove_file(&path));
        removed.map_err(|error| self.messages.unwritable(self.name, &error))?;
        Err(self.messages.damaged(self.name, &file.name, &fault))
    }

    fn untransferred(&self, file: &HubFile, error: &ApiError) -> Error {
        let (name, messages) = (self.name, self.messages);
        let refused = [401, 403].map(Some).contains(&status(error));
        match error {
            _ if refused && self.listing.is_gated() => messages.gated(name),
            _ if refused => messages.no_repository(name),
            ApiError::IoError(error) if is_of_disk(error) => messages.unwritable(name, error),
            error => messages.broken_off(name, &file.name, error),
        }
    }
}

/// Reports a transfer's progress.
struct Watcher<'a> {
    repository: &'a str,
    file: &'a str,
    done: u64,
    size: u64,
    watch: &'a mut dyn FnMut(Event<'_>),
}

impl Progress for Watcher<'_> {
    fn init(&mut self, size: usize, _file: &str) {
        (self.done, self.size) = (0, size as u64);
    }

    fn update(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let Self { repository, file, done, size, .. } = *self;
        (self.watch)(Event::Transfer { repository, file, done, size });
    }

    fn finish(&mut self) {}
}

/// Whether another try may succeed.
fn may_pass(error: &ApiError) -> bool {
    match error {
        ApiError::RequestError(error) => match &**error {
            ureq::Error::StatusCode(status) => matches!(status, 408 | 416 | 429 | 500..),
            ureq::Error::Io(error) => !is_of_disk(error),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => false,
            _ => true,
        },
        ApiError::IoError(error) => !is_of_disk(error),
        _ => false,
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match &**error {
            ureq::Error::StatusCode(status) => Some(*status),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the error is about the disk. Errors of files and of connections have the same type.
fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let of_disk =
        [FileTooLarge, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    of_disk.contains(&error.kind())
}
