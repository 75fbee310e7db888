//! `db-backup-tools`: hand the process's world to [`db_backup_tools::run`], and end with its code.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use db_backup_tools::host::clock::SystemClock;
use db_backup_tools::host::{Cancel, Env, signals};
use db_backup_tools::report::Stream;
use db_backup_tools::{World, run};

fn main() -> ExitCode {
    match Cancel::new().and_then(|cancel| signals::watch(&cancel).map(|()| cancel)) {
        Ok(cancel) => {
            let args: Vec<_> = std::env::args_os().collect();
            let env = Env::of_process();
            let (stdout, stderr) = (Stream::stdout(&env, &cancel), Stream::stderr(&env, &cancel));
            ExitCode::from(run(&args, World { clock: Arc::new(SystemClock), env, cancel, stdout, stderr }))
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
