//! Refuses a benchmark that the machine's memory cannot hold, before any of it is taken: a system that gives out more memory
//! than it has would end the process in the middle.

use std::fs;

use crate::device::inspect::Inspect;
use crate::device::{Capacity, Dtype, Format};
use crate::engine::Model;
use crate::engine::footprint::ModelFootprint;
use crate::error::{Error, Result};

/// Checks that models with random weights and `cache` bytes fit into memory, on a device that computes in the host's memory.
///
/// # Errors
/// [`Error::Setting`] with what is needed and what there is.
pub(super) fn check<D: Inspect>(
    device: &D,
    models: [Model<'_>; 2],
    capacity: Capacity,
    cache: f64,
) -> Result<()> {
    let is_of_host = device.memory_info()?.is_none();
    let Some(available) = available().filter(|_| is_of_host) else { return Ok(()) };
    let mut needed = cache;
    for model in models {
        // A stored model stays in its files, of which the system keeps in memory what fits.
        if let Model::Random(spec, _) = model {
            let footprint = ModelFootprint::new(spec, Format::of(Dtype::Bf16), capacity)?;
            needed += footprint.weights as f64 + footprint.workspace as f64;
        }
    }
    if needed <= available as f64 {
        return Ok(());
    }
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    Err(Error::Setting(format!(
        "the bench needs {:.1} GiB of memory, and {:.1} GiB are available; take a smaller --shape, or fewer --rows",
        gib(needed),
        gib(available as f64)
    )))
}

/// Bytes of memory that the system can give out without swapping; `None` where it does not say.
fn available() -> Option<usize> {
    let system = fs::read_to_string("/proc/meminfo").ok()?;
    let line = system.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let of_system = line.trim().trim_end_matches("kB").trim().parse::<usize>().ok()? << 10;
    let read =
        |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse::<usize>().ok();
    let of_group =
        read("memory.max").zip(read("memory.current")).map(|(most, used)| most.saturating_sub(used));
    Some(of_group.map_or(of_system, |group| group.min(of_system)))
}
