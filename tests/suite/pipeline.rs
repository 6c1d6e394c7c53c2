//! Tests the threads of `Replicas::decode`: how far they read ahead, how replicas share requests, and how each
//! failure ends all of them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use codit::device::cpu::Cpu;
use codit::device::gpu::runtime::{GpuRuntime, Launch, Matmul, Role, Stream};
use codit::device::gpu::{GpuConfig, GpuDevice};
use codit::device::simt::Simt;
use codit::device::{Device, Dtype, Format, MemoryInfo};
use codit::engine::Stepped;
use codit::{Engine, EngineConfig, Error, Finish, Preparer, Replicas, Request, Result, embedded};

/// The number of sequences that a replica of these tests runs at once.
const ROWS: usize = 4;

fn load<D: Device>(devices: Vec<D>) -> Replicas<D> {
    let config =
        EngineConfig { max_num_seqs: ROWS, kv_cache_memory: Some(8 << 20), ..EngineConfig::default() };
    Replicas::load(devices, &embedded::expert(), Some(&embedded::amateur()), &config).unwrap()
}

fn replicas(count: usize) -> Replicas<Cpu> {
    load((0..count).map(|_| Cpu::new(Some(1)).unwrap()).collect())
}

/// A request for `tokens` tokens, identified by its number.
fn request(number: usize, tokens: usize) -> Request {
    let request = Request::new(number.to_string(), format!("What is {number} plus 4?"));
    Request { max_tokens: tokens, ignore_eos: true, tag: number, ..request }
}

/// `count` requests for 1 to 7 tokens each.
fn requests(count: usize) -> impl Iterator<Item = Result<Request>> + Send {
    (0..count).map(|number| Ok(request(number, 1 + number * 3 % 7)))
}

#[allow(clippy::unnecessary_wraps, reason = "this is what Replicas::decode calls")]
fn goes_on(_: Stepped) -> Result<ControlFlow<()>> {
    Ok(ControlFlow::Continue(()))
}

/// Decodes; returns the result and the numbers of the requests that were handed over, in order.
fn decode<D: Device>(
    replicas: &mut Replicas<D>,
    requests: impl Iterator<Item = Result<Request>> + Send,
) -> (Result<()>, Vec<usize>) {
    let mut done = Vec::new();
    let result = replicas.decode(requests, |step| {
        done.extend(step.completions.iter().map(|completion| completion.tag));
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), done.len(), "handed over twice: {done:?}");
    (result, done)
}

#[test]
fn one_replica_keeps_the_order_of_requests() {
    let config = EngineConfig { max_num_seqs: 1, kv_cache_memory: Some(8 << 20), ..EngineConfig::default() };
    let devices = vec![Cpu::new(Some(1)).unwrap()];
    let mut replica =
        Replicas::load(devices, &embedded::expert(), Some(&embedded::amateur()), &config).unwrap();
    let (result, done) = decode(&mut replica, requests(30));
    result.unwrap();
    assert_eq!(done, (0..30).collect::<Vec<_>>());
}

