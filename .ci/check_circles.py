#!/usr/bin/env python3
"""Fails where files of src/ depend on each other in a circle.

    python3 .ci/check_circles.py [FOLDER]       checks the checkout that FOLDER holds, by default this one
    python3 .ci/check_circles.py --edges        prints every dependency
    python3 .ci/check_circles.py --self-test

A file depends on the file that defines what it names in a `use` or in a path (`a::b`). A name that another file re-exports
counts for the file that defines it, and `pub use` counts like any use. `mod x;` and a path that ends at a module count for
nothing. Within the crate, nothing may be named by a re-export of the crate's root (`crate::Error`), which is for users of the
library.

The files of a folder in UNITS are one unit, and may depend on each other.

Not seen: methods and fields of types that a file does not name, implementations (`impl T for X` in a third file), macros
that are in scope by the order of modules, links in documentation, and files that `include!` brings. An item that no file
visibly defines counts for the module that it is named in, because a macro may define it there.
"""

import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from rust_tokens import Token, closing, tokens

ITEM_KEYWORDS = {"fn", "struct", "enum", "union", "trait", "type", "const", "static"}
# Words between `const` and the keyword of the item itself, as in `const unsafe fn f`.
QUALIFIERS = {"fn", "unsafe", "async", "extern"}
NOTHING = Token("nothing", "", 0)
# An evaluator of expressions calls itself by nature: an operator prints its operands, printing calls methods, methods compare
# values, comparing prints. Its files divide what it knows by subject, not by layer.
UNITS = ("src/text/jinja/",)


class Item(NamedTuple):
    """Where a path leads to, unless that is a module."""

    file: str


class Module:
    """A file, or a `mod name { ... }` within one."""

    def __init__(self, file, parent, directory):
        self.file, self.parent, self.directory = file, parent, directory
        self.root = parent.root if parent else self
        self.children = defaultdict(list)  # name -> modules; two where the platform decides which file it is
        self.items = set()
        self.imports = defaultdict(list)  # name -> paths
        self.globs = []  # paths
        self.paths = []  # (line, path) of everything that the module names with `::` or in a `use`
        self.words = set()  # every other identifier, for what `use x::*` brings


# Reading files


def read_file(path, parent, directory, base):
    """The module in the file `path`, and those that it declares; `directory` is where their files are."""
    module = Module(str(path.relative_to(base)), parent, directory)
    read_items(module, tokens(path.read_text()), base)
    return module


def read_items(module, found, base):
    """Adds to `module` what the tokens `found` define and name."""
    index, depth, attributes = 0, 0, []
    while index < len(found):
        kind, text, _ = found[index]
        after = found[index + 1] if index + 1 < len(found) else NOTHING
        if kind == "mark":
            if text == "#" and after.text == "[":
                attributes += found[index : closing(found, index + 1)]
            elif text in ("}", ";"):
                attributes = []
            depth += (text in "([{") - (text in ")]}")
            index += 1
        elif text == "mod" and after.kind == "name":
            index = read_module(module, found, index + 1, attributes, base)
        elif text == "use" and after.text != "<":  # `use<'a>` is part of a type
            end = next(i for i in range(index, len(found)) if found[i].text == ";")
            read_use(module, found[index + 1 : end], [])
            index = end
        elif text == "macro_rules" and after.text == "!":
            if depth == 0:
                module.items.add(found[index + 2].text)
            end = closing(found, index + 3)
            read_macro_body(module, found[index + 3 : end])
            index = end + 1
        elif kind == "name":
            if depth == 0 and text in ITEM_KEYWORDS:
                read_item(module, found, index)
            index = read_path(module, found, index)
        else:
            index += 1


def read_module(module, found, index, attributes, base):
    """Adds the module whose name is at `index`; returns where the reader goes on."""
    name = found[index].text
    if found[index + 1].text == "{":
        inner = Module(module.file, module, module.directory / name)
        end = closing(found, index + 1)
        read_items(inner, found[index + 2 : end], base)
        module.children[name].append(inner)
        return end
    texts = [token.text for token in attributes]
    # `#[path = "..."]`; within a `cfg_attr`, it depends on the platform which of the two files it is.
    named = [texts[i + 2].strip('"') for i in range(len(texts) - 2) if texts[i : i + 2] == ["path", "="]]
    files = [(base / module.file).parent / file for file in named]
    if not files or "cfg_attr" in texts:
        files += [module.directory / f"{name}.rs", module.directory / name / "mod.rs"]
    for path in files:
        if path.is_file():
            directory = path.parent if path.name == "mod.rs" else path.with_suffix("")
            module.children[name].append(read_file(path, module, directory, base))
    return index + 1


def read_item(module, found, index):
    """Adds the name of the item whose keyword is at `index`, unless that is part of a type such as `*const u8`."""
    if index and found[index - 1].text in ("*", "<", ","):
        return
    name = found[index + 1]
    if name.text == "mut":  # static mut
        name = found[index + 2]
    if name.kind == "name" and name.text not in QUALIFIERS:
        module.items.add(name.text)


