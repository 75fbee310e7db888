//! Names survive their printed form, and nothing else is taken for one.

use super::*;
use proptest::prelude::*;

fn name(unit: &str, role: Role) -> ObjectName {
    let id: Id = "20260612_030000Z-k3f9".parse().unwrap();
    ObjectName { host: Escaped::of("web1"), stem: Stem { unit: Escaped::of(unit), id }, role }
}

#[test]
fn names_read_as_the_layout_shows_them() {
    let key = name("cluster.shop", Role::Artifact("dump.zst".into())).key();
    assert_eq!(key.as_str(), "web1/20260612_030000Z/cluster.shop_20260612_030000Z-k3f9.dump.zst");
}

#[test]
fn a_target_with_a_dot_is_refused() {
    assert!("cluster.shop".parse::<TargetName>().is_err());
    assert!("größe-1_x".parse::<TargetName>().is_ok());
}

#[test]
fn a_name_of_any_length_fits_a_file_name_and_meets_no_other() {
    let long = "é".repeat(300);
    let other = format!("{}x", "é".repeat(299));
    let proof = Role::Proof { kind: ProofKind::Verify, at: "20260612_030000Z".parse().unwrap(), ok: false };
    assert!(name(&long, proof).file_name().len() <= 255 - 14);
    assert_ne!(Escaped::of(&long), Escaped::of(&other));
    assert_eq!(Escaped::parse(Escaped::of(&long).as_str()), Some(Escaped::of(&long)));
}

#[test]
fn keys_that_clients_normalise_are_refused() {
    for bad in ["", "/a", "a/", "a//b", "a/../b", "./a", "a/\n"] {
        assert!(bad.parse::<Key>().is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_unit_name_survives_its_key(unit in "\\PC{1,80}|[a-z_.0-9Z-]{1,60}", ok: bool) {
        let at = "20270101_000000Z".parse().unwrap();
        for role in [Role::Manifest, Role::Pin, Role::Artifact("sql.gz".into()), Role::Proof { kind: ProofKind::Drill, at, ok }] {
            let object = name(&unit, role);
            prop_assert!(object.key().as_str().parse::<Key>().is_ok());
            let parsed = ObjectName::parse(&object.key());
            prop_assert_eq!(parsed.as_ref(), Some(&object));
            if !object.stem.unit.is_cut() {
                prop_assert_eq!(object.stem.unit.unescape(), Some(unit.clone()));
            }
        }
    }

    #[test]
    fn no_text_is_taken_for_a_name_that_prints_otherwise(text in "[a-z0-9_Z./%~-]{1,60}|web1/20260612_030000Z/[a-z_]{0,5}_20260612_030000Z-[a-z0-9]{4}[.][a-z.]{0,12}") {
        if let Ok(key) = text.parse::<Key>() && let Some(object) = ObjectName::parse(&key) {
            prop_assert_eq!(object.key(), key);
        }
    }
}
