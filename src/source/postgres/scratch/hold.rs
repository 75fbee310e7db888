//! The advisory lock on a scratch database's name: held by a session that ends with us, however we end. Who can
//! have it knows that nobody is at work there any more.

use std::io::{Read as _, Write as _};

use super::quote_literal;
use crate::error::{Error, Kind, Result, from_io};
use crate::host::Context;
use crate::host::process::Child;
use crate::source::postgres::client::Psql;

/// The first half of every key of ours; the second is the name's hash, by the server that keeps the lock.
const CLASS: i32 = 0x6462_6274;

/// What a lock's session sends when it has, or can't have, the lock.
const ANSWER_LEN: usize = 2;

/// A lock that is held until this is dropped, or we end.
pub(super) struct Hold {
    /// psql, whose session has the lock for as long as we hold its input open.
    _session: Child,
}

impl Hold {
    /// Takes the lock on a name; `None` where another has it.
    pub(super) fn take(admin: &Psql, name: &str, cx: &Context) -> Result<Option<Self>> {
        // Under a name of its own: what ends a restore's sessions must not end this one.
        let application = admin.application.replacen("restore", "lock", 1);
        let psql = Psql { application, ..admin.clone() };
        let mut session = psql.program().spawn_session(cx)?;
        // It stays idle for hours: neither the server nor a firewall on the way is to end it for that.
        let script = format!(
            "SET search_path = pg_catalog;\nSET tcp_keepalives_idle = 60;\n\
             SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'statement_timeout') \\g /dev/null\n\
             SELECT pg_try_advisory_lock({CLASS}, hashtext({}));\n",
            quote_literal(name)
        );
        let mut answer = [0; ANSWER_LEN];
        let said = session.write_all(script.as_bytes()).and_then(|()| session.read_exact(&mut answer));
        match (said, &answer) {
            (Ok(()), b"t\n") => Ok(Some(Self { _session: session })),
            (Ok(()), b"f\n") => Ok(None),
            (Ok(()), _) => {
                Err(Error::new(Kind::Database, format!("the server's answer about the lock on {name} is not understood")))
            }
            (Err(error), _) => {
                Err(not_taken(admin, &mut session, from_io(error, Kind::Child, "taking the scratch database's lock")))
            }
        }
    }
}

/// Why no answer came: in psql's words, where it has ended.
fn not_taken(admin: &Psql, session: &mut Child, error: Error) -> Error {
    if error.kind() != Kind::Child {
        return error;
    }
    let doing = "taking the scratch database's lock";
    match session.wait().and_then(|finished| admin.client.site.ended(doing, &finished)) {
        Ok((exit, said)) if !exit.is_success() => admin.failed(doing, exit, &said),
        Ok(_) => error,
        Err(other) => other,
    }
}

/// A condition that nobody holds the lock on the name that this SQL expression gives.
pub(in crate::source::postgres) fn is_free(name: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
           AND l.classid::bigint = {CLASS} AND l.objid::bigint = hashtext({name})::bigint & 4294967295)"
    )
}
