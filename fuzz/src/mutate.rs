//! Makes damaged files of seeds, without knowing what the program does with them.

use serde_json::Value;

use crate::{Random, json};

/// What a target's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One JSON text.
    Json,
    /// A JSON text a line.
    Lines,
    /// The length of a header, the header in JSON, and data.
    Safetensors,
    /// A Jinja template.
    Template,
}

/// Seeds, and what is needed to damage them.
pub struct Mutator {
    kind: Kind,
    seeds: Vec<Vec<u8>>,
    /// The seeds' trees.
    trees: Vec<Value>,
}

const JSON_WORDS: [&str; 66] = [
    "model_type",
    "architectures",
    "LlamaForCausalLM",
    "Qwen3MoeForCausalLM",
    "Gemma3ForCausalLM",
    "Olmo3ForCausalLM",
    "text_config",
    "rope_scaling",
    "rope_parameters",
    "rope_theta",
    "rope_type",
    "linear",
    "dynamic",
    "yarn",
    "llama3",
    "factor",
    "mscale",
    "layer_types",
    "sliding_window",
    "sliding_attention",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "quantization_config",
    "attention_bias",
    "tie_word_embeddings",
    "head_dim",
    "num_key_value_heads",
    "partial_rotary_factor",
    "eos_token_id",
    "dropout",
    "BPE",
    "Unigram",
    "WordPiece",
    "WordLevel",
    "byte_fallback",
    "ignore_merges",
    "Precompiled",
    "precompiled_charsmap",
    "Sequence",
    "Split",
    "Metaspace",
    "ByteLevel",
    "Replace",
    "Strip",
    "Regex",
    "TemplateProcessing",
    "truncation",
    "padding",
    "added_tokens",
    "special",
    "lm_head.weight",
    "__metadata__",
    "F64",
    "BF16",
    "data_offsets",
    "id",
    "instruction",
    "prompt",
    "messages",
    "role",
    "content",
    "tools",
    "error",
    "sample_index",
    "(a*)*b",
];
const TEMPLATE_WORDS: [&str; 62] = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    "-%}",
    "{#",
    "#}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% else %}",
    "{% set x = ",
    "{% set x %}",
    "{% endset %}",
    "{% set ns = namespace() %}",
    "{% set ns.x = ns %}",
    "{{ ns }}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% raw %}",
    "{% endraw %}",
    "{% break %}",
    "{% continue %}",
    "{% with %}",
    "{% endwith %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(f(1)) }}",
    "{% call f(1) %}",
    "{% endcall %}",
    "{% generation %}",
    "{% endgeneration %}",
    "recursive",
    "{{ loop(m) }}",
    "| tojson",
    "| sort",
    "| unique",
    "| indent(1000000000)",
    "| list",
    "| join(x)",
    "| batch(0)",
    "| slice(0)",
    "| round(400)",
    "| replace('', 'xx')",
    "| format(1)",
    "| center(10**9)",
    "'%s' % x",
    "'a' * 1000000000",
    "range(10**9)",
    "[0] * 10**9",
    "x ~ x",
    "x[::0]",
    "raise_exception(",
    "strftime_now('%Q')",
    "99999999999999999999",
    "-9223372036854775808 // -1",
    "1 // 0",
    "2 ** 9999",
    ".split('')",
    "\r\n",
];

impl Mutator {
    pub fn new(kind: Kind, seeds: Vec<Vec<u8>>) -> Self {
        let parts = seeds.iter().flat_map(|seed| match kind {
            Kind::Safetensors => header(seed).into_iter().collect::<Vec<_>>(),
            _ => seed.split_inclusive(|byte| kind == Kind::Lines && *byte == b'\n').collect(),
        });
        let trees = parts.filter_map(json::parse).collect();
        Self { kind, seeds, trees }
    }

    /// Case number `case` of the run `run`: always the same.
    pub fn case(&self, run: u64, case: u64) -> Vec<u8> {
        let random =
            &mut Random::new(run.wrapping_mul(0x1_0000_0001) ^ case.wrapping_mul(0xD134_2543_DE82_EF95));
        let mut data = self.seeds[random.below(self.seeds.len())].clone();
        let times = 1 + random.below(4);
        match self.kind {
            Kind::Json if !random.once_in(3) => {
                if let Some(mut tree) = json::parse(&data) {
                    for _ in 0..times {
                        json::damage(random, &mut tree, &self.trees, &JSON_WORDS);
                    }
                    data = json::print(&tree);
                }
            }
            Kind::Lines if !random.once_in(3) => {
                (0..times).for_each(|_| self.damage_lines(random, &mut data))
            }
            Kind::Safetensors if !random.once_in(4) => self.damage_header(random, &mut data, times),
            _ => {
                let words = self.words();
                (0..times).for_each(|_| damage_bytes(random, &mut data, words));
                if random.once_in(3) {
                    let other = &self.seeds[random.below(self.seeds.len())];
                    splice(random, &mut data, other);
                }
            }
        }
        data
    }

