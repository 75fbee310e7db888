//! The scratch database of a restore or drill: made from template0, marked as ours in its comment, held by an
//! advisory lock, and gone again unless it was published. Nothing without our mark is ever dropped here.

mod hold;

use std::time::{Duration, Instant};

use self::hold::Hold;
use super::arrival::Arrival;
use super::client::{Psql, quote_identifier, quote_literal};
use super::facts::RestoreFacts;
use super::properties::{self, Deferred, Properties};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::Cancel;
use crate::host::files;
use crate::names::hex;
use crate::observe::Event;

pub(super) use self::hold::is_free;

/// How the comment of every database begins that we made and have not published.
pub(super) const MARK: &str = "db-backup-tools scratch database";
/// How the comment of every database begins that made room for a restored one.
pub(super) const FORMER_MARK: &str = "db-backup-tools former database";

/// Has this transaction's commit wait until the log is on disk, and so all before it, as the log is written in order: with
/// `synchronous_commit` off (a role's setting, or `PGOPTIONS`) a crash of the server could undo a restore that is done.
/// Source: PostgreSQL documentation, "Asynchronous Commit".
const FLUSHED: &str =
    "SELECT set_config('synchronous_commit', 'local', true) WHERE current_setting('synchronous_commit') = 'off';\n";

/// How long a server that is gone may take to come back, for its scratch database to be dropped.
const COMES_BACK: Duration = Duration::from_secs(10);

/// A marked database of ours. Dropped, it drops the database.
pub(super) struct Scratch {
    /// On the server's maintenance database.
    admin: Psql,
    name: String,
    cx: Context,
    armed: bool,
    /// What it gets with the wanted name.
    deferred: Vec<Deferred>,
    /// None on a temporary server, which is our own.
    _hold: Option<Hold>,
}

impl Scratch {
    /// Makes an empty database with the recorded encoding and locale; `owner` is none with `--no-owner`. What
    /// interrupted runs left on the server is dropped first.
    pub(super) fn create(arrival: &Arrival, cx: &Context) -> Result<Self> {
        let Arrival { admin, scratch: name, .. } = arrival;
        if arrival.temporary {
            // It goes with its server.
            let scratch = Self {
                admin: admin.clone(),
                name: name.clone(),
                cx: cx.clone(),
                armed: false,
                deferred: Vec::new(),
                _hold: None,
            };
            scratch.make(arrival)?;
            return Ok(scratch);
        }
        for leftover in &arrival.leftovers {
            if let Err(error) = collect(admin, leftover, cx) {
                cx.cancel.check()?;
                let text = format!("{leftover} is what an interrupted restore left, and could not be dropped: {error}");
                cx.observer.event(Event::Warning { target: None, text });
            }
        }
        // The lock first: whoever sees the mark without it drops the database.
        let hold = Hold::take(admin, name, cx).map_err(|error| error.step("scratch"))?;
        if hold.is_none() {
            return Err(Error::new(Kind::Locked, format!("the lock on {name} is taken")).hint("try again").step("scratch"));
        }
        // Armed before the database is there: a cancel may meet the statement under way.
        let scratch =
            Self { admin: admin.clone(), name: name.clone(), cx: cx.clone(), armed: true, deferred: Vec::new(), _hold: hold };
        scratch.make(arrival)?;
        Ok(scratch)
    }

    fn make(&self, arrival: &Arrival) -> Result<()> {
        let owner = arrival.owner.as_ref().map_or(String::new(), |owner| format!(" OWNER {}", quote_identifier(owner)));
        let options = creation_options(&arrival.facts, arrival.server_major) + &owner;
        let name = quote_identifier(&self.name);
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0{options}");
        let comment = quote_literal(&format!("{MARK}, made by {}; safe to drop when no restore runs", self.admin.application));
        let script = format!("{sql};\nCOMMENT ON DATABASE {name} IS {comment};");
        self.admin.run(&script, "making the scratch database", &self.cx).map(drop).map_err(|error| error.step("scratch"))
    }

