//! Hostile and damaged text files: templates, tokenizers and their configurations. Each is an error that names its
//! reason, never the end of the process.

use std::fs;
use std::process::Command;

use codit::Error;
use codit::checkpoint::Checkpoint;
use codit::ids::TokenId;
use codit::text::{ChatTemplate, Conversation, Message, Special, Text, Tokenizer};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::program::Workplace;
use crate::synth::copy_embedded_expert;

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
    template(source)?.render(&Conversation::of_instruction("hi"), &Map::new())
}

/// The message of an error that is the record's or the template's, and that fits on a line.
fn refusal(source: &str) -> String {
    let error = render(source).map(|text| text.chars().take(200).collect::<String>()).expect_err(source);
    assert!(matches!(error, Error::Request(_) | Error::File { .. }), "{source}: {error:?}");
    let message = error.to_string();
    assert!(message.len() < 1000 && !message.contains(char::is_control), "{source}: {message}");
    message
}

// ---- Values that hold themselves, and deep values -----------------------------------------------------------------

#[test]
fn a_namespace_that_holds_itself_ends_its_record_alone() {
    let circle = "{% set ns = namespace() %}{% set ns.x = ns %}";
    let longer = "{% set a = namespace() %}{% set ns = namespace(a=a) %}{% set a.b = [[{'ns': ns}]] %}";
    let uses = [
        "{{ ns }}",
        "{{ ns | tojson }}",
        "{{ [ns] | tojson }}",
        "{{ [ns, ns] | sort | join }}",
        "{{ [[ns], [ns]] | unique | list }}",
        "{{ ns ~ 'x' }}",
        "{{ [ns] ~ [ns] }}",
        "{{ ns | string }}",
        "{{ raise_exception(ns) }}",
        "{{ raise_exception([ns]) }}",
        "{{ '%s' | format(ns) }}",
        "{{ '{}'.format([ns]) }}",
        "{{ [ns] | join(',') }}",
        "{{ ns | pprint }}",
        "{{ ns | upper }}",
        "{{ ns | urlencode }}",
    ];
    for begin in [circle, longer] {
        // Python prints `{...}` in place of a namespace within itself.
        for end in uses {
            if let Err(error) = render(&format!("{begin}{end}")) {
                assert!(matches!(error, Error::Request(_)) && error.to_string().len() < 1000, "{error}");
            }
        }
        // These look at no attribute.
        for (end, expected) in [
            ("{{ ns == ns }}", "True"),
            ("{{ ns in [1] }}", "False"),
            ("{{ ns is mapping }}", "False"),
            ("{{ {'a': ns} | length }}", "1"),
            ("{% set ns.y = 3 %}{{ ns.y }}{{ ns['y'] }}", "33"),
        ] {
            assert_eq!(render(&format!("{begin}{end}")).unwrap(), expected, "{begin}{end}");
        }
    }
}

