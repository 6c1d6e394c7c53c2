//! What a run is: everything that its records depend on, kept beside the output.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::schema::excerpt;
use crate::checkpoint::{Checkpoint, hex};
use crate::error::{Error, Result};

/// What a run is. A run resumes another if they agree in all but `notes`, the input's path, and the patch number
/// of the version: releases of one minor version write the same records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`Manifest::VERSION`] of the program that began the run.
    pub version: String,
    /// The prompts.
    pub input: InputFingerprint,
    /// The expert.
    pub expert: ModelFingerprint,
    /// The amateur, unless the expert runs alone.
    pub amateur: Option<ModelFingerprint>,
    /// As the user gave it; `None` takes that of the run that is resumed, or else draws one. In the file it is
    /// always there.
    pub seed: Option<u64>,
    /// Records a prompt, 1 or more.
    pub samples: u32,
    /// All else that a record's text depends on, by name. Null counts as unset.
    pub settings: Value,
    /// What may differ when a run is resumed: sizes of batches and caches, threads, the device.
    pub notes: Value,
}

/// An input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFingerprint {
    /// As the user gave it.
    pub path: String,
    /// Of the whole file, in hex.
    pub sha256: String,
    /// How many.
    pub prompts: usize,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFingerprint {
    /// As records call it.
    pub id: String,
    /// The commit, where it is of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// A SHA-256 each, in hex: of the whole file, or of the header and some pages of a file of weights.
    pub files: BTreeMap<String, String>,
}

impl ModelFingerprint {
    /// The fingerprint of `checkpoint`.
    ///
    /// A header alone would not do for the weights: those of all finetunes of a model are the same.
    ///
    /// # Errors
    /// If a file cannot be read or the index of the weights is not one.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let small = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
        let mut files = BTreeMap::new();
        for name in small.into_iter().chain(["chat_template.jinja"]) {
            if let Some(bytes) = checkpoint.find(name)? {
                files.insert(name.to_owned(), hex(&Sha256::digest(&*bytes)));
            }
        }
        for name in checkpoint.weight_files()? {
            if let Some(bytes) = checkpoint.find(&name)? {
                files.insert(name, hash_of_weights(&bytes));
            }
        }
        let revision = checkpoint.revision().map(str::to_owned);
        Ok(Self { id: checkpoint.id().to_owned(), revision, files })
    }
}

fn hash_of_weights(bytes: &[u8]) -> String {
    const PAGES: usize = 256;
    const PAGE: usize = 4096;
    let mut hash = Sha256::new().chain_update((bytes.len() as u64).to_le_bytes());
    if let Some(length) = bytes.first_chunk::<8>() {
        let end = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX).saturating_add(8);
        hash.update(&bytes[..end.min(bytes.len())]);
    }
    for page in 0..PAGES {
        let start = bytes.len() / PAGES * page;
        hash.update(&bytes[start..bytes.len().min(start + PAGE)]);
    }
    hex(&hash.finalize())
}

impl Manifest {
    /// The version of this program.
    pub const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Where the manifest of the output at `output` is.
    pub fn path(output: &Path) -> PathBuf {
        let mut name = output.as_os_str().to_owned();
        name.push(".manifest.json");
        name.into()
    }

    /// The manifest at `path`, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or is not a manifest.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, "cannot read")(error)),
        };
        let fault = |what: &dyn Display| {
            let message =
                format!("not a manifest of this program ({what}); restore it, or give another output");
            Error::file(path, message)
        };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| fault(&error))?;
        if manifest.seed.is_none() { Err(fault(&"it has no seed")) } else { Ok(Some(manifest)) }
    }

    /// Writes the manifest to `path`: after a crash it is there as a whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        let mut file = File::create(temporary).map_err(Error::io(temporary, "cannot create"))?;
        let written = file.write_all(self.to_json().as_bytes()).and_then(|()| file.sync_all());
        written.map_err(Error::io(temporary, "cannot write"))?;
        fs::rename(temporary, path).map_err(Error::io(path, "cannot replace"))?;
        sync_folder_of(path)
    }

    fn to_json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }

    /// What keeps this run from resuming the run of `earlier`, each as "name was this, now that".
    pub(super) fn differences(&self, earlier: &Self) -> Vec<String> {
        let (was, now) = (earlier.terms(), self.terms());
        let names = was.keys().chain(now.keys().filter(|name| !was.contains_key(*name)));
        let said = |terms: &Terms, name| terms.get(name).map_or("unset".to_owned(), |value| excerpt(value));
        let differing = names.filter(|name| was.get(*name) != now.get(*name));
        differing
            // Without a seed the user leaves it to us, and we take the earlier one.
            .filter(|name| *name != "seed" || self.seed.is_some())
            .map(|name| format!("{name} was {}, now {}", said(&was, name), said(&now, name)))
            .collect()
    }

    /// What both runs must agree in.
    fn terms(&self) -> Terms {
        let mut terms = Terms::new();
        let version = self.version.rsplit_once('.').map_or(&*self.version, |(minor, _)| minor);
        terms.insert("version".into(), version.into());
        terms.insert("input.sha256".into(), self.input.sha256.clone());
        let fields = [
            ("expert", serde_json::json!(self.expert)),
            ("amateur", serde_json::json!(self.amateur)),
            ("seed", serde_json::json!(self.seed)),
            ("samples", serde_json::json!(self.samples)),
            ("", self.settings.clone()),
        ];
        for (name, value) in fields {
            // As it is read from a file, since reading may round a number otherwise than writing.
            let value = value.to_string().parse().unwrap_or(value);
            collect(&mut terms, name, &value);
        }
        terms
    }
}

/// Makes the name of the file at `path` outlast a crash of the system.
pub(super) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder, "cannot sync"))
}

/// Names and values in words.
type Terms = IndexMap<String, String>;

fn collect(terms: &mut Terms, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                collect(terms, &name, value);
            }
        }
        value => {
            terms.insert(name.to_owned(), value.to_string());
        }
    }
}
