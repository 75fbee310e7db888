//! What every storage and every wrapper of one must keep: the contract of [`Storage`], as checks.
//! Each check gets a storage of its own, empty. Nothing here knows how a storage does it.

pub mod faults;

use std::io::Read;
use std::sync::{Arc, Barrier};

use crate::error::{Error, Kind, Result, from_io};
use crate::host::cancel::{Cancel, Reason};
use crate::host::clock::SystemClock;
use crate::host::{Context, Env};
use crate::names::Key;
use crate::observe::Silent;
use crate::storage::{ObjectMeta, Storage};

type Check = fn(&dyn Storage, &Context) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("nothing is visible before the commit", nothing_is_visible_before_the_commit),
    ("what was written is what is read", what_was_written_is_what_is_read),
    ("a read begins where it is told to", a_read_begins_where_it_is_told_to),
    ("of many each is its own", of_many_each_is_its_own),
    ("an empty object is an object", an_empty_object_is_an_object),
    ("a key is written once", a_key_is_written_once),
    ("of two uploads at once one wins", of_two_uploads_at_once_one_wins),
    ("of two puts at once one wins", of_two_puts_at_once_one_wins),
    ("a dropped upload leaves nothing", a_dropped_upload_leaves_nothing),
    ("an aborted upload leaves nothing", an_aborted_upload_leaves_nothing),
    ("what is not there is missing", what_is_not_there_is_missing),
    ("a listing holds what has the prefix", a_listing_holds_what_has_the_prefix),
    ("a listing ends with its caller's error", a_listing_ends_with_its_callers_error),
    ("odd characters stay as they are", odd_characters_stay_as_they_are),
    ("a delete is each key's own", a_delete_is_each_keys_own),
    ("an upload that never ends is a leftover", an_upload_that_never_ends_is_a_leftover),
    ("a cancelled call ends", a_cancelled_call_ends),
];

/// Runs every check, each over a new, empty storage from `make`; what did not hold comes back, a
/// line each. `make` may be called often.
pub fn run(make: &dyn Fn() -> Box<dyn Storage>) -> Vec<String> {
    outcomes(make).filter_map(|(name, outcome)| outcome.err().map(|error| format!("{name}: {error:?}"))).collect()
}

/// The same, check by check as it is asked for: its name, and what did not hold.
pub fn outcomes(make: &dyn Fn() -> Box<dyn Storage>) -> impl Iterator<Item = (&'static str, Result<()>)> {
    CHECKS.iter().map(|(name, check)| {
        let outcome = context().and_then(|cx| {
            let storage = make();
            storage.prepare(&cx)?;
            storage.prepare(&cx)?;
            check(storage.as_ref(), &cx)
        });
        (*name, outcome)
    })
}

/// A context for tests: the system's clock, no variables, nobody who listens.
pub fn context() -> Result<Context> {
    Ok(Context {
        cancel: Cancel::new()?,
        env: Arc::new(Env::default()),
        clock: Arc::new(SystemClock),
        observer: Arc::new(Silent),
    })
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(Kind::Check, what())) }
}

fn ensure_kind<T>(outcome: Result<T>, kind: Kind, what: &str) -> Result<()> {
    match outcome {
        Ok(_) => Err(Error::new(Kind::Check, format!("{what}: it went well"))),
        Err(error) => ensure(error.kind() == kind, || format!("{what}: {error:?}")),
    }
}

fn key(text: &str) -> Result<Key> {
    text.parse().map_err(|error: crate::names::NameError| Error::new(Kind::Internal, error.to_string()))
}

fn upload(storage: &dyn Storage, key: &Key, bytes: &[u8], cx: &Context) -> Result<ObjectMeta> {
    let mut upload = storage.upload(key, Some(bytes.len() as u64), cx)?;
    for block in bytes.chunks(1 << 20) {
        upload.write(block)?;
    }
    upload.commit()
}

