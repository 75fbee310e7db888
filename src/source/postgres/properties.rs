//! What pg_dump leaves out of a database and a restore puts back: its settings, those of roles in it, its
//! privileges, connection limit and comment. (Owner, encoding and locale are given when it is made.)

use serde::{Deserialize, Serialize};

use super::arrival::Arrival;
use super::client::{Psql, quote_identifier, quote_literal};
use super::scratch::Scratch;
use crate::error::{Kind, Result};
use crate::host::Context;
use crate::source::StageOptions;

/// How every comment begins that we write ourselves: none of a user's.
const OURS: &str = "db-backup-tools ";
/// Settings that are lists of names, each of them quoted on its own (GUC_LIST_QUOTE in PostgreSQL's sources).
const LISTS: [&str; 5] =
    ["local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces"];

/// Settings that would keep our own sessions out, or from looking at what was restored, or have them load or run code:
/// only the database's own name gets them, and a drill, which gives none, does without.
const DEFERRED: [&str; 20] = [
    "default_transaction_read_only",
    "dynamic_library_path",
    "event_triggers",
    "extension_control_path",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "local_preload_libraries",
    "lock_timeout",
    "plperl.on_plperl_init",
    "plperl.on_plperlu_init",
    "pltcl.start_proc",
    "pltclu.start_proc",
    "role",
    "row_security",
    "session_preload_libraries",
    "session_replication_role",
    "shared_preload_libraries",
    "statement_timeout",
    "temp_file_limit",
    "transaction_timeout",
];

/// The properties as a manifest keeps them. Fields are only ever added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Properties {
    /// Where it is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Who may do what, where that was ever changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Vec<Grant>>,
    /// `ALTER ROLE ... IN DATABASE ... SET`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub role_settings: Vec<RoleSettings>,
}

/// One privilege on the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub grantor: String,
    /// None: everybody.
    pub grantee: Option<String>,
    /// `CONNECT`, `CREATE`, `TEMPORARY`.
    pub privilege: String,
    /// It may be passed on.
    pub grantable: bool,
}

/// What a role finds set when it connects to the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RoleSettings {
    pub role: String,
    /// `name=value`.
    pub settings: Vec<String>,
}

