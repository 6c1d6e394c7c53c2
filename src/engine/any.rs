//! An engine whose device is chosen at run time.

use serde_json::{Map, Value};

use super::{Completion, Engine, EngineConfig, Preparer, Request, Stats, Windows};
use crate::checkpoint::Checkpoint;
use crate::device::cpu::Cpu;
use crate::device::cuda::Gpu;
use crate::device::gpu::GpuConfig;
use crate::device::{Device, DeviceInfo};
use crate::error::Result;
use crate::ids::{SeqId, TokenId};
use crate::text::{Conversation, Text};

/// The device of an [`AnyEngine`].
#[derive(Debug, Clone, Copy, Default)]
pub enum DeviceChoice {
    /// The first GPU if there is one and the crate was built with kernels; otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu {
        /// Number of threads; by default one for each core.
        threads: Option<usize>,
    },
    /// One GPU, or two if the pair is split over them.
    Cuda {
        /// Numbers of the expert's and the amateur's GPU, which may be the same.
        gpus: [usize; 2],
        /// Number formats and memory.
        config: GpuConfig,
    },
}

/// An [`Engine`] without the device in its type, so that a program can choose the device at run time.
///
/// It has the methods of [`Engine`], and yields completions as an iterator in the same way.
pub enum AnyEngine {
    /// On the CPU.
    Cpu(Box<Engine<Cpu>>),
    /// On GPUs.
    Cuda(Box<Engine<Gpu>>),
}

/// Evaluates `$body` with `$engine` bound to the engine, whichever its device is.
macro_rules! with_engine {
    ($any:expr, $engine:ident => $body:expr) => {
        match $any {
            AnyEngine::Cpu($engine) => $body,
            AnyEngine::Cuda($engine) => $body,
        }
    };
}

impl AnyEngine {
    /// Opens the device and loads a pair onto it. Without an amateur, only requests that do not need one can be served.
    ///
    /// # Errors
    /// [`Error::Device`](crate::error::Error::Device) if the device cannot be opened, and those of [`Engine::load`].
    pub fn load(
        device: DeviceChoice,
        expert: &Checkpoint,
        amateur: Option<&Checkpoint>,
        config: &EngineConfig,
    ) -> Result<Self> {
        let on_cpu = |threads| {
            let engine = Engine::load(Cpu::new(threads)?, expert, amateur, config)?;
            Ok(Self::Cpu(Box::new(engine)))
        };
        let on_gpu = |gpu| Ok(Self::Cuda(Box::new(Engine::load(gpu, expert, amateur, config)?)));
        match device {
            DeviceChoice::Auto => match Gpu::cuda([0, 0], GpuConfig::default()) {
                Ok(gpu) => on_gpu(gpu),
                Err(_) => on_cpu(None),
            },
            DeviceChoice::Cpu { threads } => on_cpu(threads),
            DeviceChoice::Cuda { gpus, config } => on_gpu(Gpu::cuda(gpus, config)?),
        }
    }

    /// What the device is.
    pub fn device_info(&self) -> &DeviceInfo {
        with_engine!(self, engine => engine.device().info())
    }

    /// See [`Engine::submit`].
    ///
    /// # Errors
    /// Those of [`Engine::submit`].
    pub fn submit(&mut self, request: Request) -> Result<SeqId> {
        with_engine!(self, engine => engine.submit(request))
    }

    /// See [`Engine::cancel`].
    pub fn cancel(&mut self, seq: SeqId) -> bool {
        with_engine!(self, engine => engine.cancel(seq))
    }

    /// See [`Engine::step`].
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub fn step(&mut self) -> Result<()> {
        with_engine!(self, engine => engine.step())
    }

    /// See [`Engine::finished`].
    pub fn finished(&mut self) -> Option<Completion> {
        with_engine!(self, engine => engine.finished())
    }

    /// See [`Engine::pending`].
    pub fn pending(&self) -> usize {
        with_engine!(self, engine => engine.pending())
    }

    /// See [`Engine::max_num_seqs`].
    pub fn max_num_seqs(&self) -> usize {
        with_engine!(self, engine => engine.max_num_seqs())
    }

    /// See [`Engine::windows`].
    pub fn windows(&self) -> Windows {
        with_engine!(self, engine => engine.windows())
    }

    /// See [`Engine::stats`].
    pub fn stats(&self) -> Stats {
        with_engine!(self, engine => engine.stats())
    }

    /// See [`Engine::preparer`].
    pub fn preparer(&self) -> &Preparer {
        with_engine!(self, engine => engine.preparer())
    }

    /// See [`Engine::text`].
    pub fn text(&self) -> &Text {
        with_engine!(self, engine => engine.text())
    }

    /// See [`Engine::chat_ids`].
    ///
    /// # Errors
    /// Those of [`Engine::chat_ids`].
    pub fn chat_ids(&self, conversation: &Conversation) -> Result<Vec<TokenId>> {
        with_engine!(self, engine => engine.chat_ids(conversation))
    }

    /// See [`Engine::set_sanitize_control_tokens`].
    pub fn set_sanitize_control_tokens(&mut self, sanitize: bool) {
        with_engine!(self, engine => engine.set_sanitize_control_tokens(sanitize));
    }

    /// See [`Engine::set_template_variables`].
    pub fn set_template_variables(&mut self, variables: Map<String, Value>) {
        with_engine!(self, engine => engine.set_template_variables(variables));
    }
}

/// Completions as they finish; `None` when nothing is left to do.
impl Iterator for AnyEngine {
    type Item = Result<Completion>;

    fn next(&mut self) -> Option<Self::Item> {
        with_engine!(self, engine => engine.next())
    }
}
