//! Tests what is written and what becomes of it: outputs and manifests that other programs change, damage or put
//! something in the way of, errors that are tried again, and names that are refused.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use codit::dataset::{Input, MAX_RECORD, Manifest, Outcome, Record, Recovery, Sink};
use serde_json::{Value, json};

use crate::dataset::{Place, answer, metadata, record, whole};
use crate::program::{Workplace, message, records, refuse, sorted_lines, start, succeed, synth};

const SETTINGS: [&str; 4] = ["--seed", "9", "--max-tokens", "12"];

// Another program changes the output

/// What another program does to the output, and whether the next run can go on with what it left.
type Change = (&'static str, fn(&Path), bool);

const CHANGES: [Change; 7] = [
    ("emptied", |output| drop(File::create(output).unwrap()), true),
    ("cut within a record", |output| set_len(output, 20), true),
    ("lengthened by a hole", |output| set_len(output, 5000), true),
    ("appended to", |output| append(output, b"{\"a\": 1}\n"), false),
    ("removed", |output| fs::remove_file(output).unwrap(), true),
    (
        "replaced by a copy",
        |output| {
            fs::copy(output, output.with_extension("copy")).unwrap();
            fs::rename(output.with_extension("copy"), output).unwrap();
        },
        true,
    ),
    (
        "replaced by a link to nothing",
        |output| {
            fs::remove_file(output).unwrap();
            symlink("nothing", output).unwrap();
        },
        true,
    ),
];

fn set_len(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_change_by_another_program_is_noticed_before_the_next_write() {
    for (what, change, is_repaired) in CHANGES {
        let place = Place::new(4);
        let (mut sink, _) = place.open().unwrap();
        sink.append(&record(&place.input, 0)).unwrap();
        sink.append(&record(&place.input, 1)).unwrap();
        change(&place.output());
        let left = fs::read(place.output()).ok();
        for _ in 0..2 {
            let error = sink.append(&record(&place.input, 2)).unwrap_err();
            assert_eq!(error.exit_code(), 1, "{what}");
            let message = error.to_string();
            assert!(
                message.contains("out: cannot go on: another program has removed or changed it"),
                "{message}"
            );
            assert!(message.contains("run the same command again"), "{message}");
        }
        assert!(sink.close().is_err(), "{what}");
        assert_eq!(fs::read(place.output()).ok(), left, "{what}: something was written");
        if is_repaired {
            place.finish();
            let mut lines: Vec<_> =
                fs::read(place.output()).unwrap().split(|b| *b == b'\n').map(Vec::from).collect();
            lines.sort();
            let mut expected: Vec<_> =
                whole(&place.input, 0..4).split(|b| *b == b'\n').map(Vec::from).collect();
            expected.sort();
            assert_eq!(lines, expected, "{what}");
        } else {
            assert!(place.message().contains("out:3: not a record"), "{what}");
        }
    }
}

#[test]
fn an_output_that_is_emptied_during_the_run_ends_it_and_the_next_run_repairs_it() {
    let place = Workplace::new();
    let input = place.instructions(400);
    let unbroken = place.path("unbroken.jsonl");
    succeed(&input, &unbroken, &SETTINGS);
    let output = place.path("out.jsonl");
    let run = start(&input, &output, &[&SETTINGS[..], &["--max-num-seqs", "2"]].concat());
    let deadline = Instant::now() + Duration::from_mins(1);
    while fs::metadata(&output).map_or(0, |m| m.len()) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    File::create(&output).unwrap();
    let result = run.wait_with_output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(1), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("another program has removed or changed it"), "{said}");
    assert!(!fs::read(&output).unwrap().contains(&0));
    succeed(&input, &output, &SETTINGS);
    assert_eq!(sorted_lines(&output), sorted_lines(&unbroken));
}

/// A hole of NUL bytes before records is named by its line, and the remedy of the message works.
#[test]
fn a_hole_within_the_output_is_named_with_its_remedy() {
    let place = Place::new(4);
    place.finish();
    let lines: Vec<Vec<u8>> = (0..4).map(|row| whole(&place.input, [row])).collect();
    let holed = [&lines[0][..], &[0; 2317], &lines[1], &lines[2], &lines[3]].concat();
    fs::write(place.output(), &holed).unwrap();
    let message = place.message();
    assert!(
        message.contains("out:2: not a record (it has NUL bytes, which a crash or another program left)"),
        "{message}"
    );
    let remedy = format!("sed -i 2d {}", place.output().display());
    assert!(message.ends_with(&format!("and the record is made again: {remedy}")), "{message}");
    assert_eq!(fs::read(place.output()).unwrap(), holed);
    assert!(Command::new("sh").args(["-c", &remedy]).status().unwrap().success());
    assert_eq!(place.finish(), Recovery { records: 3, ..Recovery::default() });
}

/// A copy of a record is named with the command that removes it.
#[test]
fn a_record_that_is_there_twice_is_named_with_its_remedy() {
    let place = Place::new(3);
    place.finish();
    let record = whole(&place.input, [1]);
    append(&place.output(), &record);
    let message = place.message();
    let (_, remedy) =
        message.split_once("has a record on an earlier line already; remove one of them: ").unwrap();
    assert!(Command::new("sh").args(["-c", remedy]).status().unwrap().success());
    assert_eq!(place.finish(), Recovery { records: 3, ..Recovery::default() });
}

/// Without its manifest a run could not be resumed.
#[test]
fn a_manifest_that_goes_during_the_run_is_written_again() {
    let changes: [fn(&Path); 4] = [
        |manifest| fs::remove_file(manifest).unwrap(),
        |manifest| fs::write(manifest, "{}").unwrap(),
        |manifest| drop(File::create(manifest).unwrap()),
        |manifest| {
            fs::remove_file(manifest).unwrap();
            symlink("nothing", manifest).unwrap();
        },
    ];
    for change in changes {
        let place = Place::new(2);
        let (mut sink, _) = place.open().unwrap();
        sink.append(&record(&place.input, 0)).unwrap();
        let path = place.path("out-manifest");
        let manifest = fs::read(&path).unwrap();
        change(&path);
        sink.close().unwrap();
        assert_eq!(fs::read(&path).unwrap(), manifest);
        place.finish();
    }
}

/// A run that is refused leaves nothing.
#[test]
fn a_refused_run_makes_no_output() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let output = place.path("out.jsonl");
    let refused = |arguments: &[&str], words: &str| {
        let said = refuse(&input, &output, arguments);
        assert!(said.contains(words), "{said}");
        assert!(!output.exists() && !place.path("out.jsonl.codit-tmp").exists(), "{arguments:?}");
    };
    refused(&["--stop-token-ids", "9999"], "stop token 9999 is not below");
    refused(&["--stop="], "a value is required for");
    fs::write(place.path("out.jsonl-manifest"), "{}").unwrap();
    refused(&[], "out.jsonl-manifest: not a manifest");
    fs::remove_file(place.path("out.jsonl-manifest")).unwrap();
    fs::create_dir(place.path("out.jsonl-manifest.codit-tmp")).unwrap();
    refused(&[], "not a regular file");
}

