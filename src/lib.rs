//! `codit` writes responses to instructions by *contrastive decoding* of two language models (CoDIT, arXiv 2604.13538).
//!
//! The *expert* is a post-trained model, such as an instruct or chat model. The *amateur* is the pre-trained model that the
//! expert was made from. Both read the same tokens. Among the tokens that the expert finds plausible, the next one is drawn by
//! the difference of the two models' log-probabilities: knowledge that both have cancels, and what post-training added is
//! amplified. The responses make better training data for instruction tuning than those of the expert alone.
//!
//! The crate is the engine of the program `codit`, for use within other programs. It decodes many requests at once with
//! continuous batching, a paged KV cache and prefix sharing, on a CPU or on NVIDIA GPUs.
//!
//! # Example
//!
//! A small pair of models is built in, so this runs as it stands:
//!
//! ```
//! use codit::{AnyEngine, DeviceChoice, EngineConfig, Finish, Request, embedded};
//!
//! # fn main() -> codit::Result<()> {
//! let (expert, amateur) = (embedded::expert(), embedded::amateur());
//! let config = EngineConfig::default();
//! let mut engine = AnyEngine::load(DeviceChoice::Auto, &expert, Some(&amateur), &config)?;
//!
//! for (id, instruction) in [("sum", "What is 3 plus 4?"), ("case", "Write the word river in capital letters.")] {
//!     engine.submit(Request { max_tokens: 64, ..Request::new(id, instruction) })?;
//! }
//! for completion in &mut engine {
//!     let completion = completion?;
//!     match completion.finish {
//!         Finish::Failed(error) => eprintln!("{}: {error}", completion.id),
//!         _ => println!("{}: {}", completion.id, completion.text),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The iterator runs steps until a request finishes. Requests may be submitted at any time, also between completions. A
//! caller that wants control over the single step, such as a server, calls [`Engine::step`] and [`Engine::finished`].
//!
//! # Choosing a device
//!
//! [`AnyEngine`] takes the device as a value, a [`DeviceChoice`]. [`Engine`] takes it as a type, any [`device::Device`]:
//!
//! ```no_run
//! use codit::device::{cpu::Cpu, cuda::Gpu, gpu::GpuConfig};
//! use codit::{Engine, EngineConfig, embedded};
//!
//! # fn main() -> codit::Result<()> {
//! let (expert, amateur) = (embedded::expert(), embedded::amateur());
//! let config = EngineConfig::default();
//! let on_cpu = Engine::load(Cpu::new(None)?, &expert, Some(&amateur), &config)?;
//! let on_gpu = Engine::load(Gpu::cuda([0, 0], GpuConfig::default())?, &expert, Some(&amateur), &config)?;
//! # Ok(())
//! # }
//! ```
//!
//! GPU kernels are built in if nvcc is found when the crate is compiled; without them, opening a GPU is an error that says so.
//! [`Replicas`] spreads requests over several devices.
//!
//! # Your own pair
//!
//! A model is a [`Checkpoint`]: a folder in the format of Hugging Face, with `config.json`, `tokenizer.json` and weights in
//! safetensors files. Both models must have the same vocabulary. The families Llama, Qwen2, Qwen3, Gemma 3 and OLMo 2
//! and 3 are supported. [`pairs`] lists pairs that belong together.
//!
//! ```no_run
//! # fn main() -> codit::Result<()> {
//! use codit::Checkpoint;
//!
//! let expert = Checkpoint::open("models/Qwen3-8B")?;
//! let amateur = Checkpoint::open("models/Qwen3-8B-Base")?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `hub`, `hub::Hub` fetches models by name into the cache that Python's `huggingface_hub` uses.
//!
//! # Sampling settings
//!
//! [`Request::contrast`] holds the parameters of the method and of sampling: see [`Contrast`]. `alpha` bounds the plausible
//! set, `beta` weighs the amateur; `beta: 0.0` runs the expert alone, which needs no amateur. The other settings (length,
//! seed, log-probabilities) are fields of [`Request`].
//!
//! A response depends on its request alone: on the prompt, the settings, the seed, the request's id and its
//! [`sample`](Request::sample) number. It does not depend on the requests beside it. (On a GPU, the last bits of the logits
//! depend on the batch unless [`GpuConfig::is_deterministic`](device::gpu::GpuConfig::is_deterministic) is set.)
//!
//! # Cancelling
//!
//! [`Engine::submit`] returns the id of a sequence, which [`Engine::cancel`] takes. The request then completes with
//! [`Finish::Cancelled`], without text.
//!
//! ```
//! # use codit::{AnyEngine, DeviceChoice, EngineConfig, Finish, Request, embedded};
//! # fn main() -> codit::Result<()> {
//! # let (expert, amateur) = (embedded::expert(), embedded::amateur());
//! # let config = EngineConfig::default();
//! # let mut engine = AnyEngine::load(DeviceChoice::Auto, &expert, Some(&amateur), &config)?;
//! let sequence = engine.submit(Request::new("long", "Count to a million."))?;
//! engine.cancel(sequence);
//! let completion = engine.next().expect("a cancelled request completes too")?;
//! assert!(matches!(completion.finish, Finish::Cancelled));
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Every fallible function returns [`Result`], whose [`Error`] names the file, line or setting at fault and the remedy. A
//! request that cannot be served (its prompt is too long, or the chat template refuses it) is refused by [`Engine::submit`];
//! the engine stays as it was. A row of logits that is not finite ends its request alone, with [`Finish::Failed`]. After an
//! error of [`Engine::step`] the engine must not be used any more: the device has failed.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `cli` | yes | the program `codit`; the library does not need it |
//! | `hub` | yes | the module `hub`: models by name, fetched from the Hugging Face Hub |
//!
//! An embedder depends on the crate with `default-features = false`, and adds `hub` to fetch models by name.
//!
//! # Modules
//!
//! Each uses only those above it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`error`], [`ids`] | the error type; token and sequence ids |
//! | [`checkpoint`], [`embedded`] | the files of a model; the pair that is built in |
//! | `hub`, [`pairs`] | models by name; pairs by name |
//! | [`contrast`] | the method: its parameters, its noise, and the f64 reference that devices are tested against |
//! | [`text`] | tokenizer and chat template |
//! | [`dataset`] | input rows and output records, written so that a run that was killed resumes exactly |
//! | [`device`] | the operations of a device, and the devices |
//! | [`engine`] | requests and completions, the scheduler, the step loop |

#[doc(hidden)] // For the program's `bench`.
pub mod bench;
pub mod checkpoint;
pub mod contrast;
pub mod dataset;
pub mod device;
#[doc(hidden)] // For the program's `doctor`, and for the tests.
pub mod doctor;
pub mod embedded;
pub mod engine;
pub mod error;
#[cfg(feature = "hub")]
pub mod hub;
pub mod ids;
pub mod mapped_file;
#[doc(hidden)] // For the program and the tests: what the engine makes of a checkpoint.
pub mod model;
pub mod pairs;
#[doc(hidden)] // For the program: it marks its own ranges.
pub mod profile;
#[doc(hidden)] // For the program and the fuzzers.
pub mod python_json;
pub mod text;

pub use checkpoint::Checkpoint;
pub use contrast::Contrast;
pub use engine::{
    AnyEngine, Completion, DeviceChoice, Engine, EngineConfig, Finish, Preparer, Prompt, Replicas, Request,
    Stats,
};
pub use error::{Error, Result};

/// The Rust examples of the guide, which run as tests.
#[cfg(all(doctest, feature = "hub"))]
#[doc = include_str!("../docs/guide/library.md")]
mod guide {}
