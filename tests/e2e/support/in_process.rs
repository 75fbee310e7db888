//! The program in this process, under a clock of the test's own: `test.run_at("2026-06-12T03:00:00Z",
//! ["backup"])`. It is the same code, from the arguments to the exit code; only the process, its signals
//! and its clock are the test's, so that months of nights go by in seconds.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use db_backup_tools::host::clock::SetClock;
use db_backup_tools::host::{Cancel, Env};
use db_backup_tools::report::Stream;
use db_backup_tools::{World, run};

use super::{Ran, Test};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Test {
    /// Runs the program to its end as if it were this time (RFC 3339). The current directory is not
    /// the test's: paths are to be absolute.
    pub fn run_at<I: IntoIterator<Item: AsRef<OsStr>>>(&self, now: &str, arguments: I) -> Ran {
        let now: DateTime<Utc> = now.parse().unwrap_or_else(|error| panic!("{now}: {error}"));
        let mut env = Env::from_iter(self.environment.clone());
        env.set_default("DB_BACKUP_CONFIG", self.path("backup.yml"));
        let mut args = vec![OsString::from("db-backup-tools")];
        args.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        let (stdout, stderr) = (Written::default(), Written::default());
        let world = World {
            clock: Arc::new(SetClock::at(now)),
            env,
            cancel: Cancel::new().unwrap(),
            stdout: Stream::new(stdout.clone()),
            stderr: Stream::new(stderr.clone()),
        };
        let code = run(&args, world);
        let command = args.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Ran {
            command: format!("{command} (at {now})"),
            code: Some(code.into()),
            signal: None,
            stdout: stdout.text(),
            stderr: stderr.text(),
        }
    }
}
