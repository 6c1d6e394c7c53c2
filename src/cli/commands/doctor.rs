//! `codit doctor`: what the device is, and whether it computes what it should.

use std::cell::RefCell;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::args::device::{DeviceArgs, Devices, Task};
use crate::cli::args::format;
use crate::cli::ui::output::{self, Output};
use codit::bench::ceilings::{Ceilings, OF_MEMORY};
use codit::device::cpu::{Cpu, ISA_VARIABLE, Isa};
use codit::device::inspect::Inspect;
use codit::doctor::verdict::{Finding, Verdict};
use codit::doctor::{self, Check, Comparison};
use codit::error::{Error, Result};

#[derive(clap::Args)]
pub struct Args {
    /// Seed of the inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Checks only these families of the report, a list such as rows,golden-pair, and measures nothing
    #[arg(long, value_name = "FAMILIES", value_delimiter = ',', value_parser = family)]
    only: Vec<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Gives the device wrong inputs, so that every family of checks must fail: a test of the checks themselves
    #[arg(long, hide = true)]
    plant_fault: bool,
    // After the command's own flags, since its heading would hold them.
    #[command(flatten)]
    device: DeviceArgs,
}

/// Failed checks that are printed of a family.
const SHOWN: usize = 5;
/// The family of a whole pair, beside those of single operations.
const GOLDEN_PAIR: &str = "golden pair";

/// The names of all families of checks.
fn families() -> impl Iterator<Item = &'static str> {
    doctor::all::<Cpu>().into_iter().map(|(name, _)| name).chain([GOLDEN_PAIR])
}

/// The family that is meant, with or without hyphens in its name; for clap.
fn family(text: &str) -> std::result::Result<String, String> {
    let meant = text.replace('-', " ");
    if families().any(|name| name == meant) {
        return Ok(meant);
    }
    let known: Vec<String> = families().map(|name| name.replace(' ', "-")).collect();
    Err(format!("the families are {}", known.join(", ")))
}

/// Checks and prints; fails if a check does, or if nobody reads the verdict.
pub fn run(args: &Args) -> Result<ExitCode> {
    match check(args) {
        Err(error) if output::is_closed(&error) => Ok(ExitCode::FAILURE),
        result => result,
    }
}

fn check(args: &Args) -> Result<ExitCode> {
    let report = RefCell::new(Report::default());
    for device in args.device.in_each_mode()? {
        if report.borrow().has_lost_device {
            report.borrow_mut().not_checked.push(format!("all with {}", device.mode()?));
        } else {
            device.run(Doctor { args, report: &report })?;
        }
    }
    report.into_inner().end(args)
}

/// What was found, on all devices and in all modes.
#[derive(Default, Serialize)]
struct Report {
    /// The first device.
    device: String,
    /// Of the CPU device; else none.
    instruction_set: Option<&'static str>,
    checks: Vec<Finding>,
    /// Families and modes that were not chosen, or that came after a failure that took the device away.
    not_checked: Vec<String>,
    #[serde(skip)]
    has_lost_device: bool,
    ceilings: Vec<CeilingsOf>,
    passed: bool,
    verdict: String,
    /// What to do where a check fails.
    #[serde(skip)]
    remedy: String,
}

/// The ceilings of one device in one mode.
#[derive(Serialize)]
struct CeilingsOf {
    device: String,
    mode: String,
    bytes_per_second: f64,
    matmul_operations_per_second: f64,
}

impl Args {
    /// Whether a family is to be checked.
    fn includes(&self, family: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|chosen| chosen == family)
    }
}

impl Report {
    fn has_failure(&self) -> bool {
        self.checks.iter().any(|finding| !finding.passed)
    }

