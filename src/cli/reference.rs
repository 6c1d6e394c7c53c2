//! `docs/reference/cli.md`, made from the commands as clap knows them, and what other pages must say about flags.
//!
//! The tests fail if a page differs. `CODIT_UPDATE_DOCS=1 cargo test --bin codit reference` writes the generated page.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command};

use super::program;

const PAGE: &str = "docs/reference/cli.md";

const INTRODUCTION: &str = "\
# Command line

Generated from the program; a test keeps it up to date. `codit COMMAND --help` prints the same text. The guides explain
the flags in context: [the method](../guide/method.md), [models](../guide/models.md),
[input and output](../guide/input-and-output.md), [GPU](../guide/gpu.md), [number formats](../guide/number-formats.md).
Exit codes are on the page about [input and output](../guide/input-and-output.md#exit-codes).
";

/// Options of a command without a heading of their own.
const OPTIONS: &str = "Options";

#[test]
fn the_page_is_what_the_program_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let expected = reference(&program());
    if std::env::var_os("CODIT_UPDATE_DOCS").is_some() {
        std::fs::write(&page, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    let remedy = "run CODIT_UPDATE_DOCS=1 cargo test --bin codit reference";
    assert!(found == expected, "{PAGE} is not what the program says; {remedy}");
}

/// A new flag changes responses, so it belongs to the manifest's settings, or it does not: the page says which.
#[test]
fn every_flag_of_synth_is_on_the_page_about_manifests() {
    let page = read("docs/reference/manifest.md");
    for flag in synth().get_arguments().filter_map(Arg::get_long).filter(|flag| *flag != "help") {
        let is_named = page.contains(&format!("`--{flag}`"));
        assert!(
            is_named,
            "docs/reference/manifest.md does not name --{flag}; say whether it changes responses"
        );
    }
}

/// Help and the generated page are made of documentation comments.
#[test]
fn every_flag_has_a_help_text() {
    let mut program = program();
    program.build();
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        for argument in command.get_arguments() {
            let (command, flag) = (command.get_name(), argument.get_id());
            assert!(argument.get_help().is_some(), "{flag} of codit {command} has no documentation comment");
        }
    }
}

#[test]
fn every_shortcut_is_explained() {
    let page = read("docs/internals/shortcuts.md");
    let synth = synth();
    let shortcuts = synth.get_arguments().find(|argument| argument.get_long() == Some("shortcuts")).unwrap();
    for value in shortcuts.get_possible_values() {
        let name = value.get_name();
        assert!(page.contains(&format!("`{name}`")), "docs/internals/shortcuts.md does not name {name}");
    }
}

fn read(page: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()
}

fn synth() -> Command {
    let mut program = program();
    program.build();
    program.find_subcommand("synth").unwrap().clone()
}

/// The whole page.
fn reference(program: &Command) -> String {
    let mut program = program.clone();
    program.build();
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n| command | what it does |\n| --- | --- |\n");
    let commands: Vec<&Command> = program.get_subcommands().filter(|c| c.get_name() != "help").collect();
    for command in &commands {
        let (name, about) = (command.get_name(), about(command));
        writeln!(page, "| [`codit {name}`](#codit-{name}) | {about} |").unwrap();
    }
    for command in commands {
        describe(command, &mut page);
    }
    page
}

/// One command: what it does, how it is called, and a table for each heading of its help.
fn describe(command: &Command, page: &mut String) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    writeln!(page, "\n## codit {}\n\n{}.\n\n`{usage}`", command.get_name(), about(command)).unwrap();
    let is_shown = |argument: &&Arg| argument.get_id() != "help" && !argument.is_hide_set();
    let arguments = || command.get_arguments().filter(is_shown);
    let mut headings: Vec<&str> = Vec::new();
    for argument in arguments() {
        let heading = argument.get_help_heading().unwrap_or(OPTIONS);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        writeln!(page, "\n**{heading}**\n\n| flag | default | meaning |\n| --- | --- | --- |").unwrap();
        for argument in arguments().filter(|a| a.get_help_heading().unwrap_or(OPTIONS) == heading) {
            page.push_str(&row(argument));
        }
    }
}

/// One line of a table.
fn row(argument: &Arg) -> String {
    let takes_value = argument.get_action().takes_values();
    let value = argument.get_value_names().unwrap_or_default().join(" ");
    let name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        _ => String::new(),
    };
    let name = if takes_value { format!("{name} {value}") } else { name };
    let defaults = argument.get_default_values().iter().filter(|_| takes_value);
    let defaults: Vec<_> = defaults.map(|default| format!("`{}`", default.to_string_lossy())).collect();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let (meaning, default) = match help.split_once(" [default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, defaults.join(" ")),
    };
    let choices = if takes_value && !argument.is_hide_possible_values_set() {
        choices(argument)
    } else {
        String::new()
    };
    format!("| `{}` | {} | {} |\n", name.trim(), escaped(&default), escaped(&(meaning + &choices)))
}

/// What a value may be, where it is one of a few.
fn choices(argument: &Arg) -> String {
    let values = argument.get_possible_values();
    let described = values.iter().map(|value| match value.get_help() {
        Some(help) => format!("`{}`: {help}", value.get_name()),
        None => format!("`{}`", value.get_name()),
    });
    let described: Vec<_> = described.collect();
    if described.is_empty() { String::new() } else { format!(". Values: {}", described.join("; ")) }
}

fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    escaped(about.trim_end_matches('.'))
}

/// As it stands in a cell of a table.
fn escaped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "\\<")
}
