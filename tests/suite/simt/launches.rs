//! The geometry of launches, the list of kernels and memory.

use std::collections::HashSet;

use codit::device::simt::runtime::{Memory, kernels};

use super::{Probe, SEEDS};

#[test]
fn every_thread_knows_where_it_is() {
    let (grid, block) = ([3, 2, 5], [5, 3, 2]);
    for seed in SEEDS {
        let count: u32 = grid.iter().chain(&block).product();
        let probe = Probe { grid, block, ..Probe::new("probe_where", 1) };
        let found: Vec<[u32; 12]> = probe.run(seed, &[0_u32; 0], count as usize);
        let index = |i: u32, [x, y, _]: [u32; 3]| [i % x, i / x % y, i / x / y];
        for (i, found) in (0..).zip(found) {
            let threads: u32 = block.iter().product();
            let expected = [index(i % threads, block), index(i / threads, grid), block, grid];
            assert_eq!(found, expected.concat()[..]);
        }
    }
}

#[test]
fn kernels_are_listed_once_each() {
    let kernels = kernels();
    let names: HashSet<_> = kernels.iter().map(|kernel| kernel.name).collect();
    assert_eq!(names.len(), kernels.len());
    assert!(kernels.iter().any(|kernel| kernel.name == "probe_where" && kernel.params_bytes == 32));
}

#[test]
fn memory_is_aligned_and_begins_as_nan() {
    for bytes in [0, 4, 1000] {
        let mut memory = Memory::new(bytes).unwrap();
        assert_eq!(memory.address() % 256, 0);
        assert!(memory.as_slice::<f32>().iter().all(|x| x.is_nan()));
        assert_eq!((memory.as_mut_slice::<u8>().len(), memory.bytes()), (bytes, bytes));
    }
    assert!(Memory::new(usize::MAX / 2).is_none());
}
