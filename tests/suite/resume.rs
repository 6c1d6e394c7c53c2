//! Tests runs that are killed, interrupted or out of disk space, and the files that they leave.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use codit::device::cpu::Isa;

use crate::program::{
    Workplace, hear_signals, message, records, refuse, sorted_lines, start, succeed, synth,
};
use crate::random::Random;

const SETTINGS: [&str; 6] = ["--seed", "9", "--max-tokens", "40", "--max-num-seqs", "16"];

/// Sends SIGKILL at random moments until the run is done. No record is lost, doubled or torn, and the sorted output
/// is identical to the output of an uninterrupted run. `CODIT_KILLS` sets the number of kills (20 by default).
#[test]
fn killed_and_resumed_gives_the_same_dataset() {
    let kills = std::env::var("CODIT_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let place = Workplace::new();
    let input = place.instructions(300);
    let unbroken = place.path("unbroken.jsonl");
    let started = Instant::now();
    succeed(&input, &unbroken, &SETTINGS);
    let whole_run = started.elapsed();
    let mut random = Random::new(1);
    let mut killed = 0;
    let mut run = 0;
    while killed < kills {
        let output = place.path(&format!("killed{run}.jsonl"));
        run += 1;
        loop {
            let mut child = start(&input, &output, &SETTINGS);
            // The moments are spread over start-up, decoding and the end.
            let moment = whole_run.mul_f64(random.within(0, 700) as f64 / 1000.0);
            let deadline = Instant::now() + moment;
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{}", message(&child.wait_with_output().unwrap()));
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        assert_eq!(sorted_lines(&output), sorted_lines(&unbroken));
    }
}

#[test]
fn a_torn_or_nul_filled_tail_is_cut_off_and_said() {
    let place = Workplace::new();
    let input = place.instructions(6);
    let output = place.path("out.jsonl");
    succeed(&input, &output, &SETTINGS);
    let whole = std::fs::read(&output).unwrap();
    let reference = sorted_lines(&output);
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let torn = whole[..last_line + 40].to_vec();
    let nul_filled = [&whole[..last_line], &[0; 100]].concat();
    for tail in [torn, nul_filled] {
        std::fs::write(&output, tail).unwrap();
        let said = message(&succeed(&input, &output, &SETTINGS));
        assert!(said.contains("torn") && said.contains("resuming after 5 records"), "{said}");
        assert_eq!(sorted_lines(&output), reference);
    }
}

#[test]
fn other_settings_models_or_input_are_refused() {
    let place = Workplace::new();
    let input = place.instructions(4);
    let output = place.path("out.jsonl");
    succeed(&input, &output, &SETTINGS);
    let before = std::fs::read(&output).unwrap();
    let expert = place.path("expert");
    crate::synth::copy_embedded_expert(&expert);
    let expert = expert.to_str().unwrap();
    let changes: [(&[&str], &str); 8] = [
        (&["--beta", "0.25"], "beta was 1.0, now 0.25"),
        (&["--temperature", "0.5"], "temperature"),
        (&["--system", "Be brief."], "system"),
        (&["--expert", expert, "--amateur", expert], "expert"),
        (&["--ignore-eos"], "ignore_eos"),
        (&["--dtype", "fp8"], "dtype was \"float32\", now \"fp8\""),
        (&["--amateur-dtype", "fp8"], "amateur_dtype"),
        (&["--kv-cache-dtype", "fp8"], "kv_cache_dtype"),
    ];
    for (change, named) in changes {
        let said = refuse(&input, &output, &[&SETTINGS, change].concat());
        assert!(said.contains(named), "{said}");
    }
    let other_seed = refuse(&input, &output, &["--seed", "10", "--max-tokens", "40"]);
    assert!(other_seed.contains("seed was 9, now 10"), "{other_seed}");
    let longer_input = place.instructions(5);
    assert!(refuse(&longer_input, &output, &SETTINGS).contains("input"));
    assert_eq!(std::fs::read(&output).unwrap(), before);
}

/// When a run is resumed, a template that writes the date writes the date of the run's start.
#[test]
fn a_resumed_run_keeps_its_date() {
    let place = Workplace::new();
    let input = place.instructions(3);
    let output = place.path("out.jsonl");
    let expert = place.path("expert");
    crate::synth::copy_embedded_expert(&expert);
    let template = "{{ strftime_now('%H:%M:%S') }}{% for m in messages %}{{ m.content }}{% endfor %}";
    std::fs::write(expert.join("chat_template.jinja"), template).unwrap();
    let settings = ["--seed", "1", "--max-tokens", "30", "--beta", "0", "--expert", expert.to_str().unwrap()];
    succeed(&input, &output, &settings);
    let reference = sorted_lines(&output);
    std::thread::sleep(Duration::from_millis(1100));
    let first = std::fs::read_to_string(&output).unwrap().lines().next().unwrap().to_owned() + "\n";
    std::fs::write(&output, first).unwrap();
    succeed(&input, &output, &settings);
    assert_eq!(sorted_lines(&output), reference);
}

#[test]
fn a_second_writer_is_refused() {
    let place = Workplace::new();
    let input = place.instructions(400);
    let output = place.path("out.jsonl");
    let mut first = start(&input, &output, &SETTINGS);
    let deadline = Instant::now() + Duration::from_mins(1);
    while std::fs::metadata(&output).map_or(0, |m| m.len()) == 0 {
        assert!(
            first.try_wait().unwrap().is_none() && Instant::now() < deadline,
            "the first writer wrote nothing"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = refuse(&input, &output, &SETTINGS);
    assert!(said.contains("another run"), "{said}");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_signal_ends_the_run_soon_and_it_resumes() {
    hear_signals();
    let place = Workplace::new();
    let input = place.instructions(400);
    let unbroken = place.path("unbroken.jsonl");
    succeed(&input, &unbroken, &SETTINGS);
    let output = place.path("out.jsonl");
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let child = start(&input, &output, &SETTINGS);
        let deadline = Instant::now() + Duration::from_mins(1);
        let size = std::fs::metadata(&output).map_or(0, |m| m.len());
        while std::fs::metadata(&output).map_or(0, |m| m.len()) <= size && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let sent = Instant::now();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let result = child.wait_with_output().unwrap();
        assert_eq!(result.status.code(), Some(code), "{}", message(&result));
        assert!(sent.elapsed() < Duration::from_secs(10));
        assert!(message(&result).contains("same command resumes"), "{}", message(&result));
        assert!(records(&output).len() < 400, "the signal came too late to test anything");
    }
    succeed(&input, &output, &SETTINGS);
    assert_eq!(sorted_lines(&output), sorted_lines(&unbroken));
}

/// A limit on the file size stands in for a full disk: a write fails part way.
#[test]
fn a_full_disk_is_a_clear_error_and_the_run_resumes() {
    let place = Workplace::new();
    let input = place.instructions(60);
    let unbroken = place.path("unbroken.jsonl");
    succeed(&input, &unbroken, &SETTINGS);
    let output = place.path("out.jsonl");
    let command = synth(&input, &output, &SETTINGS);
    let mut limited = Command::new("bash");
    // ulimit -f counts 1,024 bytes; ignoring SIGXFSZ makes the write fail as on a full disk.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 12; exec \"$0\" \"$@\""]);
    limited.arg(command.get_program()).args(command.get_args()).stderr(Stdio::piped()).process_group(0);
    let result = limited.output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(1), "{said}");
    assert!(said.contains("out.jsonl") && said.contains("resumes"), "{said}");
    let whole = records(&output).len();
    assert!(whole > 0 && whole < 60, "{whole} records fit");
    succeed(&input, &output, &SETTINGS);
    assert_eq!(sorted_lines(&output), sorted_lines(&unbroken));
}

/// Records that another instruction set computed are told apart, since their last digits may differ.
#[test]
fn another_instruction_set_is_said() {
    let place = Workplace::new();
    let (input, output) = (place.instructions(4), place.path("out"));
    let begun =
        synth(&input, &output, &["--seed", "1", "--max-tokens", "4", "--limit", "2", "--device", "cpu"])
            .env("CODIT_CPU_ISA", "baseline")
            .output()
            .unwrap();
    assert!(begun.status.success(), "{}", message(&begun));
    let goes_on =
        || synth(&input, &output, &["--seed", "1", "--max-tokens", "4", "--limit", "3", "--device", "cpu"]);
    let same = goes_on().env("CODIT_CPU_ISA", "baseline").output().unwrap();
    assert!(same.status.success() && !message(&same).contains("were computed with"), "{}", message(&same));
    if Isa::chosen().unwrap().name() != "baseline" {
        let limit = ["--seed", "1", "--max-tokens", "4", "--limit", "4", "--device", "cpu"];
        let other = synth(&input, &output, &limit).output().unwrap();
        assert!(
            other.status.success()
                && message(&other).contains("were computed with the instruction set baseline"),
            "{}",
            message(&other)
        );
    }
}
