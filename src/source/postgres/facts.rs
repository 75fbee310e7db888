//! What pg_dump leaves out and a restore needs: owner, encoding, locale, and which roles,
//! tablespaces and extensions the dump names. Asked from the catalogs before the dump begins.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{Psql, quote_array, quote_literal};
use super::properties::{self, Properties};
use super::scratch::{is_abandoned, is_free};
use crate::error::Result;
use crate::host::Context;
use crate::source::StageOptions;

/// `restore` of a manifest, for PostgreSQL. Fields are only ever added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RestoreFacts {
    /// The database's owner.
    #[serde(default)]
    pub owner: String,
    /// As in `CREATE DATABASE ... ENCODING`.
    #[serde(default)]
    pub encoding: String,
    /// `LC_COLLATE`.
    #[serde(default)]
    pub locale: String,
    /// `LC_CTYPE`, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctype: Option<String>,
    /// `icu` or `builtin`, where it is not libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale_provider: Option<String>,
    /// The ICU or builtin locale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_locale: Option<String>,
    /// Further rules of an ICU locale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// `ALTER DATABASE ... SET`, as `name=value`.
    #[serde(default)]
    pub settings: Vec<String>,
    /// What else pg_dump leaves out.
    #[serde(default, skip_serializing_if = "Properties::is_standard")]
    pub properties: Properties,
    /// Every role that the dump names.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Of those, the ones that own something.
    #[serde(default)]
    pub owners: Vec<String>,
    /// Those that a policy or a user mapping names: no option leaves them out.
    #[serde(default)]
    pub policy_roles: Vec<String>,
    /// Those that a grant or a default privilege names; none in the oldest manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_roles: Option<Vec<String>>,
    /// `lc_monetary` of the dump, where it may hold amounts of type `money`: `1,50` is 150 in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_locale: Option<String>,
    /// Every tablespace that the dump names.
    #[serde(default)]
    pub tablespaces: Vec<String>,
    /// `name version`.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// Of the roles, the superusers; not known from an earlier version's manifest, as the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superusers: Option<Vec<String>>,
    /// Subscriptions, which would reach their publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<String>>,
    /// Servers behind foreign tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_servers: Option<Vec<String>>,
    /// Materialized views whose refresh would query another server, as the dump writes their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_views: Vec<String>,
    /// Where the dump is of named tables: the database's schemas, which such a dump does not create.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// The dump is meant to be without owners, which an archive holds all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_owner: bool,
    /// The dump is without privileges.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_privileges: bool,
}

impl RestoreFacts {
    /// The options of a restore, with those that the dump was made for.
    pub(super) fn options(&self, asked: StageOptions) -> StageOptions {
        let (no_owner, no_privileges) = (asked.no_owner || self.no_owner, asked.no_privileges || self.no_privileges);
        StageOptions { no_owner, no_privileges, ..asked }
    }

    /// Whether the dump can't be loaded without this role.
    pub(super) fn needs_role(&self, role: &str, options: StageOptions) -> bool {
        let among = |roles: &[String]| roles.iter().any(|other| other == role);
        let owns = role == self.owner || among(&self.owners);
        let granted = self.grant_roles.as_ref().map_or(!owns, |roles| among(roles));
        among(&self.policy_roles) || (owns && !options.no_owner) || (granted && !options.no_privileges)
    }
}

/// What a look at the source's server says.
#[derive(Debug, Deserialize)]
pub(super) struct SourceFacts {
    pub server_version: String,
    pub database: String,
    pub bytes: Option<u64>,
    /// Something has a name that psql takes for a word of its own: the dump must quote every name.
    pub quote_all: bool,
    /// What pg_dump leaves out for this role, one clause each.
    pub unseen: Vec<String>,
    #[serde(flatten)]
    pub restore: RestoreFacts,
}

