//! The command line as clap reads it: definitions, and the checks between options that clap can't
//! express. It reads no file and no variable, and runs nothing.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValue};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::quantity::parse_duration;

/// Backs up databases and files, keeps what the policy says, and restores what it kept.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "db-backup-tools",
    version,
    about = "Backs up databases and files, keeps what the policy says, and restores what it kept",
    after_help = EXIT_CODES,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes, the first that applies:
  129, 130, 143  interrupted by a signal; everything was cleaned up
  75             another run holds the lock
  2              usage, configuration, or a destination that must not be touched: nothing was done
  4              a NAME or WHEN matches nothing
  1              a unit failed, or a check did not hold
  3              done in part: a storage was missed, pruning failed, or data is in doubt
  0              done

Begin with:
  db-backup-tools generate -o backup.yml    # a commented sample: edit it
  db-backup-tools validate --connect";

/// Options that stand before or after the command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml, /etc/db-backup/backup.yml]
    #[arg(short, long, value_name = "FILE", global = true, help_heading = GLOBAL)]
    pub config: Option<PathBuf>,
    /// Read variables from KEY=VALUE lines; the environment wins
    #[arg(long, value_name = "FILE", global = true, help_heading = GLOBAL)]
    pub env_file: Option<PathBuf>,
    /// Say nothing on stderr unless something is wrong
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = GLOBAL)]
    pub verbose: u8,
    /// How stderr is written; json makes each line an object
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, global = true, help_heading = GLOBAL)]
    pub log_format: LogFormat,
    /// Print one JSON document on stdout, on errors too
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
}

const GLOBAL: &str = "Global options";

/// How lines on standard error are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

// By hand: derived, the variants' comments would become a long help that differs from the short one.
impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(if *self == Self::Text { "text" } else { "json" }))
    }
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print a commented sample configuration
    Generate(Generate),
    /// Check the configuration; every mistake in one go
    Validate(Validate),
    /// Back up all enabled targets, then prune what succeeded
    Backup(Backup),
    /// Show the backups that are there
    List(List),
    /// Bring a backup back, or prove in a drill that it would come back
    Restore(Restore),
    /// Apply the retention policy now, or pin and delete by id
    Prune(Prune),
}

impl Command {
    /// Whether it only shows what would be done.
    pub fn is_dry_run(&self) -> bool {
        match self {
            Self::Backup(options) => options.dry_run,
            Self::Restore(options) => options.dry_run,
            Self::Prune(options) => options.dry_run,
            Self::Generate(_) | Self::Validate(_) | Self::List(_) => false,
        }
    }

    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Generate(_) => "generate",
            Self::Validate(_) => "validate",
            Self::Backup(_) => "backup",
            Self::List(_) => "list",
            Self::Restore(_) => "restore",
            Self::Prune(_) => "prune",
        }
    }
}

/// Which units or targets are meant; none named: all of them.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Units or targets, by name or glob [default: all]
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    positional: Vec<String>,
    /// The same as NAME; repeatable
    #[arg(short = 'n', long = "name", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    named: Vec<String>,
}

impl Selection {
    /// Every NAME that was given, one way or the other.
    pub fn patterns(&self) -> Vec<String> {
        self.positional.iter().chain(&self.named).cloned().collect()
    }
}

