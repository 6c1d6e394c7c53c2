//! Reading checkpoints. A damaged, hostile or unsupported checkpoint is refused with a message that names the file
//! and the field or tensor. Nothing panics.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use codit::Result;
use codit::bench::shapes;
use codit::checkpoint::Checkpoint;
use codit::device::cpu::Cpu;
use codit::device::inspect::Inspect;
use codit::device::{Activation, Batch, CacheShape, Device, NormScope, PerKind, RoutingShape, Span};
use codit::ids::{BlockId, TokenId};
use codit::model::rope::Rope;
use codit::model::spec::{Layer, Mixture, Mlp, NormPlacement, stop_tokens};
use codit::model::{Decoder, Spec};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::golden;
use crate::step::begin_forward;

pub const CONFIG: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";

/// An editable copy of a checkpoint.
pub struct Copy(TempDir);

impl Copy {
    /// A copy of the expert of a golden case.
    pub fn of(case: &str) -> Self {
        Self::of_folder(&golden(case).join("expert"))
    }

    pub fn of_folder(original: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        for file in fs::read_dir(original).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path().join(file)).unwrap()
    }

    pub fn replace(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join(file), bytes).unwrap();
    }

    fn write(self, file: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.path().join(file), bytes).unwrap();
        self
    }

    fn remove(self, file: &str) -> Self {
        fs::remove_file(self.path().join(file)).unwrap();
        self
    }

    fn edit(self, file: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let mut value = serde_json::from_slice(&self.read(file)).unwrap();
        edit(&mut value);
        self.write(file, value.to_string())
    }

    /// Sets a field of config.json.
    fn set(self, field: &str, value: Value) -> Self {
        self.edit(CONFIG, |config| config[field] = value)
    }

    /// Rewrites model.safetensors after `edit` has changed its tensors.
    pub fn edit_weights(self, edit: impl FnOnce(&mut Tensors)) -> Self {
        let bytes = self.read(WEIGHTS);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let whole =
            |tensor: TensorView<'_>| (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
        let mut tensors =
            file.tensors().into_iter().map(|(name, tensor)| (name, whole(tensor))).collect::<Tensors>();
        edit(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let bytes = serialize(views, None).unwrap();
        self.write(WEIGHTS, bytes)
    }

    /// Replaces the header of model.safetensors; the tensors' bytes stay the same.
    fn write_header(self, header: &str) -> Self {
        let bytes = self.read(WEIGHTS);
        let old = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut new = (header.len() as u64).to_le_bytes().to_vec();
        new.extend(header.as_bytes());
        new.extend(&bytes[8 + old..]);
        self.write(WEIGHTS, new)
    }

    fn load(&self) -> Result<Decoder<Cpu>> {
        Decoder::load(&Cpu::new(Some(1))?, &Checkpoint::open(self.path())?, 2, 1)
    }

    /// Asserts that loading fails and that the message contains all of `words`.
    fn fails(&self, words: &[&str]) {
        let message = self.load().err().expect("loading must fail").to_string();
        println!("{message}");
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    }
}

pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn llama() -> Copy {
    Copy::of("llama-gqa2-f16")
}

fn qwen3() -> Copy {
    Copy::of("qwen3-gqa2-tied")
}

fn sharded() -> Copy {
    Copy::of("llama-gqa8-shards")
}

