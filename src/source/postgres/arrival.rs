//! The look at a restore's destination, before anything is made: what it decided, what it refuses, and
//! what a person should know first. It changes nothing.

use std::path::PathBuf;

use super::client::{Psql, Version, quote_identifier};
use super::facts::{self, Receiver, RestoreFacts};
use super::filter::Omit;
use super::replace::{self, Live};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::Id;
use crate::source::{Landing, StageOptions};

/// What a look at the destination decided.
#[allow(dead_code)] // for now: read by the custom format
pub(super) struct Arrival {
    /// On the server's maintenance database.
    pub admin: Psql,
    pub wanted: String,
    /// The wanted name is taken by an empty database.
    pub replaces_empty: bool,
    /// The database that has the wanted name, and makes room.
    pub live: Option<Live>,
    /// The backup.
    pub id: Id,
    /// The receiving server's major version.
    pub server_major: u32,
    /// The scratch database's owner; none with `--no-owner`.
    pub owner: Option<String>,
    pub omit: Omit,
    /// What the stream is: `plain`, `custom`.
    pub format: String,
    pub facts: RestoreFacts,
    pub options: StageOptions,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Under what spools may be made.
    pub state_dir: PathBuf,
    pub warnings: Vec<String>,
}

/// Looks whether a dump with these facts can be restored as database `wanted`; changes nothing.
pub(super) fn examine(admin: Psql, wanted: &str, landing: &Landing<'_>, facts: RestoreFacts, cx: &Context) -> Result<Arrival> {
    let options = landing.options;
    let receiver = facts::of_receiver(&admin, wanted, &facts, cx).map_err(|error| error.step("connect"))?;
    // First, as it names everything that is in the way of a swap.
    let live = if receiver.exists && options.replace { replace::examine(&admin, wanted, options, cx)? } else { None };
    check_receiver(&receiver, &facts, options)?;
    let replaces_empty = receiver.exists && live.is_none();
    if replaces_empty {
        check_empty(&admin, wanted, &receiver, cx)?;
    }
    let major = |text: &str| Version::parse(text).map_or(0, |version| version.major);
    let (from, to) = (landing.facts.server_version.as_deref().map_or(0, major), major(&receiver.server_version));
    let mut warnings = remarks(wanted, from, to, &receiver, &facts, replaces_empty);
    warnings.extend(live.iter().flat_map(|live| live.remarks.clone()));
    let owner = (!options.no_owner && !facts.owner.is_empty()).then(|| facts.owner.clone());
    let omit = Omit { owners: options.no_owner, privileges: options.no_privileges, refreshes: facts.foreign_views.clone() };
    let wanted = wanted.to_owned();
    Ok(Arrival {
        admin,
        wanted,
        replaces_empty,
        live,
        id: landing.id,
        server_major: to,
        owner,
        omit,
        format: landing.facts.format.clone(),
        facts,
        options,
        bytes: landing.bytes,
        state_dir: landing.state_dir.to_owned(),
        warnings,
    })
}

/// What a person should know before the restore begins.
fn remarks(wanted: &str, from: u32, to: u32, receiver: &Receiver, facts: &RestoreFacts, replaces_empty: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    if from > to {
        remarks.push(format!(
            "the dump comes from server version {from}, the receiving server is {to}: it may not understand all of it"
        ));
    }
    if !facts.settings.is_empty() {
        let settings = facts.settings.join(", ");
        remarks
            .push(format!("settings of the database itself are not put back: {settings}; set them with ALTER DATABASE ... SET"));
    }
    if replaces_empty && !receiver.own_settings.is_empty() {
        let own = receiver.own_settings.join(", ");
        remarks.push(format!("the empty database {wanted} is replaced, and its own settings and privileges go with it: {own}"));
    }
    for name in &receiver.leftovers {
        let name = quote_identifier(name);
        remarks.push(format!("{name} is what an interrupted restore left; unless one is at work: DROP DATABASE {name};"));
    }
    remarks
}

fn check_receiver(receiver: &Receiver, facts: &RestoreFacts, options: StageOptions) -> Result<()> {
    let refuse = |cause: String, hint: String| Err(Error::new(Kind::Refused, cause).hint(hint).step("examine"));
    if !receiver.can_create {
        let cause = format!("role {} may not create databases", receiver.role);
        return refuse(cause, format!("ALTER ROLE {} CREATEDB, or restore as another role", quote_identifier(&receiver.role)));
    }
    let roles: Vec<&String> = receiver.missing_roles.iter().filter(|role| facts.needs_role(role, options)).collect();
    if !roles.is_empty() {
        let names = list(roles.iter().map(|role| role.as_str()));
        let kept = list(roles.iter().filter(|role| facts.policy_roles.contains(role)).map(|role| role.as_str()));
        let hint = match kept.as_str() {
            "" => "create them (CREATE ROLE name;), or leave owners and grants out with --no-owner and --no-privileges".into(),
            _ => format!("create them (CREATE ROLE name;): no option leaves out the policies and user mappings of {kept}"),
        };
        return refuse(format!("the receiving server lacks roles that the dump names: {names}"), hint);
    }
    if !receiver.missing_tablespaces.is_empty() {
        let names = list(receiver.missing_tablespaces.iter().map(String::as_str));
        return refuse(
            format!("the receiving server lacks tablespaces that the dump names: {names}"),
            "create them (CREATE TABLESPACE name LOCATION 'directory';)".into(),
        );
    }
    if !receiver.missing_extensions.is_empty() {
        let names = list(receiver.missing_extensions.iter().map(String::as_str));
        return refuse(
            format!("the receiving server lacks extensions that the dump names: {names}"),
            "install their packages on the server's machine (Debian: postgresql-contrib, postgresql-VERSION-NAME)".into(),
        );
    }
    Ok(())
}

fn check_empty(admin: &Psql, wanted: &str, receiver: &Receiver, cx: &Context) -> Result<()> {
    let refuse = |cause: String| {
        Err(Error::new(Kind::Refused, cause)
            .hint("restore beside it with --to-database NEWNAME, or swap with it (--replace), or drop or rename it first")
            .step("examine"))
    };
    if receiver.is_template {
        return refuse(format!("database {wanted} is a template: every new database would be a copy of what is restored"));
    }
    // Our own sessions are there.
    if wanted == admin.connection.database() {
        return refuse(format!("database {wanted} is the server's maintenance database, from which restores are made"));
    }
    let objects = facts::contents(&admin.on(wanted), cx).map_err(|error| error.step("examine"))?;
    if !objects.is_empty() {
        let more = if objects.len() > 3 { ", ..." } else { "" };
        let named = objects.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        return refuse(format!("database {wanted} exists and is not empty: it holds {named}{more}"));
    }
    if receiver.sessions > 0 {
        return refuse(format!("database {wanted} exists, and {} sessions are connected to it", receiver.sessions));
    }
    Ok(())
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quote_identifier).collect::<Vec<_>>().join(", ")
}