/// `generate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  db-backup-tools generate -o /etc/db-backup/backup.yml")]
pub struct Generate {
    /// Write it to FILE, which must not exist
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite FILE
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// `validate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
--connect removes what it writes, but for an S3 storage's marker, .db-backup-tools. In a storage
with prune: false it stores no probe: there it lists, and begins an upload and gives it up.

Example:
  db-backup-tools validate --connect    # before the first night")]
pub struct Validate {
    /// Also try tools, versions, login, privileges, and write, read, delete in each storage
    #[arg(long)]
    pub connect: bool,
}

/// `backup`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  0 3 * * *  db-backup-tools -q -c /etc/db-backup/backup.yml backup    # in a crontab
  db-backup-tools backup shop --pin --label 'before 2.0'               # in a deploy script")]
pub struct Backup {
    /// What to back up.
    #[command(flatten)]
    pub selection: Selection,
    /// A note that list shows
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub label: Option<String>,
    /// Keep it whatever the policy says
    #[arg(long)]
    pub pin: bool,
    /// Only into this storage; repeatable [default: the target's own]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub storage: Vec<String>,
    /// Delete nothing afterwards
    #[arg(long)]
    pub no_prune: bool,
    /// Wait this long for another run's lock, like 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
WHEN: latest, an id or its last four characters, a date (the newest started by the end of that day),
or an age like 3d (the newest at least that old).

STATE is whole, damaged, incomplete or unknown; PROVEN how long ago a drill or --verify held.

A storage that lacks the newest whole backup which a sibling holds is a warning: exit 3.

Examples:
  db-backup-tools list shop --limit 0
  db-backup-tools list shop --tables             # rows and bytes of each table
  db-backup-tools -q list --max-age 26h          # exit 1 if any unit's newest backup is older
  db-backup-tools -q list --max-unproven 35d     # exit 1 if none held in a drill or --verify since")]
pub struct List {
    /// What to show.
    #[command(flatten)]
    pub selection: Selection,
    /// Only this storage; repeatable
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub storage: Vec<String>,
    /// Backups of this host [default: our own]
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    pub host: Option<String>,
    /// Only the one that restore --at WHEN would take
    #[arg(long, value_name = "WHEN", value_parser = NonEmptyStringValueParser::new())]
    pub at: Option<String>,
    /// The last N of each unit; 0: all, as always with --json, --verify, --max-age
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Incomplete and unknown ones too
    #[arg(long)]
    pub all: bool,
    /// Number, sizes, ages and growth of each unit instead
    #[arg(long, conflicts_with = "verify")]
    pub stats: bool,
    /// Tables with rows and bytes, and growth since the backup before
    #[arg(long, conflicts_with_all = ["stats", "verify"])]
    pub tables: bool,
    /// Read every byte again and compare digests
    #[arg(long)]
    pub verify: bool,
    /// Exit 1 if any enabled unit's newest backup is older, or it has none
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub max_age: Option<Duration>,
    /// Exit 1 if any enabled unit's newest proof, by drill or --verify, is older, or it has none
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub max_unproven: Option<Duration>,
}

/// `restore`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
WHEN: latest, an id or its last four characters, a date (the newest started by the end of that day),
or an age like 3d (the newest at least that old).

Without --to-... or --output it goes to the target's own place. A database, directory or volume
that is there must be empty; with --replace it may be in use, and is kept under another name.
A drill touches none of them.

Examples:
  db-backup-tools restore shop --to-database shop_check
  db-backup-tools restore shop --at 2026-06-12 --output - | less
  db-backup-tools restore shop --replace --disconnect    # over the live one, in one step
  db-backup-tools restore uploads --to-path /srv/back    # files, into a new directory
  db-backup-tools restore uploads --output - | tar x ./one/file
  db-backup-tools restore uploads --replace --stop       # no container uses the volume meanwhile
  db-backup-tools restore --drill                        # of every unit the newest, thrown away")]
pub struct Restore {
    /// The unit or target, by name, or by a glob that only one matches; with --drill any number, none: all
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    positional: Vec<String>,
    /// The same as NAME
    #[arg(short = 'n', long = "name", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    named: Vec<String>,
    /// Which backup
    #[arg(long, value_name = "WHEN", default_value = "latest", value_parser = NonEmptyStringValueParser::new())]
    pub at: String,
    /// Read it from this storage [default: the first that holds it]
    #[arg(long, value_name = "STORAGE", value_parser = NonEmptyStringValueParser::new())]
    pub from: Option<String>,
    /// A backup of this host [default: our own, or the only one that has it]
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    pub host: Option<String>,
    /// Into this database, which must be absent or empty, or replaced
    #[arg(long, value_name = "DB", conflicts_with = "output", value_parser = NonEmptyStringValueParser::new())]
    pub to_database: Option<String>,
    /// Unpacked as this directory, which must be absent or empty, or replaced
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "to_database"])]
    pub to_path: Option<PathBuf>,
    /// Unpacked into this volume, which is made when absent, and must be empty, or replaced
    #[arg(long, value_name = "VOLUME", conflicts_with_all = ["output", "to_database", "to_path"], value_parser = NonEmptyStringValueParser::new())]
    pub to_volume: Option<String>,
    /// Decompressed into FILE, which must not exist, or to stdout (-); needs only the storage
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["no_owner", "no_privileges"])]
    pub output: Option<PathBuf>,
    /// Restore into a throwaway place (or where drill: says), compare with what was backed up, and remove it
    #[arg(long, conflicts_with_all = ["to_database", "to_path", "to_volume", "stop", "output", "replace", "no_owner", "no_privileges", "missing_roles"])]
    pub drill: bool,
    /// Swap with what has the name, once compared; that stays as NAME_before_... (a path: NAME.before-...)
    #[arg(long, conflicts_with = "output")]
    pub replace: bool,
    /// End the sessions that are on the database to be replaced
    #[arg(long, requires = "replace")]
    pub disconnect: bool,
    /// Stop the containers that use the destination meanwhile, and start them again
    #[arg(long, conflicts_with_all = ["output", "to_database"])]
    pub stop: bool,
    /// Everything belongs to the restoring role or user
    #[arg(long)]
    pub no_owner: bool,
    /// Leave out GRANT and REVOKE
    #[arg(long)]
    pub no_privileges: bool,
    /// Create roles that the backup names and the server lacks, without login or password
    #[arg(long, conflicts_with = "output")]
    pub missing_roles: bool,
    /// Load N objects of a custom archive at once
    #[arg(long, value_name = "N", conflicts_with = "output")]
    pub jobs: Option<NonZeroU32>,
    /// Wait this long for another run's lock, like 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Restore {
    /// Every NAME that was given, one way or the other.
    pub fn names(&self) -> Vec<String> {
        self.positional.iter().chain(&self.named).cloned().collect()
    }

    /// Whether the backup's content itself goes to standard output.
    pub fn to_stdout(&self) -> bool {
        self.output.as_deref() == Some(Path::new("-"))
    }
}

