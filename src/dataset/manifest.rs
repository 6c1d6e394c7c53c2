//! The manifest of a run: everything that its records depend on, stored beside the output.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::replacement::{Replacement, with_suffix};
use super::schema::excerpt;
use crate::checkpoint::{Checkpoint, hex};
use crate::error::{Error, Result};
use crate::python_json;

/// Describes a run. A run resumes another if they agree in everything but `notes`, the input's path and the patch
/// number of the version: releases of one minor version write the same records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`Manifest::VERSION`] of the program that began the run.
    pub version: String,
    /// The input.
    pub input: InputFingerprint,
    /// The expert.
    pub expert: ModelFingerprint,
    /// The amateur, unless the expert runs alone.
    pub amateur: Option<ModelFingerprint>,
    /// The seed that the user gave. `None` takes the seed of the run that is resumed, or draws one. The file always
    /// holds it.
    pub seed: Option<u64>,
    /// Records per prompt, 1 or more.
    pub samples: u32,
    /// Every other setting that a record's text depends on, by name. Null counts as unset.
    pub settings: Value,
    /// Settings that may differ when a run is resumed: sizes of batches and caches, threads, the device.
    pub notes: Value,
}

/// Identifies an input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFingerprint {
    /// The path that the user gave.
    pub path: String,
    /// SHA-256 of the whole file, in hex; with a limit, of its first `bytes`.
    pub sha256: String,
    /// The number of rows.
    pub prompts: usize,
    /// The most rows that were to be taken, if the user gave a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// With a limit, the length of the part that holds the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl InputFingerprint {
    /// Whether a limit cuts off rows that `earlier` had.
    fn has_lower_limit(&self, earlier: &Self) -> bool {
        self.limit.is_some() && self.prompts < earlier.prompts
    }
}

/// Identifies a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFingerprint {
    /// The name in records.
    pub id: String,
    /// The commit, if the checkpoint comes from a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// SHA-256 of each file in hex: of the whole file, or of the header and some pages of a file of weights.
    pub files: BTreeMap<String, String>,
}

impl ModelFingerprint {
    /// The fingerprint of `checkpoint`.
    ///
    /// Pages are hashed because all fine-tunes of a model have the same header.
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

    /// What its name has beside that of the output.
    pub(super) const SUFFIX: &str = "-manifest";

    /// The longest manifest, in bytes.
    const MAX_LENGTH: u64 = 16 << 20;

    /// The path of the manifest of the output at `output`: its name and `-manifest`.
    ///
    /// Loaders of datasets take every file of a folder for data whose name has a suffix that they know. The `datasets`
    /// library looks at all suffixes, so that the name `out.jsonl.manifest` would not do.
    pub fn path(output: &Path) -> PathBuf {
        with_suffix(output, Self::SUFFIX)
    }

    /// The path that version 0.1 gave to the manifest of the output at `output`.
    fn old_path(output: &Path) -> PathBuf {
        with_suffix(output, ".manifest.json")
    }

    /// The manifest beside the output at `output`, under its present name or else under its old one. The manifest of an
    /// output that is a symbolic link lies beside the file that the link leads to.
    ///
    /// # Errors
    /// Those of [`Manifest::read`].
    pub fn beside(output: &Path) -> Result<Option<Self>> {
        let output = fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
        match Self::read(&Self::path(&output))? {
            None => Self::read(&Self::old_path(&output)),
            found => Ok(found),
        }
    }

    /// The manifest at `path`, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or is not a manifest.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let fault = |what: &dyn Display| {
            let message =
                format!("not a manifest of this program ({what}); restore it, or give another output");
            Error::file(path, message)
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(fault(&"a folder")),
            // Reading a pipe would wait for its writer.
            Ok(metadata) if !metadata.is_file() => return Err(fault(&"not a regular file")),
            Ok(metadata) if metadata.len() > Self::MAX_LENGTH => {
                return Err(fault(&format_args!("{} MiB long", metadata.len() >> 20)));
            }
            // The old name is longer than the present one, and may be too long.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) =>
            {
                return Ok(None);
            }
            // If there is an error, reading gives it.
            _ => {}
        }
        let text = fs::read(path).map_err(Error::io(path, "cannot read"))?;
        if let Some(number) = python_json::first_not_finite(&text) {
            return Err(fault(&format_args!("{} is not a finite number", excerpt(number))));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| fault(&error))?;
        if manifest.seed.is_none() { Err(fault(&"it has no seed")) } else { Ok(Some(manifest)) }
    }

    /// Writes the manifest of the output at `output`. After a crash it is there as a whole or not at all. One under the
    /// old name is removed.
    pub(super) fn write(&self, output: &Path) -> Result<()> {
        Replacement::write(&Self::path(output), self.to_json().as_bytes())?;
        let old = Self::old_path(output);
        match fs::remove_file(&old) {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) =>
            {
                Err(Error::io(&old, "cannot remove")(error))
            }
            _ => Ok(()),
        }
    }

    /// Gives a manifest that has the old name the present one. It cannot fail a run: the old name is read too.
    pub(super) fn rename_old(output: &Path) {
        if !Self::path(output).exists() {
            let _ = fs::rename(Self::old_path(output), Self::path(output));
        }
    }

    fn to_json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }

    /// The differences that keep this run from resuming the run of `earlier`, each as "name was this, now that".
    pub(super) fn differences(&self, earlier: &Self) -> Vec<String> {
        let (was, now) = (earlier.terms(), self.terms());
        let names = was.keys().chain(now.keys().filter(|name| !was.contains_key(*name)));
        let said = |terms: &Terms, name| terms.get(name).map_or("unset".to_owned(), |value| excerpt(value));
        let differing = names.filter(|name| was.get(*name) != now.get(*name));
        differing
            // Without a seed from the user, the earlier seed is used.
            .filter(|name| *name != "seed" || self.seed.is_some())
            .map(|name| match name.as_str() {
                "input.sha256" if self.input.has_lower_limit(&earlier.input) => {
                    let limit =
                        |input: &InputFingerprint| input.limit.map_or("none".to_owned(), |l| l.to_string());
                    let (was, now) = (limit(&earlier.input), limit(&self.input));
                    format!("limit was {was}, now {now}, and it may only be raised")
                }
                "input.sha256" => "the input is another, or was changed".to_owned(),
                name => format!("{name} was {}, now {}", said(&was, name), said(&now, name)),
            })
            .collect()
    }

    /// The part in which both runs must agree.
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
            // The settings are compared as a file would return them, since reading may round a number differently
            // from writing.
            let value = value.to_string().parse().unwrap_or(value);
            collect(&mut terms, name, &value);
        }
        terms
    }
}

/// Describes names and values in words.
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