#[test]
fn deep_values_and_deep_sources_are_errors_or_texts() {
    let deep = "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [[[[[[[[n.x]]]]]]]] %}{% endfor %}";
    let pairs =
        "{% set n = namespace(x=[1]) %}{% for i in range(50) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
    for end in
        ["{{ n.x }}", "{{ n.x | tojson }}", "{{ n.x == n.x }}", "{{ [n.x, n.x] | sort }}", "{{ {n.x: 1} }}"]
    {
        assert!(refusal(&format!("{deep}{end}")).contains("lists and mappings"));
        refusal(&format!("{pairs}{end}"));
    }
    for end in [
        "{{ n.x ~ '' }}",
        "{{ n.x | string }}",
        "{{ n.x | join }}",
        "{{ n.x | pprint }}",
        "{{ n.x in [n.x] }}",
        "{{ n.x < n.x }}",
        "{{ [n.x, n.x] | unique | list }}",
        "{{ [{'a': n.x}] | groupby('a') }}",
        "{{ [n.x] | select('eq', n.x) | list }}",
        "{{ raise_exception(n.x) }}",
        "{{ ''.join([n.x]) }}",
        "{{ 'x'.replace('x', n.x) }}",
        "{{ n.x is eq(n.x) }}",
        "{{ [n.x] | map('string') | list }}",
        "{{ {'a': 1}.get(n.x) }}",
        "{{ {n.x: 1} }}",
    ] {
        refusal(&format!("{pairs}{end}"));
    }
    for (pair, end) in [
        ("(n.x, n.x)", "{{ {n.x: 1} }}"),
        ("(n.x, n.x)", "{{ {1: 1}.get(n.x) }}"),
        ("(n.x, n.x)", "{{ [n.x, n.x] | unique | list }}"),
        ("{'a': n.x, 'b': n.x}", "{{ n.x | pprint }}"),
        ("{'a': n.x, 'b': n.x}", "{{ n.x | tojson(indent=2) }}"),
        ("{'a': n.x, 'b': n.x}", "{{ n.x | urlencode }}"),
        ("{'a': n.x, 'b': n.x}", "{{ n.x | xmlattr }}"),
    ] {
        refusal(&format!(
            "{{% set n = namespace(x=1) %}}{{% for i in range(50) %}}{{% set n.x = {pair} %}}{{% endfor %}}{end}"
        ));
    }
    // Whatever the parser makes of these, it does not overflow the stack.
    let half = 125_000;
    for (open, close) in [
        ("-", ""),
        ("not ", ""),
        ("(", ")"),
        ("[", "]"),
        ("{1:", "}"),
        ("1+", ""),
        ("1~", ""),
        ("1**", ""),
        ("a.", "a"),
        ("a if ", ""),
        ("a[", "]"),
        ("a(", ")"),
        ("a|f(", ")"),
        ("1 if 1 else ", ""),
        ("1 and ", ""),
        ("1 < ", ""),
    ] {
        let times = half / (open.len() + close.len());
        let expression = format!("{}1{}", open.repeat(times), close.repeat(times));
        let _ = render(&format!("{{{{ {expression} }}}}"));
    }
    for tail in [".a", "[0]", "|length", "()", "[1:]", " is odd"] {
        let _ = render(&format!("{{{{ x{} }}}}", tail.repeat(250_000 / tail.len())));
    }
    for (open, close) in [
        ("{%if 1%}", "{%endif%}"),
        ("{%for a in b%}", "{%endfor%}"),
        ("{%with%}", "{%endwith%}"),
        ("{%set a%}", "{%endset%}"),
        ("{%macro a()%}", "{%endmacro%}"),
        ("{%filter trim%}", "{%endfilter%}"),
        ("{%call a()%}", "{%endcall%}"),
        ("{%if 1%}{%elif 1%}", "{%endif%}"),
        ("{%block a%}", "{%endblock%}"),
    ] {
        let times = 250_000 / (open.len() + close.len());
        let _ = render(&format!("{}{}", open.repeat(times), close.repeat(times)));
    }
}

#[test]
fn calls_that_call_themselves_end() {
    for source in [
        "{% macro f(x) %}{{ f([[[[x]]]]) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(x) %}{{ x ~ f(x ~ x) }}{% endmacro %}{{ f('ab') }}",
        "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}",
        "{% for a in [[1]] recursive %}{{ loop([[a]]) }}{% endfor %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}",
        "{% set ns = namespace() %}{% macro f() %}{{ ns.f() }}{% endmacro %}{% set ns.f = f %}{{ f() }}",
    ] {
        refusal(source);
    }
}

// ---- Memory ---------------------------------------------------------------------------------------------------------

