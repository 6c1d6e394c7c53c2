//! The GPU where there is none: the program starts, and says what is missing.

use std::path::Path;

use super::program::{Workplace, message, synth};

#[test]
fn what_is_missing_is_said_plainly() {
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let place = Workplace::new();
    let (input, output) = (place.instructions(1), place.path("out.jsonl"));
    let result = synth(&input, &output, &["--device", "cuda"]).output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(1), "{said}");
    assert!(said.starts_with("codit: error: ") && said.trim_end().lines().count() == 1, "{said}");
    let (no_driver, no_kernels) = ("no NVIDIA driver", "kernels/toolchain.sh");
    assert!(said.contains(no_driver) || said.contains(no_kernels), "{said}");
}
