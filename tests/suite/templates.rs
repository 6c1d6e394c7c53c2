//! Chat templates give the text of `transformers`, to the byte.

use std::fs;
use std::path::Path;

use codit::checkpoint::Checkpoint;
use codit::text::{CLOCK, ChatTemplate, Conversation};
use serde_json::{Map, Value, json};

/// What a case renders; an error's message if it does not.
fn render(case: &Value) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = case["special_tokens"].as_object().cloned().unwrap_or_default();
    if let Some(extra) = config.remove("extra") {
        config.insert("extra_special_tokens".to_owned(), extra);
    }
    config.retain(|_, value| !value.is_null());
    match &case["template"] {
        Value::String(template) => fs::write(folder.path().join("chat_template.jinja"), template).unwrap(),
        templates => {
            config.insert("chat_template".to_owned(), templates.clone());
        }
    }
    fs::write(folder.path().join("tokenizer_config.json"), json!(config).to_string()).unwrap();
    let template = ChatTemplate::load(&Checkpoint::open(folder.path()).map_err(|error| error.to_string())?);
    let template = template.map_err(|error| error.to_string())?.ok_or("no template")?;
    let mut kwargs: Map<String, Value> = case["kwargs"].as_object().cloned().unwrap_or_default();
    let list = |value: Option<Value>| value.and_then(|value| value.as_array().cloned());
    let documents = list(kwargs.remove("documents"));
    if let Some(clock) = case["clock"].as_str() {
        kwargs.insert(CLOCK.to_owned(), json!(format!("{clock}Z")));
    }
    let conversation = Conversation {
        messages: serde_json::from_value(case["messages"].clone()).unwrap(),
        tools: list(Some(case["tools"].clone())),
        documents,
        ..Conversation::default()
    };
    template.render(&conversation, &kwargs).map_err(|error| error.to_string())
}

/// The cases of a golden file that differ, with what is expected and what is seen.
fn differences(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let cases = fs::read_to_string(&path).unwrap();
    let cases = cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut differences = Vec::new();
    for case in cases {
        let seen = render(&case);
        let equal = match case["expected"].as_str() {
            Some(expected) => seen.as_deref() == Ok(expected),
            None => seen.is_err(),
        };
        if !equal {
            differences
                .push(format!("{}:\n  expected {}\n  seen     {seen:?}", case["id"], case["expected"]));
        }
    }
    differences
}

#[test]
fn cases_of_every_kind_render_as_in_transformers() {
    let differences = differences("templates_more.jsonl");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn given_cases_render_as_in_transformers() {
    let differences = differences("templates.jsonl");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
