//! Jinja's lexer as a pass over the source: the result means the same to the template engine's parser, whose rules for
//! white space, literals and raw blocks differ.
//!
//! White space is trimmed, raw blocks and comments are resolved, and tags stand between delimiters that no text has.
//! Lines keep their numbers.

mod literal;
mod tag;

use super::strings::trim::is_space;
pub(super) use literal::quoted;
use tag::Tag;

/// The delimiters of the result: characters that Unicode reserves for such uses.
pub(super) const BLOCK: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];
pub(super) const VARIABLE: [char; 2] = ['\u{fdd2}', '\u{fdd3}'];
pub(super) const COMMENT: [char; 2] = ['\u{fdd4}', '\u{fdd5}'];

/// What the names of our own functions and variables begin with.
pub(super) const RESERVED: &str = "codit__";

/// The source for the engine's parser.
///
/// # Errors
/// One line that names the line of what Jinja's lexer refuses, or of what is not supported.
pub(super) fn normalize(source: &str) -> Result<String, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    if let Some(reserved) = source.chars().find(|character| ('\u{fdd0}'..='\u{fdd5}').contains(character)) {
        return Err(format!("the character U+{:04X} is not supported", u32::from(reserved)));
    }
    let mut lexer = Lexer { source, at: 0, line_starts: true, out: String::new(), lines_behind: 0 };
    while lexer.next_tag()? {}
    Ok(lexer.out)
}

struct Lexer<'source> {
    source: &'source str,
    at: usize,
    /// Whether the last tag ended with a line's end, which it took.
    line_starts: bool,
    out: String,
    /// The lines of the source that the result lacks so far.
    lines_behind: usize,
}

/// The sign behind an opening delimiter.
fn sign(text: &str) -> Option<char> {
    text.chars().next().filter(|sign| ['-', '+'].contains(sign))
}

impl<'source> Lexer<'source> {
    /// Copies text up to a tag, and the tag; false at the end.
    fn next_tag(&mut self) -> Result<bool, String> {
        let rest = &self.source[self.at..];
        let opens = |pair: &[u8]| pair[0] == b'{' && b"{%#".contains(&pair[1]);
        let Some(start) = rest.as_bytes().windows(2).position(opens) else {
            self.data(rest);
            return Ok(false);
        };
        let open = &rest[start..start + 2];
        let sign = sign(&rest[start + 2..]);
        let text = self.stripped(&rest[..start], sign, open != "{{");
        self.data(text);
        self.skipped(&rest[text.len()..start]);
        self.at += start;
        let inside = start + 2 + usize::from(sign.is_some());
        match open {
            "{#" => self.comment(inside - start)?,
            "{%" if raw_begin(&rest[inside..]).is_some() => self.raw(inside - start)?,
            _ => self.tag(inside - start, open == "{%")?,
        }
        Ok(true)
    }

    /// The text in front of a tag without the white space that the tag takes.
    fn stripped(&self, text: &'source str, sign: Option<char>, is_block: bool) -> &'source str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if is_block => {
                let line = text.rfind('\n').map_or(0, |end| end + 1);
                let begins_line = line > 0 || self.line_starts;
                if begins_line && text[line..].chars().all(is_space) { &text[..line] } else { text }
            }
            _ => text,
        }
    }

    fn data(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn skipped(&mut self, text: &str) {
        self.lines_behind += text.matches('\n').count();
    }

    /// Skips to `end`, a place behind a tag, and the white space that the tag takes.
    fn finish(&mut self, end: usize, sign: Option<char>, trims: bool) {
        let rest = &self.source[end..];
        let taken = match sign {
            Some('-') => rest.len() - rest.trim_start_matches(is_space).len(),
            None if trims && rest.starts_with('\n') => 1,
            _ => 0,
        };
        self.skipped(&rest[..taken]);
        self.at = end + taken;
        self.line_starts = taken > 0 && rest[..taken].ends_with('\n');
    }

    fn error(&self, at: usize, message: &str) -> String {
        format!("line {}: {message}", self.source[..at].matches('\n').count() + 1)
    }

    fn comment(&mut self, inside: usize) -> Result<(), String> {
        let start = self.at + inside;
        let length =
            self.source[start..].find("#}").ok_or_else(|| self.error(self.at, "a comment has no end"))?;
        let comment = &self.source[start..start + length];
        self.skipped(comment);
        let sign = comment.chars().next_back().filter(|sign| ['-', '+'].contains(sign));
        self.finish(start + length + 2, sign, true);
        Ok(())
    }

    fn raw(&mut self, inside: usize) -> Result<(), String> {
        let begin = self.at + inside;
        let Some((length, sign)) = raw_begin(&self.source[begin..]) else { return Ok(()) };
        self.skipped(&self.source[begin..begin + length]);
        self.finish(begin + length, sign, false);
        let text = &self.source[self.at..];
        let mut from = 0;
        while let Some(open) = text[from..].find("{%") {
            let open = from + open;
            let open_sign = self::sign(&text[open + 2..]);
            let inside = open + 2 + usize::from(open_sign.is_some());
            if let Some((length, sign)) = raw_end(&text[inside..]) {
                let kept = self.stripped(&text[..open], open_sign, true);
                self.data(kept);
                self.skipped(&text[kept.len()..inside + length]);
                self.finish(self.at + inside + length, sign, true);
                return Ok(());
            }
            from = open + 2;
        }
        Err(self.error(self.at, "a raw block has no end"))
    }

    fn tag(&mut self, inside: usize, is_block: bool) -> Result<(), String> {
        let start = self.at + inside;
        let tag = Tag::read(&self.source[start..], is_block)
            .map_err(|(offset, message)| self.error(start + offset, &message))?;
        let [open, close] = if is_block { BLOCK } else { VARIABLE };
        self.out.push(open);
        self.out.extend(std::iter::repeat_n('\n', std::mem::take(&mut self.lines_behind)));
        self.out.push(' ');
        tag.write(&mut self.out);
        self.out.push(' ');
        self.out.push(close);
        self.finish(start + tag.length(), tag.sign(), is_block);
        Ok(())
    }
}

/// The length of `raw %}` and its sign.
fn raw_begin(text: &str) -> Option<(usize, Option<char>)> {
    tag_of(text, "raw").filter(|(_, sign)| *sign != Some('+'))
}

fn raw_end(text: &str) -> Option<(usize, Option<char>)> {
    tag_of(text, "endraw")
}

fn tag_of(text: &str, name: &str) -> Option<(usize, Option<char>)> {
    let rest = text.trim_start_matches(is_space).strip_prefix(name)?.trim_start_matches(is_space);
    let sign = sign(rest);
    let rest = rest[usize::from(sign.is_some())..].strip_prefix("%}")?;
    Some((text.len() - rest.len(), sign))
}
