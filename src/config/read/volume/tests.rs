use std::path::Path;

use super::*;
use crate::config::mistake::Mistake;
use crate::config::model::TargetKind;
use crate::config::read::{HostFacts, read as read_config};
use crate::host::Env;
use crate::host::engine::EngineKind;

/// The volume of a target with these keys.
fn volume(keys: &str) -> Result<Volume, Vec<Mistake>> {
    let text = format!(
        "version: 1\nstorages: {{ local: {{ type: local, path: /b }} }}\ntargets: [ {{ name: a, type: volume, {keys} }} ]"
    );
    let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
    let env = [("NAME", "app_data"), ("ON", "true")].into_iter().collect::<Env>();
    let config = read_config(&text, Path::new("/etc/db-backup/backup.yml"), &env, &facts)?;
    match &config.targets[0].kind {
        TargetKind::Volume(volume) => Ok((**volume).clone()),
        TargetKind::Postgres(_) => panic!("no volume"),
    }
}

fn wrong(keys: &str) -> String {
    volume(keys).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_not_said_is_the_careful_choice() {
    let found = volume("path: /srv/uploads").unwrap();
    let expected = Volume {
        place: VolumePlace::Path("/srv/uploads".into()),
        engine: None,
        helper_image: None,
        archiver: Archiver::Full,
        exclude: Vec::new(),
        exclude_caches: false,
        one_file_system: false,
        allow_changed: Vec::new(),
        skip_unreadable: false,
        allow_live_database: false,
        hold: None,
        drill: VolumeDrill::default(),
    };
    assert_eq!(found, expected);
}

#[test]
fn every_key_is_read() {
    let found = volume(
        "volume: '${NAME}', engine: podman, helper_image: 'debian:stable-slim', archiver: basic, exclude: ['*.tmp', cache/, -x], \
         exclude_caches: '${ON}', one_file_system: true, allow_changed: [logs], skip_unreadable: true, allow_live_database: true, \
         drill: { hash: true, directory: /mnt/scratch }",
    );
    let expected = Volume {
        place: VolumePlace::Named("app_data".into()),
        engine: Some(EngineKind::Podman),
        helper_image: Some("debian:stable-slim".into()),
        archiver: Archiver::Basic,
        exclude: ["*.tmp", "cache/", "-x"].map(str::to_owned).into(),
        exclude_caches: true,
        one_file_system: true,
        allow_changed: vec!["logs".into()],
        skip_unreadable: true,
        allow_live_database: true,
        hold: None,
        drill: VolumeDrill { hash: true, directory: Some("/mnt/scratch".into()) },
    };
    assert_eq!(found.unwrap(), expected);
}

#[test]
fn a_pattern_that_is_the_root_is_a_mistake() {
    for pattern in ["/", "./", ".", "//", "././"] {
        let said = wrong(&format!("path: /srv, exclude: [a, {pattern}]"));
        assert!(said.contains("targets[0].exclude[1]") && said.contains("leaves nothing"), "{said}");
    }
    for pattern in ["'*'", "'.*'", "..", "/a", "./a"] {
        volume(&format!("path: /srv, exclude: [{pattern}]")).unwrap();
    }
}

#[test]
fn names_can_be_no_options_of_an_engine() {
    for keys in ["volume: -v", "volume: 'a b'", "volume: x, helper_image: --privileged", "volume: x, helper_image: 'a;b'"] {
        assert!(wrong(keys).contains("targets[0]."), "{keys}");
    }
    volume("volume: x, helper_image: 'registry.example.org:5000/a/b_c:1.2-x@sha256'").unwrap();
}
