//! What the two processes agree on, and the side that decodes.

use std::io::{self, BufRead, BufReader, Read};

use lpc::{Shared, SharedMut};
use serde::{Deserialize, Serialize};

/// Makes small pictures of large ones.
#[lpc::service]
pub trait Thumbnails {
    /// Scales a picture down until it fits into a square of `side` pixels. One that does so already stays as
    /// it is.
    fn thumbnail(&self, file: Shared<[u8]>, side: u32) -> Result<Thumbnail, DecodeError>;
}

/// A small picture.
#[derive(Debug, Serialize, Deserialize)]
pub struct Thumbnail {
    pub width: u32,
    pub height: u32,
    /// Red, green and blue, row by row.
    pub pixels: Shared<[[u8; 3]]>,
}

impl Thumbnail {
    /// Whether it is what was asked for, and has as many pixels as it says. They can be read if so.
    pub(crate) fn is_within(&self, side: u32) -> bool {
        let sides = 1..=side;
        let count = u64::from(self.width) * u64::from(self.height);
        // To use them as a slice without `load` would be to panic if they were a file that cannot be read.
        sides.contains(&self.width)
            && sides.contains(&self.height)
            && self.pixels.load().is_ok_and(|pixels| pixels.len() as u64 == count)
    }
}

/// Why there is no small picture.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum DecodeError {
    #[error("not a picture: it begins with neither P5 nor P6")]
    NotAPicture,

    #[error("the header has no {field} from 1 to {max}")]
    Header { field: String, max: u32 },

    #[error("the file is cut off: {missing} of {pixels} bytes of pixels are missing")]
    Truncated { missing: u64, pixels: u64 },

    #[error("the file cannot be read: {0}")]
    Read(String),

    /// The call itself failed.
    #[error(transparent)]
    Call(#[from] lpc::Error),
}

impl From<io::Error> for DecodeError {
    fn from(error: io::Error) -> Self {
        Self::Read(error.to_string())
    }
}

/// The implementation, for binary PPM and PGM files.
pub(crate) struct PnmDecoder;

impl Thumbnails for PnmDecoder {
    fn thumbnail(&self, file: Shared<[u8]>, side: u32) -> Result<Thumbnail, DecodeError> {
        let mut picture = Picture::open(file)?;
        if let Some(answer) = bug(&picture) {
            return Ok(answer);
        }
        let longer = u64::from(picture.width.max(picture.height));
        let scaled = |len| (u64::from(len) * u64::from(side).min(longer) / longer).max(1) as u32;
        let (width, height) = (scaled(picture.width), scaled(picture.height));

        // Memory that the caller can read. Of the picture itself there is never more here than the reader's
        // buffer.
        let mut pixels = SharedMut::<[[u8; 3]]>::for_caller(width as usize * height as usize);
        let columns: Vec<_> = (0..width).map(|x| share(x, width, picture.width)).collect();
        for (y, row) in (0..height).zip(pixels.chunks_exact_mut(columns.len())) {
            let rows = share(y, height, picture.height);
            let mut sums = vec![[0; 3]; columns.len()];
            for _ in 0..rows {
                picture.add_row(&columns, &mut sums)?;
            }
            for ((pixel, sum), columns) in row.iter_mut().zip(sums).zip(&columns) {
                let count = rows * columns;
                *pixel = sum.map(|sum| ((sum + count / 2) / count) as u8);
            }
        }
        Ok(Thumbnail { width, height, pixels: pixels.freeze() })
    }
}

/// How many of `len` rows or columns go into number `index` of `count`.
fn share(index: u32, count: u32, len: u32) -> u64 {
    let start = |index: u32| u64::from(index) * u64::from(len) / u64::from(count);
    start(index + 1) - start(index)
}

/// What a decoder with a bug does: where the variable `THUMBNAIL_BUG` says so, and for pictures 13 pixels
/// wide. For the tests, and for anybody who wants to see it.
fn bug(picture: &Picture) -> Option<Thumbnail> {
    match std::env::var("THUMBNAIL_BUG").as_deref() {
        Ok(bug) if picture.width == 13 => match bug {
            "panic" => panic!("13 is an unlucky number"),
            "abort" => std::process::abort(),
            _ => Some(Thumbnail { width: 13, height: 13, pixels: Shared::default() }),
        },
        _ => None,
    }
}

