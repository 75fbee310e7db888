//! `prune`, and the pruning of `backup`: what stays, what goes, what is said of it, and what nothing
//! may ever take.

use std::fs;
use std::path::Path;

use chrono::{DateTime, Duration, Utc};
use insta::assert_snapshot;

use crate::collect::{leave_incomplete, set_modified};
use crate::support::tool::files_below;
use crate::support::{Planted, Ran, SHARED, Test, cluster};

pub(crate) const NOW: &str = "2026-06-12T12:00:00Z";

/// Targets `app` and `app2` with this policy, in storages `local` and `offsite`.
pub(crate) fn test(policy: &str) -> Test {
    let test = Test::new().config(&config(policy, "", ""));
    fs::create_dir(test.path("offsite")).unwrap();
    test
}

fn config(policy: &str, offsite: &str, top: &str) -> String {
    format!(
        "version: 1\nhost: web1\nstate_dir: {{state}}\n{top}\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\n  \
         offsite: {{ type: local, path: '{{dir}}/offsite'{offsite} }}\n\
         defaults: {{ storages: [local, offsite]{policy} }}\ntargets:\n  - {{ name: app, type: postgres, database: app }}\n  \
         - {{ name: app2, type: postgres, database: app2 }}\n"
    )
}

pub(crate) const LAST_1: &str = ", retention: { keep_last: 1 }";

/// Plants five of a unit, `-aaa1` to `-aaa5`, on the days before.
pub(crate) fn plant_five(storage: &Path, unit: &str) {
    for day in 1..=5 {
        Planted::new(unit, &format!("202606{:02}_030000Z-aaa{day}", day + 5)).into(storage);
    }
}

/// What is whole by its files: the ends of their ids, in order; other units than `app` with their name.
pub(crate) fn left(storage: &Path) -> String {
    let manifests = files_below(storage).into_iter().filter(|path| path.ends_with(".manifest.json"));
    let short = |path: String| {
        let stem = Path::new(&path).file_name().unwrap().to_str().unwrap().trim_end_matches(".manifest.json").to_owned();
        let (unit, id) = stem.rsplit_once("Z-").map(|(head, id)| (head[..head.len() - 16].to_owned(), id)).unwrap();
        if unit == "app" { id.to_owned() } else { format!("{unit}:{id}") }
    };
    manifests.map(short).collect::<Vec<_>>().join(" ")
}