/// Objects that the dump names belong to no extension and no system schema; their owner is the
/// bootstrap superuser (role 10) where pg_shdepend is silent, as it does not record that one.
const SOURCE: &str = r"
WITH db AS (SELECT d.*, to_jsonb(d) AS j FROM pg_database d WHERE datname = current_database()),
acls AS (
  SELECT relowner AS owner, relacl AS acl, acldefault('r', relowner) AS standard FROM pg_class WHERE oid >= 16384 AND relkind <> 'S'
  UNION ALL SELECT relowner, relacl, acldefault('s', relowner) FROM pg_class WHERE oid >= 16384 AND relkind = 'S'
  UNION ALL SELECT proowner, proacl, acldefault('f', proowner) FROM pg_proc WHERE oid >= 16384
  UNION ALL SELECT nspowner, nspacl, acldefault('n', nspowner) FROM pg_namespace WHERE oid >= 16384
  UNION ALL SELECT typowner, typacl, acldefault('T', typowner) FROM pg_type WHERE oid >= 16384
  UNION ALL SELECT lomowner, lomacl, acldefault('L', lomowner) FROM pg_largeobject_metadata
  UNION ALL SELECT srvowner, srvacl, acldefault('S', srvowner) FROM pg_foreign_server
),
-- Whom pg_dump names for them: as it does, owners only where their own privileges were changed.
-- pg_shdepend records neither owners here nor the bootstrap superuser.
acl_changes AS (
  SELECT unnest(ARRAY[c.grantee, nullif(c.grantor, owner)]) AS role FROM acls, LATERAL (
    (SELECT * FROM aclexplode(acl) EXCEPT SELECT * FROM aclexplode(standard))
    UNION (SELECT * FROM aclexplode(standard) EXCEPT SELECT * FROM aclexplode(acl))
  ) c WHERE acl IS NOT NULL
),
named AS (
  SELECT r.rolname, CASE WHEN s.classid = 'pg_user_mapping'::regclass THEN 'r' ELSE s.deptype END AS deptype FROM pg_shdepend s
    JOIN db ON s.dbid = db.oid JOIN pg_roles r ON r.oid = s.refobjid
   WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname !~ '^pg_'
  UNION
  SELECT r.rolname, 'o' FROM pg_roles r WHERE r.oid = 10 AND EXISTS (
    SELECT FROM (
      SELECT oid, 'pg_class'::regclass AS class, relowner AS owner FROM pg_class
      UNION ALL SELECT oid, 'pg_proc'::regclass, proowner FROM pg_proc
      UNION ALL SELECT oid, 'pg_type'::regclass, typowner FROM pg_type
      UNION ALL SELECT oid, 'pg_namespace'::regclass, nspowner FROM pg_namespace
      UNION ALL SELECT oid, 'pg_largeobject_metadata'::regclass, lomowner FROM pg_largeobject_metadata
      UNION ALL SELECT oid, 'pg_foreign_server'::regclass, srvowner FROM pg_foreign_server
      UNION ALL SELECT oid, 'pg_event_trigger'::regclass, evtowner FROM pg_event_trigger
      UNION ALL SELECT oid, 'pg_publication'::regclass, pubowner FROM pg_publication
    ) o WHERE o.owner = 10 AND o.oid >= 16384
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'))
  UNION SELECT pg_get_userbyid(defaclrole), 'a' FROM pg_default_acl
  UNION SELECT pg_get_userbyid(role), 'a' FROM acl_changes WHERE role <> 0
),
-- A materialized view that reads a foreign table, through views too.
far_relations AS (
  WITH RECURSIVE edges AS (
    SELECT r.ev_class AS reader, d.refobjid AS source
      FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
    UNION SELECT inhparent, inhrelid FROM pg_inherits
  ), far AS (
    SELECT oid FROM pg_class WHERE relkind = 'f'
    UNION SELECT reader FROM edges JOIN far ON far.oid = edges.source
  ) SELECT oid FROM far
)
SELECT json_build_object(
  'server_version', current_setting('server_version'),
  'database', current_database(),
  'bytes', CASE WHEN has_database_privilege(db.oid, 'CONNECT') THEN pg_database_size(db.oid) END,
  -- psql counts BEGIN to END in what begins with C F or C P (CREATE FUNCTION, FOREIGN TABLE, POLICY, ...), and an
  -- unquoted name counts too: what follows is never run.
  'quote_all', EXISTS (
    SELECT FROM pg_namespace WHERE nspname = 'begin'
    UNION ALL SELECT FROM pg_class WHERE relname = 'begin'
    UNION ALL SELECT FROM pg_type WHERE typname = 'begin'
    UNION ALL SELECT FROM pg_proc WHERE proname = 'begin' OR 'begin' = ANY (proargnames)
    UNION ALL SELECT FROM pg_policy WHERE polname = 'begin'
    UNION ALL SELECT FROM pg_publication WHERE pubname = 'begin'
    UNION ALL SELECT FROM pg_foreign_server WHERE srvname = 'begin'
    UNION ALL SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attname = 'begin' AND c.relkind <> 'i'),
  -- A mapping without options looks the same to a role that may not see them.
  'unseen', (SELECT coalesce(json_agg(what), '[]') FROM (
    SELECT format('options of the user mapping for %s on server %s: left out, if it has any', usename, srvname) AS what
      FROM pg_user_mappings WHERE umoptions IS NULL
    UNION ALL SELECT format('subscription %s: left out', subname) FROM pg_subscription WHERE subdbid = db.oid) hidden
    WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)),
  'owner', pg_get_userbyid(db.datdba),
  'encoding', pg_encoding_to_char(db.encoding),
  'locale', db.datcollate,
  'ctype', nullif(db.datctype, db.datcollate),
  'locale_provider', CASE db.j->>'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' END,
  'provider_locale', coalesce(db.j->>'datlocale', db.j->>'daticulocale'),
  'icu_rules', db.j->>'daticurules',
  'properties', {PROPERTIES},
  'settings', (SELECT coalesce(json_agg(c), '[]') FROM pg_db_role_setting s, unnest(s.setconfig) c
                WHERE s.setdatabase = db.oid AND s.setrole = 0),
  'roles', (SELECT coalesce(json_agg(DISTINCT r), '[]') FROM (
              SELECT rolname AS r FROM named UNION SELECT pg_get_userbyid(db.datdba)) x),
  'owners', (SELECT coalesce(json_agg(DISTINCT rolname), '[]') FROM named WHERE deptype = 'o'),
  'grant_roles', (SELECT coalesce(json_agg(DISTINCT rolname), '[]') FROM named WHERE deptype NOT IN ('o', 'r')),
  'policy_roles', (SELECT coalesce(json_agg(DISTINCT rolname), '[]') FROM named WHERE deptype = 'r'),
  'money_locale', CASE WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid >= 16384 AND atttypid IN ('money'::regtype, 'money[]'::regtype))
                         OR EXISTS (SELECT FROM pg_type WHERE typbasetype IN ('money'::regtype, 'money[]'::regtype))
                         OR EXISTS (SELECT FROM pg_range WHERE rngsubtype = 'money'::regtype)
                       THEN current_setting('lc_monetary') END,
  'tablespaces', (SELECT coalesce(json_agg(DISTINCT t.spcname), '[]') FROM pg_class c
                    JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid >= 16384 AND t.spcname <> 'pg_default'),
  'extensions', (SELECT coalesce(json_agg(extname || ' ' || extversion ORDER BY extname), '[]')
                   FROM pg_extension WHERE extname <> 'plpgsql'),
  'superusers', (SELECT coalesce(json_agg(rolname ORDER BY rolname), '[]') FROM pg_roles
                  WHERE rolsuper AND (oid = db.datdba OR rolname IN (SELECT rolname FROM named))),
  'subscriptions', (SELECT coalesce(json_agg(subname ORDER BY subname), '[]') FROM pg_subscription WHERE subdbid = db.oid),
  'foreign_servers', (SELECT coalesce(json_agg(srvname ORDER BY srvname), '[]') FROM pg_foreign_server),
  'foreign_views', (SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname)), '[]')
                      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relkind = 'm' AND c.oid IN (SELECT oid FROM far_relations)),
  'schemas', (SELECT coalesce(json_agg(nspname), '[]') FROM pg_namespace n
               WHERE n.oid >= 16384 AND nspname !~ '^pg_' AND nspname <> 'public'
                 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e'))
) FROM db;";

