//! QUICKSTART.md's Compose host and docs/compose.md, on a real project, in their order. What is changed: places; the images, for those of our
//! tests; the project's name, and with it its volumes', as two tests run at once; and `docker compose` for what Compose is called here.

use std::path::Path;

use super::commands::Places;
use super::{Block, page};
use crate::support::volume::Volume;
use crate::support::{Compose, Container, Docker, is_root};

pub const PAGE: &str = "docs/compose.md";
/// The project's own file, in QUICKSTART.md.
pub const FILE: &str = "yaml compose /srv/shop/compose.yml";
/// The services; the first two with a server, whose superuser and database are called so.
const SERVICES: [&str; 4] = ["db", "wiki-db", "web", "wiki"];
const DATABASES: [&str; 2] = ["shop", "wiki"];
const SHOP: &str = "CREATE TABLE orders (id int PRIMARY KEY, what text NOT NULL);
    INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 300) n;
    CREATE VIEW big AS SELECT * FROM orders WHERE id > 100; COMMENT ON DATABASE shop IS 'our shop';";
const WIKI: &str = "CREATE TABLE pages (title text); INSERT INTO pages VALUES ('Home'), ('It''s')";
const UPLOADS: &str =
    "mkdir -p 2026/empty cache; echo home >index.html; echo 12.50 >2026/invoice.pdf; ln -s ../index.html 2026/link
    echo x >'a name'; ln 'a name' again; chown 101:102 2026/invoice.pdf; chmod 4750 'a name'; echo no >x.tmp; echo no >cache/it";
const WIKI_FILES: &str = "mkdir images; echo logo >images/logo.png; chown -R 33:33 .; chmod 700 images";

