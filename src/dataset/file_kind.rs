//! Files that are not JSON lines, recognised by their first bytes, and how to convert each.

use std::path::Path;

/// How many bytes are looked at. The first line of a CSV file may be long.
pub(super) const LOOKED_AT: usize = 16 << 10;

/// What the file at `path`, which begins with `start`, is if it is not JSON lines: a message with the remedy.
pub(super) fn refuse(path: &Path, start: &[u8]) -> Option<String> {
    let (kind, convert) = binary(start).or_else(|| text(path, start))?;
    let remedy = match convert {
        Convert::Words(words) => words.to_owned(),
        Convert::Command(command) => {
            format!("convert it with `{command} {} > {}`", quoted(path), target(path))
        }
        Convert::Python(program) => {
            format!("convert it with `python3 -c '{program}' {} > {}`", quoted(path), target(path))
        }
    };
    Some(format!("{kind}; codit reads JSON lines, one object a line: {remedy}"))
}

/// How a file becomes JSON lines.
enum Convert {
    /// A program that takes the file's name and prints the lines.
    Command(&'static str),
    /// A program in Python that does.
    Python(&'static str),
    /// Words.
    Words(&'static str),
}

use Convert::{Command, Python, Words};

const PARQUET: &str = "import json, sys, pyarrow.parquet as p; [print(json.dumps(row, default=str)) for batch in p.ParquetFile(sys.argv[1]).iter_batches() for row in batch.to_pylist()]";
const ARROW: &str = "import json, sys, pyarrow as p; [print(json.dumps(row, default=str)) for batch in p.ipc.open_file(sys.argv[1]) for row in batch.to_pylist()]";
const ARROW_STREAM: &str = "import json, sys, pyarrow as p; [print(json.dumps(row, default=str)) for batch in p.ipc.open_stream(sys.argv[1]) for row in batch.to_pylist()]";
const EXCEL: &str =
    r#"import sys, pandas; print(pandas.read_excel(sys.argv[1]).to_json(orient="records", lines=True))"#;
const CSV: &str = r#"import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8-sig"))]"#;
const TSV: &str = r#"import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8-sig"), delimiter="\t")]"#;
const SEMICOLONS: &str = r#"import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8-sig"), delimiter=";")]"#;
const ARRAY: &str = r#"import json, sys; [print(json.dumps(row)) for row in json.load(open(sys.argv[1], encoding="utf-8-sig"))]"#;
const OBJECT: &str =
    r#"import json, sys; print(json.dumps(json.load(open(sys.argv[1], encoding="utf-8-sig"))))"#;
const PLAIN: &str = r#"import json, sys; [print(json.dumps({"instruction": line.strip()})) for line in open(sys.argv[1], encoding="utf-8-sig") if line.strip()]"#;

fn binary(start: &[u8]) -> Option<(&'static str, Convert)> {
    let magics: [(&[u8], &str, Convert); 20] = [
        (b"\x1f\x8b", "a gzip file", Command("gzip -dc")),
        (b"\x28\xb5\x2f\xfd", "a zstd file", Command("zstd -dc")),
        (b"BZh", "a bzip2 file", Command("bzip2 -dc")),
        (b"\xfd7zXZ\0", "an xz file", Command("xz -dc")),
        (b"\x04\x22\x4d\x18", "an lz4 file", Command("lz4 -dc")),
        (b"PAR1", "a Parquet file", Python(PARQUET)),
        (b"ARROW1\0\0", "an Arrow file", Python(ARROW)),
        (b"\xff\xff\xff\xff", "an Arrow stream (a saved dataset)", Python(ARROW_STREAM)),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook", Python(EXCEL)),
        (b"Obj\x01", "an Avro file", Words("write its rows as JSON lines")),
        (b"SQLite format 3\0", "an SQLite database", Words("write the rows of its table as JSON lines")),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", Words("unpack it, and give the file in it")),
        (b"Rar!", "a rar archive", Words("unpack it, and give the file in it")),
        (b"%PDF", "a PDF file", Words("write its text as JSON lines")),
        // UTF-32 begins as UTF-16 does.
        (b"\xff\xfe\0\0", "text in UTF-32", Command("iconv -f UTF-32 -t UTF-8")),
        (b"\0\0\xfe\xff", "text in UTF-32", Command("iconv -f UTF-32 -t UTF-8")),
        (b"\xff\xfe", "text in UTF-16", Command("iconv -f UTF-16 -t UTF-8")),
        (b"\xfe\xff", "text in UTF-16", Command("iconv -f UTF-16 -t UTF-8")),
        (b"\x80\x04\x95", "a Python pickle", Words("write its rows as JSON lines with json.dumps")),
        (b"version https://git-lfs", "a Git LFS pointer, not the file itself", Words("run `git lfs pull`")),
    ];
    let known = magics.into_iter().find(|(magic, _, _)| start.starts_with(magic));
    if let Some((_, kind, convert)) = known {
        return Some((kind, convert));
    }
    if start.starts_with(b"PK\x03\x04") {
        let is_office = [&b"[Content_Types].xml"[..], b"_rels/", b"xl/", b"docProps/"];
        return Some(if is_office.iter().any(|name| start[start.len().min(30)..].starts_with(name)) {
            ("an Excel workbook", Python(EXCEL))
        } else {
            ("a zip archive", Words("unpack it with unzip, and give the file in it"))
        });
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some(("a tar archive", Words("unpack it with `tar -xf`, and give the file in it")));
    }
    if let [a, b, c, d, ..] = *start {
        // Every second byte of ASCII text is NUL. A file of NULs alone is a lost tail.
        match [a, b, c, d].map(|byte| byte == 0) {
            [false, true, false, true] => {
                return Some(("text in UTF-16 without a mark", Command("iconv -f UTF-16LE -t UTF-8")));
            }
            [true, false, true, false] => {
                return Some(("text in UTF-16 without a mark", Command("iconv -f UTF-16BE -t UTF-8")));
            }
            _ => {}
        }
    }
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 14..=31);
    // The last character may be cut.
    let is_utf8 = str::from_utf8(start).map_or_else(|error| error.error_len().is_none(), |_| true);
    let is_text = is_utf8 || start.trim_ascii_start().starts_with(b"{");
    (!is_text && start.iter().any(is_control)).then_some(("a binary file", Words("give a text file")))
}

/// Recognises text that is no JSON lines by its first lines.
fn text(path: &Path, start: &[u8]) -> Option<(&'static str, Convert)> {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (first, second) = (lines.next()?, lines.next());
    if let Some(rest) = text.strip_prefix('[') {
        let blank = &rest[..rest.len() - rest.trim_start().len()];
        let is_array = rest.trim_start().starts_with(['{', ']']) || blank.contains('\n');
        let has_array_a_line = second.is_some_and(|second| second.starts_with('['));
        return (is_array && !has_array_a_line).then_some(("a JSON array", Python(ARRAY)));
    }
    if first.starts_with('{') {
        // An object that goes on in a line that no object begins.
        let is_open =
            matches!(serde_json::from_str::<serde::de::IgnoredAny>(first), Err(error) if error.is_eof());
        let goes_on = second.is_some_and(|second| second.starts_with(['"', '}']));
        return (is_open && goes_on).then_some(("one JSON object over several lines", Python(OBJECT)));
    }
    let lower = first.to_ascii_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        return Some(("an HTML page", Words("a download that went wrong? Fetch the file itself")));
    }
    match extension.to_ascii_lowercase().as_str() {
        "csv" if first.contains(';') && !first.contains(',') => {
            return Some(("a CSV file", Python(SEMICOLONS)));
        }
        "csv" => return Some(("a CSV file", Python(CSV))),
        "tsv" | "tab" => return Some(("a TSV file", Python(TSV))),
        "txt" | "text" | "md" => return Some(("a plain text", Python(PLAIN))),
        _ => {}
    }
    let separated = [(',', "a CSV file", CSV), ('\t', "a TSV file", TSV), (';', "a CSV file", SEMICOLONS)];
    let found = separated.into_iter().find(|(separator, _, _)| is_header(first, *separator));
    found.map(|(_, kind, program)| (kind, Python(program)))
}

/// Whether the line names two or more columns, or one that rows have.
fn is_header(line: &str, separator: char) -> bool {
    let names: Vec<&str> = line.split(separator).map(|name| name.trim().trim_matches('"')).collect();
    let is_letter = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | ' ' | '.');
    let is_name = |name: &&str| name.len() <= 40 && name.chars().all(is_letter);
    let columns =
        ["instruction", "prompt", "messages", "conversations", "id", "text", "question", "input", "output"];
    names.iter().all(is_name) && names.iter().any(|name| columns.contains(&&*name.to_ascii_lowercase()))
}

/// The path for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&byte);
    if path.bytes().all(is_plain) && !path.starts_with('-') {
        return path;
    }
    let path = if path.starts_with('-') { format!("./{path}") } else { path };
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// A name for the converted file, which is not the file's own.
fn target(path: &Path) -> String {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_jsonl = |path: &Path| path.extension().is_some_and(|extension| extension == "jsonl");
    let base = match extension.to_ascii_lowercase().as_str() {
        "" | "jsonl" | "ndjson" => path.to_owned(),
        _ if extension.len() <= 8 => path.with_extension(""),
        _ => path.to_owned(),
    };
    let name = if is_jsonl(path) {
        base.with_extension("converted.jsonl")
    } else if is_jsonl(&base) {
        base
    } else {
        let mut name = base.into_os_string();
        name.push(".jsonl");
        name.into()
    };
    quoted(&name)
}