#[test]
fn fields_of_the_configuration() {
    let cases = [
        ("architectures", json!(["MistralForCausalLM"]), "architectures: LlamaForCausalLM, "),
        ("architectures", json!("LlamaForCausalLM"), "a list of strings"),
        ("quantization_config", json!({"quant_method": "gptq"}), "not supported"),
        ("sliding_window", json!(8), "attends to all"),
        ("sliding_window", json!("8"), "a whole number"),
        ("hidden_size", json!(0), "is 0; it must be a whole number"),
        ("hidden_size", json!(-64), "is -64"),
        ("hidden_size", json!(6.5), "is 6.5"),
        ("hidden_size", json!("64"), "is \"64\""),
        ("hidden_size", json!(u64::MAX), "from 1 to"),
        ("hidden_size", Value::Null, "is missing"),
        ("vocab_size", json!(1u64 << 40), "from 1 to"),
        ("intermediate_size", Value::Null, "is missing"),
        ("max_position_embeddings", json!(true), "whole number"),
        ("num_hidden_layers", json!(1_000_000), "from 1 to 4096"),
        ("num_attention_heads", json!([4]), "whole number"),
        ("num_key_value_heads", json!(3), "a divisor of num_attention_heads, 4"),
        ("num_key_value_heads", json!(8), "a divisor of num_attention_heads, 4"),
        ("head_dim", json!(15), "even"),
        ("head_dim", json!(0), "from 1 to"),
        ("hidden_act", json!("gelu"), "it must be silu or gelu_pytorch_tanh"),
        ("rms_norm_eps", json!(-1.0), "number from 0 to 1"),
        ("attention_bias", json!("yes"), "true or false"),
        ("tie_word_embeddings", json!(1), "true or false"),
        ("rope_parameters", json!([1]), "an object"),
        ("rope_theta", json!(0.0), "number from 1"),
        ("rope_scaling", json!({"type": "su", "factor": 4.0}), "default, linear, llama3, yarn"),
        ("rope_scaling", json!({"type": "dynamic"}), "rope_scaling.factor is missing"),
        (
            "rope_scaling",
            json!({"type": "longrope"}),
            "short_factor is missing; it must be a list of 8 numbers",
        ),
        (
            "rope_scaling",
            json!({"type": "linear", "factor": 2, "partial_rotary_factor": 0.5}),
            "is not supported",
        ),
        ("rope_scaling", json!({"rope_type": 3}), "rope_scaling.rope_type is 3; it must be a string"),
        ("rope_scaling", json!({"type": "linear"}), "rope_scaling.factor is missing"),
        ("rope_scaling", json!({"type": "linear", "factor": 0}), "rope_scaling.factor is 0"),
        ("rope_scaling", json!({"type": "yarn"}), "rope_scaling.factor is missing"),
        ("rope_scaling", json!({"type": "yarn", "factor": 2, "beta_fast": "a"}), "rope_scaling.beta_fast is"),
        ("final_logit_softcapping", json!(30.0), "not supported"),
    ];
    for (field, value, words) in cases {
        llama().set(field, value).fails(&[CONFIG, field, words]);
    }
    qwen3().set("layer_types", json!(["full_attention"])).fails(&[
        CONFIG,
        "layer_types",
        "num_hidden_layers is 2",
    ]);
    qwen3().set("layer_types", json!(["full_attention", "sliding_attention"])).fails(&[
        CONFIG,
        "use_sliding_window",
        "true",
    ]);
    qwen3().set("layer_types", json!(["full_attention", "linear_attention"])).fails(&[
        CONFIG,
        "layer_types",
        "linear_attention",
        "sliding_attention",
    ]);
    qwen3().set("use_sliding_window", json!(true)).fails(&[CONFIG, "sliding_window", "missing"]);

    let tower = |field: &str, value: Value| {
        Copy::of("gemma3-tower").edit(CONFIG, |config| config["text_config"][field] = value)
    };
    tower("attn_logit_softcapping", json!(50.0)).fails(&[CONFIG, "text_config.attn_logit_softcapping"]);
    tower("use_bidirectional_attention", json!(true)).fails(&[
        CONFIG,
        "use_bidirectional_attention",
        "decoder",
    ]);
    tower("hidden_activation", json!("relu")).fails(&[
        CONFIG,
        "text_config.hidden_activation",
        "gelu_pytorch_tanh",
    ]);
    tower("hidden_size", json!(48)).fails(&[
        WEIGHTS,
        "model.language_model.embed_tokens.weight",
        "[256, 48]",
    ]);
    tower("layer_types", Value::Null)
        .edit(CONFIG, |config| config["text_config"]["sliding_window_pattern"] = json!(0))
        .fails(&[CONFIG, "text_config.sliding_window_pattern is 0"]);
    let nested = json!({"full_attention": {"rope_type": "linear"}});
    tower("rope_parameters", nested)
        .fails(&[CONFIG, "text_config.rope_parameters.full_attention.factor is missing"]);
}

/// Where no architecture is named, the type of the model says which it is, as in transformers.
#[test]
fn a_configuration_without_architectures() {
    for architectures in [json!([]), Value::Null] {
        llama().set("architectures", architectures.clone()).load().unwrap();
        qwen3().set("architectures", architectures.clone()).load().unwrap();
        let unknown = llama().set("architectures", architectures.clone()).set("model_type", json!("bert"));
        unknown.fails(&[CONFIG, "architectures", "one of the supported architectures: LlamaForCausalLM, "]);
    }
    llama().set("hidden_act", json!("swish")).load().unwrap();
    llama().set("sliding_window", json!(1 << 20)).load().unwrap();
}

#[test]
fn files_that_are_not_what_they_should_be() {
    llama().remove(CONFIG).fails(&[CONFIG, "no such file"]);
    llama().write(CONFIG, "{\"hidden_size\": 64,").fails(&[CONFIG, "JSON"]);
    llama().write(CONFIG, "[1, 2]").fails(&[CONFIG, "JSON object"]);
    llama().write(CONFIG, b"").fails(&[CONFIG, "JSON"]);
    llama().write(CONFIG, "[".repeat(100_000)).fails(&[CONFIG, "JSON"]);
    llama().write(CONFIG, [0xff, 0xfe]).fails(&[CONFIG, "JSON"]);
    llama().remove(WEIGHTS).fails(&[WEIGHTS, INDEX, "no such file"]);
    llama().write(WEIGHTS, b"").fails(&[WEIGHTS, "truncated", "download"]);
    let whole = llama().read(WEIGHTS);
    for length in [7, 8, 100, whole.len() / 2, whole.len() - 1] {
        llama().write(WEIGHTS, &whole[..length]).fails(&[WEIGHTS, "truncated", "download"]);
    }
    llama().write(WEIGHTS, [&whole[..], b"x"].concat()).fails(&[WEIGHTS, "longer", "download"]);
    llama().write(WEIGHTS, [0xff; 64]).fails(&[WEIGHTS, "header's length", "download"]);
    llama().write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n").fails(&[WEIGHTS, "git lfs pull"]);
    assert!(Checkpoint::open(llama().path().join("nowhere")).is_err());
}