// What lies in the way

#[test]
fn a_temporary_file_that_is_not_ours_is_refused_and_kept() {
    let place = Place::new(1);
    let temporary = place.path("out-manifest.codit-tmp");
    let target = place.path("target");
    fs::write(&target, "precious").unwrap();
    for name in ["target", "nothing"] {
        symlink(place.path(name), &temporary).unwrap();
        let message = place.message();
        assert!(
            message.contains("out-manifest.codit-tmp: not a regular file") && message.contains("remove it"),
            "{message}"
        );
        fs::remove_file(&temporary).unwrap();
    }
    fs::create_dir(&temporary).unwrap();
    assert!(place.message().contains("out-manifest.codit-tmp: not a regular file"));
    fs::remove_dir(&temporary).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(!place.path("nothing").exists());
    // The rest of a run that was killed is overwritten.
    fs::write(&temporary, "{").unwrap();
    place.finish();
    assert!(!temporary.exists());
}

#[test]
fn something_else_in_the_manifests_place_is_bad_input() {
    for name in ["out-manifest", "out.manifest.json"] {
        let place = Place::new(1);
        fs::create_dir(place.path(name)).unwrap();
        let message = place.message();
        assert!(message.contains(&format!("{name}: not a manifest of this program (a folder)")), "{message}");
        fs::remove_dir(place.path(name)).unwrap();
        assert!(Command::new("mkfifo").arg(place.path(name)).status().unwrap().success());
        assert!(place.message().contains("(not a regular file)"));
        fs::remove_file(place.path(name)).unwrap();
        symlink("/dev/zero", place.path(name)).unwrap();
        assert!(place.message().contains("(not a regular file)"));
        fs::remove_file(place.path(name)).unwrap();
        File::create(place.path(name)).unwrap().set_len(1 << 40).unwrap();
        assert!(place.message().contains("(1048576 MiB long)"));
    }
}