fn read(storage: &dyn Storage, key: &Key, from: u64, cx: &Context) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = storage.read(key, from, cx)?;
    reader.read_to_end(&mut bytes).map_err(|error| from_io(error, Kind::Storage, "read"))?;
    Ok(bytes)
}

fn listed(storage: &dyn Storage, prefix: &str, cx: &Context) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut each = |object: ObjectMeta| {
        keys.push(object.key.to_string());
        Ok(())
    };
    storage.list(prefix, &mut each, cx)?;
    keys.sort();
    Ok(keys)
}

fn leftovers(storage: &dyn Storage, cx: &Context) -> Result<Vec<crate::storage::Leftover>> {
    let mut found = Vec::new();
    let mut each = |leftover| {
        found.push(leftover);
        Ok(())
    };
    storage.leftovers(&mut each, cx)?;
    Ok(found)
}

fn ensure_empty(storage: &dyn Storage, when: &str, cx: &Context) -> Result<()> {
    let (keys, left) = (listed(storage, "", cx)?, leftovers(storage, cx)?);
    ensure(keys.is_empty() && left.is_empty(), || format!("{when} it holds {keys:?} {left:?}"))
}

fn nothing_is_visible_before_the_commit(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let key = key("web1/run/app.sql.gz")?;
    let mut upload = storage.upload(&key, None, cx)?;
    upload.write(b"half of")?;
    ensure(listed(storage, "", cx)?.is_empty(), || "an upload under way is listed".into())?;
    ensure(storage.stat(&key, cx)?.is_none(), || "an upload under way has a stat".into())?;
    ensure_kind(read(storage, &key, 0, cx), Kind::Missing, "reading an upload under way")?;
    upload.write(b" it")?;
    let meta = upload.commit()?;
    ensure(meta.key == key && meta.bytes.is_none_or(|bytes| bytes == 10), || format!("a commit said {meta:?}"))?;
    ensure(listed(storage, "", cx)? == [key.as_str()], || "a committed object is not listed".into())?;
    ensure(leftovers(storage, cx)?.is_empty(), || "a committed upload is a leftover".into())
}