/// `prune`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
ID: as list shows it, or its last four characters.

What never became whole goes too, an S3 service's unfinished uploads among it, once it is older than
24 hours and twice the target's timeout. It needs the storages alone, so another machine can do it.

Examples:
  db-backup-tools prune --dry-run    # each backup with keep or delete, and every reason
  db-backup-tools prune --pin k3f9")]
pub struct Prune {
    /// What to prune.
    #[command(flatten)]
    pub selection: Selection,
    /// Only in this storage; repeatable
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub storage: Vec<String>,
    /// Show each decision with its reasons, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// By id instead of the policy.
    #[command(flatten)]
    pub by_id: ById,
}

/// One backup instead of the policy; one of these at most.
#[derive(Debug, Clone, Args)]
#[group(multiple = false, conflicts_with_all = ["positional", "named"])]
pub struct ById {
    /// Keep this backup whatever the policy says
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub pin: Option<String>,
    /// Give this backup back to the policy
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub unpin: Option<String>,
    /// Delete this backup
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub delete: Option<String>,
}

impl Cli {
    /// Reads the arguments, the program's own name first. An error is also what `--help` and
    /// `--version` give: `report::usage` answers it.
    pub fn read<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let cli = Self::try_parse_from(args)?;
        // Across the command, clap does not see that global options exclude each other.
        if cli.global.quiet && cli.global.verbose > 0 {
            return Err(conflict("--quiet and --verbose can't be used together"));
        }
        if let Command::Restore(restore) = &cli.command
            && !restore.drill
        {
            match restore.names().len() {
                0 => {
                    return Err(Self::command()
                        .error(ErrorKind::MissingRequiredArgument, "restore needs a NAME; only --drill takes none"));
                }
                1 => {}
                _ => return Err(conflict("restore takes one NAME; only --drill takes several")),
            }
        }
        if let Command::Restore(restore) = &cli.command
            && restore.to_stdout()
            && (cli.global.json || restore.dry_run)
        {
            return Err(conflict("--output - gives stdout to the backup's content: --json and --dry-run can't be used with it"));
        }
        Ok(cli)
    }
}

fn conflict(message: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, message)
}

/// Whether arguments that may be wrong ask for the JSON document.
pub fn asks_for_json(args: &[OsString]) -> bool {
    args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// The command that arguments which may be wrong name; empty where they name none.
pub fn command_in(args: &[OsString]) -> &'static str {
    const COMMANDS: [&str; 6] = ["generate", "validate", "backup", "list", "restore", "prune"];
    const WITH_VALUE: [&str; 4] = ["-c", "--config", "--env-file", "--log-format"];
    let is_in = |names: &[&'static str], arg: &OsStr| names.iter().copied().find(|name| arg == *name);
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        if is_in(&WITH_VALUE, arg).is_some() {
            rest.next();
        } else if !arg.to_string_lossy().starts_with('-') {
            return is_in(&COMMANDS, arg).unwrap_or_default();
        }
    }
    ""
}

#[cfg(test)]
mod tests;
