//! Damaged inputs, manifests and outputs.

use std::fs;
use std::path::Path;

use codit::dataset::{
    Done, Input, InputFingerprint, Manifest, Metadata, ModelFingerprint, Outcome, Record, Sink,
};
use serde_json::json;

use crate::{accept, place};

/// Rows of the input that belongs to the seeds of manifests and outputs: q0, q1, ...
const ROWS: usize = 6;

fn metadata() -> Metadata {
    Metadata {
        temperature: 1.0,
        top_p: 1.0,
        max_tokens: 8,
        contrastive_decoding: true,
        alpha: 0.01,
        beta: 1.0,
        expert_model_id: "e".to_owned(),
        amateur_model_id: None,
    }
}

fn run_over(input: &Input) -> Manifest {
    Manifest {
        version: Manifest::VERSION.to_owned(),
        input: InputFingerprint { ..input.fingerprint() },
        expert: ModelFingerprint {
            id: "e".to_owned(),
            revision: None,
            files: [("config.json".into(), "00".into())].into(),
        },
        amateur: None,
        seed: Some(7),
        samples: 1,
        settings: json!({"beta": 1.0, "system": null}),
        notes: json!({"threads": 2}),
    }
}

fn record(input: &Input, row: usize) -> Option<Record> {
    let row_read = accept(input.read(row))?;
    let outcome = if row % 2 == 0 {
        let (response, score) = ("n\u{e4}x\u{0}\u{2028}".to_owned(), vec![-0.5, 1e-40]);
        Outcome::Answered { response, score, log_probabilities: None, is_completed: true }
    } else {
        Outcome::Failed("the prompt has no tokens".to_owned())
    };
    Some(Record::new(row_read, None, metadata(), 3, outcome))
}

/// An input of any bytes. What can be read can be answered, and the output of such a run resumes.
pub fn lines(data: &[u8]) {
    let path = place::write("input.jsonl", data);
    let Some(input) = accept(Input::open(path)) else { return };
    let output = fresh_output();
    let manifest = run_over(&input);
    let (mut sink, _) = Sink::open(&output, &input, &manifest).expect("an output begins");
    let mut written = Vec::new();
    for row in 0..input.len() {
        // Reading a row again gives what was checked.
        let record = record(&input, row).expect("a row that was checked is read again");
        written.push(record.id().key().to_owned());
        sink.append(&record).expect("its record is written");
    }
    sink.close().expect("the output is closed");
    let before = fs::read(&output).expect("the output is there");
    let (sink, done) = Sink::open(&output, &input, &manifest).expect("a whole output resumes");
    assert_eq!(done.recovery().records, input.len(), "each record is found again");
    for (row, key) in written.iter().enumerate() {
        assert_eq!(input.row(key), Some(row), "a record belongs to its row");
        assert!(done.contains(row, 0), "row {row} has its record");
    }
    drop(sink);
    assert!(fs::read(&output).is_ok_and(|after| after == before), "resuming changes no record");
}

/// Any manifest beside a whole output.
pub fn manifest(data: &[u8]) {
    let input = seed_input();
    let output = fresh_output();
    let records = include_bytes!("../seeds/resume/whole");
    fs::write(&output, records).expect("the output can be written");
    let beside = Manifest::path(&output);
    fs::write(&beside, data).expect("the manifest can be written");
    let read = accept(Manifest::read(&beside)).flatten();
    let resumed = accept(Sink::open(&output, input, &run_over(input)));
    assert!(read.is_some() || resumed.is_none(), "resumed under a manifest that cannot be read");
    assert!(fs::read(&output).is_ok_and(|after| after == records), "a manifest changes the records");
    drop(resumed);
    let Some(read) = read.filter(|read| (1..1000).contains(&read.samples)) else { return };
    // A run under what the manifest says begins, and goes on under what it has written.
    let output = fresh_output();
    let Some((sink, _)) = accept(Sink::open(&output, input, &read)) else { return };
    drop(sink);
    fs::write(&output, b"{\"id\":").expect("the output can be written");
    if let Err(error) = Sink::open(&output, input, &read) {
        panic!("a run refuses its own manifest: {error}");
    }
}

/// Any bytes as the output of a run that is resumed: no whole record is lost, and what is refused stays as it is.
pub fn resume(data: &[u8]) {
    let input = seed_input();
    let output = fresh_output();
    let manifest = run_over(input);
    drop(Sink::open(&output, input, &manifest).expect("an output begins"));
    fs::write(&output, data).expect("the output can be written");
    let opened = accept(Sink::open(&output, input, &manifest));
    let after = fs::read(&output).expect("the output is there");
    let Some((mut sink, done)) = opened else {
        assert!(after == data, "an output that is refused is changed");
        return;
    };
    assert!(data.starts_with(&after), "resuming does more than to cut the end off");
    assert!(after.is_empty() || after.ends_with(b"\n"), "a torn line is left");
    let lines =
        |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| is_record(line)).count();
    assert_eq!(lines(&data[after.len()..]), 0, "a whole record is cut off");
    assert_eq!(done.recovery().records, lines(&after), "each record counts");
    let rest = append_missing(&mut sink, input, &done);
    sink.close().expect("the output is closed");
    let (_, done) = Sink::open(&output, input, &manifest).expect("what was resumed resumes again");
    assert_eq!((done.recovery().cut_bytes, done.recovery().records), (0, ROWS), "after {rest} more records");
    assert!(fs::read(&output).is_ok_and(|now| now.starts_with(&after)), "appending changes earlier records");
}

fn append_missing(sink: &mut Sink, input: &Input, done: &Done) -> usize {
    let missing: Vec<usize> = (0..ROWS).filter(|row| !done.contains(*row, 0)).collect();
    for row in &missing {
        let record = record(input, *row).expect("the row is there");
        sink.append(&record).expect("a record is written");
    }
    missing.len()
}

/// The part of a record that any reader needs.
#[derive(serde::Deserialize)]
struct Head {
    id: String,
}

/// Whether a line is a record of the seeds' input, by as little as any reader would ask of one.
fn is_record(line: &[u8]) -> bool {
    let text = std::str::from_utf8(line).ok().filter(|text| text.ends_with('\n'));
    let head: Option<Head> = text.and_then(|text| serde_json::from_str(text).ok());
    head.is_some_and(|head| (0..ROWS).any(|row| head.id == format!("q{row}")))
}

fn seed_input() -> &'static Input {
    static INPUT: std::sync::OnceLock<Input> = std::sync::OnceLock::new();
    INPUT.get_or_init(|| {
        let rows: String =
            (0..ROWS).map(|row| format!("{{\"id\":\"q{row}\",\"instruction\":\"say {row}\"}}\n")).collect();
        Input::open(place::write("seed_input.jsonl", rows.as_bytes())).expect("the input is sound")
    })
}

/// The path of an output that is not there yet, nor its manifest.
fn fresh_output() -> std::path::PathBuf {
    let output = place::path("output.jsonl");
    remove(&output);
    remove(&Manifest::path(&output));
    output
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
