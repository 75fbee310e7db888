//! Backups of directories and files on this machine: what they hold, what is left out, and what stands in manifest and inventory.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::support::{Signal, Test, is_root, volume_target::tar_of};

/// A tree of nearly all that a file system can hold.
const NASTY: &str = r#"
    umask 022
    mkdir -p empty a/b 'with space' "$(printf 'new\nline')" "$(printf 'bad\377utf8')" .hidden
    printf one >a/one; ln a/one a/b/two; ln -s ../one a/b/link; ln -s /etc/passwd absolute; ln -s gone dangling; ln -s .. up
    printf x >"$(printf 'new\nline/\\back:slash\t')"; printf y >"$(printf 'bad\377utf8/\303\251')"; printf z >-dash
    : >'--checkpoint-action=exec=false'; : >'tar: x: socket ignored'
    printf long >"$(printf '%0200d' 1)"
    mkfifo fifo
    truncate -s 3M sparse; printf data | dd of=sparse bs=1 seek=1000000 conv=notrunc status=none; truncate -s 1M hole
    touch -d '2001-02-03 04:05:06.123456789 UTC' a/one; touch -d '1960-01-01 UTC' .hidden
    chmod 4755 a/one; chmod 1777 empty; chmod 700 a/b
    setfattr -n user.note -v "$(printf 'a\nb')" a/one 2>/dev/null || :
    setfacl -m u:1234:rwx,u:nobody:r a 2>/dev/null || :; setfacl -d -m g:77:r a 2>/dev/null || :
"#;

#[test]
fn a_nasty_tree_is_backed_up_whole() {
    let test = Test::of_tree(NASTY, "");
    if is_root() {
        test.in_tree("chown -h 12345:54321 a/b/link fifo; mknod device c 1 3; chown 3000000000:7 -- -dash; setfattr -n trusted.t -v 1 a 2>/dev/null || :");
    }
    let ran = test.run(["backup", "--json"]).ok();
    assert_eq!(ran.json()["items"][0]["warnings"], serde_json::json!([]));
    test.artifact_is_the_tree();
    // An independent tool finds nothing that differs, neither here nor there.
    let back = test.path("back");
    fs::create_dir(&back).unwrap();
    let words = ["--extract", "--same-permissions", "--xattrs", "--xattrs-include=*", "--directory", back.to_str().unwrap()];
    let words: Vec<&str> = words.into_iter().chain(is_root().then_some("--numeric-owner")).collect();
    tar_of(&test.stored_one(".tar.gz"), &words);
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXSn", "--delete", "--itemize-changes", "--modify-window=-1"]);
    let compared = rsync.arg(test.path("tree/")).arg(test.path("back/")).output();
    let Ok(compared) = compared else {
        eprintln!("SKIPPED: there is no rsync here");
        return;
    };
    assert_eq!((String::from_utf8_lossy(&compared.stdout), String::from_utf8_lossy(&compared.stderr)), ("".into(), "".into()));
}

#[test]
fn the_holes_of_a_large_file_are_neither_stored_nor_lost() {
    let test = Test::of_tree("truncate -s 5G image; printf data | dd of=image bs=1 seek=3000000000 conv=notrunc status=none", "");
    let ran = test.run(["backup", "--json"]).ok();
    assert!(ran.json()["items"][0]["content_bytes"].as_u64().unwrap() < 100_000, "{}", ran.stdout);
    let back = test.path("back");
    fs::create_dir(&back).unwrap();
    tar_of(&test.stored_one(".tar.gz"), &["--extract", "--directory", back.to_str().unwrap()]);
    let restored = fs::File::open(back.join("image")).unwrap();
    let mut data = [0; 6];
    restored.read_exact_at(&mut data, 2_999_999_999).unwrap();
    let metadata = restored.metadata().unwrap();
    assert!(metadata.len() == 5 << 30 && metadata.blocks() < 1000 && &data == b"\0data\0", "{metadata:?} {data:?}");
}

