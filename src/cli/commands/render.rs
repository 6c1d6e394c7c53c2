//! `codit render`: the prompt of each row, as text and as token ids.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::args::models::Models;
use crate::cli::args::prompting::Prompting;
use crate::cli::ui::output::Output;
use codit::checkpoint::Parts;
use codit::error::Result;
use codit::ids::TokenId;
use codit::text::{Text, Tokenizer};

/// How a special token is marked on a terminal: in cyan.
const MARKED: [&str; 2] = ["\x1b[36m", "\x1b[0m"];

#[derive(clap::Args)]
pub struct Args {
    /// Rows, as for synth
    input: PathBuf,
    /// Prints JSON lines: `id`, `text` and `tokens`, or `id` and `error`
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    prompting: Prompting,
}

/// Prints the prompts. The exit code is 2 if no row has one.
pub fn run(args: &Args) -> Result<ExitCode> {
    let input = args.prompting.open(&args.input)?;
    let (expert, _) = args.models.open(false, Parts::Text, None)?;
    let mut text = Text::load(&expert)?;
    text.set_sanitize_control_tokens(args.prompting.sanitize_control_tokens);
    super::synth::report_warnings(&text);
    let variables = args.prompting.template_variables(args.models.pair(), &text, None);
    let is_marked =
        stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (mut has_prompt, output) = (false, Output);
    for row in 0..input.len() {
        let row = input.read(row)?;
        let id = row.id.key();
        match (args.prompting.prompt(row.body).render(&text, &variables), args.json) {
            (Ok((text, tokens)), true) => {
                has_prompt = true;
                writeln!(output, "{}", json!({"id": id, "text": text, "tokens": tokens}))?;
            }
            (Ok((rendered, tokens)), false) => {
                has_prompt = true;
                let marked =
                    if is_marked { special_tokens(text.tokenizer(), &tokens) } else { BTreeSet::new() };
                write!(output, "{}", for_people(id, &rendered, &tokens, &marked))?;
            }
            (Err(error), true) => writeln!(output, "{}", json!({"id": id, "error": error.to_string()}))?,
            (Err(error), false) => {
                writeln!(output, "{}: {}\n", visible(id), visible(&error.to_string()))?;
            }
        }
    }
    Ok(if has_prompt { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The special tokens among `tokens`, as they are written.
fn special_tokens(tokenizer: &Tokenizer, tokens: &[TokenId]) -> BTreeSet<String> {
    let special = tokens.iter().filter(|id| tokenizer.vocabulary().is_special(**id));
    special.filter_map(|id| tokenizer.token_of(*id)).filter(|token| !token.is_empty()).collect()
}

/// A row's prompt: a header, the text with its special tokens marked, indented, and the token ids.
fn for_people(id: &str, text: &str, tokens: &[TokenId], marked: &BTreeSet<String>) -> String {
    let plural = if tokens.len() == 1 { "" } else { "s" };
    let mut page = format!("{}: {} token{plural}\n", visible(id), tokens.len());
    let mut line = "  ".to_owned();
    let mut rest = text;
    while !rest.is_empty() {
        // The longest token that begins here: one may begin another.
        let token =
            marked.iter().filter(|token| rest.starts_with(token.as_str())).max_by_key(|token| token.len());
        let length =
            token.map_or_else(|| rest.chars().next().map_or(rest.len(), char::len_utf8), String::len);
        let (piece, after) = rest.split_at(length);
        match (token, piece) {
            (Some(_), _) => {
                let _ = write!(line, "{}{}{}", MARKED[0], visible(piece), MARKED[1]);
            }
            (None, "\n") => line.push_str("\n  "),
            (None, piece) => line.push_str(&visible(piece)),
        }
        rest = after;
    }
    page.push_str(&line);
    page.push_str("\n  ids:");
    for id in tokens {
        let _ = write!(page, " {}", id.0);
    }
    page.push_str("\n\n");
    page
}

/// The text with escapes for what is no visible character, since a terminal would obey some of them.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let mut escaped = format!("a{character}").escape_debug().skip(1).collect::<String>();
        if matches!(character, '\t' | '"' | '\'' | '\\') {
            escaped = character.to_string();
        }
        shown.push_str(&escaped);
    }
    shown
}