/// Git LFS leaves a pointer in place of any file until it has fetched the file.
#[test]
fn pointers_of_git_lfs() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n";
    for file in [CONFIG, WEIGHTS, INDEX, "tokenizer.json", "generation_config.json", "chat_template.jinja"] {
        let copy = llama().write(file, pointer);
        let message = Checkpoint::open(copy.path()).unwrap().find(file).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains("Git LFS pointer"), "{message}");
        assert!(message.contains("run git lfs pull"), "{message}");
    }
    sharded().write("model-00002-of-00004.safetensors", pointer).fails(&["00002", "Git LFS pointer"]);
}

/// Folders that hold a model in another format, or no model, are named as what they are.
#[test]
fn folders_of_other_formats() {
    let without = || llama().remove(WEIGHTS);
    let cases = [
        ("adapter_config.json", "an adapter (LoRA)", "merge it into its base first"),
        ("pytorch_model.bin", "pytorch_model.bin is a pickle", "save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", "is a pickle", "save_pretrained"),
        ("model-Q4_K_M.gguf", "model-Q4_K_M.gguf is in the format GGUF", "gguf_file=\"model-Q4_K_M.gguf\""),
        ("consolidated.00.pth", "consolidated.00.pth is in the format of the model's authors", "config.json"),
    ];
    for (file, words, remedy) in cases {
        without().write(file, "{}").fails(&[words, remedy]);
        without().write(file, "{}").remove(CONFIG).fails(&[words, remedy]);
        llama().write(file, "{}").load().unwrap();
    }
    let message = |path: &Path| Checkpoint::open(path).unwrap_err().to_string();
    assert!(message(Path::new("./nope")).contains("./nope: no such folder"));
    let copy = llama();
    assert!(message(&copy.path().join(WEIGHTS)).contains("a file, not a folder"));
}

/// A small file is refused by its length before it is read. Files that are none are not opened.
#[test]
fn files_that_cannot_be_small_files() {
    for file in [CONFIG, "generation_config.json", "tokenizer.json"] {
        let copy = llama().write(file, "");
        fs::File::options().write(true).open(copy.path().join(file)).unwrap().set_len(20 << 30).unwrap();
        let message = Checkpoint::open(copy.path()).unwrap().find(file).unwrap_err().to_string();
        assert!(
            message.contains(file) && message.contains("has 21474836480 bytes; such a file"),
            "{message}"
        );
    }
    let copy = llama().remove(CONFIG);
    fs::create_dir(copy.path().join(CONFIG)).unwrap();
    copy.fails(&[CONFIG, "a folder, not a file"]);
}

