//! Which peers are lpc's, which are floors, which rivals; and which of them fit into one picture.

use std::collections::HashMap;

use lpc_cli::measure::{self, Pinning, Record, firsts};

use crate::compare::{floors, ours};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Floor,
    Lpc,
    Rival,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Floor, Self::Lpc, Self::Rival];

    pub(super) fn of(peer: &str) -> Self {
        let is_among = |peers: Vec<Box<dyn crate::compare::Peer>>| peers.iter().any(|one| one.name() == peer);
        if is_among(floors::all()) {
            Self::Floor
        } else if is_among(ours::all()) {
            Self::Lpc
        } else {
            // Of those the records may be of a program that had them built in.
            Self::Rival
        }
    }

    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Lpc => "lpc",
            Self::Rival => "rival",
        }
    }

    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Floor => "Floors, without lpc",
            Self::Lpc => "lpc",
            Self::Rival => "Rivals",
        }
    }
}

/// Where a figure stands: pinning and size.
pub(super) type Cell = (Pinning, u64);

/// The figures of one peer at one work: medians of the rounds.
pub(super) struct Figures<'a> {
    pub(super) peer: &'a str,
    pub(super) cells: HashMap<Cell, u64>,
}

/// Of all peers that do this work, in the order in which they come.
pub(super) fn figures<'a>(records: &'a [Record], work: &str, figure: fn(&Record) -> u64) -> Vec<Figures<'a>> {
    let of: Vec<_> = records.iter().filter(|record| record.work == work).collect();
    let peers = firsts(of.iter().map(|record| &*record.peer));
    let of_peer = |peer| {
        let mut rounds: HashMap<Cell, Vec<u64>> = HashMap::new();
        for record in of.iter().filter(|record| record.peer == peer) {
            rounds.entry((record.pinning, record.size)).or_default().push(figure(record));
        }
        let median = |(cell, figures)| Some((cell, measure::median(figures)?));
        Figures { peer, cells: rounds.into_iter().filter_map(median).collect() }
    };
    peers.into_iter().map(of_peer).collect()
}

/// A line of a picture, and whose figures are so near that it stands for them as well.
pub(super) struct Drawn<'a> {
    pub(super) figures: &'a Figures<'a>,
    pub(super) near: Vec<&'a str>,
}

/// What is drawn of one kind, and which peers are left out.
pub(super) struct Choice<'a> {
    pub(super) kind: Kind,
    pub(super) drawn: Vec<Drawn<'a>>,
    pub(super) left_out: Vec<&'a str>,
}

/// Lines of one kind in one picture.
pub(super) const LINES: usize = 6;

/// Lines that are nearer to each other, on average, are one.
const NEAR: f64 = 0.12;

/// Of each kind as many lines as can be told apart: lpc's in their order, of the others the best.
pub(super) fn choose<'a>(all: &'a [Figures<'a>]) -> Vec<Choice<'a>> {
    let mut best: HashMap<Cell, u64> = HashMap::new();
    for (cell, cost) in all.iter().flat_map(|one| &one.cells) {
        best.entry(*cell).and_modify(|best| *best = (*cost).min(*best)).or_insert(*cost);
    }
    let mean = |ratios: &[f64]| ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
    let cost = |one: &Figures<'_>| {
        let ratios: Vec<_> = one.cells.iter().map(|(cell, cost)| ln(*cost) - ln(best[cell])).collect();
        mean(&ratios)
    };
    let distance = |one: &Figures<'_>, other: &Figures<'_>| {
        let ratio = |(cell, cost): (&Cell, &u64)| Some((ln(*cost) - ln(*other.cells.get(cell)?)).abs());
        mean(&one.cells.iter().filter_map(ratio).collect::<Vec<_>>())
    };
    let mut choices = Vec::new();
    for kind in Kind::ALL {
        let mut of: Vec<_> = all.iter().filter(|one| Kind::of(one.peer) == kind).collect();
        if kind != Kind::Lpc {
            of.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
        }
        let (mut drawn, mut left_out): (Vec<Drawn<'_>>, _) = (Vec::new(), Vec::new());
        for one in of {
            let near = drawn.iter_mut().find(|drawn| distance(one, drawn.figures) < NEAR);
            if let Some(near) = near {
                near.near.push(one.peer);
            } else if drawn.len() < LINES {
                drawn.push(Drawn { figures: one, near: Vec::new() });
            } else {
                left_out.push(one.peer);
            }
        }
        choices.push(Choice { kind, drawn, left_out });
    }
    choices.retain(|choice| !choice.drawn.is_empty());
    choices
}

fn ln(value: u64) -> f64 {
    (value.max(1) as f64).ln()
}