/// Each of these would take gigabytes.
#[test]
fn memory_is_bounded() {
    let doubled = |step: &str| {
        format!(
            "{{% set n = namespace(s='abc', l=[1]) %}}{{% for i in range(60) %}}{step}{{% endfor %}}{{{{ n.l | length }}}}"
        )
    };
    let loops = [
        "{% set n.s = n.s ~ n.s %}",
        "{% set n.s = n.s + n.s %}",
        "{% set n.s = n.s * 2 %}",
        "{% set n.s = n.s.replace('a', n.s) %}",
        "{% set n.s = [n.s, n.s] | join %}",
        "{% set n.s = n.s.join([n.s, n.s, n.s]) %}",
        "{% set n.s = '%s%s' | format(n.s, n.s) %}",
        "{% set n.s = '{0}{0}'.format(n.s) %}",
        "{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}",
        "{% set n.s = n.s | replace('a', n.s) %}",
        "{% set n.s = ('<' ~ n.s) | e | e | e ~ n.s %}",
        "{% set n.s = (n.s ~ '<') | urlencode | urlencode | urlencode ~ n.s %}",
        "{% set n.s = [n.s] | tojson ~ n.s %}",
        "{% set n.l = n.l + n.l %}{% set n.x = n.l | list %}",
        "{% set n.l = n.l * 2 %}{% set n.x = n.l | list %}",
        "{% set n.l = (n.l + n.l) | list %}",
        "{% set n.l = [n.l, n.l] %}{% set n.s = n.l | string %}",
        "{% set n.l = (n.l | string | list) + (n.l | string | list) %}",
        "{% set n.l = n.l | batch(1) | list + n.l | batch(1) | list %}{% set n.s = n.l | tojson %}",
        "{% set n.s = n.s | indent(n.s | length, true) %}{% set n.s = n.s ~ '\\n' ~ n.s %}",
        "{% set n.l = (n.s * 1000) | list %}{% set n.s = n.l | join ~ n.s %}",
    ];
    for step in loops {
        let message = refusal(&doubled(step));
        assert!(
            ["MiB", "lists and mappings", "runs away", "items"].iter().any(|reason| message.contains(reason)),
            "{step}: {message}"
        );
    }
    for expression in [
        "'a' | indent(10000000000, true)",
        "'a' | indent(width=10000000000)",
        "'a\\nb' | indent(100000000)",
        "'x' * 10 ** 9",
        "10 ** 9 * 'x'",
        "('x' * 60000000) ~ ('x' * 60000000)",
        "(1,) * 100000000",
        "[1] * 10 ** 8 | list",
        "([1] * 100000000) | sum",
        "range(1000000000) | list",
        "'aaaa' * 1000000 | replace('a', 'b' * 1000000)",
        "('a' * 1000000).replace('', 'b' * 1000000)",
        "range(99999) | join('b' * 100000)",
        "('b' * 100000).join(range(99999))",
        "'%1000000000d' | format(1)",
        "'%*d' | format(1000000000, 1)",
        "'%.1000000000f' | format(1.5)",
        "'{:1000000000}'.format(1)",
        "'{:>{}}'.format(1, 10 ** 9)",
        "[1] | batch(10 ** 10, 0) | list",
        "[1] | slice(10 ** 10, 0) | list",
        "['a'] | map('indent', 10 ** 10, true) | list",
        "['a'] | map('replace', '', 'b' * 60000000) | map('replace', '', 'b' * 60000000) | list",
        "[range(99999) | list] | map('join', 'b' * 100000) | list",
        "('a ' * 30000000).split() | length",
        "('a,' * 30000000).split(',') | length",
        "('a' * 60000000) | list | length",
        "[range(99999) | list] * 99999 | tojson",
        "range(9999) | list | tojson(separators=('x' * 100000, ':'))",
    ] {
        let message = refusal(&format!("{{{{ {expression} }}}}"));
        assert!(!message.contains("panic"), "{expression}: {message}");
    }
    let captured = "{% set a %}".to_owned()
        + "{% for i in range(99999) %}"
        + &"text".repeat(10_000)
        + "{% endfor %}{% endset %}";
    assert!(refusal(&captured).contains("64 MiB"));
    let message = refusal(&"{{ ('x' * 60000000)[:0] }}".repeat(1000));
    // Making a gigabyte may take longer than a render may.
    assert!(message.contains("MiB") || message.contains("runs away"), "{message}");
    for (callee, times) in [("f", 60_000), ("dict", 1000), ("range", 1000), ("'{}'.format", 1000)] {
        let many = format!("{{% set l = range(99999) | list %}}{{{{ {callee}({}) }}}}", "*l,".repeat(times));
        let message = refusal(&many);
        assert!(!message.contains("panic"), "{callee}: {message}");
    }
}

