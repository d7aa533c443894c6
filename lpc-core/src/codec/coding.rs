//! [`Coding`]: how one argument or result is written.

/// How an argument or a result is written.
///
/// Both sides know it from the type's [form](crate::form), so that no byte of a message says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Coding {
    /// The values alone, in order: what is written is read again in the same order.
    #[default]
    Packed,
    /// Each item says what it is, and fields and variants are known by their names: for types that ask what
    /// comes next, and for those whose `Serialize` writes something else than their `Deserialize` reads.
    Described,
}

/// The codings of a method's arguments and result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Codings {
    /// The lowest bit for the result, the next ones for the arguments in order: whether it is described.
    described: u64,
}

impl Codings {
    /// The most arguments that a method may have so that each has a coding of its own.
    pub const MAX_ARGUMENTS: usize = 63;

    /// Those of these arguments, in order, and this result. Arguments beyond
    /// [`MAX_ARGUMENTS`](Self::MAX_ARGUMENTS) are packed.
    #[must_use]
    pub fn new(arguments: impl IntoIterator<Item = Coding>, result: Coding) -> Self {
        let bit = |(at, coding)| u64::from(coding == Coding::Described) << at;
        let arguments = (1..=Self::MAX_ARGUMENTS).zip(arguments).map(bit);
        Self { described: arguments.fold(bit((0, result)), |bits, bit| bits | bit) }
    }

    /// The result's.
    #[inline]
    #[must_use]
    pub const fn result(self) -> Coding {
        Self::of(self.described)
    }

    /// Those of the arguments, one after another.
    #[inline]
    #[must_use]
    pub const fn arguments(self) -> ArgumentCodings {
        ArgumentCodings { described: self.described >> 1 }
    }

    #[inline]
    const fn of(bits: u64) -> Coding {
        if bits & 1 == 0 { Coding::Packed } else { Coding::Described }
    }
}

/// The codings of a method's arguments, of which the next is asked for one by one.
#[derive(Clone, Copy, Debug)]
pub struct ArgumentCodings {
    described: u64,
}

impl ArgumentCodings {
    /// The coding of the next argument.
    #[inline]
    #[allow(clippy::should_implement_trait)] // it has no end
    pub const fn next(&mut self) -> Coding {
        let coding = Codings::of(self.described);
        self.described >>= 1;
        coding
    }
}

#[cfg(test)]
mod tests {
    use super::Coding::{Described, Packed};
    use super::*;

    #[test]
    fn each_argument_has_its_own_coding_and_so_has_the_result() {
        let codings = Codings::new([Packed, Described, Packed], Described);
        assert_eq!(codings.result(), Described);
        let mut arguments = codings.arguments();
        assert_eq!([(); 4].map(|()| arguments.next()), [Packed, Described, Packed, Packed]);
        assert_eq!(Codings::new([], Packed), Codings::default());
        let many = Codings::new([Described; 100], Packed);
        assert_eq!(many.result(), Packed);
    }
}
