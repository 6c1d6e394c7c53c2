//! Models by name: `owner/name` on the Hugging Face Hub.
//!
//! ```no_run
//! use codit::hub::{Hub, Parts};
//!
//! # fn main() -> codit::Result<()> {
//! let hub = Hub::from_env()?;
//! let expert = hub.fetch(&"Qwen/Qwen3-8B".parse()?, Parts::All, &mut |_| {})?;
//! # Ok(())
//! # }
//! ```
//!
//! Models are stored in the cache of Python's `huggingface_hub`, in its layout, so that each finds what the other has fetched:
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

mod cache;
mod env;
mod listing;
mod messages;
mod name;
mod transfer;

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};

pub use crate::checkpoint::Parts;
use crate::checkpoint::{CONFIG_FILE, Checkpoint, INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::error::{Error, Result};
use cache::ModelCache;
use env::Settings;
use listing::{Listing, Unlisted};
use messages::Messages;
pub use name::ModelName;
pub use transfer::Event;
use transfer::Transfers;

/// All that a checkpoint's text and shape are read from.
const SMALL_FILES: [&str; 6] = [
    CONFIG_FILE,
    "generation_config.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// The hub and the cache of what was fetched from it.
#[derive(Debug)]
pub struct Hub {
    api: Api,
    cache: ModelCache,
    messages: Messages,
    is_offline: bool,
}

impl Hub {
    /// As the environment says: `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN` or what `hf auth login` left, `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// Where there is no folder for the cache.
    pub fn from_env() -> Result<Self> {
        let Settings { cache: folder, endpoint, token, is_offline } = Settings::read()?;
        let (cache, has_token) = (Cache::new(folder.clone()), token.is_some());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(endpoint.clone())
            .with_token(token)
            .with_progress(false)
            .with_user_agent("codit", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| Error::Download(format!("cannot set up transfers: {error}")))?;
        let messages = Messages { endpoint, cache: folder, has_token };
        Ok(Self { api, cache: ModelCache::new(cache), messages, is_offline })
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
        let cached = self.cache.find(name).filter(|checkpoint| checkpoint.has_parts(parts));
        if self.is_offline {
            return cached.ok_or_else(|| self.messages.not_cached(name, parts));
        }
        match (Listing::ask(&self.api, name, &self.messages), cached) {
            (Ok(listing), _) => self.fetch_listed(name, &listing, parts, watch),
            (Err(Unlisted::Unreachable(reason)), Some(checkpoint)) => {
                let commit = checkpoint.revision().unwrap_or_default();
                watch(Event::FromCache { repository: &name.repository, commit, reason: &reason });
                Ok(checkpoint)
            }
            (Err(Unlisted::Unreachable(reason)), None) => Err(self.messages.unreachable(name, &reason)),
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
        let checkpoint = self.cache.checkpoint(name, &listing.sha);
        let mut transfers = Transfers {
            api: &self.api,
            cache: &self.cache,
            messages: &self.messages,
            name,
            listing,
            checkpoint: &checkpoint,
            watch,
        };
        match parts {
            Parts::Config => transfers.fetch(CONFIG_FILE)?,
            Parts::Text | Parts::All => SMALL_FILES.into_iter().try_for_each(|file| transfers.fetch(file))?,
        }
        if parts == Parts::All {
            if listing.find(WEIGHTS_FILE).is_none() {
                transfers.fetch(INDEX_FILE)?;
            }
            checkpoint.weight_files()?.iter().try_for_each(|file| transfers.fetch(file))?;
        }
        if name.revision() != listing.sha {
            let written = self.cache.set_commit(name, &listing.sha);
            written.map_err(|error| self.messages.unwritable(name, &error))?;
        }
        Ok(checkpoint)
    }
}
