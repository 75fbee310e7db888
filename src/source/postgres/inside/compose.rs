//! The container of a Compose project's service, found by the labels with which Compose marks it. Compose itself is not asked:
//! which it is, and whether it is on this machine, is of no matter.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::engine::{Container, Engine, EngineKind, State};

/// The labels of Compose, which podman-compose writes too.
const SERVICE: &str = "com.docker.compose.service";
/// The files of the project, with commas between; in the first versions as they were given, see [`absolute`].
const FILES: &str = "com.docker.compose.project.config_files";
const DIRECTORY: &str = "com.docker.compose.project.working_dir";
/// `True` for a container of `run`, which is none of the service's own.
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// The container of a service of this file's project, a running one where there is one.
pub(super) fn find(wanted: Option<EngineKind>, file: &Path, service: &str, cx: &Context) -> Result<(Engine, Container)> {
    let engines = Engine::installed(wanted, cx)?;
    let filter = format!("label={SERVICE}={service}");
    let (mut found, mut failed) = (Vec::new(), None);
    for engine in engines {
        match engine.containers(&[&filter], cx) {
            Ok(containers) => found.extend(containers.into_iter().map(|container| (engine, container))),
            Err(error) => failed = failed.or(Some(error)),
        }
        cx.cancel.check()?;
    }
    choose(found, file, service).map_err(|error| failed.unwrap_or(error))
}

fn choose(found: Vec<(Engine, Container)>, file: &Path, service: &str) -> Result<(Engine, Container)> {
    let wanted = canonical(file);
    let (own, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .filter(|(_, container)| container.labels.get(ONE_OFF).is_none_or(|value| !value.eq_ignore_ascii_case("true")))
        .partition(|(_, container)| files(container).iter().any(|path| path == file || canonical(path) == wanted));
    if own.is_empty() {
        return Err(none(&others, file, service));
    }
    let (mut running, mut stopped): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|(_, container)| container.state != State::Stopped);
    if running.len() > 1 {
        let mut names: Vec<&str> = running.iter().map(|(_, container)| container.name.as_str()).collect();
        names.sort_unstable();
        let cause = format!("service {service} of {} has {} containers: {}", file.display(), names.len(), names.join(", "));
        return Err(Error::new(Kind::Config, cause).hint("name the one that is meant: `container: NAME` instead of `compose:`"));
    }
    // A project that was brought up under two names may have left more than one.
    running.pop().or_else(|| stopped.pop()).ok_or_else(|| none(&others, file, service))
}

/// The project's files.
fn files(container: &Container) -> Vec<PathBuf> {
    let directory = container.labels.get(DIRECTORY).map(PathBuf::from).unwrap_or_default();
    let files = container.labels.get(FILES).map_or("", String::as_str);
    files.split(',').filter(|file| !file.is_empty()).map(|file| absolute(&directory, Path::new(file.trim()))).collect()
}

/// A file of a project with this directory. The first versions of Compose write it as they were given it, from a directory that
/// they don't tell; the project's own is that of the first file where nothing else is said.
fn absolute(directory: &Path, file: &Path) -> PathBuf {
    let (joined, beside) = (directory.join(file), directory.join(file.file_name().unwrap_or_default()));
    let is_in_it = file.parent().is_some_and(|parent| directory.ends_with(parent));
    if file.is_absolute() || (!is_in_it && joined.exists()) { joined } else { beside }
}

