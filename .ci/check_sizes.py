#!/usr/bin/env python3
"""Fails where a file or a function is longer than the project allows.

    python3 .ci/check_sizes.py [FOLDER]         checks the checkout that FOLDER holds, by default this one
    python3 .ci/check_sizes.py --self-test

A function's length is counted from the line of its `fn` to the line of its closing brace. A function may be longer if a
comment `// Long because ...` gives the reason, above it (beside its documentation and attributes) or on the first line of
its body.
"""

import sys
from pathlib import Path

from rust_tokens import closing, tokens

# The most lines of a file.
SOURCE_LINES = 449
DOCUMENT_LINES = {"README.md": 179, "ARCHITECTURE.md": 150}
FUNCTION_LINES = 80
REASON = "// Long because"


def functions(source):
    """(name, first line, line of the opening brace, last line) of every function that has a body."""
    found = tokens(source)
    for index, token in enumerate(found):
        # `fn(` is a type. A macro may write `fn $name`.
        if (token.kind, token.text) != ("name", "fn") or found[index + 1].text == "(":
            continue
        name = next(t.text for t in found[index + 1 :] if t.kind == "name")
        end = index
        while end < len(found) and found[end].text not in ("{", ";", "}"):
            end = closing(found, end) + 1 if found[end].text in ("(", "[") else end + 1
        if end < len(found) and found[end].text == "{":
            yield name, token.line, found[end].line, found[closing(found, end)].line


def has_reason(lines, first, brace):
    """Whether a reason stands above line `first` of a function or below the line of its opening brace."""
    if brace < len(lines) and lines[brace].strip().startswith(REASON):
        return True
    in_attribute = False
    for line in reversed(lines[: first - 1]):
        text = line.strip()
        if text.startswith(REASON):
            return True
        # An attribute may take several lines, and only its first begins with `#[`.
        in_attribute = (in_attribute or text.endswith("]")) and not text.startswith("#[")
        if not in_attribute and not text.startswith(("//", "#[")):
            return False
    return False


def long_functions(source):
    """(name, first line, length) of the functions that are too long and give no reason."""
    lines = source.splitlines()
    for name, first, brace, last in functions(source):
        length = last - first + 1
        if length > FUNCTION_LINES and not has_reason(lines, first, brace):
            yield name, first, length


def offences(root):
    """A line of text for everything that is too long under the folder `root`."""
    for path in sorted((root / "src").rglob("*.rs")):
        name, source = path.relative_to(root), path.read_text()
        length = len(source.splitlines())
        if length > SOURCE_LINES:
            yield f"{name}:1: the file has {length} lines; the most is {SOURCE_LINES}"
        for function, line, length in long_functions(source):
            most = f"the most is {FUNCTION_LINES}, unless a comment `{REASON} ...` gives a reason"
            yield f"{name}:{line}: the function {function} has {length} lines; {most}"
    for name, most in DOCUMENT_LINES.items():
        if (root / name).exists():
            length = len((root / name).read_text().splitlines())
            if length > most:
                yield f"{name}:1: the file has {length} lines; the most is {most}"


def self_test():
    """Checks this script on small sources."""
    source = r'''
/* fn in_a_comment() { /* nested */ { */
type Pointer = fn(u32) -> u32;
trait T { fn declared(&self) -> [u8; { 2 }]; }
/// Says `fn`.
#[inline]
pub const fn tricky<'a>(x: &'a str) -> char {
    let _ = (r#"fn x() { " { "#, "\"{", b'{', '\'', '{'); // {
    macro_rules! inner { ($n:ident) => { fn $n() {} } }
    '}'
}
fn last() -> impl Fn() { || {} }
'''
    assert [f[:2] + f[3:] for f in functions(source)] == [("tricky", 7, 11), ("n", 9, 9), ("last", 12, 12)]

    def found(before, inside):
        return [f[2] for f in long_functions(f"fn a() {{}}\n{before}fn long() {{\n{inside}" + "    f();\n" * 90 + "}\n")]

    assert found("", "") == [92]
    assert found("/// Does it.\n", "    // Not the reason.\n") == [93]
    assert found("// Long because it is one table.\n/// Does it.\n#[allow(\n    x,\n)]\n", "") == []
    assert found("// Long because it is one table.\n}\n", "") == [92]
    assert found("", "    // Long because it is one table.\n") == []
    print("check_sizes: the self-test passed")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    found = list(offences(root))
    print("\n".join(found) or "check_sizes: no file and no function is too long")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
