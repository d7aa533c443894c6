//! The idea: a decoder of untrusted files in a process of its own, which a file may break without harm to the
//! others.
//!
//! `thumbnail IMAGE...` draws pictures in the terminal. This process opens a file and passes its descriptor,
//! without having read a byte of it; the decoder reads what it needs, and gives pixels back in memory that it
//! shares with this process. A malformed file is an error of the decoder's. A file that makes it panic or die
//! costs that one picture: the next is decoded by another decoder.
//!
//! A process of its own has memory of its own. What else a decoder may do, such as open files, or run for
//! ever, is for a sandbox and its limits to say, which would go into the [`Command`].
//!
//! # Layout
//!
//! - `decoder`: the trait, and its implementation; what runs in the other process.
//! - `terminal`: pixels as characters.
//! - `main`: arguments, exit codes, and the life of the decoder.

mod decoder;
mod terminal;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Parser;
use lpc::{Shared, SharedMut};

use crate::decoder::{DecodeError, PnmDecoder, Thumbnail, Thumbnails, ThumbnailsClient};

/// Draws pictures in the terminal: binary PPM and PGM files (P6 and P5).
///
/// Exit status: 0 if all were drawn, 1 if one was not, 2 if the arguments are wrong.
#[derive(Debug, Parser)]
#[command(name = "thumbnail")]
struct Args {
    /// The files
    #[arg(value_name = "IMAGE", required_unless_present = "demo")]
    images: Vec<PathBuf>,

    /// Draw a picture that the program makes itself
    #[arg(long)]
    demo: bool,

    /// Draw with plain characters; so it is, too, if the output is no terminal or the variable NO_COLOR is
    /// set
    #[arg(long)]
    ascii: bool,

    /// How many columns a picture takes at most; of lines it takes half as many at most
    #[arg(long, value_name = "COLUMNS", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    width: u32,
}

/// The argument by which the program tells itself to be the decoder.
const SERVE: &str = "--serve";

fn main() -> ExitCode {
    let result = if std::env::args_os().nth(1).is_some_and(|argument| argument == SERVE) {
        // Returns when the parent hangs up, be it that it dies.
        lpc::blocking::serve_parent(PnmDecoder)
            .map_err(|error| format!("the decoder does not serve: {error}"))
    } else {
        match draw_all(&Args::parse()) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            // The reader of the output has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(format!("the output cannot be written: {error}")),
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Draws what can be drawn, and says of the rest why not. Whether all could be. Fails if the output does.
fn draw_all(args: &Args) -> io::Result<bool> {
    let has_colors =
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let is_ascii = args.ascii || !has_colors;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut decoder = Decoder::default();
    let mut are_all_drawn = true;

    let demo = args.demo.then(|| ("demo".into(), demo()));
    let images = args.images.iter().map(|path| (path.display().to_string(), open(path)));
    for (name, file) in demo.into_iter().chain(images) {
        match file.map_err(PictureError::File).and_then(|file| decoder.thumbnail(file, args.width)) {
            Ok(thumbnail) => {
                writeln!(out, "{name}")?;
                terminal::draw(&mut out, &thumbnail, is_ascii)?;
                out.flush()?;
            }
            Err(error) => {
                are_all_drawn = false;
                complain(&format_args!("{name}: {error}"));
            }
        }
    }
    Ok(are_all_drawn)
}

/// Says something on standard error, if anybody can hear it.
fn complain(what: &impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "thumbnail: {what}");
}

/// The bytes of a file, for the decoder to read.
fn open(path: &Path) -> io::Result<Shared<[u8]>> {
    // To open a pipe would be to wait for its other end.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Shared::from_file(&File::open(path)?, ..)
}

/// Why a picture is not drawn.
#[derive(Debug, thiserror::Error)]
enum PictureError {
    #[error("{0}")]
    File(io::Error),

    #[error("{0}")]
    Malformed(DecodeError),

    #[error("the decoder does not start: {0}")]
    Start(lpc::Error),

    #[error("the decoder is lost ({status}); the next picture gets another one")]
    Lost { status: String },

    #[error("the decoder failed: {error}; the next picture gets another one")]
    Failed { error: lpc::Error },
}

/// The other process and the connection to it, where there is one: from the first picture on, and until one
/// breaks it.
#[derive(Default)]
struct Decoder {
    running: Option<(ThumbnailsClient, Child)>,
}

impl Decoder {
    fn thumbnail(&mut self, file: Shared<[u8]>, side: u32) -> Result<Thumbnail, PictureError> {
        let (client, _) = match &self.running {
            Some(running) => running,
            None => self.running.insert(start().map_err(PictureError::Start)?),
        };
        let error = match client.thumbnail(file, side) {
            // A decoder that a file has got into its power may say anything.
            Ok(thumbnail) if !thumbnail.is_within(side) => lpc::Error::other("its answer is no picture"),
            Ok(thumbnail) => return Ok(thumbnail),
            Err(DecodeError::Call(error)) => error,
            Err(error) => return Err(PictureError::Malformed(error)),
        };
        let status = self.end();
        Err(if error.is_disconnected() {
            PictureError::Lost { status }
        } else {
            PictureError::Failed { error }
        })
    }

    /// Ends the process, if there is one. Says how it ended, which may have been before.
    fn end(&mut self) -> String {
        let Some((_, mut process)) = self.running.take() else { return String::new() };
        // It has nothing to lose, and if it is broken would not go for being asked.
        let _ = process.kill();
        process.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.end();
    }
}

fn start() -> lpc::Result<(ThumbnailsClient, Child)> {
    let mut command = Command::new(std::env::current_exe()?);
    // It prints nothing, and shall not keep the reader of our output waiting.
    command.arg(SERVE).stdout(Stdio::null());
    ThumbnailsClient::builder().spawn(&mut command)
}

/// A ball in the evening, as the PPM file that it would be: in sealed memory, which is passed as a file is.
fn demo() -> io::Result<Shared<[u8]>> {
    const HEADER: &[u8] = b"P6\n# a ball in the evening\n192 128\n255\n";
    let mut file = SharedMut::sealable(HEADER.len() + 192 * 128 * 3)?;
    let (header, pixels) = file.split_at_mut(HEADER.len());
    header.copy_from_slice(HEADER);
    for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (column, row) = ((at % 192) as f32, (at / 192) as f32);
        // From the middle of the ball, in its radius.
        let (x, y) = (column / 48.0 - 2.0, row / 48.0 - 1.25);
        let color = match 1.0 - x * x - y * y {
            // How much it faces the light, which comes from the upper left and from the front.
            depth @ 0.0.. => {
                [300.0, 180.0, 120.0].map(|c| c * (0.2 - 0.5 * x - 0.6 * y + 0.6 * depth.sqrt()))
            }
            _ if row < 100.0 => [10.0 + 1.2 * row, 20.0 + 0.4 * row, 80.0],
            _ => [20.0, 60.0, 50.0],
        };
        pixel.copy_from_slice(&color.map(|c| c.clamp(0.0, 255.0) as u8));
    }
    Ok(file.freeze())
}
