//! Tokenizers and chat templates against what transformers makes of them, and against hostile files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use codit::Error;
use codit::checkpoint::Checkpoint;
use codit::ids::TokenId;
use codit::text::{ChatTemplate, Message, Special, Text, Tokenizer, check_same_vocabulary};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
const TOKENIZERS: [&str; 5] = ["llama3", "qwen3", "gemma3", "olmo3", "smollm2"];

fn golden(name: &str) -> PathBuf {
    Path::new(GOLDEN).join("tokenizers").join(name)
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<TokenId> {
    serde_json::from_value(value.clone()).unwrap()
}

fn no_kwargs() -> Map<String, Value> {
    Map::new()
}

/// A checkpoint with the given files.
fn folder(files: &[(&str, &str)]) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

fn template(source: &str) -> Result<ChatTemplate, Error> {
    let (_folder, checkpoint) = folder(&[("chat_template.jinja", source)]);
    ChatTemplate::load(&checkpoint).map(|template| template.expect("a template"))
}

fn render(source: &str) -> Result<String, Error> {
    template(source)?.render(&[Message::new("user", "hi")], &no_kwargs())
}

fn message_of<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("an error").to_string()
}

// ---- Goldens -------------------------------------------------------------------------------------------------

/// Every conversation of every tokenizer: the same text and ids, or an error where transformers has one.
fn check_conversations(goldens: &Path, text: &Text, template: &ChatTemplate) -> usize {
    let conversations = rows(&Path::new(GOLDEN).join("conversations.jsonl"));
    let expected = rows(&goldens.join("expected.jsonl"));
    for row in &expected {
        let conversation = &conversations[row["conversation"].as_u64().unwrap() as usize];
        let messages = conversation["messages"].as_array().unwrap();
        let kwargs = row["kwargs"].as_object().unwrap();
        let context = format!("{}: {} with {}", goldens.display(), conversation["name"], row["kwargs"]);
        let rendered = template.render(messages, kwargs);
        if row.get("error").is_some() {
            assert!(matches!(rendered, Err(Error::Request(_))), "{context}: {rendered:?}");
            continue;
        }
        let rendered = rendered.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(rendered, row["text"].as_str().unwrap(), "{context}");
        assert_eq!(text.tokenizer().encode(&rendered, Special::None).unwrap(), ids(&row["ids"]), "{context}");
        if text.template().is_some() {
            assert_eq!(text.prompt_ids(messages, kwargs).unwrap(), ids(&row["ids"]), "{context}");
        }
    }
    expected.len()
}

fn check_plain_texts(goldens: &Path, text: &Text) -> usize {
    let expected = rows(&goldens.join("expected_plain.jsonl"));
    for row in &expected {
        let plain = row["text"].as_str().unwrap();
        assert_eq!(
            text.prompt_ids_of_text(plain).unwrap(),
            ids(&row["ids"]),
            "{}: {plain:?}",
            goldens.display()
        );
    }
    expected.len()
}

/// Whole sequences decode as in transformers, and token by token to the same.
fn check_decoding(goldens: &Path, tokenizer: &Tokenizer) -> usize {
    let expected = rows(&goldens.join("expected_decoded.jsonl"));
    for row in &expected {
        let (tokens, decoded) = (ids(&row["ids"]), row["decoded"].as_str().unwrap());
        assert_eq!(tokenizer.decode(&tokens, true).unwrap(), decoded, "{}: {tokens:?}", goldens.display());
        for skip_special in [true, false] {
            let whole = tokenizer.decode(&tokens, skip_special).unwrap();
            assert_eq!(
                one_by_one(tokenizer, &tokens, skip_special),
                whole,
                "{}: {tokens:?}",
                goldens.display()
            );
        }
    }
    expected.len()
}

fn one_by_one(tokenizer: &Tokenizer, tokens: &[TokenId], skip_special: bool) -> String {
    let mut detokenizer = tokenizer.detokenizer(skip_special);
    let mut text = String::new();
    for token in tokens {
        text += &detokenizer.push(*token).unwrap();
    }
    text + &detokenizer.finish().unwrap()
}

#[test]
fn conversations_render_and_encode_as_in_transformers() {
    for name in TOKENIZERS {
        let text = Text::load(&Checkpoint::open(golden(name)).unwrap()).unwrap();
        let count = check_conversations(&golden(name), &text, text.template().expect("a template"));
        assert!(count >= 200, "{name}: only {count} conversations");
    }
}

#[test]
fn plain_texts_encode_as_in_transformers() {
    for name in TOKENIZERS {
        let text = Text::load(&Checkpoint::open(golden(name)).unwrap()).unwrap();
        assert!(check_plain_texts(&golden(name), &text) >= 80);
    }
}

#[test]
fn tokens_decode_as_in_transformers_whole_and_one_by_one() {
    for name in TOKENIZERS {
        let tokenizer = Tokenizer::load(&Checkpoint::open(golden(name)).unwrap()).unwrap();
        assert!(check_decoding(&golden(name), &tokenizer) >= 200);
    }
}

#[test]
fn real_gemma_agrees_with_transformers() {
    let Some(models) = std::env::var_os("CODIT_REAL_MODELS") else {
        eprintln!("skipped: CODIT_REAL_MODELS does not name a folder with gemma-3-270m");
        return;
    };
    let checkpoint = Checkpoint::open(Path::new(&models).join("gemma-3-270m")).unwrap();
    let text = Text::load(&checkpoint).unwrap();
    let goldens = golden("gemma3-real");
    let source = fs::read_to_string(goldens.join("chat_template.jinja")).unwrap();
    let config = fs::read_to_string(checkpoint.path("tokenizer_config.json")).unwrap();
    let (_folder, templated) =
        folder(&[("chat_template.jinja", &source), ("tokenizer_config.json", &config)]);
    let template = ChatTemplate::load(&templated).unwrap().unwrap();
    assert!(check_conversations(&goldens, &text, &template) >= 200);
    assert!(check_plain_texts(&goldens, &text) >= 80);
    assert!(check_decoding(&goldens, text.tokenizer()) >= 200);
}
