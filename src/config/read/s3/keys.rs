//! Access keys: both or none. No message shows one.

use crate::config::model::S3Keys;
use crate::config::node::Node;
use crate::config::secret::{Secret, SecretFrom};
use crate::config::walk::{Fields, Walk};

use super::super::{optional, secrets};

const BOTH: &str = "give both, or neither: then they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                    ~/.aws/credentials or the machine's role";

/// The keys; inside, `None`: they come from the usual chain.
#[allow(clippy::option_option)] // absent and wrong are two things
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Option<S3Keys>> {
    let nodes = (fields.get("access_key_id"), fields.get("secret_access_key"), fields.get("session_token"));
    // An id in the file gives nothing away.
    let id = optional(nodes.0, |node| key(walk, node, "an access key's id", |_| false));
    let secret = optional(nodes.1, |node| key(walk, node, "a secret key", |own| !own.is_empty()));
    let token = optional(nodes.2, |node| key(walk, node, "a session token", |own| !own.is_empty()));
    let alone = |node: &Node, other: &str| walk.wrong(node, format!("given without `{other}`"), Some(BOTH.into()));
    match nodes {
        (Some(node), None, _) => alone(node, "secret_access_key"),
        (None, Some(node), _) => alone(node, "access_key_id"),
        (None, None, Some(node)) => alone(node, "access_key_id` and `secret_access_key"),
        _ => {
            let token = token?;
            let both = id?.zip(secret?);
            return Some(both.map(|(access_key_id, secret_access_key)| S3Keys {
                access_key_id,
                secret_access_key,
                session_token: token,
            }));
        }
    }
    None
}

/// A key has no white space: what has some was cut or pasted wrong.
fn key(walk: &Walk<'_>, node: &Node, what: &str, tells: fn(&str) -> bool) -> Option<Secret> {
    let secret = secrets::read(walk, node, what, tells)?;
    if let SecretFrom::Value(value) = &secret.from
        && value.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii())
    {
        let problem = format!("expected {what}, found {} with white space or other characters that no key has", secret.written);
        walk.wrong(node, problem, Some("look for a line break at its end".into()));
        return None;
    }
    Some(secret)
}
