//! Shapes of published models by name: their config.json without the weights.

use std::path::Path;

use crate::checkpoint::Checkpoint;
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

/// The shape called `name`, or the shape in the config.json (or its folder) at the path `name`.
///
/// # Errors
/// [`Error::Setting`] if `name` is neither; the errors of [`Spec::open`].
pub fn find(name: &str) -> Result<Spec> {
    if let Some((name, files)) = SHAPES.iter().find(|(shape, _)| *shape == name) {
        return Spec::open(&Checkpoint::embedded(name, files));
    }
    let path = Path::new(name);
    let folder = if path.is_file() {
        path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."))
    } else {
        path
    };
    if folder.join("config.json").is_file() {
        return Spec::open(&Checkpoint::open(folder)?);
    }
    let known: Vec<_> = names().collect();
    Err(Error::Setting(format!(
        "shape {name:?} is no config.json and none of the known shapes: {}",
        known.join(", ")
    )))
}