/// The fields of [`Properties`] as a JSON expression over the database's row `db`.
pub(super) const SQL: &str = "json_build_object(
  'connection_limit', nullif(db.datconnlimit, -1),
  'comment', shobj_description(db.oid, 'pg_database'),
  'acl', CASE WHEN db.datacl IS NOT NULL THEN (
    SELECT coalesce(json_agg(json_build_object('grantor', pg_get_userbyid(a.grantor), 'privilege', a.privilege_type,
      'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, 'grantable', a.is_grantable)), '[]')
      FROM aclexplode(db.datacl) a) END,
  'role_settings', (
    SELECT coalesce(json_agg(json_build_object('role', pg_get_userbyid(s.setrole), 'settings', s.setconfig)), '[]')
      FROM pg_db_role_setting s WHERE s.setdatabase = db.oid AND s.setrole <> 0))";

impl Properties {
    /// Whether they are those that every new database has.
    pub(super) fn is_standard(&self) -> bool {
        *self == Self::default()
    }

    /// Every role that it names.
    pub(super) fn roles(&self) -> Vec<&str> {
        sorted(self.granted().chain(self.role_settings.iter().map(|settings| settings.role.as_str())))
    }

    /// Those that its privileges name, on either side.
    fn granted(&self) -> impl Iterator<Item = &str> {
        self.acl.iter().flatten().flat_map(|grant| [Some(grant.grantor.as_str()), grant.grantee.as_deref()]).flatten()
    }

    /// Whether something is left out where there is no such role.
    pub(super) fn needs_role(&self, role: &str, owner: &str, options: StageOptions) -> bool {
        let has_settings = self.role_settings.iter().any(|settings| settings.role == role);
        let granted = !options.no_privileges && self.granted().any(|other| other == role);
        !role.starts_with("pg_") && (has_settings || (granted && !(options.no_owner && role == owner)))
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A setting that waits for the database's name.
pub(super) struct Deferred {
    parameter: String,
    /// What it is called in a list of the database's properties: `role`, `role for role clerk`.
    pub key: String,
    pub value: String,
    /// On a database that still has its scratch name.
    statement: String,
}

/// What came of putting properties back.
pub(super) struct PutBack {
    /// What could not be, a clause each with the statement that would do it.
    pub left_out: Vec<String>,
    /// What can be, and waits.
    pub deferred: Vec<Deferred>,
}

/// Gives a loaded scratch database what its dump could not.
pub(super) fn put_back(scratch: &Scratch, arrival: &Arrival, cx: &Context) -> Result<PutBack> {
    let missing = missing_roles(&arrival.admin, &arrival.facts.properties, cx)?;
    let Statements { now, later, mut left_out } = statements(scratch.name(), arrival, &missing);
    let told = |statement: &str, cause: &str| {
        let statement = statement.replace(&quote_identifier(scratch.name()), &quote_identifier(&arrival.wanted));
        format!("not put back, {cause}: {}", statement.trim_end())
    };
    let mut deferred = Vec::new();
    for setting in later {
        let refused = match run(&arrival.admin, &setting.statement, "ROLLBACK", cx)? {
            None => missing_libraries(&arrival.admin, &setting, cx)?,
            refused => refused,
        };
        match refused {
            None => deferred.push(setting),
            Some(cause) => left_out.push(told(&setting.statement, &cause)),
        }
    }
    // All at once, as nearly always all of them can; else each on its own, to say which can't.
    if !now.is_empty() && run(&arrival.admin, &now.concat(), "COMMIT", cx)?.is_some() {
        for statement in &now {
            left_out.extend(run(&arrival.admin, statement, "COMMIT", cx)?.map(|cause| told(statement, &cause)));
        }
    }
    Ok(PutBack { left_out, deferred })
}

/// What only the database's own name may have, as its comment is our mark before and a limit would keep us out:
/// statements for the transaction that gives the name, on a database that still has the name `database`.
pub(super) fn at_publication(database: &str, properties: &Properties, deferred: &[Deferred]) -> String {
    let name = quote_identifier(database);
    let comment = properties.comment.as_deref().filter(|comment| !comment.starts_with(OURS));
    let comment = comment.map_or_else(|| "NULL".to_owned(), quote_literal);
    let limit = properties.connection_limit.map(|limit| format!("ALTER DATABASE {name} CONNECTION LIMIT {limit};\n"));
    let settings: String = deferred.iter().map(|setting| setting.statement.as_str()).collect();
    format!("COMMENT ON DATABASE {name} IS {comment};\n{}{settings}", limit.unwrap_or_default())
}

/// Why the server refuses it; nothing where it did it.
fn run(admin: &Psql, sql: &str, end: &str, cx: &Context) -> Result<Option<String>> {
    let refusal = admin.refusal(&format!("BEGIN;\n{sql}{end};"), "putting the database's properties back", cx);
    Ok(refusal.map_err(|error| error.step("properties"))?.map(|error| error.cause()))
}

/// Libraries that each new session would load, and that the server has not: nobody could connect to the database. None is
/// loaded to find that out, and where the server does not let us look, nothing is said.
fn missing_libraries(admin: &Psql, setting: &Deferred, cx: &Context) -> Result<Option<String>> {
    let plugins = match setting.parameter.as_str() {
        "session_preload_libraries" => "",
        "local_preload_libraries" => "$libdir/plugins/",
        _ => return Ok(None),
    };
    let libraries = list_items(&setting.value).into_iter().filter(|library| !library.is_empty());
    let paths = libraries.map(|library| if library.contains('/') { library } else { format!("{plugins}{library}") });
    // Where a path names no directory, the server looks in several (PostgreSQL's documentation, dynamic_library_path).
    let sql = format!(
        "SELECT coalesce(json_agg(path), '[]') FROM unnest({}) path, pg_config c WHERE c.name = 'PKGLIBDIR' AND version() LIKE '%linux%'
           AND NOT EXISTS (SELECT FROM unnest(CASE WHEN path LIKE '%/%' THEN ARRAY[''] ELSE
             (SELECT array_agg(d || '/') FROM unnest(string_to_array(current_setting('dynamic_library_path'), ':')) d) END) directory,
             unnest(ARRAY['', '.so']) suffix
             WHERE (pg_stat_file(replace(directory || path, '$libdir', c.setting) || suffix, true)).isdir = false);",
        super::client::quote_array(&paths.collect::<Vec<_>>())
    );
    match admin.ask::<Vec<String>>(&sql, "asking the server for libraries", cx) {
        Ok(missing) if missing.is_empty() => Ok(None),
        Ok(missing) => Ok(Some(format!("the server has no library {}, and nobody could connect", missing.join(", ")))),
        Err(error) if matches!(error.kind(), Kind::Database | Kind::Child) => Ok(None),
        Err(error) => Err(error.step("properties")),
    }
}

fn missing_roles(admin: &Psql, properties: &Properties, cx: &Context) -> Result<Vec<String>> {
    let roles: Vec<String> = properties.roles().into_iter().map(str::to_owned).collect();
    if roles.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT coalesce(json_agg(x), '[]') FROM unnest({}) x WHERE x NOT IN (SELECT rolname FROM pg_roles);",
        super::client::quote_array(&roles)
    );
    admin.ask(&sql, "asking the server for roles", cx)
}

/// The statements, and what is left out beforehand.
#[derive(Default)]
struct Statements {
    now: Vec<String>,
    later: Vec<Deferred>,
    left_out: Vec<String>,
}

impl Statements {
    /// `whose` is the statement's beginning, `suffix` what a list of properties says of whose it is.
    fn set(&mut self, whose: &str, suffix: &str, setting: &str) {
        let Some((parameter, value)) = setting.split_once('=') else { return };
        let statement = format!("{whose} SET {} TO {};\n", quote_identifier(parameter), setting_value(parameter, value));
        if DEFERRED.contains(&parameter.to_ascii_lowercase().as_str()) {
            let key = format!("{parameter}{suffix}");
            self.later.push(Deferred { parameter: parameter.to_ascii_lowercase(), key, value: value.to_owned(), statement });
        } else {
            self.now.push(statement);
        }
    }
}

fn statements(database: &str, arrival: &Arrival, missing: &[String]) -> Statements {
    let name = quote_identifier(database);
    let (facts, options) = (&arrival.facts, arrival.options);
    let mut statements = Statements::default();
    for setting in &facts.settings {
        statements.set(&format!("ALTER DATABASE {name}"), "", setting);
    }
    for RoleSettings { role, settings } in &facts.properties.role_settings {
        if missing.contains(role) {
            statements.left_out.push(format!(
                "settings of role {} in the database are left out, as there is no such role",
                quote_identifier(role)
            ));
            continue;
        }
        let whose = format!("ALTER ROLE {} IN DATABASE {name}", quote_identifier(role));
        for setting in settings {
            statements.set(&whose, &format!(" for role {role}"), setting);
        }
    }
    if let Some(grants) = facts.properties.acl.as_ref().filter(|_| !options.no_privileges) {
        let (granted, lost): (Vec<&Grant>, Vec<&Grant>) = grants.iter().partition(|grant| {
            !missing.contains(&grant.grantor) && grant.grantee.as_ref().is_none_or(|role| !missing.contains(role))
        });
        let owner = facts.owner.as_str();
        statements.now.push(privileges(&name, &granted, owner, options.no_owner));
        if !lost.is_empty() {
            let named = |role: &&str| missing.iter().any(|other| other == role);
            let roles = sorted(facts.properties.granted()).into_iter().filter(named).map(quote_identifier).collect::<Vec<_>>();
            statements
                .left_out
                .push(format!("privileges on the database are left out, as there is no such role: {}", roles.join(", ")));
        }
    }
    statements
}

/// The database's privileges as they were. With `no_owner` the recorded owner has no part in them.
fn privileges(name: &str, grants: &[&Grant], owner: &str, no_owner: bool) -> String {
    let of_owner = (!no_owner && !owner.is_empty()).then(|| format!(", {}", quote_identifier(owner)));
    let revoked = format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC{};\n", of_owner.unwrap_or_default());
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b' ');
    let is_owner = |grant: &&Grant| grant.grantee.as_deref() == Some(owner);
    let given = |grant: &&Grant| is_word(&grant.privilege) && !(no_owner && is_owner(grant));
    let grant = |grant: &Grant| {
        let grantee = grant.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), quote_identifier);
        let option = if grant.grantable && !is_owner(&grant) { " WITH GRANT OPTION" } else { "" };
        let statement = format!("GRANT {} ON DATABASE {name} TO {grantee}{option};\n", grant.privilege);
        if grant.grantor == owner {
            return statement;
        }
        format!("SET LOCAL ROLE {};\n{statement}RESET ROLE;\n", quote_identifier(&grant.grantor))
    };
    // Who may pass it on has it before those whom it was passed on to.
    let (first, then): (Vec<&Grant>, Vec<&Grant>) =
        grants.iter().copied().filter(given).partition(|grant| grant.grantor == owner);
    std::iter::once(revoked).chain(first.into_iter().chain(then).map(grant)).collect()
}

