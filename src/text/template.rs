//! The chat template of a checkpoint, rendered as `transformers` renders it.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Output, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{CONFIG_FILE, TokenizerConfig};
use super::{contain, python};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

const TEMPLATE_FILE: &str = "chat_template.jinja";

/// Steps of the template engine; a long conversation takes some thousands.
const MOST_STEPS: u64 = 2_000_000;
/// Bytes that a template may print, into the prompt or into variables of its own.
const LONGEST_OUTPUT: usize = 64 << 20;
/// Enough for values that the permitted steps can nest, which are dropped and printed by recursion.
const STACK: usize = 512 << 20;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A chat template. Cheap to clone, safe to share between threads.
///
/// A template is a program of whoever published the model. It sees the conversation and the clock, and nothing
/// else: no files, no environment. Its steps, its recursion and its output are limited, so that one that does not
/// end is an error; its memory is not, and one that doubles a string forever exhausts it.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    environment: Environment<'static>,
    /// `bos_token` and the like.
    special_tokens: Map<String, Value>,
    tells_time: bool,
}

impl ChatTemplate {
    /// The template of a checkpoint: chat_template.jinja, or else `chat_template` in tokenizer_config.json, where the
    /// one named `default` is taken if there are several. `None` if the checkpoint has no template.
    ///
    /// # Errors
    /// [`Error::File`] if the template does not parse, naming its line, or tokenizer_config.json is not what it should.
    pub fn load(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let config = TokenizerConfig::load(checkpoint)?;
        let Some((path, source)) = find(checkpoint, &config)? else { return Ok(None) };
        let environment = contain(|| Ok::<_, String>(compile(&source)))
            .map_err(|message| Error::file(&path, message))?
            .map_err(|error| syntax_error(&path, &error))?;
        let special_tokens =
            config.named_tokens.into_iter().map(|(name, token)| (name.to_owned(), token.into())).collect();
        let tells_time = source.contains("strftime_now");
        Ok(Some(Self { shared: Arc::new(Shared { environment, special_tokens, tells_time }) }))
    }

    /// Whether the template may write today's date. A run that must be repeatable gives the date itself, by the
    /// variable that the template reads (Llama 3: `date_string`).
    pub fn tells_time(&self) -> bool {
        self.shared.tells_time
    }

    /// The text of a conversation, up to where the assistant speaks next. `messages` are [`Message`]s or whatever
    /// else serializes to objects that the template understands; `kwargs` are its further variables, such as
    /// `enable_thinking`.
    ///
    /// # Errors
    /// [`Error::Request`] with the template's own words if it refuses the conversation, or with the line at which it
    /// fails or exceeds a limit.
    pub fn render(&self, messages: &[impl Serialize], kwargs: &Map<String, Value>) -> Result<String> {
        let variables = self.variables(messages, kwargs)?;
        let rendered = on_a_deep_stack(|| contain(|| Ok::<_, String>(self.run(variables))))?;
        match rendered {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(render_error(&error)),
            Err(message) => Err(Error::Request(format!("the chat template fails: {message}"))),
        }
    }

    fn variables(
        &self,
        messages: &[impl Serialize],
        kwargs: &Map<String, Value>,
    ) -> Result<Map<String, Value>> {
        let mut messages = serde_json::to_value(messages).map_err(|error| {
            Error::Request(format!("the conversation cannot be written as JSON: {error}"))
        })?;
        messages.as_array_mut().into_iter().flatten().for_each(name_reasoning);
        let mut variables = self.shared.special_tokens.clone();
        variables.extend([
            ("messages".to_owned(), messages),
            ("tools".to_owned(), Value::Null),
            ("documents".to_owned(), Value::Null),
            ("add_generation_prompt".to_owned(), json!(true)),
        ]);
        variables.extend(kwargs.clone());
        Ok(variables)
    }

    fn run(&self, variables: Map<String, Value>) -> std::result::Result<String, minijinja::Error> {
        let template = self.shared.environment.get_template(TEMPLATE_FILE)?;
        let mut text = Limited(Vec::new());
        template.render_captured_to(Serde(variables), &mut text)?;
        String::from_utf8(text.0)
            .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))
    }
}

