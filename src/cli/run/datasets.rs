//! What a run goes on with and what it writes: a dataset for each setting.

use std::fs;
use std::path::Path;

use crate::cli::args::method::Setting;
use crate::cli::ui::progress::Ends;
use crate::cli::ui::words::count;
use codit::dataset::{
    Done, FinishReason, Input, InputRow, Manifest, Metadata, Outcome, Record, Recovery, Sink,
};
use codit::device::cpu::Isa;
use codit::engine::{Completion, Finish, Request};
use codit::error::{Error, Result};

/// The manifests of the outputs that hold something already.
pub struct Earlier {
    manifests: Vec<Manifest>,
    seed: Option<u64>,
}

impl Earlier {
    /// Those of `settings`; `seed` is the user's. Outputs that cannot be written are refused here, before the models are
    /// loaded.
    ///
    /// # Errors
    /// Those of [`Sink::check`]; a manifest that cannot be read; without a seed from the user, two outputs of different
    /// ones.
    pub fn read(settings: &[Setting], input: &Input, seed: Option<u64>) -> Result<Self> {
        let mut earlier = Self { manifests: Vec::new(), seed };
        for Setting { output, .. } in settings {
            Sink::check(output, input)?;
            if !fs::metadata(output).is_ok_and(|output| output.len() > 0) {
                continue;
            }
            let Some(manifest) = Manifest::beside(output)? else { continue };
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

    /// The manifests of all `settings` outputs, in the order of the settings, if all of them hold something.
    pub fn all(&self, settings: usize) -> Option<&[Manifest]> {
        (self.manifests.len() == settings).then_some(&self.manifests[..])
    }

    /// Says where the records so far were computed with another instruction set than those to come, if those are computed on
    /// a CPU.
    ///
    /// # Errors
    /// Those of `is_cpu`, which is asked last.
    pub fn warn_of_another_processor(&self, is_cpu: impl FnOnce() -> Result<bool>) -> Result<()> {
        let earlier = self.manifests.first().and_then(|manifest| manifest.notes["cpu_isa"].as_str());
        let (Some(earlier), Ok(own)) = (earlier, Isa::chosen().map(Isa::name)) else { return Ok(()) };
        if earlier != own && is_cpu()? {
            message!(
                "warning: the records so far were computed with the instruction set {earlier}, those to come with {own}: \
                 the last digits of scores may differ, and in bfloat16 responses too. CODIT_CPU_ISA={earlier} computes as \
                 before, where the processor can"
            );
        }
        Ok(())
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
    /// Records that this run has written: responses, and errors.
    answered: usize,
    failed: usize,
}

/// How a run ended.
pub struct Ended {
    /// Whether every prompt has its records.
    pub is_complete: bool,
    /// Records of this run.
    answered: usize,
    failed: usize,
}

impl Ended {
    /// Whether this run wrote no record.
    pub fn is_empty(&self) -> bool {
        self.answered + self.failed == 0
    }

    /// Closes the datasets.
    ///
    /// # Errors
    /// Those of [`Sink::close`].
    pub fn close(datasets: Vec<Written>, is_complete: bool) -> Result<Self> {
        let mut ended = Self { is_complete, answered: 0, failed: 0 };
        for Written { sink, answered, failed, .. } in datasets {
            sink.close()?;
            ended.answered += answered;
            ended.failed += failed;
        }
        Ok(ended)
    }

    /// Whether the run wrote records, and each is an error.
    pub fn all_failed(&self) -> bool {
        self.failed > 0 && self.answered == 0
    }
}

impl Dataset {
    /// Begins the output or resumes it, and says so. The seed of `request` becomes the run's. `retry_errors` makes records
    /// of errors again.
    ///
    /// # Errors
    /// Those of [`Sink::open`] and [`Sink::remove_failed`].
    pub fn open(
        output: &Path,
        input: &Input,
        manifest: &Manifest,
        metadata: Metadata,
        request: Request,
        retry_errors: bool,
    ) -> Result<Self> {
        let (mut sink, mut done) = Sink::open(output, input, manifest)?;
        report_recovery(&done, output);
        let retried = if retry_errors { sink.remove_failed(&mut done, input)? } else { 0 };
        if retried > 0 {
            message!("{}: trying {} of errors again", output.display(), count(retried, "record"));
        }
        let log_probabilities = request.log_probabilities;
        let has_samples = manifest.samples > 1;
        let request = Request { seed: sink.seed(), ..request };
        let written = Written { sink, metadata, log_probabilities, has_samples, answered: 0, failed: 0 };
        Ok(Self { todo: Todo { request, done }, written })
    }
}

impl Todo {
    /// How the records of earlier runs ended.
    pub fn ends(&self) -> Ends {
        let (Recovery { records, failed, .. }, finished) = (self.done.recovery(), self.done.finished());
        Ends { finished, cut: records.saturating_sub(failed + finished), errors: failed }
    }
}

impl Written {
    /// Writes the record of one sample of `prompt`. A cancelled request has no record: its prompt is still to be answered.
    ///
    /// # Errors
    /// Those of [`Sink::append`].
    pub fn append(&mut self, prompt: InputRow, sample: u32, completion: Completion) -> Result<()> {
        let prompt_tokens = completion.prompt_tokens;
        let Some(outcome) = outcome(completion, self.log_probabilities) else { return Ok(()) };
        let sample = self.has_samples.then_some(sample);
        let record = Record::new(prompt, sample, self.metadata.clone(), prompt_tokens, outcome);
        self.sink.append(&record)?;
        match record.finish_reason() {
            FinishReason::Error => self.failed += 1,
            FinishReason::Stop | FinishReason::Length => self.answered += 1,
        }
        Ok(())
    }
}

/// What a record says of a completion; `None` if it was cancelled.
fn outcome(completion: Completion, log_probabilities: bool) -> Option<Outcome> {
    let is_completed = match completion.finish {
        Finish::Stop => true,
        Finish::Length => false,
        Finish::Failed(error) => return Some(Outcome::Failed(error.to_string())),
        Finish::Cancelled => return None,
    };
    Some(Outcome::Answered {
        response: completion.text,
        score: completion.scores,
        log_probabilities: log_probabilities.then_some(completion.log_probabilities),
        is_completed,
    })
}

fn report_recovery(done: &Done, output: &Path) {
    let (recovery, output) = (done.recovery(), output.display());
    if recovery.cut_bytes > 0 {
        note!("{output}: cut off {} bytes of a torn record at its end", recovery.cut_bytes);
    }
}
