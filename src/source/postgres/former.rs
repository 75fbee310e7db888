//! The database that made room for a restored one: its new name and comment, the commands that drop it
//! and that swap back, and what it had that the restored one has not.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::MAX_NAME_LEN;
use super::arrival::Arrival;
use super::client::{quote_identifier, quote_literal};
use super::scratch::{FORMER_MARK, Scratch, random_word};
use crate::error::Result;
use crate::host::Context;

/// What a former database is called, and what is said of it.
pub(super) struct Former {
    pub name: String,
    /// How its comment begins; its own follows.
    pub comment: String,
    /// For a person, a line each: its name, the commands, the differences.
    pub notes: Vec<String>,
}

/// What pg_dump leaves out of a database, by what it is called.
type Properties = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Both {
    live: Properties,
    restored: Properties,
    comment: Option<String>,
}

const PROPERTIES: &str = "(
  WITH db AS (SELECT d.*, to_jsonb(d) AS j FROM pg_database d WHERE datname = {name})
  SELECT coalesce(json_object_agg(key, value), '{}') FROM (
    SELECT p.key, p.value FROM db, LATERAL (VALUES
      ('owner', pg_get_userbyid(datdba)::text), ('encoding', pg_encoding_to_char(encoding)::text),
      ('LC_COLLATE', datcollate::text), ('LC_CTYPE', datctype::text),
      ('locale provider', CASE j->>'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END),
      ('locale', coalesce(j->>'datlocale', j->>'daticulocale')),
      ('connection limit', datconnlimit::text), ('allow connections', datallowconn::text),
      ('tablespace', (SELECT spcname::text FROM pg_tablespace t WHERE t.oid = dattablespace))) p (key, value)
    UNION ALL
    SELECT split_part(c, '=', 1) || coalesce(' for role ' || r.rolname, ''), substr(c, strpos(c, '=') + 1)
      FROM db JOIN pg_db_role_setting s ON s.setdatabase = db.oid LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
    UNION ALL
    SELECT 'privileges of ' || coalesce(r.rolname, 'PUBLIC'), string_agg(
             privilege_type || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ' ' ORDER BY privilege_type)
      FROM db, aclexplode(coalesce(datacl, acldefault('d', datdba))) a LEFT JOIN pg_roles r ON r.oid = a.grantee
     GROUP BY r.rolname
  ) p WHERE value IS NOT NULL)";

impl Former {
    /// Of the database that makes room. Reads both databases' properties: the restored one has nearly all of its own by now.
    pub(super) fn of(arrival: &Arrival, scratch: &Scratch, cx: &Context) -> Result<Self> {
        let Arrival { admin, wanted, id, .. } = arrival;
        let now = cx.clock.now();
        let time = now.format("%Y%m%d_%H%M%S");
        let random = &random_word()?[..4];
        let [name, after] = ["before", "after"].map(|word| name_beside(wanted, &format!("_{word}_{time}_{random}")));
        let properties = |name: &str| PROPERTIES.replace("{name}", &quote_literal(name));
        let sql = format!(
            "SELECT json_build_object('live', {}, 'restored', {},
               'comment', (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {}));",
            properties(wanted),
            properties(scratch.name()),
            quote_literal(wanted)
        );
        let mut both: Both = admin.ask(&sql, "comparing the databases' settings", cx).map_err(|error| error.step("publish"))?;
        // What the restored one gets with the name.
        let limit = arrival.facts.properties.connection_limit.map(|limit| ("connection limit".to_owned(), limit.to_string()));
        let deferred = scratch.deferred().iter().map(|setting| (setting.key.clone(), setting.value.clone()));
        both.restored.extend(deferred.chain(limit));
        let comment = format!(
            "{FORMER_MARK}: was {} until {}, replaced by backup {id}; its comment was: ",
            quote_identifier(wanted),
            now.format("%Y-%m-%dT%H:%M:%SZ")
        );
        let mut notes = commands(wanted, &name, &after, both.comment.as_deref());
        notes.extend(differences(&both.live, &both.restored));
        Ok(Self { name, comment, notes })
    }
}

/// The beginning of a name, cut on a character, and this behind it.
fn name_beside(name: &str, ending: &str) -> String {
    let mut cut = name.len().min(MAX_NAME_LEN.saturating_sub(ending.len()));
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{ending}", &name[..cut])
}

/// Its name, and the commands that drop it and that swap back.
fn commands(wanted: &str, former: &str, after: &str, comment: Option<&str>) -> Vec<String> {
    let [live, former_, after] = [wanted, former, after].map(shown_identifier);
    let comment = comment.map_or("NULL".into(), shown_literal);
    vec![
        format!("what was database {wanted} is kept as {former}"),
        format!("to drop it: DROP DATABASE {former_};"),
        format!(
            "to swap back: BEGIN; ALTER DATABASE {live} RENAME TO {after}; ALTER DATABASE {former_} RENAME TO {live}; \
             COMMENT ON DATABASE {live} IS {comment}; COMMIT;"
        ),
    ]
}

