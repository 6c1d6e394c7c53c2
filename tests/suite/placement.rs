//! Tests a pair split over several GPUs, which the host simulates, and replicas on several devices: they take
//! requests from one queue and give the same texts. `cuda.rs` tests the same on the stand-in for CUDA's driver.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use codit::device::cpu::Cpu;
use codit::device::gpu::GpuConfig;
use codit::device::simt::Simt;
use codit::device::{Dtype, Format};
use codit::engine::Shortcuts;
use codit::{EngineConfig, Error, Finish, Replicas, Request, Result, embedded};

use crate::program::{Workplace, message, records, refuse, sorted_lines, start, succeed};

const SMALL: [&str; 8] = ["--seed", "1", "--max-tokens", "9", "--max-num-seqs", "3", "--device", "simt"];

/// A split pair computes all of the amateur's logits. With gathered candidates, the last bits of the scores differ.
#[test]
fn a_split_pair_and_replicas_of_it_write_what_one_gpu_writes() {
    let place = Workplace::new();
    let input = place.instructions(7);
    let together = place.path("together");
    let small = [&SMALL[..], &["--shortcuts", "shared-prefixes"]].concat();
    succeed(&input, &together, &small);
    let places: [&[&str]; 2] = [&["--devices", "0,1,2"], &["--devices", "4,5,6,7", "--placement", "split"]];
    for (index, arguments) in places.iter().enumerate() {
        let output = place.path(&index.to_string());
        succeed(&input, &output, &[&small[..], arguments].concat());
        assert_eq!(sorted_lines(&output), sorted_lines(&together), "{arguments:?}");
    }
}

#[test]
fn replicas_that_are_killed_are_resumed_by_fewer() {
    let place = Workplace::new();
    let input = place.instructions(20);
    let (unbroken, output) = (place.path("unbroken"), place.path("out"));
    succeed(&input, &unbroken, &SMALL);
    let replicas = [&SMALL[..], &["--devices", "0,1,2"]].concat();
    let mut child = start(&input, &output, &replicas);
    let deadline = Instant::now() + Duration::from_mins(1);
    while std::fs::metadata(&output).map_or(0, |m| m.len()) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let result = succeed(&input, &output, &SMALL);
    assert!(message(&result).contains("resuming after"), "{}", message(&result));
    assert_eq!(sorted_lines(&output), sorted_lines(&unbroken));
    assert_eq!(records(&output).len(), 20);
}

