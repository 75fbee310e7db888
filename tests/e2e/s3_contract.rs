//! The contract of storages over real ones, and a table of it: `cargo test --test e2e s3_contract:: -- --nocapture`.

use std::cell::Cell;
use std::fmt::Write as _;

use db_backup_tools::config::model::S3Settings;
use db_backup_tools::storage::Storage;
use db_backup_tools::storage::conformance::faults::{self, Ending};
use db_backup_tools::storage::conformance::outcomes;
use db_backup_tools::storage::local::Local;
use db_backup_tools::storage::memory::Memory;
use db_backup_tools::storage::s3::S3;

use crate::support::{Ceph, S3Bucket, S3sFs, Server};

/// Bytes of memory for one upload's buffers.
const BUDGET: u64 = 64 << 20;

/// What a server can't keep, whatever is asked of it: storage and check. Each may hold by luck.
const NOT_KEPT: [(&str, &str); 2] =
    [("S3 on s3s-fs", "of two uploads at once one wins"), ("S3 on s3s-fs", "of two puts at once one wins")];
/// What a check says then, and nothing else is excused: both were told that they won, or one of them, or both, saw by
/// the look afterwards that the other's bytes are there, or bytes and metadata of both.
const BOTH_WROTE: [&str; 2] = ["not one winner: ", "the loser got Storage can't find"];
/// Why.
const WHY: &str = "not kept: the server looks whether a key is taken, and writes it later, not in one step";

/// What came of one check: its name, and what did not hold.
type Outcome = (&'static str, Option<String>);

/// A storage's name, and what came of each check; `None`: there is no such server here.
type Column = (&'static str, Option<Vec<Outcome>>);

/// Runs all checks, each on a storage made for its number.
fn column(name: &'static str, make: impl Fn(usize) -> Box<dyn Storage>) -> Column {
    let count = Cell::new(0);
    let make = || {
        count.set(count.get() + 1);
        make(count.get())
    };
    let outcomes = outcomes(&make).map(|(check, outcome)| (check, outcome.err().map(|error| format!("{error:?}"))));
    (name, Some(outcomes.collect()))
}

/// Each check below a prefix of its own in one bucket; each prefix but the longest is another's beginning.
fn on_bucket(name: &'static str, bucket: Option<S3Bucket>) -> Column {
    let Some(bucket) = bucket else { return (name, None) };
    column(name, |number| {
        let mut settings = bucket.settings();
        settings.prefix = "a+b c/".to_owned() + &"p".repeat(number);
        Box::new(S3::new(settings, BUDGET))
    })
}

fn is_excused(storage: &str, check: &str, error: &str) -> bool {
    NOT_KEPT.contains(&(storage, check)) && BOTH_WROTE.iter().any(|text| error.contains(text))
}

fn table(columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().flat_map(|(_, outcomes)| outcomes).next().unwrap().iter().map(|(name, _)| *name).collect();
    let width = names.iter().map(|name| name.len()).max().unwrap();
    let mut lines = vec![format!("{:width$}", "CHECK")];
    lines.extend(names.iter().map(|name| format!("{name:width$}")));
    for (name, outcomes) in columns {
        write!(lines[0], "  {name:>12}").unwrap();
        for (row, line) in lines[1..].iter_mut().enumerate() {
            let cell = match outcomes.as_ref().map(|outcomes| &outcomes[row].1) {
                None => "not here",
                Some(None) => "holds",
                Some(Some(error)) if is_excused(name, names[row], error) => "not kept",
                Some(Some(_)) => "BROKEN",
            };
            write!(line, "  {cell:>12}").unwrap();
        }
    }
    lines.push(WHY.to_owned());
    lines.join("\n")
}

#[test]
fn every_storage_keeps_the_contract() {
    let place = tempfile::tempdir().unwrap();
    let columns = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| column("memory", |_| Box::new(Memory::new()))),
            scope.spawn(|| column("local", |number| Box::new(Local::new(place.path().join(number.to_string()), None)))),
            scope.spawn(|| on_bucket("S3 on s3s-fs", S3sFs::shared().map(Server::bucket))),
            scope.spawn(|| on_bucket("S3 on Ceph", Ceph::shared().map(Server::bucket))),
        ];
        threads.map(|thread| thread.join().unwrap())
    });
    println!("{}", table(&columns));
    let outcomes =
        columns.iter().flat_map(|(storage, outcomes)| outcomes.iter().flatten().map(move |outcome| (storage, outcome)));
    let broken = |(storage, (check, error)): (&&str, &Outcome)| {
        let error = error.as_ref()?;
        (!is_excused(storage, check, error)).then(|| format!("{storage}: {check}: {error}"))
    };
    let broken: Vec<_> = outcomes.filter_map(broken).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Every call of a storage that goes wrong in every way, in the storage's own wrapper and not on the wire; see
/// `s3_faults` for that. An artifact is of two parts.
#[test]
fn every_fault_of_a_call_ends_well_or_with_nothing_in_a_bucket() {
    let Some(bucket) = S3sFs::shared().map(Server::bucket) else { return };
    let count = Cell::new(0);
    let make = || {
        count.set(count.get() + 1);
        let settings = S3Settings { prefix: format!("n{}", count.get()), part_size: 5 << 20, ..bucket.settings() };
        S3::new(settings, BUDGET)
    };
    let outcomes = faults::run(&make, 2 << 20);
    let met = outcomes.iter().filter(|(_, outcome)| !matches!(outcome, Ok(Ending::NotMet))).count();
    assert!(met > 50, "{met} of {}", outcomes.len());
    assert_eq!(faults::broken(&outcomes), [] as [String; 0]);
}
