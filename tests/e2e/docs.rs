//! What the documentation shows is true: its commands run, its configurations are read, and every
//! option, exit code, file and test that it names is there.

mod buckets;
mod commands;
mod compose;
mod drills;
mod quickstart;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::tool::files_below;
use crate::support::{Test, repository};

/// Blocks that no test can run: they change the machine, or build it all again. Of any other block the
/// info string says what it is, and a test runs or reads it.
const UNTESTED: [&str; 6] = [
    // `quickstart.rs` runs the first line of it.
    "scripts/quickstart\ncargo install --path . --locked\n",
    "apt-get install postgresql-client\n\
     cargo build --release --locked\n\
     install -m 755 target/release/db-backup-tools /usr/local/bin/\n",
    // `buckets.rs` has another server in its place.
    "docker run -d --name rustfs --restart unless-stopped -p 127.0.0.1:9000:9000 -v rustfs-data:/data \
     --env-file /etc/db-backup/rustfs.env rustfs/rustfs:latest /data\n",
    // These programs are not everywhere. Run by hand, those for a bucket on Ceph 16.2 (aws 1.45, rclone 1.60), without the
    // region, which is Amazon's.
    "aws s3 cp --recursive --endpoint-url http://127.0.0.1:9000 s3://shop-backups/web1/20261122_030000Z/ .\n\
     rclone copy --s3-provider Other --s3-env-auth --s3-endpoint http://127.0.0.1:9000 \
     :s3:shop-backups/web1/20261122_030000Z/ .\n",
    "aws s3api create-bucket --bucket our-db-backups --region eu-central-1 \
     --create-bucket-configuration LocationConstraint=eu-central-1\n\
     aws s3api put-bucket-versioning --bucket our-db-backups --versioning-configuration Status=Enabled\n\
     aws s3api put-bucket-lifecycle-configuration --bucket our-db-backups --lifecycle-configuration file://lifecycle.json\n\
     aws iam create-user --user-name db-backup-web1\n\
     aws iam put-user-policy --user-name db-backup-web1 --policy-name backup --policy-document file://backup-policy.json\n\
     aws iam create-access-key --user-name db-backup-web1\n",
    "aws s3api put-object-lock-configuration --bucket our-db-backups \
     --object-lock-configuration 'ObjectLockEnabled=Enabled,Rule={DefaultRetention={Mode=GOVERNANCE,Days=35}}'\n",
];

/// A page of the documentation.
struct Page {
    path: String,
    text: String,
}

/// A fenced block.
#[derive(Debug, Clone)]
struct Block {
    page: String,
    line: usize,
    /// What stands behind the fence: `sh`, `yaml /etc/db-backup/backup.yml`.
    info: String,
    text: String,
}

fn pages() -> Vec<Page> {
    let mut paths: Vec<String> = ["README.md", "QUICKSTART.md", "CHANGELOG.md"].map(str::to_owned).into();
    paths.extend(files_below(&repository().join("docs")).into_iter().map(|path| format!("docs/{path}")));
    paths.into_iter().map(page).collect()
}

fn page(path: impl Into<String>) -> Page {
    let path = path.into();
    let text = fs::read_to_string(repository().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Page { path, text }
}

impl Page {
    fn blocks(&self) -> Vec<Block> {
        let mut found: Vec<Block> = Vec::new();
        let mut inside = false;
        for (at, line) in self.text.lines().enumerate() {
            if let Some(info) = line.strip_prefix("```") {
                if !inside {
                    found.push(Block { page: self.path.clone(), line: at + 1, info: info.into(), text: String::new() });
                }
                inside = !inside;
            } else if inside {
                found.last_mut().unwrap().text.extend([line, "\n"]);
            }
        }
        assert!(!inside, "{}: a fence is not closed", self.path);
        found
    }

    /// Its code: fenced and indented lines, and what stands between backquotes, each with its line.
    fn code(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut fenced = false;
        for (at, line) in self.text.lines().enumerate() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if fenced || line.starts_with("    ") {
                found.push((at + 1, line.trim().to_owned()));
            } else {
                found.extend(line.split('`').skip(1).step_by(2).map(|span| (at + 1, span.to_owned())));
            }
        }
        found
    }
}

fn blocks() -> Vec<Block> {
    pages().iter().flat_map(Page::blocks).collect()
}

