//! `egret exec`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Options, parse_text};
use crate::config::values::Name;
use crate::control::program::environment::Variable;
use crate::control::program::{Command, StopSignal};
use crate::control::supervise::{Entrypoint, Wait};

/// `egret exec --config FILE -- PROGRAM ARGUMENTS`, or with `--listen` and `--to` in place of the file.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Exec {
    /// The configuration file
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    pub config: Option<PathBuf>,
    /// Everything besides the file.
    #[command(flatten)]
    pub options: Options,
    /// Start the program only after egret has reached these upstreams itself [default: all]
    #[arg(long, value_name = "NAME,...", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    wait_upstreams: Option<Vec<String>>,
    /// Exit with 124 if an upstream is not reached within this time
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "wait_upstreams",
          value_parser = parse_text::<Duration>)]
    wait_timeout: Duration,
    /// Variable of the program; `{listener.NAME}` in it is an address that egret listens on (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<Variable>,
    /// Signal that the program gets in place of SIGTERM
    #[arg(long, value_name = "SIGNAL", default_value = "TERM")]
    stop_signal: StopSignal,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

const EXIT_CODES: &str = "Exit code: that of the program, 128+N if signal N ended it; 124 if an upstream was not reached \
    in time, 125 if egret failed, 126 if the program cannot be executed, 127 if it is not found.";

impl Exec {
    /// The program and what it waits for.
    pub fn entrypoint(&self) -> Entrypoint {
        let (program, arguments) = self.program.split_first().expect("clap requires a program");
        let names = |names: &Vec<String>| names.iter().map(|name| Name::new(name.as_str())).collect();
        Entrypoint {
            command: Command {
                program: program.clone(),
                arguments: arguments.to_vec(),
                variables: self.env.clone(),
                stop_signal: self.stop_signal,
            },
            wait: self
                .wait_upstreams
                .as_ref()
                .map(|upstreams| Wait { upstreams: names(upstreams), limit: self.wait_timeout }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    fn exec(line: &str) -> Option<super::Entrypoint> {
        match Cli::try_parse_from(line.split(' ')).ok()?.command {
            Command::Exec(exec) => Some(exec.entrypoint()),
            _ => None,
        }
    }

    #[test]
    fn exec_takes_a_configuration_and_a_program() {
        let waits = |line| exec(line).expect(line).wait.map(|wait| (wait.upstreams.len(), wait.limit.as_secs()));
        assert_eq!(waits("egret exec --config x.toml -- app -c --config y"), None);
        assert_eq!(waits("egret exec --config x.toml --wait-upstreams -- app"), Some((0, 60)));
        assert_eq!(waits("egret exec --config x.toml --wait-upstreams=a,b --wait-timeout 5s -- app"), Some((2, 5)));
        let one =
            exec("egret exec --listen 127.0.0.1:0 --to a.example.com:443 --env A={listener} -- app x").expect("one");
        assert_eq!((one.command.program.to_str(), one.command.arguments.len()), (Some("app"), 1));
        for wrong in [
            "egret exec --config x.toml",
            "egret exec --config x.toml --",
            "egret exec app",
            "egret exec --config x.toml --listen 127.0.0.1:0 --to a.example.com:443 -- app",
            "egret exec --config x.toml --wait-timeout 5s -- app",
            "egret exec --config x.toml --wait-upstreams --wait-timeout 5 -- app",
            "egret exec --config x.toml --env A={ -- app",
            "egret exec --config x.toml --stop-signal CHLD -- app",
        ] {
            assert!(exec(wrong).is_none(), "{wrong}");
        }
    }
}