/// Python writes numbers that are not finite as words, and transformers reads them.
#[test]
fn numbers_that_are_not_finite() {
    let with = |line: &str| {
        let copy = llama();
        let config = String::from_utf8(copy.read(CONFIG)).unwrap();
        copy.write(CONFIG, config.replacen('{', &format!("{{{line},"), 1))
    };
    for line in ["\"unused\": [0.0, Infinity]", "\"time_step_limit\": -Infinity", "\"a\": {\"b\": NaN}"] {
        with(line).load().unwrap();
    }
    let generation = llama().write("generation_config.json", r#"{"eos_token_id": 7, "max_time": Infinity}"#);
    assert_eq!(stop_tokens(&Checkpoint::open(generation.path()).unwrap()).unwrap(), [TokenId(7)]);
    let config = String::from_utf8(llama().read(CONFIG)).unwrap();
    let at = config.find("\"rms_norm_eps\": ").unwrap() + 16;
    let end = at + config[at..].find(',').unwrap();
    llama()
        .write(CONFIG, format!("{}NaN{}", &config[..at], &config[end..]))
        .fails(&[CONFIG, "rms_norm_eps is \"NaN\"; it must be a number"]);
}

#[test]
fn headers_that_lie() {
    let tensor = |dtype: &str, shape: Value, start: u64, end: u64| json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
    let most = (1u64 << 61) - 1;
    // Eight tensors whose sizes add up to eight bytes less than 2^64, so the computed length of the file overflows.
    let overflowing = (0..8u64).map(|i| {
        let (start, end) = (i * most, (i + 1) * most);
        (format!("t{i}"), tensor("U8", json!([most]), start, end))
    });
    let headers = [
        json!({"a": tensor("F32", json!([4]), 0, 12)}),
        json!({"a": tensor("F32", json!([1]), 4, 8)}),
        json!({"a": tensor("F32", json!([2]), 0, 8), "b": tensor("F32", json!([1]), 4, 8)}),
        json!({"a": tensor("F32", json!([1u64 << 40]), 0, 1 << 42)}),
        json!({"a": tensor("F32", json!([u64::MAX, u64::MAX]), 0, 8)}),
        json!({"a": tensor("F32", json!([-1]), 0, 8)}),
        json!({"a": tensor("F77", json!([2]), 0, 8)}),
        json!({"a": {"dtype": "F32"}}),
        json!({"a": 7}),
        json!([]),
        overflowing.collect::<serde_json::Map<_, _>>().into(),
        json!({"t": tensor("U8", json!([u64::MAX >> 3]), 0, u64::MAX >> 3)}),
    ];
    for header in headers {
        llama().write_header(&header.to_string()).fails(&[WEIGHTS, "download"]);
    }
    llama().write_header("{").fails(&[WEIGHTS, "header", "download"]);
    llama().write_header("\u{0}").fails(&[WEIGHTS, "header", "download"]);
}

#[test]
fn tensors_that_are_not_what_the_configuration_says() {
    let down = "model.layers.1.mlp.down_proj.weight";
    llama().edit_weights(|tensors| drop(tensors.remove(down))).fails(&[WEIGHTS, down, "config.json"]);
    llama()
        .edit_weights(|tensors| drop(tensors.remove("lm_head.weight")))
        .fails(&[WEIGHTS, "lm_head.weight"]);
    llama().edit_weights(|tensors| tensors.get_mut(down).unwrap().1 = vec![32, 128]).fails(&[
        WEIGHTS,
        down,
        "[32, 128]",
        "[64, 64]",
    ]);
    llama()
        .edit_weights(|tensors| tensors.get_mut(down).unwrap().1 = vec![64 * 64])
        .fails(&[WEIGHTS, down, "[4096]", "[64, 64]"]);
    llama()
        .edit_weights(|tensors| *tensors.get_mut(down).unwrap() = (Dtype::I8, vec![64, 64], vec![1; 64 * 64]))
        .fails(&[WEIGHTS, down, "I8", "BF16, F16, F32"]);
    llama().set("head_dim", json!(32)).fails(&[WEIGHTS, "q_proj", "[128, 64]"]);
    llama().set("vocab_size", json!(300)).fails(&[WEIGHTS, "embed_tokens", "[300, 64]"]);
    llama().set("attention_bias", json!(true)).fails(&[WEIGHTS, "q_proj.bias"]);
    llama().set("mlp_bias", json!(true)).fails(&[WEIGHTS, "gate_proj.bias"]);
    llama().set("num_hidden_layers", json!(3)).fails(&[WEIGHTS, "model.layers.2.input_layernorm.weight"]);
}

#[test]
fn indices_that_lead_astray() {
    let shard = "model-00003-of-00004.safetensors";
    sharded().remove(shard).fails(&[shard, "no such file", INDEX]);
    sharded().write(INDEX, "{}").fails(&[INDEX, "weight_map"]);
    sharded().write(INDEX, "nonsense").fails(&[INDEX]);
    sharded().edit(INDEX, |index| index["weight_map"] = json!({"a": 1})).fails(&[INDEX]);
    sharded().edit(INDEX, |index| index["weight_map"] = json!({})).fails(&[INDEX, "embed_tokens"]);
    let norm = "model.norm.weight";
    sharded()
        .edit(INDEX, |index| index["weight_map"] = json!({norm: shard}))
        .fails(&[INDEX, "has no tensor model.embed_tokens.weight"]);
    for path in [
        "../a.safetensors",
        "/a.safetensors",
        "a/b.safetensors",
        "..\\a.safetensors",
        "..",
        "",
        "config.json",
        "\u{1b}.safetensors",
    ] {
        sharded().edit(INDEX, |index| index["weight_map"]["a"] = json!(path)).fails(&[
            INDEX,
            "weight_map",
            "next to it",
        ]);
    }
    let whole = sharded().read(shard);
    sharded().write(shard, &whole[..whole.len() - 2]).fails(&[shard, "truncated", "download"]);
}

#[test]
fn stop_ids() {
    let generation = "generation_config.json";
    let stop = |copy: &Copy| stop_tokens(&Checkpoint::open(copy.path()).unwrap());
    let found = |copy: &Copy| stop(copy).unwrap().into_iter().map(|id| id.0).collect::<Vec<_>>();
    let set = |file: &str, value: Value| llama().edit(file, |config| config["eos_token_id"] = value);
    assert_eq!(found(&set(generation, json!(7))), [7]);
    assert_eq!(found(&set(generation, json!([9, 7]))), [9, 7]);
    let in_config = || set(CONFIG, json!([5]));
    let null = |copy: Copy| copy.edit(generation, |config| config["eos_token_id"] = Value::Null);
    assert_eq!(found(&null(in_config())), [5]);
    assert_eq!(found(&in_config().remove(generation)), [5]);
    assert!(found(&null(set(CONFIG, Value::Null))).is_empty());
    for value in [json!("</s>"), json!(-1), json!([1, -1]), json!(1u64 << 32), json!(1.5)] {
        let message = stop(&set(generation, value)).unwrap_err().to_string();
        assert!(message.contains(generation) && message.contains("eos_token_id"), "{message}");
    }
}

#[test]
fn both_dialects_of_the_configuration() {
    let spec = |copy: &Copy| Spec::open(&Checkpoint::open(copy.path()).unwrap()).unwrap();
    let scaled = Copy::of("llama-gqa3-scaled");
    let old = Copy::of("llama-gqa3-scaled").edit(CONFIG, |config| {
        let mut rope = config["rope_parameters"].take();
        config["rope_theta"] = rope["rope_theta"].take();
        rope["type"] = rope["rope_type"].take();
        config["rope_scaling"] = rope;
    });
    assert_eq!(spec(&scaled), spec(&old));

    let linear = llama().edit(CONFIG, |config| {
        config["rope_parameters"]["rope_type"] = json!("linear");
        config["rope_parameters"]["factor"] = json!(4.0);
    });
    let [Rope { inverse_frequencies: plain, .. }] = &spec(&llama()).ropes[..] else { panic!() };
    let [Rope { inverse_frequencies: divided, .. }] = &spec(&linear).ropes[..] else { panic!() };
    assert_eq!(plain.iter().map(|f| f / 4.0).collect::<Vec<_>>(), *divided);

    let scaled = Copy::of("gemma3-linear");
    let old = Copy::of("gemma3-linear").edit(CONFIG, |config| {
        let mut ropes = config["rope_parameters"].take();
        config["rope_theta"] = ropes["full_attention"]["rope_theta"].take();
        config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"].take();
        config["rope_scaling"] = ropes["full_attention"].take();
        config["sliding_window_pattern"] = json!(6);
        config["layer_types"] = Value::Null;
    });
    assert_eq!(spec(&scaled), spec(&old));

    let head_dim = |copy: Copy| copy.edit(CONFIG, |config| config["head_dim"] = Value::Null);
    assert_eq!(spec(&head_dim(llama())).heads.dim, 64 / 4);
    assert_eq!(spec(&head_dim(qwen3())).heads.dim, 128);

    let windowed = |copy: Copy| copy.set("use_sliding_window", json!(true)).set("sliding_window", json!(8));
    let windows =
        |copy: &Copy| spec(copy).layers.iter().map(|layer: &Layer| layer.window).collect::<Vec<_>>();
    let from_layer = qwen3().set("layer_types", Value::Null).set("max_window_layers", json!(1));
    assert_eq!(windows(&windowed(from_layer)), [None, Some(8)]);
    let named = qwen3().set("layer_types", json!(["sliding_attention", "full_attention"]));
    assert_eq!(windows(&windowed(named)), [Some(8), None]);
    assert_eq!(windows(&qwen3().set("sliding_window", json!(8))), [None, None]);
}

/// config.json of two of the paper's experts, without fields that codit ignores.
#[test]
fn configurations_of_published_models() {
    let spec = |config: Value| {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
        Spec::open(&Checkpoint::open(folder.path()).unwrap()).unwrap()
    };
    let llama = spec(json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "eos_token_id": [128_001, 128_008, 128_009],
        "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
        "max_position_embeddings": 131_072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"
        },
        "rope_theta": 500_000.0, "tie_word_embeddings": true, "vocab_size": 128_256
    }));
    assert!(llama.tied_lm_head && llama.head_norms.is_none() && llama.context_length == 131_072);
    assert_eq!((llama.heads.qkv_width(), llama.heads.query_width(), llama.layers.len()), (3072, 2048, 16));
    let frequencies = &llama.ropes[0].inverse_frequencies;
    assert_eq!((frequencies.len(), frequencies[0]), (32, 1.0));
    let last = 500_000f64.powf(-62.0 / 64.0) / 32.0;
    assert!((f64::from(frequencies[31]) / last - 1.0).abs() < 1e-6);

    let qwen3 = spec(json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "eos_token_id": 151_645, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 12_288, "max_position_embeddings": 40_960,
        "max_window_layers": 36, "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1_000_000,
        "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151_936
    }));
    assert!(!qwen3.tied_lm_head && qwen3.head_norms == Some(NormScope::Head) && qwen3.vocab_size == 151_936);
    assert_eq!(qwen3.layers, vec![Layer { rope: 0, window: None, mlp: Mlp::Dense }; 36]);
    let shape = CacheShape {
        layers: PerKind::only_full(36),
        heads: 8,
        group: 4,
        head_dim: 128,
        block_size: 16,
        blocks: PerKind { full: 100, windowed: 7 },
    };
    assert_eq!(qwen3.cache_shape(16, shape.blocks), shape);

    let mixture = shapes::find("qwen3-30b-a3b").unwrap();
    let routing = RoutingShape { branches: 128, active: 8, normalized: true };
    let mlp = Mlp::Mixture(Mixture { routing, intermediate_size: 768 });
    assert_eq!(mixture.layers, vec![Layer { rope: 0, window: None, mlp }; 48]);
}

