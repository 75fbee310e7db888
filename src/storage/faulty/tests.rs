use super::*;
use crate::host::cancel::Reason;
use crate::storage::conformance::{self, context};
use crate::storage::memory::Memory;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn storage() -> (Faulty<Memory>, Context) {
    (Faulty::new(Memory::new()), context().unwrap())
}

fn listed(storage: &Faulty<Memory>, cx: &Context) -> Vec<String> {
    let mut keys = Vec::new();
    let mut each = |meta: ObjectMeta| {
        keys.push(meta.key.to_string());
        Ok(())
    };
    storage.list("h/", &mut each, cx).unwrap();
    keys
}

#[test]
fn it_keeps_the_contract() {
    assert_eq!(conformance::run(&|| Box::new(Faulty::new(Memory::new()))), Vec::<String>::new());
}

#[test]
fn the_suite_of_faults_notices_a_storage_that_breaks_the_contract() {
    let make = || {
        let storage = Faulty::new(Memory::new());
        // It loses half of a manifest, and then of what it should delete the manifest.
        storage.fail(Call::PutNew, 2, Fault::Short);
        storage.fail(Call::Delete, 1, Fault::Fail(Kind::Storage));
        storage
    };
    let outcomes = conformance::faults::run(&make, 10);
    assert!(outcomes.len() > 100 && conformance::faults::broken(&outcomes).len() > 100, "{outcomes:?}");
}

#[test]
fn only_the_nth_call_fails() {
    let (storage, cx) = storage();
    storage.fail(Call::Stat, 2, Fault::Fail(Kind::Storage));
    let kinds: Vec<_> = (0..3).map(|_| storage.stat(&key("h/r/f"), &cx).map_err(|error| error.kind())).collect();
    assert_eq!(kinds, [Ok(None), Err(Kind::Storage), Ok(None)]);
    assert_eq!((storage.calls(Call::Stat), storage.met()), (3, 1));
}

#[test]
fn a_healed_one_has_no_faults() {
    let (storage, cx) = storage();
    storage.fail(Call::Stat, 1, Fault::Fail(Kind::Storage));
    storage.heal();
    assert_eq!((storage.stat(&key("h/r/f"), &cx).unwrap(), storage.met()), (None, 0));
}

#[test]
fn a_fault_that_a_call_can_not_have_is_never_met() {
    let (storage, cx) = storage();
    storage.fail(Call::Stat, 1, Fault::Short);
    assert_eq!((storage.stat(&key("h/r/f"), &cx).unwrap(), storage.met()), (None, 0));
}

#[test]
fn a_short_write_or_put_says_nothing() {
    let (storage, cx) = storage();
    storage.fail(Call::Write, 1, Fault::Short);
    storage.fail(Call::PutNew, 1, Fault::Short);
    let mut upload = storage.upload(&key("h/r/f"), None, &cx).unwrap();
    upload.write(b"0123").unwrap();
    upload.write(b"4567").unwrap();
    upload.commit().unwrap();
    storage.put_new(&key("h/r/g"), b"0123", &cx).unwrap();
    assert_eq!(storage.inner().get(&key("h/r/f")).unwrap(), b"014567");
    assert_eq!(storage.inner().get(&key("h/r/g")).unwrap(), b"01");
}

#[test]
fn a_lost_response_is_of_a_thing_done() {
    let (storage, cx) = storage();
    let object = key("h/r/f");
    for call in [Call::Commit, Call::PutNew, Call::Delete] {
        storage.fail(call, 1, Fault::LostResponse);
    }
    let mut upload = storage.upload(&object, None, &cx).unwrap();
    upload.write(b"whole").unwrap();
    assert_eq!(upload.commit().unwrap_err().kind(), Kind::Connection);
    assert_eq!(storage.inner().get(&object).unwrap(), b"whole");
    assert_eq!(storage.delete(std::slice::from_ref(&object), &cx)[0].as_ref().unwrap_err().kind(), Kind::Connection);
    assert_eq!(storage.inner().get(&object), None);
    assert_eq!(storage.put_new(&object, b"again", &cx).unwrap_err().kind(), Kind::Connection);
    assert_eq!(storage.inner().get(&object).unwrap(), b"again");
}

#[test]
fn an_upload_whose_beginning_was_lost_is_a_leftover() {
    let (storage, cx) = storage();
    storage.fail(Call::Upload, 1, Fault::LostResponse);
    assert!(storage.upload(&key("h/r/f"), None, &cx).is_err());
    let mut found = Vec::new();
    let mut each = |leftover: Leftover| {
        found.push(leftover.key);
        Ok(())
    };
    storage.leftovers(&mut each, &cx).unwrap();
    assert_eq!(found, [key("h/r/f")]);
}

#[test]
fn a_read_is_cut_with_an_error_or_without() {
    let (storage, cx) = storage();
    storage.put_new(&key("h/r/f"), b"0123456789", &cx).unwrap();
    for (fault, from, expected, fails) in [
        (Fault::Short, 0, &b"01234"[..], true),
        (Fault::Short, 3, b"34", true),
        (Fault::EndsEarly, 0, b"01234", false),
        (Fault::EndsEarly, 7, b"", false),
    ] {
        storage.fail(Call::Read, 1, fault);
        let mut bytes = Vec::new();
        let outcome = storage.read(&key("h/r/f"), from, &cx).unwrap().read_to_end(&mut bytes);
        assert_eq!((outcome.is_err(), bytes.as_slice()), (fails, expected), "{fault:?} from {from} on");
    }
}

#[test]
fn a_stale_listing_is_that_of_a_moment_ago() {
    let (storage, cx) = storage();
    for name in ["h/r/old", "h/r/gone", "other/r/gone", "h/r/new"] {
        storage.put_new(&key(name), b"x", &cx).unwrap();
    }
    storage.delete(&[key("h/r/gone"), key("other/r/gone"), key("h/r/never")], &cx);
    storage.fail(Call::List, 1, Fault::Stale);
    assert_eq!(listed(&storage, &cx), ["h/r/old", "h/r/gone"]);
    assert_eq!(listed(&storage, &cx), ["h/r/new", "h/r/old"]);
}

#[test]
fn a_hang_ends_with_the_cancel() {
    for call in [Call::List, Call::Read] {
        let (storage, cx) = storage();
        storage.put_new(&key("h/r/f"), b"0123456789", &cx).unwrap();
        storage.fail(call, 1, Fault::Hang);
        let outcome = std::thread::scope(|scope| {
            let hanging = scope.spawn(|| match call {
                Call::List => storage.list("", &mut |_| Ok(()), &cx),
                _ => storage
                    .read(&key("h/r/f"), 0, &cx)?
                    .read_to_end(&mut Vec::new())
                    .map(drop)
                    .map_err(|error| crate::error::from_io(error, Kind::Storage, "read")),
            });
            while !storage.is_hanging() {
                std::thread::yield_now();
            }
            cx.cancel.cancel(Reason::Abandoned);
            hanging.join().unwrap()
        });
        assert_eq!(outcome.unwrap_err().kind(), Kind::Interrupted, "{call:?}");
    }
}
