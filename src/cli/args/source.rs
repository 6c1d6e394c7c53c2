//! Where models come from: folders, and the Hugging Face Hub where the program has the feature `hub`.

use std::path::Path;

#[cfg(not(feature = "hub"))]
use codit::checkpoint::is_path;
use codit::checkpoint::{Checkpoint, Parts};
use codit::dataset::ModelFingerprint;
#[cfg(not(feature = "hub"))]
use codit::error::Error;
use codit::error::Result;
#[cfg(feature = "hub")]
use codit::hub::{Hub, ModelName};

#[cfg(feature = "hub")]
use crate::cli::ui::download::Download;

/// A model as the user names it, and as an earlier run had it.
pub type Named<'a> = (&'a Path, Option<&'a ModelFingerprint>);

/// Opens `parts` of both models; a model of the hub is fetched if need be.
///
/// # Errors
/// A model that is neither a folder nor on the hub, or that cannot be fetched.
#[cfg(feature = "hub")]
pub fn open(
    expert: Named<'_>,
    amateur: Option<Named<'_>>,
    parts: Parts,
) -> Result<(Checkpoint, Option<Checkpoint>)> {
    let (mut expert, mut amateur) = (Source::find(expert)?, amateur.map(Source::find).transpose()?);
    let mut download = Download::default();
    if parts == Parts::All {
        // First what is small of both, so that what is amiss with either is known before gigabytes have come.
        for source in [Some(&mut expert), amateur.as_mut()].into_iter().flatten() {
            source.pin(&source.fetch(Parts::Text, &mut download)?);
        }
    }
    let expert = expert.fetch(parts, &mut download)?;
    Ok((expert, amateur.map(|amateur| amateur.fetch(parts, &mut download)).transpose()?))
}

/// Opens both models, which must be folders.
///
/// # Errors
/// A model that is no folder.
#[cfg(not(feature = "hub"))]
pub fn open(
    expert: Named<'_>,
    amateur: Option<Named<'_>>,
    _: Parts,
) -> Result<(Checkpoint, Option<Checkpoint>)> {
    let open = |(model, _): Named<'_>| {
        if model.exists() || is_path(&model.to_string_lossy()) {
            return Checkpoint::open(model);
        }
        Err(Error::Setting(format!(
            "{} is no folder here, and this codit was built without the feature hub, which fetches models by name; give a \
             folder, or build codit with --features hub",
            model.display()
        )))
    };
    Ok((open(expert)?, amateur.map(open).transpose()?))
}

/// Where a model is.
#[cfg(feature = "hub")]
enum Source {
    Folder(Checkpoint),
    Hub(ModelName),
}

#[cfg(feature = "hub")]
impl Source {
    /// A path that exists is a folder; else it is a name, of the commit that `earlier` had if it was the same.
    fn find((model, earlier): Named<'_>) -> Result<Self> {
        if model.exists() {
            return Ok(Self::Folder(Checkpoint::open(model)?));
        }
        let mut name: ModelName = model.to_string_lossy().parse()?;
        if name.revision.is_none()
            && let Some(fingerprint) = earlier.filter(|fingerprint| fingerprint.id == name.repository)
        {
            name.revision.clone_from(&fingerprint.revision);
        }
        Ok(Self::Hub(name))
    }

    fn fetch(&self, parts: Parts, download: &mut Download) -> Result<Checkpoint> {
        match self {
            Self::Folder(checkpoint) => Ok(checkpoint.clone()),
            Self::Hub(name) => Hub::from_env()?.fetch(name, parts, &mut |event| download.show(event)),
        }
    }

    /// Holds on to the commit that `checkpoint` is of.
    fn pin(&mut self, checkpoint: &Checkpoint) {
        if let Self::Hub(name) = self {
            name.revision = checkpoint.revision().map(str::to_owned);
        }
    }
}