/// Which layers have a mixture, and which mixtures are refused.
#[test]
fn mixtures_by_their_configuration() {
    let plain = || Copy::of("qwen3-moe-plain-old"); // four layers, a mixture in every second
    let spec = |copy: &Copy| Spec::open(&Checkpoint::open(copy.path()).unwrap()).unwrap();
    let dense = |copy: &Copy| -> Vec<bool> {
        spec(copy).layers.iter().map(|layer: &Layer| layer.mlp == Mlp::Dense).collect()
    };
    assert_eq!(dense(&plain()), [true, false, true, false]);
    assert_eq!(dense(&plain().set("mlp_only_layers", json!([3, 9]))), [true, false, true, true]);
    assert_eq!(dense(&plain().set("decoder_sparse_step", Value::Null)), [false; 4]);

    plain().set("num_experts", Value::Null).fails(&[CONFIG, "num_experts is missing"]);
    plain().set("num_experts_per_tok", json!(7)).fails(&[CONFIG, "num_experts_per_tok", "1 to 6"]);
    plain().set("mlp_only_layers", json!([-1])).fails(&[
        CONFIG,
        "mlp_only_layers",
        "a list of layers' numbers",
    ]);
    let count = |copy: &Copy| match spec(copy).layers[1].mlp {
        Mlp::Mixture(mixture) => (mixture.routing.branches, mixture.routing.active),
        Mlp::Dense => (0, 0),
    };
    let without = |field: &'static str| {
        plain().edit(CONFIG, move |config| drop(config.as_object_mut().unwrap().remove(field)))
    };
    assert_eq!(count(&without("num_experts").set("num_local_experts", json!(6))), (6, 2));
    assert_eq!(count(&without("num_experts_per_tok").set("num_experts", json!(16))), (16, 8));
    plain()
        .set("num_experts", json!(1024))
        .set("moe_intermediate_size", json!(1 << 24))
        .set("hidden_size", json!(1 << 24))
        .fails(&[CONFIG, "hidden_size and the other sizes make a model of 1.7e18 parameters"]);
    plain().set("decoder_sparse_step", json!(0)).fails(&[CONFIG, "decoder_sparse_step"]);
    plain().set("num_experts", json!(7)).fails(&["model.layers.1.mlp.gate.weight", "[6, 48]", "[7, 48]"]);
    plain().set("moe_intermediate_size", json!(32)).fails(&[
        "mlp.experts.0.gate_proj.weight",
        "[24, 48]",
        "[32, 48]",
    ]);
}

