//! `wordwrap`, which is Python's `textwrap`.

use minijinja::{Error, Value};

use crate::text::jinja::strings::character::{is_alphabetic, is_alphanumeric};
use crate::text::jinja::strings::split;
use crate::text::jinja::value::args::{Args, as_text, flag, int_or, some};
use crate::text::jinja::value::refused;

/// The settings of a `TextWrapper`.
struct Wrapper {
    width: usize,
    break_long_words: bool,
    break_on_hyphens: bool,
}

/// The filter.
pub(super) fn wordwrap(value: &Value, args: &Args) -> Result<Value, Error> {
    let [width, break_long_words, wrapstring, break_on_hyphens] =
        args.bind("wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let width = usize::try_from(int_or(width.as_ref(), 79, "wordwrap")?).unwrap_or(0);
    let wrapper = Wrapper {
        width,
        break_long_words: flag(break_long_words.as_ref(), true),
        break_on_hyphens: flag(break_on_hyphens.as_ref(), true),
    };
    let wrapstring = some(wrapstring).unwrap_or_else(|| Value::from("\n"));
    let wrapstring = as_text(&wrapstring, "wordwrap")?;
    let mut paragraphs = Vec::new();
    for line in split::lines(as_text(value, "wordwrap")?, false) {
        if width == 0 {
            return Err(refused("wordwrap: the width is over 0"));
        }
        paragraphs.push(wrapper.wrap(line).join(wrapstring));
    }
    Ok(Value::from(paragraphs.join(wrapstring)))
}

fn is_blank(character: char) -> bool {
    matches!(character, '\t'..='\r' | ' ')
}

fn is_word(character: Option<&char>) -> bool {
    character.is_some_and(|character| is_alphanumeric(*character) || *character == '_')
}

/// The characters that a dash follows as part of a word.
fn is_word_or_punctuation(character: Option<&char>) -> bool {
    is_word(character) || character.is_some_and(|character| "!\"'&.,?".contains(*character))
}

fn is_letter(character: Option<&char>) -> bool {
    character.is_some_and(|character| is_alphabetic(*character) || *character == '_')
}

impl Wrapper {
    fn wrap(&self, line: &str) -> Vec<String> {
        let characters: Vec<char> = line.chars().collect();
        let mut chunks: Vec<Vec<char>> = self.chunks(&characters);
        chunks.reverse();
        let mut lines: Vec<String> = Vec::new();
        while !chunks.is_empty() {
            let is_white = |chunk: &Vec<char>| chunk.iter().all(|character| character.is_whitespace());
            if !lines.is_empty() && chunks.last().is_some_and(is_white) {
                chunks.pop();
            }
            let mut current: Vec<Vec<char>> = Vec::new();
            let mut length = 0;
            while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= self.width) {
                length += chunk.len();
                current.push(chunk);
            }
            if chunks.last().is_some_and(|chunk| chunk.len() > self.width) {
                self.break_word(&mut chunks, &mut current, length);
            }
            current.pop_if(|chunk| is_white(chunk));
            if !current.is_empty() {
                lines.push(current.into_iter().flatten().collect());
            }
        }
        lines
    }

    fn break_word(&self, chunks: &mut Vec<Vec<char>>, current: &mut Vec<Vec<char>>, length: usize) {
        let room = self.width - length;
        if self.break_long_words {
            let Some(chunk) = chunks.last_mut() else { return };
            let mut end = room;
            if self.break_on_hyphens && chunk.len() > room {
                let hyphen = chunk[..room].iter().rposition(|character| *character == '-').unwrap_or(0);
                if chunk[..hyphen].iter().any(|character| *character != '-') {
                    end = hyphen + 1;
                }
            }
            let rest = chunk.split_off(end.min(chunk.len()));
            current.push(std::mem::replace(chunk, rest));
        } else if current.is_empty() {
            current.extend(chunks.pop());
        }
    }

    /// White space, words, and parts of words between which a line may end.
    fn chunks(&self, characters: &[char]) -> Vec<Vec<char>> {
        let mut chunks = Vec::new();
        let mut start = 0;
        while start < characters.len() {
            let end = self.end_of_chunk(characters, start);
            chunks.push(characters[start..end].to_vec());
            start = end;
        }
        chunks
    }

    fn end_of_chunk(&self, characters: &[char], start: usize) -> usize {
        let run = |from: usize, of: &dyn Fn(char) -> bool| {
            characters[from..]
                .iter()
                .position(|character| !of(*character))
                .map_or(characters.len(), |end| from + end)
        };
        if is_blank(characters[start]) {
            return run(start, &is_blank);
        }
        if !self.break_on_hyphens {
            return run(start, &|character| !is_blank(character));
        }
        let before = |at: usize, back: usize| at.checked_sub(back).and_then(|at| characters.get(at));
        let is_dash = |at: usize| {
            let end = run(at, &|character| character == '-');
            end - at >= 2 && is_word(characters.get(end)) && is_word_or_punctuation(before(at, 1))
        };
        if is_dash(start) {
            return run(start, &|character| character == '-');
        }
        for at in start + 1..=characters.len() {
            let Some(character) = characters.get(at) else { return at };
            if *character == '-' {
                let after_word = is_letter(before(at, 1)) && is_letter(before(at, 2))
                    || is_word_or_punctuation(before(at, 1))
                        && before(at, 2) == Some(&'-')
                        && is_letter(before(at, 3));
                let next = at + 1;
                let after_next = if characters.get(next + 1) == Some(&'-') { next + 2 } else { next + 1 };
                let before_word = is_letter(characters.get(next))
                    && (is_letter(characters.get(next + 1)) || is_letter(characters.get(after_next)));
                if after_word && before_word {
                    return next;
                }
            }
            if is_blank(*character) || is_dash(at) {
                return at;
            }
        }
        characters.len()
    }
}