    /// Prints the verdict, or everything as JSON.
    fn end(mut self, args: &Args) -> Result<ExitCode> {
        self.not_checked.extend(families().filter(|name| !args.includes(name)).map(str::to_owned));
        let Verdict { passed, text } = Verdict::new(&self.checks, &self.not_checked, &self.remedy);
        if args.json {
            (self.passed, self.verdict) = (passed, text);
            Output.write_json(&self)?;
        } else {
            writeln!(Output, "\n{text}")?;
        }
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

struct Doctor<'a> {
    args: &'a Args,
    report: &'a RefCell<Report>,
}

impl Task for Doctor<'_> {
    /// Checks each GPU, and the first two as the places of a split pair.
    fn run<D: Inspect>(self, devices: &Devices<'_, D>) -> Result<ExitCode> {
        for gpu in &devices.gpus {
            self.check(&|| devices.on([*gpu; 2]))?;
        }
        match devices.gpus[..] {
            [expert, amateur, ..] if self.args.includes(GOLDEN_PAIR) && !self.has_lost_device() => {
                let open = || devices.on([expert, amateur]);
                self.check_pair(&self.begin(&open()?)?, "split golden pair", &open)?;
            }
            _ => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl<'a> Doctor<'a> {
    /// Checks the device that `open` gives, and measures it.
    fn check<D: Inspect>(&self, open: &dyn Fn() -> Result<D>) -> Result<()> {
        let device = open()?;
        let on = self.begin(&device)?;
        let cpu = Cpu::limited(None, Isa::Reference)?.with_formats([device.info().format; 2]);
        drop(device);
        for (family, checks) in doctor::all().into_iter().filter(|(family, _)| self.args.includes(family)) {
            // Each on a device of its own: a device that fails once gives nothing right after that.
            let Some(device) = self.open_again(&on, family, open)? else { continue };
            let mut comparison = Comparison::new(&device, &cpu, self.args.seed);
            comparison.has_fault = self.args.plant_fault;
            on.note(family, &doctor::examine(family, checks, &mut comparison)?)?;
        }
        if self.args.includes(GOLDEN_PAIR) {
            self.check_pair(&on, GOLDEN_PAIR, open)?;
        }
        if self.args.only.is_empty()
            && let Some(device) = self.open_again(&on, "ceilings", open)?
        {
            match Ceilings::measure(&device, OF_MEMORY) {
                Err(Error::Device(refusal)) => on.note("ceilings", &[Check::refused("ceilings", refusal)])?,
                ceilings => on.measured(&ceilings?)?,
            }
        }
        Ok(())
    }

    /// Checks a pair from end to end.
    fn check_pair<D: Inspect>(
        &self,
        on: &Examined<'_>,
        family: &'static str,
        open: &dyn Fn() -> Result<D>,
    ) -> Result<()> {
        if self.open_again(on, family, open)?.is_none() {
            return Ok(());
        }
        let checks = match doctor::pair::checks(open, self.args.plant_fault) {
            Err(Error::Device(refusal)) => vec![Check::refused(family, refusal)],
            checks => checks?,
        };
        on.note(family, &checks)
    }

    /// The device for a family. None where an earlier failure took it away, as CUDA does with a process in which a kernel
    /// accessed memory that is not there: the family is then among those not checked.
    fn open_again<D: Inspect>(
        &self,
        on: &Examined<'_>,
        family: &str,
        open: &dyn Fn() -> Result<D>,
    ) -> Result<Option<D>> {
        let opened = if self.has_lost_device() { None } else { Some(open()) };
        match opened {
            Some(Err(Error::Device(refusal))) if self.report.borrow().has_failure() => on.lost(&refusal)?,
            Some(opened) => return opened.map(Some),
            None => {}
        }
        self.report.borrow_mut().not_checked.push(format!("{family} with {}", on.mode));
        Ok(None)
    }

    fn has_lost_device(&self) -> bool {
        self.report.borrow().has_lost_device
    }

    /// Prints what the device is, and the head of its table.
    fn begin<D: Inspect>(&self, device: &D) -> Result<Examined<'a>> {
        let on = Examined {
            report: self.report,
            is_json: self.args.json,
            device: device.info().description.clone(),
            mode: format::describe(device.info()),
        };
        let mut report = self.report.borrow_mut();
        if report.device.is_empty() {
            let isa = doctor::as_cpu(device).map(Cpu::isa);
            report.device.clone_from(&on.device);
            report.instruction_set = isa.map(Isa::name);
            report.remedy = remedy(isa);
        } else if !on.is_json {
            writeln!(Output)?;
        }
        if !on.is_json {
            writeln!(Output, "{}\n{}", on.device, on.mode)?;
            writeln!(
                Output,
                "{:<23} {:>6} {:>6} {:>12} {:>9}",
                "", "checks", "failed", "worst error", "allowed"
            )?;
        }
        Ok(on)
    }
}

/// What to do where a device fails.
fn remedy(isa: Option<Isa>) -> String {
    let first = match isa {
        None => "Update the GPU's driver and run this again, or use --device cpu.".to_owned(),
        Some(Isa::Baseline) => {
            "Run this again: what fails now and then is the machine's memory or heat.".to_owned()
        }
        Some(_) => {
            format!("Run this again with {ISA_VARIABLE}=baseline: if that passes, codit is right under it.")
        }
    };
    format!("{first} Please report the output of this command with --json")
}

/// A device in one mode.
struct Examined<'a> {
    report: &'a RefCell<Report>,
    is_json: bool,
    device: String,
    mode: String,
}

impl Examined<'_> {
    /// Takes in the checks of a family, and prints its line of the table.
    fn note(&self, family: &str, checks: &[Check]) -> Result<()> {
        let finding = Finding::new(&self.device, &self.mode, family, checks);
        if !self.is_json {
            print(&finding)?;
        }
        self.report.borrow_mut().checks.push(finding);
        Ok(())
    }

    /// Takes in and prints that the device does not open any more.
    fn lost(&self, refusal: &str) -> Result<()> {
        self.report.borrow_mut().has_lost_device = true;
        if !self.is_json {
            writeln!(Output, "the device is lost to this process: {refusal}")?;
        }
        Ok(())
    }

    /// Takes in and prints how fast the device is.
    fn measured(&self, ceilings: &Ceilings) -> Result<()> {
        let (bandwidth, matmul_rate) = (ceilings.bandwidth(), ceilings.matmul_rate);
        if !self.is_json {
            writeln!(
                Output,
                "bandwidth {:.1} GB/s, matmul {:.3} TFLOP/s",
                bandwidth / 1e9,
                matmul_rate / 1e12
            )?;
        }
        self.report.borrow_mut().ceilings.push(CeilingsOf {
            device: self.device.clone(),
            mode: self.mode.clone(),
            bytes_per_second: bandwidth,
            matmul_operations_per_second: matmul_rate,
        });
        Ok(())
    }
}

/// A line of the table, and the first of the checks that failed.
fn print(finding: &Finding) -> Result<()> {
    let Finding { name, checks, failed, .. } = finding;
    let number = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.1e}"));
    let (error, bound) = (number(finding.worst_error), number(finding.bound));
    writeln!(Output, "{name:<23} {checks:>6} {failed:>6} {error:>12} {bound:>9}")?;
    for failure in finding.failures.iter().take(SHOWN) {
        writeln!(Output, "    {}, {}: {}", failure.operation, failure.case, failure.what())?;
    }
    if finding.failures.len() > SHOWN {
        writeln!(Output, "    and {} more", finding.failures.len() - SHOWN)?;
    }
    Ok(())
}