fn what_was_written_is_what_is_read(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let key = key("web1/run/app.sql.gz")?;
    let bytes: Vec<u8> = (0..5_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    upload(storage, &key, &bytes, cx)?;
    ensure(read(storage, &key, 0, cx)? == bytes, || "5 MiB came back otherwise".into())?;
    let meta = storage.stat(&key, cx)?;
    ensure(meta.as_ref().is_some_and(|meta| meta.key == key && meta.bytes == Some(5 << 20)), || format!("a stat said {meta:?}"))?;
    // Within a day: a storage's clock and ours may differ, but not by that.
    let age = meta.and_then(|meta| meta.modified).map(|at| storage.now(cx).map(|now| (now - at).num_hours().abs()));
    ensure(age.transpose()?.is_some_and(|hours| hours < 24), || "a stat gives no time of the last change".into())
}

fn a_read_begins_where_it_is_told_to(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let key = key("web1/run/app.sql")?;
    upload(storage, &key, b"0123456789", cx)?;
    for (from, expected) in [(0, &b"0123456789"[..]), (3, b"3456789"), (9, b"9"), (10, b"")] {
        let bytes = read(storage, &key, from, cx)?;
        ensure(bytes == expected, || format!("from {from} on it reads {bytes:?}"))?;
    }
    ensure_kind(read(storage, &key, 11, cx), Kind::Damaged, "reading from behind the end on")
}

fn of_many_each_is_its_own(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let keys = ["web1/run/long", "web1/run/absent", "web1/run/empty", "web1/gone/exact"].map(key);
    let keys = keys.into_iter().collect::<Result<Vec<Key>>>()?;
    for (at, bytes) in [(0, &b"0123456789"[..]), (2, b""), (3, b"0123")] {
        storage.put_new(&keys[at], bytes, cx)?;
    }
    let read = storage.read_small(&keys, 4, cx).into_iter();
    let read: Vec<_> = read.map(|outcome| outcome.map_err(|error| error.kind())).collect();
    let expected = [Ok(b"0123".to_vec()), Err(Kind::Missing), Ok(Vec::new()), Ok(b"0123".to_vec())];
    ensure(read == expected, || format!("it reads {read:?}"))?;
    let found = storage.stat_many(&keys, cx).into_iter().collect::<Result<Vec<_>>>()?;
    let bytes: Vec<_> = found.iter().map(|found| found.as_ref().and_then(|meta| meta.bytes)).collect();
    ensure(bytes == [Some(10), None, Some(0), Some(4)], || format!("sizes are {bytes:?}"))?;
    ensure(storage.read_small(&[], 4, cx).is_empty() && storage.stat_many(&[], cx).is_empty(), || "none are some".into())
}

fn an_empty_object_is_an_object(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let (uploaded, put) = (key("web1/run/app.sql")?, key("web1/run/app.pin")?);
    storage.upload(&uploaded, None, cx)?.commit()?;
    storage.put_new(&put, b"", cx)?;
    for key in [&uploaded, &put] {
        ensure(storage.stat(key, cx)?.is_some_and(|meta| meta.bytes == Some(0)), || format!("{key} has no stat of 0 bytes"))?;
        ensure(read(storage, key, 0, cx)?.is_empty(), || format!("{key} is not empty"))?;
    }
    ensure(listed(storage, "", cx)?.len() == 2, || "an empty object is not listed".into())
}

fn a_key_is_written_once(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let key = key("web1/run/app.sql")?;
    let early = storage.upload(&key, None, cx)?;
    upload(storage, &key, b"first", cx)?;
    ensure_kind(early.commit(), Kind::Exists, "an upload begun before another committed")?;
    ensure_kind(upload(storage, &key, b"second", cx), Kind::Exists, "a second upload")?;
    ensure_kind(storage.put_new(&key, b"third", cx), Kind::Exists, "a put over an upload")?;
    ensure(read(storage, &key, 0, cx)? == b"first", || "the content has changed".into())?;
    ensure(leftovers(storage, cx)?.is_empty(), || "a refused upload is left over".into())
}

fn ensure_one_winner(outcomes: [Result<ObjectMeta>; 2], contents: [&[u8]; 2], found: &[u8]) -> Result<()> {
    let [first, second] = outcomes;
    let (won, lost) = match (first, second) {
        (Ok(_), Err(error)) => (contents[0], error),
        (Err(error), Ok(_)) => (contents[1], error),
        (first, second) => return Err(Error::new(Kind::Check, format!("not one winner: {first:?}, {second:?}"))),
    };
    ensure(lost.kind() == Kind::Exists, || format!("the loser got {lost:?}"))?;
    ensure(found == won, || "the content is not the winner's".into())
}

type Put<'a> = &'a (dyn Fn(&Key, &[u8]) -> Result<ObjectMeta> + Sync);

fn race(storage: &dyn Storage, put: Put<'_>, cx: &Context) -> Result<()> {
    let contents = [vec![b'a'; 70_000], vec![b'b'; 50_000]];
    let contents = [contents[0].as_slice(), contents[1].as_slice()];
    for round in 0..20 {
        let key = key(&format!("web1/run{round}/app.sql"))?;
        let barrier = Barrier::new(2);
        let attempt = |bytes| {
            barrier.wait();
            put(&key, bytes)
        };
        let outcomes = std::thread::scope(|scope| {
            let other = scope.spawn(|| attempt(contents[0]));
            let second = attempt(contents[1]);
            let first = other.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, "an upload panicked")));
            [first, second]
        });
        ensure_one_winner(outcomes, contents, &read(storage, &key, 0, cx)?)?;
    }
    ensure(leftovers(storage, cx)?.is_empty(), || "the loser is left over".into())
}