/// A setting's value as `SET ... TO` takes it.
fn setting_value(parameter: &str, value: &str) -> String {
    if !LISTS.contains(&parameter.to_ascii_lowercase().as_str()) {
        return quote_literal(value);
    }
    let items: Vec<String> = list_items(value).iter().map(|item| quote_literal(item)).collect();
    // A list of nothing is one empty name.
    if items.is_empty() { "''".to_owned() } else { items.join(", ") }
}

/// `"$user", public` to its names.
fn list_items(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut item = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut chars = quoted.char_indices().peekable();
            let mut end = quoted.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        chars.next();
                        item.push('"');
                    }
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    _ => item.push(c),
                }
            }
            rest = &quoted[end..];
            rest = rest.find(',').map_or("", |comma| &rest[comma + 1..]);
        } else {
            let (word, tail) = rest.split_once(',').unwrap_or((rest, ""));
            item.push_str(word.trim());
            rest = tail;
        }
        items.push(item);
        rest = rest.trim_start();
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_taken_apart_as_the_server_wrote_them() {
        assert_eq!(list_items("\"$user\", public"), ["$user", "public"]);
        assert_eq!(list_items("\"a \"\"b\"\", c\",d ,\"\""), ["a \"b\", c", "d", ""]);
        assert!(list_items("").is_empty());
        assert_eq!(setting_value("search_path", "\"we'ird\", x"), "'we''ird', 'x'");
        assert_eq!(setting_value("search_path", ""), "''");
        assert_eq!(setting_value("application_name", "a, \"b\""), "'a, \"b\"'");
    }

    #[test]
    fn privileges_of_an_owner_come_before_those_passed_on() {
        let grant = |grantor: &str, grantee: Option<&str>, grantable| Grant {
            grantor: grantor.into(),
            grantee: grantee.map(str::to_owned),
            privilege: "CONNECT".into(),
            grantable,
        };
        let grants = [grant("b", Some("c"), false), grant("own", Some("b"), true), grant("own", None, false)];
        let sql = privileges("\"d\"", &grants.iter().collect::<Vec<_>>(), "own", false);
        assert_eq!(
            sql,
            "REVOKE ALL ON DATABASE \"d\" FROM PUBLIC, \"own\";\n\
             GRANT CONNECT ON DATABASE \"d\" TO \"b\" WITH GRANT OPTION;\nGRANT CONNECT ON DATABASE \"d\" TO PUBLIC;\n\
             SET LOCAL ROLE \"b\";\nGRANT CONNECT ON DATABASE \"d\" TO \"c\";\nRESET ROLE;\n"
        );
    }
}