#[test]
fn every_block_is_run_or_read_or_known_to_be_neither() {
    let blocks = blocks();
    for block in &blocks {
        let place = format!("{}:{}", block.page, block.line);
        let words: Vec<_> = block.info.split(' ').collect();
        match words[..] {
            ["sh", "untested"] => assert!(UNTESTED.contains(&block.text.as_str()), "{place} is not run by any test"),
            ["sh" | "crontab"] => {
                let run = ["README.md", "QUICKSTART.md", compose::PAGE].contains(&block.page.as_str());
                assert!(run || (words == ["crontab"] && block.page == drills::PAGE), "{place}: no test runs it");
            }
            // `buckets.rs` runs the pruner, and holds the policies against a server; `compose.rs` runs the Compose host.
            ["yaml" | "sql" | "sh" | "json", ..] | ["crontab", "pruner" | "compose"] if block.page == "QUICKSTART.md" => {}
            // `compose.rs` runs it.
            ["sh", "newhost"] | ["yaml", _] if block.page == compose::PAGE => {}
            // `role.rs` runs it.
            ["sql"] if block.page == "docs/postgres-role.md" => {}
            // `drills.rs` runs the job.
            ["yaml", "ci"] if block.page == drills::PAGE => {}
            ["yaml" | "json" | "text"] => {}
            _ => panic!("{place}: what is {:?}? It must say what it is", block.info),
        }
    }
    for text in UNTESTED {
        let shown = blocks.iter().any(|block| block.text == text && block.info == "sh untested");
        assert!(shown, "no page shows this as untested:\n{text}");
    }
}

#[test]
fn every_configuration_is_valid_where_its_variables_are_set() {
    let mut configs: Vec<(String, String, String)> = Vec::new();
    for page in pages() {
        // A CI job and a Compose file are other programs'.
        let foreign = ["yaml ci", compose::FILE];
        let is_config = |block: &Block| block.info.starts_with("yaml") && !foreign.contains(&block.info.as_str());
        let whole = page.blocks().into_iter().filter(is_config);
        configs.extend(whole.map(|block| (format!("{}:{}", page.path, block.line), block.text, page.text.clone())));
        configs.extend(fragments(&page).map(|text| (page.path.clone(), text, page.text.clone())));
    }
    assert!(configs.len() >= 4, "{configs:?}");
    configs.push(("backup.example.yml".into(), page("backup.example.yml").text, String::new()));
    for (place, config, around) in configs {
        let mut test = Test::new();
        for variable in required_variables(&config) {
            assert!(around.contains(&format!("`{variable}`")), "{place}: the text does not say that {variable} is to be set");
            let value = if variable.ends_with("URL") { "postgresql://u:p@db.example.org/d" } else { "change-me" };
            test = test.env(&variable, value);
        }
        // The files that the text has made before.
        let values = config.lines().filter(|line| !line.trim_start().starts_with('#'));
        for name in values.flat_map(|line| line.split("{ file: ").skip(1)).filter_map(|rest| Some(rest.split_once(" }")?.0)) {
            // A Compose file, which is not read.
            if name.contains(", service: ") {
                continue;
            }
            assert!(name.starts_with('/') || around.contains(&format!(">{name}\n")), "{place}: the text does not make {name}");
            test.write(name, "change-me");
        }
        let ran = test.file("backup.yml", &config).run(["validate"]);
        assert_eq!(ran.code, Some(0), "{place}:\n{}{}", ran.stdout, ran.stderr);
    }
}

/// Indented parts of a configuration, under `# backup.yml`, each made whole.
fn fragments(page: &Page) -> impl Iterator<Item = String> + '_ {
    page.text.split("    # backup.yml\n").skip(1).map(|rest| {
        let own: Vec<_> = rest.lines().map_while(|line| line.strip_prefix("    ")).collect();
        let name = "targets: [{ name: a, type: postgres, database: a }]";
        format!("version: 1\nstorages: {{ a: {{ type: local, path: /a }} }}\n{name}\n{}\n", own.join("\n"))
    })
}

/// `${NAME}` without a default.
fn required_variables(config: &str) -> BTreeSet<String> {
    let values = config.lines().filter(|line| !line.trim_start().starts_with('#'));
    let named = values.flat_map(|line| line.split("${").skip(1)).filter_map(|rest| Some(rest.split_once('}')?.0));
    named
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .map(str::to_owned)
        .collect()
}

