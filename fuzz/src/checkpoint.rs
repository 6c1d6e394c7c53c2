//! Damaged checkpoints.

use codit::Checkpoint;
use codit::device::cpu::Cpu;
use codit::device::{Capacity, Dtype, Format};
use codit::engine::footprint::ModelFootprint;
use codit::engine::{Engine, EngineConfig, Finish, Prompt, Request};
use codit::ids::TokenId;
use codit::model::Spec;
use codit::text::{ChatTemplate, Conversation, Special, Text, Tokenizer, check_same_vocabulary};

use crate::{accept, check_error, place};

const TEXTS: [&str; 4] = [
    "once upon a time.\nwhat?",
    "",
    "  na\u{ef}ve \u{6771}\u{4eac} \u{1f642}\u{200d} <bos>x<eos>",
    "a\0\u{fffd}\r\n\t",
];

pub fn safetensors(data: &[u8]) {
    decode(&place::checkpoint("model.safetensors", data, &[]));
}

pub fn index(data: &[u8]) {
    let whole = include_bytes!("../seeds/base/model.safetensors");
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        place::checkpoint(shard, whole, &[]);
    }
    decode(&place::checkpoint("model.safetensors.index.json", data, &["model.safetensors"]));
}

pub fn config(data: &[u8]) {
    let checkpoint = place::checkpoint("config.json", data, &[]);
    if let Some(spec) = accept(Spec::open(&checkpoint)) {
        let capacity = Capacity { max_num_seqs: 256, max_num_batched_tokens: 8192, block_size: 16 };
        for format in [Format::of(Dtype::Bf16), Format::of(Dtype::F8E4m3)] {
            let _ = accept(ModelFootprint::new(&spec, format, capacity));
        }
    }
    decode(&checkpoint);
}

pub fn generation_config(data: &[u8]) {
    decode(&place::checkpoint("generation_config.json", data, &[]));
}

pub fn tokenizer(data: &[u8]) {
    tokenize(&place::checkpoint("tokenizer.json", data, &[]));
}

pub fn tokenizer_config(data: &[u8]) {
    tokenize(&place::checkpoint("tokenizer_config.json", data, &["chat_template.jinja"]));
}

/// Loads the checkpoint as both models, and decodes a little.
fn decode(checkpoint: &Checkpoint) {
    let config = EngineConfig {
        max_num_seqs: 2,
        max_num_batched_tokens: Some(8),
        kv_cache_memory: Some(1 << 20),
        ..EngineConfig::default()
    };
    let device = Cpu::new(Some(1)).expect("one thread is there");
    let Some(mut engine) = accept(Engine::load(device, checkpoint, Some(checkpoint), &config)) else {
        return;
    };
    let requests = [
        Request { max_tokens: 6, ..Request::new("a", "say a") },
        Request { max_tokens: 4, prompt: Prompt::Text("once".into()), ..Request::new("b", "") },
    ];
    let submitted = requests.into_iter().filter_map(|request| accept(engine.submit(request))).count();
    let mut ended = 0;
    for completion in &mut engine {
        // A damaged model is an error of its rows, never of the device.
        let completion = completion.unwrap_or_else(|error| panic!("a step failed: {error}"));
        if let Finish::Failed(error) = &completion.finish {
            check_error(error);
        }
        assert!(completion.tokens.len() <= 6, "a response of {} tokens", completion.tokens.len());
        ended += 1;
    }
    assert_eq!(ended, submitted, "each request has one completion");
}

/// Loads the checkpoint's text part, and uses all of it.
fn tokenize(checkpoint: &Checkpoint) {
    if let Some(Some(template)) = accept(ChatTemplate::load(checkpoint)) {
        let _ = accept(template.render(&Conversation::of_instruction("say a"), &serde_json::Map::new()));
    }
    let Some(tokenizer) = accept(Tokenizer::load(checkpoint)) else { return };
    let size = tokenizer.vocabulary().len;
    for special in [Special::None, Special::AsConfigured] {
        for text in TEXTS {
            let Some(ids) = accept(tokenizer.encode(text, special)) else { continue };
            let again = tokenizer.encode(text, special).ok();
            assert_eq!(Some(&ids), again.as_ref(), "a text has other ids the second time");
            for skip_special in [false, true] {
                let _ = accept(tokenizer.decode(&ids, skip_special));
                let mut detokenizer = tokenizer.detokenizer(skip_special);
                ids.iter().for_each(|id| drop(accept(detokenizer.push(*id))));
                let _ = accept(detokenizer.finish());
            }
        }
    }
    let some: Vec<TokenId> = (0..size.min(300) as u32 + 2).chain([u32::MAX]).map(TokenId).collect();
    let _ = accept(tokenizer.decode(&some, true));
    some.iter().for_each(|id| drop(tokenizer.token_of(*id)));
    let _ = accept(check_same_vocabulary(&tokenizer, &tokenizer));
    if let Some(text) = accept(Text::load(checkpoint)) {
        let _ = accept(text.prompt_ids(&Conversation::of_instruction("say a"), &serde_json::Map::new()));
    }
    decode(checkpoint);
}
