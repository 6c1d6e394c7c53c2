//! The program, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
};

/// A folder for one test's files; it is removed when the test ends.
pub struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The folders of copies of the embedded expert and amateur whose config.json is changed.
    pub fn embedded_pair(&self, change: impl Fn(&str, &mut Value)) -> [String; 2] {
        let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded");
        ["expert", "amateur"].map(|model| {
            let folder = self.path(model);
            std::fs::create_dir(&folder).unwrap();
            for file in std::fs::read_dir(embedded.join(model)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
            }
            let config = folder.join("config.json");
            let mut fields: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
            change(model, &mut fields);
            std::fs::write(config, fields.to_string()).unwrap();
            folder.display().to_string()
        })
    }

    /// An input of `count` instructions of the kind that the embedded pair can answer.
    pub fn instructions(&self, count: usize) -> PathBuf {
        let words = ["river", "stone", "green", "seven", "garden", "letter", "winter"];
        let line = |i: usize| {
            let instruction = format!("Write the word {} in capital letters.", words[i % words.len()]);
            json!({"id": format!("q{i}"), "instruction": instruction, "source": i}).to_string() + "\n"
        };
        self.write("input.jsonl", &(0..count).map(line).collect::<String>())
    }
}

pub fn synth(input: &Path, output: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codit"));
    command.arg("synth").arg(input).arg("-o").arg(output).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Lets programs that begin from now on hear of the signals that this one was started to ignore, as background jobs of a
/// shell are.
pub fn hear_signals() {
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGXCPU, SIGVTALRM, SIGPROF] {
        // A program does not inherit handlers, only what is ignored. This handler does what no handler does.
        let always = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_default(signal, always).unwrap();
    }
}

pub fn start(input: &Path, output: &Path, arguments: &[&str]) -> Child {
    synth(input, output, arguments).spawn().unwrap()
}

/// Runs to the end, which must be a success.
pub fn succeed(input: &Path, output: &Path, arguments: &[&str]) -> Output {
    let result = synth(input, output, arguments).output().unwrap();
    assert!(result.status.success(), "{}: {}", result.status, message(&result));
    result
}

/// Runs to the end, which must be a failure with exit code 2 and one line on stderr; returns that line.
pub fn refuse(input: &Path, output: &Path, arguments: &[&str]) -> String {
    let result = synth(input, output, arguments).output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(said.starts_with("codit: error: ") && said.trim_end().lines().count() == 1, "{said}");
    said
}

pub fn message(result: &Output) -> String {
    String::from_utf8_lossy(&result.stderr).into_owned()
}

pub fn records(output: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of a dataset in an order that does not depend on the run.
pub fn sorted_lines(output: &Path) -> Vec<String> {
    let mut lines: Vec<String> =
        std::fs::read_to_string(output).unwrap().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}
