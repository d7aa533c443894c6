//! Several calls in flight on one connection: threads that share one client, and answers in the order of the
//! files.
//!
//! ```text
//! walk --found--> jobs --> worker --answer--.
//!   |                      worker --answer---+--> the printer
//!   `---pending-------------------------------'
//! ```
//!
//! The walk says of each file where its answer will come from before it hands the file to the workers, so
//! answers can be taken in order. Both queues are bounded: a walk that is ahead waits, and so do workers
//! whose answers nobody takes.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::pieces::{CutError, Cutter};
use crate::service::{PatternId, SearchError, Searcher};
use crate::walk::{Found, WalkError};

/// What is to be searched for, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) pattern: PatternId,
    pub(crate) jobs: usize,
    /// Bytes of text at most in one call.
    pub(crate) piece_limit: usize,
    /// The limit that this comes from, for the error that names it.
    pub(crate) max_message: u64,
}

/// The walk and the workers.
#[derive(Debug)]
pub(crate) struct Crew {
    pending: Receiver<Pending>,
    threads: Vec<JoinHandle<()>>,
}

/// What is known of one file.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) path: PathBuf,
    /// Lines that match; of what could be read, if not all could. `None` for what was not searched.
    pub(crate) lines: Option<u64>,
    pub(crate) error: Option<FileError>,
}

/// Why a file was not searched, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{0}")]
    Io(#[from] io::Error),

    #[error("a line is over the limit of {limit} bytes of one message (--max-message)")]
    LongLine { limit: u64 },

    #[error(transparent)]
    Search(#[from] SearchError),
}

/// Where a file's answer comes from.
enum Pending {
    Known(WalkError),
    Awaited(Receiver<Answer>),
}

struct Job {
    found: Found,
    answer: SyncSender<Answer>,
}

/// Answers, taken or not, that the walk may be ahead of the printing, for each worker.
const AHEAD: usize = 16;

impl Crew {
    /// Starts the threads.
    pub(crate) fn start<S, W>(searcher: &S, plan: &Plan, walk: W) -> io::Result<Self>
    where
        S: Searcher + Clone + Send + 'static,
        W: FnOnce() -> Box<dyn Iterator<Item = Result<Found, WalkError>>> + Send + 'static,
    {
        let (give_pending, pending) = sync_channel(plan.jobs * AHEAD);
        let (give_job, jobs) = sync_channel::<Job>(plan.jobs);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut threads = Vec::with_capacity(plan.jobs + 1);
        for _ in 0..plan.jobs {
            let (searcher, plan, jobs) = (searcher.clone(), plan.clone(), Arc::clone(&jobs));
            threads.push(named("worker").spawn(move || work(&searcher, &plan, &jobs))?);
        }
        threads.push(named("walk").spawn(move || {
            for found in walk() {
                let (pending, job) = match found {
                    Err(error) => (Pending::Known(error), None),
                    Ok(found) => {
                        let (answer, awaited) = sync_channel(1);
                        (Pending::Awaited(awaited), Some(Job { found, answer }))
                    }
                };
                // These fail once the receiver is gone.
                if give_pending.send(pending).is_err() {
                    return;
                }
                if job.is_some_and(|job| give_job.send(job).is_err()) {
                    return;
                }
            }
        })?);
        Ok(Self { pending, threads })
    }

    /// The next file's answer; `None` after the last one.
    ///
    /// `idle` is called before it has to be waited for.
    ///
    /// # Errors
    ///
    /// If the thread that owes the answer is gone.
    pub(crate) fn next<E: From<RecvError>>(
        &self,
        mut idle: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Result<Answer, WalkError>>, E> {
        let pending = match self.pending.try_recv() {
            Ok(pending) => pending,
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => {
                idle()?;
                let Ok(pending) = self.pending.recv() else { return Ok(None) };
                pending
            }
        };
        let awaited = match pending {
            Pending::Known(error) => return Ok(Some(Err(error))),
            Pending::Awaited(awaited) => awaited,
        };
        if let Ok(answer) = awaited.try_recv() {
            return Ok(Some(Ok(answer)));
        }
        idle()?;
        Ok(Some(Ok(awaited.recv()?)))
    }

    /// Waits for the threads, after the last answer; with them go their clones of the client.
    pub(crate) fn finish(self) {
        drop(self.pending);
        for thread in self.threads {
            // A panic was reported, and has cost an answer.
            let _ = thread.join();
        }
    }
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned())
}

fn work(searcher: &impl Searcher, plan: &Plan, jobs: &Mutex<Receiver<Job>>) {
    let mut cutter = Cutter::new(plan.piece_limit);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { found, answer }) = job else { return };
        // This fails once the receiver is gone.
        let _ = answer.send(search(searcher, plan, &mut cutter, found));
    }
}

fn search(searcher: &impl Searcher, plan: &Plan, cutter: &mut Cutter, found: Found) -> Answer {
    let file = match found.open() {
        Ok(Some(file)) => file,
        Ok(None) => return Answer { path: found.path, lines: None, error: None },
        Err(error) => return Answer { path: found.path, lines: None, error: Some(error.into()) },
    };
    let mut lines = 0;
    let searched = cutter.cut(file, |piece| {
        lines += searcher.count_lines(plan.pattern, piece)?;
        Ok(())
    });
    match searched {
        Ok(()) => Answer { path: found.path, lines: Some(lines), error: None },
        Err(Stop::Cut(CutError::Read(error))) => {
            Answer { path: found.path, lines: Some(lines), error: Some(error.into()) }
        }
        Err(Stop::Cut(CutError::LongLine)) => {
            let error = FileError::LongLine { limit: plan.max_message };
            Answer { path: found.path, lines: None, error: Some(error) }
        }
        Err(Stop::Search(error)) => Answer { path: found.path, lines: None, error: Some(error.into()) },
    }
}

/// What ends the search of one file.
enum Stop {
    Cut(CutError),
    Search(SearchError),
}

impl From<CutError> for Stop {
    fn from(error: CutError) -> Self {
        Self::Cut(error)
    }
}

impl From<SearchError> for Stop {
    fn from(error: SearchError) -> Self {
        Self::Search(error)
    }
}
