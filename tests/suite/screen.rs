//! What a user sees on standard error, and the commands that say what the program is.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::program::{Workplace, message, records, refuse, succeed, synth};

fn codit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_codit")).args(arguments).output().unwrap()
}

/// The JSON objects of a run with `--progress json`.
pub fn events(result: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    message(result).lines().map(parse).collect()
}

/// The object that ends such a run.
pub fn end_event(result: &Output) -> Value {
    events(result).pop().filter(|event| event["event"] == "end").unwrap()
}

#[test]
fn a_run_says_what_it_does_and_how_it_ended() {
    let place = Workplace::new();
    let input = place.instructions(3);
    let output = place.path("out.jsonl");
    let said = message(&succeed(&input, &output, &["--seed", "7", "--max-tokens", "2"]));
    for part in [
        "the built-in demonstration pair: toy answers",
        "codit: device    CPU, ",
        "instruction set ",
        "codit: settings  alpha 0.01, beta 1, temperature 1, top-p 1, max-tokens 2\n",
        "codit: seed      7\n",
        "input.jsonl: 3 rows\n",
        "out.jsonl: new, 3 records to make\n",
        "codit: 6 response tokens in ",
        "/s computed, prompts and both models counted)\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let last = said.lines().last().unwrap();
    assert!(last.ends_with("out.jsonl: 3 of 3 records: 0 finished, 3 cut at 2 tokens, 0 errors"), "{said}");
    // The seed that was drawn is shown.
    let other = place.path("other");
    let said = message(&succeed(&input, &other, &["--max-tokens", "1"]));
    assert!(said.contains(", drawn; --seed repeats the run\n"), "{said}");
    // Lines are short where their values are.
    let embedded = concat!(env!("CARGO_MANIFEST_DIR"), "/embedded/");
    let [expert, amateur] = ["expert", "amateur"].map(|model| format!("{embedded}{model}"));
    let pair = ["--expert", &expert, "--amateur", &amateur, "--max-tokens", "1"];
    let said = message(&succeed(&input, &place.path("pair"), &pair));
    assert!(said.contains(&format!("codit: expert    {expert}\ncodit: amateur   {amateur}\n")), "{said}");
    assert!(!said.contains("demonstration"), "{said}");
}

#[test]
fn a_resumed_run_counts_both_runs_and_a_complete_one_says_so() {
    let place = Workplace::new();
    let input = place.instructions(40);
    let output = place.path("out.jsonl");
    let arguments = ["--max-tokens", "3", "--seed", "1"];
    succeed(&input, &output, &arguments);
    let text = fs::read_to_string(&output).unwrap();
    fs::write(&output, text.split_inclusive('\n').take(9).collect::<String>()).unwrap();
    let said = message(&succeed(&input, &output, &arguments));
    assert!(said.contains(": resuming after 9 records\n"), "{said}");
    let last = said.lines().last().unwrap();
    let finished = records(&output).iter().filter(|record| record["is_completed"] == true).count();
    let ends = format!(" {finished} finished, {} cut at 3 tokens, 0 errors", 40 - finished);
    assert!(
        last.contains("out.jsonl: 40 of 40 records (31 now, 9 before):") && last.ends_with(&ends),
        "{said}"
    );

    let said = message(&succeed(&input, &output, &arguments));
    assert!(said.ends_with("out.jsonl: already complete: 40 records, nothing to do\n"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = refuse(&input, &output, &["--max-tokens", "4", "--seed", "1"]);
    assert!(said.contains("max_tokens was 3, now 4"), "{said}");

    let one = place.write("one.jsonl", "{\"instruction\": \"Name a river.\"}\n");
    let output = place.path("one");
    let said = message(&succeed(&one, &output, &["--max-tokens", "1", "--threads", "1"]));
    for part in
        ["1 row\n", "1 record to make", "1 thread,", "1 of 1 record:", "1 response token in", "1 token,"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = message(&succeed(&one, &output, &["--max-tokens", "1"]));
    assert!(said.contains("already complete: 1 record, nothing to do"), "{said}");
}

#[test]
fn a_sweep_is_announced_and_completed_as_a_whole() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let output = place.path("a{alpha}-b{beta}.jsonl");
    let arguments = ["--alpha", "0.1,0.01", "--beta", "1,0", "--max-tokens", "1", "--n", "3"];
    let said = message(&succeed(&input, &output, &arguments));
    assert!(said.contains("alpha 0.01|0.1, beta 0|1, temperature 1, top-p 1, max-tokens 1, n 3\n"), "{said}");
    assert!(said.contains("a{alpha}-b{beta}.jsonl (4 files): new, 24 records to make\n"), "{said}");
    assert!(said.contains(": 24 of 24 records: "), "{said}");
    let said = message(&succeed(&input, &output, &arguments));
    assert!(said.contains("codit: 4 files (") && said.contains("already complete: 24 records"), "{said}");
}

#[test]
fn monitors_read_json_lines() {
    let place = Workplace::new();
    let input = place.instructions(5);
    let output = place.path("out");
    let arguments = ["--progress", "json", "--max-tokens", "2", "--seed", "3"];
    let result = succeed(&input, &output, &arguments);
    let events = events(&result);
    let start = &events[0];
    assert_eq!(
        (&start["event"], &start["seed"], &start["records_total"]),
        (&"start".into(), &3.into(), &5.into())
    );
    assert_eq!(start["settings"][0]["alpha"], 0.01);
    let end = end_event(&result);
    for (field, value) in
        [("records", 5), ("cut", 5), ("finished", 0), ("errors", 0), ("response_tokens", 10)]
    {
        assert_eq!(end[field], value, "{field}: {end}");
    }
    assert!(end["seconds"].as_f64() > Some(0.0) && end["engine"]["steps"].as_u64() > Some(0), "{end}");
    // What the page about these lines does not name, no line has.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/progress.md");
    let page = fs::read_to_string(page).unwrap();
    for event in &events {
        let fields =
            event.as_object().unwrap().iter().chain(event["engine"].as_object().into_iter().flatten());
        for (field, _) in fields {
            assert!(page.contains(&format!("`{field}`")), "docs/reference/progress.md does not name {field}");
        }
    }
    let complete = synth(&input, &output, &arguments).output().unwrap();
    assert_eq!(crate::screen::events(&complete)[0]["event"], "complete");
    let result = synth(&input, &output, &["--progress", "json", "--alpha", "2"]).output().unwrap();
    let [error] = &crate::screen::events(&result)[..] else { panic!("{}", message(&result)) };
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &2.into()));
    assert!(error["text"].as_str().unwrap().contains("alpha is 2"), "{error}");
}

#[test]
fn a_run_is_quiet_or_verbose_as_asked() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let run = |name: &str, flag: &[&str]| {
        message(&succeed(&input, &place.path(name), &[&["--max-tokens", "1"], flag].concat()))
    };
    assert_eq!(run("quiet", &["-q"]), "");
    assert!(!run("normal", &[]).contains("decided by the expert"));
    assert!(run("verbose", &["-v"]).contains("decided by the expert"));
    // A warning is shown all the same.
    let said = run("warned", &["-q", "--temperature", "0", "--n", "4"]);
    assert!(said.contains("warning: temperature 0 ") && said.contains("4 samples"), "{said}");
    assert!(said.lines().count() == 1, "{said}");
    assert!(run("top-k", &["--top-k", "1", "--n", "2"]).contains("warning: top-k 1 "));
    assert!(!run("one", &["--temperature", "0"]).contains("warning"));
}

