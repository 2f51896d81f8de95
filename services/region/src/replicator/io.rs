//! Frames over a byte stream, with deadlines.

use std::time::Duration;

use futures::FutureExt;
use longhaul_core::replication::frame::{Decoder, Frame, encode};
use longhaul_http::net::BoxIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::StreamEnd;
use crate::state::counters::Counter;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Bytes written under one deadline: a slow link is not a dead one as long as this much passes in time.
const WRITE_BYTES: usize = 16 * 1024;

/// The receiving half of a stream.
pub(super) struct FrameReader {
    io: ReadHalf<BoxIo>,
    decoder: Decoder,
    /// Was taken too early, and is the next.
    returned: Option<Frame>,
    buffer: Vec<u8>,
    dead_after: Duration,
}

/// The sending half of a stream.
pub(super) struct FrameWriter {
    io: WriteHalf<BoxIo>,
    dead_after: Duration,
}

/// Both halves.
pub(super) fn split(io: BoxIo, dead_after: Duration) -> (FrameReader, FrameWriter) {
    let (read, write) = tokio::io::split(io);
    let reader =
        FrameReader { io: read, decoder: Decoder::new(), returned: None, buffer: vec![0; READ_BYTES], dead_after };
    (reader, FrameWriter { io: write, dead_after })
}

impl FrameReader {
    /// The next frame. Bytes of an unfinished frame count as a sign of life.
    pub(super) async fn next(&mut self, received: &Counter) -> Result<Frame, StreamEnd> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(frame);
            }
            let read = timeout(self.dead_after, self.io.read(&mut self.buffer));
            let count = read.await.map_err(|_| StreamEnd::Silent(self.dead_after.as_millis()))??;
            self.take_in(count, received)?;
        }
    }

    /// The next frame if it has arrived already.
    pub(super) fn arrived(&mut self, received: &Counter) -> Result<Option<Frame>, StreamEnd> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(Some(frame));
            }
            let Some(count) = self.io.read(&mut self.buffer).now_or_never().transpose()? else { return Ok(None) };
            self.take_in(count, received)?;
        }
    }

    /// Gives back a frame that was taken: it is the next again.
    pub(super) fn give_back(&mut self, frame: Frame) {
        self.returned = Some(frame);
    }

    /// The next frame if all of it is here.
    fn whole(&mut self) -> Result<Option<Frame>, StreamEnd> {
        match self.returned.take() {
            Some(frame) => Ok(Some(frame)),
            None => Ok(self.decoder.next_frame()?),
        }
    }

    fn take_in(&mut self, count: usize, received: &Counter) -> Result<(), StreamEnd> {
        if count == 0 {
            return Err(StreamEnd::Closed);
        }
        received.add(count as u64);
        self.decoder.push(&self.buffer[..count]);
        Ok(())
    }
}

impl FrameWriter {
    /// Writes a frame and flushes it.
    pub(super) async fn send(&mut self, frame: &Frame, sent: &Counter) -> Result<(), StreamEnd> {
        let bytes = encode(frame)?;
        let stuck = |_| StreamEnd::Stuck(self.dead_after.as_millis());
        for part in bytes.chunks(WRITE_BYTES) {
            timeout(self.dead_after, self.io.write_all(part)).await.map_err(stuck)??;
        }
        timeout(self.dead_after, self.io.flush()).await.map_err(stuck)??;
        sent.add(bytes.len() as u64);
        Ok(())
    }
}
