//! From compressed bytes to chunks of hashed, uncompressed ones: inflating and hashing on the caller's thread, what
//! is done with the bytes on another.
//!
//! Owns at most [`CHUNKS`] buffers. Never looks into the bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use spec::digest::Digest;

use super::archive::Input;
use super::error::UnpackError;
use super::{Compression, Limits};
use crate::image::hash::Sha256;

const CHUNK: usize = 128 << 10;
const CHUNKS: usize = 8;
const READ_BUFFER: usize = 64 << 10;

/// Chunks as they arrive from the inflating thread.
pub(super) struct Chunks {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    used: usize,
}

impl Read for Chunks {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(target.len());
        target[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.chunk.len()
            && let Ok(next) = self.full.recv()
        {
            // The other side may have ended already: then nobody needs the buffer.
            let _ = self.empty.send(std::mem::replace(&mut self.chunk, next));
            self.used = 0;
        }
        Ok(&self.chunk[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.chunk.len());
    }
}

impl Input for Chunks {}

/// What went through.
pub(super) struct Passed {
    /// Digest of the uncompressed bytes.
    pub(super) digest: Digest,
}

/// Inflates `reader` to its end and gives the bytes to `consume` on another thread.
pub(super) fn pump<T: Send>(
    reader: &mut dyn Read,
    limits: &Limits,
    consume: impl FnOnce(Chunks) -> Result<T, UnpackError> + Send,
) -> Result<(T, Passed), UnpackError> {
    let (full_in, full_out) = sync_channel(CHUNKS - 2);
    let (empty_in, empty_out) = channel();
    std::thread::scope(|scope| {
        let chunks = Chunks { full: full_out, empty: empty_in, chunk: Vec::new(), used: 0 };
        let worker = std::thread::Builder::new()
            .name("unpack".to_owned())
            .stack_size(512 << 10)
            .spawn_scoped(scope, move || consume(chunks))
            .map_err(|_| UnpackError::Worker)?;
        let produced = produce(reader, limits, full_in, &empty_out);
        let consumed = worker.join().map_err(|_| UnpackError::Worker)?;
        // When the stream broke, the consumer has only seen an early end: the stream's error is the cause.
        let passed = produced?;
        Ok((consumed?, passed.ok_or(UnpackError::Worker)?))
    })
}

/// Answers `None` when the consumer ended first, which it does only with an error.
fn produce(
    reader: &mut dyn Read,
    limits: &Limits,
    full: SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<Option<Passed>, UnpackError> {
    let mut inflater = Inflater::new(reader, limits)?;
    let mut hash = Sha256::new();
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        inflater.fill(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(Some(Passed { digest: hash.digest() }));
        }
        hash.update(&chunk);
        if full.send(chunk).is_err() {
            return Ok(None);
        }
    }
}

/// Uncompressed bytes of a stream whose compression its first bytes tell.
pub(crate) struct Inflater<'a> {
    decoder: Decoder<'a>,
    produced: u64,
    limits: Limits,
}

enum Decoder<'a> {
    Plain(Counted<'a>),
    Gzip(Option<Box<flate2::bufread::GzDecoder<Counted<'a>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Counted<'a>>>),
    /// Nothing more comes.
    Done(u64),
}

impl<'a> Inflater<'a> {
    /// Goes by the bytes and not by a media type, as engines do: mislabelled layers exist, and the diff id pins the
    /// result in any case.
    pub(crate) fn new(reader: &'a mut dyn Read, limits: &Limits) -> Result<Self, UnpackError> {
        // A network may give one byte at a time, and the magic is four.
        let mut start = Vec::new();
        Read::take(&mut *reader, 4).read_to_end(&mut start).map_err(UnpackError::Stream)?;
        let compression = Compression::detect(&start);
        let whole = io::Cursor::new(start).chain(reader);
        let input = Counted { inner: BufReader::with_capacity(READ_BUFFER, whole), count: 0 };
        let decoder = match compression {
            Compression::None => Decoder::Plain(input),
            Compression::Gzip => Decoder::Gzip(Some(Box::new(flate2::bufread::GzDecoder::new(input)))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(UnpackError::Stream)?;
                decoder.window_log_max(limits.zstd_window_log).map_err(UnpackError::Stream)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { decoder, produced: 0, limits: limits.clone() })
    }

    /// Fills `chunk` with the next bytes; leaves it empty at the end.
    pub(crate) fn fill(&mut self, chunk: &mut Vec<u8>) -> Result<(), UnpackError> {
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            let count = match self.read(&mut chunk[filled..]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(UnpackError::Stream(error)),
            };
            if count == 0 {
                break;
            }
            filled += count;
        }
        chunk.truncate(filled);
        self.produced += filled as u64;
        self.check()
    }

    fn check(&self) -> Result<(), UnpackError> {
        let limits = &self.limits;
        if self.produced > limits.archive_bytes {
            return Err(UnpackError::Limit { what: "the size of the uncompressed layer", limit: limits.archive_bytes });
        }
        let consumed = match &self.decoder {
            Decoder::Plain(_) => return Ok(()),
            Decoder::Gzip(Some(decoder)) => decoder.get_ref().count,
            Decoder::Gzip(None) => return Ok(()),
            Decoder::Zstd(decoder) => decoder.get_ref().count,
            Decoder::Done(consumed) => *consumed,
        };
        // Counts what the decoder took, not what the input has buffered ahead for it.
        if self.produced > limits.ratio_free_bytes && self.produced / consumed.max(1) > limits.ratio {
            return Err(UnpackError::Limit { what: "the compression ratio", limit: limits.ratio });
        }
        Ok(())
    }

    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.decoder {
                Decoder::Plain(input) => return input.read(target),
                Decoder::Zstd(decoder) => return decoder.read(target),
                Decoder::Done(_) => return Ok(0),
                Decoder::Gzip(slot) => {
                    let Some(decoder) = slot else { return Ok(0) };
                    let count = decoder.read(target)?;
                    if count > 0 {
                        return Ok(count);
                    }
                    // A gzip stream is a sequence of members (pigz, estargz). What follows the last one and is no
                    // member is passed over like gzip(1) does, but read, since it is part of the blob's digest.
                    let mut input = slot.take().map(|d| d.into_inner()).ok_or(io::ErrorKind::UnexpectedEof)?;
                    if matches!(input.fill_buf()?, [0x1f] | [0x1f, 0x8b, ..]) {
                        *slot = Some(Box::new(flate2::bufread::GzDecoder::new(input)));
                    } else {
                        io::copy(&mut input, &mut io::sink())?;
                        self.decoder = Decoder::Done(input.count);
                    }
                }
            }
        }
    }
}

/// Counts the bytes that were used.
struct Counted<'a> {
    inner: BufReader<io::Chain<io::Cursor<Vec<u8>>, &'a mut dyn Read>>,
    count: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(target)?;
        self.count += count as u64;
        Ok(count)
    }
}

impl BufRead for Counted<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.count += count as u64;
        self.inner.consume(count);
    }
}
