//! `egret completions SHELL` and `egret man FOLDER`: made from the declaration of the arguments.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// `egret completions SHELL`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell whose completion script is printed
    #[arg(value_enum)]
    shell: Shell,
}

/// `egret man FOLDER`.
#[derive(Debug, Args)]
pub struct ManualPages {
    /// The folder that the pages are written to, one for each command; it is created if it is missing
    folder: PathBuf,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// Those of writing.
    pub fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "egret", &mut script);
        out.write_all(&script)
    }
}

impl ManualPages {
    /// Writes the pages.
    ///
    /// # Errors
    /// Those of writing.
    pub fn run(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut egret = Cli::command();
        egret.build();
        write_pages(&egret, &self.folder)
    }
}

fn write_pages(command: &clap::Command, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    fs::write(folder.join(format!("{name}.1")), page)?;
    command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help")
        .try_for_each(|inner| write_pages(inner, folder))
}
