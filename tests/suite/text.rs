//! Tests tokenizers and chat templates against the results of transformers and against hostile files.
#![allow(clippy::unwrap_used)] // in tests it says what was expected as well as anything

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use codit::Error;
use codit::checkpoint::Checkpoint;
use codit::ids::TokenId;
use codit::text::{ChatTemplate, Conversation, Message, Special, Text, Tokenizer, check_same_vocabulary};
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

/// One turn of the user.
fn say(text: &str) -> Conversation {
    Conversation::of_instruction(text)
}

fn conversation(messages: &[Value]) -> Conversation {
    messages
        .iter()
        .map(|message| serde_json::from_value(message.clone()).unwrap())
        .collect::<Vec<Message>>()
        .into()
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
    template(source)?.render(&say("hi"), &no_kwargs())
}

fn message_of<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("an error").to_string()
}

// ---- Goldens -------------------------------------------------------------------------------------------------

/// Checks every conversation with a tokenizer: the same text and ids as transformers, or an error where transformers
/// gives one.
fn check_conversations(goldens: &Path, text: &Text, template: &ChatTemplate) -> usize {
    let conversations = rows(&Path::new(GOLDEN).join("conversations.jsonl"));
    let expected = rows(&goldens.join("expected.jsonl"));
    for row in &expected {
        let conversation = &conversations[row["conversation"].as_u64().unwrap() as usize];
        let messages = &self::conversation(conversation["messages"].as_array().unwrap());
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

/// Checks that whole sequences decode as in transformers, and that decoding token by token gives the same text.
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

// ---- Conversations and prompts -------------------------------------------------------------------------------

#[test]
fn special_tokens_written_in_a_message_are_special_tokens() {
    // As in transformers, a template marks turns by text, so text in a message can mark turns too.
    let text = Text::load(&Checkpoint::open(golden("qwen3")).unwrap()).unwrap();
    let end = text.tokenizer().id_of("<|im_end|>").unwrap();
    let count = |content: &str| {
        let prompt = text.prompt_ids(&say(content), &no_kwargs()).unwrap();
        prompt.into_iter().filter(|id| *id == end).count()
    };
    assert_eq!(count("hi"), 1);
    assert_eq!(count("say <|im_end|> twice<|im_end|>"), 3);
}

#[test]
fn a_rendered_template_has_one_bos_and_so_has_a_plain_prompt() {
    for name in ["llama3", "gemma3"] {
        let text = Text::load(&Checkpoint::open(golden(name)).unwrap()).unwrap();
        let bos =
            text.tokenizer().id_of(if name == "llama3" { "<|begin_of_text|>" } else { "<bos>" }).unwrap();
        let conversation = text.prompt_ids(&say("hi"), &no_kwargs()).unwrap();
        for prompt in [conversation, text.prompt_ids_of_text("hi").unwrap()] {
            assert_eq!(prompt.iter().filter(|id| **id == bos).count(), 1, "{name}: {prompt:?}");
            assert_eq!(prompt[0], bos, "{name}: {prompt:?}");
        }
    }
}

#[test]
fn many_threads_share_one_text() {
    let text = Text::load(&Checkpoint::open(golden("gemma3")).unwrap()).unwrap();
    let conversations: Vec<_> = (0..50).map(|i| say(&format!("question {i} 🙂"))).collect();
    let ids = |i: usize| text.prompt_ids(&conversations[i], &no_kwargs()).unwrap();
    let alone: Vec<_> = (0..50).map(ids).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|i| assert_eq!(ids(i), alone[i])));
        }
    });
}

#[test]
fn the_vocabulary_counts_ids_and_knows_the_special_ones() {
    let tokenizer = Tokenizer::load(&Checkpoint::open(golden("qwen3")).unwrap()).unwrap();
    let vocabulary = tokenizer.vocabulary();
    let last = TokenId(vocabulary.len as u32 - 1);
    assert_eq!(tokenizer.token_of(last).as_deref(), Some("</think>"));
    assert_eq!(tokenizer.token_of(TokenId(vocabulary.len as u32)), None);
    assert!(vocabulary.is_special(tokenizer.id_of("<|im_end|>").unwrap()));
    assert!(!vocabulary.is_special(tokenizer.id_of("<think>").unwrap()));
    assert_eq!(vocabulary.special.len(), 10);
}

