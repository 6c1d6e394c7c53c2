//! Tests what `codit stats` and the end of a sweep say of datasets.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};

use codit::dataset::{Statistics, is_repetitive};
use serde_json::{Value, json};

use crate::program::{Workplace, message, records, succeed};

fn codit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_codit")).args(arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", message(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn report(file: &Path) -> Value {
    let text = printed(&codit(&["stats", "--json", file.to_str().unwrap()]));
    let reports: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), 1);
    reports[0].clone()
}

/// Neither ends, nor does reading it.
#[test]
fn special_files_are_no_datasets() {
    let output = codit(&["stats", "/dev/zero"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        message(&output).contains("/dev/zero: not a regular file; give a dataset"),
        "{}",
        message(&output)
    );
}

#[test]
fn what_repeats_itself() {
    let sentences = "The harbour was quiet before the first boats came in. A woman on the pier mended a net and watched \
                     the gulls. Nobody spoke, for the fog had not lifted yet, and the day's catch was still unknown.";
    let paragraph = |n: usize| format!("{n}: {sentences} ");
    // A text is repetitive from the tenth copy of 100 characters on.
    let copies = |count: usize| sentences.repeat(count);
    let cases = [
        (String::new(), false),
        ("ha".repeat(49), false),
        ("ha".repeat(50), true),
        ("é".repeat(99), false),
        ("é".repeat(100), true),
        ("\u{10ffff}".repeat(100), true),
        (sentences.to_owned(), false),
        ((0..9).map(paragraph).collect(), false),
        ((0..11).map(paragraph).collect(), true),
        (copies(9), false),
        (copies(10), true),
        // One 2-gram makes up 16 % of 100 characters from its eighth occurrence on.
        (with_pairs(7), false),
        (with_pairs(8), true),
        ("I am going to the shop. ".repeat(30), true),
    ];
    for (text, expected) in cases {
        assert_eq!(is_repetitive(&text), expected, "{text:?}");
    }
}

/// 100 characters of which nothing repeats but `count` times the pair "ab".
fn with_pairs(count: usize) -> String {
    let mut others = (0x4e00..).map(|c| char::from_u32(c).unwrap());
    let mut text = String::new();
    for _ in 0..count {
        text.push_str("ab");
        text.extend(others.next());
    }
    text.extend(others.take(100 - 3 * count));
    assert_eq!(text.chars().count(), 100);
    text
}

fn record(id: usize, response: &str, tokens: usize, is_completed: bool) -> Value {
    json!({
        "id": id.to_string(), "is_completed": is_completed, "instruction": "x", "response": response,
        "res_metadata": {"alpha": 0.1, "beta": 0.5}, "score": vec![-0.5; tokens],
        "expert_logprobs": vec![-1.0; tokens], "amateur_logprobs": vec![json!(-3.0); tokens],
        "finish_reason": if is_completed { "stop" } else { "length" },
        "prompt_tokens": 10, "completion_tokens": tokens,
    })
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| record.to_string() + "\n").collect()
}

#[test]
fn a_dataset_is_counted() {
    let place = Workplace::new();
    let mut masked = record(2, "é!", 2, true);
    masked["amateur_logprobs"] = json!([null, -7.0]);
    let failed = json!({"id": "4", "is_completed": false, "instruction": "x", "res_metadata": {"alpha": 0.1, "beta": 0.5},
        "finish_reason": "error", "prompt_tokens": 0, "completion_tokens": 0, "error": "too long"});
    let all = [
        record(0, "Yes.", 3, true),
        record(1, &"ha".repeat(60), 4, false),
        masked,
        record(3, " \n", 1, true),
        failed,
    ];
    let file = place.write("out.jsonl", &lines(&all));
    assert_eq!(
        report(&file),
        json!({
            "file": file, "alpha": 0.1, "beta": 0.5, "records": 5, "finished": 3, "cut": 1, "errors": 1, "empty": 1,
            "repetitive": 1, "repetitive_share": 0.25, "prompt_tokens": 40, "tokens": 10, "mean_tokens": 2.5,
            "mean_characters": 32.0, "expert_mean_logprob": -1.0,
            // Nine tokens: one is masked.
            "amateur_mean_logprob": (8.0 * -3.0 - 7.0) / 9.0,
        })
    );
    // Other settings in the same file have none in common.
    let mut other = record(5, "No.", 1, true);
    other["res_metadata"]["beta"] = json!(1.0);
    fs::write(&file, lines(&all) + &lines(&[other])).unwrap();
    assert_eq!((&report(&file)["alpha"], &report(&file)["beta"]), (&json!(0.1), &Value::Null));
}

