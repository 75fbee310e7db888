//! A plain dump's way back: into a scratch database by psql, in restricted mode under our own
//! token. psql's exit code proves nothing, so a query follows the last statement, and its random
//! answer must come back; on any failure psql is killed before its input ends.

use std::io::{self, Write};

use super::client::{Psql, Version, quote_identifier, quote_literal};
use super::diagnosis;
use super::facts::{self, Receiver, RestoreFacts};
use super::filter::{Filter, Omit};
use super::scratch::Scratch;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::Cancel;
use crate::host::files;
use crate::host::process::Child;
use crate::names::hex;
use crate::source::{Published, Sink, StageOptions, Staged};

/// What a look at the destination decided.
pub(super) struct Arrival {
    /// On the server's maintenance database.
    pub admin: Psql,
    pub wanted: String,
    /// The wanted name is taken by an empty database.
    pub replaces_empty: bool,
    /// The receiving server's major version.
    pub server_major: u32,
    /// The scratch database's owner; none with `--no-owner`.
    pub owner: Option<String>,
    pub omit: Omit,
    pub facts: RestoreFacts,
    pub warnings: Vec<String>,
}

/// Looks whether a dump with these facts can be restored as database `wanted`; changes nothing.
pub(super) fn examine(
    admin: Psql,
    wanted: &str,
    dump_version: Option<&str>,
    facts: RestoreFacts,
    options: StageOptions,
    cx: &Context,
) -> Result<Arrival> {
    let receiver = facts::of_receiver(&admin, wanted, &facts, cx).map_err(|error| error.step("connect"))?;
    check_receiver(&receiver, &facts, options)?;
    if receiver.exists {
        check_empty(&admin, wanted, &receiver, cx)?;
    }
    let major = |text: &str| Version::parse(text).map_or(0, |version| version.major);
    let (from, to) = (dump_version.map_or(0, major), major(&receiver.server_version));
    let warnings = remarks(wanted, from, to, &receiver, &facts);
    let owner = (!options.no_owner && !facts.owner.is_empty()).then(|| facts.owner.clone());
    let omit = Omit { owners: options.no_owner, privileges: options.no_privileges, refreshes: facts.foreign_views.clone() };
    let wanted = wanted.to_owned();
    Ok(Arrival { admin, wanted, replaces_empty: receiver.exists, server_major: to, owner, omit, facts, warnings })
}

