//! The table of patterns in docs/volumes.md: each row is a backup of the files that it names.

use super::page;
use crate::support::Test;

#[test]
fn every_example_of_a_pattern_leaves_out_and_keeps_what_it_says() {
    let text = page("docs/volumes.md").text;
    let rows: Vec<_> = text.lines().skip_while(|line| !line.starts_with("| pattern |")).skip(2).collect();
    let rows: Vec<_> = rows.iter().take_while(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 5, "{rows:?}");
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let pattern = cells[0].trim().trim_matches('`');
        // Where no file is named, the pattern is the name.
        let left_out = match names(cells[1]) {
            named if named.is_empty() => vec![pattern, "x/node_modules"],
            named => named,
        };
        let kept = names(cells.get(2).copied().unwrap_or_default());
        // A directory, with a file in it, does for a file as well; one that is named may be there by then.
        let script = left_out.iter().chain(&kept).map(|name| format!("mkdir -p '{name}'; touch '{name}/inside'\n"));
        let test = Test::of_tree(&script.collect::<String>(), &format!("exclude: ['{pattern}']"));
        test.run(["backup"]).ok();
        let archived = test.archived();
        let is_there = |name: &str| archived.iter().any(|member| member.trim_end_matches('/') == format!("./{name}"));
        for name in &left_out {
            assert!(!is_there(name) && !is_there(&format!("{name}/inside")), "{row}: {name} is in {archived:?}");
        }
        for name in &kept {
            assert!(is_there(name) && is_there(&format!("{name}/inside")), "{row}: {name} is not in {archived:?}");
        }
    }
}

/// What stands between backquotes, but for what is no name of a file.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).filter(|name| *name != "*").collect()
}
