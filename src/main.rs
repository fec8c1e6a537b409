//! The program: arguments in, exit code out.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use egret::cli::{self, Check, Cli, Command, Diff, Exec, Explain, Options, Trust, Verdict};
use egret::config::{self, Loaded, Problems, values};
use egret::control::hardening::{Hardening, Launched};
use egret::control::program::{self, Launcher};
use egret::control::supervise::{self, EXEC_FAILED, Ended, Entrypoint, Start};
use egret::observe::logging;
use egret::observe::writer;
use egret::pipeline::originate::key_log::KeyLogFile;
use egret::random;
#[cfg(feature = "demo")]
use egret::tools::demo;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::{Builder, Runtime};

/// Exit codes: 0 success, 1 failure at run time, 2 unusable configuration, 3 (`explain`) a cause was found; those of
/// `exec` are the program's, and 124 to 127.
fn main() -> ExitCode {
    // Dropped however this ends, by a panic too.
    let _output = Output;
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return report_usage(&error),
    };
    let result = match command {
        Command::Run(run) => load_and_serve(&Arc::new(Launch::of_run(*run)), None),
        Command::Exec(exec) => run_exec(*exec),
        Command::Health(health) => health.run(&mut io::stdout()).map_err(Into::into),
        Command::Wait(wait) => wait.run(&mut io::stdout()).map_err(Into::into),
        Command::Check(check) => run_check(&check),
        Command::Diff(diff) => run_diff(&diff),
        Command::Trust(trust) => run_trust(&trust),
        Command::Explain(explain) => run_explain(&explain),
        Command::Import(import) => import.run(&mut io::stdout(), &mut io::stderr()).map_err(Into::into),
        Command::Schema => cli::print_schema(&mut io::stdout()).map(|()| Verdict::Good.code()).map_err(Into::into),
        Command::Completions(completions) => completions.run(&mut io::stdout()).map(|()| 0).map_err(Into::into),
        Command::Man(pages) => pages.run().map(|()| 0).map_err(Into::into),
        #[cfg(feature = "demo")]
        Command::Demo => run_demo(),
    };
    result.map(ExitCode::from).unwrap_or_else(|error| {
        // Nothing is left to do if even that cannot be written.
        let _ = writeln!(io::stderr(), "egret: {error:#}");
        ExitCode::FAILURE
    })
}

/// Waits on drop until the log, the key log and the messages to the supervisor are written.
struct Output;

/// How long the process waits at its end for a slow reader of its output: systemd and container runtimes wait ten
/// seconds and more before they kill, and a reader that takes nothing for a second has stopped.
const LAST_WRITES: Duration = Duration::from_secs(1);

impl Drop for Output {
    fn drop(&mut self) {
        writer::finish_all(LAST_WRITES);
    }
}

fn report_usage(error: &clap::Error) -> ExitCode {
    let usage = error.render();
    if error.use_stderr() && cli::asks_for_json(std::env::args_os()) && log_json(None).is_ok() {
        tracing::error!(detail = %usage, "the arguments cannot be used");
    } else {
        // Nothing is left to do if even that cannot be written.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { cli::usage_code(std::env::args_os()) } else { Verdict::Good.code() })
}

fn log_json(level: Option<&str>) -> Result<logging::Handle, logging::Error> {
    logging::init(&values::Log::json(level))
}

fn run_check(check: &Check) -> anyhow::Result<u8> {
    let mut out = io::stdout();
    let mut err = io::stderr();
    Ok(check.run(&cli::environment, &supervise::check_files, &mut out, &mut err)?.code())
}

fn run_diff(diff: &Diff) -> anyhow::Result<u8> {
    Ok(diff.run(&cli::environment, &mut io::stdout(), &mut io::stderr())?)
}

fn run_trust(trust: &Trust) -> anyhow::Result<u8> {
    let runtime = Builder::new_current_thread().enable_all().build().context("no thread to run on")?;
    Ok(runtime.block_on(trust.run(&mut io::stdin().lock(), &mut io::stdout(), &mut io::stderr()))?)
}

/// What `egret run` and `egret exec` start.
struct Launch {
    file: Option<PathBuf>,
    options: Options,
    entrypoint: Option<Entrypoint>,
}

impl Launch {
    fn of_run(run: cli::Run) -> Self {
        Self { file: run.file, options: run.options, entrypoint: None }
    }

    fn load(&self) -> Result<Loaded, Problems> {
        self.options.load(self.file.as_deref(), &cli::environment)
    }

    /// A failure at run time.
    fn failed(&self) -> u8 {
        if self.entrypoint.is_some() { EXEC_FAILED } else { 1 }
    }

    fn misconfigured(&self) -> u8 {
        if self.entrypoint.is_some() { EXEC_FAILED } else { Verdict::Bad.code() }
    }

    fn code(&self, error: &supervise::Error) -> u8 {
        match self.entrypoint {
            Some(_) => error.exec_code(),
            None if error.is_of_configuration() => self.misconfigured(),
            None => self.failed(),
        }
    }
}

fn run_exec(exec: Exec) -> anyhow::Result<u8> {
    // Before the log has its thread. It can fail in a sandbox only, and matters on a terminal only.
    let _ = program::write_from_the_background();
    let entrypoint = exec.entrypoint();
    let launcher = match Launcher::start(&entrypoint.command) {
        Ok(launcher) => launcher,
        Err(error) => {
            // Nothing is left to do if even that cannot be written.
            let _ = writeln!(io::stderr(), "egret: no process for the program: {error}");
            return Ok(EXEC_FAILED);
        }
    };
    let entrypoint = Some(entrypoint);
    load_and_serve(&Arc::new(Launch { file: exec.config, options: exec.options, entrypoint }), Some(launcher))
}

/// Everything that has to come before the second thread: reading the configuration, opening the key log, giving up rights.
fn load_and_serve(launch: &Arc<Launch>, launcher: Option<Launcher>) -> anyhow::Result<u8> {
    let options = &launch.options;
    let loaded = launch.load();
    let launched = Launched { can_change: launch.file.is_some(), has_program: launcher.is_some() };
    let key_log = options.key_log.as_deref().filter(|_| loaded.is_ok()).map(KeyLogFile::open);
    let hardening =
        loaded.as_ref().map_or_else(|_| Hardening::off(), |loaded| Hardening::enter(&loaded.config, launched));
    random::begin_seeding();
    // Not written to stderr directly: a reader of stderr that has stopped must not block the start.
    let mut err = &logging::stderr()?;
    let style = cli::style_for(&io::stderr());
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            if options.log.or_else(|| config::log_format(problems.source())) == Some(values::LogFormat::Json) {
                log_json(options.log_level.as_deref())?;
                cli::log_problems(&problems);
            } else {
                cli::print_problems(&problems, &mut err, style)?;
            }
            return Ok(launch.misconfigured());
        }
    };
    let advice = config::lint(&loaded);
    let is_text = loaded.config.log.is_text();
    if is_text {
        cli::print_advice(&loaded, &advice, &mut err, style)?;
    }
    let log = logging::init(&loaded.config.log)?;
    if !is_text {
        cli::log_advice(&loaded, &advice);
    }
    hardening.log();
    let opened = Opened { log, key_log, hardening, launcher };
    Ok(serve(launch, opened, loaded.config).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        launch.failed()
    }))
}

