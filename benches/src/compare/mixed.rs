//! A struct of fields of many kinds.

use lpc_cli::measure;
use serde::{Deserialize, Serialize};

/// The argument of the work `mixed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixed {
    pub(crate) id: u64,
    pub(crate) price: f64,
    pub(crate) active: bool,
    pub(crate) name: String,
    pub(crate) note: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) counts: Vec<u32>,
    pub(crate) points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

impl Mixed {
    pub(crate) fn example() -> Self {
        Self {
            id: 1 << 40,
            price: 12.75,
            active: true,
            name: "a name of thirty-two characters.".into(),
            note: Some("and a note. ".repeat(16)),
            tags: (0..12).map(|tag| format!("tag number {tag}")).collect(),
            counts: (0..64).map(|count| count * 1000).collect(),
            points: (0..24).map(|at| Point { x: f64::from(at), y: 0.5 }).collect(),
        }
    }

    /// Of every field.
    pub(crate) fn digest(&self) -> u64 {
        let texts = self.tags.iter().chain(&self.note).chain([&self.name]);
        let texts = texts.map(|text| measure::sum(text.as_bytes())).fold(0, u64::wrapping_add);
        let counts: u64 = self.counts.iter().copied().map(u64::from).sum();
        let points: f64 = self.points.iter().map(|point| point.x + point.y).sum();
        let numbers = self.id.wrapping_add(counts).wrapping_add((self.price + points) as u64);
        texts.wrapping_add(numbers).wrapping_add(u64::from(self.active))
    }
}
