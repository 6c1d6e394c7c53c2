//! The choice of a device.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::device::cpu::Cpu;
use crate::device::simt::Simt;
use crate::device::{Device, Dtype};
use crate::error::{Error, Result};

/// Where to decode, and in what numbers.
#[derive(clap::Args)]
#[command(next_help_heading = "Device")]
pub(super) struct DeviceArgs {
    /// Where to decode; simt runs the GPU's kernels on the host, slowly, to test them
    #[arg(long, value_enum, default_value_t = DeviceName::Auto)]
    device: DeviceName,
    /// Number format of weights, activations and cache on a GPU; the CPU reads weights as they are and computes in f32
    #[arg(long, value_enum, default_value_t = DtypeName::Bfloat16)]
    dtype: DtypeName,
    /// Threads of the CPU device [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceName {
    Auto,
    Cpu,
    Simt,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DtypeName {
    Bfloat16,
    Float32,
}

/// What is done on the device, whichever it is.
pub(super) trait Task {
    /// Does it.
    fn run<D: Device>(self, device: D) -> Result<ExitCode>;
}

impl DeviceArgs {
    /// Opens the device and runs `task` on it.
    pub(super) fn run(&self, task: impl Task) -> Result<ExitCode> {
        if self.threads == Some(0) {
            return Err(Error::Setting("threads is 0; it must be 1 or more".to_owned()));
        }
        match self.device {
            DeviceName::Auto | DeviceName::Cpu => task.run(Cpu::new(self.threads)?),
            DeviceName::Simt => task.run(Simt::simt(self.dtype.dtype(), 0)),
        }
    }

    /// What the manifest says of the device, for the record only.
    pub(super) fn notes(&self) -> Value {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned())
        };
        json!({
            "device": name(&|| self.device.to_possible_value()),
            "dtype": name(&|| self.dtype.to_possible_value()),
            "threads": self.threads,
        })
    }
}

impl DtypeName {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::Bfloat16 => Dtype::Bf16,
            Self::Float32 => Dtype::F32,
        }
    }
}
