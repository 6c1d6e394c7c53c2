//! Hostile templates, and hostile values in real ones.

use std::sync::OnceLock;

use codit::dataset::{Body, Input};
use codit::text::{ChatTemplate, Conversation, Message};
use serde_json::{Map, Value, json};

use crate::{accept, place};

/// Published templates, as far as they are in the tree.
const REAL: [&str; 6] = [
    include_str!("../../tests/golden/templates/gemma3.jinja"),
    include_str!("../../tests/golden/templates/llama3.jinja"),
    include_str!("../../tests/golden/templates/olmo3.jinja"),
    include_str!("../../tests/golden/templates/qwen3.jinja"),
    include_str!("../../embedded/chat_template.jinja"),
    "{% for m in messages %}{{ m | tojson }}{{ m.content | string | trim | upper }}{% for k, v in m | items %}{{ k }}{{ v }}\
     {% endfor %}{% endfor %}{{ tools | tojson }}{{ documents }}",
];

pub fn template(data: &[u8]) {
    let checkpoint = place::checkpoint("chat_template.jinja", data, &[]);
    let Some(Some(template)) = accept(ChatTemplate::load(&checkpoint)) else { return };
    for conversation in conversations() {
        let _ = accept(template.render(conversation, &Map::new()));
    }
}

/// A plain conversation, and one with values that templates seldom meet.
fn conversations() -> &'static [Conversation; 2] {
    static CONVERSATIONS: OnceLock<[Conversation; 2]> = OnceLock::new();
    CONVERSATIONS.get_or_init(|| {
        let plain = vec![Message::new("system", "be brief"), Message::new("user", " say \u{e4}\r\n<b>&\"' ")];
        let mut odd = Message::new("user", "");
        for (name, value) in [
            ("content", Value::Null),
            ("n", json!([i64::MIN, u64::MAX, 1e308, -0.0, 5e-324, [[[]]], {"": {"": {}}}])),
            ("tool_calls", json!([{"function": {"name": "f", "arguments": {"x": 1}}}])),
            ("t", json!("\u{0}\u{1b}[2J{{ x }}{% raw %}")),
        ] {
            odd.fields_mut().insert(name.to_owned(), value);
        }
        let tools = Some(vec![json!({"type": "function", "function": {"name": "f", "parameters": null}})]);
        [plain.into(), Conversation { tools, ..vec![odd, Message::new("tool", "42")].into() }]
    })
}

pub fn messages(data: &[u8]) {
    let templates = real_templates();
    let path = place::write("input.jsonl", data);
    let Some(input) = accept(Input::open(path)) else { return };
    for row in 0..input.len() {
        let Some(row) = accept(input.read(row)) else { continue };
        if let Body::Chat(conversation) = row.body {
            for template in templates {
                let _ = accept(template.render(&conversation, &Map::new()));
            }
        }
    }
}

fn real_templates() -> &'static [ChatTemplate] {
    static TEMPLATES: OnceLock<Vec<ChatTemplate>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let load = |source: &&str| {
            let checkpoint = place::checkpoint("chat_template.jinja", source.as_bytes(), &[]);
            ChatTemplate::load(&checkpoint).expect("a published template loads").expect("it is there")
        };
        REAL.iter().map(load).collect()
    })
}
