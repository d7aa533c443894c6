//! Counting the lines of a text that match a regular expression. Knows nothing of files or processes.

use memchr::{memchr, memchr_iter};
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind, Look, LookSet};

/// Counts lines that match one pattern.
#[derive(Debug)]
pub(crate) struct LineCounter {
    regex: Regex,
    /// Whether a match in a whole text is a match in one line of it. Then the expression runs over the whole
    /// text and skips lines without a match at its own speed, which is many times that of asking for each
    /// line.
    is_within_lines: bool,
}

impl LineCounter {
    /// Compiles a pattern that matches bytes, `^` and `$` being the ends of a line.
    ///
    /// # Errors
    ///
    /// What is wrong with the pattern, and where.
    pub(crate) fn new(pattern: &str) -> Result<Self, regex::Error> {
        let regex = RegexBuilder::new(pattern).unicode(false).multi_line(true).build()?;
        let parsed = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .multi_line(true)
            .build()
            .parse(pattern);
        let is_within_lines = parsed.is_ok_and(|hir| {
            hir.properties().look_set().subtract(local_looks()).is_empty() && !takes_line_feed(&hir)
        });
        Ok(Self { regex, is_within_lines })
    }

    /// How many lines of `text` match.
    pub(crate) fn count(&self, text: &[u8]) -> u64 {
        // A line feed ends a line; it does not begin one.
        let Some(text) = (match text {
            [] => None,
            [text @ .., b'\n'] | text => Some(text),
        }) else {
            return 0;
        };
        if self.is_within_lines { self.count_by_matches(text) } else { self.count_by_lines(text) }
    }

    fn count_by_lines(&self, text: &[u8]) -> u64 {
        let mut count = 0;
        let mut start = 0;
        for end in memchr_iter(b'\n', text).chain([text.len()]) {
            count += u64::from(self.regex.is_match(&text[start..end]));
            start = end + 1;
        }
        count
    }

    fn count_by_matches(&self, text: &[u8]) -> u64 {
        let mut count = 0;
        let mut start = 0;
        // Any end of the first match will do to find its line.
        while let Some(end) = self.regex.shortest_match_at(text, start) {
            count += 1;
            match memchr(b'\n', &text[end..]) {
                Some(len) => start = end + len + 1,
                None => break,
            }
        }
        count
    }
}

/// The assertions that look the same in a line by itself as in a text of many lines.
fn local_looks() -> LookSet {
    [
        Look::StartLF,
        Look::EndLF,
        Look::WordAscii,
        Look::WordAsciiNegate,
        Look::WordStartAscii,
        Look::WordEndAscii,
        Look::WordStartHalfAscii,
        Look::WordEndHalfAscii,
    ]
    .into_iter()
    .fold(LookSet::empty(), LookSet::insert)
}

/// Whether a line feed can be part of a match.
fn takes_line_feed(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'\n'),
        HirKind::Class(Class::Bytes(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&b'\n'))
        }
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&'\n'))
        }
        HirKind::Repetition(repetition) => takes_line_feed(&repetition.sub),
        HirKind::Capture(capture) => takes_line_feed(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(takes_line_feed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&[u8]; 14] = [
        b"",
        b"\n",
        b"\n\n",
        b"a",
        b"a\n",
        b"\na",
        b"a\nb",
        b"b\n\na\n",
        b"a b\nb a\nab\n",
        b"a\r\nb\r\n\r\n",
        b"\0\na\0b\n\0",
        b"\xff\xc3\na\xff\n\xc3\xa9",
        b"x ab\ncd b y\nab\n",
        b"aaaa\nbbbb\naaaa",
    ];

    const PATTERNS: [&str; 31] = [
        "",
        "a",
        "b",
        "^",
        "$",
        "^$",
        "^a",
        "a$",
        "^a$",
        ".",
        "..",
        "a.*b",
        "a|b",
        "a\\s*b",
        "a\\nb",
        "[^a]",
        "[^x]*",
        "\\s",
        "\\S",
        "\\bb",
        "\\Bb",
        "(?s)a.b",
        "\\Aa",
        "a\\z",
        "\\r$",
        "(?R)a$",
        "(?-m)^a$",
        "\\x00",
        "\\xff",
        "(?u)\u{e9}",
        "ab\\ncd|b",
    ];

    #[test]
    fn a_line_matches_as_it_does_by_itself() {
        for pattern in PATTERNS {
            let counter = LineCounter::new(pattern).unwrap();
            for text in TEXTS {
                let by_itself = text
                    .split_inclusive(|&byte| byte == b'\n')
                    .filter(|line| counter.regex.is_match(line.strip_suffix(b"\n").unwrap_or(line)))
                    .count() as u64;
                assert_eq!(counter.count(text), by_itself, "{pattern:?} in {text:?}");
            }
        }
    }

    #[test]
    fn plain_patterns_run_over_whole_texts() {
        for (pattern, expected) in
            [("fn [a-z]+\\b", true), ("^a.*$", true), ("[^a]", false), ("a\\s", false), ("\\Aa", false)]
        {
            assert_eq!(LineCounter::new(pattern).unwrap().is_within_lines, expected, "{pattern:?}");
        }
    }
}
