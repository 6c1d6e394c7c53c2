//! Tests what an input may hold: rows of all kinds, and files and lines that are none.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use codit::Error;
use codit::dataset::{Body, FinalAnswer, Id, Input, InputOptions, InputRow, MAX_LINE};
use codit::text::{Conversation, Message};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

pub fn file(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompts.jsonl");
    fs::write(&path, text).unwrap();
    (folder, path)
}

pub fn input(text: impl AsRef<[u8]>) -> Input {
    let (_folder, path) = file(text);
    Input::open(path).unwrap()
}

pub fn only_prompt(text: &str) -> InputRow {
    input(text).read(0).unwrap()
}

/// The message of the error for a file with `text`. It must name the file and line `line`.
fn refusal(text: impl AsRef<[u8]>, line: usize) -> String {
    let (_folder, path) = file(text);
    let error = Input::open(&path).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    let place = format!("{}:{line}: ", path.display());
    message.strip_prefix(&place).unwrap_or_else(|| panic!("{message:?} is not at {place:?}")).to_owned()
}

#[test]
fn rows_of_three_kinds() {
    let input = input(
        r#"{"id": "a", "instruction": "Say hi."}
{"prompt": "Once upon", "id": 7}
{"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Hm?"}]}
"#,
    );
    assert_eq!(input.len(), 3);
    let prompts: Vec<_> = (0..3).map(|row| input.read(row).unwrap()).collect();
    assert_eq!(prompts[0].id, Id::Text("a".into()));
    assert_eq!(prompts[0].body, Body::Chat(Conversation::of_instruction("Say hi.")));
    assert_eq!(prompts[1].id, Id::Integer("7".into()));
    assert_eq!(prompts[1].body, Body::Text("Once upon".into()));
    assert_eq!(prompts[2].id, Id::Text("conv_3".into()));
    let messages = [("system", ""), ("user", "Hm?")];
    let messages = messages.map(|(role, content)| Message::new(role, content));
    assert_eq!(prompts[2].body, Body::Chat(messages.to_vec().into()));
    assert_eq!(prompts[2].body.instruction(), "Hm?");
    let rows = ["a", "7", "conv_3", "b"].map(|key| input.row(key));
    assert_eq!(rows, [Some(0), Some(1), Some(2), None]);
}

#[test]
fn blank_lines_marks_and_line_ends_are_tolerated() {
    let text = "\u{feff}\r\n{\"instruction\": \"x\"}\r\n\n  \t\n\n{\"instruction\": \"y\"}";
    let prompts = input(text);
    assert_eq!(prompts.len(), 2);
    let lines: Vec<_> = (0..2).map(|row| prompts.read(row).unwrap()).map(|p| (p.line, p.id)).collect();
    assert_eq!(lines, [(2, Id::Text("conv_2".into())), (6, Id::Text("conv_6".into()))]);
    assert_eq!(only_prompt("\u{feff}{\"instruction\": \"x\"}").line, 1);
}

#[test]
fn a_null_column_counts_as_missing() {
    let prompt = only_prompt(r#"{"id": null, "instruction": null, "prompt": "x", "messages": null}"#);
    assert_eq!((prompt.id, prompt.body), (Id::Text("conv_1".into()), Body::Text("x".into())));
}

#[test]
fn bad_lines_are_named_with_a_remedy() {
    let good = r#"{"instruction": "x"}"#;
    let cases: &[(&[u8], &str)] = &[
        (b"{\"instruction\": \"\xff\"}", "not UTF-8 from byte 18 on; convert"),
        (b"{\"instruction\": ", "not JSON: EOF while parsing a value, at column"),
        (b"nothing", "not JSON: expected ident, at column"),
        (b"[1]", "not a row: invalid type: sequence, expected an object"),
        (b"{} {}", "not JSON: trailing characters, at column 4"),
        (b"{}", "no instruction; give the line one of"),
        (b"{\"instruction\": null}", "no instruction"),
        (b"{\"instruction\": \"\"}", "instruction is empty; give it text or remove"),
        (b"{\"instruction\": \" \\n\\u00a0\"}", "instruction is empty"),
        (b"{\"instruction\": [\"x\"]}", "instruction must be a string"),
        (b"{\"instruction\": \"\\ud800\"}", "instruction must be a string of text"),
        (b"{\"prompt\": \"\"}", "prompt is empty"),
        (b"{\"prompt\": \"x\", \"instruction\": \"y\"}", "both instruction and prompt; keep"),
        (b"{\"messages\": [], \"instruction\": \"y\"}", "both instruction and messages; keep"),
        (b"{\"messages\": []}", "messages is empty"),
        (b"{\"messages\": \"x\"}", "messages must be an array of"),
        (b"{\"messages\": [{\"role\": \"user\"}]}", "missing field `content`"),
        (b"{\"messages\": [{\"role\": \"user\", \"content\": [\"x\"]}]}", "expected a string"),
        (b"{\"messages\": [{\"role\": \"user\", \"content\": \" \"}]}", "the last of messages is empty"),
        (
            b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}",
            "by \"assistant\"; end with the user",
        ),
        (b"{\"instruction\": \"x\", \"id\": 1.5}", "id is 1.5; make it a string or an integer"),
        (b"{\"instruction\": \"x\", \"id\": 1e5}", "id is 1e5; make"),
        (b"{\"instruction\": \"x\", \"id\": [1]}", "id is [1]; make"),
        (b"{\"instruction\": \"x\", \"id\": true}", "id is true; make"),
        (b"{\"instruction\": \"x\", \"a\": 1, \"a\": 2}", "column \"a\" is there twice"),
        (
            b"{\"instruction\": \"x\", \"score\": 1}",
            "column \"score\" is one that the output defines; rename",
        ),
        (b"{\"instruction\": \"x\", \"response\": null}", "column \"response\" is one that the output"),
        (b"{\"instruction\": \"x\",\r\"a\": 1}", "a carriage return inside the line"),
        (b"{\"instruction\": \"x\0\"}", "holds NUL bytes"),
        (b"\0\0\0\0\0\0", "holds NUL bytes (a tail lost in a crash"),
    ];
    for (line, expected) in cases {
        for (newline, at) in [("\n", 1), ("", 2)] {
            let before = format!("{good}\n").repeat(at - 1);
            let message = refusal([before.as_bytes(), line, newline.as_bytes()].concat(), at);
            assert!(message.contains(expected), "{message:?} is not {expected:?}");
        }
    }
}

