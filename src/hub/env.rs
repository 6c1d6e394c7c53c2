//! The settings of the hub and of its cache from the environment, by the variables of Python's `huggingface_hub`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::error::{Error, Result};

/// The address of the hub and the place of its cache.
pub(super) struct Settings {
    /// The folder of the cache.
    pub cache: PathBuf,
    /// The hub's address, without a trailing slash.
    pub endpoint: String,
    pub token: Option<String>,
    /// Whether only the cache is used.
    pub is_offline: bool,
}

impl Settings {
    /// If there is no folder for the cache.
    /// Where there is no folder for the cache.
    pub fn read() -> Result<Self> {
        let no_home = || Error::Setting("there is no home folder to cache models in; set HF_HOME".to_owned());
        let home = home_folder().ok_or_else(no_home)?;
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Ok(Self {
            cache: cache.map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token(&home),
            is_offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(is_on),
        })
    }
}

/// The value of an environment variable, unless it is empty.
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
