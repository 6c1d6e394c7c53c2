//! The choice of a device.

use std::cell::Cell;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cli::args::format::{self, FormatArgs};
use crate::cli::ui::words::count;
use codit::checkpoint::Checkpoint;
use codit::device::cpu::{Cpu, Isa};
use codit::device::cuda::{Cuda, Gpu};
use codit::device::gpu::GpuConfig;
use codit::device::inspect::Inspect;
use codit::device::simt::Simt;
use codit::device::simt::code::Code;
use codit::device::{Device, Dtype};
use codit::error::{Error, Result};
use codit::model::Weights;

/// The most threads that a machine with few cores may have.
const LEAST_MOST_THREADS: usize = 64;

/// Where to decode, and in what numbers.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// Where to decode: auto takes a GPU if there is one; simt runs the GPU's kernels on the host, slowly, for tests
    #[arg(long, value_enum, default_value_t = DeviceName::Auto)]
    device: DeviceName,
    #[command(flatten)]
    format: FormatArgs,
    /// Share of the GPU's memory that may be used in all; the cache takes what weights and workspaces leave of it
    #[arg(long, value_name = "PART", default_value_t = 0.9, value_parser = part)]
    gpu_memory_utilization: f64,
    /// GPUs by number, such as 0,1,2,3: one replica of the pair on each, or on every two of them if the pair is split
    /// [default: 0; 0,1 with --placement split]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    devices: Vec<usize>,
    /// Both models together on one GPU, or split over two; auto splits a pair that does not fit on one of several GPUs
    #[arg(long, value_enum, default_value_t = Placement::Auto)]
    placement: Placement,
    /// On a GPU, make the bits of a row independent of the rows beside it, as they always are on the CPU: a response is then
    /// the same in every batch, at a cost in speed
    #[arg(long)]
    deterministic: bool,
    /// Threads of the CPU device; the environment variable CODIT_CPU_ISA (baseline, avx2, avx512, avx512_bf16 or amx) limits its
    /// instruction set [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Whether both models share a stream of the GPU; for measurements.
    #[arg(skip)]
    has_one_stream: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceName {
    Auto,
    Cpu,
    Cuda,
    Simt,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Placement {
    Auto,
    Together,
    Split,
}

/// What is done on the device, whichever it is.
pub trait Task {
    /// Does it.
    fn run<D: Inspect>(self, devices: &Devices<'_, D>) -> Result<ExitCode>;
}

/// The devices that the user chose, all of one kind.
pub struct Devices<'a, D> {
    open: &'a dyn Fn([usize; 2], [bool; 2]) -> Result<D>,
    /// By role: whether the checkpoint stores bf16.
    are_bf16: Cell<[bool; 2]>,
    /// One or more.
    pub gpus: Vec<usize>,
    placement: Placement,
}

impl<D: Device> Devices<'_, D> {
    /// Chooses the number formats that are `auto` for these checkpoints; before, they are those of the built-in pair.
    pub fn suit(&self, expert: &Checkpoint, amateur: Option<&Checkpoint>) -> Result<()> {
        let expert = Weights::open(expert)?.are_bf16();
        let amateur = amateur.map(Weights::open).transpose()?.map_or(expert, |weights| weights.are_bf16());
        self.are_bf16.set([expert, amateur]);
        Ok(())
    }

    /// Chooses those for models that store bf16.
    pub fn suit_bf16(&self) {
        self.are_bf16.set([true; 2]);
    }

    /// A device on these GPUs, the expert's and the amateur's.
    pub fn on(&self, gpus: [usize; 2]) -> Result<D> {
        (self.open)(gpus, self.are_bf16.get())
    }

    /// The first: together unless it is to be split.
    pub fn first(&self) -> Result<D> {
        match self.gpus[..] {
            [first, second, ..] if self.placement == Placement::Split => self.on([first, second]),
            [first, ..] => self.on([first; 2]),
            [] => Err(Error::Setting("--devices is empty; name one or more GPUs".to_owned())),
        }
    }

    /// One for each replica of a pair, of which `fits` says whether it fits on one GPU.
    pub fn replicas(&self, fits: impl FnOnce(&D) -> Result<bool>) -> Result<Vec<D>> {
        let mut opened = None;
        let is_split = match self.placement {
            Placement::Together => false,
            Placement::Split => true,
            Placement::Auto if self.gpus.len() == 1 => false,
            Placement::Auto => {
                let first = self.first()?;
                let fits = fits(&first)?;
                opened = fits.then_some(first);
                !fits
            }
        };
        if is_split {
            check_even(self.gpus.len())?;
        }
        let places: Vec<[usize; 2]> = if is_split {
            self.gpus.chunks_exact(2).map(|gpus| [gpus[0], gpus[1]]).collect()
        } else {
            self.gpus.iter().map(|gpu| [*gpu; 2]).collect()
        };
        let rest = places.iter().skip(usize::from(opened.is_some())).map(|gpus| self.on(*gpus));
        opened.map(Ok).into_iter().chain(rest).collect()
    }
}

