//! How an input is read and how its rows become prompts: one way for every command that reads one.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::ui::words::count;
use codit::dataset::{Body, FinalAnswer, Input, InputOptions, Manifest, check_unambiguous};
use codit::engine::Prompt;
use codit::error::{Error, Result};
use codit::pairs::PairPreset;
use codit::text::{CLOCK, ChatTemplate, Conversation, Text, clock};

/// How many conversations are rendered before a run, to find a template that refuses them all.
const TRIED: usize = 8;

#[derive(clap::Args, Clone, Default)]
#[command(next_help_heading = "Prompts")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Prompting {
    /// Takes the first N rows of the input; the same command with a larger N, or without, goes on with the output
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Records each invalid line of the input as an error and goes on, where the input would be refused otherwise
    #[arg(long)]
    skip_invalid: bool,
    /// Variables for the chat template, a JSON object such as '{"enable_thinking":false}', in addition to the pair's
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    chat_template_kwargs: Option<Map<String, Value>>,
    /// A system message for conversations that have none
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Continues a conversation's last turn if it is the assistant's; the response is the continuation
    #[arg(long, conflicts_with = "drop_final_answer")]
    continue_final_message: bool,
    /// Leaves out a conversation's last turn if it is the assistant's, and answers the turn before it anew
    #[arg(long)]
    drop_final_answer: bool,
    /// Reads control tokens that a conversation's text contains as plain text, as transformers does on request
    #[arg(long)]
    pub sanitize_control_tokens: bool,
}

fn json_object(text: &str) -> std::result::Result<Map<String, Value>, String> {
    let object = serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    check_unambiguous(text)?;
    Ok(object)
}

impl Prompting {
    /// Opens the input and says how its columns are understood where that may surprise.
    ///
    /// # Errors
    /// Those of [`Input::open_with`].
    pub fn open(&self, path: &Path) -> Result<Input> {
        let final_answer = match (self.continue_final_message, self.drop_final_answer) {
            (true, _) => FinalAnswer::Continued,
            (_, true) => FinalAnswer::Dropped,
            _ => FinalAnswer::Refused,
        };
        let limit = self.limit.map(|limit| limit as usize);
        let options = InputOptions { limit, skip_invalid: self.skip_invalid, final_answer };
        let input = Input::open_with(path, &options)?;
        for remark in input.remarks() {
            message!("{}: {remark}", path.display());
        }
        let invalid = (0..input.len()).filter(|row| !input.is_prompt(*row)).count();
        if invalid > 0 {
            let lines = if invalid == 1 { "line" } else { "lines" };
            message!(
                "{}: {invalid} invalid {lines}, each with an error in place of a prompt",
                path.display()
            );
        }
        Ok(input)
    }

    /// The prompt of a row.
    pub fn prompt(&self, body: Body) -> Prompt {
        match body {
            Body::Text(text) => Prompt::Text(text),
            Body::Chat(conversation) => Prompt::Chat(self.conversation(conversation)),
            Body::Invalid(message) => Prompt::Refused(message),
        }
    }

    fn conversation(&self, conversation: Conversation) -> Conversation {
        match &self.system {
            Some(text) => conversation.with_system(text),
            None => conversation,
        }
    }

    /// What the pair and the user give the template; a template that writes the date is given the moment at which the
    /// run began, so that it writes the same when the run is resumed.
    pub fn template_variables(
        &self,
        pair: Option<&PairPreset>,
        text: &Text,
        earlier: Option<&Manifest>,
    ) -> Map<String, Value> {
        let mut variables = pair.map(PairPreset::template_variables).unwrap_or_default();
        variables.extend(self.chat_template_kwargs.clone().unwrap_or_default());
        if text.template().is_some_and(ChatTemplate::tells_time) && !variables.contains_key(CLOCK) {
            let began = earlier.map(|manifest| manifest.settings["chat_template_kwargs"][CLOCK].clone());
            let began = began.filter(Value::is_string).unwrap_or_else(|| json!(clock()));
            variables.insert(CLOCK.to_owned(), began);
        }
        variables
    }

    /// Renders the first conversations by `render`, so that a template that cannot work is refused before days of work.
    ///
    /// # Errors
    /// If all of them fail for the same reason, unless such rows are to be skipped. Other failures are those of single
    /// rows and go into their records.
    pub fn try_template<T>(
        &self,
        input: &Input,
        mut render: impl FnMut(&Conversation) -> Result<T>,
    ) -> Result<()> {
        let mut refusal: Option<Error> = None;
        let mut tried = 0;
        for row in (0..input.len()).filter(|row| input.is_prompt(*row)) {
            let Body::Chat(conversation) = input.read(row)?.body else { continue };
            match (render(&self.conversation(conversation)), &refusal) {
                (Ok(_), _) => return Ok(()),
                (Err(error), Some(earlier)) if error.to_string() != earlier.to_string() => return Ok(()),
                (Err(error), _) => refusal = Some(error),
            }
            tried += 1;
            if tried == TRIED {
                break;
            }
        }
        match refusal {
            Some(error) if !self.skip_invalid => Err(Error::Request(format!(
                "{error}; each of the first {} of {} fails so: mend the template or the rows, or give \
                 --skip-invalid, which records each as an error and goes on",
                count(tried, "conversation"),
                input.path().display()
            ))),
            _ => Ok(()),
        }
    }

    /// Adds to a manifest's settings what prompts depend on. What is not asked for is null: a run of a version that did
    /// not know it goes on.
    pub fn add_settings(&self, settings: &mut Value) {
        settings["system"] = json!(self.system);
        settings["continue_final_message"] = json!(self.continue_final_message.then_some(true));
        settings["drop_final_answer"] = json!(self.drop_final_answer.then_some(true));
        settings["sanitize_control_tokens"] = json!(self.sanitize_control_tokens.then_some(true));
    }
}