#[test]
fn ids_are_unique_as_text() {
    let twice = |first: &str, second: &str| {
        let message = refusal(
            format!("{{\"instruction\":\"x\",\"id\":{first}}}\n\n{{\"instruction\":\"x\"{second}}}\n"),
            3,
        );
        assert!(message.contains("equals that of line 1"), "{message}");
    };
    twice("\"a\"", ",\"id\":\"a\"");
    twice("1", ",\"id\":\"1\"");
    twice("\"conv_3\"", "");
    twice("\"\\u0061\"", ",\"id\":\"a\"");
    let many = "{\"instruction\":\"x\"}\n".repeat(3) + "{\"instruction\":\"x\",\"id\":01}";
    assert!(refusal(many, 4).contains("not JSON"));
}

#[test]
fn a_file_without_prompts_is_refused() {
    for text in ["", "\n \n", "\u{feff}"] {
        let (_folder, path) = file(text);
        let message = Input::open(&path).unwrap_err().to_string();
        assert!(message.contains("holds no prompts; give"), "{message}");
    }
    let (folder, path) = file("");
    assert!(Input::open(folder.path()).unwrap_err().to_string().contains("a folder; give a JSONL file"));
    assert!(Input::open("/dev/null").unwrap_err().to_string().contains("not a regular file"));
    fs::remove_file(&path).unwrap();
    assert!(matches!(Input::open(&path).unwrap_err(), Error::Io { action: "cannot open", .. }));
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(Input::open(&pipe).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn a_line_may_be_long_but_not_endless() {
    let row = |length: usize| format!("{{\"instruction\":\"{}\"}}", "x".repeat(length - 18));
    assert_eq!(input(row(MAX_LINE - 1) + "\n" + &row(18 + 1)).len(), 2);
    assert!(refusal(row(MAX_LINE + 1), 1).starts_with("longer than 16 MiB; shorten or remove"));
    assert!(refusal(" ".repeat(MAX_LINE + 1), 1).starts_with("longer than 16 MiB"));
    let (_folder, path) = file("{\"instruction\":\"x\"}\n");
    File::options().write(true).open(&path).unwrap().set_len(5 * MAX_LINE as u64).unwrap();
    let message = Input::open(&path).unwrap_err().to_string();
    assert!(message.contains(":2: holds NUL bytes"), "{message}");
}

#[test]
fn an_input_that_changes_during_the_run_is_noticed() {
    let (_folder, path) = file("{\"instruction\":\"x\"}\n{\"instruction\":\"y\"}\n");
    let prompts = Input::open(&path).unwrap();
    fs::write(&path, "{\"instruction\":\"x\"}\n{\"instruction\":\"z\"}\n").unwrap();
    prompts.read(0).unwrap();
    let changed = |input: &Input| {
        let message = input.read(1).unwrap_err().to_string();
        assert!(message.contains(":2: has changed since the run began"), "{message}");
    };
    changed(&prompts);
    fs::write(&path, "{\"instruction\":\"x\"}\n").unwrap();
    changed(&prompts);
    assert_ne!(Input::open(&path).unwrap().hash(), prompts.hash());
}

#[test]
fn the_hash_is_that_of_the_file() {
    assert_eq!(
        input("{\"instruction\":\"x\"}").hash(),
        "e6ecb1f3f16d3aff0577a44e389125f22c2ec089fdef02daba314cf7284a585c"
    );
}
pub fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let fragments = prop_oneof![
        "[\\PC]{0,8}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..8),
        proptest::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            "\"",
            ":",
            ",",
            "\n",
            "\r\n",
            "\\u",
            "null",
            "1.5",
            "\"id\"",
            "\"instruction\"",
            "\"prompt\"",
            "\"messages\"",
            "\"role\"",
            "\"content\"",
            "{\"instruction\":\"x\"}\n",
            "{\"id\":1,\"prompt\":\"x\"}\n",
        ])
        .prop_map(|text: &str| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(fragments, 0..20).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn garbage_is_refused_or_read(bytes in garbage()) {
        let (_folder, path) = file(&bytes);
        if let Ok(input) = Input::open(&path) {
            for row in 0..input.len() {
                let prompt = input.read(row).unwrap();
                prop_assert_eq!(input.row(prompt.id.key()), Some(row));
            }
        }
    }
}

// ---- Rows of other tools ----------------------------------------------------------------------------------------

fn open_with(text: impl AsRef<[u8]>, options: &InputOptions) -> (TempDir, codit::Result<Input>) {
    let (folder, path) = file(text);
    let input = Input::open_with(path, options);
    (folder, input)
}

fn conversation_of(row: &Value) -> Conversation {
    match only_prompt(&row.to_string()).body {
        Body::Chat(conversation) => conversation,
        other => panic!("{row}: {other:?}"),
    }
}

/// The messages of a row, as JSON.
fn messages_of(row: &Value) -> Value {
    json!(conversation_of(row).messages)
}

fn refusal_of(row: &Value) -> String {
    refusal(row.to_string(), 1)
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[test]
fn an_alpaca_row_joins_its_input() {
    let row =
        |input: Value| json!({"instruction": "Translate to French.", "input": input, "output": "Bonjour"});
    let joined = only_prompt(&row(json!("Good morning")).to_string());
    assert_eq!(joined.body.instruction(), "Translate to French.\n\nGood morning");
    assert_eq!(
        messages_of(&row(json!("Good morning"))),
        json!([user("Translate to French.\n\nGood morning")])
    );
    assert_eq!(joined.columns.keys().collect::<Vec<_>>(), ["input", "output"]);
    for nothing in [json!(""), json!(" \n"), json!(null)] {
        assert_eq!(messages_of(&row(nothing)), json!([user("Translate to French.")]));
    }
    for wrong in [json!(3), json!(["x"]), json!({"a": 1})] {
        assert!(
            refusal_of(&row(wrong)).starts_with("input must be a string, which is joined to the instruction")
        );
    }
    // Beside other prompts the column means something else.
    assert_eq!(only_prompt(r#"{"prompt": "x", "input": 3}"#).body, Body::Text("x".into()));
}

#[test]
fn system_and_history_are_turns() {
    let row = json!({
        "instruction": "And now?", "system": "Be brief.", "history": [["Hi", "Hello"], ["Who?", "Me."]],
    });
    let assistant = |text: &str| json!({"role": "assistant", "content": text});
    let expected = json!([
        {"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello"), user("Who?"), assistant("Me."),
        user("And now?")
    ]);
    assert_eq!(messages_of(&row), expected);
    let own = json!({"messages": [{"role": "system", "content": "A"}, user("x")], "system": "B"});
    assert_eq!(messages_of(&own), own["messages"]);
    let empty = json!({"instruction": "x", "system": "", "history": []});
    assert_eq!(messages_of(&empty), json!([user("x")]));
    assert!(refusal_of(&json!({"instruction": "x", "system": 1})).contains("system must be a string"));
    assert!(refusal_of(&json!({"instruction": "x", "history": "y"})).contains("history must be a list"));
}

#[test]
fn share_gpt_rows_are_conversations() {
    let row = json!({"id": "s1", "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "What is the weather in Lima?"},
        {"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {\"city\": \"Lima\"}}"},
        {"from": "observation", "value": "{\"sky\": \"grey\"}"},
        {"from": "gpt", "value": "Grey.", "weight": 0},
        {"from": "human", "value": "And in Cusco?"},
    ], "tools": "[{\"name\": \"weather\"}]"});
    let expected = json!([
        {"role": "system", "content": "Be brief."},
        user("What is the weather in Lima?"),
        {"role": "assistant", "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lima"}}}
        ]},
        {"role": "tool", "content": "{\"sky\": \"grey\"}"},
        {"role": "assistant", "content": "Grey.", "weight": 0},
        user("And in Cusco?"),
    ]);
    assert_eq!(messages_of(&row), expected);
    assert_eq!(conversation_of(&row).tools, Some(vec![json!({"name": "weather"})]));
    let by_role = json!({"conversations": [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}, user("c")]});
    let roles: Vec<_> =
        conversation_of(&by_role).messages.iter().map(|m| m.role().unwrap().to_owned()).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    let in_messages = json!({"messages": [{"from": "human", "value": "a"}]});
    assert_eq!(messages_of(&in_messages), json!([user("a")]));
    let unread = json!({"conversations": [{"from": "function_call", "value": "no JSON"}, user("x")]});
    assert_eq!(messages_of(&unread)[0], json!({"role": "assistant", "content": "no JSON"}));
    assert!(refusal_of(&json!({"conversations": []})).contains("conversations is empty"));
    assert!(refusal_of(&json!({"conversations": [{"from": "human"}]})).contains("missing field `content`"));
}

