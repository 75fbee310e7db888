//! The place: service, bucket and prefix.

use std::net::Ipv4Addr;

use crate::config::node::Node;
use crate::config::walk::{Fields, Walk};
use crate::names::Key;

use super::super::optional;
use super::address::{self, Address};

/// The longest prefix in bytes. A key has 1024 at most, of which ours below it take up to 530.
const LONGEST_PREFIX: usize = 480;

/// Where a storage is.
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) prefix: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) path_style: bool,
}

/// The keys that say where.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Place> {
    let bucket = fields.need("bucket", "write the bucket's name").and_then(|node| bucket(walk, node));
    let prefix = fields.get("prefix").map_or(Some(String::new()), |node| prefix(walk, node));
    let region = optional(fields.get("region"), |node| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        walk.parsed(node, "a region's name like eu-central-1", |text| {
            (text.len() <= 64 && text.chars().all(plain)).then(|| text.to_owned())
        })
    });
    let endpoint_node = fields.get("endpoint");
    let endpoint = optional(endpoint_node, |node| address::endpoint(walk, node, bucket.as_deref()));
    let style_node = fields.get("path_style");
    let given = optional(style_node, |node| walk.boolean(node));
    let (bucket, endpoint) = (bucket?, endpoint?);
    let needed = no_host_name(&bucket, endpoint.as_ref());
    let path_style = given?.unwrap_or(endpoint.is_some() || needed.is_some());
    if let (false, Some(node), Some(why)) = (path_style, style_node, needed) {
        walk.wrong(node, why, Some("write path_style: true".into()));
        return None;
    }
    let endpoint = endpoint.map(|endpoint| endpoint.to_string());
    Some(Place { bucket, prefix: prefix?, region: region?, endpoint, path_style })
}

/// By S3's rules ("General purpose bucket naming rules"), and those of before 2018, which knew capitals and `_`.
fn bucket(walk: &Walk<'_>, node: &Node) -> Option<String> {
    let what = "a bucket's name of 3 to 63 letters, digits, -, . and _";
    let out = walk.expanded(node, what)?;
    let name = out.value;
    let dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
    if (3..=63).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) && !dots {
        return Some(name);
    }
    let of_variable = out.from_variable.then_some("look at what the variable holds");
    let hint = if name.contains('/') { Some("write the name alone, and what follows it into `prefix`") } else { of_variable };
    walk.expected(node, what, hint.map(str::to_owned));
    None
}

/// Without slashes at its ends. S3 clients normalise what has empty parts or dots, and would write elsewhere.
fn prefix(walk: &Walk<'_>, node: &Node) -> Option<String> {
    let out = walk.expanded(node, "a prefix like backups/web1")?;
    let prefix = out.value.trim_matches('/');
    let problem = match prefix.parse::<Key>() {
        _ if prefix.is_empty() => return Some(String::new()),
        Ok(_) if prefix.len() <= LONGEST_PREFIX => return Some(prefix.to_owned()),
        Ok(_) => format!("expected a prefix of at most {LONGEST_PREFIX} bytes, found one of {}", prefix.len()),
        Err(_) => {
            let rule = "whose parts between slashes are neither empty nor `.` nor `..`, hold no control characters and have at most 255 bytes";
            format!("expected a prefix {rule}, found {}", node.describe())
        }
    };
    walk.wrong(node, problem, out.from_variable.then(|| "look at what the variable holds".to_owned()));
    None
}

/// Why a bucket can't stand in front of the service's name.
fn no_host_name(bucket: &str, endpoint: Option<&Address>) -> Option<&'static str> {
    let host = endpoint.map_or("", |endpoint| endpoint.host.as_str());
    if host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok() {
        return Some("the endpoint is an IP address, before which no bucket can stand");
    }
    if bucket.contains(|c: char| c.is_ascii_uppercase() || c == '_') {
        return Some("a host's name can't hold this bucket's capitals or `_`");
    }
    let https = endpoint.is_none_or(|endpoint| endpoint.https);
    (https && bucket.contains('.')).then_some("over https, no certificate is for a bucket's name with a dot in it")
}
