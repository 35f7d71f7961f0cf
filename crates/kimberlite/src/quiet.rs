//! Noticing that a log has fallen quiet.
//!
//! One thread for a database, started by its first append. It looks at the tenants that were
//! appended to at intervals; one without a new group since the last look gets its watermark, so
//! that damage to its last append can never pass for a torn write.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::tenant::{TenantInner, unlock};

/// How long a log is left alone: a watermark comes within twice this time after the last append.
const INTERVAL: Duration = Duration::from_millis(50);

/// Tenants that may wait to be watched; further ones are noticed at a later append.
const QUEUE_TENANTS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Quiet {
    watch: Mutex<Option<SyncSender<Weak<TenantInner>>>>,
}

struct Watched {
    tenant: Weak<TenantInner>,
    groups: u64,
}

impl Quiet {
    /// Notices an append to a tenant.
    pub(crate) fn notice(&self, tenant: &Arc<TenantInner>) {
        if tenant.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = watch.get_or_insert_with(|| {
            let (sender, receiver) = sync_channel(QUEUE_TENANTS_MAX);
            // Without the thread a watermark is written at closing only.
            let _ = std::thread::Builder::new()
                .name("kimberlite-quiet".to_owned())
                .spawn(move || watch_all(&receiver));
            sender
        });
        if sender.try_send(Arc::downgrade(tenant)).is_err() {
            tenant.watched.store(false, Ordering::Release);
        }
    }
}

fn watch_all(appended: &Receiver<Weak<TenantInner>>) {
    let mut watched: Vec<Watched> = Vec::new();
    loop {
        let received = if watched.is_empty() {
            appended.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            appended.recv_timeout(INTERVAL)
        };
        match received {
            Ok(tenant) => watched.push(Watched {
                tenant,
                groups: u64::MAX,
            }),
            Err(RecvTimeoutError::Timeout) => watched.retain_mut(Watched::stays),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Watched {
    /// Looks at the tenant; `false` when it needs no more looks.
    fn stays(&mut self) -> bool {
        let Some(tenant) = self.tenant.upgrade() else {
            return false;
        };
        let Some(engine) = &tenant.engine else {
            return false;
        };
        let mut engine = unlock(engine);
        let Some(engine) = engine.as_mut() else {
            return false;
        };
        if self.groups != engine.groups {
            self.groups = engine.groups;
            return true;
        }
        // A failure poisons the log, and the next append tells its caller.
        let _ = engine.log.write_watermark();
        // Under the commit lock, so that the next append is noticed again.
        tenant.watched.store(false, Ordering::Release);
        false
    }
}