#[test]
fn a_number_below_zero_is_refused_by_its_flag() {
    let place = Workplace::new();
    let input = place.instructions(1);
    for (flag, value) in [
        ("temperature", "-1"),
        ("beta", "-0.5"),
        ("beta", "-0.5,1"),
        ("guidance", "-1"),
        ("guidance", "inf"),
        ("alpha", "-0.1"),
        ("top-p", "-0.5"),
        ("min-p", "-1e-3"),
        ("special-token-beta", "-2"),
    ] {
        let said = refuse(&input, &place.path("{beta}"), &[&format!("--{flag}"), value]);
        assert!(said.contains(&format!("error: {flag} is ")), "{flag} {value}: {said}");
    }
    // A setting is named as it was given, also beside a guidance that changes it.
    let said = refuse(&input, &place.path("out"), &["--guidance", "1", "--temperature", "-1"]);
    assert!(said.contains("temperature is -1;"), "{said}");
}

/// Names of files, templates and servers' answers may hold anything.
#[test]
fn text_of_others_cannot_move_the_cursor() {
    let place = Workplace::new();
    let input = place.instructions(1);
    let said = refuse(&input, &place.path("out"), &["--beta", "0", "--expert", "no/\u{1b}[2J\nsuch\u{202e}"]);
    assert!(
        !said.contains('\u{1b}') && !said.contains('\u{202e}') && said.contains("\\u{1b}[2J\\n"),
        "{said}"
    );
    let long = "x".repeat(100_000);
    let said = refuse(&input, &place.path("out"), &["--beta", "0", "--expert", &long]);
    assert!(said.len() < 10_000, "{}", said.len());
}

