//! The kernels as nvcc compiled them: `tests/simt_ptx.sh` makes the PTX, names its folder in `CODIT_PTX` and runs these
//! tests, which are ignored without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use codit::device::cpu::Cpu;
use codit::device::gpu::GpuConfig;
use codit::device::simt::Simt;
use codit::device::simt::code::{Code, FOLDER_VARIABLE, Ptx};
use codit::device::{Dtype, Format};
use codit::doctor::{self, Checks, Comparison};
use codit::{Error, Result};

use crate::kernels::{FORMATS, families_of, is_checked};

fn folder() -> PathBuf {
    env::var_os(FOLDER_VARIABLE).expect("CODIT_PTX names the folder that kernels/ptx.sh made").into()
}

fn open(folder: &Path) -> Code {
    Code::Ptx(Arc::new(Ptx::load(folder).unwrap()))
}

/// What failed of these checks.
fn failures(
    code: &Code,
    format: Format,
    seed: u64,
    checks: &[Checks<Simt>],
) -> (Vec<String>, BTreeSet<&'static str>) {
    let device = Simt::simt_from(code.clone(), GpuConfig::of(format), seed, false);
    let cpu = Cpu::new(None).unwrap().with_formats([format; 2]);
    let mut on = Comparison::new(&device, &cpu, seed);
    let mut failed = Vec::new();
    for checks in checks {
        match checks(&mut on) {
            Ok(checks) => {
                assert!(!checks.is_empty());
                let wrong = checks.iter().filter(|check| !check.passes());
                failed.extend(wrong.map(|check| format!("{}, {}", check.operation, check.case)));
            }
            Err(Error::Device(fault)) => failed.push(fault),
            Err(error) => panic!("{error}"),
        }
    }
    (failed, device.runtime().launched())
}

/// Doctor's checks, reduced: not all modes, but in each format the families whose kernels it alone has, and of attention
/// every head size and special case once. Each family of checks runs, and each kernel is launched; the golden pair runs in
/// bf16. `tests/simt_ptx.sh` without `--quick` leaves nothing out.
#[test]
#[ignore = "needs the PTX that tests/simt_ptx.sh makes"]
fn the_compiled_kernels_pass_a_reduced_doctor() {
    let code = open(&folder());
    let mut launched = BTreeSet::new();
    for (seed, format) in (1..).zip(FORMATS) {
        let families: Vec<Checks<Simt>> = families_of(format)
            .into_iter()
            .map(|(name, checks)| if name == "attention" { doctor::attention::few } else { checks })
            .collect();
        let (failed, here) = failures(&code, format, seed, &families);
        assert!(failed.is_empty(), "{format:?}: {failed:#?}");
        launched.extend(here);
    }
    let unchecked: Vec<_> = is_checked().filter(|name| !launched.contains(name)).collect();
    assert!(unchecked.is_empty(), "no check launches {unchecked:?}");

    let config = GpuConfig::of(Format::of(Dtype::Bf16));
    let open = || -> Result<Simt> { Ok(Simt::simt_from(code.clone(), config, 9, false)) };
    for check in doctor::pair::checks(&open, false).unwrap() {
        assert!(check.passes(), "{check:?}");
    }
}

/// Where a fault is planted in the PTX of one source file.
struct Plant {
    fault: &'static str,
    file: &'static str,
    /// The kernels whose names begin so.
    kernels: &'static str,
    /// A part of the lines that change.
    line: &'static str,
    /// Which of them changes in each kernel, from 0 on; all if there is none.
    nth: Option<usize>,
    change: fn(&str) -> String,
    dtype: Dtype,
    checks: Checks<Simt>,
}

/// The operands of an instruction: what stands between its opcode and the semicolon, cut at the commas outside of braces.
fn operands(line: &str) -> (String, Vec<String>) {
    let line = line.trim().trim_end_matches(';');
    let (opcode, rest) = line.split_once(char::is_whitespace).unwrap();
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in rest.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if letter == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(letter);
        }
    }
    (opcode.to_owned(), parts.iter().map(|part| part.trim().to_owned()).collect())
}

fn with_operands(line: &str, change: impl Fn(&mut Vec<String>)) -> String {
    let (opcode, mut parts) = operands(line);
    change(&mut parts);
    format!("\t{opcode} {};", parts.join(", "))
}

/// The line with its address moved by some bytes.
fn shifted(line: &str, bytes: u32) -> String {
    let (before, rest) = line.split_once('[').unwrap();
    let (address, after) = rest.split_once(']').unwrap();
    let (base, offset) = address.split_once('+').unwrap_or((address, "0"));
    format!("{before}[{base}+{}]{after}", offset.parse::<u32>().unwrap() + bytes)
}

fn of_attention() -> Plant {
    Plant {
        fault: "",
        file: "attention.ptx",
        kernels: "attention_",
        line: "",
        nth: None,
        change: str::to_owned,
        dtype: Dtype::Bf16,
        checks: doctor::attention::few,
    }
}

fn of_matmul() -> Plant {
    let (file, kernels) = ("grouped_matmul.ptx", "grouped_matmul_");
    Plant { file, kernels, checks: doctor::mixture::checks, ..of_attention() }
}

fn of_norm() -> Plant {
    let (file, kernels) = ("rms_norm.ptx", "rms_norm_bf16");
    Plant { file, kernels, checks: doctor::rows::checks, ..of_attention() }
}

