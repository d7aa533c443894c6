//! [`Story`]: the choices that decide a run, drawn from a seed, and how a story that fails is made short.

/// A list of choices. The same choices make the same run.
///
/// Of each choice 0 is the dull one: no fault, no delay, the thread that ran goes on. So a story gets simpler
/// as its choices become 0, and behind its end all are.
#[derive(Debug)]
pub(crate) struct Story {
    choices: Vec<u16>,
    next: usize,
    /// What further choices are drawn from; a story that is told again has none.
    random: Option<u64>,
}

impl Story {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self { choices: Vec::new(), next: 0, random: Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)) }
    }

    pub(crate) const fn again(choices: Vec<u16>) -> Self {
        Self { choices, next: 0, random: None }
    }

    /// One of `count`.
    pub(crate) fn pick(&mut self, count: usize) -> usize {
        if count < 2 {
            return 0;
        }
        if self.next == self.choices.len() {
            let Some(random) = &mut self.random else { return 0 };
            self.choices.push((split_mix(random) >> 40) as u16);
        }
        self.next += 1;
        usize::from(self.choices[self.next - 1]) % count
    }

    pub(crate) fn into_choices(mut self) -> Vec<u16> {
        self.choices.truncate(self.next);
        self.choices
    }
}

/// Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, 2014.
const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Runs of one story at most while it is made short.
const TRIES: u32 = 4000;

/// Drops and zeroes choices for as long as the story still `fails`, which gives the choices that were used.
pub(crate) fn shrink(mut story: Vec<u16>, mut fails: impl FnMut(Vec<u16>) -> Option<Vec<u16>>) -> Vec<u16> {
    let mut tries = 0;
    let mut is_shorter = true;
    while is_shorter && tries < TRIES {
        is_shorter = false;
        let mut len = story.len().next_power_of_two();
        while len > 0 && tries < TRIES {
            let mut at = story.len().saturating_sub(len);
            loop {
                let end = (at + len).min(story.len());
                let dropped = [&story[..at], &story[end..]].concat();
                let zeroed = [&story[..at], &vec![0; end - at], &story[end..]].concat();
                for shorter in [dropped, zeroed] {
                    tries += 1;
                    if weight(&shorter) < weight(&story)
                        && let Some(used) = fails(shorter)
                    {
                        story = used;
                        while story.last() == Some(&0) {
                            story.pop();
                        }
                        is_shorter = true;
                        break;
                    }
                }
                if at == 0 || tries >= TRIES {
                    break;
                }
                at = at.saturating_sub(len).min(story.len());
            }
            len /= 2;
        }
    }
    story
}

/// How far a story is from the empty one.
fn weight(story: &[u16]) -> (usize, usize) {
    (story.iter().filter(|choice| **choice != 0).count(), story.len())
}