#[test]
fn what_real_templates_do_stays_within_the_limits() {
    let long = "word ".repeat(2_000_000);
    let conversation: Conversation =
        vec![Message::new("user", long.clone()), Message::new("assistant", "ok")].into();
    let source = "{% for m in messages %}{% set c = m.content | trim %}<|{{ m.role }}|>{{ c + '\n' }}\
                  {% if '</think>' in c %}{{ c.split('</think>')[-1] }}{% endif %}{% endfor %}";
    let rendered = template(source).unwrap().render(&conversation, &Map::new()).unwrap();
    assert_eq!(rendered, format!("<|user|>{}\n<|assistant|>ok\n", long.trim()));

    let many: Vec<Message> =
        (0..4000).map(|i| Message::new(["user", "assistant"][i % 2], format!("turn {i}"))).collect();
    let source = "{% set ns = namespace(text='', index=0) %}{% for m in messages %}\
                  {% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}{% endif %}\
                  {% set ns.text = m.role ~ ': ' ~ m.content | trim %}{{ ns.text }}\n\
                  {% if messages[loop.index0 - 1].role == 'tool' or loop.last %}end{% endif %}\
                  {% set ns.index = ns.index + 1 %}{% endfor %}{{ messages | length }}{{ ns.index }}";
    let rendered = template(source).unwrap().render(&many.into(), &Map::new()).unwrap();
    assert!(rendered.ends_with("turn 3999\nend40004000"), "{}", &rendered[rendered.len() - 40..]);
}

// ---- One bad row ----------------------------------------------------------------------------------------------------

#[test]
fn a_bad_conversation_does_not_condemn_the_others() {
    let source = "{{ messages[0].content }}{% if messages[0].role == 'evil' %}{{ ([1] * 100000000) | sum }}{% endif %}";
    let template = template(source).unwrap();
    let say = |role: &str| template.render(&vec![Message::new(role, "hi")].into(), &Map::new());
    for _ in 0..3 {
        assert_eq!(say("user").unwrap(), "hi");
        assert!(matches!(say("evil"), Err(Error::Request(_))));
    }
    assert_eq!(say("user").unwrap(), "hi");
}

/// 200 renders that each leave 50 MB in a namespace that holds itself, in a process of at most 4 GiB.
#[test]
fn what_a_namespace_holds_is_freed_after_each_render() {
    let place = Workplace::new();
    let expert = place.path("expert");
    copy_embedded_expert(&expert);
    let source = "{% set n = namespace(s='x' * 50000000) %}{% set n.n = n %}{{ n.s | length }}";
    fs::write(expert.join("chat_template.jinja"), source).unwrap();
    let input = place.instructions(200);
    let command = format!(
        "ulimit -v {}; exec {} render --json --expert {} {}",
        4 << 20,
        env!("CARGO_BIN_EXE_codit"),
        expert.display(),
        input.display()
    );
    let result = Command::new("sh").args(["-c", &command]).output().unwrap();
    let said = String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    assert_eq!(said.lines().filter(|line| line.contains("\"text\":\"50000000\"")).count(), 200, "{said}");
}

// ---- What a template says -----------------------------------------------------------------------------------------------

#[test]
fn what_a_template_says_is_escaped_and_cut() {
    let message = refusal("{{ raise_exception('\\x1b[2J\\x07 red\\n\\x9b31m \\u202e txt') }}");
    assert!(message.ends_with(r"\u{1b}[2J\u{7} red\n\u{9b}31m \u{202e} txt"), "{message}");
    let message = refusal("{{ raise_exception('x' * 60000000) }}");
    assert!(message.contains("more bytes") && message.len() < 800, "{message}");
    let message = refusal("{% set n = 'x' * 10000000 %}{{ range(n) }}");
    assert!(message.len() < 800, "{message}");
    let message = refusal("{{ messages | unknown_\u{1b}[2J }}");
    assert!(!message.contains('\u{1b}'), "{message}");
}

#[test]
fn fields_of_a_row_may_be_as_deep_as_json_may_be() {
    let deep: Value = serde_json::from_str(&format!("{}1{}", "[".repeat(120), "]".repeat(120))).unwrap();
    let message: Message =
        serde_json::from_value(json!({"role": "user", "content": "a", "deep": deep})).unwrap();
    let template = template("{{ messages[0].deep | tojson | length }}{{ messages[0].deep }}").unwrap();
    let rendered = template.render(&vec![message].into(), &Map::new()).unwrap();
    assert_eq!(rendered, format!("241{}1{}", "[".repeat(120), "]".repeat(120)));
}

// ---- Tokenizers and their configurations ---------------------------------------------------------------------------