/// Published configurations. The larger Gemma 3 models leave many fields to defaults.
#[test]
fn configurations_of_gemma_and_olmo() {
    let spec = |name: &str| shapes::find(name).unwrap();
    let last = |rope: &Rope| f64::from(*rope.inverse_frequencies.last().unwrap());
    let near =
        |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");

    let gemma = spec("gemma-3-4b");
    assert_eq!((gemma.vocab_size, gemma.context_length, gemma.layers.len()), (262_208, 131_072, 34));
    assert_eq!((gemma.heads.query, gemma.heads.key_value, gemma.heads.dim), (8, 4, 256));
    assert!(gemma.tied_lm_head && gemma.unit_offset && gemma.norm_placement == NormPlacement::Both);
    assert_eq!((gemma.attention_scale, gemma.activation), (1.0 / 16.0, Activation::GeluTanh));
    near(gemma.embedding_scale.into(), 2560f64.sqrt());
    let [full, sliding] = &gemma.ropes[..] else { panic!() };
    near(last(full), 1e6f64.powf(-254.0 / 256.0) / 8.0);
    near(last(sliding), 1e4f64.powf(-254.0 / 256.0));
    for (index, layer) in gemma.layers.iter().enumerate() {
        let window = (index % 6 != 5).then_some(1024);
        assert_eq!(*layer, Layer { rope: window.is_some().into(), window, mlp: Mlp::Dense });
    }
    near(spec("gemma-3-27b").attention_scale.into(), 168f64.sqrt().recip());

    let olmo = spec("olmo-3-7b");
    assert!(
        !olmo.tied_lm_head && olmo.norm_placement == NormPlacement::After && olmo.context_length == 65_536
    );
    assert_eq!((olmo.heads.dim, olmo.head_norms), (128, Some(NormScope::Projection)));
    let [full, sliding] = &olmo.ropes[..] else { panic!() };
    near(full.scale.into(), 0.1 * 8f64.ln() + 1.0);
    near(last(full), 5e5f64.powf(-126.0 / 128.0) / 8.0);
    near(last(sliding), 5e5f64.powf(-126.0 / 128.0));
    assert_eq!((full.inverse_frequencies[0], sliding.scale), (1.0, 1.0));
    assert_eq!(
        olmo.layers[4..8].iter().map(|layer| layer.window).collect::<Vec<_>>(),
        [Some(4096), Some(4096), Some(4096), None]
    );
}

