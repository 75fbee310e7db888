//! A storage of type s3: its keys, each checked as far as that goes without asking the service.

mod address;
mod bucket;
mod keys;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::mistake::nearest;
use crate::config::model::{S3Encryption, S3Settings};
use crate::config::node::Node;
use crate::config::walk::{Fields, Walk};
use crate::host::files;

use super::{optional, secrets};

/// What is used where the file says nothing.
const PART_SIZE: u64 = 8 << 20;
const MAX_PARTS: u32 = 10_000;
const CONCURRENCY: u32 = 4;
const TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES: u32 = 5;

/// The keys that a storage of another type does not have.
pub(super) const OWN: [&str; 20] = [
    "bucket",
    "prefix",
    "region",
    "endpoint",
    "path_style",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "storage_class",
    "server_side_encryption",
    "kms_key_id",
    "tags",
    "ca_file",
    "proxy",
    "part_size",
    "max_parts",
    "concurrency",
    "memory",
    "timeout",
    "retries",
    // What other programs call it.
];

/// Amazon S3's storage classes, by its API reference ("PutObject"), that can be read from at once. Other services
/// have others.
const CLASSES: [&str; 7] =
    ["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY", "EXPRESS_ONEZONE"];
/// Those whose objects must be thawed before they can be read: no manifest could be read.
const FROZEN: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// The keys of an S3 storage.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<S3Settings> {
    let place = bucket::read(walk, fields);
    let keys = keys::read(walk, fields);
    let storage_class = optional(fields.get("storage_class"), |node| storage_class(walk, node));
    let encryption = encryption(walk, fields);
    let tags = fields.get("tags").map_or(Some(Vec::new()), |node| tags(walk, node));
    let ca_file = optional(fields.get("ca_file"), |node| ca_file(walk, node));
    let proxy = optional(fields.get("proxy"), |node| address::proxy(walk, node));
    let part_size = |node| walk.bytes(node, "a size from 5MiB to 5GiB, like 16MiB", 5 << 20..=5 << 30);
    let part_size = fields.get("part_size").map_or(Some(PART_SIZE), part_size);
    let number = |key, default, range| fields.get(key).map_or(Some(default), |node| walk.number(node, "a number", range));
    let max_parts = number("max_parts", MAX_PARTS, 1..=10_000);
    let concurrency = number("concurrency", CONCURRENCY, 1..=64);
    let memory = optional(fields.get("memory"), |node| memory(walk, node));
    let timeout = fields.get("timeout").map_or(Some(TIMEOUT), |node| walk.duration(node));
    let retries = number("retries", RETRIES, 0..=100);
    let place = place?;
    Some(S3Settings {
        bucket: place.bucket,
        prefix: place.prefix,
        region: place.region,
        endpoint: place.endpoint,
        path_style: place.path_style,
        keys: keys?,
        storage_class: storage_class?,
        encryption: encryption?,
        tags: tags?,
        ca_file: ca_file?,
        proxy: proxy?,
        part_size: part_size?,
        max_parts: max_parts?,
        concurrency: NonZeroU32::new(concurrency?)?,
        memory: memory?,
        timeout: timeout?,
        retries: retries?,
    })
}

/// What uploads may take of the machine's memory: the program's own part of it, and some for a part.
pub(super) fn memory(walk: &Walk<'_>, node: &Node) -> Option<u64> {
    walk.bytes(node, "a size of at least 48MiB, like 128MiB", 48 << 20..=u64::MAX)
}

/// Whether two storages' settings name one place: there they would prune each other's backups.
pub(super) fn same_place(one: &S3Settings, other: &S3Settings) -> bool {
    let service = |settings: &S3Settings| settings.endpoint.clone().filter(|endpoint| !address::is_amazon(endpoint));
    (service(one), &one.bucket, &one.prefix) == (service(other), &other.bucket, &other.prefix)
}