fn of_two_uploads_at_once_one_wins(storage: &dyn Storage, cx: &Context) -> Result<()> {
    race(storage, &|key, bytes| upload(storage, key, bytes, cx), cx)
}

fn of_two_puts_at_once_one_wins(storage: &dyn Storage, cx: &Context) -> Result<()> {
    race(storage, &|key, bytes| storage.put_new(key, bytes, cx), cx)
}

fn a_dropped_upload_leaves_nothing(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let key = key("web1/run/app.sql")?;
    let mut dropped = storage.upload(&key, None, cx)?;
    dropped.write(&vec![7; 100_000])?;
    drop(dropped);
    drop(storage.upload(&key, None, cx)?);
    ensure_empty(storage, "after a drop", cx)?;
    upload(storage, &key, b"another", cx).map(|_| ())
}

fn an_aborted_upload_leaves_nothing(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let key = key("web1/run/app.sql")?;
    let mut aborted = storage.upload(&key, None, cx)?;
    aborted.write(&vec![7; 100_000])?;
    aborted.abort()?;
    ensure_empty(storage, "after an abort", cx)?;
    upload(storage, &key, b"another", cx).map(|_| ())
}

fn what_is_not_there_is_missing(storage: &dyn Storage, cx: &Context) -> Result<()> {
    ensure_empty(storage, "new,", cx)?;
    storage.put_new(&key("web1/run/app.sql")?, b"x", cx)?;
    for text in ["web1/run/app", "web1/run/app.sql.gz", "web1/ru/app.sql", "web/run/app.sql", "web2/run/app.sql"] {
        let key = key(text)?;
        ensure(storage.stat(&key, cx)?.is_none(), || format!("{key} has a stat"))?;
        ensure_kind(read(storage, &key, 0, cx), Kind::Missing, text)?;
    }
    Ok(())
}

fn a_listing_holds_what_has_the_prefix(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let all = ["web1/r1/app2_x.sql", "web1/r1/app_x.sql", "web1/r2/app_x.pin", "web1/r2/app_x.sql", "web10/r1/app_x.sql"];
    for text in all.iter().rev() {
        storage.put_new(&key(text)?, b"x", cx)?;
    }
    let prefixes = [
        "",
        "w",
        "web1",
        "web1/",
        "web10/",
        "web2/",
        "web1/r",
        "web1/r1/",
        "web1/r2/app_x.",
        "web1/r1/app",
        "web1/r1/app_",
        "x",
        "/",
        "web1/r1/app_x.sql",
        "web1/r1/app_x.sql/",
        "web1//",
    ];
    for prefix in prefixes {
        let expected: Vec<_> = all.iter().filter(|key| key.starts_with(prefix)).copied().collect();
        let found = listed(storage, prefix, cx)?;
        ensure(found == expected, || format!("under {prefix:?} it lists {found:?}"))?;
    }
    Ok(())
}

fn a_listing_ends_with_its_callers_error(storage: &dyn Storage, cx: &Context) -> Result<()> {
    storage.put_new(&key("web1/r1/a.sql")?, b"x", cx)?;
    storage.put_new(&key("web1/r1/b.sql")?, b"x", cx)?;
    let mut seen = 0;
    let mut each = |_| {
        seen += 1;
        Err(Error::new(Kind::Check, "enough"))
    };
    ensure_kind(storage.list("", &mut each, cx), Kind::Check, "a listing whose caller failed")?;
    ensure(seen == 1, || format!("it went on to {seen} objects"))
}

fn odd_characters_stay_as_they_are(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let names =
        ["100%", "%41", "a+b", "a b", "größe", "中文", "~x~0", "a&b=c", "a#?;:@,", "é", "e\u{301}", "A", "a", "a\\b", "\"'"];
    for name in names {
        let key = key(&format!("web{name}/run{name}/{name}.sql"))?;
        upload(storage, &key, name.as_bytes(), cx)?;
    }
    let mut expected: Vec<_> = names.iter().map(|name| format!("web{name}/run{name}/{name}.sql")).collect();
    expected.sort();
    let found = listed(storage, "", cx)?;
    ensure(found == expected, || format!("it lists {found:?}"))?;
    for name in names {
        let key = key(&format!("web{name}/run{name}/{name}.sql"))?;
        ensure(read(storage, &key, 0, cx)? == name.as_bytes(), || format!("{key} holds another's bytes"))?;
        ensure(listed(storage, key.as_str(), cx)? == [key.as_str()], || format!("{key} is not listed under itself"))?;
    }
    Ok(())
}

