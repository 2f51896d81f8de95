//! Timers that are accurate to tens of microseconds.
//!
//! The runtime's timers have a resolution of one millisecond and round up, which would add one to two milliseconds to
//! every round trip. One thread waits on a condition variable (whose timeout has the resolution of the kernel's
//! high-resolution timers) for the earliest deadline and wakes the task. Without deadlines it waits for ever: an idle link
//! costs nothing.
//!
//! Waking a thread and then a task takes some tens of microseconds. The timer measures by how much deadlines are missed
//! and wakes that much earlier.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::task::AtomicWaker;
use longhaul_http::clock::SharedClock;

/// Largest amount by which the timer wakes early, nanoseconds. More would hide an overloaded machine.
const LEAD_NS_MAX: i64 = 250_000;

/// A shared precise timer. Dropping it ends its thread.
pub(crate) struct Timer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    clock: SharedClock,
    queue: Mutex<Queue>,
    changed: Condvar,
    lead_ns: AtomicI64,
}

#[derive(Default)]
struct Queue {
    deadlines: BinaryHeap<Reverse<Deadline>>,
    added: u64,
    stopped: bool,
}

struct Deadline {
    at_ns: u64,
    order: u64,
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    fired: AtomicBool,
    waker: AtomicWaker,
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Deadline {}

impl Timer {
    /// Starts the thread.
    pub(crate) fn start(clock: SharedClock) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { clock, queue: Mutex::default(), changed: Condvar::new(), lead_ns: AtomicI64::new(0) });
        let thread = std::thread::Builder::new().name("link-timer".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Completes at `at_ns` of the boot clock.
    pub(crate) fn sleep_until(&self, at_ns: u64) -> Sleep<'_> {
        Sleep { shared: &self.shared, at_ns, slot: None }
    }

    /// The boot clock, nanoseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        self.shared.clock.boot_ns()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared.queue().stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the timer of the links panicked");
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lead_ns(&self) -> u64 {
        self.lead_ns.load(Ordering::Relaxed).unsigned_abs()
    }

    fn run(&self) {
        let mut due: Vec<Arc<Slot>> = Vec::new();
        let mut queue = self.queue();
        while !queue.stopped {
            let horizon = self.clock.boot_ns() + self.lead_ns();
            while queue.deadlines.peek().is_some_and(|Reverse(first)| first.at_ns <= horizon) {
                due.extend(queue.deadlines.pop().map(|Reverse(deadline)| deadline.slot));
            }
            if !due.is_empty() {
                drop(queue);
                for slot in due.drain(..) {
                    slot.fired.store(true, Ordering::Release);
                    slot.waker.wake();
                }
                queue = self.queue();
                continue;
            }
            queue = match queue.deadlines.peek().map(|Reverse(first)| first.at_ns - horizon) {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(wait_ns) => {
                    let wait = Duration::from_nanos(wait_ns);
                    self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Learns from a deadline how much earlier to wake: the mean miss goes to zero.
    fn learn(&self, at_ns: u64) {
        let late_ns = self.clock.boot_ns().cast_signed().wrapping_sub(at_ns.cast_signed());
        let step = late_ns.clamp(-LEAD_NS_MAX, LEAD_NS_MAX) / 32;
        let lead_ns = self.lead_ns.load(Ordering::Relaxed) + step;
        self.lead_ns.store(lead_ns.clamp(0, LEAD_NS_MAX), Ordering::Relaxed);
    }
}

/// A pending deadline.
pub(crate) struct Sleep<'a> {
    shared: &'a Shared,
    at_ns: u64,
    slot: Option<Arc<Slot>>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(slot) = &self.slot {
            slot.waker.register(context.waker());
            if slot.fired.load(Ordering::Acquire) {
                self.shared.learn(self.at_ns);
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
        if self.at_ns <= self.shared.clock.boot_ns() + self.shared.lead_ns() {
            return Poll::Ready(());
        }
        let slot = Arc::new(Slot::default());
        slot.waker.register(context.waker());
        self.slot = Some(slot.clone());
        let mut queue = self.shared.queue();
        queue.added += 1;
        let deadline = Deadline { at_ns: self.at_ns, order: queue.added, slot };
        let first = queue.deadlines.peek().is_none_or(|Reverse(first)| deadline < *first);
        queue.deadlines.push(Reverse(deadline));
        drop(queue);
        if first {
            self.shared.changed.notify_one();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use longhaul_http::clock::SystemClock;

    use super::*;

    #[tokio::test]
    async fn deadlines_complete_in_order_and_never_a_quarter_millisecond_early() {
        let timer = Timer::start(Arc::new(SystemClock::default())).unwrap();
        let start = timer.now_ns();
        let at = |milliseconds: u64| {
            let timer = &timer;
            async move {
                timer.sleep_until(start + milliseconds * 1_000_000).await;
                let elapsed_us = (timer.now_ns() - start) / 1000;
                assert!(elapsed_us + 250 >= milliseconds * 1000, "{milliseconds} ms: {elapsed_us} us");
                elapsed_us
            }
        };
        let (later, sooner, past) = tokio::join!(at(30), at(10), at(0));
        assert!(past <= sooner && sooner < later);
    }
}