/// The reader waits for steps; the running rows must continue meanwhile.
#[test]
fn rows_decode_while_the_next_request_is_read() {
    let (step_done, steps) = channel();
    let requests = (0..ROWS + 3).map(move |number| {
        // The first step needs as many requests as there are rows, and no more.
        for _ in 0..if number > ROWS { 5 } else { 0 } {
            steps.recv_timeout(Duration::from_mins(1)).expect("a step while the request is read");
        }
        Ok(request(number, 40))
    });
    let mut done = 0;
    replicas(1)
        .decode(requests, |step| {
            done += step.completions.len();
            // After the last request, nobody receives.
            let _ = step_done.send(());
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert_eq!(done, ROWS + 3);
}

/// Neither a slow caller nor a long list of requests makes memory grow.
#[test]
fn a_slow_caller_bounds_what_is_read() {
    for count in [1, 3] {
        let read = AtomicUsize::new(0);
        let requests = requests(200).inspect(|_| {
            read.fetch_add(1, Ordering::Relaxed);
        });
        // Requests in memory: the channel and one in the feeder; the running rows; for each replica, two steps that
        // wait and one that it is about to hand over.
        let most = (count * ROWS + 1) + count * ROWS + 3 * count * ROWS;
        let (mut done, mut ahead) = (0, 0);
        let each = |step: Stepped| {
            thread::sleep(Duration::from_millis(3));
            ahead = ahead.max(read.load(Ordering::Relaxed) - done);
            done += step.completions.len();
            Ok(ControlFlow::Continue(()))
        };
        replicas(count).decode(requests, each).unwrap();
        assert_eq!((done, read.into_inner()), (200, 200));
        assert!(ahead <= most + ROWS && ahead >= 2 * ROWS, "{ahead} requests in memory, {most} expected");
    }
}

/// Each replica takes an equal part of the remaining requests, however fast requests are read.
#[test]
fn no_replica_takes_more_than_its_share() {
    const TOKENS: usize = 12;
    for (count, total, is_slow) in [(2, 6, false), (2, 6, true), (3, 6, true), (3, 12, false), (2, 2, true)] {
        let requests = (0..total).map(|number| {
            if is_slow {
                thread::sleep(Duration::from_millis(2));
            }
            Ok(request(number, TOKENS))
        });
        let mut replicas = replicas(count);
        let (result, done) = decode(&mut replicas, requests);
        result.unwrap();
        assert_eq!(done.len(), total);
        let sampled = replicas.first().stats().sampled as usize;
        assert_eq!(sampled, total / count * TOKENS, "{count} replicas, {total} requests");
    }
}

#[test]
fn a_caller_that_fails_ends_the_run() {
    for (count, fails_at) in [(1, 1), (1, 9), (3, 1), (3, 20)] {
        let read = AtomicUsize::new(0);
        let requests = requests(400).inspect(|_| {
            read.fetch_add(1, Ordering::Relaxed);
        });
        let mut done = 0;
        let each = |step: Stepped| {
            done += step.completions.len();
            if done >= fails_at { Err(Error::Device("full".to_owned())) } else { goes_on(step) }
        };
        assert_eq!(replicas(count).decode(requests, each).unwrap_err().to_string(), "full");
        let read = read.into_inner();
        assert!(read < 200, "{read} requests were read for {done}");
    }
}

#[test]
fn a_reader_that_fails_ends_the_run_after_what_came_before() {
    for count in [1, 3] {
        for fails_at in [0, 1, 5, 60] {
            let torn = std::iter::once(Err(Error::Request("torn".to_owned())));
            let never = std::iter::once_with(|| panic!("read on after an error"));
            let (result, done) = decode(&mut replicas(count), requests(fails_at).chain(torn).chain(never));
            assert_eq!(result.unwrap_err().to_string(), "torn");
            // Every request is done, except those that were running.
            assert!(done.len() + count * ROWS >= fails_at, "{} of {fails_at} done", done.len());
        }
    }
}

/// The error concerns all requests, not only one, and is found when a replica takes a request.
#[test]
fn a_setting_out_of_range_ends_the_run() {
    for count in [1, 3] {
        let mut wrong = request(50, 4);
        wrong.contrast.temperature = -1.0;
        let (result, done) =
            decode(&mut replicas(count), requests(50).chain([Ok(wrong)]).chain(requests(200)));
        assert!(matches!(result, Err(Error::Setting(_))), "{result:?}");
        assert!(done.len() + count * ROWS >= 50 && done.len() < 150, "{} done", done.len());
    }
}

/// A request that cannot be served fails alone, whether the feeder or a replica finds the error.
#[test]
fn requests_that_cannot_be_served_yield_failed_completions() {
    let bad = |number| match number % 3 {
        0 => Request { prompt: codit::Prompt::Tokens(vec![]), ..request(number, 4) },
        1 => Request {
            prompt: codit::Prompt::Tokens(vec![codit::ids::TokenId(u32::MAX)]),
            ..request(number, 4)
        },
        _ => Request { prompt: codit::Prompt::Text("river ".repeat(5000)), ..request(number, 4) },
    };
    for count in [1, 3] {
        for is_good in [|_| false, |number| number % 4 == 0] {
            let requests =
                (0..60).map(|number| Ok(if is_good(number) { request(number, 4) } else { bad(number) }));
            let mut done = BTreeSet::new();
            let each = |step: Stepped| {
                for completion in step.completions {
                    let has_failed = matches!(completion.finish, Finish::Failed(Error::Request(_)));
                    assert_eq!(has_failed, !is_good(completion.tag), "{completion:?}");
                    assert!(done.insert(completion.tag));
                }
                Ok(ControlFlow::Continue(()))
            };
            replicas(count).decode(requests, each).unwrap();
            assert_eq!(done.len(), 60);
        }
    }
}

#[test]
fn a_panic_ends_the_run() {
    for count in [1, 3] {
        let requests_that_panic = requests(400).inspect(|request| {
            let number = request.as_ref().map_or(0, |request| request.tag);
            assert!(number < 40, "the reader's panic");
        });
        let (result, done) = decode(&mut replicas(count), requests_that_panic);
        let message = result.unwrap_err().to_string();
        assert!(message.contains("internal error") && done.len() <= 40, "{message}, {} done", done.len());

        // A panic of the caller reaches the caller unchanged.
        let each = |_| panic!("the caller's panic");
        let panic = catch_unwind(AssertUnwindSafe(|| replicas(count).decode(requests(400), each)));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"the caller's panic"));
    }
}

