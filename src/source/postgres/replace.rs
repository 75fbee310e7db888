//! A live database makes room for a restored one: what must not be there when it does, and the swap
//! itself, which is one transaction. Until that commits, the live database is as it was.

use std::time::Duration;

use serde::Deserialize;

use super::arrival::Arrival;
use super::client::{Psql, quote_identifier, quote_literal};
use super::facts;
use super::former::Former;
use super::scratch::Scratch;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::Reason;
use crate::source::StageOptions;

/// Things of one sort that a message names.
const NAMED: usize = 5;
/// Swaps that are tried, each with all sessions ended. A rename waits 5 s for them to go.
const ATTEMPTS: u32 = 4;
/// What the swap's script says where the server would not rename, whatever the server's language.
const IN_USE: &str = "db-backup-tools: a session is in the way";
/// Likewise, where something came in that a rename would not stop at.
const IN_THE_WAY: &str = "db-backup-tools: not to be renamed: ";

/// A database that has the wanted name, and is to make room.
#[derive(Debug)]
pub(super) struct Live {
    /// Its number, by which it is known again after the load.
    oid: u32,
    /// What a person should know before.
    pub remarks: Vec<String>,
}

/// What a look at the live database says.
#[derive(Debug, Deserialize)]
struct Look {
    oid: Option<u32>,
    role: String,
    owner: Option<String>,
    is_owner: bool,
    can_create: bool,
    is_template: bool,
    sees_subscriptions: bool,
    hindrances: Vec<Hindrance>,
    sessions: Vec<Session>,
}

#[derive(Debug, Deserialize)]
struct Hindrance {
    sort: Sort,
    what: String,
}

/// What a rename would not wait for, or not stop at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Prepared,
    Slot,
    Subscription,
    Worker,
}

impl Sort {
    const ALL: [Self; 4] = [Self::Prepared, Self::Slot, Self::Subscription, Self::Worker];

    fn hint(self) -> &'static str {
        match self {
            Self::Prepared => "COMMIT PREPARED or ROLLBACK PREPARED each prepared transaction",
            Self::Slot => "drop each slot when its reader is done (SELECT pg_drop_replication_slot('NAME'))",
            Self::Subscription => "ALTER SUBSCRIPTION ... DISABLE each subscription",
            Self::Worker => "stop what runs the workers (an extension, a logical replication)",
        }
    }
}

#[derive(Debug, Deserialize)]
struct Session {
    what: String,
    /// This role may end it.
    endable: bool,
}

/// What is done about ordinary sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sessions {
    /// Each is in the way.
    Refused,
    /// Those that this role may not end are in the way.
    Ended,
    /// The rename waits for them.
    WaitedFor,
}

/// What must not be there, as `(sort, what)`; `{name}` is the database's name as a literal. A role that is
/// no superuser is not told the type of others' sessions.
const HINDRANCES: &str = "
  SELECT 'prepared' AS sort, format('prepared transaction %L of role %I', gid, owner) AS what
    FROM pg_prepared_xacts WHERE database = {name}
  UNION ALL SELECT 'slot', format('logical replication slot %I', slot_name) FROM pg_replication_slots WHERE database = {name}
  UNION ALL SELECT 'worker', format('%s (pid %s)', backend_type, pid) FROM pg_stat_activity
    WHERE datname = {name} AND backend_type NOT IN ('client backend', 'autovacuum worker', 'parallel worker')";

/// Its enabled subscriptions, likewise.
const SUBSCRIPTIONS: &str = "
  SELECT 'subscription' AS sort, format('enabled subscription %I', subname) AS what
    FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = {name} AND subenabled";

/// Not every server shows these columns to every role.
const SEES_SUBSCRIPTIONS: &str = "(has_column_privilege('pg_subscription', 'subdbid', 'SELECT') \
     AND has_column_privilege('pg_subscription', 'subname', 'SELECT') AND has_column_privilege('pg_subscription', 'subenabled', 'SELECT'))";

/// Ordinary sessions on a database, without our own.
const SESSIONS: &str = "
  SELECT a.*, me.rolsuper OR (NOT coalesce(them.rolsuper, true)
           AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))) AS endable
    FROM pg_stat_activity a JOIN pg_roles me ON me.rolname = current_user LEFT JOIN pg_roles them ON them.oid = a.usesysid
   WHERE CASE WHEN backend_type IS NULL THEN usesysid IS NOT NULL ELSE backend_type = 'client backend' END
     AND left(application_name, length({own})) <> {own} AND datname = {name}";

