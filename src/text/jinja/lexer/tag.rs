//! The tokens of a tag.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::{RESERVED, literal};
use crate::text::jinja::strings::character::is_alphanumeric;
use crate::text::jinja::strings::trim::is_space;

/// The tags whose end may have a colon in front.
const WITH_COLON: [&str; 10] =
    ["autoescape", "block", "call", "elif", "else", "filter", "for", "if", "macro", "with"];

/// The words after which an expression begins.
const KEYWORDS: [&str; 8] = ["and", "elif", "else", "if", "in", "is", "not", "or"];

struct Token {
    text: String,
    is_name: bool,
    /// The line ends in front of it.
    lines: usize,
    /// How many brackets are open around it.
    depth: usize,
}

/// A tag's tokens, its length with the closing delimiter, and the sign in front of that.
pub(super) struct Tag {
    tokens: Vec<Token>,
    length: usize,
    sign: Option<char>,
}

impl Tag {
    /// Reads the tag whose inside begins `source`.
    ///
    /// # Errors
    /// The place and the message.
    pub(super) fn read(source: &str, is_block: bool) -> Result<Self, (usize, String)> {
        let (close, signs): (&str, &[char]) = if is_block { ("%}", &['-', '+']) } else { ("}}", &['-']) };
        let mut tokens: Vec<Token> = Vec::new();
        let mut open: Vec<char> = Vec::new();
        let mut at = 0;
        loop {
            let rest = &source[at..];
            let trimmed = rest.trim_start_matches(is_space);
            let lines = rest[..rest.len() - trimmed.len()].matches('\n').count();
            at += rest.len() - trimmed.len();
            if open.is_empty() {
                let sign = trimmed.chars().next().filter(|sign| signs.contains(sign));
                let unsigned = &trimmed[usize::from(sign.is_some())..];
                if unsigned.starts_with(close) {
                    let length = at + usize::from(sign.is_some()) + close.len();
                    let mut tag = Self { tokens, length, sign };
                    tag.adapt(is_block);
                    return Ok(tag);
                }
            }
            let after_dot = tokens.last().is_some_and(|token| token.text == ".");
            let (text, length, is_name) = token(trimmed, after_dot).map_err(|message| (at, message))?;
            let mut depth = open.len();
            match text.as_str() {
                "(" | "[" | "{" => open.extend(text.chars()),
                ")" | "]" | "}" if !is_name => {
                    let wanted = match text.as_str() {
                        ")" => '(',
                        "]" => '[',
                        _ => '{',
                    };
                    if open.pop() != Some(wanted) {
                        return Err((at, format!("unexpected '{text}'")));
                    }
                    depth = open.len();
                }
                _ => {}
            }
            let text = if text == "+" && begins_operand(tokens.last()) { "- -".to_owned() } else { text };
            tokens.push(Token { text, is_name, lines, depth });
            at += length;
        }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn sign(&self) -> Option<char> {
        self.sign
    }

    pub(super) fn write(&self, out: &mut String) {
        for token in &self.tokens {
            out.extend(std::iter::repeat_n('\n', token.lines));
            out.push(' ');
            out.push_str(&token.text);
        }
    }

    /// Rewrites what the engine's parser lacks: tags of `transformers`, tuples without parentheses, colons.
    fn adapt(&mut self, is_block: bool) {
        if !is_block {
            if self.tokens.iter().any(|token| token.depth == 0 && token.text == ",") {
                self.parenthesize(0, self.tokens.len());
            }
            return;
        }
        let Some(name) = self.tokens.first().map(|token| token.text.clone()) else { return };
        if self.tokens.len() > 1 && WITH_COLON.contains(&name.as_str()) {
            self.tokens.pop_if(|token| token.text == ":");
        }
        match (name.as_str(), self.tokens.len()) {
            // `{% generation %}` marks the model's text, for training. Like a call's body it has a scope.
            ("generation", 1) => format!("call {RESERVED}generation()").clone_into(&mut self.tokens[0].text),
            ("endgeneration", 1) => "endcall".clone_into(&mut self.tokens[0].text),
            ("for", _) => {
                let at = |names: &[&str], from: usize| {
                    self.tokens[from..]
                        .iter()
                        .position(|token| {
                            token.depth == 0 && token.is_name && names.contains(&token.text.as_str())
                        })
                        .map(|index| from + index)
                };
                let Some(start) = at(&["in"], 0).map(|index| index + 1) else { return };
                let end = at(&["if", "recursive"], start).unwrap_or(self.tokens.len());
                if self.tokens[start..end].iter().any(|token| token.depth == 0 && token.text == ",") {
                    self.parenthesize(start, end);
                }
            }
            _ => {}
        }
    }

    fn parenthesize(&mut self, start: usize, end: usize) {
        let token = |text: &str| Token { text: text.to_owned(), is_name: false, lines: 0, depth: 0 };
        self.tokens.insert(end, token(")"));
        self.tokens.insert(start, token("("));
    }
}

fn begins_operand(before: Option<&Token>) -> bool {
    before.is_none_or(|token| {
        if token.is_name {
            KEYWORDS.contains(&token.text.as_str())
        } else {
            let last = token.text.chars().next_back();
            last.is_some_and(|last| "+-*/%~<>=!([{,:|".contains(last))
        }
    })
}

/// The next token: its text for the engine, its length, and whether it is a name.
fn token(source: &str, after_dot: bool) -> Result<(String, usize, bool), String> {
    let first = source.chars().next().ok_or("a tag has no end")?;
    if first == '\'' || first == '"' {
        let (text, length) = literal::text(source)?;
        return Ok((literal::quoted(&text), length, false));
    }
    if first.is_ascii_digit() {
        let (text, length) = literal::number(source, after_dot)?;
        return Ok((text, length, false));
    }
    let is_mark = |character: char| {
        !character.is_ascii() && character.general_category_group() == GeneralCategoryGroup::Mark
    };
    let continues = |character: char| character == '_' || is_alphanumeric(character) || is_mark(character);
    if continues(first) {
        let length = source.find(|character| !continues(character)).unwrap_or(source.len());
        let name = &source[..length];
        if name.starts_with(RESERVED) {
            return Err(format!("names that begin with {RESERVED} are reserved"));
        }
        return Ok((name.to_owned(), length, true));
    }
    let two = source.get(..2).filter(|two| ["//", "**", "==", "!=", ">=", "<="].contains(two));
    if let Some(two) = two {
        return Ok((two.to_owned(), 2, false));
    }
    if "+-/*%~[](){}<>=.:|,".contains(first) {
        return Ok((first.to_string(), 1, false));
    }
    Err(format!("unexpected {first:?}"))
}
