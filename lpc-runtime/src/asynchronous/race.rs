//! Two futures at once, on one task.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// What [`race`] ended with.
pub(super) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Runs both until one is done; the other is dropped. The first goes first where both could.
pub(super) async fn race<A: Future, B: Future>(first: A, second: B) -> Either<A::Output, B::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| {
        if let Poll::Ready(output) = first.as_mut().poll(cx) {
            return Poll::Ready(Either::First(output));
        }
        second.as_mut().poll(cx).map(Either::Second)
    })
    .await
}
