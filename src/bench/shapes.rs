//! Shapes of published models by name: their config.json without the weights.

use std::path::Path;

use crate::checkpoint::{CONFIG_FILE, Checkpoint};
use crate::error::{Error, Result};
use crate::model::spec::Spec;

macro_rules! shapes {
    ($($name:literal),* $(,)?) => {
        /// The name and the files of each shape.
        const SHAPES: &[(&str, &[(&str, &[u8])])] =
            &[$(($name, &[("config.json", include_bytes!(concat!("shapes/", $name, ".json")))])),*];
    };
}

shapes!(
    "gemma-3-270m",
    "gemma-3-1b",
    "gemma-3-4b",
    "gemma-3-12b",
    "gemma-3-27b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "olmo-3-7b",
    "qwen2.5-0.5b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "qwen3-14b",
    "qwen3-30b-a3b",
    "qwen3-32b",
    "smollm2-135m",
    "smollm2-360m",
    "smollm2-1.7b",
);

/// The names of all shapes.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|(name, _)| *name)
}

/// The shape called `name`, or the shape at the path `name`: of a file that is written as a config.json, or of a folder with a
/// config.json.
///
/// # Errors
/// [`Error::Setting`] if `name` is neither; the errors of [`Spec::open`].
pub fn find(name: &str) -> Result<Spec> {
    if let Some((name, files)) = SHAPES.iter().find(|(shape, _)| *shape == name) {
        return Spec::open(&Checkpoint::embedded(name, files));
    }
    let path = Path::new(name);
    if path.join(CONFIG_FILE).is_file() {
        return Spec::open(&Checkpoint::open(path)?);
    }
    if let (true, Some(folder), Some(file)) = (path.is_file(), path.parent(), path.file_name()) {
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        return Spec::read(&Checkpoint::open(folder)?, &file.to_string_lossy());
    }
    let known: Vec<_> = names().collect();
    Err(Error::Setting(format!(
        "shape {name:?} is no folder with a config.json, no such file, and none of the known shapes: {}",
        known.join(", ")
    )))
}
