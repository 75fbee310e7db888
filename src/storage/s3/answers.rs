//! What the service answers, as far as it is needed. Lenient: services leave fields out.

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// A page of a listing.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Page {
    pub(super) is_truncated: bool,
    pub(super) next_continuation_token: Option<String>,
    pub(super) encoding_type: Option<String>,
    pub(super) contents: Vec<Listed>,
}

/// An object in a listing.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) size: Option<u64>,
    pub(super) last_modified: Option<String>,
}

/// A page of the uploads that are under way.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct UploadsPage {
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_upload_id_marker: Option<String>,
    pub(super) encoding_type: Option<String>,
    #[serde(rename = "Upload")]
    pub(super) uploads: Vec<UnderWay>,
}

/// An upload that is under way.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UnderWay {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: Option<String>,
}

/// A page of an upload's parts.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PartsPage {
    pub(super) is_truncated: bool,
    pub(super) next_part_number_marker: Option<String>,
    #[serde(rename = "Part")]
    pub(super) parts: Vec<StoredPart>,
}

/// A part that has arrived.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StoredPart {
    pub(super) size: Option<u64>,
    pub(super) last_modified: Option<String>,
}

/// An upload that has begun.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Begun {
    pub(super) upload_id: String,
}

/// Each key's own outcome.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Deleted {
    pub(super) deleted: Vec<DeletedKey>,
    pub(super) error: Vec<DeleteError>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DeletedKey {
    pub(super) key: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct DeleteError {
    pub(super) key: String,
    pub(super) code: String,
    pub(super) message: String,
}

/// Whether a body is XML with this root. An empty element reads like any other: a login page must not pass for an empty bucket.
pub(super) fn is(body: &[u8], root: &str) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let text = text.strip_prefix("<?").and_then(|rest| rest.split_once("?>")).map_or(text, |(_, rest)| rest);
    let name = text.trim_start().strip_prefix('<').unwrap_or_default();
    name.strip_prefix(root).is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '>' || c == '/'))
}

/// Reads a body; `Err` says why it can't be read.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|_| "its answer is no text".to_owned())?;
    quick_xml::de::from_str(text).map_err(|error| format!("its answer can't be read: {error}"))
}

/// A time of a listing.
pub(super) fn time(text: Option<&String>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text?.trim()).ok().map(|time| time.with_timezone(&Utc))
}
