//! `codit` writes instruction-tuning datasets by contrastive decoding (CoDIT, arXiv 2604.13538): an expert (a
//! post-trained language model) and its amateur (the pre-trained counterpart) decode the same tokens; what both
//! knew from pre-training cancels, what post-training added is amplified.
//!
//! As a library it is an [`Engine`]: load a pair, submit requests, take completions as they finish.
//!
//! ```
//! use codit::{Engine, EngineConfig, Request, device::cpu::Cpu, embedded};
//!
//! # fn main() -> codit::Result<()> {
//! let (expert, amateur) = (embedded::expert(), embedded::amateur());
//! let mut engine = Engine::load(Cpu::new(None)?, &expert, Some(&amateur), &EngineConfig::default())?;
//! for (id, instruction) in [("sum", "What is 3 plus 4?"), ("case", "Write the word river in capital letters.")] {
//!     engine.submit(Request { max_tokens: 64, ..Request::new(id, instruction) })?;
//! }
//! let regretted = engine.submit(Request::new("regretted", "Count to a million."))?;
//! engine.cancel(regretted);
//! for done in &mut engine {
//!     let done = done?;
//!     println!("{} ({:?}): {}", done.id, done.finish, done.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The rooms, ground floor first; each uses only those before it:
//!
//! | module | holds |
//! | --- | --- |
//! | [`error`], [`ids`], [`checkpoint`], [`profile`] | what everything stands on |
//! | [`hub`], [`pairs`] | models by name, fetched; teacher pairs by name |
//! | [`contrast`] | the method's parameters, its noise and its f64 reference |
//! | [`text`] | tokenizer, chat template |
//! | [`dataset`] | input, output records, the crash-safe sink, the manifest |
//! | [`device`] | the operations of a device, and the devices |
//! | [`model`] | a model's shape, weights and forward pass |
//! | [`engine`] | requests, blocks, the scheduler, the pair, the step loop |
//! | [`doctor`] | whether a device computes what the CPU does |
//! | [`bench`] | how fast a device decodes a pair |

pub mod bench;
pub mod checkpoint;
pub mod contrast;
pub mod dataset;
pub mod device;
pub mod doctor;
pub mod embedded;
pub mod engine;
pub mod error;
#[cfg(feature = "hub")]
pub mod hub;
pub mod ids;
pub mod model;
pub mod pairs;
pub mod profile;
pub mod text;

pub use checkpoint::Checkpoint;
pub use contrast::Contrast;
pub use engine::{Completion, Engine, EngineConfig, Finish, Preparer, Prompt, Replicas, Request, Stats};
pub use error::{Error, Result};

/// The Rust examples of the guide, which run as tests.
#[cfg(all(doctest, feature = "hub"))]
#[doc = include_str!("../docs/guide/library.md")]
mod guide {}
