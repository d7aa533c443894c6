//! What the two lanes cost by size, and from which size on one is better.

/// One size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) size: u64,
    /// Nanoseconds, as for the other one.
    pub(super) socket: u64,
    pub(super) mapping: u64,
}

impl Point {
    /// Of the mapping lane's cost to the socket's.
    pub(super) fn ratio(self) -> f64 {
        self.mapping.max(1) as f64 / self.socket.max(1) as f64
    }
}

/// Costs by size, sizes ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Curve(pub(super) Vec<Point>);

/// The size from which on the mapping lane wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Crossover {
    /// It wins from the smallest measured size on.
    Always,
    At(u64),
    /// It wins at no measured size.
    Never,
}

impl Curve {
    /// The one split of the sizes that costs the least: the socket below, the mapping lane above.
    ///
    /// Of curves that cross once that is where they do. Noise makes them cross more often, and then the first
    /// or the last crossing would be the noise of one size; what counts here is how much would be lost on the
    /// wrong side. Between two sizes the logarithm of the ratio is taken to be a straight line over that of
    /// the size.
    pub(super) fn crossover(&self) -> Crossover {
        let Self(points) = self;
        let loss = |split: usize| {
            let (below, above) = points.split_at(split);
            let below = below.iter().map(|point| -point.ratio().ln());
            let above = above.iter().map(|point| point.ratio().ln());
            below.chain(above).fold(0.0, |all, loss| all + loss.max(0.0))
        };
        let split = (0..=points.len()).min_by(|one, other| loss(*one).total_cmp(&loss(*other))).unwrap_or(0);
        match points.split_at(split) {
            (_, []) => Crossover::Never,
            ([], _) => Crossover::Always,
            ([.., below], [above, ..]) => Crossover::At(between(*below, *above)),
        }
    }
}

/// Where the ratio is 1: it is more at the first point, and not at the second.
fn between(below: Point, above: Point) -> u64 {
    let [over, under] = [below, above].map(|point| point.ratio().ln());
    let [from, to] = [below, above].map(|point| (point.size as f64).ln());
    (from + (to - from) * over / (over - under)).exp().round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(costs: impl IntoIterator<Item = (u64, u64)>) -> Curve {
        let sizes = std::iter::successors(Some(256), |size| Some(size * 2));
        let points = sizes.zip(costs).map(|(size, (socket, mapping))| Point { size, socket, mapping });
        Curve(points.collect())
    }

    #[test]
    fn lanes_that_do_not_cross_have_the_winner_everywhere() {
        assert_eq!(curve([(100, 200), (200, 300), (400, 500)]).crossover(), Crossover::Never);
        assert_eq!(curve([(200, 100), (300, 200), (500, 400)]).crossover(), Crossover::Always);
        assert_eq!(curve([(100, 200)]).crossover(), Crossover::Never);
        assert_eq!(curve([(200, 100)]).crossover(), Crossover::Always);
    }

    #[test]
    fn lanes_of_equal_cost_leave_the_mapping_lane_the_winner() {
        assert_eq!(curve([(100, 100), (100, 100)]).crossover(), Crossover::Always);
    }

    #[test]
    fn a_crossing_is_interpolated_between_two_sizes() {
        // From 2 to 1/2: in the middle, between 512 and 1024, as logarithms go.
        assert_eq!(curve([(100, 200), (100, 200), (200, 100)]).crossover(), Crossover::At(724));
        // From 4 to 1/2: after two thirds of the way.
        assert_eq!(curve([(100, 400), (200, 100)]).crossover(), Crossover::At(406));
        // On a size.
        assert_eq!(curve([(100, 200), (100, 100), (200, 100)]).crossover(), Crossover::At(512));
    }

    #[test]
    fn a_little_noise_moves_no_crossing() {
        let clean = [(100, 200), (100, 150), (200, 150), (400, 200), (800, 200)];
        let crossing = curve(clean).crossover();
        assert!(matches!(crossing, Crossover::At(512..=1024)), "{crossing:?}");
        let mut noisy = clean;
        noisy[0].1 = 99; // The mapping lane ahead by a hair where it is behind,
        noisy[4].0 = 199; // and behind by a hair where it is ahead.
        assert_eq!(curve(noisy).crossover(), crossing);
    }

    #[test]
    fn of_several_crossings_the_one_counts_on_whose_wrong_side_the_least_is_lost() {
        // The mapping lane wins by half at one size, but loses by more at the next two.
        let twice = [(100, 200), (100, 66), (100, 200), (100, 200), (200, 100)];
        assert_eq!(curve(twice).crossover(), Crossover::At(2896));
        // Now it wins by more than it loses afterwards.
        let twice = [(100, 200), (400, 100), (100, 110), (100, 110), (200, 100)];
        let crossing = curve(twice).crossover();
        assert!(matches!(crossing, Crossover::At(256..=512)), "{crossing:?}");
    }

    #[test]
    fn crossovers_are_ordered_by_size() {
        assert!(Crossover::Always < Crossover::At(1) && Crossover::At(1) < Crossover::At(2));
        assert!(Crossover::At(u64::MAX) < Crossover::Never);
    }
}
