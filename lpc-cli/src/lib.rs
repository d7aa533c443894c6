//! What the program `lpc` and lpc's benchmarks measure with: two processes, in one way for all. Start at
//! [`measure`].

pub mod measure;