pub(crate) fn reasons(ran: &Ran, id: &str) -> String {
    let items = ran.json()["items"].as_array().unwrap().clone();
    let item =
        items.iter().find(|item| item["id"].as_str().unwrap().ends_with(id)).unwrap_or_else(|| panic!("no {id} in {items:?}"));
    let reasons = item["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap()).collect::<Vec<_>>();
    format!("{}: {}", item["decision"].as_str().unwrap(), reasons.join("; "))
}

#[test]
fn years_of_nights_leave_what_the_documentation_shows() {
    // What came before December 2025 is gone in any case by the end.
    let policy = ", retention: { keep_daily: 7, keep_weekly: 4, keep_monthly: 12, keep_yearly: 3 }";
    let test = Test::new().config(&config(policy, "", "timezone: Europe/Berlin"));
    fs::create_dir(test.path("offsite")).unwrap();
    let mut night: DateTime<Utc> = "2025-12-01T02:00:00Z".parse().unwrap();
    let last: DateTime<Utc> = "2026-12-31T02:00:00Z".parse().unwrap();
    while night <= last {
        Planted::new("app", &night.format("%Y%m%d_%H%M%SZ-aaaa").to_string()).into(&test.storage());
        test.run_at(&(night + Duration::minutes(5)).to_rfc3339(), ["-q", "prune", "app"]).ok();
        night += Duration::days(1);
    }
    let runs: Vec<_> = fs::read_dir(test.storage().join("web1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut days: Vec<_> = runs.iter().map(|run| &run[..8]).collect();
    days.sort_unstable();
    let mut expected = vec!["20251231", "20261213", "20261220"];
    expected.extend(["20260131", "20260228", "20260331", "20260430", "20260531", "20260630"]);
    expected.extend(["20260731", "20260831", "20260930", "20261031", "20261130"]);
    expected.extend(["20261225", "20261226", "20261227", "20261228", "20261229", "20261230", "20261231"]);
    expected.sort_unstable();
    assert_eq!(days, expected);
}

#[test]
fn days_and_hours_are_those_of_the_timezone_also_where_clocks_change() {
    // Timezone, policy, starts in UTC (all in the order of time), and which of them stay.
    let cases = [
        // 00:00 -02 becomes 23:00 -03: the 17th comes back, and has one last backup.
        ("America/Sao_Paulo", "keep_daily: 2", "20180218_003000Z 20180218_013000Z 20180218_023000Z 20180218_033000Z", "2 3"),
        // The hour that comes twice is two hours.
        ("America/Sao_Paulo", "keep_hourly: 3", "20180218_003000Z 20180218_013000Z 20180218_023000Z 20180218_033000Z", "1 2 3"),
        // Midnight doesn't exist: 23:30 -03 on the 3rd, 01:30 -02 on the 4th, then twice the 5th.
        ("America/Sao_Paulo", "keep_daily: 3", "20181104_023000Z 20181104_033000Z 20181105_023000Z 20181105_033000Z", "0 1 3"),
        ("UTC", "keep_daily: 3", "20181104_023000Z 20181104_033000Z 20181105_023000Z 20181105_033000Z", "1 3"),
        ("Europe/Berlin", "keep_hourly: 3", "20261024_233000Z 20261025_003000Z 20261025_013000Z 20261025_023000Z", "1 2 3"),
        ("Europe/Berlin", "keep_daily: 2", "20261024_215900Z 20261024_220000Z 20261025_225900Z 20261025_230000Z", "2 3"),
        // 02:00 becomes 03:00: the missing hour takes no place.
        ("Europe/Berlin", "keep_hourly: 2", "20260329_003000Z 20260329_005000Z 20260329_010000Z", "1 2"),
        ("Europe/Berlin", "keep_monthly: 2", "20260131_225900Z 20260131_230000Z 20260228_225900Z", "0 2"),
        ("America/Sao_Paulo", "keep_yearly: 2", "20260101_025900Z 20260101_030000Z 20260601_000000Z", "0 2"),
    ];
    for (timezone, policy, starts, expected) in cases {
        let test = Test::new().config(&config(&format!(", retention: {{ {policy} }}"), "", &format!("timezone: {timezone}")));
        fs::create_dir(test.path("offsite")).unwrap();
        for (number, start) in starts.split(' ').enumerate() {
            Planted::new("app", &format!("{start}-aaa{number}")).into(&test.storage());
        }
        test.run_at("2026-12-31T00:00:00Z", ["prune", "app"]).ok();
        assert_eq!(left(&test.storage()).replace("aaa", ""), expected, "{timezone}, {policy}, {starts}");
    }
}

#[test]
fn a_storages_own_policy_wins() {
    let test = test(LAST_1).config(&config(LAST_1, ", retention: { keep_last: 3 }", ""));
    for storage in ["storage", "offsite"] {
        plant_five(&test.path(storage), "app");
    }
    test.run_at(NOW, ["prune"]).ok();
    assert_eq!((left(&test.storage()), left(&test.path("offsite"))), ("aaa5".into(), "aaa3 aaa4 aaa5".into()));
}

#[test]
fn a_storage_that_only_grows_loses_nothing() {
    let test = test(LAST_1).config(&config(LAST_1, ", prune: false", ""));
    for storage in ["storage", "offsite"] {
        plant_five(&test.path(storage), "app");
        leave_incomplete(&test.path(storage), "app", "20260601_030000Z-inco", "2026-06-01T03:00:00Z");
    }
    let before = files_below(&test.path("offsite"));
    let ran = test.run_at(NOW, ["prune", "--dry-run", "--storage", "offsite", "--json"]).ok();
    assert_eq!(reasons(&ran, "aaa1"), "keep: the storage has prune: false");
    test.run_at(NOW, ["prune"]).ok();
    assert_eq!(left(&test.storage()), "aaa5");
    test.run_at(NOW, ["prune", "--delete", "aaa1"]).fails(2).says("prune: false");
    test.run_at(NOW, ["prune", "--pin", "aaa1", "--storage", "offsite"]).ok();
    test.run_at(NOW, ["prune", "--unpin", "aaa1"]).ok();
    assert_eq!(files_below(&test.path("offsite")), before);
}

#[test]
fn without_a_policy_nothing_is_deleted() {
    for policy in ["", ", retention: { keep_last: 0 }"] {
        let Some(test) = accepted(policy) else { continue };
        plant_five(&test.storage(), "app");
        test.run_at("2036-06-12T12:00:00Z", ["prune"]).ok();
        assert_eq!(left(&test.storage()), "aaa1 aaa2 aaa3 aaa4 aaa5", "{policy}");
    }
}

/// A policy may be refused as a whole, which keeps everything as well.
fn accepted(policy: &str) -> Option<Test> {
    let test = test(policy);
    (test.run(["validate"]).code == Some(0)).then_some(test)
}

#[test]
fn neither_prefixes_nor_other_hosts_nor_file_times_confuse_it() {
    let test = test(LAST_1);
    for unit in ["app", "app2", "app-staging", "app_x", "ap", "app.db"] {
        plant_five(&test.storage(), unit);
    }
    for host in ["web", "web10", "web1.lan"] {
        Planted::new("app", "20260601_030000Z-host").host(host).into(&test.storage());
        Planted::new("app", "20260602_030000Z-host").host(host).into(&test.storage());
    }
    // The oldest by its name is the newest by its files.
    for file in files_below(&test.storage()).iter().filter(|file| file.contains("aaa1")) {
        set_modified(&test.storage().join(file), NOW);
    }
    let others = |file: &String| !file.contains("/app_2026") || !file.starts_with("web1/");
    let before: Vec<_> = files_below(&test.storage()).into_iter().filter(others).collect();
    test.run_at(NOW, ["prune", "app"]).ok();
    let after = files_below(&test.storage());
    assert_eq!(after.iter().filter(|file| others(file)).cloned().collect::<Vec<_>>(), before);
    assert_eq!(after.len() - before.len(), 3, "{after:?}");
    // What the config no longer names has no policy.
    test.run_at(NOW, ["prune"]).ok();
    let rest = left(&test.storage().join("web1"));
    assert!(rest.contains("app2:aaa5") && !rest.contains("app2:aaa4"), "{rest}");
    assert!(["app-staging:aaa1", "app_x:aaa1", "ap:aaa1"].iter().all(|one| rest.contains(one)), "{rest}");
}

#[test]
fn pinned_newest_and_newest_proven_ones_stay_whatever_the_policy() {
    let test = test(LAST_1);
    plant_five(&test.storage(), "app");
    let stem =
        |day: u32| test.storage().join(format!("web1/202606{:02}_030000Z/app_202606{:02}_030000Z-aaa{day}", day + 5, day + 5));
    fs::write(stem(1).with_extension("pin"), "{}\n").unwrap();
    fs::write(stem(2).with_extension("verify.20260611_000000Z.ok"), "{}\n").unwrap();
    fs::remove_file(stem(5).with_extension("sql.gz")).unwrap();
    Planted::new("app", "20270101_000000Z-futu").into(&test.storage());
    let ran = test.run_at(NOW, ["prune", "--json"]).ok();
    assert_eq!(left(&test.storage()), "aaa1 aaa2 aaa4 aaa5 futu");
    assert_eq!(reasons(&ran, "aaa1"), "keep: pinned");
    assert_eq!(reasons(&ran, "aaa2"), "keep: newest proven backup");
    assert_eq!(reasons(&ran, "aaa3"), "delete: not kept by keep_last 1");
    assert_eq!(reasons(&ran, "aaa4"), "keep: newest whole backup; the newest one");
    assert_eq!(reasons(&ran, "aaa5"), "keep: damaged, but no whole backup is newer");
    assert_eq!(reasons(&ran, "futu"), "keep: dated in the future");
    // The same call again deletes nothing more.
    let before = files_below(&test.storage());
    test.run_at(NOW, ["prune"]).ok();
    assert_eq!(files_below(&test.storage()), before);
}

#[test]
fn what_is_unknown_stops_pruning_for_its_unit_alone() {
    let test = test(LAST_1);
    plant_five(&test.storage(), "app");
    plant_five(&test.storage(), "app2");
    plant_five(&test.path("offsite"), "app");
    let manifest = test.storage().join("web1/20260607_030000Z/app_20260607_030000Z-aaa2.manifest.json");
    fs::write(manifest, r#"{"schema": 7}"#).unwrap();
    let ran = test
        .run_at(NOW, ["prune", "--json"])
        .fails(3)
        .says("app: storage local: prune: nothing is pruned here: ")
        .says("aaa2.manifest.json");
    assert_eq!(left(&test.storage()), "aaa1 aaa2 aaa3 aaa4 app2:aaa5 aaa5");
    assert_eq!(left(&test.path("offsite")), "aaa5");
    assert_eq!(reasons(&ran, "-aaa2"), "keep: unknown: what can't be read is never deleted");
    assert_eq!(reasons(&ran, "-aaa1"), "keep: pruning is stopped: 20260607_030000Z-aaa2 is unknown");
}

#[test]
fn where_nothing_can_go_no_manifest_is_read_and_a_dry_run_says_what_is_done() {
    let test = test(", retention: { keep_last: 5 }");
    plant_five(&test.storage(), "app");
    let manifest = test.storage().join("web1/20260607_030000Z/app_20260607_030000Z-aaa2.manifest.json");
    fs::write(manifest, r#"{"schema": 7}"#).unwrap();
    let kept = |ran: &Ran, id: &str, reasons: &str| assert_eq!(self::reasons(ran, id), reasons);
    for arguments in [&["prune", "--json"][..], &["prune", "--json", "--dry-run"]] {
        let ran = test.run_at(NOW, arguments).ok();
        kept(&ran, "-aaa2", "keep: one of the 5 newest");
    }
    // One more, and the oldest is to go: that it can't is said, by both.
    Planted::new("app", "20260611_030000Z-aaa6").into(&test.storage());
    for arguments in [&["prune", "--json", "--dry-run"][..], &["prune", "--json"]] {
        let ran = test.run_at(NOW, arguments).fails(3).says("nothing is pruned here: ");
        kept(&ran, "-aaa2", "keep: unknown: what can't be read is never deleted");
        kept(&ran, "-aaa1", "keep: one of the 5 newest; pruning is stopped: 20260607_030000Z-aaa2 is unknown");
    }
    assert_eq!(left(&test.storage()), "aaa1 aaa2 aaa3 aaa4 aaa5 aaa6");
}

#[test]
fn neither_damage_nor_a_month_of_failures_ages_the_last_good_ones_out() {
    let test = test(", retention: { keep_days: 3 }");
    plant_five(&test.storage(), "app");
    for day in 12..30 {
        let files = Planted::new("app", &format!("202606{day}_030000Z-ba{day}")).into(&test.storage());
        fs::write(files.with_extension("sql.gz"), "").unwrap();
    }
    test.run_at("2026-08-30T12:00:00Z", ["prune"]).ok();
    let rest = left(&test.storage());
    assert!(rest.starts_with("aaa2 aaa3 aaa4 aaa5 ba12"), "{rest}");
    assert_eq!(rest.split(' ').count(), 4 + 18);
}

#[test]
fn dry_run_prints_each_decision_with_every_reason_and_deletes_nothing() {
    let policy = ", retention: { keep_last: 2, keep_weekly: 2 }";
    let test = test(policy);
    plant_five(&test.storage(), "app");
    let damaged = test.storage().join("web1/20260608_030000Z/app_20260608_030000Z-aaa3.sql.gz");
    fs::write(damaged, "short").unwrap();
    leave_incomplete(&test.storage(), "app", "20260601_030000Z-inco", "2026-06-01T03:00:00Z");
    Planted::new("app2", "20260610_030000Z-bbbb").pinned().into(&test.path("offsite"));
    let before = (files_below(&test.storage()), files_below(&test.path("offsite")));
    let ran = test.run_at(NOW, ["prune", "--dry-run"]).ok();
    let seed = crate::support::Seed::get(0);
    let (artifact, both) = (seed.artifact.len(), seed.artifact.len() + seed.inventory.len());
    let (table, summary) = ran.stdout.trim_end().rsplit_once('\n').unwrap();
    assert_snapshot!(table.replace(&format!("{artifact} B"), "SIZE ").replace(&format!("{both} B"), "BOTH "), @r"
    DECISION  ID                     UNIT  STORAGE  AGE   SIZE  REASONS
    delete    20260606_030000Z-aaa1  app   local     6d  SIZE   not kept by keep_last 2, keep_weekly 2
    keep      20260607_030000Z-aaa2  app   local     5d  SIZE   one of the 2 latest weeks: 2026-W23
    delete    20260608_030000Z-aaa3  app   local     4d    5 B  damaged; not kept by keep_last 2, keep_weekly 2
    keep      20260609_030000Z-aaa4  app   local     3d  SIZE   one of the 2 newest
    keep      20260610_030000Z-aaa5  app   local     2d  SIZE   newest whole backup; one of the 2 newest; one of the 2 latest weeks: 2026-W24
    delete    20260601_030000Z-inco  app   local    11d  BOTH   it never became whole
    keep      20260610_030000Z-bbbb  app2  offsite   2d  SIZE   newest whole backup; one of the 2 newest; one of the 2 latest weeks: 2026-W24; pinned
    ");
    assert!(summary.starts_with("would delete 3 (") && summary.ends_with("), keep 4"), "{summary}");
    assert_eq!((files_below(&test.storage()), files_below(&test.path("offsite"))), before);
    assert!(!test.path("state/locks").exists());
    let ran = test.run_at(NOW, ["prune"]).ok();
    assert!(ran.stderr.contains("app: deleted 20260606_030000Z-aaa1 in local"), "{}", ran.stderr);
    assert!(ran.stderr.contains("prune: 3 deleted"), "{}", ran.stderr);
}

#[test]
fn one_is_pinned_unpinned_and_deleted_by_its_id_in_all_storages() {
    let test = test(LAST_1);
    for storage in ["storage", "offsite"] {
        plant_five(&test.path(storage), "app");
    }
    Planted::new("app2", "20260606_030000Z-aaa9").into(&test.storage());
    Planted::new("app2", "20260607_030000Z-aaa1").into(&test.storage());
    let pins = || files_below(&test.path("")).into_iter().filter(|file| file.contains(".pin")).count();
    test.run_at(NOW, ["prune", "--pin", "aaa2", "--dry-run"]).ok();
    assert_eq!(pins(), 0);
    test.run_at(NOW, ["prune", "--pin", "aaa2"]).ok().says("app: pinned 20260607_030000Z-aaa2 in local").says("in offsite");
    test.run_at(NOW, ["prune", "--pin", "20260607_030000Z-aaa2"]).ok();
    assert_eq!(pins(), 2);
    test.run_at(NOW, ["prune", "--delete", "aaa2"]).fails(2).says("it is pinned").says("--unpin");
    test.run_at(NOW, ["prune"]).ok();
    assert_eq!(left(&test.path("offsite")), "aaa2 aaa5");
    test.run_at(NOW, ["prune", "--unpin", "aaa2"]).ok().says("app: unpinned 20260607_030000Z-aaa2 in local");
    assert_eq!(pins(), 0);
    test.run_at(NOW, ["prune", "--delete", "aaa2"]).ok().says("app: deleted 20260607_030000Z-aaa2 in offsite");
    assert_eq!((left(&test.path("offsite")), left(&test.storage())), ("aaa5".into(), "app2:aaa1 aaa5".into()));
    assert!(!test.path("offsite/web1/20260607_030000Z").exists());

    Planted::new("app", "20260601_030000Z-aaa1").into(&test.storage());
    test.run_at(NOW, ["prune", "--delete", "aaa1"]).fails(4).says("not one backup alone").says("20260601_030000Z-aaa1");
    test.run_at(NOW, ["prune", "--delete", "nono"]).fails(4);
    test.run_at(NOW, ["prune", "--delete", "20260601_030000Z-nono"]).fails(4).says("20260601_030000Z-aaa1");
    for when in ["latest", "2026-06-01", "3d", "no id"] {
        test.run_at(NOW, ["prune", "--delete", when]).fails(2);
    }
    test.run_at(NOW, ["prune", "app", "--delete", "aaa1"]).fails(2);
    // An id's end that reads as an age is an id here.
    Planted::new("app", "20260602_030000Z-100d").into(&test.storage());
    test.run_at(NOW, ["prune", "--delete", "100d"]).ok();
    assert_eq!(left(&test.storage()), "aaa1 app2:aaa1 aaa5");
}

/// Like [`config`], with a real database behind `app`.
fn real(database: &crate::support::Database, policy: &str) -> Test {
    let yaml = config(policy, "", "").replace(
        "database: app }",
        &format!(
            "database: {}, host: 127.0.0.1, port: {}, user: {}, password: '${{PW}}' }}",
            database.name(),
            SHARED.port(),
            cluster::SUPERUSER
        ),
    );
    let test = Test::new()
        .env("PW", cluster::PASSWORD)
        .config(&yaml.replace("database: app2 }", "database: app2, host: '{dir}/no-server', retries: 0 }"));
    fs::create_dir(test.path("offsite")).unwrap();
    test
}

#[test]
fn a_backup_prunes_its_own_unit_and_a_failed_one_nothing() {
    let database = SHARED.create_database();
    let test = real(&database, ", retention: { keep_last: 2 }");
    for unit in ["app", "app2", "other"] {
        plant_five(&test.storage(), unit);
    }
    let ran = test.run_at(NOW, ["backup", "--no-prune", "app"]).ok();
    assert!(!ran.stderr.contains("deleted"), "{}", ran.stderr);
    let all = left(&test.storage());
    assert_eq!(all.split(' ').count(), 16, "{all}");
    let ran = test.run_at("2026-06-13T12:00:00Z", ["backup", "--json"]).fails(1);
    let pruned = ran.json()["items"][0]["pruned"].as_array().unwrap().len();
    assert_eq!((pruned, &ran.json()["items"][1]["pruned"]), (5, &serde_json::json!([])));
    let rest = left(&test.storage());
    assert_eq!(rest.split(' ').filter(|one| !one.contains(':')).count(), 2, "{rest}");
    assert_eq!(rest.split(' ').filter(|one| one.starts_with("app2:") || one.starts_with("other:")).count(), 10, "{rest}");
}

#[test]
fn nights_of_real_backups_leave_the_policys_own() {
    let database = SHARED.create_database();
    let test = real(&database, ", retention: { keep_last: 2, keep_weekly: 2 }");
    for day in 1..=16 {
        test.run_at(&format!("2026-06-{day:02}T03:00:00Z"), ["backup", "app"]).ok();
    }
    let runs = |storage: &Path| {
        let mut runs: Vec<_> =
            fs::read_dir(storage.join("web1")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        runs.sort();
        runs
    };
    let expected = ["20260614_030000Z", "20260615_030000Z", "20260616_030000Z"];
    assert_eq!(
        (runs(&test.storage()), runs(&test.path("offsite"))),
        (expected.map(String::from).to_vec(), expected.map(String::from).to_vec())
    );
}

#[test]
fn only_the_storages_that_took_it_are_pruned() {
    use std::os::unix::fs::PermissionsExt;
    let database = SHARED.create_database();
    let test = real(&database, LAST_1);
    for storage in ["storage", "offsite"] {
        plant_five(&test.path(storage), "app");
    }
    let test = test.unprivileged();
    // Nothing new can be made here, and what is there could be deleted.
    let closed = test.path("offsite/web1");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    test.run(["backup", "app"]).fails(3).says("storage offsite");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(left(&test.path("offsite")), "aaa1 aaa2 aaa3 aaa4 aaa5");
    assert_eq!(left(&test.storage()).split(' ').count(), 1);
}
