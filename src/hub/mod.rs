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
//! Models are stored in the cache of Python's `huggingface_hub`, in its layout, so each program finds the other's
//! downloads:
//!
//! ```text
//! models--owner--name/refs/main                 the commit that main was when it was last asked for
//!                     snapshots/COMMIT/FILE     a link to the blob
//!                     blobs/ETAG                the file, named by its SHA-256, or by git's id of it if it is small
//! ```
//!
//! This module selects the files, all of one commit; reuses files of other commits; works from the cache alone where
//! there is no network; resumes interrupted transfers; verifies downloads; and writes the messages for the user.

mod cache;
mod client;
mod env;
mod files;
mod listing;
mod messages;
mod name;
mod transfer;

pub use crate::checkpoint::Parts;
use crate::checkpoint::{CONFIG_FILE, Checkpoint, INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::error::Result;
use cache::ModelCache;
use client::Client;
use env::Settings;
use listing::{Listing, Unlisted};
use messages::{Messages, Reason};
pub use name::ModelName;
pub use transfer::Event;
use transfer::Transfers;

/// The small files that give a checkpoint's text and shape.
const SMALL_FILES: [&str; 6] = [
    CONFIG_FILE,
    "generation_config.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// The hub and its cache.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    cache: ModelCache,
    messages: Messages,
    is_offline: bool,
}

impl Hub {
    /// Reads the settings from the environment: `HF_HUB_CACHE` or `HF_HOME`; `HF_TOKEN` or the token that `hf auth
    /// login` stored; `HF_ENDPOINT`; `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if there is no folder for the cache, if the address is none of a web
    /// server, or if the token has characters that no token has.
    pub fn from_env() -> Result<Self> {
        let Settings { cache: folder, endpoint, token, is_offline } = Settings::read()?;
        let messages =
            Messages { endpoint: endpoint.clone(), cache: folder.clone(), has_token: token.is_some() };
        let (client, cache) = (Client::new(endpoint, token), ModelCache { folder });
        Ok(Self { client, cache, messages, is_offline })
    }

    /// Fetches the files of `parts` that the cache lacks of the model `name`. All files are of one commit. The
    /// checkpoint has the repository's name and knows its commit.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if there is no such repository or revision, if it is not accessible, or
    /// if only the cache is used and lacks it. [`Error::Download`](crate::Error::Download) if the hub is of no use, or if
    /// a download is broken or cannot be stored.
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
        match (Listing::ask(&self.client, name, &self.messages), cached) {
            (Ok(listing), _) => self.fetch_listed(name, &listing, parts, watch),
            (Err(Unlisted::Unusable(reason)), Some(checkpoint)) => {
                let commit = checkpoint.revision().unwrap_or_default();
                let (Reason::Unreachable(reason) | Reason::Odd(reason)) = &reason;
                watch(Event::FromCache { repository: &name.repository, commit, reason });
                Ok(checkpoint)
            }
            (Err(Unlisted::Unusable(reason)), None) => Err(self.messages.unusable(name, &reason)),
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
            client: &self.client,
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
            self.cache.set_commit(name, &listing.sha);
        }
        Ok(checkpoint)
    }
}
