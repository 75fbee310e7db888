//! The way of a unit's bytes to an artifact and back, in constant memory, over threads of its own.
//! It never ends well unless every thread did, and never takes a closed channel for an end of data.

use std::io::{self, Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::BLOCK_BYTES;
use super::decompress::decompress;
use super::digest::{Check, Digested, Sha256Meter};
use super::pool::{Pool, Ticket};
use super::threads::{Ended, Input, Message, Stop, fill, join, ring, settle, start, stop_or_damage};
use crate::config::model::Compression;
use crate::error::{Error, Kind, Result, from_io};

/// Blocks beside those that the pool works on: one is read, one digested, one written.
const SPARE_BLOCKS: usize = 3;

/// Blocks of content between decompressing and writing.
const UNPACK_BLOCKS: usize = 4;

/// What went through a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The stream before compression.
    pub content: Digested,
    /// The stream after compression.
    pub artifact: Digested,
}

/// What an artifact should be, as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The file.
    pub artifact: Digested,
    /// What comes out of it.
    pub content: Digested,
}

/// Reads `input` to its end, compresses it, and writes the artifact to `output`, in order.
/// `progress` gets the bytes of content so far.
///
/// An error of `input` or `output` that carries ours comes out as itself; where both failed, it is
/// that of `output`. After one of `output`, `input` is not read any more; a read that is under way
/// then is waited for. What `output` got is worth nothing unless this returns `Ok`.
pub fn pack(
    input: &mut (dyn Read + Send),
    compression: Compression,
    pool: &Pool,
    output: &mut (dyn Write + Send),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Passed> {
    let over = AtomicBool::new(false);
    let (back, free) = ring(pool.threads() + SPARE_BLOCKS);
    let (to_digest, read) = channel();
    let (to_write, in_order) = channel();
    let input = Input { from: input, over: &over };
    thread::scope(|scope| {
        let reader = start(scope, "read", &over, move || read_blocks(input, &free, &to_digest, progress))?;
        let digester = start(scope, "digest", &over, move || digest_blocks(&read, compression, pool, &to_write))?;
        let writer = start(scope, "write", &over, move || write_blocks(&in_order, output, &back))?;
        settle(join(writer), [join(digester), join(reader)])
    })
}

/// A piece of the content, and what became of it. Both buffers are used again and again.
#[derive(Default)]
struct Block {
    content: Vec<u8>,
    packed: Vec<u8>,
}

fn read_blocks(
    mut input: Input<'_>,
    free: &Receiver<Block>,
    to_digest: &Sender<Message<Block, ()>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Ended<()> {
    let mut bytes = 0;
    loop {
        let mut block = free.recv()?;
        fill(&mut input, &mut block.content, BLOCK_BYTES).map_err(stop_or_damage)?;
        let filled = block.content.len();
        // An empty input has one block too: an empty member is valid, an empty file is not.
        if filled > 0 || bytes == 0 {
            bytes += filled as u64;
            to_digest.send(Message::Next(block))?;
            progress(bytes);
        }
        if filled < BLOCK_BYTES {
            return Ok(to_digest.send(Message::End(()))?);
        }
    }
}

fn digest_blocks(
    read: &Receiver<Message<Block, ()>>,
    compression: Compression,
    pool: &Pool,
    to_write: &Sender<Message<Ticket<Result<Block>>, Digested>>,
) -> Ended<()> {
    let mut content = Sha256Meter::new();
    while let Message::Next(mut block) = read.recv()? {
        content.update(&block.content);
        let ticket = if compression == Compression::None {
            std::mem::swap(&mut block.content, &mut block.packed);
            Ticket::done(Ok(block))
        } else {
            pool.submit(move |compressor| {
                compressor.compress(compression, &block.content, &mut block.packed)?;
                Ok(block)
            })
        };
        to_write.send(Message::Next(ticket))?;
    }
    Ok(to_write.send(Message::End(content.finish()))?)
}

fn write_blocks(
    in_order: &Receiver<Message<Ticket<Result<Block>>, Digested>>,
    output: &mut dyn Write,
    back: &Sender<Block>,
) -> Ended<Passed> {
    let mut artifact = Sha256Meter::new();
    loop {
        match in_order.recv()? {
            Message::Next(ticket) => {
                let block = ticket.wait()??;
                artifact.update(&block.packed);
                output.write_all(&block.packed).map_err(write_failed)?;
                // The reader has ended before us where it has read all.
                let _ = back.send(block);
            }
            Message::End(content) => {
                output.flush().map_err(write_failed)?;
                return Ok(Passed { content, artifact: artifact.finish() });
            }
        }
    }
}

/// Reads an artifact to its end, decompresses it, and writes the content to `output` as it comes.
/// `progress` gets the bytes of content so far.
///
/// `Damaged` at the first difference from what is `expected`: a byte too many (at once, and never
/// given to `output`), a byte too few, another digest, a member that is cut or wrong, bytes after the
/// last one. Other errors are as for [`pack`]. Whatever `output` got is worth nothing unless this
/// returns `Ok`. The level in `compression` does not matter.
pub fn unpack(
    input: &mut (dyn Read + Send),
    compression: Compression,
    expected: &Expected,
    output: &mut (dyn Write + Send),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Passed> {
    let over = AtomicBool::new(false);
    let (back, free) = ring(UNPACK_BLOCKS);
    let (to_write, unpacked) = channel();
    let artifact = Artifact { input: Input { from: input, over: &over }, check: Check::new("artifact", &expected.artifact) };
    let content = Check::new("content", &expected.content);
    thread::scope(|scope| {
        let reader = start(scope, "unpack", &over, move || unpack_blocks(artifact, compression, &free, &to_write))?;
        let writer = start(scope, "write", &over, move || write_content(&unpacked, content, output, &back, progress))?;
        settle(join(writer), [join(reader)])
    })
}

/// An artifact that is checked as it is read.
struct Artifact<'a> {
    input: Input<'a>,
    check: Check<'a>,
}

impl Read for Artifact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let checked = if read == 0 { self.check.ends_here() } else { self.check.update(&buffer[..read]) };
        checked.map_err(Stop::from)?;
        Ok(read)
    }
}

fn unpack_blocks(
    mut artifact: Artifact<'_>,
    compression: Compression,
    free: &Receiver<Vec<u8>>,
    to_write: &Sender<Message<Vec<u8>, Digested>>,
) -> Ended<()> {
    let mut content = decompress(compression, &mut artifact)?;
    loop {
        let mut block = free.recv()?;
        fill(&mut content, &mut block, BLOCK_BYTES).map_err(stop_or_damage)?;
        let last = block.len() < BLOCK_BYTES;
        to_write.send(Message::Next(block))?;
        if last {
            break;
        }
    }
    drop(content);
    Ok(to_write.send(Message::End(artifact.check.finish()?))?)
}

fn write_content(
    unpacked: &Receiver<Message<Vec<u8>, Digested>>,
    mut content: Check<'_>,
    output: &mut dyn Write,
    back: &Sender<Vec<u8>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Ended<Passed> {
    loop {
        match unpacked.recv()? {
            Message::Next(block) => {
                content.update(&block)?;
                output.write_all(&block).map_err(write_failed)?;
                progress(content.bytes());
                // The reader has ended before us where it has read all.
                let _ = back.send(block);
            }
            Message::End(artifact) => {
                let content = content.finish()?;
                output.flush().map_err(write_failed)?;
                return Ok(Passed { content, artifact });
            }
        }
    }
}

fn write_failed(error: io::Error) -> Error {
    from_io(error, Kind::Internal, "can't write the output")
}

#[cfg(test)]
mod tests;
