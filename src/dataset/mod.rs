//! Instructions in, records out: input formats, output records, the crash-safe sink, resume, the run manifest.
//!
//! An [`Input`] is checked as a whole before any work and gives its [`InputRow`]s again one at a time; a finished
//! prompt becomes a [`Record`], which the [`Sink`] writes as one line. A run that was killed is resumed by running
//! it again: [`Sink::open`] compares its [`Manifest`] with the one beside the output, cuts off a torn last line and
//! returns what is [`Done`].

mod columns;
mod faults;
mod file_kind;
mod id;
mod input;
mod lines;
mod manifest;
mod messages;
mod output_name;
mod prompt;
mod record;
mod remarks;
mod repetition;
mod replacement;
mod resume;
mod schema;
mod stats;
mod writer;

pub use columns::check_unambiguous;
pub use id::Id;
pub use input::{Input, InputOptions, MAX_LINE};
pub use manifest::{InputFingerprint, Manifest, ModelFingerprint};
pub use messages::FinalAnswer;
pub use prompt::{Body, Columns, InputRow};
pub use record::{FinishReason, MAX_RECORD, Metadata, Outcome, Record};
pub use repetition::is_repetitive;
pub use resume::{Done, Recovery};
pub use stats::{Statistics, Summary};
pub use writer::Sink;