/// What was made before the runtime.
struct Opened {
    log: logging::Handle,
    key_log: Option<io::Result<File>>,
    hardening: Hardening,
    launcher: Option<Launcher>,
}

fn start_key_log(path: &Path, opened: io::Result<File>) -> anyhow::Result<Arc<KeyLogFile>> {
    let file = opened.and_then(KeyLogFile::start).with_context(|| format!("--key-log {}", path.display()))?;
    tracing::warn!(file = %path.display(), "the secrets of every TLS session are written: anyone who can read this file can read the traffic");
    Ok(Arc::new(file))
}

fn serve(launch: &Arc<Launch>, opened: Opened, config: values::Config) -> anyhow::Result<u8> {
    let Opened { log, key_log, hardening, launcher } = opened;
    let key_log = launch.options.key_log.as_deref().zip(key_log);
    let key_log = key_log.map(|(path, opened)| start_key_log(path, opened)).transpose()?;
    let runtime = build_runtime(&config.runtime)?;
    let file = launch.file.clone();
    let rigour = launch.options.rigour();
    let entrypoint = launch.entrypoint.clone().zip(launcher);
    let written = config.source.clone();
    let of_reload = Arc::clone(launch);
    let source = Arc::new(move || of_reload.load());
    let start = Start { source, file, config, log, key_log, rigour, entrypoint, hardening };
    let ended = runtime.block_on(supervise::run(start));
    runtime.shutdown_background();
    match ended {
        Ok(Ended::Drained) => Ok(0),
        Ok(Ended::Quit) => Ok(1),
        Ok(Ended::Program(code)) => Ok(code),
        Err(error) => {
            log_failure(&error, &written);
            Ok(launch.code(&error))
        }
    }
}

/// Logs a line for each file that cannot be used. A message may quote what a variable was replaced by.
fn log_failure(error: &supervise::Error, written: &values::Written) {
    match error {
        supervise::Error::Build(errors) => {
            errors.lines().for_each(|(reason, text)| tracing::error!(reason, "{text}"));
        }
        error => tracing::error!(reason = error.reason(), "{}", written.hide_values(&error.to_string())),
    }
}

/// One worker is the thread of `main` itself: it shares its tasks with no other, so it needs no work-stealing scheduler
/// (`docs/hot-path.md` has the figures).
fn build_runtime(spec: &values::Runtime) -> anyhow::Result<Runtime> {
    if !spec.affinity.is_empty() {
        let mut processors = CpuSet::new();
        spec.affinity.iter().for_each(|processor| processors.set(*processor));
        // Threads that start later inherit the affinity.
        sched_setaffinity(None, &processors).context("runtime.affinity")?;
    }
    let mut builder = match spec.workers {
        Some(1) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if let Some(workers) = spec.workers {
        builder.worker_threads(workers);
    }
    builder.enable_all().build().context("no threads to run on")
}

fn run_explain(explain: &Explain) -> anyhow::Result<u8> {
    random::begin_seeding();
    let runtime = Builder::new_current_thread().enable_all().build().context("no thread to run on")?;
    let code = runtime.block_on(explain.run(&mut io::stdout(), &mut io::stderr()))?;
    runtime.shutdown_background();
    Ok(code)
}

#[cfg(feature = "demo")]
fn run_demo() -> anyhow::Result<u8> {
    let runtime = Runtime::new().context("no threads to run on")?;
    let ended = runtime.block_on(demo::run(&mut io::stdout()));
    runtime.shutdown_background();
    // A second Ctrl-C is not a failure: no stream had to finish.
    ended?;
    Ok(0)
}
