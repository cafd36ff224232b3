//! The pipe between a download (async) and the unpacking of it (blocking), bounded in bytes.
//!
//! The reader sees the end only after the writer has said that the whole came and was verified; a writer that goes
//! away without a word is an error, so a cancelled or broken download can never look like a short layer.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes on the way in one pipe.
const CAPACITY: usize = 1024 * 1024;

enum Piece {
    Data(Bytes, OwnedSemaphorePermit),
    End,
}

/// The end that a download writes to.
pub(super) struct PipeWriter {
    pieces: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
}

/// The end that is unpacked from. Blocks; only for blocking threads.
pub(super) struct PipeReader {
    pieces: mpsc::UnboundedReceiver<Piece>,
    current: Option<(Bytes, OwnedSemaphorePermit)>,
    ended: bool,
}

/// A pipe.
pub(super) fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let writer = PipeWriter { pieces: sender, room: Arc::new(Semaphore::new(CAPACITY)) };
    (writer, PipeReader { pieces: receiver, current: None, ended: false })
}

impl PipeWriter {
    /// Waits for room and hands a piece on; `false` when nobody reads any more.
    pub(super) async fn write(&self, piece: Bytes) -> bool {
        let wanted = piece.len().min(CAPACITY) as u32;
        let Ok(permit) = Arc::clone(&self.room).acquire_many_owned(wanted).await else { return false };
        self.pieces.send(Piece::Data(piece, permit)).is_ok()
    }

    /// All of it came and is verified.
    pub(super) fn finish(self) {
        // Nobody reads any more: whoever unpacked has an error of its own.
        let _ = self.pieces.send(Piece::End);
    }
}

impl Read for PipeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((piece, _)) = self.current.as_mut().filter(|(piece, _)| piece.has_remaining()) {
                let count = piece.len().min(out.len());
                if let Some(target) = out.get_mut(..count) {
                    piece.copy_to_slice(target);
                }
                return Ok(count);
            }
            self.current = None;
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(piece, permit)) => self.current = Some((piece, permit)),
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download broke off")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_written_is_read_in_order() {
        let (writer, mut reader) = pipe();
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        let mut expected = Vec::new();
        for index in 0..300_u32 {
            let piece = vec![index as u8; 10_000];
            expected.extend_from_slice(&piece);
            assert!(writer.write(piece.into()).await);
        }
        writer.finish();
        assert!(reading.await.expect("the reader ends").expect("all is read") == expected);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_writer_that_goes_away_is_an_error() {
        let (writer, mut reader) = pipe();
        let reading = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
        assert!(writer.write(Bytes::from_static(b"part")).await);
        drop(writer);
        let error = reading.await.expect("the reader ends").expect_err("no end was said");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_reader_that_goes_away_frees_the_writer() {
        let (writer, reader) = pipe();
        assert!(writer.write(vec![0; CAPACITY].into()).await);
        drop(reader);
        assert!(!writer.write(vec![0; CAPACITY].into()).await);
    }
}
