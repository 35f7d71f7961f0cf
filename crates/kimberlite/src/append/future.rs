//! Appends that are awaited.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use kimberlite_storage::{Admission, DurableWait, SyncStage};
use kimberlite_types::StreamName;

use super::{AppendOptions, Decided};
use crate::error::Error;
use crate::event::Event;
use crate::stream::Receipt;
use crate::tenant::TenantInner;

/// An append that is under way, made by [`Stream::append_async`](crate::Stream::append_async).
///
/// It needs no particular executor, and may be sent to another thread. Its waker is called on whatever
/// thread led the sync, and may poll, append, panic, and let go of the database; it should not wait
/// for a place in a full queue, since its thread may be the one that gives places back. The future may
/// be dropped at any time: events that are written already stay, and become durable as if it had been awaited; events
/// that still wait for a place in the queue are not appended.
#[must_use = "only an append that is awaited tells whether it succeeded"]
pub struct AppendFuture(State);

enum State {
    InLine(Box<InLine>),
    Written(Box<Written>),
    Answered(Option<Result<Receipt, Error>>),
}

/// Waits for a place in the queue, with all that will be needed then.
struct InLine {
    tenant: Arc<TenantInner>,
    name: StreamName,
    options: AppendOptions,
    events: Vec<Event>,
    admission: Admission,
}

/// Waits until what was decided on is durable.
struct Written {
    tenant: Arc<TenantInner>,
    stage: Arc<SyncStage>,
    decided: Decided,
    durable: DurableWait,
}

impl AppendFuture {
    pub(super) fn answered(answer: Result<Receipt, Error>) -> Self {
        Self(State::Answered(Some(answer)))
    }

    pub(super) fn in_line(
        tenant: &Arc<TenantInner>,
        (name, options, events): (&StreamName, AppendOptions, &[Event]),
        bytes: u64,
    ) -> Self {
        Self(State::InLine(Box::new(InLine {
            tenant: Arc::clone(tenant),
            name: name.clone(),
            options,
            events: events.to_vec(),
            admission: tenant.queue.enter_async(bytes),
        })))
    }

    pub(super) fn written(
        tenant: &Arc<TenantInner>,
        stage: &Arc<SyncStage>,
        decided: Decided,
    ) -> Self {
        Self(State::Written(Box::new(Written {
            tenant: Arc::clone(tenant),
            stage: Arc::clone(stage),
            durable: stage.wait_async(decided.head),
            decided,
        })))
    }
}

impl InLine {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<AppendFuture> {
        if let Err(error) = self.tenant.check_owner() {
            return Poll::Ready(AppendFuture::answered(Err(error)));
        }
        let place = ready!(pin!(&mut self.admission).poll(context));
        let begun = self
            .tenant
            .begin(&self.name, self.options, &self.events, place);
        Poll::Ready(begun)
    }
}

impl Written {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        wait(&self.tenant, &mut self.durable, context)
    }
}

/// Waits for what is driven; in a forked process nobody drives it.
fn wait(
    tenant: &TenantInner,
    durable: &mut DurableWait,
    context: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    tenant.check_owner()?;
    ready!(pin!(durable).poll(context))?;
    Poll::Ready(tenant.show())
}

impl Future for AppendFuture {
    type Output = Result<Receipt, Error>;

    /// Never waits for a sync of its own, and panics when it has been ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            self.0 = match &mut self.0 {
                State::InLine(in_line) => ready!(in_line.poll(context)).0,
                State::Written(written) => {
                    let waited = ready!(written.poll(context));
                    let State::Written(written) =
                        std::mem::replace(&mut self.0, State::Answered(None))
                    else {
                        continue;
                    };
                    let answer = waited.and_then(|()| written.decided.answer(&written.stage));
                    return Poll::Ready(answer);
                }
                State::Answered(answer) => {
                    let answer = answer.take();
                    return Poll::Ready(answer.expect("a future is not polled once it was ready"));
                }
            };
        }
    }
}

impl fmt::Debug for AppendFuture {
    // The stream's name and the events are nobody's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            State::InLine(_) => "in line",
            State::Written(_) => "written",
            State::Answered(_) => "answered",
        };
        f.debug_tuple("AppendFuture").field(&state).finish()
    }
}

/// Waits until records are durable, made by
/// [`Tenant::wait_durable_async`](crate::Tenant::wait_durable_async). It may be dropped at any time.
#[must_use = "a future does nothing unless it is polled"]
pub struct DurableFuture(Waiting);

enum Waiting {
    Durable(Arc<TenantInner>, DurableWait),
    Answered(Option<Result<(), Error>>),
}

impl DurableFuture {
    pub(crate) fn answered(answer: Result<(), Error>) -> Self {
        Self(Waiting::Answered(Some(answer)))
    }

    pub(crate) fn new(tenant: &Arc<TenantInner>, durable: DurableWait) -> Self {
        Self(Waiting::Durable(Arc::clone(tenant), durable))
    }
}

impl Future for DurableFuture {
    type Output = Result<(), Error>;

    /// Panics when it has been ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::Durable(tenant, durable) => wait(tenant, durable, context),
            Waiting::Answered(answer) => {
                let answer = answer.take();
                Poll::Ready(answer.expect("a future is not polled once it was ready"))
            }
        }
    }
}

impl fmt::Debug for DurableFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableFuture").finish_non_exhaustive()
    }
}
