//! Downloads files of a repository into the cache and verifies them.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use sha2::{Digest, Sha256};
use ureq::BodyReader;

use super::cache::{self, ModelCache};
use super::client::Client;
use super::files;
use super::listing::{HubFile, Listing};
use super::messages::Messages;
use super::name::ModelName;
use crate::checkpoint::{Checkpoint, LARGEST_SMALL_FILE, hex};
use crate::error::{Error, Result};

/// A transfer fails after this many consecutive tries without a byte.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The time between two looks at a file that another process is fetching.
const PATIENCE: Duration = Duration::from_millis(200);
const PIECE: usize = 128 << 10;
/// A connection over which nothing comes for so long is given up, and another is made.
const STALL: Duration = Duration::from_secs(30);
const STALLED: &str = "nothing came for 30 s";

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
    pub client: &'a Client,
    pub cache: &'a ModelCache,
    pub messages: &'a Messages,
    pub name: &'a ModelName,
    pub listing: &'a Listing,
    /// The snapshot to which files are added.
    pub checkpoint: &'a Checkpoint,
    pub watch: &'a mut dyn FnMut(Event<'_>),
}

/// Why a transfer failed.
enum Fault {
    /// The connection, or the hub's answer.
    Request(ureq::Error),
    /// The file that is written.
    Disk(io::Error),
    /// The file as it came, which is removed.
    Content(String),
}

impl Transfers<'_> {
    /// Downloads `file` into the snapshot, if the repository has it and the snapshot lacks it.
    pub fn fetch(&mut self, file: &str) -> Result<()> {
        match self.listing.find(file) {
            Some(file) if !self.checkpoint.has(&file.name) => {
                self.bring(file).map_err(|fault| self.explain(file, fault))
            }
            _ => Ok(()),
        }
    }

    /// Brings `file` into the snapshot. Its blob has a name from the listing, never from an answer to a download: what
    /// an answer says is under no check when it says it.
    fn bring(&mut self, file: &HubFile) -> std::result::Result<(), Fault> {
        let (name, commit) = (self.name, &self.listing.sha);
        let blob = self.cache.blob(name, &file.blob_name(&name.repository, commit));
        let folder = blob.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).map_err(Fault::Disk)?;
        let lock = self.lock(file, &blob.with_extension("lock"));
        if !is_whole(&blob, file) {
            let part = blob.with_extension("part");
            self.transfer(file, &part)?;
            verify(file, &part)?;
            fs::rename(&part, &blob).map_err(Fault::Disk)?;
        }
        drop(lock);
        let path = self.checkpoint.path(&file.name);
        // A link without a blob would block the new one.
        let _ = fs::remove_file(&path);
        cache::link(&blob, &path).map_err(Fault::Disk)
    }

    /// Waits until no other process fetches `file`. Where the system has no locks, two may fetch it at a time, and each
    /// puts the same bytes in the same place.
    fn lock(&mut self, file: &HubFile, path: &Path) -> Option<File> {
        let lock = files::open_to_append(path).ok()?;
        let mut waits = false;
        while let Err(TryLockError::WouldBlock) = lock.try_lock() {
            if !waits {
                (self.watch)(Event::Waiting { repository: &self.name.repository, file: &file.name });
                waits = true;
            }
            thread::sleep(PATIENCE);
        }
        Some(lock)
    }

    /// Transfers `file` to `part`, with retries as long as bytes arrive.
    fn transfer(&mut self, file: &HubFile, part: &Path) -> std::result::Result<(), Fault> {
        let arrived = || fs::metadata(part).map_or(0, |part| part.len());
        let (mut fruitless, mut before) = (0, arrived());
        loop {
            match self.go_on(file, part) {
                Err(Fault::Request(error)) if may_pass(&error) && fruitless + 1 < TRIES => {
                    fruitless = if arrived() > before { 0 } else { fruitless + 1 };
                    before = arrived();
                    thread::sleep(FIRST_PAUSE * 2u32.pow(fruitless));
                }
                result => return result,
            }
        }
    }

    /// Requests what `part` lacks of `file`, and appends it.
    fn go_on(&mut self, file: &HubFile, part: &Path) -> std::result::Result<(), Fault> {
        let mut output = files::open_to_append(part).map_err(Fault::Disk)?;
        let mut start = output.metadata().map_err(Fault::Disk)?.len();
        if file.size.is_some_and(|size| size == start) {
            return Ok(());
        }
        if file.size.is_some_and(|size| size < start) {
            // No rest could be asked for.
            output.set_len(0).map_err(Fault::Disk)?;
            start = 0;
        }
        let request = self.client.file(&self.name.repository, &self.listing.sha, &file.name);
        // The bytes as they are, for a part of a compressed file continues no other part.
        let request = request.header("Accept-Encoding", "identity");
        let request = if start > 0 { request.header("Range", format!("bytes={start}-")) } else { request };
        let answer = request.call().inspect_err(|error| {
            if matches!(error, ureq::Error::StatusCode(416)) {
                // The file has no such part, so what is there is no part of it.
                let _ = output.set_len(0);
            }
        });
        let answer = answer.map_err(Fault::Request)?;
        if start > 0 && answer.status() != 206 {
            // The whole file comes.
            output.set_len(0).map_err(Fault::Disk)?;
            start = 0;
        }
        let rest = answer.body().content_length();
        let size = file.size.or(rest.map(|rest| rest + start)).unwrap_or(0);
        self.copy(answer.into_body().into_reader(), &mut output, file, start, size)
    }

    /// Appends what comes. Another thread reads it, so that this one can give up an answer that stalls.
    fn copy(
        &mut self,
        mut answer: BodyReader<'static>,
        output: &mut File,
        file: &HubFile,
        mut done: u64,
        size: u64,
    ) -> std::result::Result<(), Fault> {
        let (pieces, read) = crossbeam_channel::bounded(1);
        let reader = move || {
            loop {
                let mut piece = vec![0; PIECE];
                let length = answer.read(&mut piece);
                let is_last = !length.as_ref().is_ok_and(|length| *length > 0);
                piece.truncate(*length.as_ref().unwrap_or(&0));
                if pieces.send(length.map(|_| piece)).is_err() || is_last {
                    return;
                }
            }
        };
        thread::Builder::new().name("download".to_owned()).spawn(reader).map_err(Fault::Disk)?;
        let most = file.size.unwrap_or(if file.is_weights() { u64::MAX } else { LARGEST_SMALL_FILE });
        loop {
            let (repository, name) = (&self.name.repository, &file.name);
            (self.watch)(Event::Transfer { repository, file: name, done, size });
            let stalled = |_| Fault::Request(io::Error::new(io::ErrorKind::TimedOut, STALLED).into());
            let piece = read.recv_timeout(STALL).map_err(stalled)?;
            let piece = piece.map_err(|error| Fault::Request(error.into()))?;
            if piece.is_empty() {
                return Ok(());
            }
            output.write_all(&piece).map_err(Fault::Disk)?;
            done += piece.len() as u64;
            if done > most {
                // An answer without an end must not fill the disk.
                return Ok(());
            }
        }
    }

    fn explain(&self, file: &HubFile, fault: Fault) -> Error {
        let (name, messages) = (self.name, self.messages);
        match fault {
            Fault::Request(ureq::Error::StatusCode(401 | 403)) if self.listing.is_gated() => {
                messages.gated(name)
            }
            Fault::Request(ureq::Error::StatusCode(status @ 400..500)) if !may_pass_later(status) => {
                messages.withheld(name, &file.name, status)
            }
            Fault::Request(error) => messages.broken_off(name, &file.name, &error),
            Fault::Disk(error) => messages.unwritable(name, &error),
            Fault::Content(fault) => messages.damaged(name, &file.name, &fault),
        }
    }
}

