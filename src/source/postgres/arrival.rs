//! The look at a restore's destination, before anything is made: what it decided, what it refuses, and
//! what a person should know first. It changes nothing.

use std::path::PathBuf;

use super::client::{Client, Psql, Version, quote_identifier};
use super::facts::{self, Receiver, RestoreFacts};
use super::filter::Omit;
use super::replace::{self, Live};
use super::scratch::scratch_name;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::Id;
use crate::source::{Destination, Facts, Landing, StageOptions};

/// What to do where a server that is in use lacks what a drill needs.
const ELSEWHERE: &str = "drill in a temporary server, which has them: take out `server:` or `host:` of `drill:`";

/// What a look at the destination decided.
pub(super) struct Arrival {
    /// On the server's maintenance database.
    pub admin: Psql,
    pub wanted: String,
    /// Under what name it is loaded.
    pub scratch: String,
    /// The server is a drill's own, and goes with it.
    pub temporary: bool,
    /// Databases with our mark that nobody is at work in.
    pub leftovers: Vec<String>,
    /// Roles that are made before the load.
    pub make_roles: Vec<String>,
    /// The wanted name is taken by an empty database.
    pub replaces_empty: bool,
    /// The database that has the wanted name, and makes room.
    pub live: Option<Live>,
    /// The backup.
    pub id: Id,
    /// The receiving server's major version.
    pub server_major: u32,
    /// Who restores is a superuser there.
    pub is_superuser: bool,
    /// The scratch database's owner; none with `--no-owner`.
    pub owner: Option<String>,
    pub omit: Omit,
    /// What the stream is: `plain`, `custom`.
    pub format: String,
    pub facts: RestoreFacts,
    pub options: StageOptions,
    /// What reads an archive; none for a plain dump.
    pub pg_restore: Option<Client>,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Under what spools may be made.
    pub state_dir: PathBuf,
    pub warnings: Vec<String>,
}

/// The first server with triggers that fire when a session begins, and with a setting that stops them.
const LOGIN_TRIGGERS_SINCE: u32 = 17;

impl Arrival {
    /// psql on the scratch database. No trigger of the dump's fires there when a session of ours begins: one that
    /// writes down who came would add rows to what is compared. Only a superuser may restore such a trigger.
    pub(super) fn inside(&self) -> Psql {
        let psql = self.admin.on(&self.scratch);
        if self.server_major < LOGIN_TRIGGERS_SINCE || !self.is_superuser {
            return psql;
        }
        Psql { connection: psql.connection.with_setting("event_triggers", "off"), ..psql }
    }
}

/// Looks whether a dump with these facts can be restored as database `wanted`; changes nothing.
pub(super) fn examine(admin: Psql, wanted: &str, landing: &Landing<'_>, facts: RestoreFacts, cx: &Context) -> Result<Arrival> {
    let options = facts.options(landing.options);
    let mut receiver = facts::of_receiver(&admin, wanted, &facts, cx).map_err(|error| error.step("connect"))?;
    receiver.unmarked = facts::still_unmarked(&admin, &receiver.unmarked, cx).map_err(|error| error.step("connect"))?;
    // First, as it names everything that is in the way of a swap.
    let live = if receiver.exists && options.replace { replace::examine(&admin, wanted, options, cx)? } else { None };
    let is_drill = *landing.to == Destination::Drill;
    check_receiver(&receiver, &facts, options, is_drill)?;
    let replaces_empty = receiver.exists && live.is_none();
    if replaces_empty {
        check_empty(&admin, wanted, &receiver, cx)?;
    }
    let to = Version::parse(&receiver.server_version);
    let mut warnings: Vec<String> = to.iter().flat_map(|to| remarks_on_versions(&admin, landing.facts, to)).collect();
    warnings.extend(remarks(wanted, &receiver, replaces_empty));
    warnings.extend(live.iter().flat_map(|live| live.remarks.clone()));
    let server_major = to.map_or(0, |version| version.major);
    let scratch = if is_drill { wanted.to_owned() } else { scratch_name(wanted)? };
    let make_roles = if options.missing_roles { roles_to_make(&receiver, &facts, options) } else { Vec::new() };
    if !make_roles.is_empty() {
        let names = list(make_roles.iter().map(String::as_str));
        warnings.push(format!("roles that the server lacks are made first, without login or password, and stay: {names}"));
    }
    let owner = (!options.no_owner && !facts.owner.is_empty()).then(|| facts.owner.clone());
    let omit = Omit {
        owners: options.no_owner,
        privileges: options.no_privileges,
        refreshes: facts.foreign_views.clone(),
        receiver_major: server_major,
    };
    let wanted = wanted.to_owned();
    Ok(Arrival {
        admin,
        wanted,
        scratch,
        temporary: false,
        leftovers: receiver.leftovers,
        make_roles,
        replaces_empty,
        live,
        id: landing.id,
        server_major,
        is_superuser: receiver.is_superuser,
        owner,
        omit,
        format: landing.facts.format.clone(),
        facts,
        options,
        pg_restore: None,
        bytes: landing.bytes,
        state_dir: landing.state_dir.to_owned(),
        warnings,
    })
}