fn golden_tokenizer(name: &str) -> (Value, String) {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers").join(name);
    let read = |file: &str| fs::read_to_string(golden.join(file)).unwrap();
    (serde_json::from_str(&read("tokenizer.json")).unwrap(), read("tokenizer_config.json"))
}

#[test]
fn dropout_is_not_applied_and_said() {
    let (mut tokenizer, config) = golden_tokenizer("qwen3");
    let ids = |tokenizer: &Value| {
        let (_folder, checkpoint) =
            folder(&[("tokenizer.json", &tokenizer.to_string()), ("tokenizer_config.json", &config)]);
        let text = Text::load(&checkpoint).unwrap();
        (
            text.prompt_ids_of_text("The quick brown fox jumps over the lazy dog").unwrap(),
            text.take_warnings(),
        )
    };
    let (expected, none) = ids(&tokenizer);
    assert_eq!(none, Vec::<String>::new());
    tokenizer["model"]["dropout"] = json!(0.5);
    for _ in 0..5 {
        let (found, warnings) = ids(&tokenizer);
        assert_eq!(found, expected);
        assert!(warnings.len() == 1 && warnings[0].contains("dropout 0.5"), "{warnings:?}");
    }
}

#[test]
fn an_added_token_with_another_id_is_said() {
    let (mut tokenizer, config) = golden_tokenizer("qwen3");
    let last = tokenizer["added_tokens"].as_array().unwrap().len() - 1;
    tokenizer["added_tokens"][last]["id"] = json!(90_000);
    tokenizer["added_tokens"][last]["content"] = json!("<moved>");
    let config = config.replace("added_tokens_decoder", "unused");
    let (_folder, checkpoint) =
        folder(&[("tokenizer.json", &tokenizer.to_string()), ("tokenizer_config.json", &config)]);
    let warnings = Text::load(&checkpoint).unwrap().take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("\"<moved>\" claims the id 90000"), "{warnings:?}");
}

#[test]
fn every_named_token_is_a_variable_of_the_template() {
    let source =
        "{{ image_token }}|{{ boi_token }}|{{ video_token }}|{{ bos_token }}|{{ extra_special_tokens }}";
    let config = r#"{"boi_token": "<boi>", "bos_token": {"content": "<s>"}, "add_bos_token": true,
                     "model_max_length": Infinity, "unused": [NaN, -Infinity],
                     "extra_special_tokens": {"image_token": "<img>", "video_token": {"content": "<vid>"}}}"#;
    let rendered = |config: &str| {
        let (_folder, checkpoint) =
            folder(&[("chat_template.jinja", source), ("tokenizer_config.json", config)]);
        let template = ChatTemplate::load(&checkpoint).unwrap().unwrap();
        template.render(&Conversation::of_instruction("hi"), &Map::new()).unwrap()
    };
    assert_eq!(rendered(config), "<img>|<boi>|<vid>|<s>|");
    // Of a list, the tokens have no names.
    assert_eq!(rendered(r#"{"extra_special_tokens": ["<a>", {"content": "<b>"}]}"#), "||||");
}

#[test]
fn a_prompt_that_cannot_fit_is_refused_by_its_length() {
    let expert = codit::embedded::expert();
    let config = codit::EngineConfig::default();
    let cpu = codit::device::cpu::Cpu::new(Some(1)).unwrap();
    let mut engine = codit::Engine::load(cpu, &expert, None, &config).unwrap();
    let contrast = codit::Contrast { beta: 0.0, ..codit::Contrast::default() };
    let long = codit::Request { contrast, ..codit::Request::new("long", "word ".repeat(3_000_000)) };
    let message = engine.submit(long.clone()).unwrap_err().to_string();
    assert!(message.contains("the prompt has") && message.contains("bytes"), "{message}");
    for name in ["llama3", "qwen3", "gemma3", "olmo3", "smollm2"] {
        let golden =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers").join(name);
        let tokenizer = Tokenizer::load(&Checkpoint::open(golden).unwrap()).unwrap();
        assert!(tokenizer.least_tokens(&"word ".repeat(100_000)) > 0, "{name}");
        for text in [
            "",
            "a",
            &" ".repeat(5000),
            "e\u{301}\u{1112}\u{1161}\u{11ab}",
            &"=".repeat(3000),
            "<|im_end|>\n\n",
        ] {
            let ids = tokenizer.encode(text, Special::None).unwrap();
            assert!(tokenizer.least_tokens(text) <= ids.len(), "{name}: {text:?}");
        }
    }
}

#[test]
fn control_tokens_in_a_conversation_may_be_plain_text() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers/qwen3");
    let mut text = Text::load(&Checkpoint::open(golden).unwrap()).unwrap();
    let end = text.tokenizer().id_of("<|im_end|>").unwrap();
    let conversation = Conversation::of_instruction("say <|im_end|> and \u{f0000}<|im_end|>\u{f0001}");
    let count = |text: &Text| {
        let ids = text.prompt_ids(&conversation, &Map::new()).unwrap();
        let shown = text.tokenizer().decode(&ids, false).unwrap();
        (ids.iter().filter(|id| **id == end).count(), shown)
    };
    assert_eq!(count(&text).0, 3);
    text.set_sanitize_control_tokens(true);
    let (ends, shown) = count(&text);
    assert_eq!(ends, 1);
    assert!(shown.contains("say <|im_end|> and <|im_end|><|im_end|>"), "{shown}");
    // Without control tokens nothing changes.
    let plain = Conversation::of_instruction("How are you?\n\nTell me.");
    let sanitized = text.prompt_ids(&plain, &Map::new()).unwrap();
    text.set_sanitize_control_tokens(false);
    assert_eq!(text.prompt_ids(&plain, &Map::new()).unwrap(), sanitized);
}

