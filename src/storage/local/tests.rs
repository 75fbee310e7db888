use super::*;
use crate::storage::conformance;
#[test]
fn it_keeps_the_contract() {
    let base = tempfile::tempdir().unwrap();
    let n = std::cell::Cell::new(0);
    assert_eq!(
        conformance::run(&|| {
            n.set(n.get() + 1);
            Box::new(Local::new(base.path().join(n.get().to_string()), None))
        }),
        Vec::<String>::new()
    );
}