fn filled(sql: &str, name: &str, own: &str) -> String {
    sql.replace("{own}", &quote_literal(own)).replace("{name}", &quote_literal(name))
}

fn look(admin: &Psql, wanted: &str, cx: &Context) -> Result<Look> {
    let sql = "
SELECT json_build_object(
  'oid', (SELECT oid::bigint FROM pg_database WHERE datname = {name}),
  'role', current_user,
  'owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {name}),
  'is_owner', coalesce((SELECT rolsuper OR pg_has_role(datdba, 'USAGE') FROM pg_database, pg_roles
                         WHERE datname = {name} AND rolname = current_user), false),
  'can_create', (SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user),
  'is_template', EXISTS (SELECT FROM pg_database WHERE datname = {name} AND datistemplate),
  'sees_subscriptions', {sees},
  'hindrances', (SELECT coalesce(json_agg(h), '[]') FROM ({hindrances}) h),
  'sessions', (SELECT coalesce(json_agg(json_build_object('endable', endable, 'what',
      format('pid %s (role %s%s%s)', pid, coalesce(quote_ident(usename), '?'),
             CASE WHEN application_name <> '' THEN ', ' || application_name ELSE '' END,
             ', from ' || host(client_addr))) ORDER BY pid), '[]') FROM ({sessions}) s));"
        .replace("{sees}", SEES_SUBSCRIPTIONS)
        .replace("{hindrances}", HINDRANCES)
        .replace("{sessions}", SESSIONS);
    let doing = "looking at the database that is to make room";
    let mut look: Look = admin.ask(&filled(&sql, wanted, &admin.application), doing, cx)?;
    if look.sees_subscriptions {
        let sql = format!("SELECT coalesce(json_agg(h), '[]') FROM ({SUBSCRIPTIONS}) h;");
        look.hindrances.extend(admin.ask::<Vec<Hindrance>>(&filled(&sql, wanted, ""), doing, cx)?);
    }
    Ok(look)
}

/// Looks whether the database of the wanted name can make room. `None`: it is empty and idle, and can simply
/// go. `Refused`, with all that stands in the way.
pub(super) fn examine(admin: &Psql, wanted: &str, options: StageOptions, cx: &Context) -> Result<Option<Live>> {
    let look = look(admin, wanted, cx).map_err(|error| error.step("examine"))?;
    let Some(oid) = look.oid else { return Ok(None) };
    let is_own = wanted == admin.connection.database();
    if !look.is_template && !is_own && look.hindrances.is_empty() && look.sessions.is_empty() {
        // Where it can't be looked into it is not known to be empty.
        match facts::contents(&admin.on(wanted), cx) {
            Ok(objects) if objects.is_empty() => return Ok(None),
            Err(error) if error.kind() != Kind::Database && error.kind() != Kind::Child => return Err(error.step("examine")),
            Ok(_) | Err(_) => {}
        }
    }
    let (mut causes, mut hints) = look.what_forbids(is_own);
    let (more, advice) = look.in_the_way(if options.disconnect { Sessions::Ended } else { Sessions::Refused });
    causes.extend(more);
    hints.extend(advice);
    if !causes.is_empty() {
        let what = format!("database {wanted} can't make room: {}", causes.join("; "));
        return Err(Error::new(Kind::Refused, what).hint(hints.join("; ")).step("examine"));
    }
    let mut remarks = Vec::new();
    if !look.sees_subscriptions {
        remarks.push(format!("role {} does not see whether {wanted} has enabled subscriptions: look as a superuser", look.role));
    }
    if !look.sessions.is_empty() {
        remarks.push(format!("sessions on {wanted} are ended before the swap: {}", named(&look.sessions)));
    }
    Ok(Some(Live { oid, remarks }))
}

impl Look {
    /// What can't change by itself: whose it is, and what it is.
    fn what_forbids(&self, is_own: bool) -> (Vec<String>, Vec<String>) {
        let (mut causes, mut hints) = (Vec::new(), Vec::new());
        let mut add = |cause: String, hint: String| {
            causes.push(cause);
            hints.push(hint);
        };
        let (role, owner) = (&self.role, self.owner.as_deref().unwrap_or_default());
        let beside = || "restore beside it with --to-database NEWNAME".to_owned();
        if self.is_template {
            add("it is a template: every new database would be a copy of what is restored".into(), beside());
        }
        if is_own {
            add("it is the server's maintenance database, from which restores are made".into(), beside());
        }
        if !self.can_create {
            let hint = format!("ALTER ROLE {} CREATEDB, or restore as another role", quote_identifier(role));
            add(format!("role {role} may not create or rename databases"), hint);
        }
        if !self.is_owner {
            let hint = format!("restore as {owner}, a member of it, or a superuser");
            add(format!("role {role} does not own it, but {owner} does"), hint);
        }
        (causes, hints)
    }

