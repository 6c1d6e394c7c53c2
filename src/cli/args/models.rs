//! The choice of a pair.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;

use crate::cli::args::source;
use codit::checkpoint::{Checkpoint, Parts};
use codit::dataset::Manifest;
use codit::embedded;
use codit::error::{Error, Result};
use codit::pairs::{self, PairPreset};

#[derive(clap::Args)]
#[command(next_help_heading = "Models")]
pub struct Models {
    /// A known pair by name, with the settings that suit it (codit pairs lists them); other flags override these
    #[arg(long, value_name = "NAME", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(pairs::PAIRS.iter().map(|pair| pair.name)))]
    pair: Option<String>,
    /// The post-trained model, such as a chat model: a folder, or a Hugging Face id such as Qwen/Qwen3-8B or
    /// Qwen/Qwen3-8B@REVISION, which is downloaded if needed [default: that of the built-in demonstration pair]
    #[arg(long, value_name = "MODEL")]
    expert: Option<PathBuf>,
    /// The pre-trained (base) model that the expert was made from, named in the same way; not needed with --beta 0
    #[arg(long, value_name = "MODEL")]
    amateur: Option<PathBuf>,
}

impl Models {
    /// The pair, where one is named.
    pub fn pair(&self) -> Option<&'static PairPreset> {
        pairs::find(self.pair.as_ref()?)
    }

    /// Whether any of them is given.
    pub fn are_given(&self) -> bool {
        self.pair.is_some() || self.expert.is_some() || self.amateur.is_some()
    }

    /// Whether a model is given beside or in place of a pair.
    pub fn are_overridden(&self) -> bool {
        self.expert.is_some() || self.amateur.is_some()
    }

    /// The configurations of what is given: a pair, or an expert alone.
    pub fn open_configs(&self) -> Result<(Checkpoint, Option<Checkpoint>)> {
        let has_amateur = self.pair.is_some() || self.expert.is_none() || self.amateur.is_some();
        self.open(has_amateur, Parts::Config, None)
    }

    /// Expert and, where it has a say, amateur. A run that is resumed has them as they were when it began.
    pub fn open(
        &self,
        needs_amateur: bool,
        parts: Parts,
        earlier: Option<&Manifest>,
    ) -> Result<(Checkpoint, Option<Checkpoint>)> {
        let of_pair = |name: fn(&PairPreset) -> &str| self.pair().map(|pair| Path::new(name(pair)));
        let expert = self.expert.as_deref().or_else(|| of_pair(|pair| pair.expert));
        let amateur = self.amateur.as_deref().or_else(|| of_pair(|pair| pair.amateur));
        match (expert, amateur) {
            (None, None) => Ok((embedded::expert(), needs_amateur.then(embedded::amateur))),
            (None, Some(_)) => Err(Error::Setting("--amateur needs its --expert, or a --pair".to_owned())),
            (Some(_), None) if needs_amateur => {
                let message = "--expert needs its --amateur; give one, or --beta 0 to run the expert alone";
                Err(Error::Setting(message.to_owned()))
            }
            (Some(expert), amateur) => {
                let expert = (expert, earlier.map(|manifest| &manifest.expert));
                let fingerprint = earlier.and_then(|manifest| manifest.amateur.as_ref());
                let amateur = amateur.filter(|_| needs_amateur).map(|amateur| (amateur, fingerprint));
                source::open(expert, amateur, parts)
            }
        }
    }
}
