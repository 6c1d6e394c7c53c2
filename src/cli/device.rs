//! The choice of a device.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::format::FormatArgs;
use crate::device::Device;
use crate::device::cpu::Cpu;
use crate::device::cuda::Gpu;
use crate::device::launch::LauncherConfig;
use crate::device::simt::Simt;
use crate::error::{Error, Result};

/// Where to decode, and in what numbers.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Device")]
pub(super) struct DeviceArgs {
    /// Where to decode: auto takes the GPU where there is one; simt runs the GPU's kernels on the host, slowly, to test them
    #[arg(long, value_enum, default_value_t = DeviceName::Auto)]
    device: DeviceName,
    #[command(flatten)]
    format: FormatArgs,
    /// Part of the GPU's memory that may be used in all; what weights and workspaces leave of it is the cache's
    #[arg(long, value_name = "PART", default_value_t = 0.9, value_parser = part)]
    gpu_memory_utilization: f64,
    /// Threads of the CPU device [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceName {
    Auto,
    Cpu,
    Cuda,
    Simt,
}

/// What is done on the device, whichever it is.
pub(super) trait Task {
    /// Does it, on devices that `open` gives.
    fn run<D: Device>(self, open: &dyn Fn() -> Result<D>) -> Result<ExitCode>;
}

impl DeviceArgs {
    /// Runs `task` on the device.
    pub(super) fn run(&self, task: impl Task) -> Result<ExitCode> {
        if self.threads == Some(0) {
            return Err(Error::Setting("threads is 0; it must be 1 or more".to_owned()));
        }
        let formats = self.format.formats()?;
        match self.choice()? {
            DeviceName::Auto | DeviceName::Cpu => {
                task.run(&|| Ok(Cpu::new(self.threads)?.with_formats(formats)))
            }
            DeviceName::Cuda => task.run(&|| self.open_gpu()),
            DeviceName::Simt => task.run(&|| Ok(Simt::simt_with(self.config()?, 0))),
        }
    }

    /// The same choice in every number format that the device has.
    pub(super) fn in_each_format(&self) -> Result<Vec<Self>> {
        Ok(match self.choice()? {
            DeviceName::Auto | DeviceName::Cpu => vec![self.clone()],
            _ => FormatArgs::each().map(|format| Self { format, ..self.clone() }).into(),
        })
    }

    /// What the manifest says of the device, for the record only.
    pub(super) fn notes(&self) -> Value {
        let name = self.device.to_possible_value().map(|value| value.get_name().to_owned());
        json!({ "device": name, "gpu_memory_utilization": self.gpu_memory_utilization, "threads": self.threads })
    }

    /// What auto stands for on this machine.
    fn choice(&self) -> Result<DeviceName> {
        let config = self.config()?;
        Ok(match self.device {
            DeviceName::Auto if Gpu::cuda(config).is_ok() => DeviceName::Cuda,
            DeviceName::Auto => DeviceName::Cpu,
            chosen => chosen,
        })
    }

    fn open_gpu(&self) -> Result<Gpu> {
        Gpu::cuda(self.config()?)
    }

    fn config(&self) -> Result<LauncherConfig> {
        let formats = self.format.formats()?;
        Ok(LauncherConfig { formats, memory_utilization: self.gpu_memory_utilization })
    }
}

/// A part of the whole, over 0 and at most 1; for clap.
pub(super) fn part(text: &str) -> std::result::Result<f64, String> {
    let part = text.parse::<f64>().ok().filter(|part| *part > 0.0 && *part <= 1.0);
    part.ok_or_else(|| "it must be over 0 and at most 1".to_owned())
}
