//! Pixels as characters, two to each: one above the other, since a character is twice as high as wide.

use std::io::{self, Write};

use crate::decoder::Thumbnail;

/// From dark to bright.
const SHADES: &[u8] = b" .:-=+*#%@";

/// Draws a picture: of half blocks in 24-bit colours, or of plain characters.
pub(crate) fn draw(out: &mut impl Write, thumbnail: &Thumbnail, is_ascii: bool) -> io::Result<()> {
    let rows: Vec<_> = thumbnail.pixels.chunks(thumbnail.width as usize).collect();
    for pair in rows.chunks(2) {
        for (x, &upper) in pair[0].iter().enumerate() {
            // There is none below the last of an odd number of rows.
            let lower = pair.get(1).map(|row| row[x]);
            if is_ascii {
                out.write_all(&[shade(upper, lower.unwrap_or(upper))])?;
                continue;
            }
            let [r, g, b] = upper;
            write!(out, "\x1b[38;2;{r};{g};{b}m")?;
            if let Some([r, g, b]) = lower {
                write!(out, "\x1b[48;2;{r};{g};{b}m")?;
            }
            write!(out, "▀")?;
        }
        writeln!(out, "{}", if is_ascii { "" } else { "\x1b[0m" })?;
    }
    Ok(())
}

/// The character that is as bright as the two pixels are together.
fn shade(upper: [u8; 3], lower: [u8; 3]) -> u8 {
    // Of 256,000: how bright red, green and blue look.
    let brightness = |pixel: [u8; 3]| {
        let [r, g, b] = pixel.map(usize::from);
        299 * r + 587 * g + 114 * b
    };
    SHADES[(brightness(upper) + brightness(lower)) / 2 * SHADES.len() / 256_000]
}