/// Of the waits of threads for each other and for copies.
fn plants_in_waits() -> Vec<Plant> {
    vec![
        Plant {
            fault: "a wait for one group too few",
            line: "cp.async.wait_group",
            change: |line| {
                with_operands(line, |parts| parts[0] = (parts[0].parse::<u32>().unwrap() + 1).to_string())
            },
            ..of_attention()
        },
        Plant {
            fault: "a group of copies that is not closed",
            line: "cp.async.commit_group",
            nth: Some(0),
            change: |_| String::new(),
            ..of_matmul()
        },
        Plant {
            fault: "a barrier dropped",
            line: "bar.sync",
            nth: Some(0),
            change: |_| String::new(),
            ..of_attention()
        },
        Plant {
            fault: "a barrier dropped",
            line: "bar.sync",
            nth: Some(0),
            change: |_| String::new(),
            ..of_matmul()
        },
        Plant {
            fault: "a barrier dropped",
            line: "bar.sync",
            nth: Some(0),
            change: |_| String::new(),
            ..of_norm()
        },
        Plant {
            fault: "a mask without lane 31",
            line: "shfl.sync.bfly",
            nth: Some(0),
            change: |line| with_operands(line, |parts| "0x7fffffff".clone_into(&mut parts[4])),
            ..of_norm()
        },
    ]
}

/// Of arithmetic and of what goes between lanes.
fn plants_in_arithmetic() -> Vec<Plant> {
    vec![
        Plant {
            fault: "the halves of a pair exchanged",
            line: "cvt.rn.bf16x2.f32",
            change: |line| with_operands(line, |parts| parts.swap(1, 2)),
            ..of_attention()
        },
        Plant {
            fault: "the registers of b exchanged",
            line: "mma.sync.aligned.m16n8k16",
            change: |line| {
                with_operands(line, |parts| {
                    let (low, high) = parts[2].trim_matches(['{', '}']).split_once(',').unwrap();
                    parts[2] = format!("{{{}, {}}}", high.trim(), low.trim());
                })
            },
            ..of_matmul()
        },
        Plant {
            fault: "rounding to zero in place of the nearest",
            file: "rope_store.ptx",
            kernels: "rope_store_f32",
            line: "cvt.rni.s32.f32",
            change: |line| line.replace("rni", "rzi"),
            dtype: Dtype::F32,
            checks: doctor::rows::checks,
            ..of_attention()
        },
        Plant {
            fault: "rounding to zero in place of the nearest",
            line: "cvt.rn.bf16.f32",
            change: |line| line.replace("cvt.rn", "cvt.rz"),
            ..of_norm()
        },
        Plant {
            fault: "another lane of a shuffle",
            line: "shfl.sync.bfly",
            nth: Some(0),
            change: |line| with_operands(line, |parts| "4".clone_into(&mut parts[2])),
            ..of_norm()
        },
    ]
}

/// Of addresses, and of what chooses the way.
fn plants_in_addresses_and_branches() -> Vec<Plant> {
    vec![
        Plant {
            fault: "a wrong offset in shared memory",
            line: "ld.shared.u32",
            nth: Some(0),
            change: |line| shifted(line, 4),
            ..of_attention()
        },
        Plant {
            fault: "a predicate dropped",
            line: "bra",
            nth: Some(0),
            change: |line| line.split_once(' ').map_or(line.to_owned(), |(_, branch)| branch.to_owned()),
            ..of_norm()
        },
        Plant {
            fault: "a comparison that holds for equal numbers",
            kernels: "attention_prefill_",
            line: "setp.lt.u32",
            change: |line| line.replace("setp.lt", "setp.le"),
            ..of_attention()
        },
        Plant {
            fault: "a misaligned vector",
            line: "ld.global.v4",
            nth: Some(0),
            change: |line| shifted(line, 2),
            ..of_norm()
        },
    ]
}

/// The text with the plant. The pattern must be there.
fn planted(text: &str, plant: &Plant) -> String {
    let (mut made, mut is_inside, mut seen, mut changed) = (String::new(), false, 0, 0);
    for line in text.lines() {
        if let Some((_, name)) = line.split_once(".entry ") {
            (is_inside, seen) = (name.starts_with(plant.kernels), 0);
        }
        if is_inside && line.contains(plant.line) {
            if plant.nth.is_none_or(|nth| nth == seen) {
                made += &(plant.change)(line);
                changed += 1;
            } else {
                made += line;
            }
            seen += 1;
        } else {
            made += line;
        }
        made.push('\n');
    }
    assert!(
        changed > 0,
        "{}: no line of {} in {} has '{}'",
        plant.fault,
        plant.kernels,
        plant.file,
        plant.line
    );
    made
}

#[test]
#[ignore = "needs the PTX that tests/simt_ptx.sh makes"]
fn planted_faults_fail_a_check() {
    let folder = folder();
    let plants = [plants_in_waits(), plants_in_arithmetic(), plants_in_addresses_and_branches()];
    for plant in plants.into_iter().flatten() {
        let copy = tempfile::tempdir().unwrap();
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let text = if name == plant.file { planted(&text, &plant) } else { text };
            fs::write(copy.path().join(name), text).unwrap();
        }
        let (failed, _) = failures(&open(copy.path()), Format::of(plant.dtype), 1, &[plant.checks]);
        println!(
            "{} in {}*: {}",
            plant.fault,
            plant.kernels,
            failed.first().map_or("not seen", String::as_str)
        );
        assert!(!failed.is_empty(), "{} in {}*: no check fails", plant.fault, plant.kernels);
    }
}
