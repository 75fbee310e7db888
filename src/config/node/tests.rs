use std::fmt::Write;

use super::*;

fn get<'a>(node: &'a Node, key: &str) -> &'a Node {
    let Value::Map(entries) = &node.value else { panic!("no mapping at {:?}", node.place) };
    &entries.iter().find(|entry| entry.key == key).unwrap().node
}

fn show(node: &Node, out: &mut String) {
    let line = node.line.map_or("?".into(), |line| line.to_string());
    writeln!(out, "{line}: {} = {}", node.place, node.describe()).unwrap();
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| show(item, out)),
        Value::Map(entries) => entries.iter().for_each(|entry| show(&entry.node, out)),
        _ => {}
    }
}

fn shown(text: &str) -> String {
    let mut out = String::new();
    match Node::read(text) {
        Ok(node) => show(&node, &mut out),
        Err(mistake) => out = mistake.to_string(),
    }
    out
}

#[test]
fn scalars_keep_what_was_written() {
    let node = Node::read("a: 1e5\nb: 0777\nc: yes\nd: 12345\ne: '12345'\nf: True\ng: 0x1F\nh: 1_000\ni: ~\nj: 1.50\n").unwrap();
    let raw = |key: &str| match &get(&node, key).value {
        Value::Scalar(scalar) => (scalar.text.clone(), scalar.kind),
        _ => ("nothing".into(), ScalarKind::Text),
    };
    assert_eq!(raw("a"), ("1e5".into(), ScalarKind::Number));
    assert_eq!(raw("b"), ("0777".into(), ScalarKind::Text));
    assert_eq!(raw("c"), ("yes".into(), ScalarKind::Text));
    assert_eq!(raw("d"), ("12345".into(), ScalarKind::Number));
    assert_eq!(raw("e"), ("12345".into(), ScalarKind::Text));
    assert_eq!(raw("f"), ("True".into(), ScalarKind::Bool));
    assert_eq!(raw("g"), ("0x1F".into(), ScalarKind::Number));
    assert_eq!(raw("h"), ("1_000".into(), ScalarKind::Text));
    assert_eq!(raw("i"), ("nothing".into(), ScalarKind::Text));
    assert_eq!(raw("j"), ("1.50".into(), ScalarKind::Number));
}

#[test]
fn every_node_has_its_place_and_line() {
    let text = "# comment\n\nversion: 1\ntargets:\n  - name: a\n    port: 5432\n\n  - { name: b,\n      tags: [x, 'y'] }\n  - - deep\n\"odd key\": |\n  two\n  lines\nempty:\n";
    insta::assert_snapshot!(shown(text), @r#"
    3:  = a mapping
    3: version = 1
    4: targets = a list
    5: targets[0] = a mapping
    5: targets[0].name = "a"
    6: targets[0].port = 5432
    8: targets[1] = a mapping
    8: targets[1].name = "b"
    9: targets[1].tags = a list
    9: targets[1].tags[0] = "x"
    9: targets[1].tags[1] = "y"
    10: targets[2] = a list
    10: targets[2][0] = "deep"
    11: "odd key" = "two\nlines\n"
    14: empty = nothing
    "#);
}

#[test]
fn the_first_line_of_a_file_has_a_line_too() {
    insta::assert_snapshot!(shown("a: {b: 1}"), @r"
    1:  = a mapping
    1: a = a mapping
    1: a.b = 1
    ");
}

#[test]
fn keys_given_twice_are_both_kept() {
    insta::assert_snapshot!(shown("a: 1\nb: 2\na: 3\n"), @r"
    1:  = a mapping
    1: a = 1
    2: b = 2
    3: a = 3
    ");
}

#[test]
fn anchors_and_merge_keys_are_resolved_in_place() {
    let text = "x: &x { port: 1, user: u }\ny: &y { port: 2, name: n }\nz:\n  <<: [*x, *y]\n  user: own\nw: { <<: *x, port: 9 }\nv: *x\n";
    insta::assert_snapshot!(shown(text), @r#"
    1:  = a mapping
    1: x = a mapping
    1: x.port = 1
    1: x.user = "u"
    2: y = a mapping
    2: y.port = 2
    2: y.name = "n"
    3: z = a mapping
    1: z.port = 1
    2: z.name = "n"
    5: z.user = "own"
    6: w = a mapping
    1: w.user = "u"
    6: w.port = 9
    7: v = a mapping
    1: v.port = 1
    1: v.user = "u"
    "#);
}

#[test]
fn what_is_no_yaml_says_where() {
    let bad =
        ["a: [1\nb: 2\n", "a: b: c\n", "a:\n\tb: 1\n", "a: 'x\n", "a: *nowhere\n", "- a\nb: c\n", "a: \"\u{1}\"\n", "a: @x"];
    let all: Vec<String> = bad.iter().map(|text| format!("{text:?}\n  {}\n", shown(text))).collect();
    insta::assert_snapshot!(all.concat());
}

#[test]
fn what_is_yaml_and_can_be_no_configuration_is_refused() {
    let bad = ["a: 1\n---\nb: 2\n", "a: !secret x\n", "path: {{ path }}\n", "? [a]\n: b\n", "a: &a [*a]\n"];
    let all: Vec<String> = bad.iter().map(|text| format!("{text:?}\n  {}\n", shown(text))).collect();
    insta::assert_snapshot!(all.concat());
}

#[test]
fn no_depth_and_no_bomb_hurts() {
    assert!(Node::read(&"[".repeat(50_000)).is_err());
    assert!(Node::read(&format!("{}{}", "[".repeat(1000), "]".repeat(1000))).is_err());
    assert!(Node::read(&format!("{}x", "- ".repeat(1000))).is_err());
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..10 {
        let last = level - 1;
        writeln!(bomb, "a{level}: &a{level} [*a{last},*a{last},*a{last},*a{last},*a{last},*a{last},*a{last}]").unwrap();
    }
    assert!(Node::read(&bomb).is_err());
}

#[test]
fn an_empty_file_is_nothing() {
    for text in ["", "\n", "# only a comment\n", "---\n", "~", "null\n"] {
        assert!(matches!(Node::read(text).map(|node| node.value), Ok(Value::Nothing)), "{text:?}");
    }
}
