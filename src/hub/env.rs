//! The settings of the hub and of its cache from the environment, by the variables of Python's `huggingface_hub`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use ureq::http::Uri;

use super::files;
use crate::error::{Error, Result, excerpt};

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
    /// Reads the environment.
    ///
    /// # Errors
    /// If there is no folder for the cache, or if the address or the token cannot be one.
    pub fn read() -> Result<Self> {
        let no_home = || Error::Setting("there is no home folder to cache models in; set HF_HOME".to_owned());
        let home = home_folder().ok_or_else(no_home)?;
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        Ok(Self {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint()?,
            token: token(&home)?,
            is_offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(is_on),
        })
    }
}

/// The value of an environment variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The path in an environment variable, with a home folder and variables in their places.
fn path(name: &str) -> Option<PathBuf> {
    match env::var_os(name)?.into_string() {
        Ok(_) => variable(name).map(|path| expand_variables(&expand_home(&path)).into()),
        Err(path) => Some(path.into()), // not Unicode, so a path as it is
    }
}

/// `path` with the home folder in place of a leading `~` or `~user`, as Python's `os.path.expanduser` has it.
fn expand_home(path: &str) -> String {
    let Some(rest) = path.strip_prefix('~') else { return path.to_owned() };
    let (user, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let home = match user {
        "" => env::home_dir().map(|home| home.display().to_string()),
        user => home_of(user),
    };
    match home {
        Some(home) => format!("{}{rest}", home.trim_end_matches('/')),
        None => path.to_owned(),
    }
}

fn home_of(user: &str) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = fields.find(|fields| fields.first() == Some(&user))?;
    fields.get(5).map(|home| (*home).to_owned())
}

/// `path` with the values of `$NAME` and `${NAME}` in their places, as Python's `os.path.expandvars` has it: what is no
/// variable stays.
fn expand_variables(path: &str) -> String {
    let (mut expanded, mut rest) = (String::new(), path);
    while let Some(start) = rest.find('$') {
        let (before, reference) = rest.split_at(start);
        let after = &reference[1..];
        let braced = after.strip_prefix('{').and_then(|name| name.split_once('}'));
        let (name, length) = if let Some((name, _)) = braced {
            (name, name.len() + 3)
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            (&after[..end], end + 1)
        };
        expanded.push_str(before);
        match env::var(name) {
            Ok(value) if !name.is_empty() => expanded.push_str(&value),
            _ => expanded.push_str(&reference[..length]),
        }
        rest = &reference[length..];
    }
    expanded + rest
}

fn is_on(name: &str) -> bool {
    variable(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()))
}

fn home_folder() -> Option<PathBuf> {
    let below = |cache: PathBuf| cache.join("huggingface");
    let cache = || path("XDG_CACHE_HOME").map(below);
    let home = || env::home_dir().map(|home| below(home.join(".cache")));
    path("HF_HOME").or_else(cache).or_else(home)
}

/// The hub's address, without a trailing slash.
fn endpoint() -> Result<String> {
    let Some(endpoint) = variable("HF_ENDPOINT") else { return Ok("https://huggingface.co".to_owned()) };
    let address = endpoint.parse::<Uri>().ok();
    let is_of_the_web = |address: &Uri| {
        matches!(address.scheme_str(), Some("http" | "https"))
            && address.host().is_some_and(|host| !host.is_empty())
            && address.query().is_none()
            // A port that is none is dropped.
            && address.authority().is_some_and(|authority| authority.port().is_some() != authority.as_str().ends_with(authority.host()))
    };
    if address.as_ref().is_some_and(is_of_the_web) {
        Ok(endpoint.trim_end_matches('/').to_owned())
    } else {
        Err(Error::Setting(format!(
            "HF_ENDPOINT is {}, and it must be an address such as https://huggingface.co; correct it, or unset it",
            excerpt(&endpoint)
        )))
    }
}

/// The token, and never its text in an error.
fn token(home: &Path) -> Result<Option<String>> {
    let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
    let in_file = || {
        let token = files::read_text(&file).ok()?;
        Some((file.display().to_string(), token.trim().to_owned()))
    };
    let named = |name: &str| variable(name).map(|token| (name.to_owned(), token));
    let found = named("HF_TOKEN").or_else(|| named("HUGGING_FACE_HUB_TOKEN")).or_else(in_file);
    match found.filter(|(_, token)| !token.is_empty()) {
        Some((place, token)) if token.chars().any(|c| !c.is_ascii_graphic()) => Err(Error::Setting(format!(
            "the token in {place} is no token of the hub: it has a space, a line end or another character that none has; \
             set it again, or unset it"
        ))),
        found => Ok(found.map(|(_, token)| token)),
    }
}
