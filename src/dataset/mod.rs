//! Instructions in, records out: input formats, output records, the crash-safe sink, resume, the run manifest.
//!
//! An [`Input`] is checked as a whole before any work and gives its [`Prompt`]s again one at a time; a finished
//! prompt becomes a [`Record`], which the [`Sink`] writes as one line. A run that was killed is resumed by running
//! it again: [`Sink::open`] compares its [`Manifest`] with the one beside the output, cuts off a torn last line and
//! returns what is [`Done`].

mod input;
mod lines;
mod manifest;
mod prompt;
mod record;
mod resume;
mod writer;

pub use input::{Input, MAX_LINE};
pub use manifest::{InputMark, Manifest, ModelMark};
pub use prompt::{Body, Columns, Id, Prompt};
pub use record::{Metadata, Outcome, Record};
pub use resume::{Done, Recovery};
pub use writer::Sink;