/// A host with the project up, its databases and volumes filled.
struct Host {
    // Taken down before its file goes.
    project: Compose,
    places: Places,
    docker: &'static Docker,
    // Of the names that the project's have each time it is up; behind it, as they are removed with these.
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

impl Host {
    /// None where there is no engine or no Compose, and for an ordinary user, who can't read volumes where the engine keeps them.
    fn new() -> Option<Self> {
        let docker = Docker::shared()?;
        if !is_root() {
            eprintln!("SKIPPED: only root reads volumes where the engine keeps them");
            return None;
        }
        let project = docker.unique("shop");
        let places = Places::new();
        let [srv, tmp] = ["srv", "tmp"].map(|name| places.path(name).join(&project));
        let places = places.replacing([
            ("/tmp", tmp.display().to_string()),
            ("/srv/shop", srv.display().to_string()),
            ("shop_uploads", format!("{project}_uploads")),
            ("shop_wiki-files", format!("{project}_wiki-files")),
            ("--to-volume uploads_check", format!("--to-volume {project}_check")),
            // What no import can set: it ends without waiting for its clients.
            ("image: postgres:16", format!("image: {}\n    network_mode: none\n    stop_signal: SIGINT", docker.postgres())),
            ("image: nginx", format!("image: {}\n    network_mode: none", docker.busybox())),
        ]);
        for directory in [&srv, &tmp, &places.path("etc/db-backup")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let mut file = blocks("QUICKSTART.md").into_iter().find(|block| block.info == FILE).unwrap();
        file.info = "yaml /srv/shop/compose.yml".into();
        places.run(&[file]).unwrap_or_else(|printed| panic!("{printed}"));
        let compose = Compose::up_as(&project, &srv.join("compose.yml"))?;
        docker.keep(&format!("db-backup-tools.former={project}_uploads"));
        let volumes = ["uploads", "wiki-files", "check"].map(|name| docker.adopt_volume(&compose.volume(name))).into();
        let servers = [0, 1].map(|at| compose.container(SERVICES[at]).with_server_of(DATABASES[at]).ready());
        let containers = servers.into_iter().chain([2, 3].map(|at| compose.container(SERVICES[at]))).collect();
        let host = Self { project: compose, places, docker, containers, volumes };
        host.containers[0].psql(SHOP);
        host.containers[1].psql(WIKI);
        host.volumes[0].shell(UPLOADS);
        host.volumes[1].shell(WIKI_FILES);
        Some(host)
    }

    /// Runs what a page shows. What is printed.
    #[track_caller]
    fn run(&self, mut blocks: Vec<Block>) -> String {
        for block in &mut blocks {
            block.text = block.text.replace("docker compose", &self.project.words());
        }
        self.places.run(&blocks).unwrap_or_else(|printed| panic!("{printed}"))
    }

    /// A database as SQL.
    #[track_caller]
    fn dump(&self, server: usize, database: &str) -> String {
        self.containers[server].dump(database)
    }

    /// All that must come back of both databases and both volumes.
    #[track_caller]
    fn content(&self) -> [String; 4] {
        let [shop, wiki] = [0, 1].map(|at| self.dump(at, DATABASES[at]));
        let [uploads, files] = [0, 1].map(|at| tree(&self.volumes[at]));
        [shop, wiki, uploads, files]
    }
}

/// Names, kinds, modes, owners, sizes, times and contents of a volume, but for what the pages leave out.
fn tree(volume: &Volume) -> String {
    volume.shell(
        "find . ! -name '*.tmp' ! -path './cache*' -exec stat -c '%N %F %a %u:%g %Y' {} + | sort
         find . -type f ! -name '*.tmp' ! -path './cache*' -exec stat -c '%n %h %s' {} + -exec sha256sum {} + | sort",
    )
}

/// Those that are run, and the configuration.
fn blocks(path: &str) -> Vec<Block> {
    page(path).blocks().into_iter().filter(|block| path == PAGE || block.info.split(' ').any(|word| word == "compose")).collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_quickstarts_compose_host_is_backed_up_drilled_and_gives_out_a_file() {
    let Some(host) = Host::new() else { return };
    let wiki = &host.containers[3];
    let started = wiki.started_at();
    let printed = host.run(blocks("QUICKSTART.md").into_iter().filter(|block| block.info != FILE).collect());
    for container in &host.containers[..2] {
        assert!(printed.contains(&format!("docker exec into {} (pg_dump ", container.name())), "{printed}");
    }
    assert!(printed.contains(&format!("would stop {}", wiki.name())), "{printed}");
    assert!(printed.contains("drill: 4 units passed"), "{printed}");
    assert!(wiki.is_running() && wiki.started_at() != started);
    assert_eq!(text(&host.places.path("tmp").join(host.project.project()).join("index.html")), "home\n");
    let stored = crate::support::tool::files_below(&host.places.path("var/backups"));
    assert_eq!(stored.iter().filter(|path| path.ends_with(".manifest.json")).count(), 8, "{stored:?}");
}

#[test]
fn every_restore_of_the_compose_page_brings_back_what_was() {
    let Some(host) = Host::new() else { return };
    let original = host.content();
    let uploads = &original[2];
    let blocks = blocks(PAGE);
    let newhost = blocks.iter().position(|block| block.info == "sh newhost").unwrap();
    let replaces = |what: &str| blocks.iter().position(|block| block.text.contains(what)).unwrap();
    let (database, volume) = (replaces("restore shop --replace"), replaces("restore uploads --replace"));
    assert!(database < volume && volume < newhost);

    // Copies beside the originals.
    let printed = host.run(blocks[..database].to_vec());
    assert!(printed.contains("\n300\n"), "{printed}");
    assert_eq!(host.dump(0, "shop_check"), original[0]);
    let tmp = host.places.path("tmp").join(host.project.project());
    assert_eq!(text(&tmp.join("found/2026/invoice.pdf")), "12.50\n");
    assert_eq!(text(&tmp.join("uploads_check/index.html")), "home\n");

    // Over what was harmed, with everything at work.
    host.containers[0].psql("DELETE FROM orders WHERE id > 10");
    host.volumes[0].shell("rm -r 2026; echo harm >index.html");
    // Another shell, in which that is set as before.
    let export = blocks.iter().find(|block| block.text.starts_with("export ")).unwrap();
    let export = Block { text: export.text.lines().next().unwrap().to_owned() + "\n", ..export.clone() };
    let again = |some: &[Block]| [std::slice::from_ref(&export), some].concat();
    let printed = host.run(again(&blocks[database..newhost]));
    assert_eq!(host.content(), original, "{printed}");
    assert_eq!(tree(&host.volumes[2]), *uploads);
    assert!(host.containers[2].is_running());
    let former = host.docker.volumes_with(&format!("db-backup-tools.former={}", host.project.volume("uploads")));
    assert!(former.len() == 1 && printed.contains(&former[0]), "{printed}");
    assert_eq!(host.docker.adopt_volume(&former[0]).shell("cat index.html"), "harm");

    // A new machine has the images, the backups, the configuration and the project's file.
    host.project.ok(["down", "--volumes"]);
    assert!(!host.volumes[0].exists() && !host.volumes[1].exists());
    host.run(again(&blocks[newhost..]));
    assert_eq!(host.content(), original);
    assert!(host.containers.iter().all(Container::is_running));
}