    /// Settings that it gets with the wanted name alone.
    pub(super) fn defer(&mut self, settings: Vec<Deferred>) {
        self.deferred = settings;
    }

    /// Those.
    pub(super) fn deferred(&self) -> &[Deferred] {
        &self.deferred
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gives it the wanted name in one transaction, which begins with `make_room`: statements that take the name from
    /// another database. On an error nothing was renamed, and it may be tried again. `psql` is on the maintenance
    /// database, and its sessions' name begins like those of the restore.
    pub(super) fn publish(
        &mut self,
        wanted: &str,
        make_room: &str,
        properties: &Properties,
        psql: &Psql,
        cx: &Context,
    ) -> Result<()> {
        let (scratch, name) = (quote_identifier(&self.name), quote_identifier(wanted));
        let sql = format!(
            "BEGIN;\n{FLUSHED}{make_room}{}ALTER DATABASE {scratch} RENAME TO {name};\nCOMMIT;",
            properties::at_publication(&self.name, properties, &self.deferred)
        );
        let doing = format!("giving the restored database its name {wanted}");
        let Err(error) = psql.run(&sql, &doing, cx) else {
            self.armed = false;
            return Ok(());
        };
        // The answer may be lost where the rename is done: then the database is no scratch any more.
        match self.was_renamed() {
            Ok(true) => {
                self.armed = false;
                Ok(())
            }
            Ok(false) => Err(error.step("publish")),
            Err(unknown) => {
                let what = format!("it is not known whether {wanted} is the restored database now: {}", error.cause());
                let hint = format!(
                    "look on the server: where database {} is gone, {wanted} is the restored one, and all is done ({})",
                    self.name,
                    unknown.cause()
                );
                Err(error.restated(what).hint(hint).step("publish"))
            }
        }
    }

    /// After a rename whose answer was lost: whether the scratch name is gone. An error where the server does not say.
    fn was_renamed(&self) -> Result<bool> {
        let cx = self.cx.with_cancel(Cancel::for_clean_up()?);
        patiently(&cx, || {
            self.admin.end_sessions(&self.admin.application, &cx)?;
            Ok(!find(&self.admin, &self.name, &cx)?.there)
        })
    }

    /// Removes it, and says so when it can't.
    pub(super) fn discard(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.armed) {
            return Ok(());
        }
        let cx = self.cx.with_cancel(Cancel::for_clean_up()?);
        let removed = patiently(&cx, || remove(&self.admin, &self.name, &cx));
        removed.map_err(|error| {
            let hint = format!("drop it by hand: DROP DATABASE {} WITH (FORCE);", quote_identifier(&self.name));
            Error::new(Kind::Database, format!("the scratch database {} could not be dropped", self.name))
                .hint(hint)
                .source(error)
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            let hint = error.hint_text().unwrap_or_default();
            self.cx.observer.event(Event::Warning { target: None, text: format!("{error}; {hint}") });
        }
    }
}

/// Tries again for a while where the server does not answer: one that crashed may be back in a moment.
fn patiently<T>(cx: &Context, attempt: impl Fn() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.kind() == Kind::Connection && begun.elapsed() < COMES_BACK => {
                cx.cancel.sleep(Duration::from_millis(500)).map_err(|_| error)?;
            }
            other => return other,
        }
    }
}

#[derive(serde::Deserialize)]
struct Found {
    there: bool,
    subscriptions: Vec<String>,
}

/// Asks what is there under the scratch database's name.
fn find(admin: &Psql, name: &str, cx: &Context) -> Result<Found> {
    let there = format!(
        "SELECT json_build_object('there', EXISTS (SELECT FROM pg_database WHERE datname = {0}), 'subscriptions',
           (SELECT coalesce(json_agg(subname), '[]') FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = {0}));",
        quote_literal(name)
    );
    admin.ask(&there, "looking for the scratch database", cx)
}