/// Asks a source's server. Where the dump must quote every name, so are those that it is compared with.
pub(super) fn of_source(psql: &Psql, cx: &Context) -> Result<SourceFacts> {
    let ask = |sql: &str| psql.ask::<SourceFacts>(sql, "asking the server about the database", cx);
    let source = SOURCE.replace("{PROPERTIES}", properties::SQL);
    let facts = ask(&source)?;
    if facts.quote_all { ask(&format!("SET quote_all_identifiers = on;\n{source}")) } else { Ok(facts) }
}

/// What a role may not read, so that pg_dump would fail or leave something out.
const UNREADABLE: &str = r"
SELECT coalesce(json_agg(what), '[]') FROM (
  SELECT format('table %I.%I: no SELECT', n.nspname, c.relname) AS what
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'm', 'S') AND c.oid >= 16384 AND n.nspname !~ '^pg_'
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     AND NOT (CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END
              AND has_schema_privilege(n.oid, 'USAGE'))
  UNION ALL
  SELECT format('table %I.%I: row security would hide rows', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND row_security_active(c.oid)
  UNION ALL
  SELECT format('large object %s: no SELECT', l.oid)
    FROM pg_largeobject_metadata l, (SELECT oid, rolsuper FROM pg_roles WHERE rolname = current_user) me
   WHERE current_setting('lo_compat_privileges') <> 'on' AND NOT me.rolsuper AND l.lomowner <> me.oid AND NOT pg_has_role(l.lomowner, 'USAGE')
     AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) a
                      WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
) missing;";

