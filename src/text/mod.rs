//! Text to token ids and back: tokenizer, chat template, incremental detokenizing, the check of a pair's vocabulary.