/// What the one had and the other has, where that differs.
fn differences(live: &Properties, restored: &Properties) -> Vec<String> {
    let mut keys: Vec<&String> = live.keys().chain(restored.keys()).collect();
    keys.sort();
    keys.dedup();
    let told = |key: &String| {
        let shown = |value: &String| match value.as_str() {
            // An application's own settings hold its secrets at times.
            _ if is_of_application(key) => "a value that is not shown".to_owned(),
            "" => "an empty value".to_owned(),
            value => value.to_owned(),
        };
        match (live.get(key), restored.get(key)) {
            (Some(had), Some(has)) if had == has => None,
            (Some(had), has) => {
                let has = has.map_or("none".into(), shown);
                Some(format!("the former one had {key}={}, the restored one has {has}", shown(had)))
            }
            (None, Some(has)) => Some(format!("the former one had no {key}, the restored one has {}", shown(has))),
            (None, None) => None,
        }
    };
    keys.into_iter().filter_map(told).collect()
}

/// Whether it is a setting that the server itself does not know.
fn is_of_application(key: &str) -> bool {
    !key.starts_with("privileges of ") && key.split(' ').next().is_some_and(|name| name.contains('.'))
}

/// What a terminal does not show as it is: reports write it as an escape that SQL would not read.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name as SQL takes it, in one line that can be copied from a terminal.
fn shown_identifier(name: &str) -> String {
    if name.contains(is_hidden) { format!("U&\"{}\"", escaped(name, '"')) } else { quote_identifier(name) }
}

/// A text likewise.
fn shown_literal(text: &str) -> String {
    if text.contains(is_hidden) { format!("U&'{}'", escaped(text, '\'')) } else { quote_literal(text).trim_start().to_owned() }
}

fn escaped(text: &str, quote: char) -> String {
    let written = |c: char| match c {
        _ if is_hidden(c) => format!("\\{:04X}", u32::from(c)),
        _ if c == quote || c == '\\' => [c, c].iter().collect(),
        _ => c.to_string(),
    };
    text.chars().map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_name_fits_and_is_cut_on_a_character() {
        let ending = "_before_20261121_101036_ab12";
        assert_eq!(name_beside("app", ending), "app_before_20261121_101036_ab12");
        assert_eq!(name_beside(&"x".repeat(63), ending).len(), 63);
        let cut = name_beside(&"東".repeat(21), ending);
        assert_eq!(cut, format!("{}{ending}", "東".repeat(11)));
    }

    #[test]
    fn commands_can_be_copied_whatever_the_name_holds() {
        let of = |name| commands(name, "former", "after", Some("it's"));
        insta::assert_snapshot!(of("a\"b").join("\n"), @r#"
        what was database a"b is kept as former
        to drop it: DROP DATABASE "former";
        to swap back: BEGIN; ALTER DATABASE "a""b" RENAME TO "after"; ALTER DATABASE "former" RENAME TO "a""b"; COMMENT ON DATABASE "a""b" IS 'it''s'; COMMIT;
        "#);
        insta::assert_snapshot!(of("a\nb\\\"\u{202e}")[2], @r#"to swap back: BEGIN; ALTER DATABASE U&"a\000Ab\\""\202E" RENAME TO "after"; ALTER DATABASE "former" RENAME TO U&"a\000Ab\\""\202E"; COMMENT ON DATABASE U&"a\000Ab\\""\202E" IS 'it''s'; COMMIT;"#);
        assert_eq!(shown_literal("a\\b"), "E'a\\\\b'");
        assert_eq!(shown_literal("a\n'b\\"), "U&'a\\000A''b\\\\'");
    }

    #[test]
    fn what_differs_is_told_and_what_does_not_is_not() {
        let properties = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let live = properties(&[("owner", "app"), ("work_mem", "64MB"), ("jit", "off"), ("same", "1"), ("app.key", "s3cret")]);
        let restored = properties(&[("owner", "admin"), ("work_mem", "16MB"), ("same", "1"), ("search_path", "")]);
        insta::assert_snapshot!(differences(&live, &restored).join("\n"), @"
        the former one had app.key=a value that is not shown, the restored one has none
        the former one had jit=off, the restored one has none
        the former one had owner=app, the restored one has admin
        the former one had no search_path, the restored one has an empty value
        the former one had work_mem=64MB, the restored one has 16MB
        ");
    }
}
