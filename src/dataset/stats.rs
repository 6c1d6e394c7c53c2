//! What a dataset is like: counts and means over its records.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use rayon::prelude::*;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::record::{FinishReason, MAX_RECORD};
use super::repetition::is_repetitive;
use super::resume::may_be_torn;
use crate::error::{Error, Result};

/// Bytes of lines that are read before they are counted on all threads.
const BATCH: usize = 16 << 20;
/// The most lines of a batch.
const LINES: usize = 1 << 14;

/// Counts over records. It takes one record after another, so its size does not depend on their number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    alpha: Common,
    beta: Common,
    finished: u64,
    cut: u64,
    errors: u64,
    prompt_tokens: u64,
    tokens: u64,
    characters: u64,
    empty: u64,
    repetitive: u64,
    expert: Mean,
    amateur: Mean,
}

/// The statistics of a dataset in exact numbers. A mean of nothing is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The plausibility constraint, if all records have the same.
    pub alpha: Option<f64>,
    /// The weight of the amateur, if all records have the same.
    pub beta: Option<f64>,
    /// Records: the sum of the next three.
    pub records: u64,
    /// Responses that the expert ended.
    pub finished: u64,
    /// Responses that ended at their limit.
    pub cut: u64,
    /// Prompts without a response.
    pub errors: u64,
    /// Responses of nothing but white space.
    pub empty: u64,
    /// Responses for which [`is_repetitive`] holds.
    pub repetitive: u64,
    /// Of the responses, the share that is repetitive.
    pub repetitive_share: Option<f64>,
    /// Tokens of the prompts, as far as the records say.
    pub prompt_tokens: u64,
    /// Tokens of the responses, stop tokens included.
    pub tokens: u64,
    /// Mean tokens of a response.
    pub mean_tokens: Option<f64>,
    /// Mean Unicode characters of a response.
    pub mean_characters: Option<f64>,
    /// Mean log-probability of a token under the expert, where it is recorded.
    pub expert_mean_logprob: Option<f64>,
    /// The same under the amateur; tokens that it masks do not count.
    pub amateur_mean_logprob: Option<f64>,
}

