//! Upper, lower and title case, as Python has them.

use super::character::{is_cased, is_lower, is_upper};

/// The text in another case.
pub(super) fn changed(text: &str, method: &str) -> String {
    match method {
        "capitalize" => capitalized(text),
        "casefold" => folded(text),
        "lower" => lower(text),
        "swapcase" => swapped(text),
        "title" => titled(text),
        _ => text.to_uppercase(),
    }
}

/// `str.lower`.
pub(in crate::text::jinja) fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// `str.capitalize`.
pub(in crate::text::jinja) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return String::new() };
    // The whole is lowered, so that a final sigma is one.
    let lowered = lower(text);
    let mut capitalized = String::with_capacity(text.len());
    push_title(first, &mut capitalized);
    let first_lowered: usize = first.to_lowercase().map(char::len_utf8).sum();
    capitalized.push_str(lowered.get(first_lowered..).unwrap_or_default());
    capitalized
}

fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            'ı' | '\u{13a0}'..='\u{13f5}' => folded.push(character),
            _ => character.to_uppercase().flat_map(char::to_lowercase).for_each(|lower| folded.push(lower)),
        }
    }
    folded
}

fn swapped(text: &str) -> String {
    let lowered = |at: usize, character: char| final_sigma(text, at, character);
    let mut swapped = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        if is_upper(character) {
            swapped.push_str(&lowered(at, character));
        } else if is_lower(character) {
            swapped.extend(character.to_uppercase());
        } else {
            swapped.push(character);
        }
    }
    swapped
}

/// `str.title`: a cased letter after anything but a cased letter has title case, the others lower case.
fn titled(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for (at, character) in text.char_indices() {
        if inside {
            titled.push_str(&final_sigma(text, at, character));
        } else {
            push_title(character, &mut titled);
        }
        inside = is_cased(character);
    }
    titled
}

/// A character's lower case, in which a sigma at the end of a word has its own form.
fn final_sigma(text: &str, at: usize, character: char) -> String {
    if character != 'Σ' {
        return character.to_lowercase().collect();
    }
    let cased_before = text[..at].chars().next_back().is_some_and(is_cased);
    let cased_after = text[at + character.len_utf8()..].chars().next().is_some_and(is_cased);
    if cased_before && !cased_after { "ς" } else { "σ" }.to_owned()
}

/// A character in title case, which differs from upper case for digraphs, ligatures and Georgian.
fn push_title(character: char, out: &mut String) {
    match character {
        'Ǆ'..='ǆ' => out.push('ǅ'),
        'Ǉ'..='ǉ' => out.push('ǈ'),
        'Ǌ'..='ǌ' => out.push('ǋ'),
        'Ǳ'..='ǳ' => out.push('ǲ'),
        '\u{10d0}'..='\u{10ff}' => out.push(character),
        'ŉ' => out.extend(character.to_uppercase()),
        '\u{1f80}'..='\u{1faf}' => {
            let code = u32::from(character);
            out.push(char::from_u32(code | 8).unwrap_or(character));
        }
        'ᾳ' | 'ᾼ' => out.push('ᾼ'),
        'ῃ' | 'ῌ' => out.push('ῌ'),
        'ῳ' | 'ῼ' => out.push('ῼ'),
        _ => {
            let mut upper = character.to_uppercase();
            out.extend(upper.next());
            // Of a letter that becomes several, the first is upper case.
            for rest in upper {
                if rest.is_alphabetic() { out.extend(rest.to_lowercase()) } else { out.push(rest) }
            }
        }
    }
}
