use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use super::*;
use crate::host::clock::SetClock;
use crate::host::engine::State;

fn member(name: &str) -> Member {
    Member { id: format!("id of {name}"), name: name.into(), failure: None }
}

fn undo(names: &[&str], cx: &Context) -> Undo {
    let members = names.iter().map(|name| member(name)).collect();
    Undo::new(Remedy::Start, EngineKind::Docker, members, &UnitName::new("app"), cx)
}

fn resumed(name: &str, way: Way) -> Resumed {
    let failure = if let Way::Failed(error) = &way { Some(error.cause()) } else { None };
    Resumed { member: Member { failure, ..member(name) }, way }
}

fn files(home: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(home.join("undo")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_record_is_left_to_others_when_its_process_is_gone_and_not_before() {
    let home = tempfile::tempdir().unwrap();
    let (cx, journal) = (Context::for_tests(), Journal::new(&home.path().join("state/of/ours")));
    assert!(journal.orphans(&cx).unwrap().found.is_empty());
    let undo = undo(&["web", "db"], &cx);
    let record = journal.record(&undo).unwrap();
    let path = record.path().to_owned();
    assert!(journal.orphans(&cx).unwrap().found.is_empty());
    drop(record);
    let orphans = journal.orphans(&cx).unwrap();
    assert_eq!(orphans.found[0].undo, undo);
    // Whoever has it, has it alone.
    assert!(journal.orphans(&cx).unwrap().found.is_empty());
    for (path, mode) in [(path.as_path(), 0o600), (path.parent().unwrap(), 0o700)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(undo.names(), "containers web, db");
    let Orphan { record, undo } = orphans.found.into_iter().next().unwrap();
    journal.settle(record, &undo, &[resumed("web", Way::Again), resumed("db", Way::Gone)]).unwrap();
    assert!(!path.exists() && journal.orphans(&cx).unwrap().found.is_empty());
}

#[test]
fn what_could_not_be_undone_stays_alone_with_its_reason() {
    let home = tempfile::tempdir().unwrap();
    let (cx, journal) = (Context::for_tests(), Journal::new(home.path()));
    let undo = undo(&["web", "db", "worker"], &cx);
    let record = journal.record(&undo).unwrap();
    let failed = || Way::Failed(Error::new(Kind::Child, "its port is taken"));
    journal
        .settle(
            record,
            &undo,
            &[resumed("web", Way::Again), resumed("db", failed()), resumed("worker", Way::ByItself(State::Running))],
        )
        .unwrap();
    let left = journal.orphans(&cx).unwrap().found.pop().unwrap();
    assert_eq!(left.undo.containers, [Member { failure: Some("its port is taken".into()), ..member("db") }]);
    assert_eq!((left.undo.since, left.undo.names()), (undo.since, "container db".into()));
    // Tried again in vain, it stays as it is.
    journal.settle(left.record, &left.undo, &[resumed("db", failed())]).unwrap();
    assert_eq!(files(home.path()).len(), 1);
    let left = journal.orphans(&cx).unwrap().found.pop().unwrap();
    journal.settle(left.record, &left.undo, &[resumed("db", Way::Again)]).unwrap();
    assert_eq!(files(home.path()), Vec::<PathBuf>::new());
}

#[test]
fn what_can_not_be_read_is_told_and_stays() {
    let home = tempfile::tempdir().unwrap();
    let (cx, journal) = (Context::for_tests(), Journal::new(home.path()));
    drop(journal.record(&undo(&["web"], &cx)).unwrap());
    let written = std::fs::read_to_string(&files(home.path())[0]).unwrap();
    std::fs::write(home.path().join("undo/newer.json"), written.replace("\"schema\": 1", "\"schema\": 2")).unwrap();
    std::fs::write(home.path().join("undo/cut.json"), &written[..written.len() / 2]).unwrap();
    std::fs::write(home.path().join("undo/empty.json"), "").unwrap();
    std::fs::create_dir(home.path().join("undo/directory.json")).unwrap();
    std::os::unix::fs::symlink(&files(home.path())[0], home.path().join("undo/link.json")).unwrap();
    let orphans = journal.orphans(&cx).unwrap();
    assert_eq!((orphans.found.len(), orphans.unreadable.len()), (1, 5));
    let newer = orphans.unreadable.iter().find(|error| error.to_string().contains("newer.json")).unwrap();
    assert!(
        newer.to_string().contains("its schema 2 is newer") && newer.hint_text().unwrap().contains("remove the file"),
        "{newer:?}"
    );
    assert_eq!(files(home.path()).len(), 6);
}

#[test]
fn a_file_that_was_no_record_yet_goes_when_it_is_old() {
    let home = tempfile::tempdir().unwrap();
    let (mut cx, journal) = (Context::for_tests(), Journal::new(home.path()));
    drop(journal.record(&undo(&["web"], &cx)).unwrap());
    std::fs::write(home.path().join("undo/.half.tmp"), "{").unwrap();
    journal.orphans(&cx).unwrap();
    assert_eq!(files(home.path()).len(), 2);
    cx.clock = Arc::new(SetClock::at(cx.clock.now() + chrono::Duration::hours(25)));
    assert_eq!(journal.orphans(&cx).unwrap().found.len(), 1);
    assert_eq!(files(home.path()).len(), 1);
}

#[test]
fn a_directory_that_can_not_be_written_says_what_to_set() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    let cx = Context::for_tests();
    let error = Journal::new(&home.path().join("file")).record(&undo(&["web"], &cx)).unwrap_err();
    assert!(error.hint_text().unwrap().contains("`state_dir:`") && error.hint_text().unwrap().contains("nothing was stopped"));
}

#[test]
fn a_container_is_one_holds_at_a_time_and_another_waits_for_it() {
    let home = tempfile::tempdir().unwrap();
    let (cx, journal) = (Context::for_tests(), Journal::new(home.path()));
    let [unit, second] = ["first", "second"].map(UnitName::new);
    let claims = journal.claim(EngineKind::Docker, &["web", "db", "web"], &unit, &cx).unwrap();
    assert_eq!(claims.len(), 2);
    assert!(journal.claim(EngineKind::Podman, &["web"], &unit, &cx).is_ok());
    assert_eq!(journal.claim_now(EngineKind::Docker, &["app", "db"], &cx).unwrap_err().kind(), Kind::Locked);
    let (other, waits) = (journal.clone(), cx.clone());
    let waiting =
        std::thread::spawn(move || other.claim(EngineKind::Docker, &["db"], &second, &waits).map(|claims| claims.len()));
    drop(claims);
    assert_eq!(waiting.join().unwrap().unwrap(), 1);
}
