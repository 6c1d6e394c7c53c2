//! Tests records byte for byte, and outputs that were cut, damaged, locked, on a full disk or
//! left by a killed process.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use codit::Result;
use codit::checkpoint::Checkpoint;
use codit::contrast::LogProbabilities;
use codit::dataset::{
    Done, Input, InputRow, Manifest, Metadata, ModelFingerprint, Outcome, Record, Recovery, Sink,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::input::{garbage, only_prompt};

// Memory

/// `VmHWM`, this process's peak memory in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn memory_is_small_for_many_prompts() {
    let Some(folder) = as_child() else {
        let folder = tempfile::tempdir().unwrap();
        let words = "All of it is text that need not be kept. ".repeat(8);
        let text = (0..300_000).fold(String::new(), |mut text, row| {
            writeln!(text, "{{\"id\":\"an-id-of-some-length-{row}\",\"instruction\":\"{words}\"}}").unwrap();
            text
        });
        fs::write(folder.path().join("in"), text).unwrap();
        assert!(child("memory_is_small_for_many_prompts", folder.path()).status().unwrap().success());
        return;
    };
    let before = peak_memory();
    let prompts = Input::open(folder.join("in")).unwrap();
    assert_eq!(prompts.len(), 300_000);
    assert_eq!(prompts.read(299_999).unwrap().id.key(), "an-id-of-some-length-299999");
    let used = peak_memory() - before;
    println!("{} MiB", used >> 20);
    assert!(used < 64 << 20, "{used} bytes");
}

// Records

pub fn metadata() -> Metadata {
    Metadata {
        temperature: 1.0,
        top_p: 0.95,
        max_tokens: 4096,
        contrastive_decoding: true,
        alpha: 0.01,
        beta: 1.0,
        expert_model_id: "models/expert".into(),
        amateur_model_id: Some("models/amateur".into()),
    }
}

pub fn answer(response: &str, score: &[f32]) -> Outcome {
    Outcome::Answered {
        response: response.into(),
        score: score.into(),
        log_probabilities: None,
        is_completed: true,
    }
}

/// An answer with the log-probabilities of each token.
fn answer_with(log_probabilities: &[(f32, Option<f32>)]) -> Outcome {
    let models = log_probabilities.iter().map(|&(expert, amateur)| LogProbabilities { expert, amateur });
    Outcome::Answered {
        response: "y".into(),
        score: vec![0.0; log_probabilities.len()],
        log_probabilities: Some(models.collect()),
        is_completed: true,
    }
}

fn line(prompt: InputRow, outcome: Outcome) -> String {
    String::from_utf8(Record::new(prompt, None, metadata(), 9, outcome).to_line().unwrap()).unwrap()
}

#[test]
fn a_record_is_exactly_this() {
    let prompt = only_prompt(
        r#"{"tag" : [1.10, 2], "instruction": "Say \u00e9\n", "big": 123456789012345678901234567890, "id": 0012 }"#
            .replace("0012", "12")
            .as_str(),
    );
    assert_eq!(
        line(prompt, answer("\u{2028}\"é\"\u{1}", &[-0.1, 0.0, -1.0e-7, -16_777_216.0])),
        concat!(
            "{\"id\":\"12\",\"is_completed\":true,\"instruction\":\"Say é\\n\",\"response\":\"\u{2028}\\\"é\\\"\\u0001\",",
            "\"res_metadata\":{\"temperature\":1.0,\"top_p\":0.95,\"max_tokens\":4096,\"contrastive_decoding\":true,",
            "\"alpha\":0.01,\"beta\":1.0,\"expert_model_id\":\"models/expert\",\"amateur_model_id\":\"models/amateur\"},",
            "\"score\":[-0.1,0.0,-1e-7,-16777216.0],\"finish_reason\":\"stop\",\"prompt_tokens\":9,\"completion_tokens\":4,",
            "\"tag\":[1.10, 2],\"big\":123456789012345678901234567890}\n",
        )
    );
}

