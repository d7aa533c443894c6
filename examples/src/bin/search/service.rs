//! What the two processes agree on, and the side that searches.

use std::sync::Arc;
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::lines::LineCounter;

/// Counts matching lines.
#[lpc::service]
pub trait Searcher {
    /// Prepares a pattern, once for any number of texts.
    fn compile(&self, pattern: &str) -> Result<PatternId, SearchError>;

    /// Counts the lines of `text` that match. What follows the last line feed is a line, unless it is
    /// nothing.
    fn count_lines(&self, pattern: PatternId, text: &[u8]) -> Result<u64, SearchError>;
}

/// Names a prepared pattern.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PatternId(u32);

/// Why a text cannot be searched.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum SearchError {
    /// The pattern is none; the text says where.
    #[error("{0}")]
    Pattern(String),

    /// This pattern was not prepared.
    #[error("no pattern has the number {}", .0.0)]
    UnknownPattern(PatternId),

    /// The call itself failed.
    #[error(transparent)]
    Call(#[from] lpc::Error),
}

/// The implementation: patterns by number.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    /// Counted references, so that no search holds the lock.
    prepared: RwLock<Vec<Arc<LineCounter>>>,
}

impl Searcher for Patterns {
    fn compile(&self, pattern: &str) -> Result<PatternId, SearchError> {
        let counter = LineCounter::new(pattern).map_err(|error| SearchError::Pattern(error.to_string()))?;
        let mut prepared = self.prepared.write().unwrap_or_else(PoisonError::into_inner);
        let id = u32::try_from(prepared.len())
            .map_err(|_| SearchError::Pattern("there are too many patterns".into()))?;
        prepared.push(Arc::new(counter));
        Ok(PatternId(id))
    }

    fn count_lines(&self, pattern: PatternId, text: &[u8]) -> Result<u64, SearchError> {
        let counter = {
            let prepared = self.prepared.read().unwrap_or_else(PoisonError::into_inner);
            prepared.get(pattern.0 as usize).cloned().ok_or(SearchError::UnknownPattern(pattern))?
        };
        Ok(counter.count(text))
    }
}