    /// What may come and go.
    fn in_the_way(&self, rule: Sessions) -> (Vec<String>, Vec<String>) {
        let (mut causes, mut hints) = (Vec::new(), Vec::new());
        for sort in Sort::ALL {
            let found: Vec<&str> = self.hindrances.iter().filter(|one| one.sort == sort).map(|one| one.what.as_str()).collect();
            if !found.is_empty() {
                causes.push(few(&found));
                hints.push(sort.hint().to_owned());
            }
        }
        let stuck: Vec<&Session> = self.sessions.iter().filter(|session| !session.endable).collect();
        if rule == Sessions::Refused && !self.sessions.is_empty() {
            causes.push(format!("sessions are on it: {}", named(&self.sessions)));
            hints.push("end them, or have them ended with --disconnect".into());
        } else if rule == Sessions::Ended && !stuck.is_empty() {
            let names: Vec<&str> = stuck.iter().map(|session| session.what.as_str()).collect();
            causes.push(format!("role {} may not end the sessions on it: {}", self.role, few(&names)));
            hints.push("GRANT pg_signal_backend to it; a superuser's sessions are ended by a superuser alone".into());
        }
        (causes, hints)
    }
}

fn named(sessions: &[Session]) -> String {
    few(&sessions.iter().map(|session| session.what.as_str()).collect::<Vec<_>>())
}

fn few(texts: &[&str]) -> String {
    let more = match texts.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    texts.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ") + &more
}

/// Renames the live database away and the restored one into its place, in one transaction. An error says that
/// nothing is changed, but for sessions that `--disconnect` ended.
pub(super) fn swap(scratch: &mut Scratch, live: &Live, arrival: &Arrival, cx: &Context) -> Result<Former> {
    let Arrival { admin, wanted, options, .. } = arrival;
    let former = Former::of(arrival, scratch, cx)?;
    let make_room = make_room(live, wanted, &former);
    let swapper = Psql { application: format!("{} swap", admin.application), ..admin.clone() };
    let mut attempt = 1;
    loop {
        let rule = if options.disconnect { Sessions::Ended } else { Sessions::WaitedFor };
        hold_off(admin, wanted, rule, cx)?;
        let outcome = if options.disconnect {
            let names = [wanted.as_str(), scratch.name()].map(str::to_owned);
            while_disconnecting(admin, &swapper.application, &names, cx, || {
                scratch.publish(wanted, &make_room, &arrival.facts.properties, &swapper, cx)
            })
        } else {
            scratch.publish(wanted, &make_room, &arrival.facts.properties, &swapper, cx)
        };
        match outcome {
            Ok(()) => return Ok(former),
            Err(error) if options.disconnect && attempt < ATTEMPTS && error.cause().contains(IN_USE) => attempt += 1,
            Err(error) => {
                cx.cancel.check()?;
                // Who came in says more than that somebody did.
                if [IN_USE, IN_THE_WAY].iter().any(|said| error.cause().contains(said)) {
                    let rule = if options.disconnect { Sessions::Ended } else { Sessions::Refused };
                    hold_off(admin, wanted, rule, cx)?;
                }
                return Err(plainly(error, wanted));
            }
        }
    }
}

/// An error, where something came in since the load began that a swap must not or can't go past.
fn hold_off(admin: &Psql, wanted: &str, rule: Sessions, cx: &Context) -> Result<()> {
    let look = look(admin, wanted, cx).map_err(|error| error.step("publish"))?;
    let (causes, hints) = look.in_the_way(rule);
    if causes.is_empty() { Ok(()) } else { Err(not_swapped(wanted, &causes.join("; "), &hints.join("; "))) }
}

fn not_swapped(wanted: &str, why: &str, hint: &str) -> Error {
    let what = format!("database {wanted} is as it was: it could not make room for the restored one: {why}");
    Error::new(Kind::Database, what).hint(format!("{hint}; then restore again")).step("publish")
}

/// The script's own words without psql's around them.
fn plainly(error: Error, wanted: &str) -> Error {
    let cause = error.cause();
    if let Some((_, found)) = cause.split_once(IN_THE_WAY) {
        return not_swapped(wanted, found, "end what is named");
    }
    if cause.contains(IN_USE) {
        return not_swapped(wanted, "sessions were on it", "end them, or have them ended with --disconnect");
    }
    error
}