/// Without links on the way, as far as it is there.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn none(others: &[(Engine, Container)], file: &Path, service: &str) -> Error {
    let shown = file.display();
    let absent = if file.exists() { "" } else { ", and there is no such file" };
    let cause = format!("no container belongs to service {service} of {shown}{absent}");
    let elsewhere: Vec<String> = others
        .iter()
        .map(|(_, container)| {
            let files: Vec<String> = files(container).iter().map(|path| path.display().to_string()).collect();
            format!("{} ({})", container.name, files.join(", "))
        })
        .collect();
    let up = format!("bring it up (docker compose -f {shown} up -d {service})");
    let hint = match elsewhere.as_slice() {
        [] => format!("{up}, or correct `compose:`"),
        others => format!("{up}, or correct `file:`: services of that name are in other projects: {}", others.join("; ")),
    };
    Error::new(Kind::Child, cause).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, state: State, labels: &[(&str, &str)]) -> (Engine, Container) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let container = Container {
            exit_code: 0,
            goes_when_stopped: false,
            stop_timeout: std::time::Duration::ZERO,
            id: format!("id-of-{name}"),
            name: name.to_owned(),
            state,
            image: "sha256:1".to_owned(),
            labels,
            environment: std::collections::BTreeMap::new(),
            mounts: Vec::new(),
        };
        (Engine::of(EngineKind::Docker), container)
    }

    fn chosen(found: &[(Engine, Container)], file: &Path) -> Result<String> {
        choose(found.to_vec(), file, "db").map(|(_, container)| container.name)
    }

    #[test]
    fn a_service_is_known_by_its_file_however_that_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let file = root.join("compose.yml");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&root, root.join("link")).unwrap();
        let whole = file.to_str().unwrap();
        let several = format!("/srv/base.yml,{whole}");
        let found = [
            container("other", State::Running, &[(FILES, "/srv/other/compose.yml")]),
            container("shell", State::Running, &[(FILES, whole), (ONE_OFF, "True")]),
            container("old", State::Stopped, &[(FILES, whole), (ONE_OFF, "False")]),
            container("own", State::Running, &[(FILES, &several), (ONE_OFF, "False")]),
        ];
        assert_eq!(chosen(&found, &file).unwrap(), "own");
        assert_eq!(chosen(&found, &root.join("link/compose.yml")).unwrap(), "own");
        assert_eq!(chosen(&found[..3], &file).unwrap(), "old");
        let first = [container("one", State::Running, &[(FILES, "compose.yml"), (DIRECTORY, root.to_str().unwrap())])];
        assert_eq!(chosen(&first, &file).unwrap(), "one");
        let below = root.file_name().unwrap().to_str().unwrap();
        for given in [format!("{below}/compose.yml"), "./compose.yml".to_owned(), format!("../{below}/compose.yml")] {
            let found = [container("given", State::Running, &[(FILES, &given), (DIRECTORY, root.to_str().unwrap())])];
            assert_eq!(chosen(&found, &file).unwrap(), "given", "{given}");
        }
        let by_link = [container("linked", State::Running, &[(FILES, root.join("link/compose.yml").to_str().unwrap())])];
        assert_eq!(chosen(&by_link, &file).unwrap(), "linked");
    }

    #[test]
    fn one_that_is_not_there_or_not_alone_is_told_with_what_is() {
        let said = |found: &[(Engine, Container)]| {
            let error = chosen(found, Path::new("/srv/app/compose.yml")).unwrap_err();
            format!("{error}\n{}", error.hint_text().unwrap())
        };
        let file = (FILES, "/srv/app/compose.yml");
        insta::assert_snapshot!(said(&[]), @r"
        no container belongs to service db of /srv/app/compose.yml, and there is no such file
        bring it up (docker compose -f /srv/app/compose.yml up -d db), or correct `compose:`
        ");
        insta::assert_snapshot!(said(&[container("shop-db-1", State::Running, &[(FILES, "/srv/shop/compose.yml")])]), @r"
        no container belongs to service db of /srv/app/compose.yml, and there is no such file
        bring it up (docker compose -f /srv/app/compose.yml up -d db), or correct `file:`: services of that name are in other projects: shop-db-1 (/srv/shop/compose.yml)
        ");
        insta::assert_snapshot!(said(&["a", "b"].map(|name| container(name, State::Running, &[file]))), @r"
        service db of /srv/app/compose.yml has 2 containers: a, b
        name the one that is meant: `container: NAME` instead of `compose:`
        ");
    }
}