#[test]
fn places_that_cannot_be_are_refused() {
    let place = Workplace::new();
    let input = place.instructions(1);
    let refusals: [(&[&str], &str); 5] = [
        (&["--device", "cpu", "--devices", "0,1"], "are for GPUs"),
        (&["--device", "cpu", "--placement", "split"], "are for GPUs"),
        (&["--device", "simt", "--devices", "0,1,0"], "GPU 0 twice"),
        (&["--device", "simt", "--devices", "0,1,2", "--placement", "split"], "takes two GPUs"),
        (&["--device", "simt", "--placement", "split", "--beta", "0"], "no amateur"),
    ];
    for (arguments, why) in refusals {
        let said = refuse(&input, &place.path("out"), arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

/// The checks of `codit doctor` for two GPUs.
#[test]
fn a_split_pair_responds_as_on_the_cpu() {
    let open = || Ok(Simt::simt_with(GpuConfig::of(Format::of(Dtype::F32)), 5, true));
    for check in codit::doctor::pair::checks(&open, false).unwrap() {
        assert!(check.passes(), "{check:?}");
    }
}

fn replicas(count: usize) -> Replicas<Cpu> {
    let config = EngineConfig { max_num_seqs: 4, kv_cache_memory: Some(8 << 20), ..EngineConfig::default() };
    let devices = (0..count).map(|_| Cpu::new(Some(1)).unwrap()).collect();
    Replicas::load(devices, &embedded::expert(), Some(&embedded::amateur()), &config).unwrap()
}

fn requests(count: usize) -> Vec<Result<Request>> {
    let request =
        |i: usize| Request { max_tokens: 4 + i % 9, ..Request::new(format!("r{i}"), "What is 3 plus 4?") };
    (0..count).map(|i| Ok(request(i))).collect()
}

/// Each request's response by id, and the largest number of requests that ran at once.
fn decode(count: usize, requests: Vec<Result<Request>>) -> (BTreeMap<String, Vec<u32>>, usize) {
    let (mut responses, mut running) = (BTreeMap::new(), 0);
    let each = |step: codit::engine::Stepped| {
        running = running.max(step.stats.running);
        for done in step.completions {
            let tokens = done.tokens.iter().map(|token| token.0).collect();
            assert!(responses.insert(done.id, tokens).is_none());
        }
        Ok(ControlFlow::Continue(()))
    };
    replicas(count).decode(requests.into_iter(), each).unwrap();
    (responses, running)
}

#[test]
fn devices_share_a_queue_and_change_nothing() {
    let (alone, running) = decode(1, requests(40));
    assert_eq!((alone.len(), running), (40, 4));
    let (found, running) = decode(3, requests(40));
    assert!(found == alone && running > 4, "{running} ran at once");
    // There are fewer requests than one replica could run; they are divided all the same.
    let (found, _) = decode(3, requests(3));
    assert_eq!(found.len(), 3);
}

/// When all responses end at once, as many requests are taken as fit. Another thread has already done their text
/// work.
#[test]
fn a_burst_of_requests_is_taken_without_text_work() {
    let config = EngineConfig {
        max_num_seqs: 80,
        max_num_batched_tokens: Some(4096),
        kv_cache_memory: Some(64 << 20),
        async_scheduling: Some(true),
        // All prompts are computed in one step, so all responses end in one step.
        shortcuts: Some(Shortcuts::NONE),
        ..EngineConfig::default()
    };
    let devices = vec![Cpu::new(Some(1)).unwrap()];
    let mut replicas =
        Replicas::load(devices, &embedded::expert(), Some(&embedded::amateur()), &config).unwrap();
    let read = AtomicUsize::new(0);
    let requests = requests(200).into_iter().map(|request| {
        read.fetch_add(1, Ordering::Relaxed);
        Ok(Request { max_tokens: 8, ignore_eos: true, ..request? })
    });
    let mut taken = vec![0];
    let mut done = 0;
    let each = |step: codit::engine::Stepped| {
        done += step.completions.len();
        let held = step.stats.running + step.stats.waiting;
        assert!(held <= 80, "{held} at once");
        taken.push(done + held);
        // Delays the steps until the next 80 requests are prepared.
        let deadline = Instant::now() + Duration::from_mins(1);
        while read.load(Ordering::Relaxed) < (done + held + 81).min(200) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(ControlFlow::Continue(()))
    };
    replicas.decode(requests, each).unwrap();
    let each: Vec<usize> =
        taken.windows(2).map(|step| step[1] - step[0]).filter(|taken| *taken > 0).collect();
    assert!(each[..2] == [80, 80] && done == 200, "{each:?}");
}

#[test]
fn a_bad_request_is_its_own_fault_and_a_bad_queue_ends_the_run() {
    let mut list = requests(12);
    list[3] = Ok(Request { prompt: codit::Prompt::Tokens(vec![]), ..Request::new("empty", "") });
    let mut failed = Vec::new();
    let each = |step: codit::engine::Stepped| {
        failed.extend(step.completions.into_iter().filter(|done| matches!(done.finish, Finish::Failed(_))));
        Ok(ControlFlow::Continue(()))
    };
    replicas(2).decode(list.into_iter(), each).unwrap();
    assert!(failed.len() == 1 && failed[0].id == "empty");

    let mut list = requests(40);
    list[20] = Err(Error::Request("torn".to_owned()));
    let mut done = 0;
    let each = |step: codit::engine::Stepped| {
        done += step.completions.len();
        Ok(ControlFlow::Continue(()))
    };
    let error = replicas(2).decode(list.into_iter(), each).unwrap_err();
    assert!(error.to_string() == "torn" && done > 4 && done < 40, "{error}: {done} done");

    // The caller may stop early or fail.
    let mut steps = 0;
    let each = |_| {
        steps += 1;
        Ok(ControlFlow::Break(()))
    };
    replicas(3).decode(requests(40).into_iter(), each).unwrap();
    assert!((1..=9).contains(&steps), "{steps} steps");
    let full = |_| Err(Error::Device("full".to_owned()));
    assert_eq!(replicas(3).decode(requests(40).into_iter(), full).unwrap_err().to_string(), "full");
}