#[test]
fn log_probabilities_where_they_are_asked_for() {
    let line = |outcome| line(only_prompt(r#"{"instruction": "x"}"#), outcome);
    let both = line(answer_with(&[(-0.5, Some(-1.5)), (-0.25, Some(f32::NEG_INFINITY))]));
    let lists = "\"score\":[0.0,0.0],\"expert_logprobs\":[-0.5,-0.25],\"amateur_logprobs\":[-1.5,null],\"finish_reason\":";
    assert!(both.contains(lists), "{both}");
    let expert = line(answer_with(&[(-0.5, None)]));
    assert!(expert.contains("\"score\":[0.0],\"expert_logprobs\":[-0.5],\"finish_reason\":"), "{expert}");

    for (models, name) in [
        ((f32::NEG_INFINITY, None), "expert"),
        ((f32::NAN, None), "expert"),
        ((0.0, Some(f32::NAN)), "amateur"),
        ((0.0, Some(f32::INFINITY)), "amateur"),
    ] {
        let prompt = only_prompt(r#"{"instruction": "x"}"#);
        let record = Record::new(prompt, None, metadata(), 9, answer_with(&[models]));
        let error = record.to_line().unwrap_err().to_string();
        assert!(error.contains(&format!("token 0 has {name} log-probability")), "{error}");
    }
}

#[test]
fn records_of_the_other_kinds() {
    let record =
        |text: &str| serde_json::from_str::<Value>(&line(only_prompt(text), answer("y", &[]))).unwrap();
    let text = record(r#"{"id": "1", "prompt": "Once upon"}"#);
    assert_eq!(
        (&text["id"], &text["instruction"], &text["prompt"]),
        (&json!("1"), &json!("Once upon"), &json!("Once upon"))
    );
    let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "name": "c"},
        {"role": "user", "content": "d"}]);
    let chat = record(&json!({"messages": messages}).to_string());
    assert_eq!((&chat["instruction"], &chat["messages"]), (&json!("d"), &messages));
}

#[test]
fn a_record_of_an_error_says_so() {
    let prompt = only_prompt(r#"{"instruction": "x", "tag": null}"#);
    let text = line(prompt, Outcome::Failed("the prompt is too long".into()));
    let end = "},\"finish_reason\":\"error\",\"prompt_tokens\":9,\"completion_tokens\":0,\
               \"error\":\"the prompt is too long\",\"tag\":null}\n";
    assert!(text.ends_with(end), "{text}");
    let start = "{\"id\":\"conv_1\",\"is_completed\":false,\"instruction\":\"x\",\"res_metadata\":{";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn the_expert_alone_and_samples() {
    let alone = Metadata { contrastive_decoding: false, amateur_model_id: None, ..metadata() };
    let prompt = only_prompt(r#"{"instruction": "x"}"#);
    let text = String::from_utf8(Record::new(prompt, Some(3), alone, 9, answer("", &[])).to_line().unwrap())
        .unwrap();
    assert!(text.starts_with("{\"id\":\"conv_1\",\"sample_index\":3,\"is_completed\":true,"), "{text}");
    assert!(
        text.contains("\"contrastive_decoding\":false,") && text.contains("\"amateur_model_id\":null}"),
        "{text}"
    );
}

#[test]
fn a_score_that_is_no_number_is_refused() {
    for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let record = Record::new(
            only_prompt(r#"{"instruction": "x"}"#),
            None,
            metadata(),
            9,
            answer("", &[0.0, score]),
        );
        let error = record.to_line().unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("record \"conv_1\": token 1 has score"), "{error}");
    }
}

#[derive(serde::Deserialize)]
struct Answer {
    instruction: String,
    response: String,
    score: Vec<f32>,
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".*", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn columns_pass_verbatim_and_in_order(
        columns in proptest::collection::hash_map("[a-z\\PC]{9}", any_json().prop_map(|v| v.to_string()), 0..6),
        instruction in "\\PC*x\\PC*",
        score in proptest::collection::vec(any::<f32>().prop_filter("finite", |s| s.is_finite()), 0..20),
    ) {
        let columns: Vec<_> = columns.into_iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
        let text = [vec![format!("\"instruction\":{}", json!(instruction))], columns.clone()].concat().join(",");
        let text = line(only_prompt(&format!("{{{text}}}")), answer(&instruction, &score));
        let tokens = format!("\"completion_tokens\":{}", score.len());
        let end = format!("{}}}\n", [vec![tokens], columns].concat().join(","));
        prop_assert!(text.ends_with(&end), "{} {}", text, end);
        prop_assert_eq!(text.matches('\n').count(), 1);
        let read: Answer = serde_json::from_str(&text).unwrap();
        prop_assert_eq!((&read.instruction, &read.response), (&instruction, &instruction));
        let bits = |score: &[f32]| score.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read.score), bits(&score));
    }
}

// The sink

/// A folder with an input of `rows` prompts and an output that does not exist yet.
pub struct Place {
    pub folder: TempDir,
    pub input: Input,
    pub manifest: Manifest,
}

impl Place {
    pub fn new(rows: usize) -> Self {
        // The folder is in memory if the system allows it, because some of these tests sync thousands of times.
        let in_memory = Path::new("/dev/shm");
        let folder =
            if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }.unwrap();
        let rows: Vec<_> =
            (0..rows).map(|row| format!("{{\"id\":\"r{row}\",\"instruction\":\"Do {row}.\"}}")).collect();
        fs::write(folder.path().join("in"), rows.join("\n")).unwrap();
        let input = Input::open(folder.path().join("in")).unwrap();
        let manifest = manifest(&input);
        Self { folder, input, manifest }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn output(&self) -> PathBuf {
        self.path("out")
    }

    pub fn open(&self) -> Result<(Sink, Done)> {
        Sink::open(self.output(), &self.input, &self.manifest)
    }

    /// Appends the missing records.
    pub fn finish(&self) -> Recovery {
        let (mut sink, done) = self.open().unwrap();
        for row in (0..self.input.len()).filter(|row| !done.contains(*row, 0)) {
            sink.append(&record(&self.input, row)).unwrap();
        }
        sink.close().unwrap();
        done.recovery()
    }

    pub fn message(&self) -> String {
        let error = self.open().unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }
}

pub fn manifest(input: &Input) -> Manifest {
    let model = |id: &str| ModelFingerprint {
        id: id.into(),
        revision: None,
        files: [("config.json".into(), "ab".into())].into(),
    };
    Manifest {
        version: Manifest::VERSION.into(),
        input: input.fingerprint(),
        expert: model("expert"),
        amateur: Some(model("amateur")),
        seed: Some(7),
        samples: 1,
        settings: json!({"alpha": 0.01, "beta": 1.0, "special_token_beta": null, "template": {"thinking": false}}),
        notes: json!({"max_num_seqs": 200}),
    }
}

pub fn record(input: &Input, row: usize) -> Record {
    let prompt = input.read(row).unwrap();
    let response = format!("{{\"id\":\"r{row}\",\"é\":\n{}\"", "x".repeat(row % 7));
    Record::new(prompt, None, metadata(), 9, answer(&response, &[-0.25, row as f32]))
}

pub fn whole(input: &Input, rows: impl IntoIterator<Item = usize>) -> Vec<u8> {
    rows.into_iter().flat_map(|row| record(input, row).to_line().unwrap()).collect()
}

#[test]
fn a_run_in_one_go_and_one_that_is_done() {
    let place = Place::new(5);
    assert_eq!(place.finish(), Recovery::default());
    let bytes = fs::read(place.output()).unwrap();
    assert_eq!(bytes, whole(&place.input, 0..5));
    assert_eq!(place.finish(), Recovery { records: 5, ..Recovery::default() });
    assert_eq!(fs::read(place.output()).unwrap(), bytes);
    let written = Manifest::read(&Manifest::path(&place.output())).unwrap().unwrap();
    assert_eq!(written, place.manifest);
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 3, "input, output, manifest");
}