#[test]
fn text_comes_out_as_soon_as_it_is_certain() {
    let tokenizer = Tokenizer::load(&Checkpoint::open(golden("gemma3")).unwrap()).unwrap();
    let push = |tokens: &[&str]| -> Vec<String> {
        let mut detokenizer = tokenizer.detokenizer(true);
        let mut pieces: Vec<String> =
            tokens.iter().map(|token| detokenizer.push(tokenizer.id_of(token).unwrap()).unwrap()).collect();
        pieces.push(detokenizer.finish().unwrap());
        pieces
    };
    assert_eq!(push(&["a", "▁", "<eos>", "b"]), ["a", " ", "", "b", ""]);
    // Byte fallback converts a run of bytes as a whole: the first three bytes are a character only if no invalid byte
    // follows.
    assert_eq!(push(&["<0xE2>", "<0x82>", "<0xAC>", "a"]), ["", "", "", "€a", ""]);
    assert_eq!(push(&["<0xE2>", "<0x82>", "<0xAC>"]), ["", "", "", "€"]);
    assert_eq!(push(&["<0xE2>", "<0x82>", "<0xAC>", "<0xFF>", "a"]), ["", "", "", "", "����a", ""]);

    let tokenizer = Tokenizer::load(&Checkpoint::open(golden("llama3")).unwrap()).unwrap();
    let euro = tokenizer.encode("x€y", Special::None).unwrap();
    let mut detokenizer = tokenizer.detokenizer(true);
    let pieces: Vec<String> = euro.iter().map(|token| detokenizer.push(*token).unwrap()).collect();
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
    assert_eq!(pieces.concat(), "x€y");
}

#[test]
fn any_tokens_decode_one_by_one_as_they_do_whole() {
    for name in TOKENIZERS {
        let tokenizer = Tokenizer::load(&Checkpoint::open(golden(name)).unwrap()).unwrap();
        // Runs of bytes and parts of characters are the likely sources of errors, so half of the draws come from
        // texts with them.
        let text = "é🙂👩‍👩‍👧 𓀀 한글 \u{fffd} <0x41> \u{1}\n\n";
        let parts = tokenizer.encode(text, Special::AsConfigured).unwrap();
        let mut dice = Dice(1);
        for _ in 0..2000 {
            let draw = |_| match dice.below(2) {
                0 => TokenId(dice.below(tokenizer.vocabulary().len + 2) as u32),
                _ => parts[dice.below(parts.len())],
            };
            let tokens: Vec<TokenId> = (0..12).map(draw).collect();
            for skip_special in [true, false] {
                let whole = tokenizer.decode(&tokens, skip_special).unwrap();
                assert_eq!(one_by_one(&tokenizer, &tokens, skip_special), whole, "{name}: {tokens:?}");
            }
        }
    }
}

