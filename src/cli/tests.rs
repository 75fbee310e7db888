use super::*;

fn read(line: &str) -> Result<Cli, clap::Error> {
    Cli::read(std::iter::once("db-backup-tools").chain(line.split_whitespace()))
}

/// What a person sees, at a width that no terminal of the test's changes.
fn help(command: &str) -> String {
    let mut root = Cli::command().term_width(100);
    root.build();
    let chosen = if command.is_empty() { &mut root } else { root.find_subcommand_mut(command).unwrap() };
    chosen.clone().term_width(100).render_help().to_string()
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(help(""), @"
    Backs up databases and files, keeps what the policy says, and restores what it kept

    Usage: db-backup-tools [OPTIONS] <COMMAND>

    Commands:
      generate  Print a commented sample configuration
      validate  Check the configuration; every mistake in one go
      backup    Back up all enabled targets, then prune what succeeded
      list      Show the backups that are there
      restore   Bring a backup back, or prove in a drill that it would come back
      prune     Apply the retention policy now, or pin and delete by id

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
      -c, --config <FILE>        Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml,
                                 /etc/db-backup/backup.yml]
          --env-file <FILE>      Read variables from KEY=VALUE lines; the environment wins
      -q, --quiet                Say nothing on stderr unless something is wrong
      -v, --verbose...           Say more; twice for everything
          --log-format <FORMAT>  How stderr is written; json makes each line an object [default: text]
                                 [possible values: text, json]
          --json                 Print one JSON document on stdout, on errors too

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
      db-backup-tools validate --connect
    ");
}

#[test]
fn help_of_generate() {
    insta::assert_snapshot!(help("generate"), @"
    Print a commented sample configuration

    Usage: db-backup-tools generate [OPTIONS]

    Options:
      -o, --output <FILE>  Write it to FILE, which must not exist
          --force          Overwrite FILE
      -h, --help           Print help

    Global options:
      -c, --config <FILE>        Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml,
                                 /etc/db-backup/backup.yml]
          --env-file <FILE>      Read variables from KEY=VALUE lines; the environment wins
      -q, --quiet                Say nothing on stderr unless something is wrong
      -v, --verbose...           Say more; twice for everything
          --log-format <FORMAT>  How stderr is written; json makes each line an object [default: text]
                                 [possible values: text, json]
          --json                 Print one JSON document on stdout, on errors too

    Example:
      db-backup-tools generate -o /etc/db-backup/backup.yml
    ");
}

#[test]
fn help_of_validate() {
    insta::assert_snapshot!(help("validate"), @"
    Check the configuration; every mistake in one go

    Usage: db-backup-tools validate [OPTIONS]

    Options:
          --connect  Also try tools, versions, login, privileges, and write, read, delete in each
                     storage
      -h, --help     Print help

    Global options:
      -c, --config <FILE>        Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml,
                                 /etc/db-backup/backup.yml]
          --env-file <FILE>      Read variables from KEY=VALUE lines; the environment wins
      -q, --quiet                Say nothing on stderr unless something is wrong
      -v, --verbose...           Say more; twice for everything
          --log-format <FORMAT>  How stderr is written; json makes each line an object [default: text]
                                 [possible values: text, json]
          --json                 Print one JSON document on stdout, on errors too

    --connect removes what it writes, but for an S3 storage's marker, .db-backup-tools. In a storage
    with prune: false it stores no probe: there it lists, and begins an upload and gives it up.

    Example:
      db-backup-tools validate --connect    # before the first night
    ");
}

