//! Logarithmic axes.

/// Values from one to another, over a length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
    length: f64,
}

impl Scale {
    /// For all these values; `None` if there are none.
    pub fn of(values: impl Iterator<Item = u64> + Clone, length: f64) -> Option<Self> {
        let (from, to) = (values.clone().min()?.max(1), values.max()?.max(1));
        // A single value stands in the middle.
        let (from, to) =
            if from == to { (from as f64 / 2.0, to as f64 * 2.0) } else { (from as f64, to as f64) };
        Some(Self { from: from.ln(), to: to.ln(), length })
    }

    /// From the begin to the end.
    pub fn length(self) -> f64 {
        self.length
    }

    /// How far from the begin a value is.
    pub fn at(self, value: u64) -> f64 {
        let part = ((value.max(1) as f64).ln() - self.from) / (self.to - self.from);
        part.clamp(0.0, 1.0) * self.length
    }

    /// Sizes to be marked: powers of four, or of sixteen where those would be more than seven.
    pub fn sizes(self) -> Vec<u64> {
        let powers = |step| (0..64).step_by(step).map(|power| 1 << power).filter(|mark| self.has(*mark));
        let fine: Vec<u64> = powers(2).collect();
        if fine.len() > 7 { powers(4).collect() } else { fine }
    }

    /// Times to be marked: 1, 2 and 5 times each power of ten, or these powers alone where those would be
    /// more than seven.
    pub fn times(self) -> Vec<u64> {
        let powers = || (0..18).map(|power| 10_u64.pow(power));
        let fine = powers().flat_map(|power| [1, 2, 5].map(|digit| digit * power));
        let fine: Vec<_> = fine.filter(|mark| self.has(*mark)).collect();
        if fine.len() > 7 { powers().filter(|mark| self.has(*mark)).collect() } else { fine }
    }

    fn has(self, mark: u64) -> bool {
        // A mark at an end counts, however the logarithm was rounded.
        let mark = (mark as f64).ln();
        (self.from - 1e-9..=self.to + 1e-9).contains(&mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratios_are_equally_far_apart() {
        let scale = Scale::of([256, 65536, 4096].into_iter(), 100.0).unwrap();
        assert_eq!([256, 4096, 65536].map(|size| scale.at(size).round()), [0.0, 50.0, 100.0]);
        assert_eq!([1, 1 << 40].map(|size| scale.at(size)), [0.0, 100.0]);
    }

    #[test]
    fn a_single_value_stands_in_the_middle_and_none_has_no_scale() {
        let scale = Scale::of([4096].into_iter(), 10.0).unwrap();
        assert_eq!(scale.at(4096).round(), 5.0);
        assert_eq!(Scale::of([].into_iter(), 10.0), None);
        assert_eq!(Scale::of([0].into_iter(), 10.0).unwrap().at(0).round(), 5.0);
    }

    #[test]
    fn marks_lie_on_the_axis_and_are_few() {
        let sizes = |from, to| Scale::of([from, to].into_iter(), 1.0).unwrap().sizes();
        assert_eq!(sizes(256, 4096), [256, 1024, 4096]);
        assert_eq!(sizes(256, 1 << 28), [256, 4096, 65536, 1 << 20, 1 << 24, 1 << 28]);
        let times = |from, to| Scale::of([from, to].into_iter(), 1.0).unwrap().times();
        assert_eq!(times(4_000, 60_000), [5_000, 10_000, 20_000, 50_000]);
        assert_eq!(times(900, 100_000_000), [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]);
    }
}