/// What a person should know before the restore begins.
fn remarks(wanted: &str, from: u32, to: u32, receiver: &Receiver, facts: &RestoreFacts) -> Vec<String> {
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
    if !receiver.own_settings.is_empty() {
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
            .hint("restore beside it with --to-database NEWNAME, or drop or rename the database first")
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

/// psql at work on a scratch database.
pub(super) struct PlainSink {
    // Dropped in this order: the child ends before its database goes.
    psql: Child,
    scratch: Scratch,
    filter: Filter,
    arrival: Arrival,
    cx: Context,
}

impl PlainSink {
    /// Makes the scratch database and starts psql on it.
    pub(super) fn start(arrival: Arrival, cx: &Context) -> Result<Self> {
        let name = scratch_name(&arrival.wanted)?;
        let scratch = Scratch::create(&arrival, name, cx)?;
        let session = arrival.admin.on(scratch.name());
        let mut psql = session.program().spawn_writer(cx)?;
        // The filter reads strings so until the dump says otherwise; the server's own default may differ.
        let mut preamble = "SET standard_conforming_strings = on;\n".to_owned();
        let money = arrival.facts.money_locale.iter().map(|locale| format!("SET lc_monetary = {};\n", quote_literal(locale)));
        preamble.extend(money);
        if session.client.has_restricted_mode() {
            preamble.insert_str(0, &format!("\\restrict {}\n", random_word()?));
        } else {
            // The filter lets no backslash command through in any case.
            tracing::debug!("this psql has no restricted mode");
        }
        psql.write_all(preamble.as_bytes()).map_err(|error| load_failed(&mut psql, error))?;
        let filter = Filter::new(arrival.omit.clone());
        Ok(Self { psql, scratch, filter, arrival, cx: cx.clone() })
    }

    fn pass_on(&mut self) -> Result<()> {
        let text = self.filter.take();
        let written = self.psql.write_all(text);
        text.clear();
        written.map_err(|error| load_failed(&mut self.psql, error))
    }

    /// Asks for a random answer behind the last statement, and ends psql.
    fn prove(&mut self) -> Result<()> {
        let (one, two) = (random_word()?, random_word()?);
        // Nothing comes back inside of a transaction that psql's end would undo.
        let question = format!(
            "\nSELECT {} || {} WHERE pg_catalog.txid_current_if_assigned() IS NULL;\n",
            quote_literal(&one),
            quote_literal(&two)
        );
        self.psql.write_all(question.as_bytes()).map_err(|error| load_failed(&mut self.psql, error))?;
        self.psql.close_stdin();
        let finished = self.psql.wait()?;
        if !finished.exit.is_success() {
            return Err(diagnosis::failed("loading with psql", finished.exit, &finished.stderr_tail));
        }
        let said = String::from_utf8_lossy(&finished.stdout_tail);
        if said.lines().last() != Some(format!("{one}{two}").as_str()) {
            return Err(Error::new(Kind::Damaged, "psql exited with code 0, but did not get to the end of the dump")
                .hint("the dump is cut inside a statement: verify the backup, and take another one"));
        }
        Ok(())
    }
}

impl Write for PlainSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.filter.feed(bytes).and_then(|()| self.pass_on()).map_err(|error| error.step("load"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for PlainSink {
    fn finish(mut self: Box<Self>) -> Result<Box<dyn Staged>> {
        let whole = if self.filter.is_complete() {
            self.filter.finish();
            self.pass_on().and_then(|()| self.prove())
        } else {
            Err(Error::new(Kind::Damaged, "the dump does not end as a whole one does")
                .hint("verify the backup, and take another one"))
        };
        whole.map_err(|error| error.step("load"))?;
        let told = |view: &String| {
            format!("{view} is not refreshed, as it would query another server: REFRESH MATERIALIZED VIEW {view};")
        };
        let warnings = self.filter.omitted_refreshes().iter().map(told).collect();
        let Self { scratch, arrival, cx, .. } = *self;
        Ok(Box::new(StagedDatabase { scratch, arrival, warnings, cx }))
    }
}

/// Why psql took no more: what it said, where it ended; else the write's own error.
fn load_failed(psql: &mut Child, error: io::Error) -> Error {
    let error = crate::error::from_io(error, Kind::Child, "psql took no more of the dump");
    // Only where it has ended: waiting would end its input, and what came so far would be applied.
    if error.kind() != Kind::Child {
        return error.step("load");
    }
    match psql.wait() {
        Ok(finished) if !finished.exit.is_success() => {
            diagnosis::failed("loading with psql", finished.exit, &finished.stderr_tail).step("load")
        }
        Ok(_) => error.step("load"),
        Err(other) => other.step("load"),
    }
}

/// A loaded scratch database.
struct StagedDatabase {
    scratch: Scratch,
    arrival: Arrival,
    warnings: Vec<String>,
    cx: Context,
}

impl Staged for StagedDatabase {
    fn publish(self: Box<Self>) -> Result<Published> {
        let Self { scratch, arrival, mut warnings, cx } = *self;
        let Arrival { admin, wanted, replaces_empty, .. } = arrival;
        let former = if replaces_empty { Some(scratch_name(&wanted)?) } else { None };
        scratch.publish(&wanted, former.as_deref(), &cx)?;
        if let Some(former) = former {
            // It is published: what is left to do is clean-up, whoever interrupts now.
            let cx = cx.with_cancel(Cancel::for_clean_up()?);
            warnings.extend(drop_former(&admin, &former, &wanted, &cx));
        }
        Ok(Published { place: format!("database {wanted}"), warnings })
    }

    fn discard(self: Box<Self>) -> Result<()> {
        self.scratch.discard()
    }
}

/// The empty database that had the name: dropped only when nothing came into it in the meantime. A
/// warning says that it is kept.
fn drop_former(admin: &Psql, former: &str, wanted: &str, cx: &Context) -> Option<String> {
    let dropped = match facts::contents(&admin.on(former), cx) {
        Ok(objects) if objects.is_empty() => {
            admin.run(&format!("DROP DATABASE {};", quote_identifier(former)), "dropping the empty database", cx).map(drop)
        }
        Ok(_) => Err(Error::new(Kind::Refused, "something was created in it during the restore")),
        Err(error) => Err(error),
    };
    dropped.err().map(|error| format!("the database that was {wanted} before is kept as {former}: {error}"))
}

/// A name that no database has: the wanted one's beginning, so that a person knows what it is.
fn scratch_name(wanted: &str) -> Result<String> {
    // PostgreSQL cuts names at 63 bytes.
    let mut cut = wanted.len().min(63 - "_restoring_".len() - 12);
    while !wanted.is_char_boundary(cut) {
        cut -= 1;
    }
    Ok(format!("{}_restoring_{}", &wanted[..cut], &random_word()?[..12]))
}

fn random_word() -> Result<String> {
    Ok(hex(&files::random_bytes::<16>()?))
}
