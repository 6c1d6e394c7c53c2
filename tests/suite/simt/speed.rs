//! That a whole suite of kernels can be run in every test run.

use std::time::Instant;

use bytemuck::NoUninit;
use codit::device::simt::runtime::{Launch, Memory};

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct ArgmaxParams {
    x: u64,
    out: u64,
    rows: u32,
    width: u32,
}

#[test]
fn argmax_over_a_vocabulary_is_right_and_quick() {
    let (rows, width) = (8, 151_936);
    let values: Vec<f32> = (0..rows * width).map(|i| ((i * 7919) % 1_000_003) as f32).collect();
    let x = Memory::of(&values).unwrap();
    let out = Memory::new(rows * 4).unwrap();
    for seed in [0, 1] {
        let launch = Launch {
            kernel: "simt_argmax",
            grid: [rows as u32, 1, 1],
            block: [256, 1, 1],
            shared_bytes: 64,
            seed,
        };
        let params =
            ArgmaxParams { x: x.address(), out: out.address(), rows: rows as u32, width: width as u32 };
        let start = Instant::now();
        // SAFETY: the sizes are those of the parameters.
        unsafe { launch.run(&params) }.unwrap();
        println!("seed {seed}: {:?}", start.elapsed());
        for (row, &found) in values.chunks(width).zip(out.as_slice::<u32>()) {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(found as usize, row.iter().position(|&v| v == best).unwrap());
        }
    }
}