#[test]
fn a_trl_row_may_hold_messages_under_prompt() {
    let turns = json!([{"role": "system", "content": "Be brief."}, user("What is the sky's colour?")]);
    let completion = json!([{"role": "assistant", "content": "Blue."}]);
    let row = json!({"prompt": turns, "completion": completion, "chat_template_kwargs": {"enable_thinking": false}});
    let conversation = conversation_of(&row);
    assert_eq!(json!(conversation.messages), turns);
    assert_eq!(json!(conversation.template_variables), row["chat_template_kwargs"]);
    assert_eq!(only_prompt(&row.to_string()).body.instruction(), "What is the sky's colour?");
    assert!(refusal_of(&json!({"prompt": []})).contains("prompt is empty"));
    assert!(refusal_of(&json!({"prompt": ["x"]})).contains("prompt[0] is a string, expected an object"));
    assert!(
        refusal_of(&json!({"prompt": 3})).contains("prompt must be a string of text or a list of messages")
    );
    assert!(
        refusal_of(&json!({"prompt": turns, "chat_template_kwargs": 1})).contains("an object of variables")
    );
}

#[test]
fn every_field_of_a_message_is_kept() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": null}}});
    let row = json!({
        "messages": [
            user("?"),
            {"role": "assistant", "content": null, "tool_calls": [call], "reasoning_content": "Hm."},
            {"role": "tool", "content": "42", "tool_call_id": "a", "name": "f"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "documents": [{"title": "T", "text": "..."}],
    });
    let conversation = conversation_of(&row);
    assert_eq!(json!(conversation.messages), row["messages"]);
    assert_eq!(
        (json!(conversation.tools), json!(conversation.documents)),
        (row["tools"].clone(), row["documents"].clone())
    );
    assert_eq!(only_prompt(&row.to_string()).body.instruction(), "?", "the text of the user's last turn");
    let absent = json!({"messages": [user("?"), {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": {"n": 1}}]});
    assert_eq!(messages_of(&absent), absent["messages"]);
    let no_user = json!({"messages": [{"role": "tool", "content": "done"}]});
    assert_eq!(only_prompt(&no_user.to_string()).body.instruction(), "done");
}

#[test]
fn tools_are_a_list_or_the_json_of_one() {
    let tools = |tools: Value| conversation_of(&json!({"instruction": "x", "tools": tools})).tools;
    assert_eq!(tools(json!("[{\"name\": \"f\"}]")), Some(vec![json!({"name": "f"})]));
    assert_eq!(tools(json!([])), Some(Vec::new()));
    for nothing in [json!(null), json!(""), json!("null")] {
        assert_eq!(tools(nothing), None);
    }
    for (wrong, words) in [
        (json!("hammer, saw"), "tools must be a list of JSON schemas"),
        (json!([1]), "tools[0] is a number"),
        (json!({"a": 1}), "rename it if it is something else"),
        (json!("[{\"a\": 1, \"a\": 2}]"), "the key \"a\" is there twice"),
    ] {
        let said = refusal_of(&json!({"instruction": "x", "tools": wrong}));
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(only_prompt(r#"{"prompt": "x", "tools": "saw"}"#).body, Body::Text("x".into()));
}

#[test]
fn content_may_be_parts_of_text() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let row = json!({"messages": [{"role": "user", "content": parts}]});
    assert_eq!(messages_of(&row), row["messages"]);
    assert_eq!(only_prompt(&row.to_string()).body.instruction(), "ab");
    for (content, words) in [
        (
            json!([{"type": "image_url", "image_url": {"url": "x"}}]),
            "messages[0].content[0] is a part of type \"image_url\"",
        ),
        (
            json!([{"type": "text", "text": "a"}, {"type": "input_audio"}]),
            "content[1] is a part of type \"input_audio\"",
        ),
        (json!([{"type": "text"}]), "has no text"),
        (json!([]), "the last of messages is empty"),
        (json!(["x"]), "messages[0].content[0] is a string"),
        (json!({"a": 1}), "messages[0].content is an object"),
        (json!(1), "messages[0].content is a number"),
        (json!(null), "messages[0]: missing field `content`"),
    ] {
        let said = refusal_of(&json!({"messages": [{"role": "user", "content": content}]}));
        assert!(said.contains(words), "{said}");
    }
    let result =
        json!({"messages": [user("?"), {"role": "tool", "content": [{"type": "image", "url": "x"}]}]});
    assert!(refusal_of(&result).contains("a part of type \"image\""));
    for (turn, words) in [
        (json!({"content": "x"}), "missing field `role`"),
        (json!({"role": 1, "content": "x"}), "role must be a string"),
        (json!({"role": "assistant"}), "missing field `content`"),
        (json!({"role": "assistant", "tool_calls": "x"}), "tool_calls must be a list of objects"),
        (json!("x"), "messages[0] is a string, expected an object"),
    ] {
        let said = refusal_of(&json!({"messages": [turn, user("x")]}));
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_last_turn_of_the_assistant_is_refused_continued_or_dropped() {
    let turns =
        |content: Value| json!({"messages": [user("Count."), {"role": "assistant", "content": content}]});
    let row = turns(json!("One, two"));
    let said = refusal_of(&row);
    assert!(said.contains("--continue-final-message") && said.contains("--drop-final-answer"), "{said}");
    let with = |row: &Value, final_answer| {
        let (_folder, input) =
            open_with(row.to_string(), &InputOptions { final_answer, ..InputOptions::default() });
        input.map(|input| input.read(0).unwrap())
    };
    let continued = with(&row, FinalAnswer::Continued).unwrap();
    assert_eq!(continued.body.instruction(), "Count.");
    let Body::Chat(conversation) = continued.body else { panic!() };
    assert!(conversation.continue_final_message);
    assert_eq!(json!(conversation.messages), row["messages"]);
    let Body::Chat(conversation) = with(&row, FinalAnswer::Dropped).unwrap().body else { panic!() };
    assert_eq!(
        (json!(conversation.messages), conversation.continue_final_message),
        (json!([user("Count.")]), false)
    );

    let message = |row, final_answer| with(&row, final_answer).unwrap_err().to_string();
    let calls = json!({"messages": [user("x"), {"role": "assistant", "tool_calls": [{"a": 1}]}]});
    assert!(
        message(calls, FinalAnswer::Continued)
            .contains("no content that --continue-final-message could continue")
    );
    let alone = json!({"messages": [{"role": "assistant", "content": "x"}]});
    assert!(message(alone, FinalAnswer::Dropped).contains("has turns of the assistant alone"));
    with(&turns(json!("")), FinalAnswer::Continued).unwrap();
    with(&turns(json!([{"type": "text", "text": "One"}])), FinalAnswer::Continued).unwrap();
    // A row that ends otherwise is answered.
    let Body::Chat(answered) = with(&json!({"messages": [user("x")]}), FinalAnswer::Continued).unwrap().body
    else {
        panic!()
    };
    assert!(!answered.continue_final_message);
    let system = json!({"messages": [user("x"), {"role": "system", "content": "y"}]});
    assert!(refusal_of(&system).contains("by \"system\"; end with the user"));
}

#[test]
fn what_may_surprise_is_said_once() {
    let text = r#"{"instruction": "a", "input": "b", "output": "c"}
{"instruction": "a", "input": "b", "output": "c", "context": "d", "system": "e"}
"#;
    let said: Vec<String> = input(text).remarks().collect();
    let expected = [
        "column input is joined to the instruction",
        "column output is kept beside response",
        "column system gives the system message",
        "column context is copied, but is no part of the prompt",
    ];
    assert_eq!(said.len(), expected.len(), "{said:?}");
    assert!(said.iter().zip(expected).all(|(said, expected)| said.starts_with(expected)), "{said:?}");
    assert!(said[3].ends_with("(first in line 2)"));
    assert_eq!(input(r#"{"instruction": "a", "input": "", "output": null}"#).remarks().count(), 0);
}

// ---- Values that not every reader understands alike -------------------------------------------------------------

#[test]
fn values_that_are_no_plain_json_are_named_with_their_column() {
    let deep = |levels: usize| {
        format!("{{\"instruction\": \"x\", \"a\": {}{}}}", "[".repeat(levels), "]".repeat(levels))
    };
    let long = format!("{{\"{}\": 1, \"{0}\": 2}}", "k".repeat(100_000));
    let cases: Vec<(String, &str)> = vec![
        (r#"{"instruction": "x", "a": NaN}"#.into(), "NaN at column 27 is Python's"),
        (r#"{"instruction": "x", "a": [1, NaN]}"#.into(), "NaN at column 31"),
        (r#"{"instruction": "x", "a": Infinity}"#.into(), "Infinity at column 27"),
        (r#"{"instruction": "x", "a": -Infinity}"#.into(), "Infinity at column 2"),
        (r#"{"instruction": "x", "a": None}"#.into(), "None at column 27"),
        ("{'instruction': 'x'}".into(), "single quotes are Python's"),
        (r#"{"instruction": "a \ud800 b"}"#.into(), "half a surrogate pair at column"),
        (
            r#"{"instruction": "x", "a": ["\udc00"]}"#.into(),
            "a must be a string of text, and holds half a surrogate pair",
        ),
        (r#"{"instruction": "x", "\ud83d": 1}"#.into(), "surrogate"),
        (
            r#"{"messages": [{"role": "user", "content": "\ud800x"}]}"#.into(),
            "messages must be a string of text",
        ),
        (r#"{"instruction": "x", "a": 1e400}"#.into(), "a holds a number that is out of range at column"),
        (
            r#"{"instruction": "x", "a": {"b": 1, "b": 2}}"#.into(),
            "a: the key \"b\" is there twice, at column",
        ),
        (
            r#"{"messages": [{"role": "user", "role": "user", "content": "x"}]}"#.into(),
            "the key \"role\" is there twice",
        ),
        (deep(200), "a is nested too deeply, more than 127 levels at column"),
        (deep(200_000), "nested too deeply"),
        (long, "is there twice"),
        ("{\"instruction\": \"x\u{1b}[2J\"}".into(), "control character"),
        (format!("\"{}\"", "x".repeat(1 << 20)), "not a row"),
        (r#"{"instruction": "x", "id": [1, "#.to_owned() + &"1,".repeat(10_000) + "1]}", "id is [1, 1,1"),
    ];
    for (line, words) in cases {
        let said = refusal(&line, 1);
        assert!(said.contains(words), "{said:?} is not {words:?}");
        assert!(said.len() < 600 && !said.contains(char::is_control), "{} bytes: {said}", said.len());
        let options = InputOptions { skip_invalid: true, ..InputOptions::default() };
        let (_folder, input) = open_with(format!("{line}\n{{\"instruction\": \"y\"}}\n"), &options);
        let input = input.unwrap();
        let Body::Invalid(message) = input.read(0).unwrap().body else { panic!("{words}") };
        assert!(
            message.starts_with("line 1: ") && message.contains(words) && message.len() < 700,
            "{message}"
        );
        assert!(input.is_prompt(1) && !input.is_prompt(0));
    }
    only_prompt(&deep(120));
    only_prompt(r#"{"instruction": "\ud83d\ude00 \u0000", "a": 123456789012345678901234567890}"#);
}

// ---- Bad lines --------------------------------------------------------------------------------------------------

#[test]
fn the_first_ten_bad_lines_are_reported_and_the_rest_is_counted() {
    let of = |bad: usize| {
        let (_folder, path) = file("{\"instruction\": \"x\"}\n".to_owned() + &"{\"a\": 1}\n".repeat(bad));
        (path.clone(), Input::open(&path).unwrap_err())
    };
    let (path, error) = of(41);
    assert_eq!(error.exit_code(), 2);
    let lines = error.lines();
    assert_eq!(lines.len(), 11);
    for (index, line) in lines[..10].iter().enumerate() {
        assert!(
            line.starts_with(&format!("{}:{}: no instruction; give", path.display(), index + 2)),
            "{line}"
        );
        assert!(line.ends_with("; it has: a"), "{line}");
    }
    let rest = format!("{}: ... and 31 more bad lines; correct them, or give --skip-invalid", path.display());
    assert!(lines[10].starts_with(&rest), "{}", lines[10]);
    assert!(of(11).1.to_string().contains("... and 1 more bad line;"));
    assert!(of(10).1.to_string().contains(": 10 bad lines; correct"));
    assert_eq!(of(1).1.lines().len(), 1);
}

#[test]
fn invalid_lines_become_rows_with_ids_of_their_own() {
    let text = r#"{"id": "a", "instruction": "x"}
{"id": "a", "instruction": "y"}
{"id": "b"}
nothing
{"id": "conv_7", "instruction": "z"}

{"id": "a", "prompt": "again"}
{"id": 9, "instruction": "\ud800"}
"#;
    let long = " ".repeat(MAX_LINE + 5) + "\n";
    let options = InputOptions { skip_invalid: true, ..InputOptions::default() };
    let (_folder, input) = open_with(text.to_owned() + &long + "{\"instruction\": \"end\"}", &options);
    let input = input.unwrap();
    let rows: Vec<InputRow> = (0..input.len()).map(|row| input.read(row).unwrap()).collect();
    let seen: Vec<(&str, usize, bool)> =
        rows.iter().map(|row| (row.id.key(), row.line, matches!(row.body, Body::Invalid(_)))).collect();
    let expected = [
        ("a", 1, false),
        ("conv_2", 2, true),
        ("b", 3, true),
        ("conv_4", 4, true),
        ("conv_7", 5, false),
        ("conv_7_2", 7, true),
        ("conv_8", 8, true),
        ("conv_9", 9, true),
        ("conv_10", 10, false),
    ];
    assert_eq!(seen, expected);
    for (row, (key, _, is_invalid)) in expected.iter().enumerate() {
        assert_eq!((input.row(key), input.is_prompt(row)), (Some(row), !is_invalid), "{key}");
    }
    let message = |row: usize| match &rows[row].body {
        Body::Invalid(message) => message.clone(),
        body => panic!("{body:?}"),
    };
    assert!(message(1).starts_with("line 2: id \"a\" equals that of line 1"), "{}", message(1));
    assert!(message(7).starts_with("line 9: longer than 16 MiB"), "{}", message(7));
    assert!(rows[2].columns.is_empty() && rows[2].body.instruction().is_empty());
}

/// An invalid line that has no id of its own gives way to a row whose id is the one it was given.
#[test]
fn no_row_fails_for_an_id_that_an_invalid_line_was_given() {
    let options = InputOptions { skip_invalid: true, ..InputOptions::default() };
    for (text, expected) in [
        ("bad\n{\"id\": \"conv_1\", \"instruction\": \"a\"}\n", [("conv_1_2", true), ("conv_1", false)]),
        ("{\"id\": \"conv_2\", \"instruction\": \"a\"}\nbad\n", [("conv_2", false), ("conv_2_2", true)]),
    ] {
        let (_folder, input) = open_with(text, &options);
        let input = input.unwrap();
        let rows: Vec<InputRow> = (0..input.len()).map(|row| input.read(row).unwrap()).collect();
        let seen: Vec<(&str, bool)> =
            rows.iter().map(|row| (row.id.key(), matches!(row.body, Body::Invalid(_)))).collect();
        assert_eq!(seen, expected);
        for (row, (key, is_invalid)) in expected.iter().enumerate() {
            assert_eq!((input.row(key), input.is_prompt(row)), (Some(row), !is_invalid), "{key}");
        }
    }
}

#[test]
fn a_limit_takes_the_first_rows() {
    let text = "{\"instruction\": \"x\"}\n\n{\"instruction\": \"y\"}\n{\"instruction\": \"z\"}\nbad\n";
    let limited = |limit| open_with(text, &InputOptions { limit: Some(limit), ..InputOptions::default() }).1;
    for limit in 1..=3 {
        assert_eq!(limited(limit).unwrap().len(), limit);
    }
    assert!(limited(4).unwrap_err().to_string().contains(":5: not JSON"));
    assert!(limited(0).unwrap_err().to_string().contains("limit is 0"));
    let fingerprint = limited(2).unwrap().fingerprint();
    assert_eq!((fingerprint.prompts, fingerprint.limit, fingerprint.bytes), (2, Some(2), Some(43)));
    assert_eq!(fingerprint.sha256, input(&text[..43]).hash());
}

// ---- Files that are no JSON lines -------------------------------------------------------------------------------

fn refusal_of_file(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let error = Input::open(&path).unwrap_err();
    assert_eq!((error.exit_code(), error.lines().len()), (2, 1), "{error}");
    error.to_string()
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

#[test]
fn files_of_other_kinds_are_named_with_the_remedy() {
    let row = "{\"instruction\": \"x\"}\n";
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("a.jsonl.gz", b"\x1f\x8b\x08\0\0".to_vec(), "a gzip file; codit reads JSON lines", "gzip -dc"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd\x04".to_vec(), "a zstd file", "zstd -dc"),
        ("a.bz2", b"BZh91AY".to_vec(), "a bzip2 file", "bzip2 -dc"),
        ("a.xz", b"\xfd7zXZ\0".to_vec(), "an xz file", "xz -dc"),
        ("a.parquet", b"PAR1\x15\0".to_vec(), "a Parquet file", "pyarrow.parquet"),
        ("a.arrow", b"ARROW1\0\0\xff".to_vec(), "an Arrow file", "open_file"),
        ("data-00000.arrow", b"\xff\xff\xff\xff\x70\0".to_vec(), "an Arrow stream", "open_stream"),
        (
            "a.xlsx",
            b"PK\x03\x04".iter().copied().chain([0; 26]).chain(*b"[Content_Types].xml").collect(),
            "an Excel workbook",
            "read_excel",
        ),
        ("a.zip", b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaaaaa.jsonl".to_vec(), "a zip archive", "unzip"),
        ("a.pdf", b"%PDF-1.7".to_vec(), "a PDF file", "JSON lines"),
        ("a.db", b"SQLite format 3\0".to_vec(), "an SQLite database", "JSON lines"),
        (
            "a.jsonl",
            utf16(&format!("\u{feff}{row}"), u16::to_le_bytes),
            "text in UTF-16",
            "iconv -f UTF-16 -t UTF-8",
        ),
        (
            "a.jsonl",
            utf16(&format!("\u{feff}{row}"), u16::to_be_bytes),
            "text in UTF-16",
            "iconv -f UTF-16 -t UTF-8",
        ),
        ("a.jsonl", utf16(row, u16::to_le_bytes), "text in UTF-16", "iconv -f UTF-16LE -t UTF-8"),
        ("a.jsonl", utf16(row, u16::to_be_bytes), "text in UTF-16", "iconv -f UTF-16BE -t UTF-8"),
        ("a.csv", b"instruction,input\n\"a\",b\n".to_vec(), "a CSV file", "csv.DictReader"),
        ("a.jsonl", b"\xef\xbb\xbfid,instruction\r\n1,a\r\n".to_vec(), "a CSV file", "csv.DictReader"),
        ("a.csv", b"Frage;Antwort\na;b\n".to_vec(), "a CSV file", "delimiter=\";\""),
        ("a.tsv", b"instruction\tinput\na\tb\n".to_vec(), "a TSV file", "delimiter=\"\\t\""),
        ("a.jsonl", b"prompt\toutput\na\tb\n".to_vec(), "a TSV file", "delimiter=\"\\t\""),
        ("a.csv", b"instruction\nHello\n".to_vec(), "a CSV file", "csv.DictReader"),
        (
            "a.txt",
            b"Write a poem.\nWrite a song.\n".to_vec(),
            "a plain text",
            "\"instruction\": line.strip()",
        ),
        ("a.json", format!("[{row}]").into_bytes(), "a JSON array", "json.load"),
        ("a.json", b"\xef\xbb\xbf[\n  {\n \"a\": 1}]".to_vec(), "a JSON array", "json.load"),
        ("a.json", b"[]".to_vec(), "a JSON array", "json.load"),
        (
            "a.json",
            b"{\n  \"instruction\": \"x\"\n}\n".to_vec(),
            "one JSON object over several lines",
            "json.dumps",
        ),
        ("a.jsonl", b"<!DOCTYPE html>\n<html>".to_vec(), "an HTML page", "Fetch the file itself"),
        (
            "a.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n".to_vec(),
            "a Git LFS pointer",
            "git lfs pull",
        ),
        ("a.bin", b"\x7fELF\x02\x01\x01\0\0\xff\xfe".to_vec(), "a binary file", "a text file"),
    ];
    for (name, bytes, kind, remedy) in cases {
        let said = refusal_of_file(name, &bytes);
        assert!(said.contains(&format!("{name}: {kind}")), "{said}");
        assert!(said.contains(remedy), "{said}");
    }
    // Lines of arrays are bad lines, and no array over several lines.
    let (_folder, path) = file("[{\"role\": \"user\"}]\n[{\"role\": \"user\"}]\n");
    assert!(Input::open(path).unwrap_err().to_string().contains(":2: not a row"));
}

/// Runs a remedy as a user pastes it.
fn paste(name: &str, bytes: &[u8]) -> Input {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let said = Input::open(&path).unwrap_err().to_string();
    let command = said.split_once('`').unwrap().1.rsplit_once('`').unwrap().0;
    let result = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(result.status.success(), "{command}: {}", String::from_utf8_lossy(&result.stderr));
    let others = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let converted: Vec<_> = others.filter(|other| *other != path).collect();
    assert_eq!(converted.len(), 1, "{command}");
    assert!(converted[0].extension().is_some_and(|extension| extension == "jsonl"), "{command}");
    Input::open(&converted[0]).unwrap()
}

#[test]
fn a_remedy_works_when_it_is_pasted() {
    let row = "{\"instruction\": \"Gr\u{fc}n, \\\"x\\\"\"}\n";
    let csv = "instruction,input\n\"Gr\u{fc}n, \"\"x\"\"\",\n";
    let both = |converted: Input| {
        assert_eq!(converted.read(0).unwrap().body.instruction(), "Gr\u{fc}n, \"x\"");
    };
    both(paste("rows.csv", csv.as_bytes()));
    both(paste("it's a file.csv", csv.as_bytes()));
    both(paste("rows.tsv", csv.replace("n,input", "n\tinput").replace("\"\"\",", "\"\"\"\t").as_bytes()));
    both(paste("rows.json", format!("[{row}]").as_bytes()));
    both(paste("rows.json", row.replace('{', "{\n").as_bytes()));
    both(paste("rows.txt", "Gr\u{fc}n, \"x\"\n\n".as_bytes()));
    both(paste("rows.jsonl", &utf16(row, u16::to_le_bytes)));
    both(paste("rows", &utf16(&format!("\u{feff}{row}"), u16::to_be_bytes)));
    let mut gzip = Command::new("sh");
    let packed =
        gzip.args(["-c", "printf '%s\\n' '{\"instruction\": \"x\"}' | gzip"]).output().unwrap().stdout;
    assert_eq!(paste("rows.jsonl.gz", &packed).len(), 1);
    assert_eq!(paste("rows.jsonl", &packed).len(), 1);
}