impl DeviceArgs {
    /// Runs `task` on the device.
    pub fn run(&self, task: impl Task) -> Result<ExitCode> {
        self.check_threads()?;
        // A wrong name is an error on every device, not only where it would have a say.
        Isa::chosen()?;
        let (choice, config) = (self.choice()?, self.config()?);
        let gpus = self.gpus();
        let is_split = self.placement == Placement::Split;
        let for_gpus = !self.devices.is_empty() || is_split;
        if matches!(choice, DeviceName::Auto | DeviceName::Cpu) && for_gpus {
            let message = "--devices and --placement are for GPUs, and this is --device cpu; leave them out, or add \
                           --device cuda";
            return Err(Error::Setting(message.to_owned()));
        }
        if is_split {
            check_even(gpus.len())?;
        }
        if let Some(twice) = (1..gpus.len()).find(|index| gpus[..*index].contains(&gpus[*index])) {
            return Err(Error::Setting(format!("--devices names GPU {} twice; name each once", gpus[twice])));
        }
        match choice {
            DeviceName::Auto | DeviceName::Cpu => self.give(task, &|_, are_bf16| self.cpu(are_bf16)),
            DeviceName::Cuda => {
                // Before anything is fetched or read.
                Cuda::count()?;
                self.give(task, &|gpus, _| Gpu::cuda(gpus, config))
            }
            DeviceName::Simt => {
                Code::chosen()?;
                self.give(task, &|[expert, amateur], _| Ok(Simt::simt_with(config, 0, expert != amateur)))
            }
        }
    }

    /// The CPU, on which `auto` is bfloat16 only where the checkpoint has no other numbers to lose.
    fn cpu(&self, are_bf16: [bool; 2]) -> Result<Cpu> {
        let cpu = Cpu::new(self.threads)?;
        let auto =
            are_bf16.map(|is_bf16| if is_bf16 && cpu.has_bf16_products() { Dtype::Bf16 } else { Dtype::F32 });
        Ok(cpu.with_formats(self.format.formats_where(auto)?))
    }