#[test]
fn every_truncation_recovers_the_whole_records() {
    let place = Place::new(3);
    place.finish();
    let bytes = fs::read(place.output()).unwrap();
    for cut in 0..=bytes.len() {
        let records = bytes[..cut].split(|byte| *byte == b'\n').count() - 1;
        let kept = bytes[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for fill in [0, 1, 5000] {
            fs::write(place.output(), [&bytes[..cut], &vec![0; fill]].concat()).unwrap();
            let (sink, done) = place.open().unwrap();
            drop(sink);
            let cut_bytes = (cut + fill - kept) as u64;
            assert_eq!(done.recovery(), Recovery { records, failed: 0, cut_bytes }, "at {cut} + {fill}");
            assert!((0..3).all(|row| done.contains(row, 0) == (row < records)));
            assert_eq!(fs::read(place.output()).unwrap(), &bytes[..kept]);
        }
        if cut % 50 == 0 {
            place.finish();
            assert_eq!(fs::read(place.output()).unwrap(), bytes);
        }
    }
}

#[test]
fn a_damaged_end_is_cut_off() {
    let place = Place::new(3);
    place.finish();
    let bytes = fs::read(place.output()).unwrap();
    let last = whole(&place.input, 0..2).len();
    for (at, byte) in [(last + 3, 0), (last + 20, b'\n'), (bytes.len() - 2, b']'), (last, 0)] {
        let mut damaged = bytes.clone();
        damaged[at] = byte;
        fs::write(place.output(), damaged).unwrap();
        if byte == b'\n' {
            // The rest of the record stands on its own line, and no torn record begins in that way.
            assert!(place.message().contains(":3: not a record"));
            continue;
        }
        let recovery = place.finish();
        assert_eq!(recovery, Recovery { records: 2, failed: 0, cut_bytes: (bytes.len() - last) as u64 });
        assert_eq!(fs::read(place.output()).unwrap(), bytes);
    }
}

#[test]
fn damage_before_the_last_record_is_refused_and_kept() {
    let place = Place::new(4);
    place.finish();
    let bytes = fs::read(place.output()).unwrap();
    let last = whole(&place.input, 0..3).len();
    let mut number = 1;
    for at in 0..last - 1 {
        if bytes[at] == b'\n' {
            number += 1;
            continue;
        }
        for byte in [0, b'\n'] {
            let mut damaged = bytes.clone();
            damaged[at] = byte;
            fs::write(place.output(), &damaged).unwrap();
            let message = place.message();
            // A line feed at the start of a line makes an empty line, and then a line without its opening brace.
            assert!(message.contains(&format!("out:{number}: not a record")), "at {at}: {message}");
            assert!(message.contains("remove the line and run again"), "{message}");
            assert_eq!(fs::read(place.output()).unwrap(), damaged);
        }
    }
}

#[test]
fn a_file_that_is_not_ours_is_never_cut() {
    let place = Place::new(2);
    place.finish();
    for foreign in ["[1, 2]", "{\n  \"a\": 1\n}\n", "x", "{\"a\": 1}\n", "\n", "{\"id\"x"] {
        fs::write(place.output(), foreign).unwrap();
        assert!(place.message().contains("out:1: not a record"));
        assert_eq!(fs::read_to_string(place.output()).unwrap(), foreign);
    }
}

#[test]
fn records_that_do_not_belong_are_refused() {
    let place = Place::new(2);
    place.finish();
    let bytes = fs::read_to_string(place.output()).unwrap();
    let first = bytes.lines().next().unwrap();
    fs::write(place.output(), format!("{bytes}{first}\n")).unwrap();
    assert!(place.message().contains("out:3: id \"r0\" has a record on an earlier line already"));
    fs::write(place.output(), bytes.replace("\"r1\"", "\"r2\"")).unwrap();
    assert!(place.message().contains("out:2: id \"r2\" is not in the input"));
    fs::write(place.output(), bytes.replace("\"r1\",", "\"r1\",\"sample_index\":0,")).unwrap();
    assert!(place.message().contains("out:2: sample_index is 0 in a run of 1 samples"));
}

#[test]
fn failed_prompts_are_done_and_counted() {
    let place = Place::new(2);
    let (mut sink, _) = place.open().unwrap();
    let failed = Outcome::Failed("too long".into());
    sink.append(&Record::new(place.input.read(1).unwrap(), None, metadata(), 0, failed)).unwrap();
    drop(sink);
    let (_sink, done) = place.open().unwrap();
    assert_eq!(done.recovery(), Recovery { records: 1, failed: 1, cut_bytes: 0 });
    assert!(done.contains(1, 0) && !done.contains(0, 0));
}

#[test]
fn samples_are_done_one_by_one() {
    let mut place = Place::new(70);
    place.manifest.samples = 3;
    let (mut sink, _) = place.open().unwrap();
    for (row, sample) in [(0, 2), (69, 0), (69, 2), (30, 1)] {
        let prompt = place.input.read(row).unwrap();
        sink.append(&Record::new(prompt, Some(sample), metadata(), 9, answer("", &[]))).unwrap();
    }
    drop(sink);
    let (sink, done) = place.open().unwrap();
    let all = (0..70).flat_map(|row| (0..3).map(move |sample| (row, sample)));
    let found: Vec<_> = all.filter(|(row, sample)| done.contains(*row, *sample)).collect();
    assert_eq!(found, [(0, 2), (30, 1), (69, 0), (69, 2)]);
    drop(sink);
    place.manifest.samples = 0;
    assert_eq!(place.message(), "samples is 0; it must be 1 or more");
}

#[test]
fn an_integer_id_is_found_again() {
    let mut place = Place::new(1);
    fs::write(place.path("in"), "{\"id\":7,\"instruction\":\"x\"}\n").unwrap();
    place.input = Input::open(place.path("in")).unwrap();
    place.manifest = manifest(&place.input);
    place.finish();
    assert_eq!(place.finish().records, 1);
}

#[test]
fn a_run_under_other_settings_is_refused_field_by_field() {
    let place = Place::new(2);
    place.finish();
    let refused = |change: &dyn Fn(&mut Manifest), expected: &str| {
        let mut manifest = place.manifest.clone();
        change(&mut manifest);
        let message = Sink::open(place.output(), &place.input, &manifest).unwrap_err().to_string();
        assert!(
            message.contains(&format!("of a run under other settings: {expected}. Give the same")),
            "{message}"
        );
    };
    refused(&|m| m.settings["beta"] = json!(0.5), "beta was 1.0, now 0.5");
    refused(&|m| m.settings["special_token_beta"] = json!(0.5), "special_token_beta was unset, now 0.5");
    refused(&|m| m.settings["system"] = json!("Be kind."), "system was unset, now \"Be kind.\"");
    refused(
        &|m| m.settings = json!({"beta": 0.3, "alpha": 0.01}),
        "beta was 1.0, now 0.3; template.thinking was false, now unset",
    );
    refused(&|m| m.seed = Some(8), "seed was 7, now 8");
    refused(&|m| m.samples = 2, "samples was 1, now 2");
    refused(&|m| m.expert.id = "e".into(), "expert.id was \"expert\", now \"e\"");
    refused(
        &|m| drop(m.expert.files.insert("config.json".into(), "cd".into())),
        "expert.files.config.json was \"ab\", now \"cd\"",
    );
    refused(
        &|m| m.amateur = None,
        "amateur.id was \"amateur\", now unset; amateur.files.config.json was \"ab\", now unset",
    );
    refused(&|m| m.input.sha256 = "ab".into(), "the input is another, or was changed");
    refused(
        &|m| m.version = "99.1.0".into(),
        &format!("version was {}, now 99.1", Manifest::VERSION.rsplit_once('.').unwrap().0),
    );
    assert_eq!(fs::read(place.output()).unwrap(), whole(&place.input, 0..2));
}

#[test]
fn what_records_do_not_depend_on_may_differ() {
    let mut place = Place::new(2);
    place.finish();
    place.manifest.notes = json!({"max_num_seqs": 1, "device": "cpu"});
    place.manifest.input.path = "elsewhere".into();
    place.manifest.version = Manifest::VERSION.rsplit_once('.').unwrap().0.to_owned() + ".999";
    place.manifest.settings["system"] = Value::Null;
    assert_eq!(place.finish().records, 2);
}

/// Numbers that a reader may round to their neighbours.
#[test]
fn a_run_agrees_with_its_own_manifest_whatever_its_numbers() {
    for number in ["-2.669828010478062e-238", "-4.323344314725543e+99"] {
        let mut place = Place::new(2);
        place.manifest.settings["beta"] = number.parse().unwrap();
        place.finish();
        place.manifest = Manifest::read(&Manifest::path(&place.output())).unwrap().unwrap();
        assert_eq!(place.manifest.settings["beta"].as_f64(), number.parse().ok());
        assert_eq!(place.finish().records, 2);
    }
}

#[test]
fn a_drawn_seed_is_kept() {
    let mut place = Place::new(2);
    place.manifest.seed = None;
    let (mut sink, _) = place.open().unwrap();
    let seed = sink.seed();
    sink.append(&record(&place.input, 0)).unwrap();
    drop(sink);
    assert_eq!(place.open().unwrap().0.seed(), seed);
    place.manifest.seed = Some(seed);
    assert_eq!(place.open().unwrap().0.seed(), seed);
    place.manifest.seed = Some(seed + 1);
    assert!(place.message().contains(&format!("seed was {seed}, now {}", seed + 1)));
    let other = Place { manifest: Manifest { seed: None, ..place.manifest.clone() }, ..Place::new(2) };
    assert_ne!(other.open().unwrap().0.seed(), seed, "two draws in 2^32 agree");
}

#[test]
fn nothing_done_is_nothing_to_protect() {
    let mut place = Place::new(2);
    drop(place.open().unwrap());
    // First there is a manifest with an empty output, then the manifest alone.
    for beta in [2.0, 3.0] {
        place.manifest.settings["beta"] = json!(beta);
        let (sink, _) = place.open().unwrap();
        drop(sink);
        let written = Manifest::read(&Manifest::path(&place.output())).unwrap().unwrap();
        assert_eq!(written.settings["beta"], json!(beta));
        fs::remove_file(place.output()).unwrap();
    }
    fs::write(place.output(), "").unwrap();
    fs::remove_file(Manifest::path(&place.output())).unwrap();
    assert_eq!(place.finish(), Recovery::default());
}

#[test]
fn an_output_without_its_manifest_is_refused() {
    let place = Place::new(2);
    place.finish();
    let manifest = Manifest::path(&place.output());
    for broken in ["", "{", "[]", "{\"version\": 1}"] {
        fs::write(&manifest, broken).unwrap();
        assert!(place.message().contains("out-manifest: not a manifest of this program ("));
    }
    let without_seed = serde_json::to_string(&Manifest { seed: None, ..place.manifest.clone() }).unwrap();
    fs::write(&manifest, without_seed).unwrap();
    assert!(place.message().contains("it has no seed"));
    fs::remove_file(&manifest).unwrap();
    assert!(place.message().contains("out: holds something but has no manifest"));
}

#[test]
fn outputs_that_cannot_be() {
    let place = Place::new(1);
    let message = |path: &Path| Sink::open(path, &place.input, &place.manifest).unwrap_err().to_string();
    assert!(message(place.folder.path()).contains("a folder; give a file"));
    assert!(message(&place.path("no/out")).contains("no such folder; make it"));
    assert!(message(&place.path("in")).contains("the input itself"));
    symlink(place.path("in"), place.path("link")).unwrap();
    assert!(message(&place.path("link")).contains("the input itself"));
    fs::hard_link(place.path("in"), place.path("hard")).unwrap();
    assert!(message(&place.path("hard")).contains("the input itself"));
    assert!(message(Path::new("/dev/null")).contains("not a regular file"));
    assert!(message(Path::new("/proc/self/nothing")).contains("cannot open for writing"));
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(message(&pipe).contains("not a regular file"));
    assert_eq!(place.input.read(0).unwrap().id.key(), "r0");
}

#[test]
fn an_output_removed_during_the_run_is_noticed() {
    let place = Place::new(2);
    let (mut sink, _) = place.open().unwrap();
    sink.append(&record(&place.input, 0)).unwrap();
    sink.sync().unwrap();
    fs::remove_file(place.output()).unwrap();
    let error = sink.sync().unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("another program has removed or changed it"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_in_the_output_never_panics(bytes in garbage(), after in 0usize..4) {
        let place = Place::new(3);
        place.finish();
        let kept = whole(&place.input, 0..after.min(3));
        fs::write(place.output(), [&kept[..], &bytes].concat()).unwrap();
        let expected = if place.open().is_ok() { kept } else { [&kept[..], &bytes].concat() };
        prop_assert_eq!(fs::read(place.output()).unwrap(), expected);
    }
}

#[test]
fn a_checkpoint_is_marked_by_all_that_records_depend_on() {
    const INDEX: &str =
        r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let fingerprint = || ModelFingerprint::of(&Checkpoint::open(folder.path()).unwrap()).unwrap();
    let weights = |last: u8| [&8u64.to_le_bytes()[..], b"{\"a\":{}}", &[0; 9000], &[last]].concat();
    write("config.json", b"{}");
    write("README.md", b"x");
    write("model.safetensors", &weights(0));
    let first = fingerprint();
    assert_eq!(first.files.keys().collect::<Vec<_>>(), ["config.json", "model.safetensors"]);
    write("README.md", b"y");
    assert_eq!(fingerprint(), first);
    write("model.safetensors", &weights(1));
    assert_ne!(fingerprint(), first, "weights under the same header");
    for name in ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let before = fingerprint();
        write(name, b"{}");
        assert_ne!(fingerprint(), before, "{name}");
    }
    write("1.safetensors", &weights(0));
    write("2.safetensors", b"");
    write("model.safetensors.index.json", INDEX.as_bytes());
    assert!(
        fingerprint().files.contains_key("model.safetensors"),
        "where there is one file, it is what is loaded"
    );
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let sharded = fingerprint();
    assert!(["1.safetensors", "2.safetensors"].iter().all(|name| sharded.files.contains_key(*name)));
    assert!(!sharded.files.contains_key("model.safetensors"));
    write("model.safetensors.index.json", b"[");
    let error = ModelFingerprint::of(&Checkpoint::open(folder.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("not an index of safetensors files"), "{error}");
}

// Child processes: they run this test program again, and an environment variable tells it that it is the child.

const CHILD: &str = "CODIT_DATASET_TEST_CHILD";

fn as_child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    // If the signal of the file size limit is ignored, the write returns an error.
    let limits = "trap '' XFSZ; [ -z \"$BLOCKS\" ] || ulimit -f $BLOCKS; exec \"$0\" \"$@\"";
    command.args(["-c", limits]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("dataset::{test}"), "--nocapture"]).env(CHILD, folder);
    command.stdin(Stdio::piped());
    command
}

