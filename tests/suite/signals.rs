//! Signals: answered at once while loading, after the step while decoding, and never silent.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::program::{Workplace, hear_signals, records, synth};

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Reads standard error up to the line that announces the output, which is the last one before the first step.
fn wait_until_announced(child: &mut Child) -> BufReader<std::process::ChildStderr> {
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("codit: output") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it began");
    }
    said
}

fn ended(mut child: Child, mut said: impl Read) -> (ExitStatus, String) {
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap(), rest)
}

/// The hub is a server that takes connections and never answers, so that only the signal can end the program.
#[cfg(feature = "hub")]
#[test]
fn a_signal_while_loading_ends_the_program() {
    hear_signals();
    let place = Workplace::new();
    let input = place.instructions(1);
    let signals = ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "XCPU", "VTALRM", "PROF"];
    for (signal, code) in signals.into_iter().zip([129, 130, 131, 138, 140, 142, 143, 152, 154, 155]) {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = synth(&input, &place.path("out"), &["--beta", "0", "--expert", "acme/chat"]);
        command.env("HF_ENDPOINT", format!("http://{}", hub.local_addr().unwrap()));
        command.env("HF_HOME", place.path("home")).env_remove("HF_HUB_OFFLINE");
        let mut child = command.spawn().unwrap();
        let _connection = hub.accept().unwrap();
        send(&child, &format!("-{signal}"));
        let said = child.stderr.take().unwrap();
        let (status, said) = ended(child, said);
        assert_eq!(status.code(), Some(code), "{signal}: {said}");
        assert!(said.contains("interrupted before the first step; the same command starts again"), "{said}");
    }
}

/// The kernels on the host are slow, so the step takes long. However long it takes, the last line says how to go on.
#[test]
fn the_exit_after_a_long_step_is_not_silent() {
    hear_signals();
    let place = Workplace::new();
    let line = format!("{{\"instruction\": \"{}\"}}\n", "river ".repeat(60));
    let input = place.write("input.jsonl", &line.repeat(64));
    let arguments =
        ["--device", "simt", "--ignore-eos", "--max-tokens", "100", "--shortcuts", "gathered-candidates"];
    let mut child = synth(&input, &place.path("out"), &arguments).spawn().unwrap();
    let said = wait_until_announced(&mut child);
    send(&child, "-TERM");
    let (status, said) = ended(child, said);
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.lines().last().unwrap().contains("the same command "), "{said}");
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    hear_signals();
    let place = Workplace::new();
    let input = place.instructions(300);
    let output = place.path("out");
    let mut child = synth(&input, &output, &["--ignore-eos", "--max-tokens", "400"]).spawn().unwrap();
    let mut said = wait_until_announced(&mut child);
    // Once there is a record, the run decodes.
    while std::fs::metadata(&output).map_or(0, |output| output.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, "-INT");
    let mut first = String::new();
    while !first.contains("stopping after this step; again to stop at once") {
        assert!(said.read_line(&mut first).unwrap() > 0, "{first}");
    }
    std::thread::sleep(Duration::from_millis(150));
    // The step may have ended, and the program with it.
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).stderr(Stdio::null()).status();
    let (status, said) = ended(child, said);
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.lines().last().unwrap().ends_with("the same command resumes the run"), "{said}");
}

/// As nohup does it: what was ignored at the start stays ignored.
#[test]
fn an_ignored_signal_stays_ignored() {
    hear_signals();
    let place = Workplace::new();
    let input = place.instructions(60);
    let output = place.path("out");
    let program = synth(&input, &output, &["--max-tokens", "60", "--max-num-seqs", "4"]);
    let mut command = Command::new("bash");
    command
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = wait_until_announced(&mut child);
    send(&child, "-HUP");
    let (status, said) = ended(child, said);
    assert!(status.success(), "{said}");
    assert_eq!(records(&output).len(), 60);
}
