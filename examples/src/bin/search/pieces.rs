//! Reading a file in pieces that end where lines end, each small enough for one call.

use std::io::{self, Read};

use memchr::memrchr;

/// How much of a file is sent in one call, if its lines let it: enough that the call costs little beside the
/// search, and little enough that the text is still in the processor's cache when it is searched.
const PIECE: usize = 1 << 20;

/// Cuts files into pieces, in memory that it keeps from one file to the next.
#[derive(Debug)]
pub(crate) struct Cutter {
    buffer: Vec<u8>,
    limit: usize,
}

/// Why a file has no further piece.
#[derive(Debug)]
pub(crate) enum CutError {
    Read(io::Error),
    /// A line is longer than a piece can be.
    LongLine,
}

impl Cutter {
    /// Pieces of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), limit: limit.max(1) }
    }

    /// Gives all of `file` to `take`, in order. Stops at the first error, and before the piece that has it.
    pub(crate) fn cut<E: From<CutError>>(
        &mut self,
        mut file: impl Read,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let piece = PIECE.min(self.limit);
        self.buffer.truncate(piece);
        self.buffer.shrink_to(piece);
        self.buffer.resize(piece, 0);
        let mut len = 0;
        loop {
            let start = len;
            len += read_full(&mut file, &mut self.buffer[start..]).map_err(CutError::Read)?;
            if len < self.buffer.len() {
                return if len == 0 { Ok(()) } else { take(&self.buffer[..len]) };
            }
            if let Some(last) = memrchr(b'\n', &self.buffer[start..len]) {
                let end = start + last + 1;
                take(&self.buffer[..end])?;
                self.buffer.copy_within(end..len, 0);
                len -= end;
                continue;
            }
            // A line that goes on.
            if len == self.limit {
                return if read_full(&mut file, &mut [0]).map_err(CutError::Read)? == 0 {
                    take(&self.buffer)
                } else {
                    Err(CutError::LongLine.into())
                };
            }
            self.buffer.resize(len.saturating_mul(2).min(self.limit), 0);
        }
    }
}

/// Reads until `space` is full or the file ends.
fn read_full(file: &mut impl Read, space: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < space.len() {
        match file.read(&mut space[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl From<CutError> for String {
        fn from(error: CutError) -> Self {
            format!("{error:?}")
        }
    }

    fn pieces(limit: usize, text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut pieces = Vec::new();
        Cutter::new(limit).cut(text, |piece| {
            pieces.push(piece.to_vec());
            Ok::<(), String>(())
        })?;
        Ok(pieces)
    }

    #[test]
    fn pieces_end_at_line_ends() {
        assert_eq!(pieces(6, b"ab\ncd\nef\ngh").unwrap(), [&b"ab\ncd\n"[..], b"ef\ngh"]);
        assert_eq!(pieces(4, b"ab\ncd\nef").unwrap(), [&b"ab\n"[..], b"cd\n", b"ef"]);
        assert_eq!(pieces(4, b"").unwrap(), [[0; 0]; 0]);
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit() {
        assert_eq!(pieces(4, b"abcd").unwrap(), [b"abcd"]);
        assert_eq!(pieces(4, b"abc\nabc\n").unwrap(), [b"abc\n", b"abc\n"]);
        assert_eq!(pieces(4, b"ab\nabcde\n").unwrap_err(), "LongLine");
        assert_eq!(pieces(4, b"abcd\n").unwrap_err(), "LongLine");
    }

    #[test]
    fn long_lines_are_pieces_of_their_own() {
        let mut text = vec![b'x'; 3 * PIECE];
        text.extend(b"\ny\n");
        let pieces = pieces(5 * PIECE, &text).unwrap();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")), "{}", pieces.len());
    }
}
