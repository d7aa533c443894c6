//! Which threshold to set.
//!
//! A threshold is set once, but where the two processes run changes from call to call: the better lane
//! depends on that. So the threshold to recommend is the one that is never far from the better lane: of all
//! thresholds, that whose loss, at the size and in the pinning where it is greatest, is the smallest.

use lpc::Threshold;
use lpc_cli::measure::{Pinning, quantile};

use super::curve::{Crossover, Curve, Point};
use super::route::{Bodies, Receiver};

/// Both lanes on the same work.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) pinning: Pinning,
    pub(super) receiver: Receiver,
    pub(super) bodies: Bodies,
    /// Of medians over the rounds.
    pub(super) median: Curve,
    /// Of each round.
    pub(super) rounds: Vec<Curve>,
}

impl Comparison {
    /// The crossovers between which the middle half of the rounds has its own.
    pub(super) fn spread(&self) -> Option<[Crossover; 2]> {
        let mut crossovers: Vec<_> = self.rounds.iter().map(Curve::crossover).collect();
        crossovers.sort_unstable();
        Some([quantile(&crossovers, 0.25)?, quantile(&crossovers, 0.75)?])
    }
}

/// What a threshold costs more than the better lane, where that is the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Loss {
    /// Of the better lane's cost.
    pub(super) part: f64,
    pub(super) pinning: Pinning,
    pub(super) size: u64,
}

/// A body is encoded behind its length, so that one of `size` bytes is over a threshold of `size`.
fn takes_mapping(threshold: Threshold, size: u64) -> bool {
    threshold.is_exceeded_by(size.saturating_add(1))
}

fn loss_at(threshold: Threshold, point: Point) -> f64 {
    let ratio = point.ratio();
    let loss = if takes_mapping(threshold, point.size) { ratio } else { ratio.recip() };
    (loss - 1.0).max(0.0)
}

/// Of a threshold, over all these comparisons; `None` if nothing was measured.
pub(super) fn worst(threshold: Threshold, of: &[&Comparison]) -> Option<Loss> {
    let losses = of.iter().flat_map(|comparison| {
        comparison.median.0.iter().map(|point| Loss {
            part: loss_at(threshold, *point),
            pinning: comparison.pinning,
            size: point.size,
        })
    });
    losses.max_by(|one, other| one.part.total_cmp(&other.part))
}

/// The threshold whose worst loss is the smallest: a size that was measured, or [`Threshold::OFF`]. Of
/// several such, the one that loses the least in all, and of those the smallest.
pub(super) fn recommended(of: &[&Comparison]) -> Option<Threshold> {
    let points = || of.iter().flat_map(|comparison| &comparison.median.0);
    let mut candidates: Vec<_> = points().map(|point| Threshold::bytes(point.size)).collect();
    if candidates.is_empty() {
        return None;
    }
    candidates.sort_unstable();
    candidates.dedup();
    candidates.push(Threshold::OFF);
    let losses = candidates.into_iter().map(|threshold| {
        let losses = points().map(|point| loss_at(threshold, *point));
        let (worst, all) = losses.fold((0.0_f64, 0.0), |(worst, all), loss| (worst.max(loss), all + loss));
        (threshold, worst, all)
    });
    let best = losses.min_by(|one, other| one.1.total_cmp(&other.1).then(one.2.total_cmp(&other.2)));
    best.map(|(threshold, ..)| threshold)
}

/// Part of the better lane's cost that the best threshold never loses on a machine that does nothing else.
const TOO_MUCH: f64 = 0.5;