/// Drops a database of ours, and the sessions on it.
fn remove(admin: &Psql, name: &str, cx: &Context) -> Result<()> {
    // A CREATE DATABASE whose client was killed may be at work still, and finish after a look.
    admin.end_sessions(&admin.application, cx)?;
    // `subdbid` is open to superusers alone; a role that is none has no subscription.
    let found = match find(admin, name, cx) {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::Database => Found { there: true, subscriptions: Vec::new() },
        Err(error) => return Err(error),
    };
    if !found.there {
        return Ok(());
    }
    for subscription in &found.subscriptions {
        // Its slot is the original's: dropping the subscription with it would drop that one's slot.
        let name_ = quote_identifier(subscription);
        let sql = format!(
            "ALTER SUBSCRIPTION {name_} DISABLE;\nALTER SUBSCRIPTION {name_} SET (slot_name = NONE);\nDROP SUBSCRIPTION {name_};"
        );
        admin.on(name).run(&sql, "removing a restored subscription", cx)?;
    }
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE);", quote_identifier(name));
    admin.run(&sql, "dropping the scratch database", cx).map(drop)
}

/// The encoding and locale of a database as `CREATE DATABASE` takes them.
pub(super) fn creation_options(facts: &RestoreFacts, server_major: u32) -> String {
    let mut options = vec![
        ("ENCODING", facts.encoding.as_str()),
        ("LC_COLLATE", facts.locale.as_str()),
        ("LC_CTYPE", facts.ctype.as_deref().unwrap_or(&facts.locale)),
    ];
    if let Some(provider) = &facts.locale_provider {
        let keyword = if provider == "icu" { "ICU_LOCALE" } else { "BUILTIN_LOCALE" };
        options.push(("LOCALE_PROVIDER", provider));
        options.push((keyword, facts.provider_locale.as_deref().unwrap_or_default()));
        options.extend(facts.icu_rules.as_deref().map(|rules| ("ICU_RULES", rules)));
    } else if server_major >= 15 {
        // Without it the receiving cluster's own provider would sort instead.
        options.push(("LOCALE_PROVIDER", "libc"));
    }
    let given = options.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(keyword, value)| format!(" {keyword} {}", quote_literal(value))).collect::<Vec<_>>().concat()
}

/// Drops a marked database that an interrupted run left; leaves it alone where somebody holds its lock, has
/// connected to it, or has taken our mark off.
fn collect(admin: &Psql, name: &str, cx: &Context) -> Result<()> {
    let Some(_hold) = Hold::take(admin, name, cx)? else { return Ok(()) };
    let still = format!(
        "SELECT to_json(EXISTS (SELECT FROM pg_database d WHERE datname = {} AND {}));",
        quote_literal(name),
        is_abandoned("d")
    );
    if admin.ask(&still, "looking at what an interrupted restore left", cx)? { remove(admin, name, cx) } else { Ok(()) }
}

/// A condition that this row of pg_database has our mark, and nobody is connected to it.
pub(super) fn is_abandoned(row: &str) -> String {
    let mark = quote_literal(MARK);
    format!(
        "left(shobj_description({row}.oid, 'pg_database'), length({mark})) = {mark}
         AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = {row}.oid AND a.backend_type <> 'autovacuum worker')"
    )
}

/// A name that no database has: the wanted one's beginning, so that a person knows what it is.
pub(super) fn scratch_name(wanted: &str) -> Result<String> {
    name_for(wanted, "restoring")
}

/// The same for a drill.
pub(super) fn drill_name(database: &str) -> Result<String> {
    name_for(database, "drill")
}

fn name_for(wanted: &str, purpose: &str) -> Result<String> {
    // PostgreSQL cuts names at 63 bytes.
    let mut cut = wanted.len().min(63 - purpose.len() - 2 - 12);
    while !wanted.is_char_boundary(cut) {
        cut -= 1;
    }
    Ok(format!("{}_{purpose}_{}", &wanted[..cut], &random_word()?[..12]))
}

pub(super) fn random_word() -> Result<String> {
    Ok(hex(&files::random_bytes::<16>()?))
}
