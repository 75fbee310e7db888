use super::*;
use crate::source::TableCount;

fn relation(oid: u64, kind: RelationKind, name: &str, above: &[u64]) -> Relation {
    Relation { oid, kind, name: ("public".into(), name.into()), above: above.into(), of_extension: false }
}

fn table(name: &str, rows: u64) -> TableCount {
    TableCount { schema: "public".into(), name: name.into(), rows, bytes: 0 }
}

fn place(tables: &[(&str, u64)]) -> Place {
    let mut place = Place::default();
    for (oid, (name, rows)) in (1..).zip(tables) {
        place.relations.push(relation(oid, RelationKind::Table, name, &[]));
        place.rows.insert(oid, *rows);
    }
    place
}

fn tables(tables: &[(&str, u64)]) -> Inventory {
    Inventory { tables: tables.iter().map(|(name, rows)| table(name, *rows)).collect(), ..Inventory::default() }
}

#[test]
fn a_row_more_or_less_and_a_table_too_many_or_too_few_are_differences() {
    let place = place(&[("same", 3), ("less", 1), ("more", 5), ("stranger", 1), ("excluded", 0)]);
    let found = place.compare(&tables(&[("same", 3), ("less", 2), ("more", 4), ("gone", 7)]));
    assert_eq!((found.tables, found.rows), (3, 9));
    insta::assert_snapshot!(found.differences.join("\n"), @r"
    public.gone is missing, 7 rows were dumped
    public.less has 1 row, 2 were dumped
    public.more has 5 rows, 4 were dumped
    public.stranger has 1 row, none were dumped
    ");
}

#[test]
fn rows_that_came_with_an_extension_are_no_difference_and_lost_ones_are() {
    let mut place = place(&[("config", 5), ("own", 2)]);
    place.relations[0].of_extension = true;
    place.relations[1].of_extension = true;
    assert_eq!(place.compare(&tables(&[("config", 3)])).differences, Vec::<String>::new());
    assert_eq!(place.compare(&tables(&[("config", 6)])).differences, ["public.config has 5 rows, 6 were dumped"]);
}

#[test]
fn what_was_loaded_through_the_root_is_all_of_its_partitions_that_were_not_loaded_by_themselves() {
    let mut place = place(&[("by_itself", 10), ("leaf_1", 1), ("leaf_2", 2)]);
    for relation in &mut place.relations {
        relation.above = vec![20, 21];
    }
    place.relations.push(relation(20, RelationKind::Partitioned, "middle", &[21]));
    place.relations.push(relation(21, RelationKind::Partitioned, "root", &[]));
    let found = place.compare(&tables(&[("root", 3), ("by_itself", 10)]));
    assert_eq!((found.differences, found.tables, found.rows), (Vec::<String>::new(), 2, 13));
    assert_eq!(place.compare(&tables(&[("root", 14)])).differences, ["public.root has 13 rows, 14 were dumped"]);
}

#[test]
fn sequences_and_large_objects_count_where_they_were_counted() {
    let mut place = place(&[]);
    for (oid, name, state) in [(1, "same", (7, true)), (2, "behind", (7, true)), (3, "unused", (1, false)), (4, "new", (2, true))]
    {
        place.relations.push(relation(oid, RelationKind::Sequence, name, &[]));
        place.sequences.insert(oid, state);
    }
    (place.large_objects, place.large_object_bytes) = (2, Some(10));
    let not_counted = place.compare(&Inventory::default());
    assert!(not_counted.is_empty() && not_counted.differences.is_empty());
    let sequence =
        |name: &str, last_value, is_called| SequenceState { schema: "public".into(), name: name.into(), last_value, is_called };
    let sequences = vec![sequence("same", 7, true), sequence("behind", 8, false), sequence("gone", 1, true)];
    let large_objects = Some(LargeObjects { count: 2, bytes: 11 });
    let found = place.compare(&Inventory { sequences: Some(sequences), large_objects, ..Inventory::default() });
    assert_eq!((found.sequences, found.large_objects), (2, 2));
    insta::assert_snapshot!(found.differences.join("\n"), @r"
    sequence public.behind stands at 7, when dumped it stood at 8, not yet given out
    sequence public.gone is missing
    sequence public.new stands at 2, it was not dumped
    the large objects hold 10 bytes, 11 were dumped
    ");
    place.large_object_bytes = None;
    let found = place.compare(&Inventory { large_objects, ..Inventory::default() });
    assert_eq!(found.differences, Vec::<String>::new());
}

#[test]
fn only_what_was_empty_and_is_empty_is_empty() {
    let counted = Inventory { sequences: Some(vec![]), large_objects: Some(LargeObjects::default()), ..Inventory::default() };
    for inventory in [Inventory::default(), counted] {
        let found = place(&[]).compare(&inventory);
        assert!(found.empty && !found.is_empty());
        // Tables whose rows were left out of the dump: nothing is proven.
        let found = place(&[("t", 0)]).compare(&inventory);
        assert!(!found.empty && found.is_empty());
    }
    assert!(!place(&[]).compare(&tables(&[("t", 0)])).empty);
}

#[test]
fn what_the_server_says_is_read_and_what_is_not_understood_is_an_error() {
    let listed = |oid, kind| Listed { oid, kind, schema: "pu".into(), name: "é|".into(), above: vec![], of_extension: false };
    let place =
        Place::new(vec![listed(1, RelationKind::Table), listed(2, RelationKind::Sequence)], "t|1|5\ns|2|-9|f\no|3\nb|4").unwrap();
    assert_eq!(place.relations[0].name, ("pu".into(), "é|".into()));
    assert_eq!(
        (place.rows[&1], place.sequences[&2], place.large_objects, place.large_object_bytes),
        (5, (-9, false), 3, Some(4))
    );
    for counts in ["", "t|1|x", "t|2|5", "x"] {
        assert!(Place::new(vec![listed(1, RelationKind::Table)], counts).is_err(), "{counts}");
    }
}
