//! `db-backup-tools`: hand the process's world to [`db_backup_tools::run`], and end with its code.

use std::process::ExitCode;
use std::sync::Arc;

use db_backup_tools::host::clock::SystemClock;
use db_backup_tools::host::{Cancel, Env, signals};
use db_backup_tools::report::Stream;
use db_backup_tools::{World, run};

fn main() -> ExitCode {
    let env = Env::of_process();
    let (stdout, stderr) = (Stream::stdout(&env), Stream::stderr(&env));
    let cancel = Cancel::new().and_then(|cancel| signals::watch(&cancel).map(|()| cancel));
    match cancel {
        Ok(cancel) => {
            let args: Vec<_> = std::env::args_os().collect();
            ExitCode::from(run(&args, World { clock: Arc::new(SystemClock), env, cancel, stdout, stderr }))
        }
        Err(error) => {
            let _ = stderr.put(format!("error: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}