/// Of a manifest that is cut at any byte or has numbers that are none, one line says that it is damaged.
#[test]
fn a_damaged_manifest_is_refused_and_kept() {
    let place = Place::new(1);
    place.finish();
    let path = Manifest::path(&place.output());
    let whole = fs::read_to_string(&path).unwrap();
    let refused = |damaged: &str| {
        fs::write(&path, damaged).unwrap();
        let message = place.message();
        assert!(message.contains("out-manifest: not a manifest of this program ("), "{message}");
        assert!(
            !message.contains('\n') && message.ends_with("restore it, or give another output"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    };
    for cut in 0..whole.len() - 2 {
        refused(&whole[..cut]);
    }
    for number in ["Infinity", "-Infinity", "NaN", "1e999", "-1e999", "\u{fffd}"] {
        refused(&whole.replace("0.01", number));
    }
    refused(&whole.replace("\"seed\": 7", "\"seed\": 1e99"));
    refused(&whole.replace("\"seed\": 7", "\"seed\": -7"));
    refused(&whole.replace("\"samples\": 1", "\"samples\": 1.5"));
    refused(&"[".repeat(100_000));
    refused(&"\0".repeat(whole.len()));
}

#[test]
fn names_of_other_formats_and_of_folders_are_refused_before_anything_is_loaded() {
    let place = Workplace::new();
    let input = place.instructions(1);
    let cases = [
        ("-", "standard output"),
        ("x.parquet", "the name is that of Parquet, and codit writes JSON lines"),
        ("x.jsonl.gz", "of a compressed file"),
        ("x.jsonl.zst", "of a compressed file"),
        ("x.CSV", "of a table"),
        ("x.json", "of one JSON array"),
        ("x.arrow", "of Arrow"),
        ("x/", "the name of a folder; give a file"),
        ("input.jsonl/", "the name of a folder; give a file"),
        ("./", "the name of a folder; give a file"),
        (".", "a folder; give a file"),
        ("no/out.jsonl", "no such folder"),
        ("input.jsonl/out.jsonl", "not a folder; give another output"),
    ];
    let longest = "x".repeat(236);
    let too_long = longest.clone() + "x";
    for (name, words) in cases.into_iter().chain([(&*too_long, "longer than 236 bytes")]) {
        let mut command = synth(&input, Path::new(name), &["--expert", "/no/such/model"]);
        let result = command.current_dir(place.path("")).output().unwrap();
        let said = message(&result);
        assert_eq!(result.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{name}: {said}");
    }
    let remedies = [
        ("x.jsonl.gz", "such as x.jsonl,"),
        ("x.parquet", "such as x.jsonl,"),
        ("x.json", "such as x.jsonl,"),
        ("a.b.json.gz", "such as a.b.jsonl,"),
    ];
    for (name, words) in remedies {
        let input = Input::open(&input).unwrap();
        let error = Sink::check(name, &input).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1, "nothing but the input is there");
    succeed(&input, &place.path(&longest), &SETTINGS);
}

#[test]
fn an_output_that_is_a_symbolic_link_is_followed() {
    let place = Workplace::new();
    let input = place.instructions(6);
    fs::create_dir(place.path("data")).unwrap();
    let (target, link) = (place.path("data/out.jsonl"), place.path("link.jsonl"));
    symlink("data/out.jsonl", &link).unwrap();
    // The seed is drawn; a run that resumes it must find it.
    succeed(&input, &link, &["--max-tokens", "8"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(place.path("data/out.jsonl-manifest").exists() && !place.path("link.jsonl-manifest").exists());
    let whole = sorted_lines(&target);
    for output in [&link, &target] {
        let first = fs::read_to_string(&target).unwrap().lines().next().unwrap().to_owned() + "\n";
        fs::write(&target, first).unwrap();
        succeed(&input, output, &["--max-tokens", "8"]);
        assert_eq!(sorted_lines(&target), whole);
    }
    let lines = fs::read_to_string(&target).unwrap();
    fs::write(&target, fail(&lines, 2)).unwrap();
    succeed(&input, &link, &["--max-tokens", "8", "--retry-errors"]);
    assert_eq!(sorted_lines(&target), whole);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

// Outputs of earlier versions

/// An output of version 0.1 has integer ids, no tokens and finish reasons, and a manifest of another name.
#[test]
fn an_output_of_an_earlier_version_is_resumed() {
    let mut place = Place::new(3);
    fs::write(
        place.path("in"),
        "{\"id\":7,\"instruction\":\"x\"}\n{\"id\":\"8\",\"instruction\":\"y\"}\n{\"instruction\":\"z\"}\n",
    )
    .unwrap();
    place.input = Input::open(place.path("in")).unwrap();
    place.manifest.input = place.input.fingerprint();
    let old = concat!(
        r#"{"id":7,"is_completed":true,"instruction":"x","response":"X","res_metadata":{},"score":[0.0]}"#,
        "\n",
        r#"{"id":"8","is_completed":false,"instruction":"y","response":"","res_metadata":{},"score":[],"error":"no"}"#,
        "\n"
    );
    fs::write(place.output(), old).unwrap();
    fs::write(place.path("out.manifest.json"), json!(place.manifest).to_string()).unwrap();
    assert_eq!(Manifest::beside(&place.output()).unwrap().unwrap(), place.manifest);
    let (mut sink, mut done) = place.open().unwrap();
    assert_eq!(done.recovery(), Recovery { records: 2, failed: 1, cut_bytes: 0 });
    assert!(!place.path("out.manifest.json").exists() && place.path("out-manifest").exists());
    assert_eq!(sink.remove_failed(&mut done, &place.input).unwrap(), 1);
    assert!(done.contains(0, 0) && !done.contains(1, 0) && !done.contains(2, 0));
    assert_eq!(fs::read_to_string(place.output()).unwrap(), old.split_inclusive('\n').next().unwrap());
    drop(sink);
    assert_eq!(place.finish().records, 1);
    // A new output takes no notice of the manifest of an old one that is empty, and leaves one manifest.
    fs::write(place.output(), "").unwrap();
    fs::rename(place.path("out-manifest"), place.path("out.manifest.json")).unwrap();
    place.manifest.settings["beta"] = json!(3);
    place.finish();
    assert!(!place.path("out.manifest.json").exists() && place.path("out-manifest").exists());
}

// Errors

/// The lines of an output, each `nth` of which is made the record of an error.
fn fail(lines: &str, nth: usize) -> String {
    let fail = |(index, line): (usize, &str)| {
        if index % nth != 0 {
            return line.to_owned() + "\n";
        }
        let mut record: Value = serde_json::from_str(line).unwrap();
        let fields = record.as_object_mut().unwrap();
        fields.shift_remove("response");
        fields.shift_remove("score");
        fields["finish_reason"] = json!("error");
        fields.insert("error".into(), json!("the disk was full"));
        record.to_string() + "\n"
    };
    lines.lines().enumerate().map(fail).collect()
}

#[test]
fn errors_are_made_again_on_request() {
    let place = Workplace::new();
    let input = place.instructions(12);
    let output = place.path("out.jsonl");
    let settings = [&SETTINGS[..], &["--n", "2"]].concat();
    succeed(&input, &output, &settings);
    let whole = sorted_lines(&output);
    fs::write(&output, fail(&fs::read_to_string(&output).unwrap(), 5)).unwrap();
    succeed(&input, &output, &settings);
    assert_eq!(records(&output).iter().filter(|record| record["finish_reason"] == "error").count(), 5);
    let said = message(&succeed(&input, &output, &[&settings[..], &["--retry-errors"]].concat()));
    assert!(said.contains("trying 5 records of errors again"), "{said}");
    assert_eq!(sorted_lines(&output), whole);
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 3, "input, output, manifest");
}

/// Whatever a crash leaves of the copy without errors, no record is lost.
#[test]
fn a_crash_while_errors_are_removed_loses_nothing() {
    let place = Place::new(4);
    let (mut sink, _) = place.open().unwrap();
    for row in 0..4 {
        let outcome = if row % 2 == 0 { answer("y", &[-0.5]) } else { Outcome::Failed("no".into()) };
        sink.append(&Record::new(place.input.read(row).unwrap(), None, metadata(), 9, outcome)).unwrap();
    }
    drop(sink);
    let with_errors = fs::read(place.output()).unwrap();
    let answered: Vec<u8> =
        with_errors.split_inclusive(|b| *b == b'\n').step_by(2).flat_map(<[u8]>::to_vec).collect();
    for cut in 0..=answered.len() {
        fs::write(place.output(), &with_errors).unwrap();
        fs::write(place.path("out.codit-tmp"), &answered[..cut]).unwrap();
        let (mut sink, mut done) = place.open().unwrap();
        assert_eq!(done.recovery().records, 4);
        assert_eq!(sink.remove_failed(&mut done, &place.input).unwrap(), 2);
        assert_eq!(done.recovery(), Recovery { records: 2, failed: 0, cut_bytes: 0 });
        assert_eq!(fs::read(place.output()).unwrap(), answered);
        assert!(place.message().contains("another run is writing to it"), "the copy is locked too");
        sink.append(&record(&place.input, 1)).unwrap();
        assert_eq!(sink.remove_failed(&mut done, &place.input).unwrap(), 0);
        drop(sink);
        assert_eq!(fs::read(place.output()).unwrap(), [&answered[..], &whole(&place.input, [1])].concat());
    }
    fs::write(place.output(), &with_errors).unwrap();
    fs::write(place.path("target"), "precious").unwrap();
    symlink(place.path("target"), place.path("out.codit-tmp")).unwrap();
    let (mut sink, mut done) = place.open().unwrap();
    let error = sink.remove_failed(&mut done, &place.input).unwrap_err();
    assert!(
        error.exit_code() == 2 && error.to_string().contains("out.codit-tmp: not a regular file"),
        "{error}"
    );
    assert_eq!(fs::read(place.output()).unwrap(), with_errors);
    assert_eq!(fs::read_to_string(place.path("target")).unwrap(), "precious");
}

#[test]
fn a_run_that_makes_errors_again_may_be_killed_at_any_moment() {
    let place = Workplace::new();
    let input = place.instructions(200);
    let output = place.path("out.jsonl");
    let started = Instant::now();
    succeed(&input, &output, &SETTINGS);
    let whole_run = started.elapsed();
    let whole = sorted_lines(&output);
    let with_errors = fail(&fs::read_to_string(&output).unwrap(), 2);
    let answered = |output: &Path| records(output).iter().filter(|r| r.get("error").is_none()).count();
    for kill in 0..10_u32 {
        fs::write(&output, &with_errors).unwrap();
        let mut run = start(&input, &output, &[&SETTINGS[..], &["--retry-errors"]].concat());
        std::thread::sleep(whole_run * kill / 12);
        run.kill().unwrap();
        run.wait().unwrap();
        let text = fs::read_to_string(&output).unwrap();
        let end = text.rfind('\n').map_or(0, |end| end + 1);
        fs::write(&output, &text[..end]).unwrap();
        assert!(answered(&output) >= 100, "a response was lost");
        succeed(&input, &output, &[&SETTINGS[..], &["--retry-errors"]].concat());
        assert_eq!(sorted_lines(&output), whole);
    }
}

/// A limit on the file size stands in for a full disk: the copy without errors does not fit.
#[test]
fn a_full_disk_while_errors_are_removed_keeps_the_output() {
    let place = Workplace::new();
    let input = place.instructions(60);
    let output = place.path("out.jsonl");
    succeed(&input, &output, &SETTINGS);
    let with_errors = fail(&fs::read_to_string(&output).unwrap(), 20);
    fs::write(&output, &with_errors).unwrap();
    let command = synth(&input, &output, &[&SETTINGS[..], &["--retry-errors"]].concat());
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -f 12; exec \"$0\" \"$@\""]);
    limited.arg(command.get_program()).args(command.get_args()).stderr(Stdio::piped()).process_group(0);
    let result = limited.output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(1), "{said}");
    assert!(said.contains("out.jsonl.codit-tmp: cannot write"), "{said}");
    assert_eq!(fs::read_to_string(&output).unwrap(), with_errors);
    assert!(!place.path("out.jsonl.codit-tmp").exists());
}

/// A beta beyond all numbers ends each record, not the run, and the exit code says that nothing was answered.
#[test]
fn a_run_of_nothing_but_errors_has_an_exit_code_of_its_own() {
    let place = Workplace::new();
    let input = place.instructions(5);
    let output = place.path("out.jsonl");
    let settings = ["--seed", "1", "--beta", "1e308", "--alpha", "0"];
    for arguments in [&settings[..], &[&settings[..], &["--retry-errors"]].concat()] {
        let result = synth(&input, &output, arguments).output().unwrap();
        assert_eq!(result.status.code(), Some(3), "{}", message(&result));
        let records = records(&output);
        assert_eq!(records.len(), 5);
        for record in records {
            let error = record["error"].as_str().unwrap();
            assert!(error.contains("(give a smaller beta)") && error.contains("at token 0"), "{error}");
            assert_eq!(record["finish_reason"], "error");
            assert!(record.get("response").is_none() && record.get("score").is_none());
            assert!(record["prompt_tokens"].as_u64().unwrap() > 3 && record["completion_tokens"] == 0);
        }
    }
    // A run that finds nothing to do has not failed, and neither has one with an answer.
    succeed(&input, &output, &settings);
    let mixed = place.write(
        "mixed.jsonl",
        &format!("{}\n{}\n", json!({"instruction": "river ".repeat(2000)}), json!({"instruction": "Hm?"})),
    );
    let output = place.path("mixed-out.jsonl");
    succeed(&mixed, &output, &["--max-model-len", "200"]);
    let reasons: Vec<Value> = records(&output).iter().map(|record| record["finish_reason"].clone()).collect();
    assert_eq!(reasons.len(), 2);
    assert_eq!(reasons.iter().filter(|reason| *reason == "error").count(), 1);
}

#[test]
fn a_record_tells_its_tokens_and_why_it_ended() {
    let place = Workplace::new();
    let input = place.instructions(6);
    let output = place.path("out.jsonl");
    succeed(&input, &output, &["--seed", "1", "--max-tokens", "8"]);
    let records = records(&output);
    for record in &records {
        let reason = if record["is_completed"] == true { "stop" } else { "length" };
        assert_eq!(record["finish_reason"], reason);
        assert_eq!(
            record["completion_tokens"].as_u64().unwrap(),
            record["score"].as_array().unwrap().len() as u64
        );
        assert!(record["prompt_tokens"].as_u64().unwrap() > 3);
    }
    let of = |reason| records.iter().filter(|record| record["finish_reason"] == reason).count();
    assert!(of("stop") > 0 && of("stop") + of("length") == 6, "{records:?}");
}

/// What a template or a row makes an error say is cut and escaped.
#[test]
fn the_text_of_an_error_is_short_and_harmless() {
    let place = Place::new(1);
    let error = "\u{1b}[2J\u{9b}0m".to_owned() + &"x".repeat(70_000_000);
    let prompt = place.input.read(0).unwrap();
    let record = Record::new(prompt, None, metadata(), 0, Outcome::Failed(error));
    let line = record.to_line().unwrap();
    assert!(line.len() < 2000, "{} bytes", line.len());
    let read: Value = serde_json::from_slice(&line).unwrap();
    assert!(read["error"].as_str().unwrap().starts_with("\\u{1b}[2J\\u{9b}0mxxx"), "{read}");
    let (mut sink, _) = place.open().unwrap();
    sink.append(&record).unwrap();
    drop(sink);
    assert_eq!(place.finish().failed, 1);
}

/// A record that no run could read again is written as an error.
#[test]
fn a_record_is_never_longer_than_what_can_be_read() {
    let place = Place::new(2);
    let prompt = || place.input.read(0).unwrap();
    let length = Record::new(prompt(), None, metadata(), 9, answer("", &[0.0])).to_line().unwrap().len();
    let longest = "x".repeat(MAX_RECORD - length);
    let (mut sink, _) = place.open().unwrap();
    sink.append(&Record::new(prompt(), None, metadata(), 9, answer(&longest, &[0.0]))).unwrap();
    let record =
        Record::new(place.input.read(1).unwrap(), None, metadata(), 9, answer(&(longest + "x"), &[0.0]));
    let line = record.to_line().unwrap();
    let read: Value = serde_json::from_slice(&line).unwrap();
    assert!(read["error"].as_str().unwrap().contains("more than the 128 MiB that a line may have"), "{read}");
    assert!(
        read.get("response").is_none() && read["completion_tokens"] == 0 && read["finish_reason"] == "error"
    );
    sink.append(&record).unwrap();
    drop(sink);
    assert_eq!(place.finish(), Recovery { records: 2, failed: 1, cut_bytes: 0 });
}

/// What a run writes beside its output must not take the input's place.
#[test]
fn an_input_with_the_name_of_a_file_of_the_run_is_kept() {
    let place = Workplace::new();
    let text = "{\"instruction\": \"What is 3 plus 4?\"}\n";
    for name in ["out.jsonl.codit-tmp", "out.jsonl-manifest.codit-tmp"] {
        let input = place.write(name, text);
        let said = refuse(&input, &place.path("out.jsonl"), &[]);
        assert!(said.contains(name) && said.contains("give another output"), "{said}");
        assert_eq!(fs::read_to_string(input).unwrap(), text);
    }
}

// Loaders

/// The `datasets` library loads a folder in which a run has ended, with ids of both kinds and records of errors.
#[test]
fn the_datasets_library_loads_the_folder() {
    let python = std::env::var("CODIT_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_library = Command::new(&python).args(["-c", "import datasets"]).stderr(Stdio::null()).status();
    if !has_library.is_ok_and(|status| status.success()) {
        println!("skipped: {python} has no `datasets` library; CODIT_PYTHON names a Python that has it");
        return;
    }
    let place = Workplace::new();
    let rows = [
        json!({"id": 7, "instruction": "What is 3 plus 4?", "topic": "sums"}),
        json!({"id": "seven", "instruction": "river ".repeat(2000)}),
        json!({"instruction": "What is 2 plus 2?"}),
    ];
    let input = place.write("input.jsonl", &rows.map(|row| row.to_string() + "\n").concat());
    fs::create_dir(place.path("data")).unwrap();
    let output = place.path("data/out.jsonl");
    succeed(&input, &output, &["--max-model-len", "200", "--log-probabilities"]);
    let program = "import sys, json, datasets\n\
        d = datasets.load_dataset(sys.argv[1], split='train', cache_dir=sys.argv[2])\n\
        print(json.dumps([d.features['id'].dtype, d.num_rows, sorted(r['error'] is None for r in d), \
            sorted(r['response'] is None for r in d), sorted(d.column_names)]))";
    let result = Command::new(&python)
        .args(["-c", program])
        .args([place.path("data"), place.path("cache")])
        .env("HF_HOME", place.path("home"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(result.status.success(), "{said}");
    let loaded: Value = serde_json::from_slice(&result.stdout).unwrap();
    assert_eq!(loaded[0], "string");
    assert_eq!(loaded[1], 3);
    assert_eq!(loaded[2], json!([false, true, true]));
    assert_eq!(loaded[3], json!([false, false, true]));
    let mut columns: Vec<String> = records(&output)
        .iter()
        .flat_map(|r| r.as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        .collect();
    columns.sort();
    columns.dedup();
    assert_eq!(loaded[4], json!(columns));
}