/// When the caller stops early, finished requests stay finished, and the replicas can continue.
#[test]
fn what_was_broken_off_is_finished_by_the_next_call() {
    let mut replicas = replicas(2);
    let mut done = BTreeSet::new();
    let each = |step: Stepped| {
        done.extend(step.completions.iter().map(|completion| completion.tag));
        Ok(if done.len() >= 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    replicas.decode(requests(100), each).unwrap();
    assert!((10..40).contains(&done.len()), "{done:?}");
    let (result, rest) = decode(&mut replicas, (100..120).map(|number| Ok(request(number, 3))));
    result.unwrap();
    assert!(rest.iter().all(|number| done.insert(*number)), "{rest:?} after {done:?}");
    assert!((100..120).all(|number| done.contains(&number)));
}

/// A runtime that fails, or panics, after a number of reads. [`Breaks::NEVER`] turns this off.
struct Breaking {
    host: Simt,
    breaks: Breaks,
}

#[derive(Clone)]
struct Breaks {
    reads: Arc<AtomicUsize>,
    panics: bool,
}

impl Breaks {
    const NEVER: usize = usize::MAX;
}

macro_rules! as_host {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self, $($argument: $type),*) $(-> $result)? { self.host.runtime().$name($($argument),*) })*
    };
}

type Host = codit::device::simt::Host;

impl GpuRuntime for Breaking {
    type Memory = <Host as GpuRuntime>::Memory;
    type Pending = <Host as GpuRuntime>::Pending;
    type Mark = <Host as GpuRuntime>::Mark;

    as_host! {
        describe() -> String;
        allocate(role: Role, bytes: usize) -> Result<Self::Memory>;
        address(memory: &Self::Memory) -> u64;
        fill(role: Role, memory: &Self::Memory, bytes: usize, source: &mut dyn FnMut(usize, &mut [u8])) -> Result<()>;
        write(role: Role, memory: &Self::Memory, bytes: &[u8]);
        read(role: Role, memory: &Self::Memory, bytes: usize) -> Self::Pending;
        order(before: Stream, after: Stream);
        launch(stream: Stream, launch: &Launch, parameters: &[u8]);
        matmul(role: Role, matmul: &Matmul) -> bool;
        copy(role: Role, from: &Self::Memory, to: &Self::Memory, bytes: usize);
        mark(role: Role) -> Self::Mark;
        seconds(from: &Self::Mark, to: &Self::Mark) -> Result<f64>;
        replay(key: u64, record: &mut dyn FnMut());
        is_split() -> bool;
        memory_info(role: Role) -> Result<MemoryInfo>;
        multiprocessors(role: Role) -> usize;
        runs_ahead() -> bool;
    }

    fn wait(&self, pending: Self::Pending) -> Result<Vec<u8>> {
        let Breaks { reads, panics } = &self.breaks;
        if reads.load(Ordering::Relaxed) != Breaks::NEVER && reads.fetch_sub(1, Ordering::Relaxed) == 0 {
            assert!(!panics, "a device's panic");
            return Err(Error::Device("broken".to_owned()));
        }
        self.host.runtime().wait(pending)
    }
}

/// One of two devices fails or panics in one of its first steps.
#[test]
fn a_device_that_fails_ends_the_run() {
    for (fails_after, panics) in [(0, false), (3, false), (9, false), (3, true)] {
        let reads = [0; 2].map(|_| Arc::new(AtomicUsize::new(Breaks::NEVER)));
        let open = |reads: &Arc<AtomicUsize>| {
            let breaks = Breaks { reads: Arc::clone(reads), panics };
            let config = GpuConfig::of(Format::of(Dtype::F32));
            GpuDevice::new(Breaking { host: Simt::simt(Dtype::F32, 0), breaks }, config)
        };
        let mut replicas = load(reads.iter().map(open).collect());
        reads[1].store(fails_after, Ordering::Relaxed);
        let (result, done) = decode(&mut replicas, requests(60));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(if panics { "internal error" } else { "broken" }), "{message}");
        assert!(done.len() < 60 && (fails_after < 9 || !done.is_empty()), "{} done", done.len());
    }
}

/// Requests that other threads prepared get the same responses as unprepared requests.
#[test]
fn a_prepared_request_needs_no_text_work_and_changes_nothing() {
    let load = || {
        let config = EngineConfig { kv_cache_memory: Some(8 << 20), ..EngineConfig::default() };
        let (expert, amateur) = (embedded::expert(), embedded::amateur());
        Engine::load(Cpu::new(Some(1)).unwrap(), &expert, Some(&amateur), &config).unwrap()
    };
    let responses = |engine: Engine<Cpu>| {
        let mut responses: Vec<_> =
            engine.map(|done| done.unwrap()).map(|done| (done.tag, done.tokens, done.scores)).collect();
        responses.sort_by_key(|(tag, ..)| *tag);
        responses
    };
    let mut engine = load();
    let preparer: &Preparer = engine.preparer();
    let half = |half: usize| (0..5).map(move |i| preparer.prepare(request(2 * i + half, 8)).unwrap());
    let prepared: Vec<Request> = thread::scope(|scope| {
        let threads = [0, 1].map(|which| scope.spawn(move || half(which).collect::<Vec<_>>()));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for request in prepared {
        assert!(matches!(request.prompt, codit::Prompt::Tokens(_)));
        engine.submit(request).unwrap();
    }
    let mut other = load();
    for number in 0..10 {
        other.submit(request(number, 8)).unwrap();
    }
    assert_eq!(responses(engine), responses(other));
}
