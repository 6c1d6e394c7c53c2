//! The examples with which each help text begins.

pub const CODIT: &str = "\
Examples:
  codit synth examples/prompts.jsonl -o out.jsonl   try it with the built-in pair
  codit pairs                                       list the pairs known by name
  codit synth in.jsonl -o out.jsonl --pair qwen3-0.6b";

pub const SYNTH: &str = r#"Examples:
  codit synth in.jsonl -o out.jsonl --pair qwen3-0.6b
  codit synth in.jsonl -o out.jsonl --expert Qwen/Qwen3-8B --amateur ./my-base
  codit synth in.jsonl -o 'out-{alpha}-{beta}.jsonl' --alpha 0.01,0.1 --beta 0,1

A line of the input is {"instruction": "Name a river."}, for example. The same
command resumes a run that was stopped."#;

pub const STATS: &str = "\
Examples:
  codit stats out.jsonl
  codit stats sweep/*.jsonl --json";

pub const RENDER: &str = "\
Examples:
  codit render in.jsonl --limit 3
  codit render in.jsonl --pair qwen3-0.6b --json";

pub const PAIRS: &str = "\
Example:
  codit pairs";

pub const PLAN: &str = "\
Examples:
  codit plan --pair llama-3.1-8b --gpu-memory 24GiB
  codit plan --shape qwen3-32b --gpus 4";

pub const DOCTOR: &str = "\
Examples:
  codit doctor
  codit doctor --device cuda --json";

pub const BENCH: &str = "\
Examples:
  codit bench --shape qwen3-8b --rows 64
  codit bench --ablation --pair smollm2-135m --input in.jsonl";

pub const COMPLETIONS: &str = "\
Examples:
  codit completions bash > ~/.local/share/bash-completion/completions/codit
  codit completions zsh > \"${fpath[1]}/_codit\"
  codit completions fish > ~/.config/fish/completions/codit.fish";

/// What the help of the program ends with.
pub const ENVIRONMENT: &str = "\
Environment:
  CODIT_CPU_ISA            lower the CPU's instruction set: baseline, avx2, avx512, avx512_bf16, amx
  HF_HOME, HF_HUB_CACHE    where downloaded models are kept
  HF_TOKEN, HF_TOKEN_PATH  the token for gated and private models, or its file
  HF_HUB_OFFLINE           1 uses only models that are downloaded already
  HF_ENDPOINT              another address of the Hugging Face Hub
  NO_COLOR                 no colours on the terminal

Exit codes:
  0              all done
  1              a failure at work, such as a full disk
  2              bad input or settings
  3              every record that the run wrote is an error
  129, 130, 143  stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM, or 128 + N by
                 another signal N; the same command resumes the run";