const COMMANDS: [&str; 6] = ["generate", "validate", "backup", "list", "restore", "prune"];
/// Programs whose options are not ours.
const FOREIGN: [&str; 20] = [
    "aws",
    "borg",
    "cargo",
    "create-bucket",
    "createdb",
    "createuser",
    "docker",
    "echo",
    "extra_args",
    "install",
    "pg_dump",
    "pg_restore",
    "psql",
    "rclone",
    "restic",
    "scripts/bench",
    "setpriv",
    "sha256sum",
    "strace",
    "tar",
];
/// Options of tar that are named without it.
const OF_TAR: [&str; 2] = ["--acls", "--exclude"];

#[test]
fn every_option_that_is_named_is_in_the_help_of_its_command() {
    let options_of = |command: &[&str]| {
        let help = Test::new().run(command.iter().chain(&["--help"])).ok().stdout;
        options_in(&help).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let helps: BTreeMap<&str, BTreeSet<String>> =
        COMMANDS.iter().map(|name| (*name, options_of(&[name]))).chain([("", options_of(&[]))]).collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for (line, code) in page.code() {
            let code = code.split("  #").next().unwrap_or_default();
            for part in code.split([';', '|']) {
                for option in options_in(part) {
                    seen += 1;
                    let known = match command_of(part) {
                        Some(command) => helps[command].contains(option),
                        None if part.trim_start().starts_with('-') => {
                            OF_TAR.contains(&option) || helps.values().any(|help| help.contains(option))
                        }
                        None => FOREIGN.iter().any(|name| part.trim_start().starts_with(name)),
                    };
                    if !known {
                        wrong.push(format!("{}:{line}: {option} in {:?}", page.path, part.trim()));
                    }
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} options were found");
    assert!(wrong.is_empty(), "no help has\n{}", wrong.join("\n"));
}

/// The words that begin with two dashes.
fn options_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.strip_prefix("--").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())))
}

/// The command of ours that a line calls; `""` where it names the program alone.
fn command_of(part: &str) -> Option<&'static str> {
    let mut words = part.split_whitespace();
    let first = words.clone().next()?;
    if let Some(command) = COMMANDS.iter().find(|name| **name == first) {
        return Some(command);
    }
    words.find(|word| *word == "db-backup-tools" || word.ends_with("/db-backup-tools"))?;
    Some(words.find_map(|word| COMMANDS.iter().find(|name| **name == word)).copied().unwrap_or_default())
}

#[test]
fn every_exit_code_that_is_named_is_in_the_table() {
    let table = page("docs/exit-codes.md").text;
    let codes: BTreeSet<u32> =
        table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    assert!(codes.contains(&75) && codes.contains(&0), "{codes:?}");
    for page in pages() {
        let words: Vec<_> = page.text.split_whitespace().map(str::to_lowercase).collect();
        for (at, word) in words.iter().enumerate().filter(|(_, word)| word.starts_with("exit")) {
            let next = words[at + 1..].iter().find(|word| !["code", "codes", "in", "with"].contains(&word.as_str()));
            let number = next.map(|next| next.chars().take_while(char::is_ascii_digit).collect::<String>());
            let Some(code) = number.and_then(|number| number.parse().ok()) else { continue };
            assert!(codes.contains(&code), "{}: {word} {code} is in no table", page.path);
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let here = Path::new(&page.path).parent().unwrap();
        for link in page.text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.path.clone().into() } else { here.join(path) };
            let text = fs::read_to_string(repository().join(&target));
            let text = text.unwrap_or_else(|error| panic!("{}: {link}: {error}", page.path));
            assert!(anchor.is_empty() || text.lines().any(|line| anchor_of(line) == anchor), "{}: {link}", page.path);
        }
    }
}

/// What a heading is linked by.
fn anchor_of(line: &str) -> String {
    let title = line.trim_start_matches('#').trim();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    if line.starts_with('#') { kept.collect::<String>().to_lowercase().replace(' ', "-") } else { String::new() }
}

#[test]
fn every_test_and_file_that_the_design_names_is_there() {
    let names: Vec<String> = page("docs/design.md").code().into_iter().map(|(_, code)| code).collect();
    let mut tests = 0;
    for name in &names {
        let is_path = ["src/", "tests/", "scripts/", "docs/"].iter().any(|start| name.starts_with(start));
        if let Some((file, test)) = name.split_once("::").filter(|(file, _)| is_path && is_rust(file)) {
            let text = fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(&format!("fn {test}(")), "docs/design.md names {test}, which is not in {file}");
            tests += 1;
        } else if is_path && !name.contains([' ', '{', '*']) {
            assert!(repository().join(name).exists(), "docs/design.md names {name}, which is not there");
        }
    }
    assert!(tests > 20, "only {tests} tests are named");
}

fn is_rust(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "rs")
}
