//! Runs a chat template, which is a program of the model's publisher.
//!
//! A template sees its variables and the clock, but no files and no environment. Its length, steps, recursion, output,
//! memory and time are limited. It runs on its own [thread], whose stack suffices for the other limits.

mod failure;
mod thread;

use minijinja::{Environment, Error, Output, State, Value};
use serde_json::{Map, Value as Json};

use super::contain::contain;
use super::jinja::{self, meter};
use crate::error::excerpt;
pub(super) use failure::Failure;
use failure::MOST_STEPS;
use thread::{Job, Served, TemplateThread};

/// The longest template in bytes. The families' templates have a few KiB.
pub(super) const LONGEST_SOURCE: usize = 256 << 10;

const NAME: &str = "template";

/// A compiled template with its limits.
#[derive(Debug)]
pub(super) struct Sandbox {
    thread: TemplateThread,
}

impl Sandbox {
    /// # Errors
    /// [`Failure::Failed`] with the line that does not parse; [`Failure::Unavailable`] if the system refuses a thread.
    pub(super) fn compile(source: &str) -> Result<Self, Failure> {
        if source.len() > LONGEST_SOURCE {
            return Err(Failure::Failed(too_long()));
        }
        Ok(Self { thread: TemplateThread::start(source.to_owned(), serve)? })
    }

    /// # Errors
    /// If the template fails, refuses, or exceeds a limit; [`Failure::Unavailable`] if the system refuses a thread.
    pub(super) fn render(&self, variables: Map<String, Json>) -> Result<String, Failure> {
        self.thread.render(variables)
    }

    /// The template's source.
    pub(super) fn source(&self) -> &str {
        self.thread.source()
    }
}

/// Says that a template exceeds [`LONGEST_SOURCE`].
pub(super) fn too_long() -> String {
    format!("it is longer than {} KiB", LONGEST_SOURCE >> 10)
}

/// Compiles a template and renders it until no more is asked for.
fn serve(served: Served) {
    let Served { source, jobs, compiled, cancelled } = served;
    let environment = match contained(|| environment(&source)) {
        Ok(environment) => environment,
        // Nobody may wait for what this thread sends any more, so what cannot be sent is dropped.
        Err(failure) => return drop(compiled.send(Err(failure))),
    };
    drop(compiled.send(Ok(())));
    for Job { variables, answer } in jobs {
        meter::begin(cancelled.clone());
        let rendered = contained(|| {
            let variables = jinja::variables(&variables);
            Ok(environment.get_template(NAME)?.render(variables)?)
        });
        let ended = contained(|| {
            meter::end();
            Ok(())
        });
        drop(answer.send(rendered.and_then(|text| ended.map(|()| text))));
    }
}

fn contained<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    contain(work).map_err(Failure::Failed)?
}

/// An environment that behaves like that of `transformers` and holds one template.
fn environment(source: &str) -> Result<Environment<'static>, Failure> {
    let source =
        jinja::translate(source).map_err(|message| Failure::Failed(excerpt(&message).into_owned()))?;
    let mut environment = jinja::environment()?;
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_formatter(print);
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// Prints a value as Python would. Output into variables also passes here.
fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let text = jinja::printed(state, value)?;
    meter::print(text.len())?;
    out.write_str(&text).map_err(Error::from)
}
