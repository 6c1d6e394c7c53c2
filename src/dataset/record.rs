//! One line of the output.

use serde::{Deserialize, Serialize};

use super::id::Id;
use super::prompt::{Columns, InputRow};
use crate::contrast::LogProbabilities;
use crate::error::{Error, Result};

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
    /// The reason why there is no response.
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
    response: String,
    res_metadata: Metadata,
    score: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_logprobs: Option<Vec<f32>>,
    /// JSON null where the amateur masks the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    amateur_logprobs: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    columns: Columns,
}

impl Record {
    /// The record of `prompt`. `sample_index` distinguishes the records of one prompt. It is `None` in a run with one
    /// sample per prompt, whose records lack the column.
    pub fn new(
        prompt: InputRow,
        sample_index: Option<u32>,
        res_metadata: Metadata,
        outcome: Outcome,
    ) -> Self {
        let (response, score, log_probabilities, is_completed, error) = match outcome {
            Outcome::Answered { response, score, log_probabilities, is_completed } => {
                (response, score, log_probabilities, is_completed, None)
            }
            Outcome::Failed(error) => (String::new(), Vec::new(), None, false, Some(error)),
        };
        let expert = |l: &Vec<LogProbabilities>| l.iter().map(|l| l.expert).collect();
        let amateur = |l: &Vec<LogProbabilities>| l.iter().map(|l| l.amateur).collect();
        let instruction = prompt.body.instruction();
        Self {
            id: prompt.id,
            sample_index,
            is_completed,
            instruction,
            response,
            res_metadata,
            score,
            expert_logprobs: log_probabilities.as_ref().map(expert),
            amateur_logprobs: log_probabilities.as_ref().and_then(amateur),
            error,
            columns: prompt.columns,
        }
    }

    /// The id of the record.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The record as JSON and a line feed. Equal content gives equal bytes; scores have the fewest digits that read
    /// back as the same `f32`.
    ///
    /// # Errors
    /// [`Error::Device`] if a number is not finite. A sound device computes none, and JSON cannot hold it.
    pub fn to_line(&self) -> Result<Vec<u8>> {
        let expert = self.expert_logprobs.iter().flatten();
        let masked = |l_a: &&f32| **l_a == f32::NEG_INFINITY;
        let amateur = self.amateur_logprobs.iter().flatten().map(|l_a| if masked(&l_a) { 0.0 } else { *l_a });
        self.check_finite("score", self.score.iter().copied())?;
        self.check_finite("expert log-probability", expert.copied())?;
        self.check_finite("amateur log-probability", amateur)?;
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
