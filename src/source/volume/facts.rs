//! What a manifest keeps of a volume, and a restore needs.

use serde::{Deserialize, Serialize};

use super::{FORMAT, KIND};
use crate::error::{Error, Kind, Result};
use crate::source::Facts;

/// The manifest's `restore` of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeFacts {
    /// Which tar made it, and where: `GNU tar 1.34 on the host`.
    pub archiver: String,
    /// It keeps names, contents, modes, owners, links and times in whole seconds alone.
    #[serde(default)]
    pub basic: bool,
    /// The directory or file that was read, where it was no volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The volume that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// `docker` or `podman`, where it was a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The path was a file: its name, which is the only member's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whose its members are, `UID:GID`, in order; none where there are very many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owners: Option<Vec<String>>,
}

impl VolumeFacts {
    /// What a manifest of ours says.
    pub(super) fn of(facts: &Facts) -> Result<Self> {
        if facts.kind != KIND || facts.format != FORMAT {
            let what = format!("the backup is of kind {}, format {}, and no volume's", facts.kind, facts.format);
            return Err(Error::new(Kind::Refused, what).hint("restore it into a database, or take it with --output FILE"));
        }
        serde_json::from_value(facts.restore.clone())
            .map_err(|error| Error::new(Kind::Damaged, "the manifest's `restore` can't be read").source(error))
    }

    /// The same as a manifest keeps it; `version` is the tar's.
    pub(super) fn to_facts(&self, version: Option<String>) -> Result<Facts> {
        Ok(Facts {
            kind: KIND.into(),
            database: None,
            format: FORMAT.into(),
            server_version: None,
            client_version: version,
            restore: serde_json::to_value(self)
                .map_err(|error| Error::new(Kind::Internal, "can't write down the volume's facts").source(error))?,
        })
    }
}