#[test]
fn manifest_and_inventory_say_what_is_in_it() {
    let test = Test::of_tree(NASTY, "");
    test.run(["backup"]).ok();
    let read = |ending: &str| serde_json::from_slice::<serde_json::Value>(&fs::read(test.stored_one(ending)).unwrap()).unwrap();
    let (manifest, inventory) = (read(".manifest.json"), read(".inventory.json"));
    assert!(test.stored_one(".tar.gz").is_file());
    let facts = &manifest["restore"];
    assert_eq!((&manifest["kind"], &manifest["format"], &manifest["unit"]), (&"volume".into(), &"tar".into(), &"files".into()));
    let archiver = facts["archiver"].as_str().unwrap();
    assert!(archiver.starts_with("GNU tar 1.") && archiver.ends_with(" on the host"), "{archiver}");
    assert_eq!(facts["path"], test.path("tree").to_str().unwrap());
    assert_eq!((&facts["basic"], &facts["owners"][0]), (&false.into(), &format!("{}:{}", owner(&test).0, owner(&test).1).into()));
    let find = |kind: &str| {
        let found = Command::new("find").arg(test.path("tree")).args(["-type", kind, "-printf", "%i\\n"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (names, mut files) = (find("f").len(), find("f"));
    files.sort();
    files.dedup();
    let counts = serde_json::json!({
        "files": files.len(),
        "directories": find("d").len(),
        "links": find("l").len() + names - files.len(),
        "others": 1,
        "bytes": (3 << 20) + (1 << 20) + 3 + 1 + 1 + 1 + 4,
    });
    assert_eq!((&inventory["files"], &inventory["schema"]), (&counts, &1.into()));
    let totals = &manifest["inventory"];
    assert!(["files", "directories", "links", "others", "bytes"].iter().all(|key| totals[key] == counts[key]), "{totals}");
    assert_eq!(totals["tables"], serde_json::Value::Null);
}

fn owner(test: &Test) -> (u32, u32) {
    let metadata = fs::metadata(test.path("tree")).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn two_backups_of_one_tree_are_the_same_bytes() {
    // A sparse file's header holds tar's process number: "GNUSparseFile.4711".
    let test = Test::of_tree(NASTY, "exclude: [sparse, hole]");
    let digests: Vec<_> = (0..2)
        .map(|_| {
            let ran = test.run(["backup", "--json"]).ok();
            let id = ran.json()["items"][0]["id"].as_str().unwrap().to_owned();
            let manifest = test.stored_one(&format!("{id}.manifest.json"));
            serde_json::from_slice::<serde_json::Value>(&fs::read(manifest).unwrap()).unwrap()["content"]["sha256"].clone()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_is_excluded_stays_out_and_nothing_else() {
    let tree = "mkdir -p cache/x sub/cache logs sub/logs .git; touch a.tmp a cache/x/y sub/cache/z sub/b.tmp logs/l sub/logs/l .git/c ./-x sub/-x";
    let test = Test::of_tree(tree, "exclude: ['*.tmp', cache/, /logs, '.*', '-x']");
    test.run(["backup"]).ok();
    assert_eq!(test.archived(), ["./", "./a", "./sub/", "./sub/logs/", "./sub/logs/l"]);
}

#[test]
fn caches_are_left_out_but_for_their_tag() {
    let tag = "Signature: 8a477f597d28d172789f06886806bc55";
    let tree = format!("mkdir c d; echo {tag} >c/CACHEDIR.TAG; touch c/x; echo no tag >d/CACHEDIR.TAG; touch d/x");
    let test = Test::of_tree(&tree, "exclude_caches: true");
    let ran = test.run(["backup", "--json"]).ok();
    assert_eq!(ran.json()["items"][0]["warnings"], serde_json::json!([]));
    assert_eq!(test.archived(), ["./", "./c/", "./c/CACHEDIR.TAG", "./d/", "./d/CACHEDIR.TAG", "./d/x"]);
}

#[test]
fn what_is_mounted_below_stays_out_where_that_is_said() {
    let test = Test::of_tree("mkdir m; touch a", "one_file_system: true");
    let inside = r#"mount -t tmpfs none tree/m && touch tree/m/x && exec "$@""#;
    let may_mount = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !may_mount {
        assert!(!is_root() || std::env::var_os("CI").is_none(), "root may not mount here");
        eprintln!("SKIPPED: only root may mount");
        return;
    }
    let test = test.under(["unshare", "-m", "sh", "-c", inside, "sh"]);
    let ran = test.run(["backup", "--json"]).ok();
    assert_eq!(ran.json()["items"][0]["warnings"], serde_json::json!([]));
    assert_eq!(test.archived(), ["./", "./a", "./m/"]);
    assert_eq!(fs::read_dir(test.path("tree/m")).unwrap().count(), 0);
}

#[test]
fn a_single_file_is_backed_up_under_its_name() {
    for name in ["app.conf", "-x", "b\\nc", "*"] {
        let test = Test::of_volume(&format!("path: '{{dir}}/tree/{name}'"));
        fs::create_dir(test.path("tree")).unwrap();
        fs::write(test.path("tree").join(name), "content").unwrap();
        fs::write(test.path("tree/other"), "other").unwrap();
        test.run(["backup"]).ok();
        assert_eq!(test.archived(), [format!("./{}", name.replace('\\', "\\\\"))]);
        assert_eq!(tar_of(&test.stored_one(".tar.gz"), &["--extract", "--to-stdout"]), "content");
        let manifest = fs::read_to_string(test.stored_one(".manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["restore"]["file"], name);
    }
}

#[test]
fn a_link_in_place_of_the_directory_is_followed_and_none_below() {
    let test = Test::of_volume("path: {dir}/link");
    fs::create_dir_all(test.path("tree/sub")).unwrap();
    fs::create_dir(test.path("outside")).unwrap();
    fs::write(test.path("outside/secret"), "x").unwrap();
    symlink("tree", test.path("link")).unwrap();
    symlink("../outside", test.path("tree/out")).unwrap();
    test.run(["backup"]).ok();
    assert_eq!(test.archived(), ["./", "./out", "./sub/"]);
}

#[test]
fn a_path_that_can_not_be_backed_up_is_named_with_what_to_do() {
    let test = Test::of_volume("path: {dir}/gone");
    test.run(["backup"]).fails(1).says("gone is not there").says("mounted");
    test.run(["validate", "--connect"]).fails(1);
    symlink("file", test.path("gone")).unwrap();
    test.run(["backup"]).fails(1).says("gone is not there");
    fs::write(test.path("file"), "").unwrap();
    test.run(["backup"]).fails(1).says("is a symbolic link to a file").says("name the file itself");
    fs::remove_file(test.path("gone")).unwrap();
    assert!(Command::new("mkfifo").arg(test.path("gone")).status().unwrap().success());
    test.run(["backup"]).fails(1).says("is neither a directory nor a file");
    assert_eq!(test.stored(), Vec::<String>::new());
}

#[test]
fn a_root_that_can_not_be_read_is_a_failure_whatever_may_be_skipped() {
    let test = Test::of_tree("touch x", "skip_unreadable: true").unprivileged();
    fs::set_permissions(test.path("tree"), fs::Permissions::from_mode(0o000)).unwrap();
    test.run(["backup"]).fails(1).says("can't be looked at: Permission denied");
    // It may be opened, and not entered.
    fs::set_permissions(test.path("tree"), fs::Permissions::from_mode(0o400)).unwrap();
    test.run(["backup"]).fails(1).says("Permission denied");
    assert_eq!(test.stored(), Vec::<String>::new());
}

#[test]
fn a_hundred_thousand_files_are_backed_up_and_their_size_is_not_guessed() {
    let test = Test::of_tree("mkdir d; cd d; seq 100000 | xargs touch", "");
    let said = test.run(["backup", "--dry-run"]).ok().stdout;
    assert!(!said.contains("about"), "{said}");
    test.run(["backup"]).ok();
    let inventory: serde_json::Value = serde_json::from_slice(&fs::read(test.stored_one(".inventory.json")).unwrap()).unwrap();
    assert_eq!((&inventory["files"]["files"], &inventory["files"]["directories"]), (&100_000.into(), &2.into()));
    test.artifact_is_the_tree();
}

#[test]
fn an_empty_directory_is_a_backup() {
    let test = Test::of_tree("", "");
    test.run(["backup"]).ok();
    assert_eq!(test.archived(), ["./"]);
}

#[test]
fn options_of_tars_own_variable_change_nothing() {
    let test = Test::of_tree("touch a.tmp", "").env("TAR_OPTIONS", "--exclude=*.tmp --remove-files").env("LC_ALL", "de_DE.UTF-8");
    test.run(["backup"]).ok();
    assert_eq!(test.archived(), ["./", "./a.tmp"]);
    assert!(test.path("tree/a.tmp").is_file());
}

#[test]
fn another_tar_is_refused_unless_that_is_said_and_recorded() {
    let other = r#"[ "$1" = --version ] && { echo 'bsdtar 3.6.2 - libarchive 3.6.2'; exit; }; exec {real} "$@""#;
    let test = Test::of_tree("touch a b.tmp", "exclude: ['*.tmp']").fake_tar(other).env("PATH", "{bin}");
    let test = with_only_fakes(test);
    test.run(["backup"]).fails(1).says("is not GNU tar (bsdtar 3.6.2").says("archiver: basic");
    test.run(["validate", "--connect"]).fails(1);
    assert_eq!(test.stored(), Vec::<String>::new());
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &format!("{config}    archiver: basic\n"));
    let ran = test.run(["backup"]).ok().says("a basic tar (bsdtar 3.6.2").says("are not kept");
    assert!(!ran.stderr.contains("doubt"), "{}", ran.stderr);
    assert_eq!(test.archived(), ["./", "./a"]);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["restore"]["basic"], true);
    assert!(manifest["warnings"][0].as_str().unwrap().contains("are not kept"), "{manifest}");
    test.write("backup.yml", &format!("{config}    archiver: basic\n    exclude_caches: true\n"));
    test.run(["backup"]).fails(1).says("knows nothing like `exclude_caches`");
}

/// Nothing of the machine's but what a shell script needs is in its PATH.
fn with_only_fakes(test: Test) -> Test {
    for name in ["sh", "cat", "head", "mkfifo"] {
        let _ = symlink(format!("/bin/{name}"), test.path("bin").join(name));
    }
    let bin = test.path("bin");
    test.env("PATH", bin)
}

#[test]
fn a_tar_without_extended_attributes_is_refused() {
    let lacking = r#"case "$*" in *--xattrs*) echo 'tar: XATTR support is not available' >&2 ;; esac; exec {real} "$@""#;
    let test = with_only_fakes(Test::of_tree("touch a", "").fake_tar(lacking));
    test.run(["backup"]).fails(1).says("can't keep all: tar: XATTR support is not available");
}

#[test]
fn no_tar_at_all_is_said() {
    let test = with_only_fakes(Test::of_tree("touch a", ""));
    test.run(["backup"]).fails(1).says("there is no tar in a directory of PATH");
}

#[test]
fn a_tar_that_is_cut_or_killed_is_no_backup() {
    let tree = "head -c 3000000 /dev/urandom >a";
    let cases = [
        (
            r#"case "$*" in *--file=-*) {real} "$@" | head -c 1000000; exit 0 ;; esac; exec {real} "$@""#,
            "do not end as a tar does",
        ),
        (r#"case "$*" in *--file=-*) {real} "$@" | head -c 1000000; kill -9 $$ ;; esac; exec {real} "$@""#, "SIGKILL"),
        (r#"case "$*" in *--file=-*) {real} "$@"; exit 2 ;; esac; exec {real} "$@""#, "exited with code 2"),
        (r#"case "$*" in *--file=-*) {real} "$@"; exit 1 ;; esac; exec {real} "$@""#, "exited with code 1"),
        (r#"case "$*" in *--file=-*) exit 0 ;; esac; exec {real} "$@""#, "do not end as a tar does"),
        (r#"case "$*" in *--file=-*) head -c 10240 /dev/zero; exit 0 ;; esac; exec {real} "$@""#, "an empty archive"),
        (r#"case "$*" in *--file=-*) echo no tar; cat /etc/services; exit 0 ;; esac; exec {real} "$@""#, "the tar has"),
    ];
    for (script, says) in cases {
        let test = Test::of_tree(tree, "").fake_tar(script);
        test.run(["backup"]).fails(1).says(says);
        assert!(!test.stored().iter().any(|path| path.ends_with(".manifest.json")), "{script}");
    }
}

#[test]
fn a_signal_ends_it_within_a_second_and_nothing_is_listed() {
    let test =
        Test::of_tree("truncate -s 1G zeros; printf x >>zeros; head -c 200000 /dev/urandom >a", "").meanwhile("exec sleep 1000");
    let mut running = test.spawn(["backup"]);
    super::support::eventually("tar waits", || {
        test.path("bin/pipe").exists() && test.stored().iter().any(|path| path.contains("files_"))
    });
    running.kill(Signal::TERM);
    assert!(running.ends_within(std::time::Duration::from_secs(20)));
    running.wait().fails(143);
    test.run(["list", "--json"]).ok();
    assert!(!test.stored().iter().any(|path| path.ends_with(".manifest.json")));
}

#[test]
fn validate_and_dry_run_say_which_way_it_goes() {
    let test = Test::of_tree("head -c 1000000 /dev/zero >a; truncate -s 1T holes; mkdir cache; cp a cache", "exclude: [cache]");
    let tree = test.path("tree").display().to_string();
    let said = test.run(["validate", "--connect"]).ok().stdout;
    let line = said.lines().find(|line| line.contains("target files")).unwrap();
    assert!(
        line.contains("GNU tar 1.") && line.contains(&format!(" on {tree}; about 981.")) && !line.contains("server"),
        "{line}"
    );
    let said = test.run(["backup", "--dry-run"]).ok().stdout;
    assert!(said.contains(&format!(" on {tree}, about 981.")) && !said.contains("server"), "{said}");
    assert_eq!(test.stored(), Vec::<String>::new());
}

#[test]
fn its_tables_are_asked_for_in_vain() {
    let test = Test::of_tree("touch a", "");
    test.run(["backup"]).ok();
    let ran = test.run(["list", "--tables"]).ok();
    assert!(ran.stdout.contains("1 file") && ran.stdout.contains("1 director"), "{}", ran.stdout);
    test.run(["list", "--stats"]).ok();
    let listed = test.run(["list", "--json", "--verify"]).ok();
    assert_eq!(listed.json()["items"][0]["state"], "whole");
}

#[test]
fn no_backup_holds_the_backups_before_it() {
    let test = Test::of_volume("path: {dir}/tree\nstorages: [local]").config(
        "version: 1\nhost: web1\nstate_dir: {dir}/tree/state\nstorages:\n  local: { type: local, path: '{dir}/tree/a*b/storage' }\n\
         targets: [ { name: files, type: volume, path: '{dir}/tree' } ]\n",
    );
    fs::create_dir_all(test.path("tree/a*b")).unwrap();
    fs::create_dir_all(test.path("tree/axb/storage")).unwrap();
    let mut artifacts = Vec::new();
    for _ in 0..2 {
        let ran = test.run(["backup", "--json"]).ok();
        let warnings = [
            "storage is left out: it is this program's own (storage local)",
            "state is left out: it is this program's own (state_dir)",
        ];
        let said = ran.json()["items"][0]["warnings"].to_string();
        assert!(warnings.iter().all(|warning| said.contains(warning)), "{said}");
        artifacts.push(ran.json()["items"][0]["id"].as_str().unwrap().to_owned());
    }
    let stored = super::support::files_below(&test.path("tree/a*b/storage"));
    for id in artifacts {
        let artifact = stored.iter().find(|name| name.ends_with(&format!("{id}.tar.gz"))).unwrap();
        let names = tar_of(&test.path("tree/a*b/storage").join(artifact), &["--list"]);
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["./", "./a*b/", "./axb/", "./axb/storage/"]);
    }
    // Within the storage there is nothing that could be left out.
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let within = test.path("tree/a*b/storage/web1");
    test.write(
        "backup.yml",
        &config.replace(
            &format!("volume, path: '{}'", test.path("tree").display()),
            &format!("volume, path: '{}'", within.display()),
        ),
    );
    test.run(["backup"]).fails(2).says("is in storage local, which its backups go into").says("`path:`");
}

/// A file whose path below the root has so many bytes, with the `./` before it.
fn deep(test: &Test, bytes: usize) {
    let script = "cd tree; n=$1; while [ $n -gt 220 ]; do d=$(printf '%0199d' 1); mkdir -p $d; cd -P ./$d; n=$((n - 200)); done; \
                  touch $(printf \"%0$((n - 2))d\" 1)";
    fs::create_dir(test.path("tree")).unwrap();
    let made =
        Command::new("bash").args(["-ec", script, "bash", &bytes.to_string()]).current_dir(test.path("")).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_path_is_backed_up_if_it_can_be_restored() {
    let test = Test::of_volume("path: {dir}/tree\ndrill: { hash: true }");
    deep(&test, 4095);
    test.run(["backup"]).ok();
    tar_of(&test.stored_one(".tar.gz"), &["--compare", "--directory", test.path("tree").to_str().unwrap()]);
    test.run(["restore", "files", "--to-path", "back"]).ok();
    tar_of(&test.stored_one(".tar.gz"), &["--compare", "--directory", test.path("back").to_str().unwrap()]);
    test.run(["restore", "--drill"]).ok().says("and 1 digest compared");
    let test = Test::of_volume("path: {dir}/tree");
    deep(&test, 4096);
    test.run(["backup"]).fails(1).says("a path of 4096 bytes can't be restored by any tar").says("`exclude:`");
}

#[test]
fn a_name_that_tar_would_not_bring_back_is_refused_and_can_be_found() {
    let test = Test::of_tree("touch \"$(printf 'x\\363\\240\\201\\247y')\" \"$(printf '\\303\\251\\363\\240\\201\\247')\"", "");
    test.run(["backup"]).fails(1).says("Unicode's tags").says("find . |");
    let test = Test::of_tree("touch \"$(printf '\\360\\237\\217\\264\\363\\240\\201\\247')\"", "");
    test.run(["backup"]).ok();
}