/// The input, manifest and output of a [`Place`] in a folder of another process.
fn in_folder(folder: &Path) -> (Input, Manifest, PathBuf) {
    let input = Input::open(folder.join("in")).unwrap();
    let manifest = manifest(&input);
    (input, manifest, folder.join("out"))
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    if let Some(folder) = as_child() {
        let (input, manifest, output) = in_folder(&folder);
        let (mut sink, _) = Sink::open(output, &input, &manifest).unwrap();
        sink.append(&record(&input, 0)).unwrap();
        println!("\nlocked");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        panic!("the parent did not kill this");
    }
    let place = Place::new(2);
    let mut first = child("a_second_writer_is_refused_until_the_first_is_gone", place.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.map_while(std::result::Result::ok).any(|line| line == "locked"));
    symlink(place.output(), place.path("link")).unwrap();
    fs::hard_link(place.output(), place.path("hard")).unwrap();
    fs::create_dir(place.path("sub")).unwrap();
    for name in ["out", "link", "hard", "sub/../out"] {
        let error = Sink::open(place.path(name), &place.input, &place.manifest).unwrap_err();
        assert!(error.to_string().contains("another run is writing to it; wait"), "{name}: {error}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let (_sink, done) = Sink::open(place.path("link"), &place.input, &place.manifest).unwrap();
    assert_eq!(done.recovery(), Recovery { records: 1, ..Recovery::default() });
    assert!(place.message().contains("another run is writing to it"), "in one process too");
}

#[test]
fn a_full_disk_leaves_whole_records() {
    if let Some(folder) = as_child() {
        let (input, manifest, output) = in_folder(&folder);
        let (mut sink, done) = Sink::open(output, &input, &manifest).unwrap();
        assert!(!done.contains(0, 0));
        let mut written = 0;
        let error = loop {
            match sink.append(&record(&input, written)) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("out: cannot write; the records so far are whole"), "{error}");
        assert!(written > 3);
        assert_eq!(fs::read(folder.join("out")).unwrap(), whole(&input, 0..written));
        // The error stays the same on further attempts.
        sink.append(&record(&input, written)).unwrap_err();
        sink.close().unwrap();
        return;
    }
    let place = Place::new(200);
    // The output goes through pipes, because the limit would also apply to a log file.
    let result =
        child("a_full_disk_leaves_whole_records", place.folder.path()).env("BLOCKS", "8").output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stdout));
    assert!(place.finish().records > 3);
    assert_eq!(fs::read(place.output()).unwrap(), whole(&place.input, 0..200));
}