fn storage_class(walk: &Walk<'_>, node: &Node) -> Option<String> {
    let what = "a storage class like STANDARD_IA";
    let out = walk.expanded(node, what)?;
    let name = out.value;
    let upper = name.to_ascii_uppercase().replace('-', "_");
    let hint = if FROZEN.contains(&upper.as_str()) {
        Some("backups there could not be read without a thaw first: use GLACIER_IR".to_owned())
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        Some("its name has letters, digits and _".to_owned())
    } else if upper != name && CLASSES.contains(&upper.as_str()) {
        nearest(&upper, CLASSES).map(|near| format!("did you mean {near}?"))
    } else {
        return Some(name);
    };
    walk.expected(node, what, hint);
    None
}

/// What the service encrypts with; a key only with its key service.
#[allow(clippy::option_option)] // absent and wrong are two things
fn encryption(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Option<S3Encryption>> {
    let kind = fields.get("server_side_encryption");
    let word = optional(kind, |node| walk.word(node, "an encryption by the service", &["AES256", "aws:kms"], &["aws:kms:dsse"]));
    let key_node = fields.get("kms_key_id");
    let key = optional(key_node, |node| walk.text(node, "a key's id, ARN or alias"));
    match (word?, key_node) {
        (Some("aws:kms"), _) => Some(Some(S3Encryption::Kms(key?))),
        (other, Some(node)) => {
            let problem = match other {
                None => "given without `server_side_encryption`",
                Some(_) => "AES256 takes no key of yours",
            };
            walk.wrong(node, problem, Some("write server_side_encryption: aws:kms, or leave the key out".into()));
            None
        }
        (Some(_), None) => Some(Some(S3Encryption::Aes256)),
        (None, None) => Some(None),
    }
}

/// Tags, by Amazon S3's limits ("Object tagging"), in the file's order.
fn tags(walk: &Walk<'_>, node: &Node) -> Option<Vec<(String, String)>> {
    let entries = walk.map(node, "a mapping of tags like { purpose: backup }")?.named();
    if entries.is_empty() {
        walk.wrong(node, "expected one tag or more, found none", Some("leave the key out".into()));
        return None;
    }
    if entries.len() > 10 {
        let problem = format!("expected at most 10 tags, found {}", entries.len());
        walk.wrong(node, problem, Some("S3 takes no more for an object".into()));
        return None;
    }
    let mut tags = Vec::new();
    for entry in entries {
        let value = walk.text(&entry.node, "a tag's value");
        let (key, node) = (entry.key.as_str(), &entry.node);
        let too_long = |what: &str, most: usize, found: usize| {
            walk.wrong(node, format!("expected a tag's {what} of at most {most} characters, found one of {found}"), None);
        };
        let count = |text: &str| text.chars().count();
        if key.is_empty() || key.chars().any(char::is_control) || key.to_ascii_lowercase().starts_with("aws:") {
            walk.wrong(node, "unusable name of a tag", Some("no control characters, and aws: is Amazon's own".into()));
        } else if count(key) > 128 {
            too_long("name", 128, count(key));
        } else if let Some(value) = value {
            match count(&value) {
                1..=256 if !value.chars().any(char::is_control) => tags.push((key.to_owned(), value)),
                1..=256 => walk.wrong(node, "expected a tag's value, found control characters in it", None),
                found => too_long("value", 256, found),
            }
        }
    }
    (tags.len() == entries.len()).then_some(tags)
}

/// A file with one certificate or more, looked at now, so that it does not fail at night.
fn ca_file(walk: &Walk<'_>, node: &Node) -> Option<PathBuf> {
    let path = walk.path(node, "a file of certificates")?;
    secrets::readable(walk, node, &path, "the certificate file")?;
    let found = files::read_short(&path).map_err(|error| error.to_string());
    let found = found.and_then(|bytes| trusted(&bytes).map_err(str::to_owned));
    if let Err(why) = found {
        let hint =
            "it must hold the authority's certificate, with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----";
        walk.wrong(node, format!("the certificate file {} can't be used: {why}", node.describe()), Some(hint.into()));
        return None;
    }
    Some(path)
}

/// Whether a client can be made that trusts these certificates; none is used.
fn trusted(pem: &[u8]) -> Result<(), &'static str> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| "its PEM text is damaged")?;
    if certificates.is_empty() {
        return Err("it holds no PEM certificate");
    }
    let client = reqwest::Client::builder().tls_built_in_root_certs(false);
    let client = certificates.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
    client.build().map(|_| ()).map_err(|_| "a certificate in it is damaged")
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod bad_input;
