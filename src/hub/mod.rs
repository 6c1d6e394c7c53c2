//! Models by name: `owner/name` on the Hugging Face Hub.
//!
//! They lie in the cache of Python's `huggingface_hub`, in its layout, so that each finds what the other has fetched:
//!
//! ```text
//! models--owner--name/refs/main                 the commit that main was when it was last asked for
//!                     snapshots/COMMIT/FILE     a link to the blob
//!                     blobs/ETAG                the file, named by its SHA-256, or by git's id of it if it is small
//! ```
//!
//! The crate hf-hub transfers a file, goes on where an earlier transfer broke off, and puts it in its place. Beyond
//! that it leaves to us: which files, all of one commit; what another commit has brought already; the cache alone where
//! there is no network; trying again; checking what has come; and what to tell the user.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs, thread};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, INDEX_FILE, WEIGHTS_FILE, hex};
use crate::error::{Error, Result};

const MAIN: &str = "main";
const CONFIG_FILE: &str = "config.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
/// All that a checkpoint's text and shape are read from.
const SMALL_FILES: [&str; 6] = [
    CONFIG_FILE,
    "generation_config.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Waits for the hub's answer about a repository; transfers may take as long as they do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A transfer is given up after so many tries, one after the other, that brought nothing.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// `owner/name`, optionally `@revision`: a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// `owner/name`.
    pub repository: String,
    /// What follows the `@`; the branch main without one.
    pub revision: Option<String>,
}

/// How much of a model is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parts {
    /// config.json, which says the model's shape.
    Config,
    /// That, the tokenizer, the chat template and the rest that is small.
    Text,
    /// Those and the weights.
    All,
}

/// What happens on the way, for those who watch.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Of `file`, `done` of `size` bytes are here.
    Transfer {
        /// `owner/name`.
        repository: &'a str,
        /// The file's name.
        file: &'a str,
        /// Bytes that are here.
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
    /// The hub cannot be reached; the cache has what is needed.
    FromCache {
        /// `owner/name`.
        repository: &'a str,
        /// The commit that the cache has.
        commit: &'a str,
        /// Why the hub cannot be reached.
        reason: &'a str,
    },
}

/// The hub and the cache of what was fetched from it.
#[derive(Debug)]
pub struct Hub {
    api: Api,
    cache: Cache,
    endpoint: String,
    has_token: bool,
    is_offline: bool,
}

/// What the hub says of a repository at a revision.
#[derive(Debug, Deserialize)]
struct Listing {
    /// The commit.
    sha: String,
    #[serde(rename = "siblings")]
    files: Vec<HubFile>,
    /// False, or who may grant access: "auto" or "manual".
    #[serde(default)]
    gated: Value,
}

#[derive(Debug, Deserialize)]
struct HubFile {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    /// Git's id of the file, or of the pointer to it where it is kept in LFS.
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    /// Where it is kept in LFS.
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
}

/// Why there is no listing.
enum Unlisted {
    /// The hub did not answer, for this reason.
    Unreachable(String),
    /// It answered that there is none.
    Refused(Error),
}

