//! Loading a pair's weights, while the user sees how far that is.

use std::sync::Arc;

use crate::cli::ui::activity::{Activity, Bytes};
use codit::checkpoint::Checkpoint;
use codit::device::Device;
use codit::engine::{EngineConfig, Replicas};
use codit::error::Result;

/// Loads the weights, and shows how far that is.
///
/// # Errors
/// Those of [`Replicas::load`].
pub fn load<D: Device>(
    places: Vec<D>,
    expert: &Checkpoint,
    amateur: Option<&Checkpoint>,
    config: &EngineConfig,
) -> Result<Replicas<D>> {
    let size = |checkpoint: &Checkpoint| -> Result<u64> {
        let sizes = checkpoint.weight_files()?.into_iter().map(|file| checkpoint.find(&file));
        sizes.map(|file| Ok(file?.map_or(0, |bytes| bytes.len() as u64))).sum()
    };
    let once = size(expert)? + amateur.map_or(Ok(0), size)?;
    let done = Arc::default();
    let _shown = Activity::start(
        "loading weights",
        Some(Bytes { done: Arc::clone(&done), total: once * places.len() as u64 }),
    );
    let counting = |checkpoint: &Checkpoint| checkpoint.clone().counting(Arc::clone(&done));
    Replicas::load(places, &counting(expert), amateur.map(counting).as_ref(), config)
}
