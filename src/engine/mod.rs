//! Decodes requests with a pair of models, many at once.
//!
//! ```text
//! Request ─► Sequence ─► Scheduler::plan ─► Pair::submit (expert ∥ amateur, contrast_sample)
//!                        Scheduler::commit ◄─ Pair::collect
//!            Sequence ─► Completion
//! ```
//!
//! [`Engine`] turns requests into sequences of token ids and ended sequences into completions. `StepLoop` runs the steps in
//! between. A device with a queue of its own runs one step while the host plans the next and takes in the results of the one
//! before.

mod any;
mod config;
#[allow(clippy::module_inception, reason = "the file holds the engine")]
mod engine;
#[doc(hidden)] // For the program's `plan`.
pub mod footprint;
#[doc(hidden)] // For the tests, as are those below.
pub mod kv_cache;
mod pair;
mod preparer;
mod replicas;
mod request;
#[doc(hidden)]
pub mod scheduler;
#[doc(hidden)]
pub mod sequence;
#[doc(hidden)]
pub mod step;
#[doc(hidden)]
pub mod step_loop;
mod stop_text;

pub use any::{AnyEngine, DeviceChoice};
pub use config::{Deferred, EngineConfig, PairConfig, SchedulerConfig, Shortcuts, Windows};
pub use engine::Engine;
pub use pair::source::Model;
pub use preparer::Preparer;
pub use replicas::{Replicas, Stepped};
pub use request::{Completion, Finish, Prompt, Request};
pub use step_loop::Stats;