/// Stretches the context as Qwen3's authors recommend.
#[test]
fn yarn_stretches_the_context() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768});
    let copy = qwen3().set("max_position_embeddings", json!(40_960)).set("rope_scaling", yarn);
    assert_eq!(Spec::open(&Checkpoint::open(copy.path()).unwrap()).unwrap().context_length, 131_072);
}

/// A tied checkpoint may also store the LM head. The stored head is used, even if it differs from the embedding.
#[test]
fn a_tied_checkpoint_with_an_lm_head() {
    let logits = |copy: &Copy| one_token(&mut copy.load().unwrap());
    let table = "model.embed_tokens.weight";
    let twice = qwen3().edit_weights(|tensors| {
        tensors.insert("lm_head.weight".to_owned(), tensors[table].clone());
    });
    assert_eq!(logits(&qwen3()), logits(&twice));
    let zero = qwen3().edit_weights(|tensors| {
        let (dtype, shape, data) = tensors[table].clone();
        tensors.insert("lm_head.weight".to_owned(), (dtype, shape, vec![0; data.len()]));
    });
    assert!(logits(&zero).iter().all(|z| *z == 0.0));
}

/// A tied checkpoint may store its embedding as the LM head alone, in one file or in shards.
#[test]
fn a_tied_checkpoint_with_an_lm_head_alone() {
    let logits = |copy: &Copy| one_token(&mut copy.load().unwrap());
    let headed = qwen3().edit_weights(|tensors| {
        let table = tensors.remove("model.embed_tokens.weight").unwrap();
        tensors.insert("lm_head.weight".to_owned(), table);
    });
    assert_eq!(logits(&qwen3()), logits(&headed));
    let untied = headed.set("tie_word_embeddings", json!(false));
    untied.fails(&[WEIGHTS, "has no tensor model.embed_tokens.weight"]);
}

/// The files say which tensors they hold. The index only says which files there are.
#[test]
fn indices_that_are_wrong_about_tensors() {
    let logits = |copy: &Copy| one_token(&mut copy.load().unwrap());
    let expected = logits(&sharded());
    let shard = "model-00003-of-00004.safetensors";
    let map = |edit: fn(&mut serde_json::Map<String, Value>)| {
        sharded().edit(INDEX, |index| edit(index["weight_map"].as_object_mut().unwrap()))
    };
    // Names that no file holds, such as the head of a tied model.
    assert_eq!(logits(&map(|map| drop(map.insert("ghost".into(), json!(shard_of(1)))))), expected);
    // Tensors that are in another shard than the index says.
    assert_eq!(
        logits(&map(|map| map.values_mut().rev().take(4).for_each(|file| *file = json!(shard_of(1))))),
        expected
    );
    // Tensors that the index does not name.
    let only_files = map(|map| {
        let files: std::collections::BTreeSet<_> =
            map.values().map(|file| file.as_str().unwrap().to_owned()).collect();
        map.clear();
        map.extend(files.into_iter().map(|file| (file.clone(), json!(file))));
    });
    assert_eq!(logits(&only_files), expected);
    // Files that are absent and hold nothing that is needed.
    assert_eq!(logits(&map(|map| drop(map.insert("vision".into(), json!("vision.safetensors"))))), expected);
    sharded().remove(shard).fails(&[shard, "no such file", INDEX, "places tensor"]);
}

fn shard_of(number: usize) -> String {
    format!("model-0000{number}-of-00004.safetensors")
}