/// The statements by which the live database makes room. What must not be there is looked for once more, by the
/// session that renames; its comment is kept within the new one.
fn make_room(live: &Live, wanted: &str, former: &Former) -> String {
    let body = "
DECLARE found text; was text;
BEGIN
  IF {oid} IS DISTINCT FROM (SELECT oid::bigint FROM pg_database WHERE datname = {name}) THEN
    RAISE EXCEPTION USING MESSAGE = {in_the_way} || 'it is not the database that had the name before the load';
  END IF;
  SELECT string_agg(what, ', ') INTO found FROM ({hindrances}) h;
  IF found IS NULL AND {sees} THEN
    EXECUTE {subscriptions} INTO found;
  END IF;
  IF found IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = {in_the_way} || found;
  END IF;
  was := shobj_description({oid}, 'pg_database');
  BEGIN
    ALTER DATABASE {live} RENAME TO {former};
  EXCEPTION WHEN object_in_use THEN
    RAISE EXCEPTION USING MESSAGE = {in_use};
  END;
  EXECUTE format('COMMENT ON DATABASE %I IS %L', {former_name}, {comment} || coalesce(was, 'none'));
END"
    .replace("{hindrances}", HINDRANCES)
    .replace("{sees}", SEES_SUBSCRIPTIONS)
    .replace("{oid}", &live.oid.to_string())
    .replace("{in_use}", &quote_literal(IN_USE))
    .replace("{in_the_way}", &quote_literal(IN_THE_WAY));
    let subscriptions = filled(&format!("SELECT string_agg(what, ', ') FROM ({SUBSCRIPTIONS}) h"), wanted, "");
    // What holds a name comes last, as a name may look like a place to fill.
    let body = fill_once(
        &body,
        &[
            ("{subscriptions}", &quote_literal(&subscriptions)),
            ("{live}", &quote_identifier(wanted)),
            ("{former}", &quote_identifier(&former.name)),
            ("{former_name}", &quote_literal(&former.name)),
            ("{comment}", &quote_literal(&former.comment)),
            ("{name}", &quote_literal(wanted)),
        ],
    );
    // Where in the script it was is no news to a reader.
    format!("\\set SHOW_CONTEXT never\nDO LANGUAGE plpgsql {};\n", quote_literal(&body))
}

/// Fills each place in one pass, so that no value is taken for a place.
fn fill_once(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, place) = rest.split_at(at);
        filled.push_str(before);
        let value = values.iter().find(|(name, _)| place.starts_with(name));
        let (taken, put) = value.map_or(("{", "{"), |(name, value)| (*name, *value));
        filled.push_str(put);
        rest = place.strip_prefix(taken).unwrap_or_default();
    }
    filled + rest
}

/// Does this while another session ends those that are on the named databases. A rename locks a database's name
/// before it waits for its sessions, so that those who reconnect wait, too, and find the new one.
fn while_disconnecting<T>(
    admin: &Psql,
    swapper: &str,
    databases: &[String; 2],
    cx: &Context,
    swap: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let [live, scratch] =
        databases.each_ref().map(|name| filled(&format!("SELECT pid, endable FROM ({SESSIONS}) s"), name, &admin.application));
    let body = format!(
        "
DECLARE began boolean := false; works boolean;
BEGIN
  FOR i IN 1..500 LOOP
    PERFORM pg_stat_clear_snapshot();
    works := EXISTS (SELECT FROM pg_stat_activity WHERE application_name = {});
    EXIT WHEN began AND NOT works;
    began := began OR works;
    IF works THEN
      PERFORM pg_terminate_backend(pid) FROM ({live} UNION ALL {scratch}) s WHERE endable;
    END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
END",
        quote_literal(swapper)
    );
    let script = format!("DO LANGUAGE plpgsql {};", quote_literal(&body));
    // The swap has its own limit, so that this one ends soon after it in any case.
    let helper = cx.with_cancel(cx.cancel.child(Some(Duration::from_secs(15)))?);
    std::thread::scope(|scope| {
        let ends = helper.cancel.clone();
        scope.spawn(move || {
            if let Err(error) = admin.run(&script, "ending the sessions that are in the way", &helper) {
                tracing::debug!("{error}");
            }
        });
        let done = swap();
        ends.cancel(Reason::Abandoned);
        done
    })
}