/// What a person should know of versions before the restore begins.
fn remarks_on_versions(admin: &Psql, dumped: &Facts, to: &Version) -> Vec<String> {
    let newer = |text: &Option<String>| text.as_deref().and_then(Version::parse).filter(|version| version.major > to.major);
    let from = newer(&dumped.server_version).map(|from| format!("comes from server version {}", from.text));
    let from = from.or_else(|| newer(&dumped.client_version).map(|by| format!("was written by pg_dump {}", by.text)));
    let older = |from| format!("the dump {from}, and the receiving server is {}, which may not understand all of it", to.text);
    from.map(older).into_iter().chain(admin.client.newer_than(to)).collect()
}

/// What else a person should know before the restore begins.
fn remarks(wanted: &str, receiver: &Receiver, replaces_empty: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    if replaces_empty && !receiver.own_settings.is_empty() {
        let own = receiver.own_settings.join(", ");
        remarks.push(format!("the empty database {wanted} is replaced, and its own settings and privileges go with it: {own}"));
    }
    for name in &receiver.leftovers {
        let name = quote_identifier(name);
        remarks.push(format!("{name} is what an interrupted restore left: it is dropped before the next one begins"));
    }
    for name in &receiver.unmarked {
        let name = quote_identifier(name);
        remarks.push(format!(
            "{name} is named like what an interrupted restore leaves, but lacks our mark: it is left alone; if it is nobody's: \
             DROP DATABASE {name};"
        ));
    }
    remarks
}

/// The roles that the dump can't be loaded without, and the server does not have.
fn lacking_roles<'a>(receiver: &'a Receiver, facts: &RestoreFacts, options: StageOptions) -> Vec<&'a String> {
    receiver.missing_roles.iter().filter(|role| facts.needs_role(role, options)).collect()
}

/// Those, and the ones that only the database's own settings and privileges name, which a load does not need.
fn roles_to_make(receiver: &Receiver, facts: &RestoreFacts, options: StageOptions) -> Vec<String> {
    let is_named = |role: &str| facts.needs_role(role, options) || facts.properties.needs_role(role, &facts.owner, options);
    receiver.missing_roles.iter().filter(|role| is_named(role)).cloned().collect()
}

fn check_receiver(receiver: &Receiver, facts: &RestoreFacts, options: StageOptions, is_drill: bool) -> Result<()> {
    let refuse = |cause: String, hint: String| Err(Error::new(Kind::Refused, cause).hint(hint).step("examine"));
    if !receiver.can_create {
        let cause = format!("role {} may not create databases", receiver.role);
        return refuse(cause, format!("ALTER ROLE {} CREATEDB, or restore as another role", quote_identifier(&receiver.role)));
    }
    let roles = lacking_roles(receiver, facts, options);
    if !roles.is_empty() && !options.missing_roles {
        let names = list(roles.iter().map(|role| role.as_str()));
        let kept = list(roles.iter().filter(|role| facts.policy_roles.contains(role)).map(|role| role.as_str()));
        let hint = match kept.as_str() {
            _ if is_drill => format!("create them (CREATE ROLE name;), or {ELSEWHERE}"),
            "" => {
                "--missing-roles creates them without login; or leave owners and grants out with --no-owner and --no-privileges"
                    .into()
            }
            _ => format!(
                "--missing-roles creates them without login: no option leaves out the policies and user mappings of {kept}"
            ),
        };
        return refuse(format!("the receiving server lacks roles that the dump names: {names}"), hint);
    }
    if !receiver.missing_tablespaces.is_empty() {
        let names = list(receiver.missing_tablespaces.iter().map(String::as_str));
        return refuse(
            format!("the receiving server lacks tablespaces that the dump names: {names}"),
            if is_drill {
                format!("create them, or {ELSEWHERE}")
            } else {
                "create them (CREATE TABLESPACE name LOCATION 'directory';)".into()
            },
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
