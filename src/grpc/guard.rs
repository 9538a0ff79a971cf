//! Cuts connections off that cost much and ask for little, as the HTTP/2 library under them does not.
//!
//! The library bounds what a connection holds in memory, but answers pings and settings, and begins and forgets calls, as
//! fast as they come. So frames are counted where they are read, by their headers alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::records;

/// The length of what a client says first.
const PREFACE_LENGTH: usize = 24;

/// The length of a frame's header.
const HEADER_LENGTH: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;

/// Frames that ask for nothing, at once and in a second: pings, settings, priorities, window updates, empty data.
const IDLE_FRAMES: Bucket = Bucket { depth: 4_096.0, per_second: 100.0 };

/// Such frames that a call may bring along: a ping to measure the path, and window updates.
const IDLE_FRAMES_PER_CALL: f64 = 8.0;

/// So many bytes that were sent to a client may be answered by one window update.
const BYTES_PER_UPDATE: f64 = 4_096.0;

/// Calls that are cancelled, at once and in a second. As many as can be open may be cancelled together, and again.
const RESETS: Bucket = Bucket { depth: 2_048.0, per_second: 100.0 };

/// How much there may be of something.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    depth: f64,
    per_second: f64,
}

/// What is left in a bucket.
#[derive(Debug)]
struct Level {
    bucket: Bucket,
    left: f64,
    since: Instant,
}

impl Level {
    fn full(bucket: Bucket, now: Instant) -> Self {
        Self { bucket, left: bucket.depth, since: now }
    }

    fn add(&mut self, amount: f64) {
        self.left = (self.left + amount).min(self.bucket.depth);
    }

    /// Takes one, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.duration_since(self.since).as_secs_f64();
        self.since = now;
        self.add(passed * self.bucket.per_second);
        self.left -= 1.0;
        self.left >= 0.0
    }
}

/// Why a connection is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// Too many frames that ask for nothing.
    IdleFrames,
    /// Too many calls that were cancelled.
    Resets,
    /// It did not say in time that it speaks HTTP/2.
    Silence,
    /// It is there for too long, and would not go when it was asked to.
    Age,
}

impl Offence {
    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdleFrames => "idle_frames",
            Self::Resets => "resets",
            Self::Silence => "silence",
            Self::Age => "age",
        }
    }
}

/// Counts the frames of one connection.
#[derive(Debug)]
struct Meter {
    /// Bytes to come that are not looked at.
    skip: usize,
    header: [u8; HEADER_LENGTH],
    header_length: usize,
    /// Whether the client's first settings were read.
    is_begun: bool,
    idle_frames: Level,
    resets: Level,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE_LENGTH,
            header: [0; HEADER_LENGTH],
            header_length: 0,
            is_begun: false,
            idle_frames: Level::full(IDLE_FRAMES, now),
            resets: Level::full(RESETS, now),
        }
    }

    fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Offence> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER_LENGTH - self.header_length).min(bytes.len());
            self.header[self.header_length..self.header_length + taken].copy_from_slice(&bytes[..taken]);
            self.header_length += taken;
            bytes = &bytes[taken..];
            if self.header_length == HEADER_LENGTH {
                self.header_length = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now: Instant) -> Result<(), Offence> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS => self.idle_frames.add(IDLE_FRAMES_PER_CALL),
            RST_STREAM if !self.resets.take(now) => return Err(Offence::Resets),
            RST_STREAM => {}
            DATA if self.skip > 0 || flags & END_STREAM != 0 => {}
            _ if !self.idle_frames.take(now) => return Err(Offence::IdleFrames),
            _ => self.is_begun |= kind == SETTINGS,
        }
        Ok(())
    }

    fn wrote(&mut self, count: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a count of bytes of one write is small")]
        self.idle_frames.add(count as f64 / BYTES_PER_UPDATE);
    }
}

/// A connection whose frames are counted.
#[derive(Debug)]
pub struct Guard<S> {
    inner: S,
    meter: Meter,
    /// When the first settings must be there; then, when the connection must have ended.
    deadline: Pin<Box<Sleep>>,
    life_end: Instant,
    is_begun: bool,
    is_cut: bool,
}

impl<S> Guard<S> {
    /// Guards `inner`, whose client must begin within `begin_timeout` and have ended after `life_max`.
    pub fn new(inner: S, begin_timeout: Duration, life_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            inner,
            meter: Meter::new(now),
            deadline: Box::pin(sleep(begin_timeout)),
            life_end: now + life_max,
            is_begun: false,
            is_cut: false,
        }
    }

    /// Whether it may go on. Asked before reading and before writing: while a client takes nothing in, nothing is read from
    /// it.
    fn go_on(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.is_cut {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.deadline.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        Err(self.cut(if self.is_begun { Offence::Age } else { Offence::Silence }))
    }

    fn cut(&mut self, offence: Offence) -> io::Error {
        self.is_cut = true;
        super::incoming::count_refused(offence.as_str());
        records::ConnectionCut { offence: offence.as_str() }.log();
        io::Error::new(io::ErrorKind::ConnectionAborted, offence.as_str())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.go_on(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let read = this.meter.read(&buffer.filled()[before..], Instant::now());
        if this.meter.is_begun && !this.is_begun {
            this.is_begun = true;
            this.deadline.as_mut().reset(this.life_end);
            // The clock wakes only who has asked it.
            this.go_on(context)?;
        }
        Poll::Ready(read.map_err(|offence| this.cut(offence)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.go_on(context)?;
        let count = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.meter.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.go_on(context)?;
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, slices))?;
        self.meter.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.go_on(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