#[test]
fn a_killed_run_resumes_exactly() {
    const ROWS: usize = 400;
    if let Some(folder) = as_child() {
        let (input, manifest, output) = in_folder(&folder);
        let (mut sink, done) = Sink::open(output, &input, &manifest).unwrap();
        for row in (0..ROWS).filter(|row| !done.contains(*row, 0)) {
            sink.append(&record(&input, row)).unwrap();
            std::thread::sleep(Duration::from_micros(300));
        }
        sink.close().unwrap();
        return;
    }
    let place = Place::new(ROWS);
    let mut kills = 0;
    // Each round is longer than the one before, so that the test ends on slow machines too.
    for round in 1.. {
        let mut run =
            child("a_killed_run_resumes_exactly", place.folder.path()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 * round));
        match run.try_wait().unwrap() {
            Some(status) if status.success() => break,
            Some(status) => panic!("{status}"),
            None => {
                run.kill().unwrap();
                run.wait().unwrap();
                kills += 1;
            }
        }
    }
    assert!(kills > 1, "only {kills} kills");
    assert_eq!(fs::read(place.output()).unwrap(), whole(&place.input, 0..ROWS));
    let ids: HashSet<_> = (0..ROWS).map(|row| place.input.read(row).unwrap().id.key().to_owned()).collect();
    assert_eq!(ids.len(), ROWS);
}

#[test]
fn a_written_byte_is_read_by_others_at_once() {
    let place = Place::new(1);
    let (mut sink, _) = place.open().unwrap();
    sink.append(&record(&place.input, 0)).unwrap();
    assert_eq!(fs::read(place.output()).unwrap(), whole(&place.input, [0]));
    // A line that another program adds is not silently overwritten.
    File::options().append(true).open(place.output()).unwrap().write_all(b"x").unwrap();
    assert!(sink.close().unwrap_err().to_string().contains("another program has removed or changed it"));
}
