//! The environment variable that caps the instruction set, as a user sets it.

use std::process::Command;

use codit::device::Device;
use codit::device::cpu::{Cpu, ISA_VARIABLE, Isa};
use serde_json::Value;

use crate::program::Workplace;

/// Runs `codit` with this cap.
fn capped(cap: &str, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_codit")).args(arguments).env(ISA_VARIABLE, cap).output().unwrap()
}

/// With no cap, or a cap above the machine's best instruction set, the machine's best is used.
#[test]
fn the_variable_caps_the_instruction_set() {
    let best = Isa::detect();
    let caps = Isa::ALL.map(|isa| (isa.name(), isa.min(best))).into_iter().chain([("", best)]);
    for (cap, expected) in caps {
        let output = capped(cap, &["doctor", "--device", "cpu", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["instruction_set"], expected.name(), "{cap:?}");
        let named = format!("instruction set {}", expected.name());
        assert!(report["device"].as_str().unwrap().contains(&named), "{report}");
        assert!(output.status.success(), "{cap:?}: {}", report["verdict"]);
    }
}

/// An unknown cap is refused before anything is written.
#[test]
fn an_unknown_cap_is_refused() {
    let place = Workplace::new();
    let (input, out) = (place.instructions(1), place.path("out.jsonl"));
    let synth = ["synth", input.to_str().unwrap(), "-o", out.to_str().unwrap(), "--device", "cpu"];
    for arguments in [&synth[..], &["doctor", "--device", "cpu"], &["bench", "--device", "cpu"]] {
        let output = capped("sse9", arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        let names = "\"sse9\"; it must be one of baseline, avx2, avx512, avx512_bf16, amx";
        assert!(said.starts_with("codit: error: CODIT_CPU_ISA is ") && said.contains(names), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(!out.exists());
}

/// A device reports the instruction set it uses and the best one available.
#[test]
fn a_device_says_its_instruction_set() {
    let best = Isa::detect();
    for isa in Isa::available() {
        let cpu = Cpu::limited(Some(1), isa).unwrap();
        assert_eq!(cpu.isa(), isa);
        let said = cpu.info().description.clone();
        assert!(said.contains(&format!("instruction set {}", isa.name())), "{said}");
        assert_eq!(said.contains(&format!("lowered from {}", best.name())), isa < best, "{said}");
    }
    assert_eq!(Cpu::limited(Some(1), Isa::Amx).unwrap().isa(), best);
}