    fn check_threads(&self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let most = (4 * cores).max(LEAST_MOST_THREADS);
        match self.threads {
            Some(0) => Err(Error::Setting("threads is 0; it must be 1 or more".to_owned())),
            Some(threads) if threads > most => Err(Error::Setting(format!(
                "threads is {threads}, but this machine has {}, and threads beyond them only wait for each \
                 other; the most is {most}",
                count(cores, "core")
            ))),
            Some(threads) if threads > cores => {
                message!(
                    "warning: threads is {threads}, but this machine has {}; threads beyond them only wait for each other",
                    count(cores, "core")
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn give<D: Inspect>(
        &self,
        task: impl Task,
        open: &dyn Fn([usize; 2], [bool; 2]) -> Result<D>,
    ) -> Result<ExitCode> {
        task.run(&Devices { open, are_bf16: Cell::default(), gpus: self.gpus(), placement: self.placement })
    }

    /// The numbers of the GPUs.
    fn gpus(&self) -> Vec<usize> {
        match (&self.devices[..], self.placement) {
            ([], Placement::Split) => vec![0, 1],
            ([], _) => vec![0],
            (given, _) => given.to_vec(),
        }
    }

    /// The same choice in every number format that the device has, deterministic and not: all modes that the flags leave open.
    pub fn in_each_mode(&self) -> Result<Vec<Self>> {
        let is_cpu = matches!(self.choice()?, DeviceName::Auto | DeviceName::Cpu);
        let formats = match is_cpu {
            _ if self.format.are_given() => vec![self.format.clone()],
            true => FormatArgs::each_of_cpu().to_vec(),
            false => FormatArgs::each().to_vec(),
        };
        let deterministic =
            if is_cpu || self.deterministic { &[self.deterministic][..] } else { &[false, true] };
        let mode = |format: &FormatArgs, deterministic: &bool| Self {
            format: format.clone(),
            deterministic: *deterministic,
            ..self.clone()
        };
        Ok(formats.iter().flat_map(|format| deterministic.iter().map(|each| mode(format, each))).collect())
    }

    /// The formats and whether the device is deterministic, in words.
    pub fn mode(&self) -> Result<String> {
        let [expert, _] = self.format.formats()?;
        Ok(format::describe_mode(expert, self.deterministic))
    }

    /// The same choice with this many streams on a GPU.
    ///
    /// # Errors
    /// If one is to serve a device that has no streams, or has them on two GPUs.
    pub fn with_streams(&self, streams: u32) -> Result<Self> {
        let is_one = streams == 1;
        if is_one && (self.choice()? != DeviceName::Cuda || self.placement == Placement::Split) {
            let message = "--streams 1 is for a pair on one GPU; leave it out, or add --device cuda";
            return Err(Error::Setting(message.to_owned()));
        }
        Ok(Self { has_one_stream: is_one, ..self.clone() })
    }

    /// What the manifest says of the device, for the record only.
    pub fn notes(&self) -> Value {
        let name = self.device.to_possible_value().map(|value| value.get_name().to_owned());
        let placement = self.placement.to_possible_value().map(|value| value.get_name().to_owned());
        let mut notes = json!({
            "device": name,
            "devices": self.gpus(),
            "placement": placement,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "threads": self.threads,
        });
        // Not which of them the run used: a machine with a GPU has a CPU too.
        notes["cpu_isa"] = json!(Isa::chosen().map(Isa::name).ok());
        if self.deterministic {
            notes["deterministic"] = json!(true);
        }
        notes
    }

    /// What auto stands for on this machine.
    fn choice(&self) -> Result<DeviceName> {
        let config = self.config()?;
        Ok(match self.device {
            DeviceName::Auto if Gpu::cuda([self.gpus()[0]; 2], config).is_ok() => DeviceName::Cuda,
            DeviceName::Auto => DeviceName::Cpu,
            chosen => chosen,
        })
    }

    fn config(&self) -> Result<GpuConfig> {
        let formats = self.format.formats()?;
        Ok(GpuConfig {
            formats,
            memory_utilization: self.gpu_memory_utilization,
            is_deterministic: self.deterministic,
            has_one_stream: self.has_one_stream,
        })
    }
}

/// That so many GPUs can be taken two by two.
fn check_even(gpus: usize) -> Result<()> {
    if gpus.is_multiple_of(2) {
        return Ok(());
    }
    let message =
        format!("a split pair takes two GPUs, but --devices names {gpus}; name one more or one less");
    Err(Error::Setting(message))
}

/// A part of the whole, over 0 and at most 1; for clap.
pub fn part(text: &str) -> std::result::Result<f64, String> {
    let part = text.parse::<f64>().ok().filter(|part| *part > 0.0 && *part <= 1.0);
    part.ok_or_else(|| "it must be over 0 and at most 1".to_owned())
}