/// Records of earlier versions and of the method's authors lack fields.
#[test]
fn records_without_the_newer_fields_are_counted() {
    let place = Workplace::new();
    let all = [
        json!({"id": 1, "is_completed": true, "instruction": "x", "response": "a", "res_metadata": {"alpha": 0.01, "beta": 1.0}, "score": [0.0, 0.0]}),
        json!({"id": 2, "is_completed": false, "instruction": "x", "response": "b", "res_metadata": {}, "score": [0.0]}),
        json!({"id": "3", "is_completed": false, "instruction": "x", "response": "", "res_metadata": null, "score": [], "error": "no"}),
    ];
    let found = report(&place.write("old.jsonl", &lines(&all)));
    for (name, value) in
        [("records", 3), ("finished", 1), ("cut", 1), ("errors", 1), ("tokens", 3), ("empty", 0)]
    {
        assert_eq!(found[name], value, "{name}: {found}");
    }
    assert_eq!((&found["alpha"], &found["expert_mean_logprob"]), (&json!(0.01), &Value::Null));
}

#[test]
fn a_dataset_without_records_has_no_means() {
    let place = Workplace::new();
    let found = report(&place.write("empty.jsonl", ""));
    assert_eq!(
        (&found["records"], &found["mean_tokens"], &found["alpha"]),
        (&json!(0), &Value::Null, &Value::Null)
    );
    // A record that is being written does not count yet.
    let torn = lines(&[record(0, "Yes.", 3, true)]) + "{\"id\":\"1\",\"is_comp";
    assert_eq!(report(&place.write("torn.jsonl", &torn))["records"], 1);
}

#[test]
fn what_is_no_dataset_is_refused_by_name_and_line() {
    let place = Workplace::new();
    let good = lines(&[record(0, "Yes.", 3, true)]);
    let cases: [(&str, Vec<u8>, &str); 5] = [
        (
            "a",
            (good.clone() + "{\"id\": 1}\n").into_bytes(),
            "a:2: not a record (missing field `is_completed`",
        ),
        ("b", (good.clone() + "x\n" + &good).into_bytes(), "b:2: not a record (expected value)"),
        ("c", [good.as_bytes(), &[0; 50], b"\n"].concat(), "c:2: not a record (expected value)"),
        ("d", b"\x1f\x8b\x08\xff\n\n".to_vec(), "d:1: not a record ("),
        ("e", b"[]\n".to_vec(), "e:1: not a record ("),
    ];
    for (name, bytes, words) in cases {
        let path = place.path(name);
        fs::write(&path, bytes).unwrap();
        let result = codit(&["stats", path.to_str().unwrap()]);
        let said = message(&result);
        assert_eq!(result.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    }
    // Of a line that is longer than a record can be, no part is read as another line.
    let long = place.path("long");
    let mut file = File::create(&long).unwrap();
    file.write_all(good.as_bytes()).unwrap();
    file.set_len(good.len() as u64 + 300_000_000).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(format!("\n{good}").as_bytes()).unwrap();
    let result = codit(&["stats", long.to_str().unwrap()]);
    let said = message(&result);
    assert!(result.status.code() == Some(2) && said.contains("long:2: longer than 128 MiB"), "{said}");

    // A file without a line end is no torn record, and lines of nothing take no memory.
    for (text, words) in [("some words", "words:1: not a record ("), ("[1, 2]", "words:1: not a record (")] {
        let result = codit(&["stats", place.write("words", text).to_str().unwrap()]);
        assert!(message(&result).contains(words), "{}", message(&result));
    }
    let blank = place.write("blank", &"\n".repeat(10_000_000));
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "ulimit -v 1000000; exec \"$0\" stats \"$1\"", env!("CARGO_BIN_EXE_codit")])
        .arg(&blank);
    let result = limited.output().unwrap();
    assert!(result.status.success(), "{}", message(&result));

    let mut absurd = record(0, "Yes.", 3, true);
    absurd["prompt_tokens"] = json!(u64::MAX);
    let result = codit(&["stats", place.write("absurd", &lines(&[absurd])).to_str().unwrap()]);
    assert!(message(&result).contains("absurd:1: not a record (invalid value"), "{}", message(&result));

    for (path, words) in
        [(place.path(""), "a folder; give the datasets in it"), (place.path("no"), "cannot open")]
    {
        let result = codit(&["stats", path.to_str().unwrap()]);
        assert_eq!(result.status.code(), Some(2));
        assert!(message(&result).contains(words), "{}", message(&result));
    }
}

