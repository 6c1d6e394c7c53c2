//! Models given by name: downloads, resumed downloads, pinned revisions, the cache, and refusals.

mod layouts;
mod other_hubs;
mod pairs;
mod server;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Workplace, message, records, sorted_lines, synth};
pub use server::{FakeHub, Fault, Files, Habits};

const PAIR: [&str; 4] = ["--expert", "acme/chat", "--amateur", "acme/base"];
const SETTINGS: [&str; 4] = ["--seed", "9", "--max-tokens", "24"];
const WEIGHTS: &str = "model.safetensors";

/// A hub with the embedded pair.
fn hub() -> FakeHub {
    let hub = FakeHub::start();
    hub.commit("acme/chat", embedded("expert"));
    hub.commit("acme/base", embedded("amateur"));
    hub
}

/// An embedded model, with the other files that a repository usually holds.
fn embedded(model: &str) -> Files {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded").join(model);
    let mut files = read_folder(&folder);
    for file in ["README.md", "pytorch_model.bin", "model-extra.safetensors"] {
        files.insert(file.to_owned(), b"not for us".to_vec());
    }
    files
}

/// The files in `folder`, without the files in its subfolders.
pub fn read_folder(folder: &Path) -> Files {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file());
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect()
}

/// A `codit synth` command that takes its models from the hub.
fn command(hub: &FakeHub, place: &Workplace, output: &str, arguments: &[&str]) -> Command {
    let input = place.path("input.jsonl");
    let mut command = synth(&input, &place.path(output), &[&SETTINGS, arguments].concat());
    hub.serve(&mut command, &place.path("home"));
    command
}

fn run(hub: &FakeHub, place: &Workplace, output: &str, arguments: &[&str]) -> Output {
    let result = command(hub, place, output, arguments).output().unwrap();
    assert!(result.status.success(), "{}: {}", result.status, message(&result));
    result
}

fn workplace() -> Workplace {
    let place = Workplace::new();
    place.instructions(4);
    place
}

fn manifest(place: &Workplace, output: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(&format!("{output}-manifest"))).unwrap()).unwrap()
}

fn cache(place: &Workplace, repository: &str) -> PathBuf {
    place.path("home").join("hub").join(format!("models--{}", repository.replace('/', "--")))
}

#[test]
fn a_pair_is_fetched_once_into_the_cache_that_others_read() {
    let (hub, place) = (hub(), workplace());
    let mut plan = Command::new(env!("CARGO_BIN_EXE_codit"));
    hub.serve(plan.arg("plan").args(PAIR), &place.path("home"));
    assert!(plan.output().unwrap().status.success());
    assert_eq!(hub.served().into_keys().collect::<Vec<_>>(), ["config.json"], "a plan needs no more");

    run(&hub, &place, "out", &PAIR);
    let record = &records(&place.path("out"))[0]["res_metadata"];
    assert_eq!((&record["expert_model_id"], &record["amateur_model_id"]), (&PAIR[1].into(), &PAIR[3].into()));
    let folder = cache(&place, "acme/chat");
    let commit = fs::read_to_string(folder.join("refs/main")).unwrap();
    assert_eq!(manifest(&place, "out")["expert"]["revision"], commit.as_str());
    assert_eq!(fs::read_dir(folder.join("refs")).unwrap().count(), 1);
    let snapshot = folder.join("snapshots").join(&commit);
    let expected = embedded("expert");
    let found = fs::read_dir(&snapshot).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<String> = found.collect();
    found.sort_unstable();
    let wanted = |name: &&String| name.contains("config") || name.contains("token") || name.contains("chat");
    let wanted = expected.keys().filter(|name| wanted(name) || *name == WEIGHTS);
    assert_eq!(found, wanted.cloned().collect::<Vec<_>>());
    for file in &found {
        let target = fs::read_link(snapshot.join(file)).unwrap();
        assert!(
            target.starts_with("../../blobs") && fs::read(snapshot.join(file)).unwrap() == expected[file]
        );
    }

    // The same run works from the cache: with the hub reachable, without network, and in offline mode.
    hub.served();
    run(&hub, &place, "again", &PAIR);
    assert!(hub.served().is_empty());
    let mut offline = command(&hub, &place, "offline", &PAIR);
    assert!(offline.env("HF_HUB_OFFLINE", "1").output().unwrap().status.success());
    let mut alone = command(&hub, &place, "alone", &PAIR);
    drop(hub);
    let alone = alone.output().unwrap();
    assert!(alone.status.success() && message(&alone).contains(&commit), "{}", message(&alone));
    for output in ["again", "offline", "alone"] {
        assert_eq!(sorted_lines(&place.path(output)), sorted_lines(&place.path("out")));
    }
}