/// The template's source and the file that holds it.
fn find(checkpoint: &Checkpoint, config: &TokenizerConfig) -> Result<Option<(PathBuf, String)>> {
    if let Some(bytes) = checkpoint.find(TEMPLATE_FILE)? {
        let path = checkpoint.path(TEMPLATE_FILE);
        return match std::str::from_utf8(&bytes) {
            Ok(source) => Ok(Some((path, source.to_owned()))),
            Err(error) => Err(Error::file(path, format!("not UTF-8: {error}"))),
        };
    }
    let Some(entry) = &config.chat_template else { return Ok(None) };
    let default = match entry {
        Value::Array(templates) => templates
            .iter()
            .find(|template| template["name"] == "default")
            .map(|template| &template["template"]),
        entry => Some(entry),
    };
    let path = checkpoint.path(CONFIG_FILE);
    match default.and_then(Value::as_str) {
        Some(source) => Ok(Some((path, source.to_owned()))),
        None => Err(Error::file(
            path,
            "chat_template is neither a template nor a list with one named \"default\"",
        )),
    }
}

/// An environment that behaves as that of `transformers` and holds one template.
fn compile(source: &str) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_formatter(print);
    environment.add_function("raise_exception", raise_exception);
    python::install(&mut environment);
    environment.add_template_owned(TEMPLATE_FILE, without_generation_tags(source).into_owned())?;
    Ok(environment)
}

/// `{% generation %}` marks what a model wrote, for training; the text is that of a scope.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut parts = source.split("{%");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str("{%");
        let inside = part.trim_start_matches(['-', '+']).trim_start();
        let tag = [("generation", "with"), ("endgeneration", "endwith")].into_iter().find(|(tag, _)| {
            let after = inside.strip_prefix(tag).map(|rest| rest.trim_start().trim_start_matches(['-', '+']));
            after.is_some_and(|rest| rest.starts_with("%}"))
        });
        match tag {
            Some((tag, replacement)) => {
                plain.push_str(&part[..part.len() - inside.len()]);
                plain.push_str(replacement);
                plain.push_str(&inside[tag.len()..]);
            }
            None => plain.push_str(part),
        }
    }
    Cow::Owned(plain)
}

/// A message's reasoning has had several names; templates of all ages find theirs, as in `transformers`.
fn name_reasoning(message: &mut Value) {
    let Value::Object(message) = message else { return };
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning =
        names.iter().filter_map(|name| message.get(*name)).find(|reasoning| !reasoning.is_null()).cloned();
    if let Some(reasoning) = reasoning {
        message.entry("thinking").or_insert_with(|| reasoning.clone());
        message.insert("reasoning_content".to_owned(), reasoning);
    }
}

/// Values that a template nests and functions that it calls go as deep as its steps allow, which the stack of the
/// calling thread need not bear.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let refused =
        |reason: String| Error::Request(format!("the chat template has no thread to run in: {reason}"));
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| refused(error.to_string()))?;
        thread.join().map_err(|_| refused("it panicked".to_owned()))
    })
}

/// A template's own refusal, told apart from its failures.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

#[allow(clippy::needless_pass_by_value)] // the signature of a template function
fn raise_exception(message: minijinja::Value) -> std::result::Result<String, minijinja::Error> {
    let refusal = Refusal(message.to_string());
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, refusal.0.clone()).with_source(refusal))
}

/// Bytes that a render has printed so far, into its output or into variables.
#[derive(Default)]
struct Printed(usize);

fn print(
    out: &mut Output,
    state: &mut State,
    value: &minijinja::Value,
) -> std::result::Result<(), minijinja::Error> {
    let text = value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
    let printed = state.get_or_insert_extension(Printed::default());
    printed.0 += text.len();
    if printed.0 > LONGEST_OUTPUT {
        return Err(minijinja::Error::new(ErrorKind::WriteFailure, too_much_output()));
    }
    out.write_str(&text).map_err(minijinja::Error::from)
}

fn too_much_output() -> String {
    format!("it prints more than {} MiB", LONGEST_OUTPUT >> 20)
}

struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_OUTPUT {
            return Err(io::Error::other(too_much_output()));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn syntax_error(path: &Path, error: &minijinja::Error) -> Error {
    Error::file(path, format!("the chat template does not parse{}: {}", at_line(error), reason(error)))
}

fn render_error(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Refusal(message)) = inner.downcast_ref() {
            return Error::Request(format!("the chat template refuses the conversation: {message}"));
        }
        cause = inner.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::Request(format!("the chat template runs away: it takes more than {MOST_STEPS} steps"));
    }
    Error::Request(format!("the chat template fails{}: {}", at_line(error), reason(error)))
}

fn at_line(error: &minijinja::Error) -> String {
    error.line().map_or_else(String::new, |line| format!(" at line {line}"))
}

fn reason(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}
