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

fn config() -> Config {
    let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
    read(TEXT, Path::new("/etc/backup.yml"), &Env::default(), &facts).unwrap()
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// `app>local,offsite app2>local`, and behind `-` what is left out as disabled.
fn planned(names: &[&str], storages: &[&str]) -> String {
    let config = config();
    match backup(&config, &texts(names), &texts(storages)) {
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
