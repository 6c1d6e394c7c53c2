//! Many requests through one engine: nothing is left behind.

use std::fs;

use codit::device::cpu::Cpu;
use codit::{Engine, EngineConfig, Request};

const REQUESTS: usize = 20_000;
/// After so many, everything that lives as long as the engine is there.
const WARM: usize = 4_000;
/// What the allocator may keep more of at the end than after [`WARM`]. Anything that each request left behind would exceed
/// it: 16,000 requests at one KiB each.
const SLACK_KIB: u64 = 8 << 10;

/// KiB of memory that the process holds; `None` where the system does not say.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Alone in its process, because it measures the process. The engine itself checks, whenever it is idle, that no block of
/// the cache is lost.
#[test]
#[ignore = "a minute, and alone: cargo test --release --test suite -- --ignored soak"]
fn memory_is_flat_over_twenty_thousand_requests() {
    let (expert, amateur) = (codit::embedded::expert(), codit::embedded::amateur());
    let config =
        EngineConfig { max_num_seqs: 64, kv_cache_memory: Some(32 << 20), ..EngineConfig::default() };
    let mut engine = Engine::load(Cpu::new(None).unwrap(), &expert, Some(&amateur), &config).unwrap();
    let (mut submitted, mut finished, mut warm) = (0, 0, None);
    while finished < REQUESTS {
        while submitted < REQUESTS && submitted - finished < 128 {
            let words = ["river", "stone", "a longer question about seven green gardens"][submitted % 3];
            let instruction = format!("Write {words} {} times.", submitted % 97);
            let request = Request {
                seed: 3,
                max_tokens: 1 + submitted % 4,
                ..Request::new(submitted.to_string(), instruction)
            };
            let sequence = engine.submit(request).unwrap();
            // Some are cancelled, as by a client that has gone.
            if submitted % 10 == 9 {
                engine.cancel(sequence);
            }
            submitted += 1;
        }
        engine.step().unwrap();
        while engine.finished().is_some() {
            finished += 1;
            if finished == WARM {
                warm = resident();
            }
        }
    }
    assert_eq!(engine.pending(), 0);
    if let (Some(warm), Some(end)) = (warm, resident()) {
        println!("{warm} KiB after {WARM} requests, {end} after {REQUESTS}");
        assert!(end < warm + SLACK_KIB, "{warm} KiB grew to {end}");
    }
}
