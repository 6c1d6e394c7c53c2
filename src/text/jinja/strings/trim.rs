//! `str.strip`.

/// `str.isspace` of a character: Unicode's white space and four separators of ASCII.
pub(in crate::text) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// The text without white space, or the characters of `chars`, at its start or its end.
pub(in crate::text::jinja) fn strip<'text>(
    text: &'text str,
    chars: Option<&str>,
    start: bool,
    end: bool,
) -> &'text str {
    let stripped =
        |character: char| chars.map_or_else(|| is_space(character), |chars| chars.contains(character));
    let text = if start { text.trim_start_matches(stripped) } else { text };
    if end { text.trim_end_matches(stripped) } else { text }
}
