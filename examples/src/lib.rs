//! Programs to start from. Each is about one idea, and each is run by a test as the processes that it is.
//!
//! # Layout
//!
//! - `src/bin/quickstart.rs`: a trait, its implementation, and calls that read the same in one process and
//!   across two. Start here.
//! - `src/bin/search/`: calls in flight. Counts matching lines in a tree of files as `grep -rc` does; a
//!   process of its own runs the regular expressions, and must be allowed to die.
//! - `src/bin/thumbnail/`: isolation, and large data. Draws pictures in the terminal; a process of its own
//!   decodes them, straight from the files that it is handed, and is replaced if one of them breaks it.
//! - `src/bin/wordsd.rs`: a daemon. Serves a port until it is told to end, under systemd for one; calls that
//!   run are answered first.
//!
//! ```text
//! cargo run --bin quickstart
//! cargo run --release --bin search -- unsafe . --stats
//! cargo run --bin thumbnail -- --demo
//! cargo run --bin wordsd -- --port words
//! ```
//!
//! The crate is empty: a program here is complete in its own file or folder, so that it can be copied from
//! there.