/// A terminal of 80 columns, and one of 40. No line is longer, and nothing of the live line is left.
#[test]
fn a_terminal_shows_lines_that_fit_it() {
    let place = Workplace::new();
    let input = place.instructions(60);
    for columns in [80, 40] {
        let output = place.path(&format!("a-long-name-of-an-output-on-{columns}-columns.jsonl"));
        let program = env!("CARGO_BIN_EXE_codit");
        let (input, output) = (input.display(), output.display());
        let run = format!(
            "stty rows 24 cols {columns} -opost; NO_COLOR=1 {program} synth {input} -o {output} --max-num-seqs 2 --max-tokens 20"
        );
        let Ok(result) = Command::new("script").args(["-qec", &run, "/dev/null"]).output() else {
            eprintln!("skipped: there is no script to make a terminal");
            return;
        };
        let seen = String::from_utf8_lossy(&result.stdout).into_owned();
        assert!(result.status.success(), "{seen}");
        let mut has_bar = false;
        for line in seen.split('\n') {
            for drawn in line.split("\r\u{1b}[2K") {
                has_bar |= drawn.contains("of 60 rec") && drawn.contains('░');
                // Lines break at spaces; a path that is longer than the terminal stays whole.
                let is_one_word = !drawn.trim().contains(' ');
                assert!(is_one_word || drawn.trim_end().chars().count() <= columns, "{columns}: {drawn:?}");
                assert!(!drawn.contains('\u{1b}'), "{drawn:?}");
            }
            // What stays of a line is what was drawn last.
            let last = line.rsplit("\r\u{1b}[2K").next().unwrap();
            assert!(!last.contains('░'), "{line:?}");
        }
        assert!(has_bar, "{seen}");
    }
}

#[test]
fn help_begins_with_examples_and_the_version_names_the_commit() {
    let help = codit(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.find("Examples:") < help.find("Usage:"), "{help}");
    for part in ["CODIT_CPU_ISA", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "NO_COLOR", "129, 130, 143"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    for command in ["synth", "pairs", "plan", "doctor", "bench", "completions"] {
        let help = codit(&[command, "--help"]);
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(
            help.find("Example") < help.find("Usage:") && help.contains(&format!("codit {command}")),
            "{help}"
        );
    }
    let version = codit(&["--version"]);
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    for part in ["(commit ", "; cpu path: ", "cuda"] {
        assert!(version.contains(part), "{version}");
    }
}

#[test]
fn shells_and_man_know_the_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = codit(&["completions", shell]);
        assert!(script.status.success());
        assert!(String::from_utf8_lossy(&script.stdout).contains("max-num-seqs"), "{shell}");
    }
    let page = String::from_utf8(codit(&["man"]).stdout).unwrap();
    assert!(page.contains(".TH codit") && page.contains("CODIT_CPU_ISA"), "{page}");
    let place = Workplace::new();
    let folder = place.path("");
    assert!(codit(&["man", "--folder", folder.to_str().unwrap()]).status.success());
    let page = fs::read_to_string(place.path("codit-synth.1")).unwrap();
    assert!(page.contains("temperature") && page.contains("Examples"), "{page}");
    assert!(place.path("codit.1").exists());
}

/// Nobody may read what the program prints.
#[test]
fn output_that_cannot_be_written_is_no_panic() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let program = env!("CARGO_BIN_EXE_codit");
    let run = |script: &str| {
        let script = script.replace("codit", program).replace("INPUT", input.to_str().unwrap());
        let script = script.replace("OUT", place.path("out").to_str().unwrap());
        let result = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(!message(&result).contains("panicked"), "{script}: {}", message(&result));
        result.status.code()
    };
    for command in
        ["codit --help", "codit --version", "codit synth --help", "codit pairs", "codit completions bash"]
    {
        assert_eq!(run(&format!("{command} > /dev/full")), Some(1), "{command}");
        assert_eq!(run(&format!("set -o pipefail; {command} | true")), Some(0), "{command}");
    }
    assert_eq!(run("codit synth INPUT -o OUT1 --max-tokens 1 2>&-"), Some(0));
    assert_eq!(run("codit synth INPUT -o OUT2 --max-tokens 1 2> /dev/full"), Some(0));
    assert_eq!(run("codit synth INPUT -o OUT3 --max-tokens 1 >&- 2>&- <&-"), Some(0));
    assert_eq!(run("codit nonsense 2> /dev/full"), Some(2));
}