/// Tensors that are joined need not share a number format, and unused ones may have any.
#[test]
fn tensors_of_several_formats() {
    let logits = |copy: &Copy| one_token(&mut copy.load().unwrap());
    let expected = logits(&llama());
    let wider = |names: &'static [&'static str], double: bool| {
        llama().edit_weights(move |tensors| {
            for name in names {
                let (dtype, _, data) = tensors.get_mut(*name).unwrap();
                let numbers = data.as_chunks::<2>().0.iter().map(|half| half::f16::from_le_bytes(*half));
                (*dtype, *data) = if double {
                    (Dtype::F64, numbers.flat_map(|x| x.to_f64().to_le_bytes()).collect())
                } else {
                    (Dtype::F32, numbers.flat_map(|x| x.to_f32().to_le_bytes()).collect())
                };
            }
        })
    };
    let near = |copy: &Copy| {
        let largest = logits(copy).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-4, "{largest}");
    };
    near(&wider(&["model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.up_proj.weight"], false));
    near(&wider(&["model.layers.1.self_attn.q_proj.weight", "model.norm.weight"], true));
    near(&wider(&["model.embed_tokens.weight"], false));
    let with_unused = llama().edit_weights(|tensors| {
        tensors.insert("rotary_emb.inv_freq".to_owned(), (Dtype::I64, vec![2], vec![0; 16]));
        tensors.insert("scales".to_owned(), (Dtype::F8_E4M3, vec![3], vec![1; 3]));
    });
    assert_eq!(logits(&with_unused), expected);
}

/// In a checkpoint of the decoder alone, the tensors' names have no prefix.
#[test]
fn a_decoder_that_was_stored_alone() {
    let whole = || Copy::of("gemma3-linear");
    let alone = whole().set("architectures", json!(["Gemma3TextModel"])).edit_weights(|tensors| {
        let named = std::mem::take(tensors).into_iter();
        tensors.extend(named.map(|(name, tensor)| (name.replace("model.", ""), tensor)));
    });
    let logits = |copy: &Copy| one_token(&mut copy.load().unwrap());
    assert_eq!(logits(&whole()), logits(&alone));
}

/// As `AutoModel` saves a model: the architecture is the decoder's, and the names have no prefix or that of the text tower.
#[test]
fn decoders_as_base_models_are_stored() {
    let logits = |copy: &Copy| one_token(&mut copy.load().unwrap());
    let cases =
        [("qwen3-gqa2-tied", "Qwen3Model", "model.", ""), ("llama-gqa3-scaled", "LlamaModel", "model.", "")];
    let tower = ("gemma3-tower", "Gemma3Model", "model.language_model.", "language_model.");
    for (case, architecture, prefix, stored) in cases.into_iter().chain([tower]) {
        let copy = Copy::of(case).set("architectures", json!([architecture])).edit_weights(|tensors| {
            let named = std::mem::take(tensors).into_iter();
            tensors.extend(named.map(|(name, tensor)| (name.replace(prefix, stored), tensor)));
        });
        assert_eq!(logits(&copy), logits(&Copy::of(case)), "{architecture}");
    }
    // Without the head that an untied model needs.
    let headless = llama().set("architectures", json!(["LlamaModel"])).edit_weights(|tensors| {
        tensors.remove("lm_head.weight").unwrap();
    });
    headless.fails(&[WEIGHTS, "has no tensor lm_head.weight"]);
}

/// Runs one token and returns its logits.
pub fn one_token(decoder: &mut Decoder<Cpu>) -> Vec<f32> {
    let device = Cpu::new(Some(1)).unwrap();
    let batch = Batch {
        tokens: vec![TokenId(0)],
        positions: vec![0],
        spans: vec![Span { tokens: 0..1, blocks: 0..1 }],
        blocks: vec![BlockId(0)],
        windowed_blocks: vec![BlockId(0)],
        logits_indices: vec![0],
        ..Batch::default()
    };
    let mut cache = device.cache(decoder.spec().cache_shape(16, PerKind::of(|_| 1))).unwrap();
    let step = begin_forward(&device, 16, &batch);
    decoder.forward(&device, &step, &mut cache);
    device.download(1, decoder.logits(&device, &step, 0..1))
}

/// Damage to a file: bytes replaced at places within its first two thousand bytes, and possibly a truncation.
#[derive(Debug, Clone)]
struct Damage {
    case: &'static str,
    file: &'static str,
    bytes: Vec<(prop::sample::Index, u8)>,
    end: Option<prop::sample::Index>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"0123456789\"{}[],:-.e "[..])];
    (
        prop::sample::select(&["qwen3-gqa2-tied", "gemma3-tower", "olmo3-yarn"][..]),
        prop::sample::select(&[CONFIG, "generation_config.json", WEIGHTS][..]),
        prop::collection::vec((any::<prop::sample::Index>(), byte), 0..6),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    )
        .prop_map(|(case, file, bytes, end)| Damage { case, file, bytes, end })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damage_never_panics(damage in damage()) {
        let copy = Copy::of(damage.case);
        let mut bytes = copy.read(damage.file);
        for (at, byte) in damage.bytes {
            let at = at.index(bytes.len().min(2000));
            bytes[at] = byte;
        }
        if let Some(end) = damage.end {
            bytes.truncate(end.index(bytes.len()));
        }
        let copy = copy.write(damage.file, bytes);
        let _ = stop_tokens(&Checkpoint::open(copy.path()).unwrap());
        if let Ok(mut decoder) = copy.load() {
            one_token(&mut decoder);
        }
    }
}