/// The parts of a record that count. Records of earlier versions lack some, and so do those of the method's authors.
#[derive(Deserialize)]
struct Counted {
    #[serde(rename = "id")]
    _id: IgnoredAny,
    is_completed: bool,
    response: Option<String>,
    res_metadata: Option<Settings>,
    score: Option<Vec<IgnoredAny>>,
    expert_logprobs: Option<Vec<Option<f64>>>,
    amateur_logprobs: Option<Vec<Option<f64>>>,
    finish_reason: Option<FinishReason>,
    // Of so many tokens no sum overflows.
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Settings {
    alpha: Option<f64>,
    beta: Option<f64>,
}

impl Counted {
    fn finish_reason(&self) -> FinishReason {
        match self.finish_reason {
            Some(reason) => reason,
            None if self.error.is_some() => FinishReason::Error,
            None if self.is_completed => FinishReason::Stop,
            None => FinishReason::Length,
        }
    }
}

impl Statistics {
    /// The statistics of the dataset at `path`. A dataset that a run is writing may be read too: a torn last line is
    /// left out.
    ///
    /// # Errors
    /// [`Error::Line`] for a line that is not a record; [`Error::File`] or [`Error::Io`] for a file that cannot be read.
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = fs::metadata(path).map_err(Error::io(path, "cannot open"))?;
        if metadata.is_dir() {
            return Err(Error::file(path, "a folder; give the datasets in it"));
        }
        if !metadata.is_file() {
            return Err(Error::file(path, "not a regular file; give a dataset"));
        }
        let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 20, file), MAX_RECORD);
        let mut statistics = Self::default();
        // Where the system refuses threads, this one does the work.
        let threads = rayon::ThreadPoolBuilder::new().build().ok();
        loop {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while bytes < BATCH && batch.len() < LINES {
                let Some(line) = lines.next().map_err(Error::io(path, "cannot read"))? else { break };
                bytes += line.bytes.len();
                batch.push((line.number, line.is_terminated(), may_be_torn(line), line.bytes.to_owned()));
            }
            if batch.is_empty() {
                return Ok(statistics);
            }
            let count = |(number, is_terminated, may_be_torn, line): &(usize, bool, bool, Vec<u8>)| {
                let is_torn = !is_terminated && *may_be_torn;
                Self::of_line(line, is_torn).map_err(|what| Error::line(path, *number, what))
            };
            let counted: Vec<Result<Self>> = match &threads {
                Some(threads) => threads.install(|| batch.par_iter().map(count).collect()),
                None => batch.iter().map(count).collect(),
            };
            // One after another, so that sums do not depend on the threads.
            for one in counted {
                statistics.add(&one?);
            }
        }
    }

    fn of_line(line: &[u8], is_torn: bool) -> std::result::Result<Self, String> {
        if line.len() > MAX_RECORD {
            return Err(format!(
                "longer than {} MiB, and a record never is; remove the line",
                MAX_RECORD >> 20
            ));
        }
        match serde_json::from_slice::<Counted>(line) {
            Ok(record) => Ok(Self::of_record(&record)),
            Err(_) if is_torn || line.trim_ascii().is_empty() => Ok(Self::default()),
            Err(error) => {
                let error = error.to_string();
                let error = error.rfind(" at line ").map_or(&*error, |end| &error[..end]);
                Err(format!("not a record ({error}); give datasets that `codit synth` has written"))
            }
        }
    }

    fn of_record(record: &Counted) -> Self {
        let settings = record.res_metadata.as_ref();
        let mut one = Self {
            alpha: Common::of(settings.and_then(|settings| settings.alpha)),
            beta: Common::of(settings.and_then(|settings| settings.beta)),
            prompt_tokens: record.prompt_tokens.unwrap_or(0).into(),
            ..Self::default()
        };
        match record.finish_reason() {
            FinishReason::Stop => one.finished = 1,
            FinishReason::Length => one.cut = 1,
            FinishReason::Error => {
                one.errors = 1;
                return one;
            }
        }
        let response = record.response.as_deref().unwrap_or_default();
        let scored = record.score.as_ref().map_or(0, |score| score.len() as u64);
        one.tokens = record.completion_tokens.map_or(scored, u64::from);
        one.characters = response.chars().count() as u64;
        one.empty = u64::from(response.trim().is_empty());
        one.repetitive = u64::from(is_repetitive(response));
        one.expert = Mean::of(record.expert_logprobs.iter().flatten());
        one.amateur = Mean::of(record.amateur_logprobs.iter().flatten());
        one
    }

    /// Adds other records.
    pub fn add(&mut self, other: &Self) {
        self.alpha.add(other.alpha);
        self.beta.add(other.beta);
        self.finished += other.finished;
        self.cut += other.cut;
        self.errors += other.errors;
        self.prompt_tokens += other.prompt_tokens;
        self.tokens += other.tokens;
        self.characters += other.characters;
        self.empty += other.empty;
        self.repetitive += other.repetitive;
        self.expert.add(other.expert);
        self.amateur.add(other.amateur);
    }

    /// The exact numbers.
    pub fn summary(&self) -> Summary {
        let responses = self.finished + self.cut;
        let per_response = |sum: u64| (responses > 0).then(|| sum as f64 / responses as f64);
        Summary {
            alpha: self.alpha.value(),
            beta: self.beta.value(),
            records: responses + self.errors,
            finished: self.finished,
            cut: self.cut,
            errors: self.errors,
            empty: self.empty,
            repetitive: self.repetitive,
            repetitive_share: per_response(self.repetitive),
            prompt_tokens: self.prompt_tokens,
            tokens: self.tokens,
            mean_tokens: per_response(self.tokens),
            mean_characters: per_response(self.characters),
            expert_mean_logprob: self.expert.value(),
            amateur_mean_logprob: self.amateur.value(),
        }
    }
}

/// A number that all records have in common, or not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Common {
    /// No record says it.
    #[default]
    Unknown,
    One(f64),
    Several,
}

impl Common {
    fn of(value: Option<f64>) -> Self {
        value.map_or(Self::Unknown, Self::One)
    }

    fn add(&mut self, other: Self) {
        *self = match (*self, other) {
            (Self::Unknown, other) | (other, Self::Unknown) => other,
            (Self::One(one), Self::One(other)) if one.to_bits() == other.to_bits() => Self::One(one),
            _ => Self::Several,
        };
    }

    fn value(self) -> Option<f64> {
        if let Self::One(value) = self { Some(value) } else { None }
    }
}

/// A mean of numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn of<'a>(values: impl Iterator<Item = &'a Option<f64>>) -> Self {
        let (sum, count) = values.flatten().fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
        Self { sum, count }
    }

    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}
