//! Streams through the S3 storage alone, for scripts/s3-throughput: standard input becomes an object, or an
//! object goes to standard output. Access keys come from the environment, as the storage finds them there.
//!
//! s3_stream put|get ENDPOINT BUCKET HOST/RUN/FILE

use std::env;
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use db_backup_tools::config::model::S3Settings;
use db_backup_tools::host::clock::SystemClock;
use db_backup_tools::host::{Cancel, Context, Env};
use db_backup_tools::names::Key;
use db_backup_tools::observe::Silent;
use db_backup_tools::storage::Storage;
use db_backup_tools::storage::s3::S3;
use db_backup_tools::storage::s3::sizing::PROGRAM_MEMORY;

/// The program's default for all that it takes.
const MEMORY: u64 = 128 << 20;

fn main() -> Result<(), anyhow::Error> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [action, endpoint, bucket, key] = words.as_slice() else {
        return Err(anyhow::anyhow!("usage: s3_stream put|get ENDPOINT BUCKET HOST/RUN/FILE"));
    };
    let cx = Context {
        cancel: Cancel::new()?,
        env: Arc::new(Env::of_process()),
        clock: Arc::new(SystemClock),
        observer: Arc::new(Silent),
    };
    let storage = S3::new(settings(endpoint, bucket), MEMORY - PROGRAM_MEMORY);
    let key: Key = key.parse()?;
    match action.as_str() {
        "put" => put(&storage, &key, &cx),
        "get" => get(&storage, &key, &cx),
        _ => Err(anyhow::anyhow!("neither put nor get: {action}")),
    }
}

/// The program's defaults.
fn settings(endpoint: &str, bucket: &str) -> S3Settings {
    S3Settings {
        bucket: bucket.to_owned(),
        prefix: String::new(),
        region: None,
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        keys: None,
        storage_class: None,
        encryption: None,
        tags: Vec::new(),
        ca_file: None,
        proxy: None,
        part_size: 8 << 20,
        max_parts: 10_000,
        concurrency: NonZeroU32::MIN.saturating_add(3),
        memory: None,
        timeout: Duration::from_secs(60),
        retries: 5,
    }
}

fn put(storage: &S3, key: &Key, cx: &Context) -> Result<(), anyhow::Error> {
    let (mut input, mut block) = (io::stdin().lock(), vec![0; 256 << 10]);
    let mut upload = storage.upload(key, None, cx)?;
    loop {
        match input.read(&mut block)? {
            0 => break,
            count => upload.write(&block[..count])?,
        }
    }
    upload.commit()?;
    Ok(())
}

fn get(storage: &S3, key: &Key, cx: &Context) -> Result<(), anyhow::Error> {
    let mut output = io::stdout().lock();
    io::copy(&mut storage.read(key, 0, cx)?, &mut output)?;
    Ok(output.flush()?)
}