/// A PPM or PGM file whose header has been read, and whose pixels are all there.
struct Picture {
    width: u32,
    height: u32,
    max: u32,
    /// P6: red, green and blue; P5: one value for the three.
    is_color: bool,
    file: BufReader<Reader>,
}

impl Picture {
    /// Rows and columns at most: the bytes of so many pixels can be counted in 64 bits.
    const MAX_SIDE: u32 = 1 << 30;

    fn open(file: Shared<[u8]>) -> Result<Self, DecodeError> {
        let len = file.byte_len();
        let mut file = BufReader::with_capacity(1 << 16, Reader { file, offset: 0 });
        let mut magic = [0; 2];
        file.read_exact(&mut magic).map_err(|_| DecodeError::NotAPicture)?;
        let is_color = match &magic {
            b"P5" => false,
            b"P6" => true,
            _ => return Err(DecodeError::NotAPicture),
        };
        let width = number(&mut file, "width", Self::MAX_SIDE)?;
        let height = number(&mut file, "height", Self::MAX_SIDE)?;
        let max = number(&mut file, "maxval", 65535)?;

        // Numbers from a file are hostile: nothing is made of their size before the file has proved to be so
        // large.
        let size = if is_color { 3 } else { 1 } * if max > 255 { 2 } else { 1 };
        let pixels = u64::from(width) * u64::from(height) * size;
        let header = file.get_ref().offset - file.buffer().len() as u64;
        match pixels.saturating_sub(len - header) {
            0 => Ok(Self { width, height, max, is_color, file }),
            missing => Err(DecodeError::Truncated { missing, pixels }),
        }
    }

    /// Adds the pixels of the next row to sums: to each as many as `columns` says.
    fn add_row(&mut self, columns: &[u64], sums: &mut [[u64; 3]]) -> io::Result<()> {
        for (&columns, sum) in columns.iter().zip(sums) {
            for _ in 0..columns {
                let first = self.next_value()?;
                let rest = if self.is_color { [self.next_value()?, self.next_value()?] } else { [first; 2] };
                for (sum, value) in sum.iter_mut().zip([first, rest[0], rest[1]]) {
                    *sum += value;
                }
            }
        }
        Ok(())
    }

    /// The next value, of 0 to 255.
    fn next_value(&mut self) -> io::Result<u64> {
        // The most significant byte, where there are two, comes first.
        let mut bytes = [0; 2];
        self.file.read_exact(if self.max > 255 { &mut bytes } else { &mut bytes[1..] })?;
        let (value, max) = (u64::from(u16::from_be_bytes(bytes)), u64::from(self.max));
        Ok((value.min(max) * 255 + max / 2) / max)
    }
}

/// A number of the header, from 1 to `max`, and the one byte of white space behind it.
fn number(file: &mut impl BufRead, field: &str, max: u32) -> Result<u32, DecodeError> {
    let invalid = || DecodeError::Header { field: field.to_owned(), max };
    let mut number = None::<u32>;
    loop {
        let mut byte = [0];
        file.read_exact(&mut byte).map_err(|_| invalid())?;
        match byte[0] {
            digit @ b'0'..=b'9' => {
                let digits = number.unwrap_or(0).saturating_mul(10);
                number = Some(digits.saturating_add(u32::from(digit - b'0')));
                continue;
            }
            // A comment ends as its line does, which makes it white space.
            b'#' => drop(file.skip_until(b'\n')?),
            space if space.is_ascii_whitespace() => {}
            _ => return Err(invalid()),
        }
        if let Some(number) = number {
            return if (1..=max).contains(&number) { Ok(number) } else { Err(invalid()) };
        }
    }
}

/// Reads a file from its beginning on, no more of it than it is asked for.
struct Reader {
    file: Shared<[u8]>,
    offset: u64,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(self.offset, into)?;
        self.offset += len as u64;
        Ok(len)
    }
}