#[test]
fn a_character_that_never_ends_does_not_slow_decoding_down() {
    let tokenizer = Tokenizer::load(&Checkpoint::open(golden("llama3")).unwrap()).unwrap();
    let lone_byte = tokenizer.id_of("Ģ").expect("byte 0x80");
    let tokens = vec![lone_byte; 30_000];
    let start = Instant::now();
    assert_eq!(one_by_one(&tokenizer, &tokens, true), "\u{fffd}".repeat(30_000));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

// ---- Pairs -----------------------------------------------------------------------------------------------------

/// A small tokenizer.json with words as tokens. The tokens from index `added` on are added tokens.
fn words_tokenizer(words: &[&str], added: usize) -> String {
    let vocab: Map<String, Value> =
        words[..added].iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let added: Vec<Value> = words[added..]
        .iter()
        .enumerate()
        .map(|(i, word)| {
            json!({"id": added + i, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": words[0]},
    })
    .to_string()
}

fn words(words: &[&str], added: usize) -> Tokenizer {
    let (_folder, checkpoint) = folder(&[("tokenizer.json", &words_tokenizer(words, added))]);
    Tokenizer::load(&checkpoint).unwrap()
}

#[test]
fn a_pair_must_share_its_vocabulary() {
    let expert = words(&["?", "red", "green", "<a>", "<b>"], 3);
    check_same_vocabulary(&expert, &expert.clone()).unwrap();
    check_same_vocabulary(&expert, &words(&["?", "red", "green", "<a>", "<b>"], 4)).unwrap();

    let differs = |amateur: &[&str], added, token: &str| {
        let amateur = words(amateur, added);
        let error = message_of(check_same_vocabulary(&expert, &amateur));
        assert!(error.contains(token) && error.contains("tokenizer.json"), "{error}");
    };
    differs(&["?", "red", "blue", "<a>", "<b>"], 3, "id 2 is \"blue\" here and \"green\" in the expert's");
    differs(&["?", "green", "red", "<a>", "<b>"], 3, "id 1 is \"green\" here");
    differs(&["?", "red", "green", "<a>"], 3, "id 4 is no token here and \"<b>\"");
    differs(&["?", "red", "green", "<a>", "<b>", "<c>"], 3, "id 5 is \"<c>\" here and no token");
    differs(&["?", "red", "green", "c", "<b>"], 4, "id 3 is \"c\" here");
}

#[test]
fn a_reserved_slot_may_have_a_name_in_one_model_only() {
    let expert = words(&["?", "red", "<functions>", "<end>"], 2);
    let amateur = words(&["?", "red", "<reserved_1>", "<end>"], 2);
    check_same_vocabulary(&expert, &amateur).unwrap();
}

// ---- Files -----------------------------------------------------------------------------------------------------

#[test]
fn missing_files_are_named() {
    let (_folder, empty) = folder(&[]);
    let error = message_of(Tokenizer::load(&empty));
    assert!(error.contains("tokenizer.json: no such file"), "{error}");
    assert!(ChatTemplate::load(&empty).unwrap().is_none());

    let (_folder, bare) = folder(&[("tokenizer.json", &words_tokenizer(&["?", "hi"], 2))]);
    let text = Text::load(&bare).unwrap();
    assert_eq!(text.prompt_ids_of_text("hi there").unwrap(), [TokenId(1), TokenId(0)]);
    let error = message_of(text.prompt_ids(&say("hi"), &no_kwargs()));
    assert!(error.contains("no chat template") && error.contains("`prompt` column"), "{error}");
}

#[test]
fn the_template_is_found_where_checkpoints_keep_it() {
    let at = |files: &[(&str, &str)]| {
        let (_folder, checkpoint) = folder(files);
        let template = ChatTemplate::load(&checkpoint)?;
        template.map(|template| template.render(&say("hi"), &no_kwargs())).transpose()
    };
    let config = ("tokenizer_config.json", r#"{"chat_template": "config", "bos_token": {"content": "<s>"}}"#);
    assert_eq!(at(&[config]).unwrap().as_deref(), Some("config"));
    assert_eq!(
        at(&[config, ("chat_template.jinja", "file{{ bos_token }}")]).unwrap().as_deref(),
        Some("file<s>")
    );
    let list = r#"{"chat_template": [{"name": "rag", "template": "rag"}, {"name": "default", "template": "default"}]}"#;
    assert_eq!(at(&[("tokenizer_config.json", list)]).unwrap().as_deref(), Some("default"));
    assert_eq!(at(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]).unwrap(), None);

    let error = message_of(at(&[(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "rag", "template": ""}]}"#,
    )]));
    assert!(error.contains("tokenizer_config.json: chat_template is neither"), "{error}");
    let error = message_of(at(&[("tokenizer_config.json", r#"{"bos_token": 3}"#)]));
    assert!(error.contains("tokenizer_config.json: bos_token"), "{error}");
    let error = message_of(at(&[("tokenizer_config.json", "{")]));
    assert!(error.contains("tokenizer_config.json: EOF"), "{error}");
    let error = message_of(at(&[("chat_template.jinja", "one\n{% for %}\n")]));
    assert!(error.contains("chat_template.jinja") && error.contains("line 2"), "{error}");
}

#[test]
fn special_tokens_map_counts_where_the_configuration_lists_no_added_tokens() {
    let rendered = |config: &str| {
        let files = [
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", r#"{"bos_token": "<map>"}"#),
            ("chat_template.jinja", "{{ bos_token }}"),
        ];
        let (_folder, checkpoint) = folder(&files);
        ChatTemplate::load(&checkpoint).unwrap().unwrap().render(&say(""), &no_kwargs()).unwrap()
    };
    assert_eq!(rendered(r#"{"bos_token": "<config>"}"#), "<map>");
    assert_eq!(rendered(r#"{"bos_token": "<config>", "added_tokens_decoder": {}}"#), "<config>");
}

/// The file that is at fault is named, and so is what is wrong in it.
#[test]
fn a_token_of_no_known_form_is_named_with_its_file() {
    let tokenizer = words_tokenizer(&["?", "red"], 0);
    let refusal = |config: &str, map: &str| {
        let files = [
            ("tokenizer.json", &*tokenizer),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map),
        ];
        let (_folder, checkpoint) = folder(&files);
        message_of(Tokenizer::load(&checkpoint))
    };
    for token in ["3", "[1]", r#"{"text": "x"}"#, "true"] {
        let entry = format!(r#"{{"bos_token": {token}}}"#);
        for (config, map, file) in
            [("{}", &*entry, "special_tokens_map.json"), (&*entry, "{}", "tokenizer_config.json")]
        {
            let said = refusal(config, map);
            assert!(said.contains(file) && said.contains("bos_token is "), "{said}");
            assert!(said.contains("must be a text, or an object with the text as content"), "{said}");
        }
    }
}

/// `transformers` gives such a token an id of its own; reading it as letters would be silently wrong.
#[test]
fn a_token_that_the_tokenizer_lacks_is_refused_in_a_text() {
    let tokenizer = words_tokenizer(&["?", "red"], 0);
    let cases = [
        (r#"{"pad_token": "[PAD]"}"#, "{}", "{}"),
        (r#"{"image_token": {"content": "[PAD]"}}"#, "{}", "{}"),
        (r#"{"extra_special_tokens": ["[PAD]"]}"#, "{}", "{}"),
        (r#"{"extra_special_tokens": {"some_token": "[PAD]"}}"#, "{}", "{}"),
        (r#"{"additional_special_tokens": [{"content": "[PAD]"}]}"#, "{}", "{}"),
        ("{}", r#"{"sep_token": "[PAD]"}"#, "{}"),
        ("{}", r#"{"additional_special_tokens": ["[PAD]"]}"#, "{}"),
        ("{}", "{}", r#"{"[PAD]": 7}"#),
    ];
    for (config, map, added) in cases {
        let files = [
            ("tokenizer.json", &*tokenizer),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map),
            ("added_tokens.json", added),
        ];
        let (_folder, checkpoint) = folder(&files);
        let loaded = Tokenizer::load(&checkpoint).unwrap();
        assert_eq!(loaded.encode("red", Special::None).unwrap(), [TokenId(1)]);
        let said = message_of(loaded.encode("red [PAD]", Special::None));
        assert!(said.contains("\"[PAD]\"") && said.contains("save the tokenizer again"), "{config}: {said}");
    }
}

/// What `added_tokens_decoder` leaves out is as in the constructor of `AddedToken`.
#[test]
fn fields_of_added_tokens_have_defaults() {
    let tokenizer = words_tokenizer(&["?", "red"], 0);
    let config =
        r#"{"added_tokens_decoder": {"2": {"content": "<new>", "special": true, "__type": "AddedToken"}}}"#;
    let (_folder, checkpoint) = folder(&[("tokenizer.json", &tokenizer), ("tokenizer_config.json", config)]);
    let loaded = Tokenizer::load(&checkpoint).unwrap();
    assert_eq!(loaded.encode("red<new>", Special::None).unwrap(), [TokenId(1), TokenId(2)]);
    assert!(loaded.vocabulary().is_special(TokenId(2)));
}

/// The library names its own types where no form of a part fits; the message names the part and its type.
#[test]
fn a_part_of_the_tokenizer_that_is_not_known_is_named() {
    let whole: Value = serde_json::from_str(&words_tokenizer(&["?", "red"], 0)).unwrap();
    let cases = [
        ("model", json!({"type": "Foo", "vocab": {}}), "its model has type \"Foo\""),
        ("model", json!("Foo"), "its model has no type"),
        ("normalizer", json!({"type": "Foo"}), "its normalizer has type \"Foo\""),
        ("decoder", json!({"type": "Foo"}), "its decoder has type \"Foo\""),
        ("post_processor", json!({"type": "Foo"}), "its post_processor has type \"Foo\""),
        (
            "pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "Foo"}]}),
            "its pre_tokenizer has type \"Sequence\", \"Foo\"",
        ),
        ("added_tokens", json!([{"id": 0, "content": "a"}]), "missing field `single_word`"),
        ("version", json!("9.0"), "Unknown tokenizer version '9.0'"),
    ];
    for (part, value, words) in cases {
        let mut broken = whole.clone();
        broken[part] = value;
        let (_folder, checkpoint) = folder(&[("tokenizer.json", &broken.to_string())]);
        let said = message_of(Tokenizer::load(&checkpoint));
        assert!(said.contains(words) && said.contains("download it again"), "{said}");
        assert!(!said.contains("untagged"), "{said}");
    }
}

#[test]
fn tokenizer_config_adds_tokens_and_declares_them_special() {
    let added = |id: u32| {
        json!({"added_tokens_decoder": {id.to_string(): {"content": "<new>", "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": false}}, "eos_token": "red", "pad_token": "[PAD]"})
        .to_string()
    };
    let tokenizer = words_tokenizer(&["?", "red", "green"], 3);
    let (_folder, checkpoint) =
        folder(&[("tokenizer.json", &tokenizer), ("tokenizer_config.json", &added(3))]);
    let loaded = Tokenizer::load(&checkpoint).unwrap();
    assert_eq!(loaded.encode("green<new>", Special::None).unwrap(), [TokenId(2), TokenId(3)]);
    assert_eq!(loaded.vocabulary().len, 4, "a padding token that no model knows is not added");
    assert_eq!(loaded.vocabulary().special, [TokenId(1)]);
    assert_eq!(loaded.decode(&[TokenId(1), TokenId(2)], true).unwrap(), "green");

    let (_folder, checkpoint) =
        folder(&[("tokenizer.json", &tokenizer), ("tokenizer_config.json", &added(7))]);
    let error = message_of(Tokenizer::load(&checkpoint));
    assert!(error.contains("tokenizer_config.json") && error.contains("\"<new>\" the id 7"), "{error}");
}

#[test]
fn truncation_and_padding_of_the_file_are_not_applied() {
    let mut tokenizer: Value = serde_json::from_str(&words_tokenizer(&["?", "red", "green"], 3)).unwrap();
    tokenizer["truncation"] =
        json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                                  "pad_type_id": 0, "pad_token": "?"});
    let (_folder, checkpoint) = folder(&[("tokenizer.json", &tokenizer.to_string())]);
    let tokenizer = Tokenizer::load(&checkpoint).unwrap();
    assert_eq!(tokenizer.encode("red green red", Special::None).unwrap().len(), 3);
}

/// Pseudo-random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// The file cut short, with some bytes changed, or with a part repeated at another place.
fn corrupt_bytes(file: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = file.to_vec();
    match dice.below(3) {
        0 => bytes.truncate(dice.below(file.len())),
        1 => {
            for _ in 0..=dice.below(2) {
                // Characters with a meaning in JSON damage more than only the syntax.
                let replacements = b"0123456789\"{}[]:,aefnrtul\\<x>\xff";
                bytes[dice.below(file.len())] = replacements[dice.below(replacements.len())];
            }
        }
        _ => {
            let start = dice.below(file.len());
            let part = file[start..(start + dice.below(200)).min(file.len())].to_vec();
            let at = dice.below(file.len());
            bytes.splice(at..at, part);
        }
    }
    bytes
}

/// The file with one value replaced by another of any type. Values in the long lists of the vocabulary are not
/// replaced.
fn corrupt_value(file: &[u8], dice: &mut Dice) -> Vec<u8> {
    fn leaves<'value>(value: &'value mut Value, found: &mut Vec<&'value mut Value>) {
        match value {
            Value::Object(entries) => {
                entries
                    .iter_mut()
                    .filter(|(key, _)| *key != "merges")
                    .for_each(|(_, value)| leaves(value, found));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| leaves(item, found)),
            leaf => found.push(leaf),
        }
    }
    let mut json: Value = serde_json::from_slice(file).unwrap();
    let vocabulary = json["model"]["vocab"].take();
    let replacements = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(5),
        json!(-1),
        json!(4_294_967_295_u64),
        json!(0.5),
        json!(""),
        json!("a"),
        json!("<0xFF>"),
        json!("é"),
        json!("(?=("),
        json!([]),
        json!({}),
    ];
    let mut found = Vec::new();
    leaves(&mut json, &mut found);
    let leaf = dice.below(found.len());
    *found[leaf] = replacements[dice.below(replacements.len())].clone();
    if json["model"].is_object() {
        json["model"]["vocab"] = vocabulary;
    }
    json.to_string().into_bytes()
}

#[test]
fn corrupt_tokenizers_never_panic() {
    let (mut loaded, mut refused) = (0, 0);
    for name in ["gemma3", "llama3", "olmo3"] {
        let original = fs::read(golden(name).join("tokenizer.json")).unwrap();
        let mut dice = Dice(name.len() as u64);
        for round in 0..240 {
            let corrupt = if round % 2 == 0 { corrupt_bytes } else { corrupt_value };
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("tokenizer.json"), corrupt(&original, &mut dice)).unwrap();
            if round % 4 < 2 {
                let config = "tokenizer_config.json";
                fs::copy(golden(name).join(config), directory.path().join(config)).unwrap();
            }
            match Tokenizer::load(&Checkpoint::open(directory.path()).unwrap()) {
                Err(Error::File { .. }) => refused += 1,
                Err(other) => panic!("{other:?}"),
                Ok(tokenizer) => {
                    loaded += 1;
                    use_somehow(&tokenizer);
                }
            }
        }
    }
    assert!(refused > 200 && loaded > 50, "{refused} refused, {loaded} loaded");
}

/// Any result is acceptable, but it must not panic.
fn use_somehow(tokenizer: &Tokenizer) {
    let _ = tokenizer.encode("Hello, wörld! 12345 🙂\n\n<bos><|eot_id|>", Special::AsConfigured);
    let tokens: Vec<TokenId> = (0..700).step_by(7).map(TokenId).collect();
    let _ = tokenizer.decode(&tokens, true);
    let mut detokenizer = tokenizer.detokenizer(false);
    let _ = tokens.iter().try_for_each(|token| detokenizer.push(*token).map(drop));
    let _ = detokenizer.finish();
}

/// The file parses, but the tokenizer library panics on it.
#[test]
fn a_tokenizer_that_panics_is_an_error() {
    let mut tokenizer: Value = serde_json::from_str(&words_tokenizer(&["?", "red"], 2)).unwrap();
    tokenizer["truncation"] =
        json!({"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9});
    tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}});
    let (_folder, checkpoint) = folder(&[("tokenizer.json", &tokenizer.to_string())]);
    match Tokenizer::load(&checkpoint) {
        Err(Error::File { .. }) => {}
        Err(other) => panic!("{other:?}"),
        Ok(tokenizer) => {
            let error = message_of(tokenizer.encode("red", Special::AsConfigured));
            assert!(error.contains("cannot encode a text"), "{error}");
        }
    }
}

// ---- Templates -------------------------------------------------------------------------------------------------

#[test]
fn a_template_refuses_in_its_own_words() {
    for source in [
        "{{ raise_exception('only two roles, please') }}",
        "{% macro f() %}{{ raise_exception('only two roles, please') }}{% endmacro %}{% if true %}{{ f() }}{% endif %}",
        "{% block b %}{{ raise_exception('only two roles, please') }}{% endblock %}",
    ] {
        let error = render(source).unwrap_err();
        assert!(matches!(error, Error::Request(_)));
        assert_eq!(error.to_string(), "the chat template refuses the conversation: only two roles, please");
    }
    let error = message_of(render("a\nb\n{{ messages[0].name.first }}"));
    assert!(error.contains("the chat template fails: line 3"), "{error}");
}

#[test]
fn a_template_that_runs_away_ends_with_an_error() {
    let nested = "{% for a in range(100000) %}".repeat(3) + "x" + &"{% endfor %}".repeat(3);
    let deep_values =
        "{% set n = namespace(x=[]) %}{% for i in range(100000) %}{% set n.x = [n.x] %}{% endfor %}";
    let deep_expression = format!("{{{{ {}1 }}}}", "not ".repeat(60_000));
    let cases = [
        ("nested loops", nested.as_str(), "runs away"),
        ("a billion", "{% for a in range(1000000000) %}{% endfor %}", "too many"),
        ("a macro that calls itself", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion"),
        (
            "a loop that calls itself",
            "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
            "recursion",
        ),
        ("a file that includes itself", "{% include 'template' %}", "not supported"),
        ("a giant string", "{{ 'x' * 1000000000000 }}", "too large"),
        ("a large string", "{{ 'x' * 90000000 }}", "64 MiB"),
        ("much output", "{% set x = 'x' * 100000 %}{% for i in range(9999) %}{{ x }}{% endfor %}", "64 MiB"),
        (
            "much text",
            &("{% for i in range(99999) %}".to_owned() + &"text".repeat(1000) + "{% endfor %}"),
            "64 MiB",
        ),
        (
            "a large variable",
            "{% set x %}{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}{% endset %}",
            "64 MiB",
        ),
        ("wide indentation", "{{ [1] | tojson(indent=100000000) }}", "indent"),
        ("a long template", &"x".repeat(300_000), "longer than 256 KiB"),
        (
            "nested brackets",
            &("{{ ".to_owned() + &"[".repeat(100_000) + &"]".repeat(100_000) + " }}"),
            "recursion",
        ),
    ];
    for (name, source, expected) in cases {
        let start = Instant::now();
        let error = message_of(render(source));
        assert!(error.contains(expected), "{name}: {error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", start.elapsed());
    }
    // The template engine's arithmetic overflows here, which panics in debug builds. The panic must not escape.
    let _ = render("{{ 'abc'[::-9223372036854775808] }}");
    // Values nest as deep as in Python, which is about 1,000; this expression would overflow a thread's usual stack.
    let error = message_of(render(&(deep_values.to_owned() + "{{ n.x | tojson | length }}")));
    assert!(error.contains("nested too deep"), "{error}");
    assert_eq!(
        render(&(deep_values.replace("100000", "800") + "{{ n.x | tojson | length }}")).unwrap(),
        "1602"
    );
    assert_eq!(render(&deep_expression).unwrap(), "True");
}

#[test]
fn a_conversation_that_does_not_end_does_not_condemn_the_others() {
    let template = template(
        "{{ messages[0].content }}{% if messages[0].role == 'evil' %}{% set many = [1] * 1000000 %}{{ many | select('in', [2] * 1000000) | list }}{% endif %}",
    );
    let template = template.unwrap();
    let say = |role: &str| template.render(&vec![Message::new(role, "hi")].into(), &no_kwargs());
    assert_eq!(say("user").unwrap(), "hi");
    assert!(message_of(say("evil")).contains("takes more than 3s"));
    assert_eq!(say("user").unwrap(), "hi");
}

#[test]
fn a_template_sees_no_files_and_no_environment() {
    for source in ["{% include '/etc/passwd' %}", "{% import 'x' as x %}", "{% extends 'tokenizer.json' %}"] {
        assert!(message_of(render(source)).contains("is not supported"), "{source}");
    }
    assert_eq!(render("{{ env }}{{ environ }}{{ os }}").unwrap(), "");
}

/// Cases in which the template engine alone would differ from Jinja with Python, and which published templates depend
/// on.
#[test]
fn expressions_mean_what_they_mean_in_python() {
    let cases = [
        // White space: Python counts four ASCII separators that Unicode does not.
        ("'\\x1c a \\x1f'.strip()", "a"),
        ("'\\x1c a \\x1f' | trim", "a"),
        ("'xxaxx'.lstrip('x') ~ 'xxaxx'.rstrip('x') ~ ('xax' | trim('x'))", "axxxxaa"),
        ("' a\\x1db  c '.split()", "['a', 'b', 'c']"),
        ("' a b c '.split(none, 1)", "['a', 'b c ']"),
        ("'a</think>b'.split('</think>')[-1] ~ 'a,b,c'.split(',', 1)[1]", "bb,c"),
        ("'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"),
        (
            "'a-b-c'.partition('-') | list ~ 'a-b-c'.rpartition('-') | list",
            "['a', '-', 'b-c']['a-b', '-', 'c']",
        ),
        ("'abc'.removeprefix('a') ~ 'abc'.removesuffix('c')", "bcab"),
        ("\"they're BILL's\".title()", "They'Re Bill'S"),
        ("'a\\nb\\r\\nc\\rd\\u2028'.splitlines()", "['a', 'b', 'c', 'd']"),
        ("'a\\r\\nb'.splitlines(true)", "['a\\r\\n', 'b']"),
        ("'\\x1c'.isspace() ~ ''.isspace()", "TrueFalse"),
        // Tests and filters.
        (
            "none is iterable ~ undef is iterable ~ 'a' is iterable ~ messages[1:] is iterable",
            "FalseTrueTrueTrue",
        ),
        (
            "none is sequence ~ {} is sequence ~ 'a' is sequence ~ messages[1:] is sequence",
            "FalseTrueTrueTrue",
        ),
        ("undef | length ~ (undef | items | list)", "0[]"),
        ("messages[::-1][0].role ~ messages[1:] | length ~ messages[0]['role']", "user0user"),
        ("none ~ true ~ 1.0 ~ [1, 'a', none]", "NoneTrue1.0[1, 'a', None]"),
        // Numbers and JSON.
        ("1e16", "1e+16"),
        ("1e-5 | string", "1e-05"),
        (
            "[1e16, 1e-5, 1e22, 0.1, 1.0, 123456789.125, 1e15] | tojson",
            "[1e+16, 1e-05, 1e+22, 0.1, 1.0, 123456789.125, 1000000000000000.0]",
        ),
        ("{'a': '<&\\'>', 'é': [1, none, true]} | tojson", r#"{"a": "<&'>", "é": [1, null, true]}"#),
        ("{'b': 1, 'a': [{}, []]} | tojson(indent=2)", "{\n  \"b\": 1,\n  \"a\": [\n    {},\n    []\n  ]\n}"),
        ("{'b': [1, 2], 'a': 3} | tojson(sort_keys=true, separators=(',', ':'))", r#"{"a":3,"b":[1,2]}"#),
        ("'é🙂\\u007f\\n' | tojson(ensure_ascii=true)", r#""\u00e9\ud83d\ude42\u007f\n""#),
        ("messages | tojson", r#"[{"role": "user", "content": "hi"}]"#),
    ];
    for (expression, expected) in cases {
        let rendered = render(&format!("{{{{ {expression} }}}}"))
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(rendered, expected, "{expression}");
    }
}

#[test]
fn statements_mean_what_they_mean_in_transformers() {
    let cases = [
        // trim_blocks, lstrip_blocks, and the last newline.
        ("  {% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),
        ("a {%- generation -%} b {%- endgeneration -%} c", "abc"),
        ("{% generation %}\n{% set x = 1 %}{{ x }}\n  {%+ endgeneration %}{{ x }}", "1\n  "),
        ("{{ 'generation' }}{% set generation = 1 %}{{ generation }}", "generation1"),
        (
            "{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "13",
        ),
        ("{% for i in [1, 2] %}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}", "21"),
        (
            "{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}{% set y = 3 %}{% endfor %}{{ n.x }}{{ y }}",
            "2",
        ),
        (
            "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ custom is defined }}",
            "TrueTrueTrueFalse",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap_or_else(|error| panic!("{source}: {error}")), expected, "{source}");
    }
}

#[test]
fn templates_can_tell_the_time() {
    let dated = template("{{ strftime_now('%Y-%m-%d|%d %b %Y|100%%') }}").unwrap();
    assert!(dated.tells_time());
    let rendered = dated.render(&say("hi"), &no_kwargs()).unwrap();
    let [iso, long, literal]: [&str; 3] = rendered.split('|').collect::<Vec<_>>().try_into().unwrap();
    assert!(iso.len() == 10 && iso.starts_with("20"), "{iso}");
    assert!(long.ends_with(&iso[..4]) && long.starts_with(&iso[8..]), "{long}");
    assert_eq!(literal, "100%");
    let stopped = json!({ codit::text::CLOCK: "2026-01-31T12:00:00Z" });
    let rendered = dated.render(&say("hi"), stopped.as_object().unwrap()).unwrap();
    assert_eq!(rendered, "2026-01-31|31 Jan 2026|100%");
    assert!(!template("hi").unwrap().tells_time());
    assert_eq!(render("{{ strftime_now('%') }}").unwrap(), "%");
}

#[test]
fn kwargs_set_any_variable_but_the_conversation() {
    let template = template("{{ mood }}{{ tools | length }}{{ messages | length }}").unwrap();
    let with = |kwargs: Value| template.render(&say("hi"), kwargs.as_object().unwrap());
    assert_eq!(with(json!({"mood": "calm", "tools": [1, 2]})).unwrap(), "calm21");
    assert!(message_of(with(json!({"messages": []}))).contains("messages is not for kwargs"));
    assert!(message_of(with(json!({"add_generation_prompt": false}))).contains("add_generation_prompt"));
}

#[test]
fn reasoning_is_found_under_any_of_its_names() {
    let template = template("{{ messages[0].reasoning_content }},{{ messages[0].thinking }}").unwrap();
    let rendered = |message: Value| template.render(&conversation(&[message]), &no_kwargs()).unwrap();
    assert_eq!(rendered(json!({"reasoning": "a"})), "a,a");
    assert_eq!(rendered(json!({"thinking": "b"})), "b,b");
    assert_eq!(rendered(json!({"reasoning_content": "c", "thinking": "d"})), "c,d");
    assert_eq!(rendered(json!({"reasoning_content": null})), ",");
}
