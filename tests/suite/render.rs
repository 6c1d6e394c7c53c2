//! Tests `codit render`, and that synth decodes what it shows: rows of all kinds, the flags for prompts, limits, invalid
//! lines, continued messages.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use codit::checkpoint::Checkpoint;
use codit::text::{ChatTemplate, Conversation, Message};
use serde_json::{Map, Value, json};

use crate::program::{Workplace, message, records, refuse, sorted_lines, succeed};
use crate::synth::copy_embedded_expert;

fn render(input: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codit"));
    command.arg("render").arg(input).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

/// The JSON lines of `codit render --json`.
fn rendered(input: &Path, arguments: &[&str]) -> Vec<Value> {
    let result = render(input, &[arguments, &["--json"]].concat());
    assert!(result.status.success(), "{}", message(&result));
    let text = String::from_utf8(result.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(input: &Path, arguments: &[&str]) -> Vec<String> {
    rendered(input, arguments).iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect()
}

fn turn(role: &str, text: &str) -> String {
    format!("<|im_start|>{role}\n{text}<|im_end|>\n")
}

/// The prompt of turns by the embedded template.
fn chat(turns: &[(&str, &str)]) -> String {
    let turns: String = turns.iter().map(|(role, text)| turn(role, text)).collect();
    format!("{BOS}{turns}<|im_start|>assistant\n")
}

const BOS: &str = "<|begin_of_text|>";

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

/// Rows as other tools write them, and the prompt of each.
fn rows_of_other_tools() -> Vec<(Value, String)> {
    let question = "What is 3 plus 4?";
    vec![
        (
            json!({"instruction": "Write the word in capital letters.", "input": "river", "output": "RIVER"}),
            chat(&[("user", "Write the word in capital letters.\n\nriver")]),
        ),
        (json!({"instruction": question, "input": "", "output": "7"}), chat(&[("user", question)])),
        (
            json!({"conversations": [
                {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello"}, {"from": "human", "value": question}
            ]}),
            chat(&[("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", question)]),
        ),
        (
            json!({"prompt": [{"role": "user", "content": question}], "completion": [{"role": "assistant", "content": "7"}]}),
            chat(&[("user", question)]),
        ),
        (json!({"prompt": "The river ", "completion": "flows."}), format!("{BOS}The river ")),
    ]
}

#[test]
fn rows_of_other_tools_work_as_they_are() {
    let place = Workplace::new();
    let (rows, expected): (Vec<Value>, Vec<String>) = rows_of_other_tools().into_iter().unzip();
    let input = place.write("input.jsonl", &lines(&rows));
    let shown = rendered(&input, &[]);
    for (index, (row, expected)) in shown.iter().zip(&expected).enumerate() {
        assert_eq!(row["id"], format!("conv_{}", index + 1));
        let text = row["text"].as_str().unwrap();
        assert_eq!(text, expected);
        assert!(row["tokens"].as_array().unwrap().iter().all(Value::is_u64));
    }
    let output = place.path("out.jsonl");
    let result = succeed(&input, &output, &["--max-tokens", "8", "--seed", "1"]);
    let said = message(&result);
    for remark in ["column input is joined to the instruction", "column output is kept beside response"] {
        assert_eq!(said.matches(remark).count(), 1, "{said}");
    }
    let records = records(&output);
    assert_eq!(records.len(), rows.len());
    let alpaca = records.iter().find(|record| record["id"] == "conv_1").unwrap();
    assert_eq!(alpaca["instruction"], "Write the word in capital letters.\n\nriver");
    assert_eq!(alpaca["output"], "RIVER");
    assert!(records.iter().all(|record| record["id"].is_string() && record["error"].is_null()));
}

#[test]
fn the_flags_for_prompts_are_obeyed() {
    let place = Workplace::new();
    let expert = place.path("expert");
    copy_embedded_expert(&expert);
    fs::write(
        expert.join("chat_template.jinja"),
        "{{ strftime_now('%Y') }} {{ mood }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    )
    .unwrap();
    // No weights are loaded.
    fs::remove_file(expert.join("model.safetensors")).unwrap();
    let expert = expert.to_str().unwrap();
    let input = place.write(
        "input.jsonl",
        &lines(&[
            json!({"instruction": "a"}),
            json!({"instruction": "b", "system": "Own.", "chat_template_kwargs": {"mood": "sad"}}),
        ]),
    );
    let kwargs = r#"{"mood":"gay","codit_clock":"1999-01-31T12:00:00Z"}"#;
    let arguments = ["--expert", expert, "--system", "S", "--chat-template-kwargs", kwargs];
    assert_eq!(texts(&input, &arguments), ["1999 gay[system]S[user]a>", "1999 sad[system]Own.[user]b>"]);
    assert_eq!(texts(&input, &[&arguments[..], &["--limit", "1"]].concat()).len(), 1);
}

#[test]
fn people_see_control_characters_and_token_ids() {
    let place = Workplace::new();
    let input = place.write(
        "input.jsonl",
        &lines(&[json!({"id": "a\u{1b}[2J", "instruction": "x\u{1b}[2J\u{202e}\r\ty e\u{301}\nz"})]),
    );
    let result = render(&input, &[]);
    let said = String::from_utf8(result.stdout).unwrap();
    assert!(said.starts_with("a\\u{1b}[2J: "), "{said}");
    assert!(said.contains("  x\\u{1b}[2J\\u{202e}\\r\ty e\u{301}\n  z<|im_end|>\n"), "{said}");
    assert!(said.contains("\n  ids: "), "{said}");
    let ids = rendered(&input, &[])[0]["tokens"].as_array().unwrap().len();
    assert!(said.contains(&format!(": {ids} tokens\n")), "{said}");
}

#[test]
fn rows_without_a_prompt_say_why() {
    let place = Workplace::new();
    let input =
        place.write("input.jsonl", "{\"id\": \"good\", \"instruction\": \"x\"}\nbad\n{\"id\": \"b\"}\n");
    let refused = render(&input, &["--json"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = message(&refused);
    assert!(
        said.contains("input.jsonl:2: not JSON") && said.contains("input.jsonl:3: no instruction"),
        "{said}"
    );
    assert!(said.contains("input.jsonl: 2 bad lines; correct them, or give --skip-invalid"), "{said}");
    let shown = rendered(&input, &["--skip-invalid"]);
    assert!(shown[0]["error"].is_null());
    assert_eq!((&shown[1]["id"], &shown[2]["id"]), (&json!("conv_2"), &json!("b")));
    assert!(shown[1]["error"].as_str().unwrap().starts_with("line 2: not JSON"));
    let none = place.write("none.jsonl", "bad\n");
    assert_eq!(render(&none, &["--skip-invalid"]).status.code(), Some(2));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Workplace::new();
    let rows: Vec<Value> = (0..5000).map(|row| json!({"instruction": format!("number {row}")})).collect();
    let input = place.write("input.jsonl", &lines(&rows));
    let script = format!(
        "\"{}\" render \"{}\" | head -n 1; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_codit"),
        input.display()
    );
    let result = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(String::from_utf8_lossy(&result.stdout).ends_with("\n0\n"));
    assert_eq!(message(&result), "");
}

// ---- The same in synth ------------------------------------------------------------------------------------------

#[test]
fn invalid_lines_become_error_records_and_are_not_made_again() {
    let place = Workplace::new();
    let input = place.write(
        "input.jsonl",
        "{\"id\": 1, \"instruction\": \"Hi\"}\nbad \u{1b}[2J\n{\"id\": \"1\", \"instruction\": \"Hi\"}\n{\"id\": \"e\", \"instruction\": \"\"}\n",
    );
    let output = place.path("out.jsonl");
    let said = refuse_all(&input, &output, &[]);
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(!output.exists());
    let arguments = ["--skip-invalid", "--max-tokens", "8", "--seed", "1", "--n", "2"];
    assert!(
        message(&succeed(&input, &output, &arguments))
            .contains("3 invalid lines, each with an error in place of a prompt")
    );
    let all = records(&output);
    assert_eq!(all.len(), 8);
    for (id, words) in [
        ("conv_2", "line 2: not JSON"),
        ("conv_3", "line 3: id \"1\" equals that of line 1"),
        ("e", "line 4: instruction is empty"),
    ] {
        let of: Vec<&Value> = all.iter().filter(|record| record["id"] == id).collect();
        assert_eq!(of.len(), 2, "{id}");
        assert!(of.iter().all(|record| record["error"].as_str().unwrap().starts_with(words)), "{of:?}");
        assert!(of.iter().all(|record| record["is_completed"] == json!(false)));
    }
    // After a kill the run goes on to the same records.
    let whole = sorted_lines(&output);
    let text = fs::read_to_string(&output).unwrap();
    let kept: String = text.lines().take(3).map(|line| line.to_owned() + "\n").collect();
    fs::write(&output, kept).unwrap();
    succeed(&input, &output, &arguments);
    assert_eq!(sorted_lines(&output), whole);
}

/// Runs to a refusal of several lines.
fn refuse_all(input: &Path, output: &Path, arguments: &[&str]) -> String {
    let result = crate::program::synth(input, output, arguments).output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(2), "{said}");
    assert!(said.lines().all(|line| line.starts_with("codit: error: ")), "{said}");
    said
}

#[test]
fn a_limit_may_be_raised_and_not_lowered() {
    let place = Workplace::new();
    let input = place.instructions(7);
    let run = |name: &str, limit: &[&str]| {
        let output = place.path(name);
        succeed(&input, &output, &[&["--max-tokens", "8", "--seed", "1"], limit].concat());
        sorted_lines(&output)
    };
    let whole = run("whole.jsonl", &[]);
    assert_eq!(run("out.jsonl", &["--limit", "2"]).len(), 2);
    assert_eq!(run("out.jsonl", &["--limit", "2"]).len(), 2);
    assert_eq!(run("out.jsonl", &["--limit", "5"]).len(), 5);
    let said =
        refuse(&input, &place.path("out.jsonl"), &["--max-tokens", "8", "--seed", "1", "--limit", "3"]);
    assert!(said.contains("limit was 5, now 3, and it may only be raised"), "{said}");
    assert_eq!(run("out.jsonl", &[]), whole);
    let said =
        refuse(&input, &place.path("out.jsonl"), &["--max-tokens", "8", "--seed", "1", "--limit", "3"]);
    assert!(said.contains("limit was none, now 3"), "{said}");
    // Rows that were not taken yet may change, the others may not.
    run("begun.jsonl", &["--limit", "2"]);
    let text = fs::read_to_string(&input).unwrap();
    fs::write(&input, text.clone() + "{\"instruction\": \"Hi\"}\n").unwrap();
    assert_eq!(run("begun.jsonl", &["--limit", "3"]), [&whole[..], &[]].concat()[..3]);
    fs::write(&input, text.replacen("river", "brook", 1)).unwrap();
    let said =
        refuse(&input, &place.path("begun.jsonl"), &["--max-tokens", "8", "--seed", "1", "--limit", "4"]);
    assert!(said.contains("the input is another, or was changed"), "{said}");
}

#[test]
fn integer_ids_of_an_older_output_are_resumed() {
    let place = Workplace::new();
    let input = place.write(
        "input.jsonl",
        "{\"id\": 7, \"instruction\": \"Hi\"}\n{\"id\": \"b\", \"instruction\": \"Hi\"}\n",
    );
    let output = place.path("out.jsonl");
    let arguments = ["--max-tokens", "8", "--seed", "1"];
    succeed(&input, &output, &arguments);
    let whole = fs::read_to_string(&output).unwrap();
    let old = whole.replace("{\"id\":\"7\",", "{\"id\":7,");
    assert_ne!(old, whole);
    fs::write(&output, &old).unwrap();
    succeed(&input, &output, &arguments);
    assert_eq!(fs::read_to_string(&output).unwrap(), old);
}

#[test]
fn long_rows_at_the_front_are_errors_of_their_own() {
    let place = Workplace::new();
    let long = json!({"instruction": "a ".repeat(500_000)}).to_string() + "\n";
    let input =
        place.write("input.jsonl", &(long.repeat(8) + "{\"instruction\": \"Write the word river.\"}\n"));
    let output = place.path("out.jsonl");
    succeed(&input, &output, &["--max-tokens", "4", "--seed", "1"]);
    let records = records(&output);
    assert_eq!(records.len(), 9);
    assert_eq!(records.iter().filter(|record| record.get("error").is_some()).count(), 8);
}

#[test]
fn the_template_is_tried_with_the_first_rows() {
    let place = Workplace::new();
    let expert = place.path("expert");
    copy_embedded_expert(&expert);
    let template = "{% if messages[0].role != 'system' %}{{ raise_exception('give a system turn') }}{% endif %}{{ messages[1].content }}";
    fs::write(expert.join("chat_template.jinja"), template).unwrap();
    let arguments = ["--expert", expert.to_str().unwrap(), "--beta", "0", "--max-tokens", "4", "--seed", "1"];
    let with_system =
        json!({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "x"}]});
    let without = json!({"id": "bare", "instruction": "x"});
    let input = place.write("input.jsonl", &lines(&[without.clone(), with_system]));
    let output = place.path("out.jsonl");
    succeed(&input, &output, &arguments);
    let all = records(&output);
    assert!(
        all.iter().find(|record| record["id"] == "bare").unwrap()["error"]
            .as_str()
            .unwrap()
            .contains("give a system turn")
    );
    assert!(all.iter().find(|record| record["id"] == "conv_2").unwrap()["error"].is_null());
    let input = place.write("bare.jsonl", &lines(&[without]));
    let said = refuse(&input, &place.path("bare.out"), &arguments);
    assert!(said.contains("give a system turn"), "{said}");
}

#[test]
fn a_last_message_is_continued_as_transformers_does() {
    let place = Workplace::new();
    let input = place.write("input.jsonl", &lines(&[
        json!({"id": "c", "messages": [{"role": "user", "content": "Spell the word badger."}, {"role": "assistant", "content": "badger is"}]}),
        json!({"id": "a", "instruction": "Hi"}),
    ]));
    let said = refuse(&input, &place.path("out"), &[]);
    assert!(said.contains("--continue-final-message") && said.contains("--drop-final-answer"), "{said}");
    let shown = texts(&input, &["--continue-final-message"]);
    assert!(shown[0].ends_with("<|im_start|>assistant\nbadger is"), "{shown:?}");
    assert!(shown[1].ends_with("<|im_start|>assistant\n"), "{shown:?}");
    assert!(
        texts(&input, &["--drop-final-answer"])[0].ends_with("badger.<|im_end|>\n<|im_start|>assistant\n")
    );
    let output = place.path("out.jsonl");
    succeed(&input, &output, &["--continue-final-message", "--max-tokens", "20", "--seed", "1"]);
    let all = records(&output);
    let continued = all.iter().find(|record| record["id"] == "c").unwrap();
    assert_eq!(continued["instruction"], "Spell the word badger.");
    assert!(!continued["response"].as_str().unwrap().contains("badger is"), "{continued}");
    let said = refuse(&input, &output, &["--drop-final-answer", "--max-tokens", "20", "--seed", "1"]);
    assert!(said.contains("continue_final_message was true, now unset"), "{said}");
}

#[test]
fn continued_messages_equal_the_goldens() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/continued.jsonl");
    let text = fs::read_to_string(goldens).unwrap();
    for row in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("chat_template.jinja"), row["template"].as_str().unwrap()).unwrap();
        let template = ChatTemplate::load(&Checkpoint::open(folder.path()).unwrap()).unwrap().unwrap();
        let messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let conversation = Conversation { continue_final_message: true, ..messages.into() };
        let rendered = template.render(&conversation, &Map::new());
        match row["expected"].as_str() {
            Some(expected) => assert_eq!(rendered.unwrap(), expected, "{}", row["name"]),
            None => assert!(rendered.is_err(), "{}: {rendered:?}", row["name"]),
        }
    }
}