fn is_whole(blob: &Path, file: &HubFile) -> bool {
    fs::metadata(blob).is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
}

/// Verifies the length and, if it is known, the SHA-256 of a download. A wrong file is removed.
fn verify(file: &HubFile, part: &Path) -> std::result::Result<(), Fault> {
    let length = fs::metadata(part).map_err(Fault::Disk)?.len();
    let fault = match (file.size, &file.lfs) {
        (Some(size), _) if size != length => Some(format!("has {length} bytes in place of {size}")),
        (None, _) if !file.is_weights() && length > LARGEST_SMALL_FILE => {
            Some(format!("has over {LARGEST_SMALL_FILE} bytes, more than such a file has"))
        }
        _ if length == 0 => Some("is empty".to_owned()),
        (_, Some(lfs)) if sha256_of(part).map_err(Fault::Disk)? != lfs.sha256.to_lowercase() => {
            Some("has another SHA-256 than the repository says".to_owned())
        }
        _ => None,
    };
    let Some(fault) = fault else { return Ok(()) };
    fs::remove_file(part).map_err(Fault::Disk)?;
    Err(Fault::Content(fault))
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let (mut file, mut sha256, mut piece) = (File::open(path)?, Sha256::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&sha256.finalize())),
            length => sha256.update(&piece[..length]),
        }
    }
}

/// Whether another try may succeed.
fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::StatusCode(status) => may_pass_later(*status),
        ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::Protocol(_)
        | ureq::Error::RedirectFailed
        | ureq::Error::TooManyRedirects => false,
        _ => true,
    }
}

fn may_pass_later(status: u16) -> bool {
    matches!(status, 408 | 416 | 429 | 500..)
}
