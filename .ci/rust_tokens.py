"""Splits Rust source into tokens, for the checks beside this file. Not a program of its own."""

import re
from typing import NamedTuple

# The order matters: a raw string begins like an identifier, a character like a lifetime.
TOKEN = re.compile(
    r"""
    (?P<comment> //[^\n]* )
  | (?P<block_comment> /\* )
  | (?P<raw_string> (?:br|cr|r)(?P<hashes>\#*)".*?"(?P=hashes) )
  | (?P<string> [bc]?"(?:\\.|[^"\\])*" )
  | (?P<char> b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^\\'\n])' )
  | (?P<lifetime> '[A-Za-z_]\w* )
  | (?P<name> (?:r\#)?[A-Za-z_]\w* )
  | (?P<number> \d\w* )
  | (?P<mark> :: | \S )
  | (?P<space> \s+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A token: its kind (a group of TOKEN), its text without `r#`, and its line, counted from 1."""

    kind: str
    text: str
    line: int


def tokens(source):
    """The tokens of `source` without comments and white space."""
    found, position, line = [], 0, 1
    while position < len(source):
        match = TOKEN.match(source, position)
        kind, end = match.lastgroup, match.end()
        if match["raw_string"]:
            kind = "string"
        elif kind == "block_comment":
            end = end_of_block_comment(source, position)
        if kind not in ("comment", "block_comment", "space"):
            found.append(Token(kind, match[0].removeprefix("r#"), line))
        line += source.count("\n", position, end)
        position = end
    return found


def end_of_block_comment(source, start):
    """The position after the comment that begins at `start`; block comments nest."""
    depth = 0
    for match in re.finditer(r"/\*|\*/", source[start:]):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return start + match.end()
    return len(source)


def closing(found, opening):
    """The index of the bracket that closes the one at index `opening`; of the last token if none does."""
    depth = 0
    for index in range(opening, len(found)):
        if found[index].kind == "mark":
            depth += (found[index].text in "([{") - (found[index].text in ")]}")
            if depth == 0:
                return index
    return len(found) - 1