/// A connection breaks, then a process is killed. Each byte is sent only once.
#[test]
fn an_interrupted_transfer_goes_on_where_it_broke_off() {
    let (hub, place) = (hub(), workplace());
    let size = embedded("expert")[WEIGHTS].len();
    let alone = ["--expert", "acme/chat", "--beta", "0"];

    hub.fail(WEIGHTS, Fault::Cut(size / 3));
    let mut first = command(&hub, &place, "out", &alone).spawn().unwrap();
    wait_for_part(&place, size / 3);
    hub.fail(WEIGHTS, Fault::Stall(size / 2));
    wait_for_part(&place, size / 2);
    first.kill().unwrap();
    first.wait().unwrap();

    run(&hub, &place, "out", &alone);
    assert_eq!(hub.served()[WEIGHTS], size as u64);

    // This is the state of a process that is killed when the whole file has arrived but is not yet in its place.
    let blobs = cache(&place, "acme/chat").join("blobs");
    let weights = fs::read_dir(&blobs).unwrap().map(|blob| blob.unwrap().path());
    let weights = weights.max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
    fs::rename(&weights, weights.with_extension("part")).unwrap();
    run(&hub, &place, "again", &alone);
    assert_eq!(sorted_lines(&place.path("again")), sorted_lines(&place.path("out")));
}