def read_path(module, found, index):
    """Adds the path, or the single word, at `index`; returns the index after it."""
    end = index + 1
    while end + 1 < len(found) and found[end].text == "::" and found[end + 1].kind == "name":
        end += 2
    before = found[index - 1].text if index else ""
    if end > index + 1 and before != "::":  # `::name` is another crate's, or an associated item
        module.paths.append((found[index].line, [token.text for token in found[index:end:2]]))
    elif end == index + 1 and before not in (".", "::"):
        module.words.add((found[index].line, found[index].text))
    return end


def read_use(module, found, prefix):
    """Adds the imports of a use tree after `prefix`."""
    if found and found[0].text == "::":  # the path of another crate
        return
    path, index = list(prefix), 0
    while index < len(found):
        kind, text, line = found[index]
        if text == "{":
            for part in split_at_commas(found[index + 1 : closing(found, index)]):
                read_use(module, part, path)
            return
        if text == "*":
            module.globs.append(path)
            module.paths.append((line, path))
            return
        if text == "as":
            break
        if kind == "name":
            path.append(text)
        index += 1
    if path[-1] == "self" and len(path) > 1:
        path.pop()
    name = found[-1].text if index < len(found) else path[-1]
    module.imports[name].append(path)
    module.paths.append((found[0].line, path))


def split_at_commas(found):
    """The parts of a group of imports."""
    parts, depth = [[]], 0
    for token in found:
        depth += (token.text == "{") - (token.text == "}")
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def read_macro_body(module, found):
    """Adds the paths of a macro that begin at the crate's root; where others lead to depends on who calls it."""
    for index, token in enumerate(found):
        if token.text == "crate":
            read_path(module, found, index)


# Where names lead to


class Resolver:
    """Finds what paths mean. It errs on the side of more: a name may stand for a module, a type and a function at once."""

    def __init__(self, libraries):
        self.libraries = libraries  # name -> root module

    def resolve(self, module, path, active=frozenset()):
        """The modules and items that `path` may mean in `module`; none for what another crate defines."""
        first, *rest = path
        if first == "crate":
            found = [module.root]
        elif first == "self":
            found = [module]
        elif first == "super":
            found = [module.parent] if module.parent else []
        else:
            found = self.lookup(module, first, active)
            if found is None:
                found = [self.libraries[first]] if first in self.libraries else []
        for name in rest:
            reached = []
            for target in found:
                if isinstance(target, Item):  # a variant, or what an implementation defines
                    reached.append(target)
                elif name == "super":
                    reached += [target.parent] if target.parent else []
                else:
                    known = self.lookup(target, name, active)
                    reached += [Item(target.file)] if known is None else known
            found = reached
        return found

    def lookup(self, module, name, active=frozenset()):
        """What `name` means in `module`: modules and items, none if that is another crate's; None if it is unknown."""
        if (module, name) in active:
            return None
        active = active | {(module, name)}
        found = list(module.children.get(name, []))
        if name in module.items:
            found.append(Item(module.file))
        is_known = bool(found)
        for path in module.imports.get(name, []):
            is_known = True
            found += self.resolve(module, path, active)
        for path in [] if is_known else module.globs:
            for target in self.resolve(module, path, active):
                if isinstance(target, Module) and target is not module:
                    known = self.lookup(target, name, active)
                    is_known = is_known or known is not None
                    found += known or []
        return found if is_known else None


def all_modules(module):
    """`module` and all within it."""
    yield module
    for children in module.children.values():
        for child in children:
            yield from all_modules(child)


def crates(base):
    """The name of a package's library, and the roots of its crates."""
    manifest = (base / "Cargo.toml").read_text()
    name = re.search(r'^name = "([^"]+)"', manifest, re.MULTILINE)[1].replace("-", "_")
    files = [base / "src/lib.rs", base / "src/main.rs", *sorted((base / "src/bin").glob("*.rs"))]
    return name, [read_file(file, None, file.parent, base) for file in files if file.is_file()]


def is_detour(module, path):
    """Whether `path` leads out of a file to a re-export of the crate's root."""
    start, index = (module.root, 1) if path[0] == "crate" else (module, 0)
    while index < len(path) and path[index] == "super":
        start, index = start.parent or start, index + 1
    if start is not module.root or module.file == start.file or index in (0, len(path)):
        return False
    return path[index] in start.imports and path[index] not in start.children


def are_one(file, other):
    """Whether two files are the same or of the same unit."""
    return file == other or any(file.startswith(unit) and other.startswith(unit) for unit in UNITS)


