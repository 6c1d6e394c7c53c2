//! One line of the output.

use serde::{Deserialize, Serialize};

use super::id::Id;
use super::input::MAX_LINE;
use super::prompt::{Columns, InputRow};
use super::schema::bounded;
use crate::contrast::LogProbabilities;
use crate::error::{Error, Result};

/// The longest record, in bytes, line feed included. A record repeats its prompt at most twice and adds a response;
/// a response that does not fit becomes an error, so that every record that is written can be read again.
pub const MAX_RECORD: usize = 8 * MAX_LINE;

/// The settings of a record. Field names and order are those of the method's own datasets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Temperature of the final softmax.
    pub temperature: f64,
    /// Nucleus sampling.
    pub top_p: f64,
    /// The most tokens of a response.
    pub max_tokens: usize,
    /// Whether the amateur had a say; false when the expert runs alone.
    pub contrastive_decoding: bool,
    /// Plausibility constraint.
    pub alpha: f64,
    /// Weight of the amateur.
    pub beta: f64,
    /// The expert's model id.
    pub expert_model_id: String,
    /// The amateur's model id; none when the expert runs alone.
    pub amateur_model_id: Option<String>,
}

/// Why a record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A stop token of the expert.
    Stop,
    /// The most tokens of a response, or the end of the context.
    Length,
    /// An error: there is no response.
    Error,
}

/// The outcome of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A response.
    Answered {
        /// The text.
        response: String,
        /// One score per generated token.
        score: Vec<f32>,
        /// Both models' log-probabilities of each generated token, if the run asked for them.
        log_probabilities: Option<Vec<LogProbabilities>>,
        /// Whether the model stopped by itself instead of at a limit.
        is_completed: bool,
    },
    /// The reason why there is no response. Its beginning is recorded, with control characters escaped: it may quote a
    /// template or a row.
    Failed(String),
}

/// One line of the output.
///
/// For a `prompt` row the instruction is the prompt, for a `messages` row the last turn. `prompt` and `messages`
/// themselves pass through with the other columns of the input.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    id: Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_index: Option<u32>,
    is_completed: bool,
    instruction: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    res_metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_logprobs: Option<Vec<f32>>,
    /// JSON null where the amateur masks the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    amateur_logprobs: Option<Vec<f32>>,
    finish_reason: FinishReason,
    prompt_tokens: usize,
    completion_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    columns: Columns,
}

impl Record {
    /// The record of `prompt`, which has `prompt_tokens` tokens, or 0 if it was never made into tokens. `sample_index`
    /// distinguishes the records of one prompt. It is `None` in a run with one sample per prompt, whose records lack
    /// the column.
    pub fn new(
        prompt: InputRow,
        sample_index: Option<u32>,
        res_metadata: Metadata,
        prompt_tokens: usize,
        outcome: Outcome,
    ) -> Self {
        let instruction = prompt.body.instruction();
        let mut record = Self {
            id: prompt.id,
            sample_index,
            is_completed: false,
            instruction,
            response: None,
            res_metadata,
            score: None,
            expert_logprobs: None,
            amateur_logprobs: None,
            finish_reason: FinishReason::Error,
            prompt_tokens,
            completion_tokens: 0,
            error: None,
            columns: prompt.columns,
        };
        record.set(outcome);
        record
    }

    fn set(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered { response, score, log_probabilities, is_completed } => {
                self.is_completed = is_completed;
                self.finish_reason = if is_completed { FinishReason::Stop } else { FinishReason::Length };
                self.completion_tokens = score.len();
                let models = log_probabilities.as_ref();
                self.expert_logprobs = models.map(|models| models.iter().map(|l| l.expert).collect());
                self.amateur_logprobs = models.and_then(|models| models.iter().map(|l| l.amateur).collect());
                (self.response, self.score) = (Some(response), Some(score));
            }
            Outcome::Failed(error) => {
                (self.is_completed, self.finish_reason) = (false, FinishReason::Error);
                (self.response, self.score) = (None, None);
                (self.expert_logprobs, self.amateur_logprobs) = (None, None);
                self.completion_tokens = 0;
                self.error = Some(bounded(&error));
            }
        }
    }

    /// The id of the record.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Why it ended.
    pub fn finish_reason(&self) -> FinishReason {
        self.finish_reason
    }

    /// The record as JSON and a line feed. Equal content gives equal bytes; scores have the fewest digits that read
    /// back as the same `f32`. A record that is longer than [`MAX_RECORD`] is written as an error.
    ///
    /// # Errors
    /// [`Error::Device`] if a number is not finite. A sound device computes none, and JSON cannot hold it.
    pub fn to_line(&self) -> Result<Vec<u8>> {
        let expert = self.expert_logprobs.iter().flatten();
        let masked = |l_a: &&f32| **l_a == f32::NEG_INFINITY;
        let amateur = self.amateur_logprobs.iter().flatten().map(|l_a| if masked(&l_a) { 0.0 } else { *l_a });
        self.check_finite("score", self.score.iter().flatten().copied())?;
        self.check_finite("expert log-probability", expert.copied())?;
        self.check_finite("amateur log-probability", amateur)?;
        let line = self.to_json_line()?;
        if line.len() <= MAX_RECORD {
            return Ok(line);
        }
        let mut failed = self.clone();
        failed.set(Outcome::Failed(format!(
            "the record has {} MiB, more than the {} MiB that a line may have; lower the longest response",
            line.len() >> 20,
            MAX_RECORD >> 20
        )));
        failed.to_json_line()
    }

    fn to_json_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)
            .map_err(|error| Error::Device(format!("record {:?}: {error}", self.id.key())))?;
        line.push(b'\n');
        Ok(line)
    }

    fn check_finite(&self, what: &str, values: impl Iterator<Item = f32>) -> Result<()> {
        match values.enumerate().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((token, value)) => {
                let message = format!("record {:?}: token {token} has {what} {value}", self.id.key());
                Err(Error::Device(message))
            }
        }
    }
}
