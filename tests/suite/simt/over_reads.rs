//! Reads past the end of a buffer. `tests/simt_asan.sh` runs each of them and expects the sanitizer to end it.

use super::Probe;

fn read_element(kernel: &'static str, index: u32) {
    let probe =
        Probe { grid: [2, 1, 1], shared_bytes: 100, args: [index, 0, 0, 0], ..Probe::new(kernel, 64) };
    probe.run::<f32, u8>(1, &[0.0; 25], 4);
}

#[test]
#[ignore = "tests/simt_asan.sh"]
fn of_global_memory() {
    read_element("probe_over_read", 25);
}

#[test]
#[ignore = "tests/simt_asan.sh"]
fn of_shared_memory() {
    read_element("probe_over_read_shared", 100);
}

#[test]
fn what_lies_inside_is_read() {
    read_element("probe_over_read", 24);
    read_element("probe_over_read_shared", 99);
}
