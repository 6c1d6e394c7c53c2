//! What a run goes on with and what it writes: a dataset for each setting.

use std::fs;
use std::path::Path;

use crate::cli::args::method::Setting;
use codit::dataset::{Done, Input, InputRow, Manifest, Metadata, Outcome, Record, Sink};
use codit::engine::{Completion, Finish, Request};
use codit::error::{Error, Result, printable};

/// The manifests of the outputs that hold something already.
pub struct Earlier {
    manifests: Vec<Manifest>,
    seed: Option<u64>,
}

impl Earlier {
    /// Those of `settings`; `seed` is the user's.
    ///
    /// # Errors
    /// A manifest that cannot be read; without a seed from the user, two outputs of different ones.
    pub fn read(settings: &[Setting], seed: Option<u64>) -> Result<Self> {
        let mut earlier = Self { manifests: Vec::new(), seed };
        for Setting { output, .. } in settings {
            if !fs::metadata(output).is_ok_and(|output| output.len() > 0) {
                continue;
            }
            let Some(manifest) = Manifest::read(&Manifest::path(output))? else { continue };
            if let (None, Some(other), Some(own)) = (seed, earlier.seed, manifest.seed)
                && own != other
            {
                let message = format!(
                    "its seed is {own}, that of another output of this sweep {other}, and all settings draw by one; resume \
                     each by itself, or give another output"
                );
                return Err(Error::file(output, message));
            }
            earlier.seed = earlier.seed.or(manifest.seed);
            earlier.manifests.push(manifest);
        }
        Ok(earlier)
    }

    /// The manifest that tells which commits of the models and which moment the runs began with: one of an amateur where
    /// there is any, as the settings that need one come first.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifests.first()
    }

    /// The user's seed, or that of the earlier runs.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }
}

/// The dataset of a setting.
pub struct Dataset {
    pub todo: Todo,
    pub written: Written,
}

/// What is asked for.
pub struct Todo {
    /// What all requests have in common.
    pub request: Request,
    pub done: Done,
}

/// Where the answers go.
pub struct Written {
    sink: Sink,
    metadata: Metadata,
    log_probabilities: bool,
    /// Whether a prompt has several records.
    has_samples: bool,
}

impl Dataset {
    /// Begins the output or resumes it, and says so. The seed of `request` becomes the run's.
    ///
    /// # Errors
    /// Those of [`Sink::open`].
    pub fn open(
        output: &Path,
        input: &Input,
        manifest: &Manifest,
        metadata: Metadata,
        request: Request,
    ) -> Result<Self> {
        let (sink, done) = Sink::open(output, input, manifest)?;
        report_recovery(&done, output);
        let log_probabilities = request.log_probabilities;
        let has_samples = manifest.samples > 1;
        let request = Request { seed: sink.seed(), ..request };
        let written = Written { sink, metadata, log_probabilities, has_samples };
        Ok(Self { todo: Todo { request, done }, written })
    }
}

impl Written {
    /// Writes the record of one sample of `prompt`.
    ///
    /// # Errors
    /// Those of [`Sink::append`].
    pub fn append(&mut self, prompt: InputRow, sample: u32, completion: Completion) -> Result<()> {
        let sample = self.has_samples.then_some(sample);
        let outcome = outcome(completion, self.log_probabilities);
        self.sink.append(&Record::new(prompt, sample, self.metadata.clone(), outcome))
    }

    /// Ends the output.
    ///
    /// # Errors
    /// Those of [`Sink::close`].
    pub fn close(self) -> Result<()> {
        self.sink.close()
    }
}

/// What a record says of a completion.
fn outcome(completion: Completion, log_probabilities: bool) -> Outcome {
    match completion.finish {
        Finish::Failed(error) => Outcome::Failed(printable(&error.to_string())),
        finish => Outcome::Answered {
            response: completion.text,
            score: completion.scores,
            log_probabilities: log_probabilities.then_some(completion.log_probabilities),
            is_completed: matches!(finish, Finish::Stop),
        },
    }
}

fn report_recovery(done: &Done, output: &Path) {
    let (recovery, output) = (done.recovery(), output.display());
    if recovery.cut_bytes > 0 {
        message!("{output}: cut off {} bytes of a torn record at its end", recovery.cut_bytes);
    }
    if recovery.records > 0 {
        message!("{output}: resuming after {} records", recovery.records);
    }
}