/// The numbers do not depend on how many lines are counted at once.
#[test]
fn a_large_dataset_is_the_sum_of_its_parts() {
    let place = Workplace::new();
    let text = "word and other words, none of which means anything at all ".repeat(200);
    let all: Vec<Value> =
        (0..4000).map(|id| record(id, &text[..(id * 7) % text.len()], id % 50 + 1, id % 3 == 0)).collect();
    let whole = Statistics::of_file(place.write("whole", &lines(&all))).unwrap();
    let mut sum = Statistics::default();
    for (index, part) in all.chunks(999).enumerate() {
        sum.add(&Statistics::of_file(place.write(&index.to_string(), &lines(part))).unwrap());
    }
    assert!(fs::metadata(place.path("whole")).unwrap().len() > 20 << 20, "more than one batch");
    assert_eq!(whole, sum);
    assert_eq!(whole.summary().records, 4000);
}

#[test]
fn a_sweep_ends_with_the_table_that_stats_prints() {
    let place = Workplace::new();
    let input = place.instructions(4);
    let sweep =
        ["--alpha", "0.1,0.01", "--beta", "0,1", "--max-tokens", "10", "--seed", "1", "--log-probabilities"];
    let table = printed(&succeed(&input, &place.path("a{alpha}-b{beta}"), &sweep));
    let names = ["a0.01-b0", "a0.01-b1", "a0.1-b0", "a0.1-b1"];
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let header = "alpha beta records finished cut errors empty repetitive tokens mean expert amateur";
    assert_eq!(rows[0], header.split(' ').collect::<Vec<_>>());
    assert_eq!(rows.len(), 5, "{table}");
    let paths = names.map(|name| place.path(name));
    let arguments: Vec<&str> =
        ["stats"].into_iter().chain(paths.iter().map(|path| path.to_str().unwrap())).collect();
    let stats = printed(&codit(&arguments));
    let of_files: Vec<Vec<&str>> =
        stats.lines().map(|line| line.split_whitespace().skip(1).collect()).collect();
    assert_eq!(of_files, rows);
    for (row, path) in rows[1..].iter().zip(&paths) {
        let records = records(path);
        let tokens: usize = records.iter().map(|record| record["score"].as_array().unwrap().len()).sum();
        assert_eq!(row[2..4], [&records.len().to_string(), &count(&records, "stop").to_string()]);
        assert_eq!((row[4], row[5]), (&*count(&records, "length").to_string(), "0"));
        assert_eq!(row[8], tokens.to_string());
        assert_eq!(row[11] == "-", row[1] == "0", "the amateur has no say with beta 0");
    }
    // Without log-probabilities their columns are left out. One setting is no sweep.
    let one = ["--max-tokens", "4", "--seed", "1"];
    assert_eq!(printed(&succeed(&input, &place.path("one"), &one)), "");
    let table = printed(&codit(&["stats", place.path("one").to_str().unwrap()]));
    assert!(!table.contains("expert") && table.lines().count() == 2, "{table}");
}

fn count(records: &[Value], reason: &str) -> usize {
    records.iter().filter(|record| record["finish_reason"] == reason).count()
}