fn a_delete_is_each_keys_own(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let keys = [key("web1/r1/a.manifest.json")?, key("web1/r1/a.sql")?, key("web1/r2/b.sql")?];
    for key in &keys {
        storage.put_new(key, b"x", cx)?;
    }
    let gone = [keys[0].clone(), key("web1/r1/never.sql")?, key("web9/r9/never.sql")?, keys[1].clone(), keys[1].clone()];
    for again in ["first", "second"] {
        let outcomes = storage.delete(&gone, cx);
        ensure(outcomes.len() == gone.len() && outcomes.iter().all(Result::is_ok), || format!("the {again} time: {outcomes:?}"))?;
    }
    ensure(listed(storage, "", cx)? == [keys[2].as_str()], || "it took the wrong ones".into())?;
    ensure(storage.delete(&[], cx).is_empty(), || "no keys have an outcome".into())?;
    upload(storage, &keys[1], b"new", cx).map(|_| ())
}

fn an_upload_that_never_ends_is_a_leftover(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let key = key("web1/run/app+ %.sql")?;
    let mut killed = storage.upload(&key, None, cx)?;
    killed.write(&[7; 1000])?;
    // What a process leaves that is killed here.
    std::mem::forget(killed);
    ensure(listed(storage, "", cx)?.is_empty(), || "it is listed".into())?;
    for leftover in leftovers(storage, cx)? {
        ensure(leftover.key == key, || format!("the leftover says {leftover:?}"))?;
        let age = storage.now(cx)? - leftover.modified;
        ensure(age.num_hours().abs() < 24, || format!("its age is {age}"))?;
        storage.discard(&leftover, cx)?;
        // Somebody else may have been faster.
        storage.discard(&leftover, cx)?;
    }
    ensure_empty(storage, "after the discard", cx)?;
    upload(storage, &key, b"another", cx).map(|_| ())
}

fn a_cancelled_call_ends(storage: &dyn Storage, cx: &Context) -> Result<()> {
    let (there, new) = (key("web1/run/there.sql")?, key("web1/run/new.sql")?);
    upload(storage, &there, b"there", cx)?;
    let mut reader = storage.read(&there, 0, cx)?;
    let mut under_way = storage.upload(&new, None, cx)?;
    under_way.write(b"some")?;
    cx.cancel.cancel(Reason::Signal(15));
    let read = reader.read(&mut [0; 10]).map_err(|error| from_io(error, Kind::Storage, "read"));
    ensure_kind(read, Kind::Interrupted, "a read")?;
    ensure_kind(under_way.write(b"more"), Kind::Interrupted, "a write")?;
    ensure_kind(under_way.commit(), Kind::Interrupted, "a commit")?;
    ensure_kind(storage.upload(&new, None, cx).map(|_| ()), Kind::Interrupted, "an upload")?;
    ensure_kind(storage.put_new(&new, b"x", cx), Kind::Interrupted, "a put")?;
    ensure_kind(storage.list("", &mut |_| Ok(()), cx), Kind::Interrupted, "a listing")?;
    for outcome in storage.delete(&[there.clone(), new], cx) {
        ensure_kind(outcome, Kind::Interrupted, "a delete")?;
    }
    let after = context()?;
    ensure(listed(storage, "", &after)? == [there.as_str()], || "a cancelled call did something".into())?;
    ensure(leftovers(storage, &after)?.is_empty(), || "a cancelled upload is left over".into())
}