/// Asks what the role can't read, one clause each.
pub(super) fn unreadable(psql: &Psql, cx: &Context) -> Result<Vec<String>> {
    psql.ask(UNREADABLE, "asking the server about privileges", cx)
}

impl SourceFacts {
    /// The version without the distribution's words: `15.18`.
    pub(super) fn short_version(&self) -> String {
        self.server_version.split_whitespace().next().unwrap_or_default().to_owned()
    }
}

/// What a look at the server that receives a restore says.
#[derive(Debug, Deserialize)]
pub(super) struct Receiver {
    pub server_version: String,
    pub role: String,
    pub can_create: bool,
    pub is_superuser: bool,
    pub exists: bool,
    /// New databases are copied from it.
    pub is_template: bool,
    pub sessions: u64,
    /// What the database of the wanted name has beside its content: settings and privileges.
    pub own_settings: Vec<String>,
    /// Scratch databases of ours that nobody is connected to, and whose lock nobody holds.
    pub leftovers: Vec<String>,
    /// What is named like one, and has no comment.
    pub unmarked: Vec<String>,
    pub missing_roles: Vec<String>,
    pub missing_tablespaces: Vec<String>,
    pub missing_extensions: Vec<String>,
}

/// How long a scratch database may be without its mark, and its restore without a session.
const BEFORE_THE_MARK: Duration = Duration::from_secs(1);

/// A query for what is named like a scratch database of ours, without a comment and anybody at work in it: a kill
/// between making and marking it leaves the name alone.
fn unmarked() -> String {
    format!(
        "SELECT coalesce(json_agg(datname), '[]') FROM pg_database d
          WHERE datname ~ '_(restoring|drill)_[0-9a-f]{{12}}$' AND shobj_description(d.oid, 'pg_database') IS NULL
            AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid) AND {}",
        is_free("d.datname::text")
    )
}

/// Which of these are so still, a moment later and with no other restore at work on the server: a scratch database
/// has its name before its mark, and a look takes its time.
pub(super) fn still_unmarked(admin: &Psql, found: &[String], cx: &Context) -> Result<Vec<String>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    cx.cancel.sleep(BEFORE_THE_MARK)?;
    let sql = format!(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name ~ '^db-backup-tools (restore|lock) '
           AND application_name <> {}) THEN '[]'::json ELSE ({}) END;",
        quote_literal(&admin.application),
        unmarked()
    );
    let again: Vec<String> = admin.ask(&sql, "looking again at what is named like a scratch database", cx)?;
    Ok(again.into_iter().filter(|name| found.contains(name)).collect())
}

