//! `list --tables`: what a unit's backup holds, by the inventory beside it, and how that grew since the backup before.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Listing, Row, state_of};
use crate::catalog;
use crate::catalog::backups::Backup;
use crate::error::{Error, Kind, Result};
use crate::names::UnitName;
use crate::outcome::{Problem, Severity, State, TableItem, TablesItem};
use crate::source::{Inventory, TableCount};

/// Whole backups that are looked at: the one that is shown, and the one before it.
pub(super) const NEEDED: usize = 2;

impl Listing<'_> {
    /// The tables of each unit's newest whole backup, or of the one that `--at` means.
    pub(super) fn tables(&mut self, rows: &[Row<'_>], units: &BTreeMap<UnitName, Vec<&Backup>>) -> Result<Vec<TablesItem>> {
        let mut items = Vec::new();
        for (unit, backups) in units {
            self.cx.cancel.check()?;
            let mut of_unit = rows.iter().filter(|row| row.unit == *unit).peekable();
            if of_unit.peek().is_none() {
                continue;
            }
            let is_meant = |row: &&Row<'_>| self.options.at.is_some() || self.counts(row);
            let Some(row) = of_unit.rfind(is_meant) else {
                let error = Error::new(Kind::Damaged, "no backup of it is whole, so there are no tables to show")
                    .hint("`list --all` shows what there is; `--at ID` shows the tables of one that is not whole");
                self.doubt(unit, error);
                continue;
            };
            items.extend(self.tables_of(row, backups)?);
        }
        Ok(items)
    }

    /// Whether it is one that `list --tables` shows, or counts growth from.
    pub(super) fn counts(&self, row: &Row<'_>) -> bool {
        row.state() == State::Whole && row.backup.stem.id.run().time() <= self.cx.clock.now()
    }

    fn tables_of(&mut self, row: &Row<'_>, backups: &[&Backup]) -> Result<Option<TablesItem>> {
        let Some(inventory) = self.inventory_of(row)? else { return Ok(None) };
        let before = match self.row_before(row, backups)? {
            Some(before) => self.inventory_of(&before)?.map(|inventory| (before.backup.stem.id, inventory)),
            None => None,
        };
        let files_before = before.as_ref().and_then(|(_, inventory)| inventory.files);
        let (before, counts_before) = before.map(|(id, inventory)| (id.to_string(), inventory.tables)).unzip();
        Ok(Some(TablesItem {
            unit: row.unit.to_string(),
            id: row.backup.stem.id.to_string(),
            before,
            tables: growth(inventory.tables, &counts_before.unwrap_or_default()),
            sequences: inventory.sequences.map(|sequences| sequences.len() as u64),
            large_objects: inventory.large_objects.map(|objects| objects.count),
            large_object_bytes: inventory.large_objects.map(|objects| objects.bytes),
            roles: inventory.roles.map(|roles| roles.len() as u64),
            files: inventory.files,
            files_before,
        }))
    }

    /// The newest whole backup of the same unit that is older.
    fn row_before<'a>(&self, row: &Row<'_>, backups: &[&'a Backup]) -> Result<Option<Row<'a>>> {
        for backup in backups.iter().rev().filter(|backup| backup.stem.id.run() < row.backup.stem.id.run()) {
            self.cx.cancel.check()?;
            let before = Row { backup, unit: row.unit.clone(), copies: self.look(&[backup]).remove(0), verified: None };
            if self.counts(&before) {
                return Ok(Some(before));
            }
        }
        Ok(None)
    }

    /// What was counted when it was made. Where none of its copies tells, that is said; so is one that is damaged,
    /// though another tells.
    fn inventory_of(&mut self, row: &Row<'_>) -> Result<Option<Inventory>> {
        let id = row.backup.stem.id;
        let state = row.state();
        let mut is_said = false;
        for (copy, seen) in row.copies.iter().filter(|(_, seen)| state_of(seen) == state) {
            let (Some(manifest), Some(store)) = (seen.manifest(), self.store(&copy.storage)) else { continue };
            match catalog::inventory::read(store.storage.as_ref(), &copy.entry, manifest, self.cx) {
                Ok(Some(inventory)) => return Ok(Some(inventory)),
                Ok(None) => {}
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => {
                    is_said = true;
                    self.doubt(&row.unit, error.storage(&*copy.storage).step("inventory"));
                }
            }
        }
        // One that can't be read at all was told of already.
        if !is_said && row.manifest().is_some() {
            let error = Error::new(Kind::Check, format!("{id} has no inventory: what it holds was not counted"))
                .hint("the next backup will have one; this one restores without");
            self.doubt(&row.unit, error.step("inventory"));
        }
        Ok(None)
    }

    fn doubt(&mut self, unit: &UnitName, error: Error) {
        self.problems.push(Problem::of(&error.target(unit), Severity::Partial));
    }
}

/// The tables in the stream's order, then those that are gone.
fn growth(tables: Vec<TableCount>, before: &[TableCount]) -> Vec<TableItem> {
    let rows_before: HashMap<_, _> = before.iter().map(|table| ((&table.schema, &table.name), table.rows)).collect();
    let there: HashSet<_> = tables.iter().map(|table| (&table.schema, &table.name)).collect();
    let gone = before.iter().filter(|table| !there.contains(&(&table.schema, &table.name))).map(|table| TableItem {
        schema: table.schema.clone(),
        name: table.name.clone(),
        rows: None,
        bytes: None,
        rows_before: Some(table.rows),
    });
    let gone: Vec<_> = gone.collect();
    let item = |table: TableCount| TableItem {
        rows_before: rows_before.get(&(&table.schema, &table.name)).copied(),
        schema: table.schema,
        name: table.name,
        rows: Some(table.rows),
        bytes: Some(table.bytes),
    };
    tables.into_iter().map(item).chain(gone).collect()
}
