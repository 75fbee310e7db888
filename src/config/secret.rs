//! A value that must not be shown. It is kept as the user wrote it and read when it is needed.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::process::Program;

/// The longest secret in bytes, so that a wrong path does not fill the memory.
const LONGEST: u64 = 64 * 1024;

/// A password or the like; `Debug` and messages show what the user wrote, never the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// How the user wrote it: `${PG_PASSWORD}`, `{ file: /run/secrets/pg }`; a literal shows as `***`.
    pub written: String,
    /// Where the value comes from.
    pub from: SecretFrom,
}

/// Where a secret's value comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// The value, with variables expanded.
    Value(String),
    /// A file's content, less one trailing newline.
    File(PathBuf),
    /// What a command prints, less one trailing newline. The first is the program.
    Command(Vec<String>),
}

impl Secret {
    /// The value. A file or command that gives nothing, or no text, is an error that does not show
    /// what it gave.
    pub fn reveal(&self, cx: &Context) -> Result<String> {
        let bytes = match &self.from {
            SecretFrom::Value(value) => return Ok(value.clone()),
            SecretFrom::File(path) => self.of_file(path)?,
            SecretFrom::Command(words) => self.of_command(words, cx)?,
        };
        let text = String::from_utf8(bytes).map_err(|_| self.error("is not UTF-8 text"))?;
        let text = text.strip_suffix('\n').map_or(text.as_str(), |less| less.strip_suffix('\r').unwrap_or(less));
        match text {
            "" => Err(self.error("is empty")),
            _ if text.contains('\0') => Err(self.error("holds a zero byte")),
            _ => Ok(text.to_owned()),
        }
    }

    fn of_file(&self, path: &Path) -> Result<Vec<u8>> {
        let unreadable = |error: std::io::Error| self.error("can't be read").source(error);
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(self.error("is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
        if bytes.len() as u64 > LONGEST { Err(self.error("is longer than 64 KiB")) } else { Ok(bytes) }
    }

    fn of_command(&self, words: &[String], cx: &Context) -> Result<Vec<u8>> {
        let Some((program, arguments)) = words.split_first() else { return Err(self.error("names no program")) };
        let output = Program::new(program).args(arguments).output(b"", cx).map_err(|error| match error.kind() {
            Kind::Interrupted | Kind::Timeout => error,
            _ => self.error("can't be had").source(error),
        })?;
        if output.exit.is_success() {
            return Ok(output.stdout);
        }
        let said = output.stderr_tail.trim().lines().last().map(|line| format!(": {line}")).unwrap_or_default();
        Err(self.error(&format!("{}{said}", output.exit.describe())))
    }

    fn error(&self, what: &str) -> Error {
        Error::new(Kind::Config, format!("the secret {} {what}", self.written))
            .hint("check where the configuration takes it from")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.written)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::host::Cancel;
    use crate::host::clock::SystemClock;
    use crate::observe::Silent;

    fn cx() -> Context {
        let env = [("PATH", "/usr/bin:/bin"), ("WORD", "from the shell")].into_iter().collect();
        Context { cancel: Cancel::new().unwrap(), env: Arc::new(env), clock: Arc::new(SystemClock), observer: Arc::new(Silent) }
    }

    fn revealed(from: SecretFrom) -> Result<String> {
        Secret { written: "{ as written }".into(), from }.reveal(&cx())
    }

    fn of_file(bytes: &[u8]) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        revealed(SecretFrom::File(path))
    }

    fn of_shell(command: &str) -> Result<String> {
        revealed(SecretFrom::Command(["sh", "-c", command].map(str::to_owned).into()))
    }

    #[test]
    fn one_trailing_newline_is_dropped_and_no_more() {
        assert_eq!(of_file(b"word\n").unwrap(), "word");
        assert_eq!(of_file(b"word\r\n").unwrap(), "word");
        assert_eq!(of_file(b"word\n\n").unwrap(), "word\n");
        assert_eq!(of_file(b" word ").unwrap(), " word ");
        assert_eq!(of_shell("printf 'word\\n'").unwrap(), "word");
        assert_eq!(of_shell("echo $WORD").unwrap(), "from the shell");
    }

    #[test]
    fn what_gives_no_secret_is_an_error_that_shows_none() {
        let errors = [
            of_file(b""),
            of_file(b"\n"),
            of_file(b"hunter2\xff"),
            of_file(b"hunter2\0"),
            of_file(&vec![b'x'; 70_000]),
            revealed(SecretFrom::File("/".into())),
            of_shell("true"),
            of_shell("echo hunter2; echo 'vault: sealed' >&2; exit 3"),
            of_shell("kill -9 $$"),
            revealed(SecretFrom::Command(vec![])),
            revealed(SecretFrom::Command(vec!["./no-such-program".into()])),
        ];
        let shown: Vec<String> = errors.into_iter().map(|error| format!("{}\n", error.unwrap_err())).collect();
        insta::assert_snapshot!(shown.concat(), @r"
        the secret { as written } is empty
        the secret { as written } is empty
        the secret { as written } is not UTF-8 text
        the secret { as written } holds a zero byte
        the secret { as written } is longer than 64 KiB
        the secret { as written } is not a regular file
        the secret { as written } is empty
        the secret { as written } exited with code 3: vault: sealed
        the secret { as written } was killed by signal 9 (SIGKILL; the out-of-memory killer?)
        the secret { as written } names no program
        the secret { as written } can't be had: can't run ./no-such-program: No such file or directory (os error 2)
        ");
        assert!(!shown.concat().contains("hunter2"));
    }

    #[test]
    fn debug_shows_what_was_written() {
        let secret = Secret { written: "${X}".into(), from: SecretFrom::Value("hunter2".into()) };
        assert_eq!(format!("{secret:?}"), "Secret(${X})");
    }
}