def dependencies(base):
    """(edges, detours): edges[file][other] is a set of (line, name); detours are lines of text."""
    name, roots = crates(base)
    resolver = Resolver({name: root for root in roots if root.file == "src/lib.rs"})
    edges, detours = defaultdict(lambda: defaultdict(set)), []
    for module in (module for root in roots for module in all_modules(root)):
        for line, path in module.paths:
            for target in resolver.resolve(module, path):
                if isinstance(target, Item) and not are_one(module.file, target.file):
                    edges[module.file][target.file].add((line, "::".join(path)))
            if is_detour(module, path):
                text = f"{'::'.join(path)} is a re-export of {module.root.file}; name the module that defines it"
                detours.append(f"{module.file}:{line}: {text}")
        for line, word in module.words if module.globs else ():
            if word in module.items or word in module.imports or word in module.children:
                continue
            for target in resolver.lookup(module, word) or []:
                if isinstance(target, Item) and not are_one(module.file, target.file):
                    edges[module.file][target.file].add((line, word))
    return edges, detours


# Circles


def components(edges):
    """The strongly connected components of more than one file (Tarjan), each sorted."""
    order, low, stack, found = {}, {}, [], []

    def visit(file):
        order[file] = low[file] = len(order)
        stack.append(file)
        for other in edges.get(file, ()):
            if other not in order:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], order[other])
        if low[file] == order[file]:
            component = stack[stack.index(file) :]
            del stack[-len(component) :]
            if len(component) > 1:
                found.append(sorted(component))

    for file in sorted(edges):
        if file not in order:
            visit(file)
    return sorted(found)


def show(file, other, places):
    """The line of text about an edge."""
    names = sorted({name for _, name in places})
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"  {file}:{min(line for line, _ in places)} -> {other}: {shown}"


def report(base):
    """Lines of text about everything that is wrong."""
    edges, lines = dependencies(base)
    lines = sorted(set(lines))
    for number, component in enumerate(components(edges), 1):
        lines.append(f"circle {number}, {len(component)} files: {', '.join(component)}")
        for file in component:
            lines += [show(file, other, edges[file][other]) for other in component if other in edges[file]]
    return lines


def self_test():
    """Checks this script on small crates."""

    def check(**files):
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            (base / "Cargo.toml").write_text('[package]\nname = "my-crate"\n')
            for name, source in files.items():
                path = base / "src" / (name.replace("__", "/") + ".rs")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(source)
            edges, detours = dependencies(base)
            return components(edges), detours

    clean = {
        "lib": "pub mod a; mod b; mod folder; pub use a::A;",
        "main": "use my_crate::A; fn main() { my_crate::a::run(A) }",
        # What a comment or a string names is nothing; neither is what a macro names without `crate::`.
        "a": """use crate::folder::{self, inner::Deep, Item as It}; pub struct A; // crate::b::B
                fn f() -> folder::Item { It::new("crate::b::B") }""",
        "b": "use super::a; pub struct B(a::A); macro_rules! m { () => { b::c() } }",
        # The child names its sibling by the parent's re-export: no circle of parent and child.
        "folder__mod": "mod child; pub mod inner; pub use child::Item; pub use inner::Deep;",
        "folder__child": "use super::Deep; pub struct Item(Deep);",
        "folder__inner": "pub struct Deep; mod tests { use super::*; use std::fmt; }",
    }
    assert check(**clean) == ([], []), check(**clean)
    # A path within a function's body closes a circle.
    broken = clean | {"folder__inner": "pub struct Deep; fn f() { let x: Vec<crate::a::A> = vec![]; }"}
    assert check(**broken)[0] == [["src/a.rs", "src/folder/child.rs", "src/folder/inner.rs"]]
    # So does what the parent itself defines, even if a glob brings it.
    broken = clean | {"folder__child": "use super::*; pub struct Item([u8; N]);"}
    broken["folder__mod"] += "pub const N: usize = 1;"
    assert check(**broken)[0] == [["src/folder/child.rs", "src/folder/mod.rs"]]
    # The re-export of the root.
    for path in ("crate::A", "super::A"):
        text = f"src/b.rs:1: {path} is a re-export of src/lib.rs; name the module that defines it"
        assert check(**clean | {"b": f"struct B({path});"}) == ([], [text])
    # A circle by the file that only one platform has.
    platform = {
        "lib": '#[cfg_attr(unix, path = "y.rs")] mod x; pub mod z;',
        "x": "pub fn f() {}",
        "y": "pub fn f() { crate::z::g() }",
        "z": "pub fn g() { crate::x::f() }",
    }
    assert check(**platform)[0] == [["src/y.rs", "src/z.rs"]]
    print("check_circles: the self-test passed")


def main():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    base = Path(arguments[0] if arguments else Path(__file__).parent.parent).resolve()
    if "--self-test" in sys.argv:
        return self_test()
    if "--edges" in sys.argv:
        edges, _ = dependencies(base)
        print("\n".join(show(file, other, edges[file][other]) for file in sorted(edges) for other in sorted(edges[file])))
        return None
    lines = report(base)
    print("\n".join(lines) or "check_circles: no circle between files of src/")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
