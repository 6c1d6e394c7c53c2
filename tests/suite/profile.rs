//! Tests the ranges for a profiler. Our own profiler library receives them and writes them to a file.

use std::path::Path;
use std::process::Command;

use super::program::{Workplace, message, records, refuse, synth};

/// A tool library by the protocol of NVTX 3: it finds the functions for ranges in the tables of the program that
/// loads it.
const TOOL: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
typedef void (*function)(void);
typedef struct { size_t bytes; int (*module)(int, function***, unsigned*); } callbacks;
static FILE* out;
static int push(const char* name) { return fprintf(out, "+%s\n", name); }
static int pop(void) { return fprintf(out, "-\n"); }
int InitializeInjectionNvtx2(const void* (*table)(uint32_t)) {
    const callbacks* c = table(1);
    function** functions = 0;
    unsigned count = 0;
    if (!c || c->bytes < sizeof *c || !c->module(1, &functions, &count) || count < 12) return 0;
    if (!(out = fopen(getenv("RANGES"), "w"))) return 0;
    *functions[9] = (function)push;
    *functions[11] = (function)pop;
    return 1;
}
"#;

fn build(source: &Path, library: &Path) {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(library).arg(source).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_profiler_sees_each_step_and_what_it_is_made_of() {
    let place = Workplace::new();
    let (source, library, ranges) =
        (place.write("tool.c", TOOL), place.path("tool.so"), place.path("ranges"));
    build(&source, &library);
    let (input, output) = (place.instructions(2), place.path("out.jsonl"));
    let mut command = synth(&input, &output, &["--seed", "1", "--max-tokens", "4", "--threads", "1"]);
    let result = command.env("NVTX_INJECTION64_PATH", &library).env("RANGES", &ranges).output().unwrap();
    assert!(result.status.success(), "{}", message(&result));

    let seen = std::fs::read_to_string(&ranges).unwrap();
    for name in ["step", "schedule", "expert", "amateur", "contrast_sample", "commit", "io"] {
        assert!(seen.lines().any(|line| line.strip_prefix('+') == Some(name)), "{name} in {seen}");
    }
    let depth = seen.lines().fold(0, |depth, line| if line == "-" { depth - 1 } else { depth + 1 });
    assert_eq!(depth, 0, "every range ends");
}

#[test]
fn a_profiler_that_is_no_profiler_changes_nothing() {
    let place = Workplace::new();
    let (input, output) = (place.instructions(1), place.path("out.jsonl"));
    let mut command = synth(&input, &output, &["--seed", "1", "--max-tokens", "4"]);
    let result = command.env("NVTX_INJECTION64_PATH", &input).output().unwrap();
    assert!(result.status.success(), "{}", message(&result));
    assert_eq!(records(&output).len(), 1);
}

#[test]
fn only_a_gpu_can_be_profiled_by_step() {
    let place = Workplace::new();
    let (input, output) = (place.instructions(1), place.path("out.jsonl"));
    let said = refuse(&input, &output, &["--device", "cpu", "--profile-steps", "2:4"]);
    assert!(said.contains("--device cuda"), "{said}");
}
