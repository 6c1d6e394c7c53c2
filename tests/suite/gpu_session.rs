//! Rehearses `benches/gpu_session.sh` on replacements of NVIDIA's driver, libraries and tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::cuda::{has_kernels, stand_in};
use super::program::Workplace;

/// Shared memory that a block may have on cards of compute capability 8.6, 8.9 and 12.0; other cards have more.
const LEAST_SHARED: &str = "101376";

const NVIDIA_SMI: &str = "echo name, driver_version\necho a stand-in, 999.0";
/// Runs the program among its arguments, which begins after the options.
const SANITIZER: &str =
    "while [[ $1 != codit ]]; do shift; done\n\"$@\" || exit\necho ERROR SUMMARY: 0 errors";

/// A folder with a shell script for each tool.
fn tools(place: &Workplace, scripts: &[(&str, &str)]) -> PathBuf {
    let folder = place.path("tools");
    fs::create_dir_all(&folder).unwrap();
    for (name, script) in scripts {
        let path = folder.join(name);
        fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gpu_session.sh")
}

/// The shape of the smallest model there is.
const TINY: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
    "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
    "head_dim": 16, "vocab_size": 32, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false, "dtype": "bfloat16"}"#;

/// What makes a session short, apart from its shapes.
const SMALL: [&str; 6] = ["--rows", "1,2", "--contexts", "36,38", "--output-len", "32"];

/// A session of two shapes called `tiny` and `twin`, with few checks and prompts, in a new folder.
fn session(place: &Workplace, tools: &Path, options: &[&str], steps: &[&str]) -> Command {
    let shape = |name| {
        let folder = place.path(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), TINY).unwrap();
        folder.display().to_string()
    };
    let _ = fs::remove_dir_all(place.path("session"));
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    command.arg(script()).args(["--shapes", &format!("{},{}", shape("tiny"), shape("twin"))]).args(SMALL);
    command.args(["--prompts", "4", "--families", "matmul"]);
    command.args(options).arg(env!("CARGO_BIN_EXE_codit")).arg(place.path("session")).args(steps);
    command.env("PATH", format!("{}:{path}", tools.display())).env("LD_LIBRARY_PATH", stand_in());
    command.env("STAND_IN_CLOCK", "1").env("STAND_IN_SHARED", LEAST_SHARED);
    command
}

fn summary(place: &Workplace) -> String {
    fs::read_to_string(place.path("session/summary.md")).unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The cells of the first line of a table that begins with `name`.
fn row<'a>(summary: &'a str, name: &str) -> Vec<&'a str> {
    let line = summary.lines().find(|line| line.starts_with(&format!("| {name} |")));
    line.unwrap_or_else(|| panic!("{name}: {summary}")).split('|').map(str::trim).skip(1).collect()
}

