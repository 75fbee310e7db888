//! Which of the server programs on this machine a drill's own server is made with: those of the dump's major
//! version, else the next newer, never older ones.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::source::postgres::client::{Client, Version};
use crate::source::postgres::programs::candidates;
use crate::source::postgres::site::Site;

/// Server programs of one version.
#[derive(Debug, Clone)]
pub(in crate::source::postgres) struct ServerPrograms {
    /// The directory of initdb and postgres.
    pub bin: PathBuf,
    pub version: Version,
}

/// Finds the programs for a dump of this server version; where it is not known, the newest. They are looked for in
/// `client_bin` where that has them, on PATH, and in the distributions' directories.
pub(in crate::source::postgres) fn find_server_programs(
    client_bin: Option<&Path>,
    wanted: Option<&Version>,
    cx: &Context,
) -> Result<ServerPrograms> {
    let own = client_bin.map(|bin| candidates("postgres", Some(bin), cx)).unwrap_or_default();
    let mut found: Vec<ServerPrograms> = Vec::new();
    for path in own.into_iter().chain(candidates("postgres", None, cx)) {
        let Some(bin) = path.parent().filter(|bin| bin.join("initdb").is_file()) else { continue };
        let bin = bin.to_owned();
        if found.iter().all(|programs| programs.bin != bin)
            && let Some(version) = Client::at(path, &Site::Host(None), cx)?.version
        {
            found.push(ServerPrograms { bin, version });
        }
    }
    choose(&found, wanted).cloned().ok_or_else(|| none_fits(&found, wanted))
}

fn choose<'a>(found: &'a [ServerPrograms], wanted: Option<&Version>) -> Option<&'a ServerPrograms> {
    let Some(wanted) = wanted else { return found.iter().max_by_key(|programs| programs.version.major) };
    // Of equals, the first found.
    found.iter().filter(|programs| programs.version.major >= wanted.major).min_by_key(|programs| programs.version.major)
}

fn none_fits(found: &[ServerPrograms], wanted: Option<&Version>) -> Error {
    let versions: Vec<&str> = found.iter().map(|programs| programs.version.text.as_str()).collect();
    let needed = wanted.map_or(String::new(), |wanted| format!(" of version {} or newer", wanted.major));
    let but = if versions.is_empty() { String::new() } else { format!(", only {}", versions.join(", ")) };
    let cause = format!("a drill makes a server of its own, and there are no server programs{needed} on this machine{but}");
    let packages = match wanted.map(|wanted| wanted.major) {
        Some(major) => format!("postgresql-{major} (its name on Debian; postgresql{major}-server on Red Hat)"),
        None => "postgresql (its name on Debian; postgresql-server on Red Hat)".into(),
    };
    let hint = format!("install {packages}, or drill in a scratch database of the target's server: `drill: {{ server: same }}`");
    Error::new(Kind::Child, cause).hint(hint).step("programs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(version: &str) -> ServerPrograms {
        let version = Version::parse(version).unwrap();
        ServerPrograms { bin: PathBuf::from(format!("/usr/lib/postgresql/{}/bin", version.major)), version }
    }

    #[test]
    fn the_dumps_own_version_is_chosen_else_the_next_newer_and_never_an_older() {
        let found = ["18.4", "16.14", "13.2"].map(programs);
        let chosen = |wanted: &str| choose(&found, Version::parse(wanted).as_ref()).map(|programs| programs.version.major);
        assert_eq!(
            ["13.22", "14.1", "16.1", "17.5", "18.4", "19.0"].map(chosen),
            [Some(13), Some(16), Some(16), Some(18), Some(18), None]
        );
        assert_eq!(choose(&found, None).unwrap().version.major, 18);
    }

    #[test]
    fn where_none_fits_the_package_and_another_place_are_named() {
        let wanted = Version::parse("15.18").unwrap();
        let error = none_fits(&["13.2"].map(programs), Some(&wanted));
        assert_eq!(
            error.to_string(),
            "programs: a drill makes a server of its own, and there are no server programs of version 15 or newer on this machine, \
             only 13.2"
        );
        let hint = error.hint_text().unwrap();
        assert!(["postgresql-15 ", "postgresql15-server", "server: same"].iter().all(|part| hint.contains(part)), "{hint}");
        assert!(none_fits(&[], Some(&wanted)).to_string().ends_with("on this machine"));
    }
}
