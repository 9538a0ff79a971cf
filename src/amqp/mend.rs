//! Makes frames of the broker readable that lapin could not read. Pure.
//!
//! AMQP says that short strings are UTF-8; the broker passes on any bytes. lapin ends the connection over one that is
//! not, and reads tables by recursion, however deep: a single message would end consuming for everyone, again and again
//! until the broker gives it up. So bytes are exchanged in place, never their number: what is not UTF-8 becomes the
//! ASCII character SUBSTITUTE, what is nested too deep a value of plain bytes.

/// Stands for a byte that is not UTF-8. It is not visible, so no idempotency key can hold it.
const SUBSTITUTE: u8 = 0x1A;

/// The greatest depth of tables and arrays in one another. The broker's own headers take four.
const DEPTH_MAX: usize = 32;

const METHOD_FRAME: u8 = 1;
const HEADER_FRAME: u8 = 2;

/// Type, channel, length.
const FRAME_HEAD_LENGTH: usize = 7;

/// What follows the payload.
const FRAME_END_LENGTH: usize = 1;

/// Longer frames are passed on as they are: the broker sends none.
const GATHERED_MAX: usize = 1024 * 1024;

/// Class and method of what brings a message.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// A stream of frames that is mended on its way.
#[derive(Debug, Default)]
pub struct Mender {
    /// What is there of a frame that has to be complete.
    gathered: Vec<u8>,
    /// How many bytes come that are passed on as they are.
    passing: usize,
    /// Frames in which something was exchanged.
    mended: u64,
}

impl Mender {
    /// Takes the next bytes of the stream, and adds to `out` what can be handed on.
    pub fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let (now, rest) = bytes.split_at(self.passing.min(bytes.len()));
                out.extend_from_slice(now);
                self.passing -= now.len();
                bytes = rest;
                continue;
            }
            let wanted = self.wanted() - self.gathered.len();
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.gathered.extend_from_slice(now);
            bytes = rest;
            if self.gathered.len() == self.wanted() {
                self.release(out);
            }
        }
    }

    /// How many frames had to be mended so far.
    #[must_use]
    pub fn mended(&self) -> u64 {
        self.mended
    }

    /// The length that has to be gathered, as far as it is known.
    fn wanted(&self) -> usize {
        match frame_length(&self.gathered) {
            Some(length) if self.is_gathered(length) => FRAME_HEAD_LENGTH + length + FRAME_END_LENGTH,
            _ => FRAME_HEAD_LENGTH,
        }
    }

    fn is_gathered(&self, length: usize) -> bool {
        matches!(self.gathered[0], METHOD_FRAME | HEADER_FRAME) && length <= GATHERED_MAX
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        let Some(length) = frame_length(&self.gathered) else { return };
        if self.is_gathered(length) {
            let end = FRAME_HEAD_LENGTH + length;
            let is_header = self.gathered[0] == HEADER_FRAME;
            let mut part = Part { bytes: &mut self.gathered[FRAME_HEAD_LENGTH..end], at: 0, changed: false };
            // What has another form than is known is passed on as far as it came.
            let _ = if is_header { part.properties() } else { part.method() };
            self.mended += u64::from(part.changed);
        } else {
            self.passing = length + FRAME_END_LENGTH;
        }
        out.append(&mut self.gathered);
    }
}

fn frame_length(head: &[u8]) -> Option<usize> {
    let length = head.get(3..FRAME_HEAD_LENGTH)?;
    Some(u32::from_be_bytes(length.try_into().ok()?) as usize)
}

/// A payload that is gone through. `None` says that it has another form.
struct Part<'a> {
    bytes: &'a mut [u8],
    at: usize,
    changed: bool,
}

impl Part<'_> {
    /// Of the methods only the one with a routing key of a producer's choice.
    fn method(&mut self) -> Option<()> {
        if self.skip(4)? != DELIVER {
            return Some(());
        }
        self.short_string()?; // the consumer's tag
        self.skip(9)?; // the delivery's tag, redelivered
        self.short_string()?; // the exchange
        self.short_string() // the routing key
    }

    /// The properties of a message: those that are there follow the flags, in this order.
    fn properties(&mut self) -> Option<()> {
        self.skip(12)?; // class, weight, length of the body
        let flags = u16::from_be_bytes(self.skip(2)?.try_into().ok()?);
        for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                13 => self.table(0)?,
                12 | 11 => drop(self.skip(1)?), // delivery mode, priority
                6 => drop(self.skip(8)?),       // timestamp
                _ => self.short_string()?,
            }
        }
        Some(())
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let end = self.length()?;
        while self.at < end {
            self.short_string()?;
            self.value(depth)?;
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let kind_at = self.at;
        let kind = self.skip(1)?[0];
        match kind {
            b'A' | b'F' if depth == DEPTH_MAX => {
                self.bytes[kind_at] = b'x';
                self.changed = true;
                self.at = self.length()?;
            }
            b'A' => {
                let end = self.length()?;
                while self.at < end {
                    self.value(depth + 1)?;
                }
            }
            b'F' => self.table(depth + 1)?,
            b'S' | b'x' => self.at = self.length()?,
            b't' | b'b' | b'B' => drop(self.skip(1)?),
            b's' | b'U' | b'u' => drop(self.skip(2)?),
            b'I' | b'i' | b'f' => drop(self.skip(4)?),
            b'D' => drop(self.skip(5)?),
            b'l' | b'L' | b'd' | b'T' => drop(self.skip(8)?),
            b'V' => {}
            _ => return None,
        }
        Some(())
    }

    /// Reads a length of four bytes, and yields where what it measures ends.
    fn length(&mut self) -> Option<usize> {
        let length = u32::from_be_bytes(self.skip(4)?.try_into().ok()?) as usize;
        let end = self.at.checked_add(length)?;
        (end <= self.bytes.len()).then_some(end)
    }

    fn short_string(&mut self) -> Option<()> {
        let length = usize::from(self.skip(1)?[0]);
        let from = self.at;
        self.skip(length)?;
        self.changed |= substitute(&mut self.bytes[from..from + length]);
        Some(())
    }

    fn skip(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let skipped = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(skipped)
    }
}

/// Exchanges what is not UTF-8. Yields whether there was any.
fn substitute(mut text: &mut [u8]) -> bool {
    let mut changed = false;
    while let Err(error) = std::str::from_utf8(text) {
        let bad = error.valid_up_to();
        let length = error.error_len().unwrap_or(text.len() - bad);
        text[bad..bad + length].fill(SUBSTITUTE);
        text = &mut text[bad + length..];
        changed = true;
    }
    changed
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
