//! A value that others wait for: the latest counts, and who waits is woken in the order in which the waits began.
//!
//! The same calls as `tokio::sync::watch`, whose waiters are woken in an order drawn at random; then one seed of the
//! simulated world would have many histories.

use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// A look at the value; nobody can change it meanwhile, so it must not be held across an await.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The sender is gone; the value stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody can change the value any more")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    closed: AtomicBool,
    news: Notify,
}

impl<T> Shared<T> {
    fn look(&self) -> Ref<'_, T> {
        Ref(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who changes the value.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// A value that is watched, and one who watches it.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// With its first value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            news: Notify::new(),
        }))
    }

    /// Changes the value; waiters are woken if `change` says that it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut value);
        if changed {
            // Before the value can be read: who reads the new one has its version.
            self.0.version.fetch_add(1, Ordering::Release);
        }
        drop(value);
        if changed {
            self.0.news.notify_waiters();
        }
        changed
    }

    /// Changes the value and wakes every waiter.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Puts a new value in place of the old one, which it answers, and wakes every waiter.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|old| std::mem::swap(old, &mut value));
        value
    }

    /// The value now.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.look()
    }

    /// A receiver that has seen the value as it is now.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = {
            let _still = self.0.look();
            self.0.version.load(Ordering::Acquire)
        };
        Receiver { shared: Arc::clone(&self.0), seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.news.notify_waiters();
    }
}

/// Who waits for the value.
#[derive(Debug, Clone)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// The value now; a change stays unseen.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.look()
    }

    /// The value now, which is seen from then on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.look();
        self.seen = self.shared.version.load(Ordering::Acquire);
        value
    }

    /// Whether there is a change that was not seen.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        let changed = self.shared.version.load(Ordering::Acquire) != self.seen;
        if !changed && self.shared.closed.load(Ordering::Acquire) { Err(Closed) } else { Ok(changed) }
    }

    /// Waits for a change that was not seen, and has seen it then.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let mut news = pin!(self.shared.news.notified());
            // From here on no change is missed.
            news.as_mut().enable();
            if self.has_changed()? {
                self.seen = self.shared.version.load(Ordering::Acquire);
                return Ok(());
            }
            news.await;
        }
    }

    /// Waits until the value fits, which it may do already.
    pub async fn wait_for(&mut self, mut fits: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let mut news = pin!(self.shared.news.notified());
            news.as_mut().enable();
            let closed = self.shared.closed.load(Ordering::Acquire);
            {
                let value = self.shared.look();
                if fits(&value) {
                    self.seen = self.shared.version.load(Ordering::Acquire);
                    return Ok(value);
                }
            }
            if closed {
                return Err(Closed);
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_is_told() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        assert_eq!(receiver.has_changed(), Ok(false));
        sender.send_replace(2);
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(receiver.has_changed(), Ok(true));
        receiver.changed().await.unwrap();
        assert_eq!((*receiver.borrow(), receiver.has_changed()), (2, Ok(false)));
        assert_eq!(*receiver.wait_for(|value| *value == 2).await.unwrap(), 2);
        sender.send_modify(|value| *value += 1);
        drop(sender);
        receiver.changed().await.unwrap();
        assert_eq!(
            (receiver.changed().await, receiver.wait_for(|value| *value > 3).await.is_err()),
            (Err(Closed), true)
        );
    }

    #[tokio::test]
    async fn waiters_are_woken_in_the_order_in_which_they_began_to_wait() {
        let (sender, woken) = (Sender::new(0), Arc::new(Mutex::new(Vec::new())));
        let tasks = TaskTracker::new();
        for n in 0..50 {
            let (mut receiver, woken) = (sender.subscribe(), woken.clone());
            tasks.spawn(async move {
                receiver.changed().await.unwrap();
                woken.lock().unwrap().push(n);
            });
        }
        tokio::task::yield_now().await;
        sender.send_replace(1);
        tasks.close();
        tasks.wait().await;
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