fn wait_for_part(place: &Workplace, size: usize) {
    let deadline = Instant::now() + Duration::from_mins(1);
    let has_part = || {
        let Ok(blobs) = fs::read_dir(cache(place, "acme/chat").join("blobs")) else { return false };
        let mut parts = blobs.map(|blob| blob.unwrap().path()).filter(|path| path.extension().is_some());
        parts.any(|part| fs::metadata(part).is_ok_and(|part| part.len() == size as u64))
    };
    while !has_part() {
        assert!(Instant::now() < deadline, "no part of {size} bytes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_resumed_run_keeps_its_commit() {
    let (hub, place) = (hub(), workplace());
    run(&hub, &place, "out", &PAIR);
    let (began, before) = (manifest(&place, "out"), sorted_lines(&place.path("out")));
    hub.served();

    // The repository gets a new commit: other stop ids, the same weights.
    let mut moved = embedded("expert");
    moved.insert("generation_config.json".to_owned(), br#"{"eos_token_id": 5}"#.to_vec());
    let commit = hub.commit("acme/chat", moved);
    let first = before[0].clone() + "\n";
    fs::write(place.path("out"), &first).unwrap();
    run(&hub, &place, "out", &PAIR);
    assert_eq!((manifest(&place, "out"), sorted_lines(&place.path("out"))), (began, before));

    // A resumed run refuses another commit that is asked for explicitly.
    let expert = format!("acme/chat@{commit}");
    let other = command(&hub, &place, "out", &["--expert", &expert, "--amateur", "acme/base"]);
    let said = refusal(other, 2);
    assert!(said.contains("expert.revision was") && said.contains(&commit), "{said}");

    // A new run uses the new commit and does not download the weights again.
    run(&hub, &place, "new", &PAIR);
    assert_eq!(manifest(&place, "new")["expert"]["revision"], commit.as_str());
    assert_eq!(hub.served().into_keys().collect::<Vec<_>>(), ["generation_config.json"]);
}

/// Runs a command that must fail with this exit code and with one line of error, not counting lines about transfers.
/// Returns that line.
fn refusal(mut command: Command, code: i32) -> String {
    let result = command.output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(code), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| !line.starts_with("codit: fetching ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("codit: error: "), "{said}");
    errors[0].to_owned()
}

#[test]
fn a_model_that_cannot_be_had_is_one_clear_error() {
    let (hub, place) = (hub(), workplace());
    let refused = |hub: &FakeHub, expert: &str, code: i32, says: &[&str]| {
        let said = refusal(command(hub, &place, "out", &["--expert", expert, "--beta", "0"]), code);
        assert!(says.iter().all(|what| said.contains(what)), "{said}");
    };
    refused(&hub, "chat", 2, &["\"chat\"", "neither a folder", "owner/name"]);
    refused(&hub, "acme/../chat", 2, &["neither a folder"]);
    refused(&hub, "acme/chta", 2, &["acme/chta", "no folder", "no such repository", "HF_TOKEN"]);
    refused(&hub, "acme/chat@v2", 2, &["acme/chat", "no revision \"v2\"", &hub.url()]);

    hub.fail(WEIGHTS, Fault::Damage);
    refused(&hub, "acme/chat", 1, &["acme/chat", WEIGHTS, "SHA-256", "again"]);
    hub.gate("acme/chat", "sesame");
    fs::remove_dir_all(place.path("home")).unwrap();
    refused(&hub, "acme/chat", 2, &["acme/chat is gated", "licence", "/acme/chat", "HF_TOKEN"]);
    let url = hub.url();
    let mut offline = command(&hub, &place, "out", &["--expert", "acme/chat", "--beta", "0"]);
    offline.env("HF_HUB_OFFLINE", "1");
    assert!(refusal(offline, 2).contains("HF_HUB_OFFLINE"));

    let mut gone = command(&hub, &place, "out", &["--expert", "acme/chat", "--beta", "0"]);
    drop(hub);
    let said = refusal(
        {
            gone.env("HF_HOME", place.path("nothing"));
            gone
        },
        1,
    );
    assert!(
        said.contains("acme/chat is not in the cache") && said.contains(&url) && said.contains("unreachable"),
        "{said}"
    );
    assert!(said.contains("go online, run `hf download acme/chat`, or pass a folder"), "{said}");
}

/// A path is never taken for the name of a repository.
#[test]
fn a_path_that_does_not_exist_is_no_name() {
    let (hub, place) = (hub(), workplace());
    for path in ["./nope", "../nope", "/nope/nope", "~/nope", "acme/chat/"] {
        let said = refusal(command(&hub, &place, "out", &["--expert", path, "--beta", "0"]), 2);
        assert_eq!(said, format!("codit: error: {path}: no such folder"));
    }
}

/// A complete cache needs no writing: an unchanged reference stays, and one that cannot be written is done without.
#[test]
fn a_cache_that_cannot_be_written_serves() {
    let (hub, place) = (hub(), workplace());
    run(&hub, &place, "out", &PAIR);
    let reference = cache(&place, "acme/chat").join("refs/main");
    let written = || fs::metadata(&reference).unwrap().modified().unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(1);
    fs::File::options().append(true).open(&reference).unwrap().set_modified(long_ago).unwrap();
    run(&hub, &place, "again", &PAIR);
    assert_eq!(written(), long_ago);

    // Root may write everywhere, so a file in the place of the folder stands in for a disk that is read-only.
    let references = cache(&place, "acme/chat").join("refs");
    fs::remove_dir_all(&references).unwrap();
    fs::write(&references, "").unwrap();
    run(&hub, &place, "without", &PAIR);
    assert_eq!(sorted_lines(&place.path("without")), sorted_lines(&place.path("out")));
}

/// Paths in the environment are read as Python reads them.
#[test]
fn paths_in_the_environment_are_expanded() {
    let (hub, place) = (hub(), workplace());
    hub.gate("acme/chat", "sesame");
    place.write("tok", "sesame\n");
    let home = place.path("");
    let settings: [(&str, &str, &str); 6] = [
        ("HF_HOME", "~/hf1", "hf1/hub"),
        ("HF_HOME", "$HOME/hf2", "hf2/hub"),
        ("HF_HUB_CACHE", "${HOME}/hf3", "hf3"),
        ("HUGGINGFACE_HUB_CACHE", "~/$NOTHING_OF_THE_KIND", "$NOTHING_OF_THE_KIND"),
        ("HF_HUB_CACHE", "$PLACE/hf5", "hf5"),
        ("XDG_CACHE_HOME", "~/hf6", "hf6/huggingface/hub"),
    ];
    for (name, value, folder) in settings {
        let mut plan = Command::new(env!("CARGO_BIN_EXE_codit"));
        hub.serve(plan.args(["plan", "--expert", "acme/chat"]), &place.path("unused"));
        plan.env_remove("HF_HOME").env_remove("HF_HUB_CACHE");
        plan.env("HOME", &home).env("PLACE", &home).env("HF_TOKEN_PATH", "~/tok").env(name, value);
        let result = plan.current_dir(&home).output().unwrap();
        assert!(result.status.success(), "{name}: {}", message(&result));
        assert!(home.join(folder).join("models--acme--chat").is_dir(), "{name}={value}");
    }
    assert!(!home.join("~").exists() && !home.join("$HOME").exists());
}

#[test]
fn the_token_is_found_where_others_keep_it() {
    let (hub, place) = (hub(), workplace());
    hub.gate("acme/chat", "sesame");
    let file = place.write("token", "sesame\n");
    let tokens = [
        ("HF_TOKEN", "sesame"),
        ("HUGGING_FACE_HUB_TOKEN", "sesame"),
        ("HF_TOKEN_PATH", file.to_str().unwrap()),
        ("HF_HOME", place.path("").to_str().unwrap()),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    for (number, (name, value)) in tokens.into_iter().enumerate() {
        let mut plan = Command::new(env!("CARGO_BIN_EXE_codit"));
        hub.serve(plan.args(["plan", "--expert", "acme/chat"]), &place.path(&format!("home{number}")));
        let result = plan.env(name, value).output().unwrap();
        assert!(result.status.success(), "{name}: {}", message(&result));
    }
    let mut wrong = command(&hub, &place, "out", &["--expert", "acme/chat", "--beta", "0"]);
    wrong.env("HF_TOKEN", "mellon");
    let said = refusal(wrong, 2);
    assert!(said.contains("gated") && said.contains("token in use"), "{said}");
}

/// A limit on the file size stands in for a full disk.
#[test]
fn a_full_disk_keeps_what_has_come() {
    let (hub, place) = (hub(), workplace());
    let size = embedded("expert")[WEIGHTS].len() as u64;
    let alone = ["--expert", "acme/chat", "--beta", "0"];
    let unlimited = command(&hub, &place, "out", &alone);
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\""]);
    limited.arg(unlimited.get_program()).args(unlimited.get_args()).stderr(Stdio::piped()).process_group(0);
    hub.serve(&mut limited, &place.path("home"));
    let said = refusal(limited, 1);
    assert!(said.contains("acme/chat: cannot write") && said.contains("HF_HOME"), "{said}");
    hub.served();
    run(&hub, &place, "out", &alone);
    assert_eq!(hub.served()[WEIGHTS], size - (1 << 20));
}

/// `CODIT_PYTHON` names a Python that has `huggingface_hub`. Files that it downloads are found, and it finds files
/// that codit downloaded.
#[test]
fn the_cache_is_shared_with_python() {
    let Ok(python) = std::env::var("CODIT_PYTHON") else {
        eprintln!("skipped: CODIT_PYTHON does not name a Python that has huggingface_hub");
        return;
    };
    let (hub, place) = (hub(), workplace());
    let snapshot = |repository: &str, offline: &str| {
        let mut command = Command::new(&python);
        hub.serve(&mut command, &place.path("home"));
        let script = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], ignore_patterns=['*.bin', '*.md', '*extra*']))";
        let result =
            command.env("HF_HUB_OFFLINE", offline).args(["-c", script, repository]).output().unwrap();
        assert!(result.status.success(), "{}", message(&result));
        PathBuf::from(String::from_utf8(result.stdout).unwrap().trim())
    };
    snapshot("acme/chat", "0");
    hub.served();
    run(&hub, &place, "out", &["--expert", "acme/chat", "--beta", "0"]);
    assert!(hub.served().is_empty(), "what Python fetched is fetched again");
    run(&hub, &place, "pair", &PAIR);
    hub.served();
    let base = snapshot("acme/base", "1");
    assert_eq!(base, snapshot("acme/base", "0"));
    assert!(
        base.join(WEIGHTS).is_file() && hub.served().is_empty(),
        "what was fetched is fetched by Python again"
    );
}
