//! `codit completions` and `codit man`: what shells and man know of the program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use crate::cli::ui::output::Output;
use codit::error::{Error, Result};

#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script of a shell.
pub fn run(args: &Args, mut program: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "codit", &mut script);
    write!(Output, "{}", String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(clap::Args)]
pub struct ManArgs {
    /// Write the pages of the program and of its commands into this folder, instead of printing the program's
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Prints the man page, or writes all of them.
pub fn run_man(args: &ManArgs, program: Command) -> Result<ExitCode> {
    let Some(folder) = &args.folder else {
        write!(Output, "{}", String::from_utf8_lossy(&page(&program, "codit")?))?;
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "cannot make the folder"))?;
    let mut program = program;
    program.build();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let pages = commands.map(|command| (format!("codit-{}", command.get_name()), command));
    for (name, command) in pages.chain([("codit".to_owned(), &program)]) {
        let path = folder.join(format!("{name}.1"));
        if path.is_symlink() {
            return Err(Error::file(path, "a link, whose target would be overwritten; remove it"));
        }
        std::fs::write(&path, page(command, &name)?).map_err(Error::io(&path, "cannot write"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The page of a command. Examples, which begin its help, come last on a man page.
fn page(command: &Command, name: &str) -> Result<Vec<u8>> {
    let parts = [command.get_before_help(), command.get_after_help()];
    let rest: Vec<String> = parts.into_iter().flatten().map(ToString::to_string).collect();
    let command =
        command.clone().name(name.to_owned()).before_help(None::<&str>).after_help(rest.join("\n\n"));
    let mut text = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut text)
        .map_err(|error| Error::Device(format!("cannot make the man page: {error}")))?;
    Ok(text)
}