/// The names that `--list` prints.
fn steps(options: &[&str]) -> Vec<String> {
    let output = Command::new("bash").arg(script()).args(options).arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// One step of each kind, in a minute of two cores; the ablation alone takes another.
#[test]
fn a_session_measures_and_packs_what_it_found() {
    let kinds = [
        "machine",
        "text",
        "doctor-bfloat16",
        "doctor-fp8",
        "tiny-1",
        "tiny-2-fp8",
        "memcheck",
        "twin-1",
        "tiny-2-one-stream",
        "tiny-2-deterministic",
        "nsys",
    ];
    if has_kernels() {
        rehearse(&kinds.map(str::to_owned));
    }
}

#[test]
#[ignore = "it takes minutes"]
fn a_whole_session_measures_everything() {
    if has_kernels() {
        let all = steps(&[&SMALL[..], &["--shapes", "tiny,twin"]].concat());
        let shortcuts = rehearse(&all);
        let shortcuts = &shortcuts[shortcuts.find("## Shortcuts").unwrap()..];
        assert_eq!(row(shortcuts, "none")[2], "1.00", "{shortcuts}");
    }
}

/// Runs the steps, which must succeed, and checks the summary, which it returns.
fn rehearse(names: &[String]) -> String {
    let place = Workplace::new();
    let tools = tools(&place, &[("nvidia-smi", NVIDIA_SMI), ("compute-sanitizer", SANITIZER)]);
    let chosen: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = ["--packed", "--budget", "36000", "--limit", "3600"];
    let output = session(&place, &tools, &options, &chosen).output().unwrap();
    let summary = summary(&place);
    assert_eq!(output.status.code(), Some(0), "{}{summary}", told(&output));
    let mut files: Vec<_> = fs::read_dir(place.path("session"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    assert_eq!(files, ["steps.tar.gz", "summary.md"]);
    assert!(summary.starts_with("# GPU 0, a stand-in"), "{summary}");
    assert!(summary.contains("a stand-in, 999.0"), "{summary}");

    let archive = Command::new("tar").arg("-tzf").arg(place.path("session/steps.tar.gz")).output().unwrap();
    let archive = String::from_utf8(archive.stdout).unwrap();
    for name in names {
        assert!(archive.contains(&format!("./{name}.log\n")), "{name}: {archive}");
        // There is no stand-in for nsys.
        let expected = if name == "nsys" { "skipped" } else { "passed" };
        assert_eq!(row(&summary, name)[1], expected, "{summary}");
        if !(name.starts_with("tiny-") || name.starts_with("twin-")) {
            continue;
        }
        assert!(archive.contains(&format!("./{name}.json\n")), "{name}: {archive}");
        let table = &summary[summary.find("## Decode steps").unwrap()..];
        let figures = row(table, name);
        let figure = |column: usize| figures[column].trim_end_matches(['%', '?']).parse::<f64>().unwrap();
        let (step, floor) = (figure(2), figure(3));
        assert!(step > 0.0 && floor > 0.0 && figure(6) > 0.0 && figure(7) > 0.0, "{figures:?}");
        assert!((figure(4) - 100.0 * floor / step).abs() < 1.0 + 100.0 / step, "{figures:?}");
        let operations = &table[table.find(&format!("### {name}\n")).unwrap()..];
        assert!(row(operations, "attention")[1].parse::<usize>().unwrap() > 0, "{operations}");
        let said = operations.lines().nth(2).unwrap();
        assert_eq!(said.contains("one stream"), name.ends_with("one-stream"), "{said}");
        assert_eq!(said.contains("weights fp8"), name.ends_with("fp8"), "{said}");
        assert_eq!(said.contains("deterministic"), name.ends_with("deterministic"), "{said}");
    }
    assert!(row(&summary, "text")[3].contains(" of 4 records are those of the CPU"), "{summary}");
    assert!(row(&summary, "doctor-fp8")[3].starts_with("passed: all "), "{summary}");
    assert!(row(&summary, "memcheck")[3].contains("0 errors"), "{summary}");
    summary
}

/// A tool that hangs, a step that fails, a tool that is absent and a lack of time are told apart.
#[test]
fn a_session_goes_on_after_what_fails() {
    if !has_kernels() {
        return;
    }
    let place = Workplace::new();
    let hanging = tools(&place, &[("nvidia-smi", "sleep 1000")]);
    let output = session(&place, &hanging, &["--limit", "2"], &["machine"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(row(&summary(&place), "machine")[1], "**timed out**");

    let mut command = session(&place, &hanging, &[], &["text", "memcheck", "doctor-float32"]);
    let output = command.env("STAND_IN_FAULT", "launch:rms_norm_bf16").output().unwrap();
    let said = summary(&place);
    assert_eq!(output.status.code(), Some(1), "{}{said}", told(&output));
    let text = row(&said, "text");
    assert!(
        text[1] == "**failed**, exit code 1" && text[3].contains("could not launch rms_norm_bf16"),
        "{said}"
    );
    if !Path::new("/usr/local/cuda").exists() {
        assert_eq!(row(&said, "memcheck")[1], "skipped");
    }
    assert_eq!(row(&said, "doctor-float32")[1], "passed");

    let output = session(&place, &hanging, &["--budget", "1"], &["machine", "text"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(["machine", "text"].iter().all(|name| row(&summary(&place), name)[1] == "left out"));
}

/// Libraries are looked for where no variable names them, too; this stops nothing where there are none.
#[test]
fn a_session_needs_no_variable() {
    let place = Workplace::new();
    let tools = tools(&place, &[("nvidia-smi", NVIDIA_SMI)]);
    let output = session(&place, &tools, &[], &["machine"]).env_remove("LD_LIBRARY_PATH").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", told(&output), summary(&place));
    assert!(!told(&output).contains("unbound variable"), "{}", told(&output));
}

#[test]
fn wrong_arguments_begin_no_session() {
    let place = Workplace::new();
    let tools = tools(&place, &[]);
    let folder = place.path("session");
    for (options, steps, said) in [
        (&[][..], &["no-step"][..], "there is no step no-step"),
        (&["--output-len", "36"], &[], "--output-len is 36"),
        (&["--shapes", "tiny"], &[], "--shapes is tiny"),
        (&["--budget", "soon"], &[], "not a positive integer"),
    ] {
        let output = session(&place, &tools, options, steps).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(told(&output).contains(said), "{said}: {}", told(&output));
        assert!(!folder.exists());
    }
    let mut command = session(&place, &tools, &[], &["machine"]);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("summary.md"), "earlier").unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("holds an earlier session"), "{}", told(&output));
    assert_eq!(fs::read_to_string(folder.join("summary.md")).unwrap(), "earlier");
}

/// Every bench that has a prediction is a step, and most benches have one.
#[test]
fn what_is_predicted_is_measured() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/predictions.md");
    let text = fs::read_to_string(table).unwrap();
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let steps = steps(&[]);
    assert!(names.len() > 8 && names.iter().all(|name| steps.iter().any(|step| step == name)), "{names:?}");
}
