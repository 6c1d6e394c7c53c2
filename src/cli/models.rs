//! The choice of a pair.

use std::path::PathBuf;

use crate::checkpoint::Checkpoint;
use crate::embedded;
use crate::error::{Error, Result};

#[derive(clap::Args)]
#[command(next_help_heading = "Models")]
pub(super) struct Models {
    /// Folder of the post-trained checkpoint; without it the embedded pair is used
    #[arg(long, value_name = "DIR")]
    expert: Option<PathBuf>,
    /// Folder of its pre-trained counterpart; may be left out with --beta 0
    #[arg(long, value_name = "DIR", requires = "expert")]
    amateur: Option<PathBuf>,
}

impl Models {
    /// What is given: a pair, or an expert alone.
    pub(super) fn open_given(&self) -> Result<(Checkpoint, Option<Checkpoint>)> {
        self.open(self.expert.is_none() || self.amateur.is_some())
    }

    /// Expert and, where it has a say, amateur.
    pub(super) fn open(&self, needs_amateur: bool) -> Result<(Checkpoint, Option<Checkpoint>)> {
        let Some(expert) = &self.expert else {
            return Ok((embedded::expert(), needs_amateur.then(embedded::amateur)));
        };
        match &self.amateur {
            None if needs_amateur => {
                let message = "--expert needs its --amateur; give one, or --beta 0 to run the expert alone";
                Err(Error::Setting(message.to_owned()))
            }
            amateur => {
                let amateur = amateur.as_ref().filter(|_| needs_amateur).map(Checkpoint::open).transpose()?;
                Ok((Checkpoint::open(expert)?, amateur))
            }
        }
    }
}
