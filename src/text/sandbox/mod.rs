//! Runs a chat template, which is a program of the model's publisher.
//!
//! A template sees its variables and the clock, but no files and no environment. Its length, steps, recursion, output,
//! memory and time are limited. It runs on its own [thread], whose stack suffices for the other limits.

mod constants;
mod growth;
mod guards;
mod meter;
mod namespace;
mod program;
mod thread;

use std::error::Error as _;
use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use serde_json::{Map, Value as Json};

use super::contain::contain;
use super::python;
use crate::error::excerpt;
use program::Program;
use thread::{Job, Served, TemplateThread};

/// The longest template in bytes. The families' templates have a few KiB.
pub(super) const LONGEST_SOURCE: usize = 256 << 10;
/// Steps of the template engine, guards included. A message takes some hundreds.
const MOST_STEPS: u64 = 3_000_000;

/// A compiled template with its limits.
#[derive(Debug)]
pub(super) struct Sandbox {
    thread: TemplateThread,
    /// All text that the template holds, in pieces separated by NUL.
    literals: String,
}

/// The reason why a template returned no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The template refused by `raise_exception`.
    Refused(String),
    /// The template is wrong or exceeds a limit.
    Failed(String),
    /// The template could not run, which is not its fault.
    Unavailable(String),
}

impl Sandbox {
    /// # Errors
    /// [`Failure::Failed`] with the line that does not parse; [`Failure::Unavailable`] if the system refuses a thread.
    pub(super) fn compile(source: &str) -> Result<Self, Failure> {
        if source.len() > LONGEST_SOURCE {
            return Err(Failure::Failed(too_long()));
        }
        let (thread, literals) = TemplateThread::start(without_generation_tags(source))?;
        Ok(Self { thread, literals })
    }

    /// # Errors
    /// If the template fails, refuses, or exceeds a limit; [`Failure::Unavailable`] if the system refuses a thread.
    pub(super) fn render(&self, variables: Map<String, Json>) -> Result<String, Failure> {
        self.thread.render(variables)
    }

    /// All text that the template holds: what it prints and the constants of its expressions, in pieces separated by NUL.
    pub(super) fn literals(&self) -> &str {
        &self.literals
    }
}

/// Says that a template exceeds [`LONGEST_SOURCE`].
pub(super) fn too_long() -> String {
    format!("it is longer than {} KiB", LONGEST_SOURCE >> 10)
}

/// Compiles a template and renders it until no more is asked for.
fn serve(served: Served) {
    let Served { source, jobs, compiled, cancelled } = served;
    let environment = match environment() {
        Ok(environment) => environment,
        Err(error) => return drop(compiled.send(Err(error.into()))),
    };
    let program = match contained(|| Program::compile(&source, &environment)) {
        Ok(program) => program,
        Err(failure) => return drop(compiled.send(Err(failure))),
    };
    // Nobody may wait for what this thread sends any more, so what cannot be sent is dropped.
    drop(compiled.send(Ok(program.literals().to_owned())));
    for Job { variables, answer } in jobs {
        meter::begin(cancelled.clone());
        let rendered = contained(|| program.run(&environment, Serde(variables).into()));
        let ended = contained(meter::end);
        drop(answer.send(rendered.and_then(|text| ended.map(|()| text))));
    }
}

fn contained<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    contain(work).map_err(Failure::Failed)?.map_err(Failure::from)
}

/// An environment that behaves like that of `transformers`.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_debug(false);
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_formatter(print);
    environment.add_function("raise_exception", raise_exception);
    python::install(&mut environment);
    guards::install(&mut environment);
    Ok(environment)
}

/// `{% generation %}` marks the model's text, for training. Its text is rendered in a scope.
fn without_generation_tags(source: &str) -> String {
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
    plain
}

/// A template's own refusal, as the source of an engine's error.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn raise_exception(message: &Value) -> Result<String, Error> {
    meter::weigh(std::slice::from_ref(message))?;
    let refusal = Refusal(excerpt(&python::text(message)).into_owned());
    Err(Error::new(ErrorKind::InvalidOperation, refusal.0.clone()).with_source(refusal))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut root: &(dyn std::error::Error + 'static) = &error;
        while let Some(cause) = root.source() {
            root = cause;
        }
        if let Some(Refusal(message)) = root.downcast_ref() {
            return Self::Refused(message.clone());
        }
        if error.kind() == ErrorKind::OutOfFuel {
            return Self::Failed(format!("it runs away: it takes more than {MOST_STEPS} steps"));
        }
        let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
        let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
        let cause = error.source().map_or_else(String::new, |_| format!(": {root}"));
        Self::Failed(excerpt(&format!("{line}{}{detail}{cause}", error.kind())).into_owned())
    }
}

/// Prints a value as Python would. Output into variables also passes here.
fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    meter::weigh(std::slice::from_ref(value))?;
    let text = python::text(value);
    meter::print(text.len())?;
    out.write_str(&text).map_err(Error::from)
}