/// Whether no threshold is good everywhere, for which the lanes themselves are no reason.
pub(super) fn is_disturbed(of: &[&Comparison]) -> bool {
    let loss = recommended(of).and_then(|threshold| worst(threshold, of));
    loss.is_some_and(|loss| loss.part > TOO_MUCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes from 1 KiB on, each twice the one before; costs of the socket and of the mapping lane.
    fn comparison(pinning: Pinning, costs: &[(u64, u64)]) -> Comparison {
        let points = costs.iter().zip(0..).map(|((socket, mapping), at)| Point {
            size: 1024 << at,
            socket: *socket,
            mapping: *mapping,
        });
        let median = Curve(points.collect());
        Comparison {
            pinning,
            receiver: Receiver::Copying,
            bodies: Bodies::Requests,
            rounds: vec![median.clone()],
            median,
        }
    }

    #[test]
    fn where_the_lanes_cross_once_the_threshold_lies_there() {
        let once = comparison(Pinning::Together, &[(100, 150), (110, 140), (150, 140), (300, 150)]);
        assert_eq!(recommended(&[&once]), Some(Threshold::bytes(4096)));
        assert_eq!(worst(Threshold::bytes(4096), &[&once]).unwrap().part, 0.0);
    }

    #[test]
    fn where_one_lane_always_wins_the_other_is_not_used() {
        let socket = comparison(Pinning::Together, &[(100, 150), (100, 150)]);
        assert_eq!(recommended(&[&socket]), Some(Threshold::OFF));
        let mapping = comparison(Pinning::Together, &[(150, 100), (150, 100)]);
        assert_eq!(recommended(&[&mapping]), Some(Threshold::bytes(1024)));
    }

    #[test]
    fn between_pinnings_the_greatest_loss_decides_and_not_the_sum() {
        // Together, the socket is better by 40% at one size; apart and free, the mapping lane by 20%.
        let together = comparison(Pinning::Together, &[(100, 140), (200, 100)]);
        let apart = comparison(Pinning::Apart, &[(120, 100), (200, 100)]);
        let free = comparison(Pinning::Free, &[(120, 100), (200, 100)]);
        let all = [&together, &apart, &free];
        assert_eq!(recommended(&all), Some(Threshold::bytes(2048)));
        let loss = worst(Threshold::bytes(1024), &all).unwrap();
        assert_eq!((loss.pinning, loss.size), (Pinning::Together, 1024));
        assert!((loss.part - 0.4).abs() < 1e-9, "{loss:?}");
    }

    #[test]
    fn of_equally_bad_thresholds_the_one_that_loses_less_elsewhere_is_recommended() {
        // Either lane loses a half somewhere, but only one of them loses at the first size, too.
        let curve = comparison(Pinning::Free, &[(100, 110), (150, 100), (100, 150)]);
        assert_eq!(recommended(&[&curve]), Some(Threshold::bytes(2048)));
    }

    #[test]
    fn a_size_that_took_much_longer_on_both_sides_of_the_crossover_was_disturbed() {
        let quiet = comparison(Pinning::Apart, &[(100, 110), (110, 110), (200, 110)]);
        let disturbed = comparison(Pinning::Free, &[(100, 110), (900, 110), (200, 980)]);
        assert!(!is_disturbed(&[&quiet]) && !is_disturbed(&[]));
        assert!(is_disturbed(&[&quiet, &disturbed]));
    }

    #[test]
    fn nothing_measured_is_no_reason_for_any_threshold() {
        assert_eq!(recommended(&[]), None);
        assert_eq!(worst(Threshold::DEFAULT, &[]), None);
    }

    #[test]
    fn the_spread_leaves_out_a_quarter_of_the_rounds_on_either_side() {
        let mut rounds = comparison(Pinning::Free, &[(100, 200), (200, 100)]);
        let usual = rounds.median.crossover();
        let of = |costs| comparison(Pinning::Free, costs).median;
        rounds.rounds = vec![rounds.median.clone(); 3];
        rounds.rounds.push(of(&[(100, 200), (100, 200)]));
        assert_eq!(rounds.spread(), Some([usual, usual]));
        rounds.rounds.push(of(&[(100, 200), (100, 200)]));
        assert_eq!(rounds.spread(), Some([usual, Crossover::Never]));
        rounds.rounds.clear();
        assert_eq!(rounds.spread(), None);
    }
}
