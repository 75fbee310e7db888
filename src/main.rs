//! `db-backup-tools`: parse, run, turn the outcome into a code.
fn main() {}
