//! A `restore --replace` that ends in the middle, wherever that is: the live database is as it was, or wholly
//! replaced with the former one beside it.

use std::fs;

use crate::forge::{backed_up, databases_of};
use crate::session::Session;
use crate::support::{Cluster, Database, Ran, Test, eventually};

/// Counts psql's calls. At the one whose number is in `at`, the program is killed: with `during` when psql begins,
/// which goes on without it, with `after` when psql has ended. The session that holds the lock asks nothing, and ends last.
const KILLER: &str = r#"case "$PGAPPNAME" in 'db-backup-tools lock '*) exec {real} "$@" ;; esac
    n=$(cat '{dir}/calls'); n=$((n + 1)); echo $n >'{dir}/calls'
    [ "$n" = "$(cat '{dir}/at')" ] || exec {real} "$@"
    if grep -q during '{dir}/how'; then
        exec 3<&0; {real} "$@" <&3 & kill -9 $PPID; wait; touch '{dir}/ended'
    else
        {real} "$@"; kill -9 $PPID; touch '{dir}/ended'
    fi"#;

/// A live database that has changed since its backup, and what both look like.
struct Live {
    database: Database,
    before: String,
    backed_up: String,
}

impl Live {
    fn new(cluster: &Cluster) -> (Self, Test) {
        let database = cluster.create_database();
        database.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('old'), ('old')");
        let (test, backed_up) = (backed_up(&database, "gzip"), database.dump());
        database.psql("UPDATE t SET what = 'new'; CREATE TABLE later (i int)");
        let before = database.dump();
        (Self { database, before, backed_up }, test)
    }

    fn named(&self, middle: &str) -> Vec<String> {
        databases_of(self.database.cluster(), &format!("{}_{middle}_", self.database.name()))
    }

    /// Whether it is replaced. It must be so wholly, or not at all.
    #[track_caller]
    fn is_replaced(&self, when: &str) -> bool {
        let cluster = self.database.cluster();
        let ours = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, 'db-backup-tools restore')";
        eventually("its sessions are gone", || cluster.psql("postgres", ours) == "0");
        let (now, formers, scratch) = (self.database.dump(), self.named("before"), self.named("restoring"));
        if formers.is_empty() {
            assert_eq!(now, self.before, "{when}");
            assert!(scratch.len() < 2, "{when}: {scratch:?}");
            return false;
        }
        assert_eq!((formers.len(), scratch.len()), (1, 0), "{when}: {formers:?}, {scratch:?}");
        assert_eq!(now, self.backed_up, "{when}");
        let former = cluster.adopt(&formers[0]);
        let kept = former.dump();
        // It is put back by its name: no guard is to drop it.
        std::mem::forget(former);
        assert_eq!(kept, self.before, "{when}");
        true
    }

    /// As it was before a run that was broken off.
    fn put_back(&self) {
        let (cluster, name) = (self.database.cluster(), self.database.name());
        for scratch in self.named("restoring") {
            cluster.psql("postgres", &format!("DROP DATABASE {scratch} WITH (FORCE)"));
        }
        for former in self.named("before") {
            cluster.psql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
            cluster.psql("postgres", &format!("ALTER DATABASE {former} RENAME TO {name}; COMMENT ON DATABASE {name} IS NULL"));
        }
    }
}

/// Kills the program at each call of psql from this one on, and looks what is there then. How often it was replaced.
fn killed_at_each_call(from: usize, how: &str, options: &[&str]) -> usize {
    let (live, test) = Live::new(&Cluster::start());
    // The backup was made with programs of its own: from here on they are the test's.
    let text = fs::read_to_string(test.path("backup.yml")).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("client_bin:")).collect();
    let test = test.file("backup.yml", &kept.join("\n")).file("how", how).fake_bin("psql", KILLER);
    let mut replaced = 0;
    for at in from.. {
        test.write("at", &at.to_string());
        test.write("calls", "0");
        let _session = (!options.is_empty()).then(|| Session::start(live.database.cluster(), live.database.name(), "SELECT 1;"));
        let ran = test.run(["restore", "app", "--replace"].iter().chain(options));
        if ran.signal.is_some() {
            eventually("psql has ended", || test.path("ended").exists());
            fs::remove_file(test.path("ended")).unwrap();
        }
        let is_replaced = live.is_replaced(&format!("killed {how} call {at}"));
        replaced += usize::from(is_replaced);
        if ran.signal.is_none() {
            ran.ok();
            assert!(is_replaced && at > from + 3, "it was never killed");
            live.put_back();
            return replaced - 1;
        }
        live.put_back();
    }
    replaced
}

#[test]
fn killed_after_any_question_to_the_server_it_has_replaced_all_or_nothing() {
    assert_eq!(killed_at_each_call(1, "after", &[]), 1, "only the last call replaces");
}

#[test]
fn killed_at_the_start_of_any_question_to_the_server_it_has_replaced_all_or_nothing() {
    assert!(killed_at_each_call(1, "during", &[]) <= 1);
}

#[test]
fn killed_while_it_ends_sessions_it_has_replaced_all_or_nothing() {
    // What comes before does not differ.
    assert!(killed_at_each_call(11, "during", &["--disconnect"]) <= 2);
}

/// A restore whose server crashes at this place in the transaction that swaps.
fn crashed(place: &str) -> (Live, Ran) {
    let cluster = Cluster::start();
    let (live, test) = Live::new(&cluster);
    let text = fs::read_to_string(test.path("backup.yml")).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("client_bin:")).collect();
    let slow =
        format!(r#"case "$PGAPPNAME" in *swap) sed 's/^COMMIT;$/{place}/' | {{real}} "$@" ;; *) exec {{real}} "$@" ;; esac"#);
    let test = test.file("backup.yml", &kept.join("\n")).fake_bin("psql", &slow);
    let running = test.spawn(["restore", "app", "--replace"]);
    let at_it = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'db-backup-tools%swap' AND query LIKE '%pg_sleep%'";
    let mut pid = String::new();
    eventually("the swap is at its place", || {
        pid = cluster.psql("postgres", at_it);
        !pid.is_empty()
    });
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, crate::support::Signal::KILL).unwrap();
    let ran = running.wait();
    (live, ran)
}

#[test]
fn a_server_that_crashes_before_the_swap_is_committed_has_the_live_one_as_it_was() {
    let (live, ran) = crashed("SELECT pg_sleep(600);");
    ran.fails(1);
    assert!(!live.is_replaced("before COMMIT"));
    assert_eq!(live.named("restoring"), [""; 0], "the scratch database goes when the server is back");
}

#[test]
fn a_server_that_crashes_before_it_could_say_that_the_swap_is_committed_is_asked_again() {
    let (live, ran) = crashed("COMMIT; SELECT pg_sleep(600);");
    ran.ok().says("to swap back");
    assert!(live.is_replaced("after COMMIT"));
}
