//! The sample that `generate` prints: valid as it stands, and each block behind `#|` valid when
//! it is uncommented.

/// The text of `backup.example.yml`.
pub const SAMPLE: &str = include_str!("../../backup.example.yml");

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::SAMPLE;
    use crate::config::model::Config;
    use crate::config::read::{HostFacts, read};
    use crate::host::Env;

    const MARK: &str = "#| ";

    fn read_as_root(text: &str, env: &Env) -> Config {
        let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
        read(text, Path::new("/etc/db-backup/backup.yml"), env, &facts).unwrap_or_else(|mistakes| {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            panic!("{}\n{text}", mistakes.join("\n"))
        })
    }

    /// The variables that the options name without a default.
    fn secrets() -> Env {
        ["POSTGRES_PASSWORD", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"].map(|name| (name, "secret")).into_iter().collect()
    }

    /// Ranges of lines that are commented out together.
    fn blocks(lines: &[&str]) -> Vec<std::ops::Range<usize>> {
        let marked = |at: usize| lines[at].trim_start().starts_with("#|");
        let mut blocks: Vec<std::ops::Range<usize>> = Vec::new();
        for at in (0..lines.len()).filter(|at| marked(*at)) {
            match blocks.last_mut() {
                Some(block) if block.end == at => block.end = at + 1,
                _ => blocks.push(at..at + 1),
            }
        }
        blocks
    }

    fn uncommented(line: &str) -> String {
        assert!(line.contains(MARK), "no space behind the mark: {line}");
        line.replacen(MARK, "", 1)
    }

    /// The example's secret file stands elsewhere than on this machine.
    fn with_a_secret_file(text: &str, dir: &Path) -> String {
        let file = dir.join("postgres_password");
        std::fs::write(&file, "secret\n").unwrap();
        text.replace("/run/secrets/postgres_password", file.to_str().unwrap())
    }

    #[test]
    fn the_sample_is_valid_in_an_empty_environment() {
        let config = read_as_root(SAMPLE, &Env::default());
        assert_eq!((config.storages.len(), config.targets.len()), (1, 1));
    }

    #[test]
    fn each_commented_block_is_valid_when_uncommented() {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<&str> = SAMPLE.lines().collect();
        let blocks = blocks(&lines);
        assert!(blocks.len() > 20);
        for block in blocks {
            let text: Vec<String> = lines
                .iter()
                .enumerate()
                .map(|(at, line)| if block.contains(&at) { uncommented(line) } else { (*line).to_owned() })
                .collect();
            read_as_root(&with_a_secret_file(&text.join("\n"), dir.path()), &secrets());
        }
    }

    #[test]
    fn all_blocks_are_valid_together_but_for_the_other_passwords() {
        let dir = tempfile::tempdir().unwrap();
        let text: Vec<String> = SAMPLE
            .lines()
            .filter(|line| !line.contains("#| password") || line.contains("file:"))
            .map(|line| if line.contains(MARK) { uncommented(line) } else { line.to_owned() })
            .collect();
        let config = read_as_root(&with_a_secret_file(&text.join("\n"), dir.path()), &secrets());
        assert_eq!((config.storages.len(), config.targets.len()), (3, 8));
    }
}
