//! Runs a chat template, which is a program of the model's publisher.
//!
//! A template sees its variables and the clock, but no files and no environment. Its length, steps, recursion, output
//! and time are limited. It runs on its own thread, whose stack suffices for the other limits. Its memory is not
//! limited: a template that doubles a string again and again exhausts it.

use std::error::Error as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

use super::contain::contain;
use super::jinja::{self, Refusal};

/// The longest template in bytes. The families' templates have a few KiB.
const LONGEST_SOURCE: usize = 256 << 10;
/// Steps of the template engine. A message takes some hundreds.
const MOST_STEPS: u64 = 4_000_000;
/// Bytes that a template may print into its output or into variables.
const LONGEST_OUTPUT: usize = 64 << 20;
/// The longest run, in moments: three seconds, which only a template with an endless step needs. Other endless
/// templates exceed the steps first. (Counted in moments, so that a process that is stopped and continued loses only
/// one.)
const PATIENCE: u32 = 30;
const MOMENT: Duration = Duration::from_millis(100);
/// The stack for the expressions that such a source can nest and for the values that so many steps can nest. Both are
/// handled by recursion.
const STACK: usize = 256 << 20;

const NAME: &str = "template";

/// A compiled template with its limits.
#[derive(Debug)]
pub(super) struct Sandbox {
    environment: Arc<Environment<'static>>,
    /// Whether a render did not end. Its thread cannot be stopped, so no further render may start.
    stuck: AtomicBool,
}

/// The reason why a template returned no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The template refused by `raise_exception`.
    Refused(String),
    /// The template is wrong or exceeds a limit.
    Failed(String),
}

impl Sandbox {
    /// # Errors
    /// [`Failure::Failed`] with the line that does not parse.
    pub(super) fn compile(source: &str) -> Result<Self, Failure> {
        if source.len() > LONGEST_SOURCE {
            return Err(Failure::Failed(format!("it is longer than {} KiB", LONGEST_SOURCE >> 10)));
        }
        let source = source.to_owned();
        let environment = apart(move || environment(&source)).map_err(Stopped::into_failure)??;
        Ok(Self { environment: Arc::new(environment), stuck: AtomicBool::new(false) })
    }

    /// # Errors
    /// If the template fails, refuses, or exceeds a limit.
    pub(super) fn render(&self, variables: Value) -> Result<String, Failure> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err(Failure::Failed("it did not end when it was rendered before".to_owned()));
        }
        let environment = Arc::clone(&self.environment);
        let rendered = apart(move || render(&environment, variables)).map_err(|stopped| {
            if matches!(stopped, Stopped::Late) {
                self.stuck.store(true, Ordering::Relaxed);
            }
            stopped.into_failure()
        })?;
        Ok(rendered?)
    }
}

/// An environment that behaves like that of `transformers` and holds one template.
fn environment(source: &str) -> Result<Environment<'static>, Failure> {
    let source = jinja::translate(source).map_err(Failure::Failed)?;
    let mut environment = jinja::environment()?;
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_formatter(print);
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

fn render(environment: &Environment, variables: Value) -> Result<String, Error> {
    let mut output = Limited(Vec::new());
    environment.get_template(NAME)?.render_captured_to(variables, &mut output)?;
    String::from_utf8(output.0).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// The reason why a thread returned nothing.
enum Stopped {
    Late,
    Panicked(String),
}

impl Stopped {
    fn into_failure(self) -> Failure {
        match self {
            Self::Late => {
                Failure::Failed(format!("it runs away: it takes more than {:?}", MOMENT * PATIENCE))
            }
            Self::Panicked(message) => Failure::Failed(message),
        }
    }
}

fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("template".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // Nobody receives a late result.
            let _ = sender.send(contain(|| Ok::<_, String>(work())));
        })
        .map_err(|error| Stopped::Panicked(format!("it has no thread to run on: {error}")))?;
    for _ in 0..PATIENCE {
        match receiver.recv_timeout(MOMENT) {
            Ok(result) => return result.map_err(Stopped::Panicked),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Stopped::Panicked("its thread died".to_owned()));
            }
        }
    }
    Err(Stopped::Late)
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
        Self::Failed(format!("{line}{}{detail}{cause}", error.kind()))
    }
}

/// Bytes that a render has printed so far.
#[derive(Default)]
struct Printed(usize);

/// Prints a value as Python would. Output into variables also passes here, unlike through [`Limited`].
fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let text = jinja::printed(state, value)?;
    let printed = state.get_or_insert_extension(Printed::default());
    printed.0 += text.len();
    if printed.0 > LONGEST_OUTPUT {
        return Err(Error::new(ErrorKind::WriteFailure, too_much_output()));
    }
    out.write_str(&text).map_err(Error::from)
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

fn too_much_output() -> String {
    format!("it prints more than {} MiB", LONGEST_OUTPUT >> 20)
}