/// Asks the server that is to receive a restore as database `wanted`.
pub(super) fn of_receiver(admin: &Psql, wanted: &str, facts: &RestoreFacts, cx: &Context) -> Result<Receiver> {
    let mut roles = facts.roles.clone();
    roles.extend(
        facts.properties.roles().into_iter().filter(|role| !facts.roles.iter().any(|known| known == role)).map(str::to_owned),
    );
    let extensions: Vec<String> =
        facts.extensions.iter().map(|text| text.rsplit_once(' ').map_or(text.as_str(), |(name, _)| name).to_owned()).collect();
    let missing = |names: &[String], present: &str| {
        format!("(SELECT coalesce(json_agg(x), '[]') FROM unnest({}) x WHERE x NOT IN ({present}))", quote_array(names))
    };
    let sql = format!(
        "SELECT json_build_object(
           'server_version', current_setting('server_version'),
           'role', current_user,
           'can_create', (SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user),
           'is_superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = session_user),
           'exists', EXISTS (SELECT FROM pg_database WHERE datname = {wanted}),
           'is_template', EXISTS (SELECT FROM pg_database WHERE datname = {wanted} AND datistemplate),
           'sessions', (SELECT count(*) FROM pg_stat_activity WHERE datname = {wanted} AND usesysid IS NOT NULL),
           'own_settings', (SELECT coalesce(json_agg(x), '[]') FROM (
              SELECT unnest(s.setconfig) AS x FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
               WHERE d.datname = {wanted}
              UNION ALL SELECT 'privileges ' || datacl::text FROM pg_database WHERE datname = {wanted} AND datacl IS NOT NULL) own),
           'leftovers', (SELECT coalesce(json_agg(datname), '[]') FROM pg_database d WHERE {abandoned} AND {free}),
           'unmarked', ({unmarked}),
           'missing_roles', {},
           'missing_tablespaces', {},
           'missing_extensions', {});",
        missing(&roles, "SELECT rolname FROM pg_roles"),
        missing(&facts.tablespaces, "SELECT spcname FROM pg_tablespace"),
        missing(&extensions, "SELECT name FROM pg_available_extensions"),
        wanted = quote_literal(wanted),
        abandoned = is_abandoned("d"),
        free = is_free("d.datname::text"),
        unmarked = unmarked(),
    );
    admin.ask(&sql, "asking the receiving server", cx)
}

/// What a database that is to be replaced holds, by kind: empty when nothing.
const CONTENTS: &str = r"
SELECT json_build_object('objects', (
  SELECT coalesce(json_agg(what), '[]') FROM (
    SELECT format('relation %I.%I', n.nspname, c.relname) AS what FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'
    UNION ALL SELECT format('function %I', proname) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT format('type %I', typname) FROM pg_type WHERE oid >= 16384 AND typrelid = 0 AND typelem = 0
    UNION ALL SELECT format('schema %I', nspname) FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_(toast_)?temp'
    UNION ALL SELECT format('extension %I', extname) FROM pg_extension WHERE oid >= 16384
    UNION ALL SELECT format('publication %I', pubname) FROM pg_publication
    UNION ALL SELECT format('subscription %I', subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                      WHERE d.datname = current_database()
    UNION ALL SELECT format('event trigger %I', evtname) FROM pg_event_trigger
    UNION ALL SELECT format('foreign-data wrapper %I', fdwname) FROM pg_foreign_data_wrapper
    UNION ALL SELECT format('language %I', lanname) FROM pg_language WHERE oid >= 16384
    UNION ALL SELECT format('operator %s', oprname) FROM pg_operator WHERE oid >= 16384
    UNION ALL SELECT format('operator class %I', opcname) FROM pg_opclass WHERE oid >= 16384
    UNION ALL SELECT format('operator family %I', opfname) FROM pg_opfamily WHERE oid >= 16384
    UNION ALL SELECT format('collation %I', collname) FROM pg_collation WHERE oid >= 16384
    UNION ALL SELECT format('conversion %I', conname) FROM pg_conversion WHERE oid >= 16384
    UNION ALL SELECT format('cast from %s', castsource::regtype) FROM pg_cast WHERE oid >= 16384
    UNION ALL SELECT format('text search configuration %I', cfgname) FROM pg_ts_config WHERE oid >= 16384
    UNION ALL SELECT format('text search dictionary %I', dictname) FROM pg_ts_dict WHERE oid >= 16384
    UNION ALL SELECT 'default privileges' WHERE EXISTS (SELECT FROM pg_default_acl)
    UNION ALL SELECT 'large objects' WHERE EXISTS (SELECT FROM pg_largeobject_metadata)
    LIMIT 4
  ) x));";

#[derive(Deserialize)]
struct Contents {
    objects: Vec<String>,
}

/// Up to four things that a database holds; none: it is empty.
pub(super) fn contents(psql: &Psql, cx: &Context) -> Result<Vec<String>> {
    psql.ask::<Contents>(CONTENTS, "looking into the database that has the name", cx).map(|contents| contents.objects)
}
