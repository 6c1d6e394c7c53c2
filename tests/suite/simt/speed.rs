//! Speed: the runtime must be fast enough for every test run to run all kernels. Bounds are ten times the measured times.

use std::time::{Duration, Instant};

use bytemuck::NoUninit;
use codit::device::simt::runtime::{Launch, Memory};

use super::Probe;

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct ArgmaxParams {
    x: u64,
    out: u64,
    rows: u32,
    width: u32,
}

fn on_one_core(work: impl Fn() + Send + Sync) -> Duration {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_thread.install(|| {
        work();
        let start = Instant::now();
        work();
        start.elapsed()
    })
}

#[test]
fn argmax_over_a_vocabulary_is_right_and_quick() {
    let (rows, width) = (8, 151_936);
    let values: Vec<f32> = (0..rows * width).map(|i| ((i * 7919) % 1_000_003) as f32).collect();
    let x = Memory::of(&values).unwrap();
    let out = Memory::new(rows * 4).unwrap();
    let params = ArgmaxParams { x: x.address(), out: out.address(), rows: rows as u32, width: width as u32 };
    for seed in [0, 1] {
        let launch = Launch {
            kernel: "probe_argmax",
            grid: [rows as u32, 1, 1],
            block: [256, 1, 1],
            shared_bytes: 64,
            seed,
        };
        // SAFETY: the buffers have the sizes in the parameters, and `out` is read only afterwards.
        let took = on_one_core(|| unsafe { launch.run(&params) }.unwrap());
        println!("argmax of {rows} x {width}, seed {seed}: {took:?}");
        assert!(took < Duration::from_millis(100), "{took:?}");
        for (row, &found) in values.chunks(width).zip(out.as_slice::<u32>()) {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(found as usize, row.iter().position(|&v| v == best).unwrap());
        }
    }
}

#[test]
fn a_turn_is_short() {
    let turns = 1000;
    for threads in [32, 256, 1024] {
        for seed in [0, 1] {
            let probe = Probe { args: [turns, 0, 0, 0], ..Probe::new("probe_turns", threads) };
            let took = on_one_core(|| assert!(probe.run::<u32, u32>(seed, &[], 0).is_empty()));
            let turn = took / (turns * threads);
            println!("a turn of {threads} threads, seed {seed}: {turn:?}");
            assert!(turn < Duration::from_micros(1), "{turn:?}");
        }
    }
}