impl ModelName {
    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The repository at `revision`, as hf-hub has it.
    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repository.clone(), RepoType::Model, revision.to_owned())
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let is_plain = |part: &str, extra: &[char]| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || extra.contains(&c))
                && !part.contains("..")
        };
        let is_repository = repository
            .split_once('/')
            .is_some_and(|(owner, name)| is_plain(owner, &[]) && is_plain(name, &[]));
        if !is_repository || !revision.is_none_or(|revision| is_plain(revision, &['/'])) {
            return Err(Error::Setting(format!(
                "{text:?} is neither a folder nor a Hugging Face id, which is owner/name or owner/name@revision, \
                 such as Qwen/Qwen3-8B"
            )));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

impl Hub {
    /// As the environment says: `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN` or what `hf auth login` left, `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// Where there is no folder for the cache.
    pub fn from_env() -> Result<Self> {
        let no_home = || Error::Setting("there is no home folder to cache models in; set HF_HOME".to_owned());
        let home = home_folder().ok_or_else(no_home)?;
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let cache = Cache::new(cache.map_or_else(|| home.join("hub"), PathBuf::from));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let token = token(&home);
        let is_offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(is_on);
        let has_token = token.is_some();
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(endpoint.clone())
            .with_token(token)
            .with_progress(false)
            .with_user_agent("codit", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| Error::Download(format!("cannot set up transfers: {error}")))?;
        Ok(Self { api, cache, endpoint, has_token, is_offline })
    }

    /// The model `name`: what of `parts` the cache lacks is fetched. The checkpoint is called by its repository and
    /// knows its commit; all its files are of that commit.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such repository or revision, it is not accessible, or the cache lacks it and
    /// is all there is; [`Error::Download`] if the hub cannot be reached, or what comes from it is broken or cannot be
    /// kept.
    pub fn fetch(
        &self,
        name: &ModelName,
        parts: Parts,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Checkpoint> {
        let cached = self.cached(name).filter(|checkpoint| parts.are_in(checkpoint));
        if self.is_offline {
            return cached.ok_or_else(|| self.not_cached(name, parts));
        }
        match (self.list(name), cached) {
            (Ok(listing), _) => self.fetch_listed(name, &listing, parts, watch),
            (Err(Unlisted::Unreachable(reason)), Some(checkpoint)) => {
                let commit = checkpoint.revision().unwrap_or_default();
                watch(Event::FromCache { repository: &name.repository, commit, reason: &reason });
                Ok(checkpoint)
            }
            (Err(Unlisted::Unreachable(reason)), None) => Err(self.unreachable(name, &reason)),
            (Err(Unlisted::Refused(error)), _) => Err(error),
        }
    }

    fn fetch_listed(
        &self,
        name: &ModelName,
        listing: &Listing,
        parts: Parts,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Checkpoint> {
        let checkpoint = self.checkpoint(name, &listing.sha);
        let mut place = |file: &str| match listing.find(file) {
            Some(file) if !checkpoint.has(&file.name) => self.place(name, listing, file, &checkpoint, watch),
            _ => Ok(()),
        };
        match parts {
            Parts::Config => place(CONFIG_FILE)?,
            Parts::Text | Parts::All => SMALL_FILES.into_iter().try_for_each(&mut place)?,
        }
        if parts == Parts::All {
            if listing.find(WEIGHTS_FILE).is_none() {
                place(INDEX_FILE)?;
            }
            checkpoint.weight_files()?.iter().try_for_each(|file| place(file))?;
        }
        if name.revision() != listing.sha {
            let reference = self.cache.repo(name.at(name.revision()));
            let written = reference.create_ref(&listing.sha);
            written.map_err(|error| self.unwritable(name, &error))?;
        }
        Ok(checkpoint)
    }

    /// Brings `file` to its place in the snapshot.
    fn place(
        &self,
        name: &ModelName,
        listing: &Listing,
        file: &HubFile,
        checkpoint: &Checkpoint,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let repo = name.at(&listing.sha);
        let blob = file.etag().map(|etag| self.cache.repo(repo.clone()).blob_path(etag));
        let place = checkpoint.path(&file.name);
        // A link without a blob would be in the way.
        let _ = fs::remove_file(&place);
        loop {
            if let Some(blob) = &blob
                && fs::metadata(blob).is_ok_and(|found| file.size.is_none_or(|size| size == found.len()))
            {
                return link(blob, &place).map_err(|error| self.unwritable(name, &error));
            }
            match self.transfer(name, &repo, file, blob.as_deref(), watch) {
                Ok(()) => break,
                Err(ApiError::LockAcquisition(_)) => {
                    watch(Event::Waiting { repository: &name.repository, file: &file.name });
                }
                Err(error) => return Err(self.untransferred(name, listing, file, &error)),
            }
        }
        // hf-hub notes the commit as a branch of that name.
        let _ = fs::remove_file(self.repository_folder(name).join("refs").join(&listing.sha));
        self.check(name, file, checkpoint)
    }

    /// Transfers `file`, again and again as long as bytes come.
    fn transfer(
        &self,
        name: &ModelName,
        repo: &Repo,
        file: &HubFile,
        blob: Option<&Path>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> std::result::Result<(), ApiError> {
        let repo: ApiRepo = self.api.repo(repo.clone());
        let part = blob.map(|blob| blob.with_extension("part"));
        let arrived = || part.as_ref().and_then(|part| fs::metadata(part).ok()).map_or(0, |part| part.len());
        if let Some(part) = &part
            && file.size.is_some_and(|size| arrived() >= size)
        {
            // All came, and the program ended before it was put in its place. hf-hub would ask for what follows the end.
            fs::remove_file(part)?;
        }
        let (mut fruitless, mut before) = (0, arrived());
        loop {
            let watcher = Watcher { repository: &name.repository, file: &file.name, done: 0, size: 0, watch };
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

    /// Checks length and, where it is known, SHA-256 of what has come; what is wrong is removed.
    fn check(&self, name: &ModelName, file: &HubFile, checkpoint: &Checkpoint) -> Result<()> {
        let bytes = checkpoint.read(&file.name)?;
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
        let place = checkpoint.path(&file.name);
        let removed =
            fs::canonicalize(&place).and_then(fs::remove_file).and_then(|()| fs::remove_file(&place));
        removed.map_err(|error| self.unwritable(name, &error))?;
        Err(Error::Download(format!(
            "{}: {} as it came from {} {fault}; it is removed, and the same command fetches it again",
            name.repository, file.name, self.endpoint
        )))
    }

    /// Asks the hub which files there are.
    fn list(&self, name: &ModelName) -> std::result::Result<Listing, Unlisted> {
        let unreachable = |error: &ureq::Error| Unlisted::Unreachable(error.to_string());
        let answer = self.api.repo(name.at(name.revision())).info_request().query("blobs", "true");
        let answer = answer.config().http_status_as_error(false).timeout_connect(Some(CONNECT_TIMEOUT));
        let answer = answer.timeout_recv_response(Some(ANSWER_TIMEOUT)).build().call();
        let mut answer = answer.map_err(|error| unreachable(&error))?;
        let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or("");
        match (answer.status().as_u16(), code) {
            (200, _) => {}
            (404, "RevisionNotFound") => return Err(Unlisted::Refused(self.no_revision(name))),
            (401 | 403, "GatedRepo") => return Err(Unlisted::Refused(self.gated(name))),
            (401 | 403 | 404, _) => return Err(Unlisted::Refused(self.no_repository(name))),
            (status, _) => return Err(Unlisted::Unreachable(format!("it answers with status {status}"))),
        }
        let listing: Listing = answer.body_mut().read_json().map_err(|error| unreachable(&error))?;
        let is_commit = listing.sha.len() == 40 && listing.sha.chars().all(|c| c.is_ascii_hexdigit());
        if is_commit {
            Ok(listing)
        } else {
            Err(Unlisted::Unreachable(format!("it answers with {:?} as a commit", listing.sha)))
        }
    }

    /// What the cache has of the model.
    fn cached(&self, name: &ModelName) -> Option<Checkpoint> {
        let of_commit = |commit: &str| {
            let checkpoint = self.checkpoint(name, commit);
            checkpoint.path("").is_dir().then_some(checkpoint)
        };
        let reference = self.repository_folder(name).join("refs").join(name.revision());
        match fs::read_to_string(reference) {
            Ok(commit) => of_commit(commit.trim()),
            Err(_) => of_commit(name.revision()),
        }
    }

    fn checkpoint(&self, name: &ModelName, commit: &str) -> Checkpoint {
        let folder = self.cache.repo(name.at(commit)).pointer_path(commit);
        Checkpoint::snapshot(&name.repository, commit, folder)
    }

    fn repository_folder(&self, name: &ModelName) -> PathBuf {
        self.cache.path().join(name.at(MAIN).folder_name())
    }
}

/// What to tell the user.
impl Hub {
    fn no_repository(&self, name: &ModelName) -> Error {
        let remedy = if self.has_token {
            "check the name, and that the token in use may read it"
        } else {
            "check the name; if it is private, set HF_TOKEN, or log in with hf auth login"
        };
        Error::Setting(format!(
            "{name} is no folder here, and {} has no such repository or does not show it; {remedy}",
            self.endpoint
        ))
    }

    fn no_revision(&self, name: &ModelName) -> Error {
        let (ModelName { repository, .. }, revision) = (name, name.revision());
        let page = format!("{}/{repository}", self.endpoint);
        Error::Setting(format!(
            "{repository} has no revision {revision:?}; give a branch, a tag or a commit of {page}, or none"
        ))
    }

    fn gated(&self, name: &ModelName) -> Error {
        let page = format!("{}/{}", self.endpoint, name.repository);
        let remedy = if self.has_token {
            format!(
                "accept its licence at {page} with the account of the token in use (HF_TOKEN, or hf auth login)"
            )
        } else {
            format!(
                "accept its licence at {page}, then set HF_TOKEN to a token of that account, or log in with hf auth login"
            )
        };
        Error::Setting(format!("{} is gated; {remedy}", name.repository))
    }

    fn unreachable(&self, name: &ModelName, reason: &str) -> Error {
        Error::Download(format!(
            "{name} is no folder here, {} cannot be reached ({reason}), and the cache at {} has not all of it; \
             connect this machine, or give a folder",
            self.endpoint,
            self.cache.path().display()
        ))
    }

    fn not_cached(&self, name: &ModelName, parts: Parts) -> Error {
        let what = if parts == Parts::Config { "its config.json" } else { "all of it" };
        Error::Setting(format!(
            "{name} is no folder here, HF_HUB_OFFLINE is set, and the cache at {} has not {what}; fetch it without \
             HF_HUB_OFFLINE, or give a folder",
            self.cache.path().display()
        ))
    }

    fn unwritable(&self, name: &ModelName, error: &io::Error) -> Error {
        Error::Download(format!(
            "{}: cannot write to the cache at {}: {error}; make room, and the same command goes on where it broke \
             off; or set HF_HOME to a folder on another disk",
            name.repository,
            self.cache.path().display()
        ))
    }

    fn untransferred(&self, name: &ModelName, listing: &Listing, file: &HubFile, error: &ApiError) -> Error {
        let refused = [401, 403].map(Some).contains(&status(error));
        match error {
            _ if refused && listing.is_gated() => self.gated(name),
            _ if refused => self.no_repository(name),
            ApiError::IoError(error) if is_of_disk(error) => self.unwritable(name, error),
            error => Error::Download(format!(
                "{}: {} broke off ({error}) while it came from {}; the same command goes on where it broke off",
                name.repository, file.name, self.endpoint
            )),
        }
    }
}

impl Listing {
    fn find(&self, name: &str) -> Option<&HubFile> {
        self.files.iter().find(|file| file.name == name)
    }

    fn is_gated(&self) -> bool {
        !matches!(self.gated, Value::Null | Value::Bool(false))
    }
}

impl HubFile {
    /// What the cache calls it.
    fn etag(&self) -> Option<&str> {
        let etag = self.lfs.as_ref().map(|lfs| &lfs.sha256).or(self.blob_id.as_ref())?;
        etag.chars().all(|c| c.is_ascii_hexdigit()).then_some(etag)
    }
}

impl Parts {
    /// Whether `checkpoint` has what no model can do without.
    fn are_in(self, checkpoint: &Checkpoint) -> bool {
        let has_weights =
            || checkpoint.weight_files().is_ok_and(|files| files.iter().all(|file| checkpoint.has(file)));
        checkpoint.has(CONFIG_FILE)
            && (self < Self::Text || checkpoint.has(TOKENIZER_FILE))
            && (self < Self::All || has_weights())
    }
}

/// Tells of a transfer.
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

/// Whether it is about the disk; errors of files and of connections come as one type.
fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let of_disk =
        [FileTooLarge, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    of_disk.contains(&error.kind())
}

/// Makes `place`, in a snapshot, a link to `blob`.
fn link(blob: &Path, place: &Path) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
    std::os::unix::fs::symlink(target, place)
}

/// A variable of the environment, unless it is empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn is_on(name: &str) -> bool {
    variable(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()))
}

fn home_folder() -> Option<PathBuf> {
    let below = |cache: PathBuf| cache.join("huggingface");
    let cache = || variable("XDG_CACHE_HOME").map(|cache| below(cache.into()));
    let home = || env::home_dir().map(|home| below(home.join(".cache")));
    variable("HF_HOME").map(PathBuf::from).or_else(cache).or_else(home)
}

fn token(home: &Path) -> Option<String> {
    let file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
    let in_file = || fs::read_to_string(file).ok().map(|token| token.trim().to_owned());
    variable("HF_TOKEN")
        .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
        .or_else(in_file)
        .filter(|token| !token.is_empty())
}
