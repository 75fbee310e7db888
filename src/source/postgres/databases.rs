//! Which databases `databases: all` means: the server is asked, and what is left out comes back with the
//! reason, so that no database is passed over in silence.

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;

use super::client::{Psql, quote_literal};
use super::scratch::{FORMER_MARK, MARK};
use crate::error::{Error, Kind, Result};
use crate::host::Context;

/// Names in a clause of what was left out.
const SHOWN: usize = 5;

/// A database as the server tells of it.
#[derive(Debug, Deserialize)]
struct Found {
    name: String,
    scratch: bool,
    former: bool,
    template: bool,
    /// A `DROP DATABASE` of it was cut short: nobody can connect to it any more.
    broken: bool,
    connectable: bool,
}

impl Found {
    /// Why it is no unit, whatever the config says.
    fn reason(&self) -> Option<&'static str> {
        let reasons = [
            (self.scratch, "a scratch database of ours"),
            (self.former, "kept by a restore that replaced it"),
            (self.template, "a template"),
            (self.broken, "a DROP DATABASE of it was cut short"),
            (!self.connectable, "allows no connections"),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }
}

/// The databases that `all` means: those that allow connections, but for templates, what is excluded, and
/// our own scratch and former ones. The second list says what was left out and why, a clause for each reason.
///
/// To have none at all is an error: a backup of nothing must not look like one.
pub(super) fn databases(admin: &Psql, exclude: &[String], cx: &Context) -> Result<(Vec<String>, Vec<String>)> {
    // By name, byte for byte: the same order on every server.
    let sql = format!(
        "SELECT coalesce(json_agg(json_build_object(
           'name', datname,
           'scratch', coalesce(starts_with(shobj_description(oid, 'pg_database'), {}), false),
           'former', coalesce(starts_with(shobj_description(oid, 'pg_database'), {}), false),
           'template', datistemplate,
           'broken', datconnlimit = -2,
           'connectable', datallowconn) ORDER BY datname COLLATE \"C\"), '[]') FROM pg_database;",
        quote_literal(MARK),
        quote_literal(FORMER_MARK)
    );
    let found: Vec<Found> =
        admin.ask(&sql, "asking the server for its databases", cx).map_err(|error| error.step("databases"))?;
    let (databases, left_out) = choose(&found, exclude)?;
    if databases.is_empty() {
        let what = format!("the server has no database to back up; left out are {}", left_out.join("; "));
        return Err(Error::new(Kind::Check, what).hint("look at `exclude_databases:`").step("databases"));
    }
    Ok((databases, left_out))
}

/// What is meant, and clauses for what is not.
fn choose(found: &[Found], exclude: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let excluded = exclude.iter().map(|text| Exclusion::new(text)).collect::<Result<Vec<_>>>()?;
    let mut chosen = Vec::new();
    let mut left_out: Vec<(String, Vec<&str>)> = Vec::new();
    for database in found {
        let matching = excluded.iter().any(|exclusion| exclusion.matches(&database.name));
        let reason = database.reason().or(matching.then_some("excluded"));
        match (reason, left_out.iter_mut().find(|(known, _)| Some(known.as_str()) == reason)) {
            (None, _) => chosen.push(database.name.clone()),
            (Some(_), Some((_, names))) => names.push(&database.name),
            (Some(reason), None) => left_out.push((reason.to_owned(), vec![&database.name])),
        }
    }
    let clauses = left_out.iter().map(|(reason, names)| format!("{}: {reason}", enumerate(names)));
    let idle = excluded.iter().filter(|exclusion| !found.iter().any(|database| exclusion.matches(&database.name)));
    let idle = idle.map(|exclusion| format!("exclude_databases {:?} matches no database", exclusion.text));
    let clauses = clauses.chain(idle).collect();
    Ok((chosen, clauses))
}

fn enumerate(names: &[&str]) -> String {
    // One line, whatever stands in a name.
    let plain = |name: &&str| if name.contains(char::is_control) { name.escape_debug().to_string() } else { (*name).to_owned() };
    let shown = names.iter().take(SHOWN).map(plain).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// One of `exclude_databases:`.
struct Exclusion<'a> {
    text: &'a str,
    glob: GlobMatcher,
}

impl<'a> Exclusion<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build().map_err(|error| {
            let cause = format!("exclude_databases: {text:?} is no glob: {}", error.kind());
            Error::new(Kind::Config, cause).hint("in a glob, *, ?, [, ] and {, } have a meaning: write \\[ for a literal one")
        })?;
        Ok(Self { text, glob: glob.compile_matcher() })
    }

    /// A name that is meant as it is matches also where it would be another as a glob.
    fn matches(&self, name: &str) -> bool {
        self.text == name || self.glob.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(name: &str) -> Found {
        Found { name: name.into(), scratch: false, former: false, template: false, broken: false, connectable: true }
    }

    fn chosen(found: &[Found], exclude: &[&str]) -> String {
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let (chosen, left_out) = choose(found, &exclude).unwrap();
        format!("{}\n{}", chosen.join(" "), left_out.join("\n"))
    }

    #[test]
    fn what_is_left_out_is_said_once_for_each_reason() {
        let mut found = vec![
            Found { template: true, connectable: false, ..plain("template0") },
            Found { template: true, ..plain("template1") },
            Found { connectable: false, ..plain("closed") },
            Found { scratch: true, ..plain("shop_restoring_0123456789ab") },
            Found { former: true, ..plain("shop_before_x") },
            Found { broken: true, ..plain("half") },
            plain("a/b"),
            plain("a[b]"),
            plain("new\nline"),
            plain("shop"),
        ];
        found.extend((0..8).map(|number| plain(&format!("test_{number}"))));
        insta::assert_snapshot!(chosen(&found, &["test_*", "a[b]", "a?b", "new*", "none*"]), @r#"
        shop
        template0, template1: a template
        closed: allows no connections
        shop_restoring_0123456789ab: a scratch database of ours
        shop_before_x: kept by a restore that replaced it
        half: a DROP DATABASE of it was cut short
        a/b, a[b], new\nline, test_0, test_1 and 6 more: excluded
        exclude_databases "none*" matches no database
        "#);
    }

    #[test]
    fn an_exclusion_is_no_prefix_and_no_other_case() {
        assert_eq!(chosen(&[plain("shop"), plain("shop2"), plain("Shop")], &["shop"]), "shop2 Shop\nshop: excluded");
        assert_eq!(choose(&[plain("shop")], &["[a".into()]).unwrap_err().kind(), Kind::Config);
    }
}
