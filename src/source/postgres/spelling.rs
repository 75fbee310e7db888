//! Names as a dump has them, in its database's encoding, to text. Only the server knows all of its encodings, so it is asked,
//! where a name is not plain ASCII.

use std::collections::HashMap;

use super::client::{Psql, quote_array, quote_literal};
use crate::error::Result;
use crate::host::Context;
use crate::names::hex;

/// How the names of one dump are spelled; the default is UTF-8.
#[derive(Default)]
pub(super) struct Spelling {
    texts: HashMap<String, String>,
}

impl Spelling {
    /// Asks the server about these names, in an encoding as PostgreSQL calls it; about none where they say it themselves.
    pub(super) fn ask(psql: &Psql, encoding: &str, names: Vec<&[u8]>, cx: &Context) -> Result<Self> {
        let is_known = matches!(encoding, "UTF8" | "SQL_ASCII");
        let asked: Vec<String> = names.into_iter().filter(|name| !is_known && !name.is_ascii()).map(hex).collect();
        if asked.is_empty() {
            return Ok(Self::default());
        }
        let sql = format!(
            "SELECT json_object_agg(name, convert_from(decode(name, 'hex'), {})) FROM unnest({}) AS name;",
            quote_literal(encoding),
            quote_array(&asked)
        );
        Ok(Self { texts: psql.ask(&sql, "reading the names of tables", cx)? })
    }

    /// The text of a name; what nobody knows is marked with the replacement character.
    pub(super) fn text(&self, name: &[u8]) -> String {
        let known = if name.is_ascii() { None } else { self.texts.get(&hex(name)) };
        known.cloned().unwrap_or_else(|| String::from_utf8_lossy(name).into_owned())
    }
}
