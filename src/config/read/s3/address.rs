//! Addresses of a service and of a proxy. Either may hold a password by mistake or by right: none is quoted.

use std::fmt;
use std::net::Ipv6Addr;

use crate::config::node::Node;
use crate::config::secret::{Secret, SecretFrom};
use crate::config::walk::Walk;

use super::super::secrets;

/// Ends of host names below which a bucket may stand as a name of its own.
const SERVICES: [&str; 8] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".r2.cloudflarestorage.com",
    ".digitaloceanspaces.com",
    ".backblazeb2.com",
    ".wasabisys.com",
    ".linodeobjects.com",
    ".scw.cloud",
];

/// An address in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) https: bool,
    /// Whether something stands before an `@`.
    user: bool,
    /// In lower case.
    pub(super) host: String,
    /// `None` where it is the scheme's own: clients leave it out of the `Host` header, which is signed.
    port: Option<u16>,
    /// Empty, or with a slash at its beginning and none at its end.
    path: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))?;
        f.write_str(&self.path)
    }
}

impl Address {
    /// What is wrong with it is said without quoting it.
    fn read(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it begins with neither http:// nor https://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("it begins with neither http:// nor https://"),
        };
        if rest.contains(['?', '#']) {
            return Err("it has a query or a fragment");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let strange = |c: char| !c.is_ascii_graphic() || "\"\\<>^`{|}".contains(c);
        if user.is_some_and(|user| user.contains(char::is_control)) || path.contains(strange) {
            return Err("it holds a character that an address can't have");
        }
        let (host, port) = host_and_port(host)?;
        let path = path.trim_end_matches('/');
        if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
            return Err("its path has an empty part, or one that is `.` or `..`");
        }
        let port = port.filter(|port| *port != if https { 443 } else { 80 });
        Ok(Self { https, user: user.is_some(), host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }

    /// Whether the bucket stands in the host's name, or as the path's last part.
    fn repeats(&self, bucket: &str) -> bool {
        let below = self.host.strip_prefix(&bucket.to_ascii_lowercase()).and_then(|rest| rest.strip_prefix('.'));
        let is_service = |host: &str| {
            let of_provider = SERVICES.iter().any(|end| host.ends_with(end) || host == &end[1..]);
            host.starts_with("s3.") || host.starts_with("s3-") || of_provider
        };
        below.is_some_and(is_service) || self.path.rsplit_once('/').is_some_and(|(_, last)| last == bucket)
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match text.find(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let usable = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()),
        None => host.chars().all(named) && !host.starts_with('.') && !host.contains(".."),
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    if !usable {
        return Err("what stands for the host is no host's name");
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().filter(|port| *port > 0),
        _ => None,
    }
    .map_or(if port.is_empty() { Ok(None) } else { Err("its port is no number from 1 to 65535") }, |port| Ok(Some(port)));
    Ok((host, port?))
}

/// Whether an endpoint is Amazon's own, as it is without any: there, a bucket's name says which it is.
pub(super) fn is_amazon(endpoint: &str) -> bool {
    Address::read(endpoint).is_ok_and(|address| address.host.ends_with(".amazonaws.com"))
}

/// A service's address.
pub(super) fn endpoint(walk: &Walk<'_>, node: &Node, bucket: Option<&str>) -> Option<Address> {
    let text = walk.text(node, "an address like https://s3.example.org")?;
    let (why, hint) = match Address::read(&text) {
        Ok(address) if address.user => ("it holds a user", "keys go into access_key_id and secret_access_key"),
        Ok(address) if bucket.is_some_and(|bucket| address.repeats(bucket)) => {
            ("it names the bucket", "leave that out: `bucket` says it")
        }
        Ok(address) => return Some(address),
        Err(why) => (why, "write https://HOST or http://HOST:PORT"),
    };
    walk.wrong(node, format!("unusable endpoint: {why}"), Some(hint.into()));
    None
}

/// A proxy's address, which may hold a user and a password.
pub(super) fn proxy(walk: &Walk<'_>, node: &Node) -> Option<Secret> {
    let secret = secrets::read(walk, node, "a proxy's address like http://proxy.example.org:3128", |own| own.contains('@'))?;
    let SecretFrom::Value(value) = &secret.from else { return Some(secret) };
    let why = match Address::read(value) {
        Ok(address) if address.path.is_empty() => return Some(secret),
        Ok(_) => "it has a path",
        Err(why) => why,
    };
    let hint = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %2F for / in a password, %40 for @ and so on";
    walk.wrong(node, format!("unusable proxy: {why}"), Some(hint.into()));
    None
}
