//! One call of the program: arguments to command, command to outcome, outcome to report and exit
//! code. Everything that it is given of the outer world is in [`World`].

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::catalog::resolve::When;
use crate::cli::{self, Cli, Command};
use crate::commands::prune::Action;
use crate::commands::undo::Mode;
use crate::commands::{self, Found};
use crate::config::env_file;
use crate::config::mistake::ConfigError;
use crate::config::model::Config;
use crate::config::read::{self, HostFacts};
use crate::error::Error;
use crate::exit;
use crate::host::cancel::Reason;
use crate::host::{Cancel, Clock, Context, Env, files};
use crate::names::RunId;
use crate::observe::Event;
use crate::outcome::{CheckItem, Items, Outcome, Problem, Severity};
use crate::report::{ReportOptions, Reporter, Stream, Usage, usage};
use crate::source::{Destination, StageOptions};

/// What the outer world gives: tests give their own.
pub struct World {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The environment.
    pub env: Env,
    /// Cancelled by signals.
    pub cancel: Cancel,
    /// For results.
    pub stdout: Stream,
    /// For everything else.
    pub stderr: Stream,
}

/// Runs the program; `args` begin with its own name. Gives the exit code.
pub fn run(args: &[OsString], world: World) -> u8 {
    let World { clock, mut env, cancel, stdout, stderr } = world;
    let started = clock.now();
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(answer) => {
            let call =
                Usage { command: cli::command_in(args), json: cli::asks_for_json(args), now: started, refused: exit::USAGE };
            return usage(&answer, &call, &stdout, &stderr);
        }
    };
    let mut reporter = Reporter::new(report_options(&cli, stdout, stderr, clock.clone()), &env);
    let _log = reporter.scope();
    let loaded = match &cli.global.env_file {
        Some(path) => env_file::load(path, &mut env),
        None => Ok(()),
    };
    let cx = Context { cancel, env: Arc::new(env), clock, observer: reporter.observer() };
    let found = match loaded {
        Ok(()) => execute(&cli, &mut reporter, RunId::starting(started), &cx),
        Err(error) => mistakes(&cli.command, error),
    };
    let signal = match cx.cancel.reason() {
        Some(Reason::Signal(signal)) => Some(signal),
        _ => None,
    };
    let outcome = Outcome {
        command: cli.command.name(),
        started,
        finished: cx.clock.now(),
        signal,
        items: found.items,
        problems: found.problems,
    };
    let verdict = exit::verdict(&outcome);
    match reporter.finish(&outcome, verdict) {
        Ok(()) => verdict.code,
        Err(_) => exit::unwritten(verdict.code),
    }
}

fn report_options(cli: &Cli, stdout: Stream, stderr: Stream, clock: Arc<dyn Clock>) -> ReportOptions {
    ReportOptions {
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
        json: cli.global.json,
        json_log: cli.global.log_format == cli::LogFormat::Json,
        dry_run: cli.command.is_dry_run(),
        stdout,
        stderr,
        clock,
    }
}

fn execute(cli: &Cli, reporter: &mut Reporter, run: RunId, cx: &Context) -> Found {
    if let Command::Generate(options) = &cli.command {
        let options = commands::generate::Options { output: options.output.clone(), force: options.force };
        return commands::generate::run(&options, cx);
    }
    let config = match load(cli.global.config.as_deref(), &cx.env) {
        Ok(config) => config,
        Err(error) => return mistakes(&cli.command, error),
    };
    reporter.set_timezone(config.timezone);
    let mut remarks = Vec::new();
    for text in &config.warnings {
        cx.observer.event(Event::Warning { target: None, text: text.clone() });
        remarks.push(commands::notice(None, text.as_str()));
    }
    if let Some(log_dir) = config.log_dir.as_deref().filter(|_| !cli.command.is_dry_run()) {
        match reporter.open_log(log_dir, run) {
            Ok(path) => tracing::debug!(path = %path.display(), "log file"),
            Err(error) => remarks.push(Problem::of(&error, Severity::Notice)),
        }
    }
    let cx = &Context { env: Arc::new(for_children(&cx.env, &config.secret_variables)), ..cx.clone() };
    let mode = mode(&cli.command);
    let left = commands::undo::before(&config, mode, cx);
    let mut found = match command(cli, &config, cx) {
        Ok(found) => found,
        Err(error) => Found::failure(Items::Text(Vec::new()), &error),
    };
    if mode == Mode::Undo {
        found.problems.extend(commands::undo::after(&config, &left, cx));
    }
    remarks.extend(left.problems);
    remarks.append(&mut found.problems);
    Found { problems: remarks, ..found }
}

/// Whether containers that a killed run left are started: by what changes something.
fn mode(command: &Command) -> Mode {
    let changes = matches!(command, Command::Backup(_) | Command::Restore(_) | Command::Prune(_));
    if changes && !command.is_dry_run() { Mode::Undo } else { Mode::Tell }
}

