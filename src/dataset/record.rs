//! One line of the output.

use serde::{Deserialize, Serialize};

use super::prompt::{Body, Columns, Id, Prompt};
use crate::error::{Error, Result};

/// The columns that the output defines and no input may hold. (`id` and `instruction` are taken from the input.)
pub(super) const COLUMNS: [&str; 6] =
    ["sample_index", "is_completed", "response", "res_metadata", "score", "error"];

/// How a record was made. Field names and order are those of the method's own datasets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Of the final softmax.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Most tokens of a response.
    pub max_tokens: usize,
    /// Whether the amateur had a say; false when the expert runs alone.
    pub contrastive_decoding: bool,
    /// Plausibility constraint.
    pub alpha: f64,
    /// Weight of the amateur.
    pub beta: f64,
    /// The expert's checkpoint.
    pub expert_model_id: String,
    /// The amateur's checkpoint; none when the expert runs alone.
    pub amateur_model_id: Option<String>,
}

/// What became of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// The text.
        response: String,
        /// One a generated token.
        score: Vec<f32>,
        /// Whether the model stopped by itself rather than at a limit.
        is_completed: bool,
    },
    /// It could not be answered, and why.
    Failed(String),
}

/// One line of the output.
///
/// A `prompt` row's instruction is the prompt, a `messages` row's is the last turn; `prompt` and `messages`
/// themselves pass through with the columns of the input that mean nothing to this program.
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
    error: Option<String>,
    #[serde(flatten)]
    columns: Columns,
}

impl Record {
    /// The record of `prompt`. `sample_index` tells the records of one prompt apart and is `None` in a run of one
    /// sample a prompt, whose records then lack the column.
    pub fn new(prompt: Prompt, sample_index: Option<u32>, res_metadata: Metadata, outcome: Outcome) -> Self {
        let (response, score, is_completed, error) = match outcome {
            Outcome::Answered { response, score, is_completed } => (response, score, is_completed, None),
            Outcome::Failed(error) => (String::new(), Vec::new(), false, Some(error)),
        };
        let instruction = match prompt.body {
            Body::Instruction(text) | Body::Text(text) => text,
            Body::Messages(mut messages) => messages.pop().map_or_else(String::new, |last| last.content),
        };
        Self {
            id: prompt.id,
            sample_index,
            is_completed,
            instruction,
            response,
            res_metadata,
            score,
            error,
            columns: prompt.columns,
        }
    }

    /// What the record is called.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The record as JSON and a line feed: the same bytes for the same content, scores in the fewest digits that
    /// read back as the same `f32`.
    ///
    /// # Errors
    /// [`Error::Device`] if a score is not finite, which JSON cannot say and no sound device computes.
    pub fn to_line(&self) -> Result<Vec<u8>> {
        if let Some((token, score)) = self.score.iter().enumerate().find(|(_, score)| !score.is_finite()) {
            return Err(Error::Device(format!(
                "record {:?}: token {token} has score {score}",
                self.id.key()
            )));
        }
        let mut line = serde_json::to_vec(self)
            .map_err(|error| Error::Device(format!("record {:?}: {error}", self.id.key())))?;
        line.push(b'\n');
        Ok(line)
    }
}
