//! Runs the fuzz targets over damaged seeds, without cargo-fuzz and its nightly toolchain.
//!
//! ```text
//! mutate [--cases N] [--seconds S] [--run R] [--jobs J] [TARGET...]    N cases of each target, or as many as take S seconds
//! mutate --replay TARGET FILE...                                       the target over files, such as findings
//! ```
//!
//! The cases of a run are always the same. They run in child processes with a limit on memory and on the time of one case,
//! so that an abort is found like a panic. What is found is written to `findings/TARGET/`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, panic, process, thread};

use codit_fuzz::mutate::Mutator;
use codit_fuzz::{TARGETS, Target};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::alarm;

/// Bytes of address space of a child.
const MEMORY: u64 = 6 << 30;
/// Seconds of one case. The slowest that is right takes a few: a template has three.
const CASE_SECONDS: u32 = 60;
/// Cases of a child, so that what a case leaves behind is not blamed on a later one.
const CASES_OF_A_CHILD: u64 = 5_000;
/// Findings of a target after which it is left alone.
const MOST_FINDINGS: usize = 20;
/// The exit code of a child in which a panic was contained, but not without a word.
const SPOKE: i32 = 102;

struct Options {
    cases: u64,
    seconds: Option<u64>,
    run: u64,
    jobs: usize,
    names: Vec<String>,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_sound = match arguments[..] {
        ["--child", name, run, first, end, deadline, progress] => {
            let number = |text: &str| text.parse().expect("a number");
            child(target(name), number(run), number(first)..number(end), number(deadline), progress);
            true
        }
        ["--child-replay", name, file] => {
            replay(name, file);
            true
        }
        ["--replay", name, ref files @ ..] => {
            files.iter().fold(true, |sound, file| replay_apart(name, file) && sound)
        }
        _ => run_all(&options(&arguments)),
    };
    process::exit(i32::from(!is_sound));
}

fn options(arguments: &[&str]) -> Options {
    let mut options = Options { cases: 10_000, seconds: None, run: 1, jobs: 2, names: Vec::new() };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().and_then(|text| text.parse::<u64>().ok()).expect("a number after the flag");
        match *argument {
            "--cases" => options.cases = number(),
            "--seconds" => options.seconds = Some(number()),
            "--run" => options.run = number(),
            "--jobs" => options.jobs = number() as usize,
            name => options.names.push(target(name).name.to_owned()),
        }
    }
    options
}

fn target(name: &str) -> &'static Target {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let found = TARGETS.iter().position(|target| target.name == name);
    &TARGETS[found.unwrap_or_else(|| panic!("no target {name:?}; there are {names:?}"))]
}

/// Runs all targets that `options` name; whether none found anything.
fn run_all(options: &Options) -> bool {
    let is_chosen =
        |target: &&Target| options.names.is_empty() || options.names.iter().any(|name| name == target.name);
    let queue = Mutex::new(TARGETS.iter().filter(is_chosen).collect::<Vec<_>>().into_iter());
    let is_sound = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(target) = queue.lock().expect("no job panics").next() else { break };
                    if !run_target(target, options) {
                        is_sound.store(false, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    is_sound.into_inner()
}

/// Runs one target in children; whether it found nothing.
fn run_target(target: &Target, options: &Options) -> bool {
    let begun = Instant::now();
    let time = options.seconds.map(Duration::from_secs);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let progress = folder.path().join("progress");
    let mut findings = 0;
    let mut next = 0;
    loop {
        let left = time.map_or(Duration::MAX, |time| time.saturating_sub(begun.elapsed()));
        if left.is_zero() || (time.is_none() && next >= options.cases) || findings >= MOST_FINDINGS {
            break;
        }
        let end =
            if time.is_some() { next + CASES_OF_A_CHILD } else { options.cases.min(next + CASES_OF_A_CHILD) };
        fs::write(&progress, next.to_le_bytes()).expect("the file can be written");
        let seconds = left.as_secs().max(1).min(u64::from(u32::MAX));
        let (run, first, last) = (options.run.to_string(), next.to_string(), end.to_string());
        let arguments = ["--child", target.name, &run, &first, &last, &seconds.to_string()];
        let (status, said) = start(&arguments, Some(&progress), folder.path());
        let bytes = fs::read(&progress).expect("the file is there");
        let reached = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        if status.success() {
            next = reached;
            continue;
        }
        findings += 1;
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("findings").join(target.name);
        fs::create_dir_all(&file).expect("the folder can be made");
        let file = file.join(format!("run-{}-case-{reached}", options.run));
        fs::write(&file, mutator(target).case(options.run, reached)).expect("the finding can be written");
        println!("{}: case {reached}: {}: {}", target.name, explain(status), excerpt(&said));
        println!(
            "    cargo run --release --no-default-features -- --replay {} {}",
            target.name,
            file.display()
        );
        next = reached + 1;
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{}: {next} cases, {findings} findings, {took:.0} s", target.name);
    findings == 0
}

/// Runs this program again; returns how it ended and what it said.
fn start(arguments: &[&str], progress: Option<&Path>, folder: &Path) -> (ExitStatus, String) {
    let program = env::current_exe().expect("the program has a path");
    let mut command = Command::new(program);
    command.args(arguments).args(progress).env("TMPDIR", folder).env_remove("RUST_BACKTRACE");
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.expect("the program starts again");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn explain(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(14), _) => format!("runs longer than {CASE_SECONDS} s"),
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(SPOKE)) => "a contained panic speaks".to_owned(),
        (_, code) => format!("exit code {}", code.unwrap_or_default()),
    }
}

/// The first words of what a child said.
fn excerpt(said: &str) -> String {
    said.trim().chars().take(500).map(|c| if c == '\n' { ' ' } else { c }).collect()
}

fn mutator(target: &Target) -> Mutator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Mutator::new(target.kind, paths.iter().filter_map(|path| fs::read(path).ok()).collect())
}

/// Runs cases one after another, and notes each before it begins.
fn child(target: &Target, run: u64, cases: std::ops::Range<u64>, seconds: u64, progress: &str) {
    let progress = File::options().write(true).open(progress).expect("the file is there");
    let mutator = mutator(target);
    let begun = Instant::now();
    contain_children();
    for case in cases.clone() {
        progress.write_all_at(&case.to_le_bytes(), 0).expect("the file can be written");
        if begun.elapsed() >= Duration::from_secs(seconds) {
            return;
        }
        run_case(target.name, &mutator.case(run, case));
    }
    progress.write_all_at(&cases.end.to_le_bytes(), 0).expect("the file can be written");
}

static HAS_SPOKEN: AtomicBool = AtomicBool::new(false);

/// Sets the limits of this process, and notes panics that are not kept quiet.
fn contain_children() {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).expect("a limit can be lowered");
    setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("a limit can be lowered");
    let speak = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        HAS_SPOKEN.store(true, Ordering::Relaxed);
        speak(panic);
    }));
}

fn run_case(name: &str, data: &[u8]) {
    alarm::set(CASE_SECONDS);
    codit_fuzz::run(name, data);
    alarm::cancel();
    if HAS_SPOKEN.load(Ordering::Relaxed) {
        process::exit(SPOKE);
    }
}

fn replay(name: &str, file: &str) {
    contain_children();
    run_case(name, &fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}")));
}

fn replay_apart(name: &str, file: &str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (status, said) = start(&["--child-replay", name, file], None, folder.path());
    println!(
        "{file}: {}{}",
        explain(status),
        if said.is_empty() { String::new() } else { format!("\n{said}") }
    );
    status.success()
}