/// The environment without what secrets were made of: a child is given its own and no other's. What
/// programs need to work stays, and libpq's variables, which are taken out where PostgreSQL's start.
fn for_children(env: &Env, secrets: &[String]) -> Env {
    const NEEDED: [&str; 7] = ["HOME", "PATH", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG"];
    let mut env = env.clone();
    for name in secrets.iter().filter(|name| !name.starts_with("PG") && !NEEDED.contains(&name.as_str())) {
        env.remove(name);
    }
    env
}

fn load(explicit: Option<&Path>, env: &Env) -> Result<Config, ConfigError> {
    let facts = HostFacts { host_name: files::host_name(), is_root: files::is_root(), home: files::home() };
    let path = read::find(explicit, env).map_err(ConfigError::Unreadable)?;
    read::read_file(&path, env, &facts)
}

/// What is wrong with the configuration: a problem each, and for `validate`, where there is one to judge, a result.
fn mistakes(command: &Command, error: ConfigError) -> Found {
    let is_read = matches!(error, ConfigError::Mistakes { .. });
    let problems: Vec<Problem> = error.into_errors().iter().map(|error| Problem::of(error, Severity::Failure)).collect();
    let items = match command {
        Command::Validate(_) if is_read => {
            Items::Checks(problems.iter().map(|problem| CheckItem::failed("config", problem)).collect())
        }
        _ => Items::Text(Vec::new()),
    };
    Found { items, problems }
}

/// Translates a command's options, and runs it.
fn command(cli: &Cli, config: &Config, cx: &Context) -> Result<Found, Error> {
    Ok(match &cli.command {
        Command::Generate(_) => Found { items: Items::Text(Vec::new()), problems: Vec::new() },
        Command::Validate(options) => commands::validate::run(config, options.connect, cx),
        Command::Backup(options) => {
            let options = commands::backup::Options {
                patterns: options.selection.patterns(),
                label: options.label.clone(),
                pin: options.pin,
                storages: options.storage.clone(),
                no_prune: options.no_prune,
                wait: options.wait,
                dry_run: options.dry_run,
            };
            commands::backup::run(config, &options, cx)
        }
        Command::List(options) => {
            let all_matter = options.limit == 0 || cli.global.json;
            let options = commands::list::Options {
                patterns: options.selection.patterns(),
                storages: options.storage.clone(),
                host: options.host.clone(),
                at: options.at.as_deref().map(When::from_str).transpose()?,
                limit: (!all_matter).then_some(options.limit),
                all: options.all,
                stats: options.stats,
                verify: options.verify,
                max_age: options.max_age,
                max_unproven: options.max_unproven,
                tables: options.tables,
            };
            commands::list::run(config, &options, cx)
        }
        Command::Restore(options) if options.drill => commands::drill::run(config, &drill_options(options)?, cx),
        Command::Restore(options) => commands::restore::run(config, &restore_options(options)?, cx),
        Command::Prune(options) => {
            let by_id = by_id(&options.by_id)?;
            let options = commands::prune::Options {
                patterns: options.selection.patterns(),
                storages: options.storage.clone(),
                dry_run: options.dry_run,
                by_id,
            };
            commands::prune::run(config, &options, cx)
        }
    })
}

fn by_id(options: &cli::ById) -> Result<Option<(Action, When)>, Error> {
    let chosen = [(Action::Pin, &options.pin), (Action::Unpin, &options.unpin), (Action::Delete, &options.delete)];
    let chosen = chosen.into_iter().find_map(|(action, id)| Some((action, id.as_deref()?)));
    chosen.map(|(action, id)| Ok((action, When::from_str(id)?))).transpose()
}

fn restore_options(options: &cli::Restore) -> Result<commands::restore::Options, Error> {
    use commands::restore::To;
    let place = options.to_database.clone().map(Destination::Database);
    let place = place.or_else(|| options.to_path.clone().map(Destination::Directory));
    let place = place.or_else(|| options.to_volume.clone().map(Destination::Volume));
    let to = match (place, &options.output) {
        (Some(place), _) => To::Place(place),
        (None, Some(_)) if options.to_stdout() => To::Stdout,
        (None, Some(path)) => To::File(path.clone()),
        (None, None) => To::Place(Destination::Own),
    };
    let stage = StageOptions {
        no_owner: options.no_owner,
        no_privileges: options.no_privileges,
        replace: options.replace,
        disconnect: options.disconnect,
        missing_roles: options.missing_roles,
        jobs: options.jobs,
        stop: options.stop,
    };
    Ok(commands::restore::Options {
        name: options.names().pop().unwrap_or_default(),
        at: When::from_str(&options.at)?,
        from: options.from.clone(),
        host: options.host.clone(),
        to,
        stage,
        wait: options.wait,
        dry_run: options.dry_run,
    })
}

fn drill_options(options: &cli::Restore) -> Result<commands::drill::Options, Error> {
    Ok(commands::drill::Options {
        patterns: options.names(),
        at: When::from_str(&options.at)?,
        from: options.from.clone(),
        host: options.host.clone(),
        wait: options.wait,
        jobs: options.jobs,
        dry_run: options.dry_run,
    })
}
