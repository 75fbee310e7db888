//! Artifacts that are not what was backed up, under manifests that say they are: as a disk, a bug or
//! somebody with a key to the storage could leave them.

use std::fs;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::cluster::{HOST, PASSWORD, binaries};
use crate::support::{Cluster, Database, Test};

/// A test whose target is this database, with one backup, compressed like this.
pub fn backed_up(database: &Database, compression: &str) -> Test {
    // Debian's psql on PATH is a script that is slower than what it starts.
    let test = Test::of(database)
        .target_option(&format!("compression: {{ type: {compression} }}"))
        .target_option(&format!("client_bin: {}", binaries().display()));
    test.run(["-q", "backup"]).ok();
    test
}

/// The only manifest.
pub fn manifest(test: &Test) -> Value {
    serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap()
}

/// The only artifact's bytes.
pub fn artifact(test: &Test) -> Vec<u8> {
    let name = manifest(test)["artifact"]["name"].as_str().unwrap().to_owned();
    fs::read(test.stored_one(&name)).unwrap()
}

/// Puts these bytes in the only artifact's place, and nothing else.
pub fn damage(test: &Test, artifact: &[u8]) {
    let name = manifest(test)["artifact"]["name"].as_str().unwrap().to_owned();
    fs::write(test.stored_one(&name), artifact).unwrap();
}

/// Puts these bytes in the only artifact's place, and makes its manifest agree as far as it can.
pub fn forge(test: &Test, artifact: &[u8]) {
    let mut manifest = manifest(test);
    let content = content_of(manifest["compression"]["type"].as_str().unwrap(), artifact);
    damage(test, artifact);
    for (part, bytes) in [("artifact", artifact), ("content", content.as_slice())] {
        manifest[part]["bytes"] = json!(bytes.len());
        manifest[part]["sha256"] = json!(format!("{:x}", Sha256::digest(bytes)));
    }
    fs::write(test.stored_one(".manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// Compresses as a whole artifact would be.
pub fn pack(compression: &str, content: &[u8]) -> Vec<u8> {
    match compression {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(content, 1).unwrap(),
        _ => content.to_vec(),
    }
}

/// What comes out of an artifact, up to where it breaks.
pub fn content_of(compression: &str, artifact: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn Read + '_> = match compression {
        "gzip" => Box::new(MultiGzDecoder::new(artifact)),
        "zstd" => Box::new(zstd::Decoder::with_buffer(artifact).unwrap()),
        _ => Box::new(artifact),
    };
    let mut content = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        content.extend_from_slice(&piece[..count]);
    }
    content
}

/// Where the members of a gzip artifact end.
pub fn member_ends(artifact: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut rest = artifact;
    while !rest.is_empty() {
        let mut member = GzDecoder::new(rest);
        member.read_to_end(&mut Vec::new()).unwrap();
        rest = member.into_inner();
        ends.push(artifact.len() - rest.len());
    }
    ends
}

/// Gives the newest run another date: `20250110_030000Z`.
pub fn redate(test: &Test, run: &str) {
    let host = test.storage().join("web1");
    let mut runs: Vec<_> = fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    runs.sort();
    let newest = runs.pop().unwrap();
    fs::create_dir(host.join(run)).unwrap();
    for entry in fs::read_dir(host.join(&newest)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().replace(&newest, run);
        if name.ends_with(".manifest.json") {
            let json = fs::read_to_string(&path).unwrap();
            fs::write(&path, json.replace(&newest, run)).unwrap();
        }
        fs::rename(&path, host.join(run).join(name)).unwrap();
    }
    fs::remove_dir(host.join(newest)).unwrap();
}

/// A test's configuration of one target `app` on this server, as this role.
pub fn target_on(test: Test, cluster: &Cluster, role: &str, database: &str) -> Test {
    let yaml = format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\n\
         targets:\n  - {{ name: app, type: postgres, host: {HOST}, port: {}, user: {role}, password: {PASSWORD}, client_bin: {},\n      database: {} }}\n",
        cluster.port(),
        binaries().display(),
        // JSON's texts are YAML's, too.
        json!(database),
    );
    test.config(&yaml)
}

/// The databases whose names begin like this: a restored one, and scratch ones.
pub fn databases_of(cluster: &Cluster, name: &str) -> Vec<String> {
    cluster.databases().into_iter().filter(|database| database.starts_with(name)).collect()
}