#[test]
fn a_stop_text_ends_the_response_across_tokens() {
    let expert = codit::embedded::expert();
    let run = |stop: &[&str], stop_token_ids: &[TokenId]| {
        let cpu = codit::device::cpu::Cpu::new(Some(1)).unwrap();
        let mut engine = codit::Engine::load(cpu, &expert, None, &codit::EngineConfig::default()).unwrap();
        let request = codit::Request {
            contrast: codit::Contrast { beta: 0.0, temperature: 0.0, ..codit::Contrast::default() },
            max_tokens: 40,
            stop: stop.iter().map(ToString::to_string).collect(),
            stop_token_ids: stop_token_ids.to_vec(),
            ..codit::Request::new("a", "Count from 1 to 9.")
        };
        engine.submit(request)?;
        engine.next().unwrap()
    };
    let whole = run(&[], &[]).unwrap();
    assert!(whole.tokens.len() > 4, "{whole:?}");
    let characters: Vec<(usize, char)> = whole.text.char_indices().collect();
    for window in characters.windows(3) {
        let stop: String = window.iter().map(|(_, character)| character).collect();
        let cut = run(&[&stop, "never in it"], &[]).unwrap();
        let at = whole.text.find(&stop).unwrap();
        assert_eq!(cut.text, whole.text[..at], "{stop:?}");
        assert!(matches!(cut.finish, codit::Finish::Stop));
        assert_eq!(cut.tokens, whole.tokens[..cut.tokens.len()]);
        assert_eq!(cut.scores, whole.scores[..cut.tokens.len()]);
    }
    let third = whole.tokens[2];
    let cut = run(&[], &[third]).unwrap();
    assert_eq!(cut.tokens.last(), Some(&third));
    assert!(run(&[""], &[]).unwrap_err().to_string().contains("stop text is empty"));
    assert!(run(&[], &[TokenId(9_999_999)]).unwrap_err().to_string().contains("stop token 9999999"));
}

/// The library keeps the tokens of a Unigram model in a tree that is as deep as the longest, and frees it by recursion.
#[test]
fn a_token_that_would_overflow_the_stack_is_refused() {
    let tokenizer = |length: usize| {
        let vocab = json!([["<unk>", 0.0], ["x".repeat(length), -1.0]]);
        json!({"version": "1.0", "added_tokens": [], "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}})
    };
    let load = |length: usize| {
        let (_folder, checkpoint) = folder(&[("tokenizer.json", &tokenizer(length).to_string())]);
        Tokenizer::load(&checkpoint)
    };
    assert!(load(1000).is_ok());
    let message = load(1_000_000).unwrap_err().to_string();
    assert!(message.contains("a token has 1000000 bytes"), "{message}");
}