#[test]
fn help_of_backup() {
    insta::assert_snapshot!(help("backup"), @"
    Back up all enabled targets, then prune what succeeded

    Usage: db-backup-tools backup [OPTIONS] [NAME]...

    Arguments:
      [NAME]...  Units or targets, by name or glob [default: all]

    Options:
      -n, --name <NAME>      The same as NAME; repeatable
          --label <TEXT>     A note that list shows
          --pin              Keep it whatever the policy says
          --storage <NAME>   Only into this storage; repeatable [default: the target's own]
          --no-prune         Delete nothing afterwards
          --wait <DURATION>  Wait this long for another run's lock, like 10m
          --dry-run          Show what would be done, and do nothing
      -h, --help             Print help

    Global options:
      -c, --config <FILE>        Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml,
                                 /etc/db-backup/backup.yml]
          --env-file <FILE>      Read variables from KEY=VALUE lines; the environment wins
      -q, --quiet                Say nothing on stderr unless something is wrong
      -v, --verbose...           Say more; twice for everything
          --log-format <FORMAT>  How stderr is written; json makes each line an object [default: text]
                                 [possible values: text, json]
          --json                 Print one JSON document on stdout, on errors too

    Examples:
      0 3 * * *  db-backup-tools -q -c /etc/db-backup/backup.yml backup    # in a crontab
      db-backup-tools backup shop --pin --label 'before 2.0'               # in a deploy script
    ");
}

#[test]
fn help_of_list() {
    insta::assert_snapshot!(help("list"), @"
    Show the backups that are there

    Usage: db-backup-tools list [OPTIONS] [NAME]...

    Arguments:
      [NAME]...  Units or targets, by name or glob [default: all]

    Options:
      -n, --name <NAME>              The same as NAME; repeatable
          --storage <NAME>           Only this storage; repeatable
          --host <HOST>              Backups of this host [default: our own]
          --at <WHEN>                Only the one that restore --at WHEN would take
          --limit <N>                The last N of each unit; 0: all, as always with --json, --verify,
                                     --max-age [default: 50]
          --all                      Incomplete and unknown ones too
          --stats                    Number, sizes, ages and growth of each unit instead
          --tables                   Tables with rows and bytes, and growth since the backup before
          --verify                   Read every byte again and compare digests
          --max-age <DURATION>       Exit 1 if any enabled unit's newest backup is older, or it has none
          --max-unproven <DURATION>  Exit 1 if any enabled unit's newest proof, by drill or --verify, is
                                     older, or it has none
      -h, --help                     Print help

    Global options:
      -c, --config <FILE>        Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml,
                                 /etc/db-backup/backup.yml]
          --env-file <FILE>      Read variables from KEY=VALUE lines; the environment wins
      -q, --quiet                Say nothing on stderr unless something is wrong
      -v, --verbose...           Say more; twice for everything
          --log-format <FORMAT>  How stderr is written; json makes each line an object [default: text]
                                 [possible values: text, json]
          --json                 Print one JSON document on stdout, on errors too

    WHEN: latest, an id or its last four characters, a date (the newest started by the end of that day),
    or an age like 3d (the newest at least that old).

    STATE is whole, damaged, incomplete or unknown; PROVEN how long ago a drill or --verify held.

    A storage that lacks the newest whole backup which a sibling holds is a warning: exit 3.

    Examples:
      db-backup-tools list shop --limit 0
      db-backup-tools list shop --tables             # rows and bytes of each table
      db-backup-tools -q list --max-age 26h          # exit 1 if any unit's newest backup is older
      db-backup-tools -q list --max-unproven 35d     # exit 1 if none held in a drill or --verify since
    ");
}

#[test]
fn help_of_restore() {
    insta::assert_snapshot!(help("restore"), @r"
    Bring a backup back, or prove in a drill that it would come back

    Usage: db-backup-tools restore [OPTIONS] [NAME]...

    Arguments:
      [NAME]...  The unit or target, by name, or by a glob that only one matches; with --drill any
                 number, none: all

    Options:
      -n, --name <NAME>         The same as NAME
          --at <WHEN>           Which backup [default: latest]
          --from <STORAGE>      Read it from this storage [default: the first that holds it]
          --host <HOST>         A backup of this host [default: our own, or the only one that has it]
          --to-database <DB>    Into this database, which must be absent or empty, or replaced
          --to-path <DIR>       Unpacked as this directory, which must be absent or empty, or replaced
          --to-volume <VOLUME>  Unpacked into this volume, which is made when absent, and must be empty,
                                or replaced
          --output <FILE|->     Decompressed into FILE, which must not exist, or to stdout (-); needs
                                only the storage
          --drill               Restore into a throwaway place (or where drill: says), compare with what
                                was backed up, and remove it
          --replace             Swap with what has the name, once compared; that stays as
                                NAME_before_... (a path: NAME.before-...)
          --disconnect          End the sessions that are on the database to be replaced
          --stop                Stop the containers that use the destination meanwhile, and start them
                                again
          --no-owner            Everything belongs to the restoring role or user
          --no-privileges       Leave out GRANT and REVOKE
          --missing-roles       Create roles that the backup names and the server lacks, without login
                                or password
          --jobs <N>            Load N objects of a custom archive at once
          --wait <DURATION>     Wait this long for another run's lock, like 10m
          --dry-run             Show what would be done, and do nothing
      -h, --help                Print help

    Global options:
      -c, --config <FILE>        Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml,
                                 /etc/db-backup/backup.yml]
          --env-file <FILE>      Read variables from KEY=VALUE lines; the environment wins
      -q, --quiet                Say nothing on stderr unless something is wrong
      -v, --verbose...           Say more; twice for everything
          --log-format <FORMAT>  How stderr is written; json makes each line an object [default: text]
                                 [possible values: text, json]
          --json                 Print one JSON document on stdout, on errors too

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
      db-backup-tools restore --drill                        # of every unit the newest, thrown away
    ");
}

#[test]
fn help_of_prune() {
    insta::assert_snapshot!(help("prune"), @"
    Apply the retention policy now, or pin and delete by id

    Usage: db-backup-tools prune [OPTIONS] [NAME]...

    Arguments:
      [NAME]...  Units or targets, by name or glob [default: all]

    Options:
      -n, --name <NAME>     The same as NAME; repeatable
          --storage <NAME>  Only in this storage; repeatable
          --dry-run         Show each decision with its reasons, and delete nothing
          --pin <ID>        Keep this backup whatever the policy says
          --unpin <ID>      Give this backup back to the policy
          --delete <ID>     Delete this backup
      -h, --help            Print help

    Global options:
      -c, --config <FILE>        Configuration file [default: $DB_BACKUP_CONFIG, ./backup.yml,
                                 /etc/db-backup/backup.yml]
          --env-file <FILE>      Read variables from KEY=VALUE lines; the environment wins
      -q, --quiet                Say nothing on stderr unless something is wrong
      -v, --verbose...           Say more; twice for everything
          --log-format <FORMAT>  How stderr is written; json makes each line an object [default: text]
                                 [possible values: text, json]
          --json                 Print one JSON document on stdout, on errors too

    ID: as list shows it, or its last four characters.

    What never became whole goes too, an S3 service's unfinished uploads among it, once it is older than
    24 hours and twice the target's timeout. It needs the storages alone, so another machine can do it.

    Examples:
      db-backup-tools prune --dry-run    # each backup with keep or delete, and every reason
      db-backup-tools prune --pin k3f9
    ");
}

#[test]
fn global_options_work_before_and_after_the_command() {
    for line in [
        "-c b.yml --env-file e -vv --log-format json --json backup app",
        "backup app -c b.yml --env-file e -vv --log-format json --json",
    ] {
        let cli = read(line).unwrap();
        assert_eq!(cli.global.config.as_deref(), Some(Path::new("b.yml")), "{line}");
        assert_eq!(cli.global.env_file.as_deref(), Some(Path::new("e")));
        assert_eq!((cli.global.verbose, cli.global.log_format, cli.global.json), (2, LogFormat::Json, true));
        assert_eq!(cli.command.name(), "backup");
    }
}

#[test]
fn a_name_is_positional_or_an_option() {
    let Command::Backup(backup) = read("backup a -n b --name c* d").unwrap().command else { panic!("backup") };
    assert_eq!(backup.selection.patterns(), ["a", "d", "b", "c*"]);
    for line in ["restore app", "restore -n app"] {
        let Command::Restore(restore) = read(line).unwrap().command else { panic!("restore") };
        assert_eq!((restore.names(), restore.at.as_str(), restore.to_stdout()), (vec!["app".to_owned()], "latest", false));
    }
}

#[test]
fn durations_are_read_as_documented() {
    let Command::Backup(backup) = read("backup --wait 10m").unwrap().command else { panic!("backup") };
    assert_eq!(backup.wait, Some(Duration::from_secs(600)));
    let Command::List(list) = read("list --max-age 26h").unwrap().command else { panic!("list") };
    assert_eq!((list.max_age, list.limit), (Some(Duration::from_secs(26 * 3600)), 50));
}

#[test]
fn what_makes_no_sense_together_is_a_usage_error() {
    for line in [
        "-q -v backup",
        "-q backup -v",
        "generate --force",
        "list --stats --verify",
        "restore",
        "restore app -n app",
        "restore app shop",
        "restore app --to-database x --output y",
        "restore app --output y --no-owner",
        "restore app --output - --json",
        "--json restore app --output -",
        "restore app --output - --dry-run",
        "prune --pin a --delete b",
        "prune app --delete b",
        "prune -n app --unpin b",
        "backup --wait 10",
        "list --limit -1",
        "backup --replace",
        "drop",
        "",
    ] {
        let error = read(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
        assert!(error.use_stderr(), "{line}");
    }
    assert!(Cli::read(["db-backup-tools", "backup", ""]).is_err(), "an empty NAME");
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "-h", "--version", "-V", "backup --help"] {
        let answer = read(line).expect_err(line);
        assert_eq!((answer.exit_code(), answer.use_stderr()), (0, false), "{line}");
    }
}

#[test]
fn arguments_that_are_wrong_still_tell_command_and_json() {
    let args = |line: &str| -> Vec<OsString> { format!("x {line}").split_whitespace().map(OsString::from).collect() };
    for (line, json, command) in [
        ("backup --bad --json", true, "backup"),
        ("--json -c list restore", true, "restore"),
        ("--config=list prune -- --json", false, "prune"),
        ("--log-format json drop", false, ""),
        ("", false, ""),
    ] {
        assert_eq!((asks_for_json(&args(line)), command_in(&args(line))), (json, command), "{line}");
    }
}