    fn words(&self) -> &'static [&'static str] {
        if self.kind == Kind::Template { &TEMPLATE_WORDS } else { &JSON_WORDS }
    }

    fn damage_lines(&self, random: &mut Random, data: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> =
            data.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.is_empty() {
            return;
        }
        let (at, other) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(8) {
            0 => lines.swap(at, other),
            1 => lines.insert(at, lines[other].clone()),
            2 => drop(lines.remove(at)),
            3 => damage_bytes(random, &mut lines[at], &JSON_WORDS),
            4 => lines[at] = lines[at][..random.place(lines[at].len())].to_vec(),
            5 => {
                lines[at] = random
                    .pick(&["\n", "\r\n", "\0\0\n", "\u{feff}\n", "{}\n", "[1]\n", "null\n", "{\"id\":"])
                    .as_bytes()
                    .to_vec()
            }
            _ => {
                if let Some(mut tree) = json::parse(&lines[at]) {
                    json::damage(random, &mut tree, &self.trees, &JSON_WORDS);
                    lines[at] = json::print(&tree);
                    lines[at].push(b'\n');
                }
            }
        }
        *data = lines.concat();
    }

    fn damage_header(&self, random: &mut Random, data: &mut Vec<u8>, times: usize) {
        let Some(mut tree) = header(data).and_then(json::parse) else { return };
        let tensors = data[header(data).map_or(0, <[u8]>::len) + 8..].to_vec();
        for _ in 0..times {
            json::damage(random, &mut tree, &self.trees, &JSON_WORDS);
        }
        let mut text = json::print(&tree);
        text.resize(text.len().next_multiple_of(8), b' ');
        let length = if random.once_in(8) { 1 << random.below(64) } else { text.len() as u64 };
        *data = [&length.to_le_bytes()[..], &text, &tensors].concat();
        match random.below(6) {
            0 => data.truncate(random.place(data.len())),
            1 => data.extend_from_within(..random.place(64).min(data.len())),
            2 => {
                // Numbers that are not finite, among the tensors.
                let start = data.len() - tensors.len();
                data[start..]
                    .iter_mut()
                    .for_each(|byte| *byte = if random.once_in(9) { 0xFF } else { *byte });
            }
            _ => {}
        }
    }
}

/// The header of a safetensors file.
fn header(file: &[u8]) -> Option<&[u8]> {
    let length = u64::from_le_bytes(*file.first_chunk()?);
    file.get(8..usize::try_from(length).ok()?.checked_add(8)?)
}

/// Changes some bytes of `data`.
pub fn damage_bytes(random: &mut Random, data: &mut Vec<u8>, words: &[&str]) {
    let place = random.place(data.len());
    let range = random.range(data.len());
    match random.below(11) {
        0 if place < data.len() => data[place] ^= 1 << random.below(8),
        1 if place < data.len() => data[place] = random.next() as u8,
        2 => data.truncate(place),
        3 => drop(data.drain(range)),
        4 => {
            let copy = data[range].to_vec();
            let copies = copy.repeat(1 << random.below(6));
            data.splice(place..place, copies);
        }
        5 => data.splice(range.clone(), std::iter::repeat_n(0, range.len())).for_each(drop),
        6 => {
            let open: &[u8] = if random.once_in(2) { b"[" } else { b"{\"a\":" };
            let many = open.repeat(1 << random.below(18));
            data.splice(place..place, many);
        }
        7 => {
            // A number becomes another.
            if let Some(start) = data[place..].iter().position(u8::is_ascii_digit).map(|at| at + place) {
                let length = data[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = match random.below(4) {
                    0 => "0".to_owned(),
                    1 => (1_u128 << random.below(80)).to_string(),
                    2 => ((1_u128 << random.below(80)) - 1).to_string(),
                    _ => format!("-{}", random.below(100)),
                };
                data.splice(start..start + length, number.into_bytes());
            }
        }
        _ if !words.is_empty() => {
            let word = random.pick(words).repeat(if random.once_in(8) { 1 << random.below(12) } else { 1 });
            let replaced = if random.once_in(2) { range } else { place..place };
            data.splice(replaced, word.into_bytes());
        }
        _ => data.push(b' '),
    }
}

/// Puts a part of `other` into `data`.
fn splice(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let (from, into) = (random.range(other.len()), random.range(data.len()));
    data.splice(into, other[from].to_vec());
}
