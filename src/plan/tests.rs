use std::path::Path;

use super::*;
use crate::config::read::{HostFacts, read};
use crate::host::Env;

const TEXT: &str = "
version: 1
storages:
  local: { type: local, path: /a }
  offsite: { type: local, path: /b }
defaults: { storages: [local, offsite] }
targets:
  - { name: app, type: postgres, database: app }
  - { name: app2, type: postgres, database: app2, storages: [local] }
  - { name: app-staging, type: postgres, database: s, enabled: false }
  - { name: shop, type: postgres, database: shop }
";

/// Targets whose servers must be asked.
const SERVERS: &str = "
version: 1
storages:
  local: { type: local, path: /a }
  offsite: { type: local, path: /b }
defaults: { storages: [local] }
targets:
  - { name: app, type: postgres, database: app }
  - { name: cl, type: postgres, databases: all }
  - { name: cl2, type: postgres, databases: all, globals: true }
  - { name: away, type: postgres, databases: all, enabled: false }
  - { name: two, type: postgres, databases: [a, \"b.c\"] }
";

fn config() -> Config {
    read_config(TEXT)
}

fn read_config(text: &str) -> Config {
    let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
    read(text, Path::new("/etc/backup.yml"), &Env::default(), &facts).unwrap()
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// `app>local,offsite app2>local`, and behind `-` what is left out as disabled.
fn planned(names: &[&str], storages: &[&str]) -> String {
    planned_of(&config(), names, storages, &Answers::new())
}

fn planned_of(config: &Config, names: &[&str], storages: &[&str], answers: &Answers) -> String {
    match backup(config, &texts(names), &texts(storages), answers) {
        Err(error) => format!("{error:?}"),
        Ok(plan) => {
            let units = plan.units.iter().map(|planned| {
                let storages: Vec<&str> = planned.storages.iter().map(|storage| storage.name.as_str()).collect();
                format!("{}>{}", planned.unit, storages.join(","))
            });
            let disabled = plan.disabled.iter().map(|name| format!("-{name}"));
            units.chain(disabled).chain(plan.elsewhere.iter().map(|name| format!("!{name}"))).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Which servers are asked, and what is planned when they answer so.
fn asked_and_planned(names: &[&str], answers: &[(&str, &[&str])]) -> String {
    let config = read_config(SERVERS);
    let asked = match to_ask(&config, &texts(names), &[]) {
        Err(error) => return format!("{error:?}"),
        Ok(asked) => asked.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(" "),
    };
    let units =
        |target: &TargetName, databases: &[&str]| databases.iter().map(|name| UnitName::of_database(target, name)).collect();
    let answers = answers.iter().map(|(target, databases)| {
        let target: TargetName = target.parse().unwrap();
        let units = units(&target, databases);
        (target, units)
    });
    format!("[{asked}] {}", planned_of(&config, names, &[], &answers.collect()))
}

#[test]
fn a_server_is_asked_only_where_a_name_may_mean_one_of_its_databases() {
    let asked = |names: &[&str]| {
        let config = read_config(SERVERS);
        let asked = to_ask(&config, &texts(names), &[]);
        asked.map(|asked| asked.iter().map(|target| target.name.to_string()).collect::<Vec<_>>().join(" "))
    };
    for (names, servers) in [
        (&[][..], "cl cl2"),
        (&["app"], ""),
        (&["two.a"], ""),
        (&["cl"], "cl"),
        (&["cl.shop"], "cl"),
        (&["cl.*"], "cl"),
        (&["cl2:globals"], "cl2"),
        (&["*shop"], "cl cl2"),
        (&["app*"], ""),
        (&["{app,cl2}"], "cl cl2"),
        (&["cl?"], "cl cl2"),
        (&["away"], "away"),
        (&["away.x"], "away"),
        (&["away.*"], ""),
        (&["away*"], ""),
        (&["cl.a\\*b"], "cl"),
        (&["cl.[x"], "cl"),
    ] {
        assert_eq!(asked(names).unwrap(), servers, "{names:?}");
    }
    assert_eq!(asked(&["clx.y"]).unwrap_err().kind(), Kind::NotFound);
    assert!(to_ask(&read_config(SERVERS), &[], &texts(&["offsite"])).unwrap().is_empty());
}

#[test]
fn names_choose_among_the_databases_that_a_server_told_of() {
    let all: &[(&str, &[&str])] = &[("cl", &["a*b", "aXb", "shop", "[x", "cl2.shop"]), ("cl2", &["shop"])];
    insta::assert_snapshot!(
        [
            asked_and_planned(&[], all),
            asked_and_planned(&["cl"], all),
            asked_and_planned(&["*.shop"], all),
            asked_and_planned(&["cl.a\\*b", "cl.[x"], all),
            asked_and_planned(&["two.b.c"], &[]),
            asked_and_planned(&["cl.gone"], all),
            asked_and_planned(&["cl.[y"], all),
            asked_and_planned(&["away.x"], &[("away", &["x", "y"])]),
            asked_and_planned(&["away.*", "app"], &[]),
        ]
        .join("\n"),
        @r#"
        [cl cl2] app>local cl.a*b>local cl.aXb>local cl.shop>local cl.[x>local cl.cl2.shop>local cl2.shop>local two.a>local two.b.c>local -away
        [cl] cl.a*b>local cl.aXb>local cl.shop>local cl.[x>local cl.cl2.shop>local
        [cl cl2] cl.shop>local cl.cl2.shop>local cl2.shop>local -away
        [cl] cl.a*b>local cl.[x>local
        [] two.b.c>local
        [cl] NotFound no target or unit matches cl.gone (hint: did you mean cl? known: app, away, cl, cl.[x, cl.a*b, cl.aXb, cl.cl2.shop, cl.shop, cl2, cl2.shop, cl2:globals, two, two.a and two.b.c)
        [cl] Config NAME "cl.[y" is no glob: unclosed character class; missing ']' (hint: in a glob, *, ?, [, ] and {, } have a meaning: write \[ for a literal one)
        [away] away.x>local
        [] app>local -away
        "#);
}

#[test]
fn a_server_that_does_not_answer_leaves_open_what_a_name_means() {
    insta::assert_snapshot!(
        [
            asked_and_planned(&["cl.shop", "app"], &[]),
            asked_and_planned(&["cl*"], &[("cl", &["shop"])]),
            asked_and_planned(&["cl.shop", "shop"], &[]),
        ]
        .join("\n"),
        @r#"
        [cl] app>local
        [cl cl2] cl.shop>local
        NotFound no target or unit matches shop (hint: known: app, away, cl, cl2, cl2:globals, two, two.a and two.b.c)
        "#);
}

#[test]
fn every_unit_of_an_answer_knows_all_the_others() {
    let config = read_config(SERVERS);
    let target: TargetName = "cl2".parse().unwrap();
    let found = vec![UnitName::of_database(&target, "shop"), UnitName::of_globals(&target)];
    let answers = Answers::from([(target, found.clone())]);
    let plan = backup(&config, &texts(&["cl2.shop", "app"]), &[], &answers).unwrap();
    let known: Vec<_> = plan.units.iter().map(|planned| (planned.unit.as_str(), planned.units_found)).collect();
    assert_eq!(known, [("app", None), ("cl2.shop", Some(found.as_slice()))]);
}

#[test]
fn without_names_all_enabled_targets_are_backed_up() {
    assert_eq!(planned(&[], &[]), "app>local,offsite app2>local shop>local,offsite -app-staging");
}

#[test]
fn a_name_is_no_prefix() {
    assert_eq!(planned(&["app"], &[]), "app>local,offsite");
}

#[test]
fn globs_choose_and_a_unit_is_never_planned_twice() {
    assert_eq!(planned(&["app*", "app"], &[]), "app>local,offsite app2>local -app-staging");
    assert_eq!(planned(&["{shop,app2}"], &[]), "app2>local shop>local,offsite");
    assert_eq!(planned(&["app?"], &[]), "app2>local");
}

#[test]
fn a_disabled_target_is_backed_up_only_by_its_very_name() {
    assert_eq!(planned(&["app-staging"], &[]), "app-staging>local,offsite");
    assert_eq!(planned(&["*staging"], &[]), "-app-staging");
}

#[test]
fn a_storage_restricts_where_a_backup_goes() {
    assert_eq!(planned(&[], &["offsite"]), "app>offsite shop>offsite -app-staging !app2");
    assert!(planned(&["app2"], &["offsite"]).starts_with("NotFound"));
}

#[test]
fn what_matches_nothing_is_found_before_anything_runs() {
    insta::assert_snapshot!(
        [planned(&["app", "shp"], &[]), planned(&["x*"], &[]), planned(&[], &["ofsite"]), planned(&["[a"], &[])].join("\n"),
        @r#"
    NotFound no target or unit matches shp (hint: did you mean shop? known: app, app-staging, app2 and shop)
    NotFound no target or unit matches x* (hint: known: app, app-staging, app2 and shop)
    NotFound no storage is named ofsite (hint: did you mean offsite? known: local and offsite)
    Config NAME "[a" is no glob: unclosed character class; missing ']' (hint: in a glob, *, ?, [, ] and {, } have a meaning: write \[ for a literal one)
    "#
    );
}

#[test]
fn names_match_units_that_are_only_in_a_storage() {
    let names = Names::new(&texts(&["old*", "cluster", "gone"])).unwrap();
    let units: Vec<UnitName> = ["oldapp", "cluster.shop.eu", "clusters.x", "cluster2"].map(UnitName::new).into();
    let met: Vec<&str> = units.iter().filter(|unit| names.matches_unit(unit)).map(UnitName::as_str).collect();
    assert_eq!(met, ["oldapp", "cluster.shop.eu"]);
    assert_eq!(names.unmatched(&units), ["gone"]);
    assert_eq!(names.check(&config(), &units).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_star_crosses_dots_and_slashes() {
    let names = Names::new(&texts(&["c*x"])).unwrap();
    assert!(names.matches_unit(&UnitName::new("cluster.a/b.x")));
}

#[test]
fn a_stored_name_with_a_globs_characters_is_met_by_itself() {
    let names = Names::new(&texts(&["cluster.a[b]"])).unwrap();
    assert!(names.matches_unit(&UnitName::new("cluster.a[b]")));
}

#[test]
fn a_unit_finds_its_target() {
    let config = config();
    assert_eq!(target_of(&config, &UnitName::new("app")).map(|target| target.name.as_str()), Some("app"));
    assert!(["ap", "app.x.y", "app."].iter().all(|none| target_of(&config, &UnitName::new(*none)).is_none()));
}
