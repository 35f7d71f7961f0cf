//! The sync stage, its driver and the queue before it, run under shuttle in many orders.
//!
//! Goal: whoever waits is told, in every order in which threads can take turns, and is told nothing
//! that is not so. Method: the code of this crate itself runs with shuttle's locks (see
//! [`crate::sync`]) over a file that knows what was synced; shuttle reports a task that nobody wakes
//! as a deadlock. Histories differ in how appenders wait, and in what fails. Run by
//! `cargo xtask model`; a failure prints the schedule by which `shuttle::replay` repeats it.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use kimberlite_disk::{Appender, DiskDirectory, DiskError, DiskFile, OsDisk, WriteMode};
use kimberlite_types::{ChainHash, LogId, Position};
use shuttle::sync::{Mutex, MutexGuard};
use shuttle::thread::{self, JoinHandle, Thread};

use crate::append_queue::{AppendQueue, QueueLimit};
use crate::block_on::block_on;
use crate::budget::Budget;
use crate::error::StorageError;
use crate::options::ReadMode;
use crate::reader::{Shared, View};
use crate::segment::{ClosedFiles, Segment, SegmentHeader, SparseIndex};
use crate::sync_driver::SyncDriver;
use crate::sync_stage::{DurableWait, Settled, SyncStage};
use crate::tail::Tail;

/// Schedules of each history, by chance and by few changes of priority each.
const SCHEDULES: usize = 1000;
const PRIORITY_CHANGES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The n-th sync of a file fails.
    Fails(usize),
    /// It panics.
    Panics(usize),
}

/// The positions from `base` on, as far as they were written and synced.
#[derive(Debug)]
struct ModelFile {
    base: u64,
    fault: Fault,
    state: Mutex<FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    written: u64,
    synced: u64,
    named: bool,
    syncing: bool,
    syncs: usize,
}

impl ModelFile {
    fn new(base: u64, fault: Fault) -> Arc<Self> {
        let state = FileState {
            written: base,
            synced: base,
            // The first file is made with its name.
            named: base == 0,
            ..FileState::default()
        };
        let state = Mutex::new(state);
        Arc::new(Self { base, fault, state })
    }

    /// Syncs the file, or else its name in its directory.
    fn sync(&self, name: bool) -> Result<(), DiskError> {
        let mut state = hold(&self.state);
        assert!(!state.syncing, "two syncs at once");
        state.syncing = true;
        state.syncs += 1;
        let (written, nth) = (state.written, state.syncs);
        drop(state);
        thread::yield_now();
        let mut state = hold(&self.state);
        state.syncing = false;
        if self.fault == Fault::Fails(nth) {
            return Err(DiskError::NotFound {
                path: PathBuf::new(),
            });
        }
        if self.fault == Fault::Panics(nth) {
            drop(state);
            // Without the hook, which prints: there are thousands of them.
            resume_unwind(Box::new("planted"));
        }
        if name {
            state.named = true;
        } else {
            state.synced = written;
        }
        Ok(())
    }
}

/// The directory of a file.
#[derive(Debug)]
struct ModelDirectory(Arc<ModelFile>);

impl DiskDirectory for ModelDirectory {
    fn sync(&self) -> Result<(), DiskError> {
        self.0.sync(true)
    }
}

impl DiskFile for ModelFile {
    fn path(&self) -> &Path {
        Path::new("model")
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.sync(false)
    }

    fn read_exact_at(&self, _: &mut [u8], _: u64) -> Result<(), DiskError> {
        unimplemented()
    }

    fn write_all_at(&self, _: &[&[u8]], _: u64) -> Result<(), DiskError> {
        unimplemented()
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        unimplemented()
    }

    fn bytes(&self) -> Result<u64, DiskError> {
        unimplemented()
    }

    fn set_bytes(&self, _: u64) -> Result<(), DiskError> {
        unimplemented()
    }

    fn map(&self, _: u64) -> Result<Bytes, DiskError> {
        unimplemented()
    }

    fn is_private(&self) -> Result<bool, DiskError> {
        unimplemented()
    }

    fn zero(&self, _: Range<u64>) -> Result<(), DiskError> {
        unimplemented()
    }
}

/// Tasks of shuttle share a thread of the system: where one unwinds, the locks of all are poisoned.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unimplemented<T>() -> Result<T, DiskError> {
    panic!("the sync stage does nothing but sync")
}

/// How an append is answered.
#[derive(Clone, Copy, Debug)]
enum How {
    Blocking,
    /// By a future that is awaited.
    Future,
    /// By a future that is polled once and dropped.
    Dropped,
    /// As soon as it is written.
    Buffered,
    /// Not written at all: what it was decided on must be durable.
    Refused,
}

/// What a facade holds of a log, and the log.
struct Rig {
    stage: Arc<SyncStage>,
    queue: Arc<AppendQueue>,
    shared: Arc<Shared>,
    fault: Fault,
    /// The commit lock, with the files.
    files: Mutex<Vec<Arc<ModelFile>>>,
    /// Up to where a facade has shown what was driven.
    shown: Arc<Mutex<u64>>,
}

impl Rig {
    fn new(limit: QueueLimit, delay: Duration, fault: Fault) -> Arc<Self> {
        let first = ModelFile::new(0, fault);
        let file: Arc<dyn DiskFile> = first.clone();
        let (shared, shown) = (shared(Arc::clone(&file)), Arc::new(Mutex::new(0)));
        let stage = SyncStage::new(Arc::clone(&shared), appender(file), Position::ZERO, delay);
        let (view, show) = (Arc::clone(&shared), Arc::clone(&shown));
        stage.after_drive(move || {
            let durable = view.view().durable.get();
            *hold(&show) = durable;
        });
        Arc::new(Self {
            stage: Arc::new(stage),
            queue: Arc::new(AppendQueue::new(limit)),
            shared,
            fault,
            files: Mutex::new(vec![first]),
            shown,
        })
    }

    /// Writes a record as the facade does: the log first, then the stage, under the commit lock.
    fn write(&self) -> Position {
        let files = hold(&self.files);
        let mut state = hold(&files.last().unwrap().state);
        state.written += 1;
        let end = Position::new(state.written);
        drop(state);
        self.stage.written(end, 1);
        end
    }

    /// Turns to the next file, as a writer does at the end of a segment, and tells whom that settled
    /// without the lock.
    fn roll(&self) {
        // Dropped after the lock, also in a panic.
        let mut settled = Settled::default();
        let mut files = hold(&self.files);
        let base = hold(&files.last().unwrap().state).written;
        let synced = self
            .stage
            .hasten_under_lock(Position::new(base), &mut settled);
        let rolled = synced.and_then(|()| {
            let next = ModelFile::new(base, self.fault);
            self.stage.turn_to(
                appender(next.clone()),
                Box::new(ModelDirectory(next.clone())),
            )?;
            files.push(next);
            Ok(())
        });
        assert!(rolled.is_ok() || self.fault != Fault::None);
    }

    fn end(&self) -> Position {
        let files = hold(&self.files);
        let written = hold(&files.last().unwrap().state).written;
        Position::new(written)
    }

    fn is_durable(&self, end: Position) -> bool {
        let files = hold(&self.files);
        let is_synced = |file: &Arc<ModelFile>| {
            let state = hold(&file.state);
            (state.named && state.synced >= state.written.min(end.get())) || end.get() <= file.base
        };
        files.iter().all(is_synced)
    }

    /// What readers see is durable.
    fn check_view(&self) {
        let durable = self.shared.view().durable;
        assert!(self.is_durable(durable), "readers see what is not durable");
    }

    fn append(&self, how: How, driver: &SyncDriver) {
        let place = self.queue.enter(1);
        let end = match how {
            How::Refused => self.end(),
            _ => self.write(),
        };
        let told = match how {
            How::Blocking | How::Refused => self.stage.wait(end),
            How::Buffered => {
                self.stage.drive_to(end, Some(place), driver);
                return;
            }
            How::Future => {
                self.stage.drive_to(end, Some(place), driver);
                block_on(self.stage.wait_async(end))
            }
            How::Dropped => {
                self.stage.drive_to(end, Some(place), driver);
                let wait = pin!(self.stage.wait_async(end));
                let _ = wait.poll(&mut Context::from_waker(Waker::noop()));
                return;
            }
        };
        match told {
            Ok(()) => assert!(self.is_durable(end), "told before it was durable"),
            Err(StorageError::Poisoned | StorageError::OutcomeUnknown(_)) => {
                assert_ne!(self.fault, Fault::None);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A task that appends again when it is woken, and polls, on whatever thread that is.
struct Again {
    rig: Arc<Rig>,
    driver: SyncDriver,
    wait: Mutex<Option<DurableWait>>,
    /// The end of the second append.
    end: Mutex<Option<Position>>,
    thread: Thread,
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        let mut wait = hold(&self.wait).take().expect("it is woken once");
        let polled = pin!(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
        let end = self.rig.write();
        self.rig.stage.drive_to(end, None, &self.driver);
        *hold(&self.end) = Some(end);
        self.thread.unpark();
    }
}

/// Appends, and again by the waker of the first one. Returns once both were told.
fn append_again(rig: &Arc<Rig>, driver: &SyncDriver) {
    let end = rig.write();
    rig.stage.drive_to(end, Some(rig.queue.enter(1)), driver);
    let task = Arc::new(Again {
        rig: Arc::clone(rig),
        driver: driver.clone(),
        wait: Mutex::new(Some(rig.stage.wait_async(end))),
        end: Mutex::new(None),
        thread: thread::current(),
    });
    let waker = Waker::from(Arc::clone(&task));
    let mut held = hold(&task.wait);
    let polled = pin!(held.as_mut().unwrap()).poll(&mut Context::from_waker(&waker));
    drop((held, waker));
    if polled.is_ready() {
        return;
    }
    let again = loop {
        let end = *hold(&task.end);
        if let Some(end) = end {
            break end;
        }
        thread::park();
    };
    let told = block_on(rig.stage.wait_async(again));
    assert!(told.is_err() || rig.is_durable(again));
    assert!(told.is_ok() || rig.fault != Fault::None);
}

/// An appender that only syncs its file.
fn appender(file: Arc<dyn DiskFile>) -> Arc<Appender> {
    let (disk, path) = (OsDisk::new(), Path::new("model"));
    let opened = Appender::open(&disk, file, path, 0, WriteMode::Buffered);
    Arc::new(opened.unwrap())
}

fn shared(file: Arc<dyn DiskFile>) -> Arc<Shared> {
    let header = SegmentHeader {
        log_id: LogId::new([0; 32]),
        base_position: Position::ZERO,
        base_chain: ChainHash::new([0; 32]),
        salt: [0; 16],
        segment_bytes: 1 << 20,
    };
    let budget = Arc::new(Budget::default());
    let view = View {
        closed: Vec::new(),
        active: Arc::new(Segment::new(header, file, ReadMode::Copied)),
        active_map: None,
        index: SparseIndex::new(4096),
        active_end: 0,
        tail: Tail::new(0, &budget),
        end: Position::ZERO,
        durable: Position::ZERO,
    };
    let files = ClosedFiles {
        disk: Arc::new(OsDisk::new()),
        log_dir: PathBuf::new(),
        log_id: header.log_id,
        index_stride_bytes: 4096,
        read_mode: ReadMode::Copied,
    };
    Shared::new(Arc::new(files), budget, view)
}

/// A thread for each list of appends, which may panic where that is planted.
fn start(rig: &Arc<Rig>, driver: &SyncDriver, hows: &'static [How]) -> JoinHandle<()> {
    let (rig, driver) = (Arc::clone(rig), driver.clone());
    thread::spawn(move || {
        for how in hows {
            let append = AssertUnwindSafe(|| rig.append(*how, &driver));
            if catch_unwind(append).is_err() {
                assert!(matches!(rig.fault, Fault::Panics(_)));
            }
            rig.check_view();
        }
    })
}

/// Runs appenders beside each other, ends the driver, and looks at what is left.
fn run(rig: &Arc<Rig>, threads: &'static [&'static [How]], rolls: bool) {
    let driver = SyncDriver::new();
    let threads = threads.iter().map(|hows| start(rig, &driver, hows));
    let threads = threads.collect::<Vec<_>>();
    if rolls && catch_unwind(AssertUnwindSafe(|| rig.roll())).is_err() {
        assert!(matches!(rig.fault, Fault::Panics(_)));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    // Nobody is left who would lead but the driver.
    let end = rig.end();
    let told = block_on(rig.stage.wait_async(end));
    drop(driver);
    assert_eq!(rig.queue.appends(), 0, "a place was not given back");
    if rig.fault == Fault::None {
        told.unwrap();
        assert!(rig.is_durable(end));
        assert_eq!(rig.shared.view().durable, end);
    }
    rig.check_view();
}

fn check(history: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(history.clone(), SCHEDULES);
    shuttle::check_pct(history, SCHEDULES, PRIORITY_CHANGES);
}

const WIDE: QueueLimit = QueueLimit::new(100, 100);
const NARROW: QueueLimit = QueueLimit::new(1, 100);
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];
const FAULTS: [Fault; 5] = [
    Fault::None,
    Fault::Fails(1),
    Fault::Fails(2),
    Fault::Panics(1),
    Fault::Panics(2),
];

/// Runs the appenders with every delay, limit and fault.
fn check_all(threads: &'static [&'static [How]], rolls: bool) {
    for delay in DELAYS {
        for limit in [WIDE, NARROW] {
            for fault in FAULTS {
                check(move || run(&Rig::new(limit, delay, fault), threads, rolls));
            }
        }
    }
}

#[test]
fn blocking_appenders_lead_and_share() {
    use How::{Blocking, Refused};
    check_all(
        &[&[Blocking, Blocking], &[Blocking, Refused], &[Blocking]],
        false,
    );
}

#[test]
fn futures_are_driven_where_nobody_blocks() {
    use How::{Dropped, Future};
    check_all(&[&[Future, Future], &[Dropped, Future]], false);
}

#[test]
fn everybody_waits_beside_everybody_else() {
    use How::{Blocking, Buffered, Dropped, Future};
    check_all(
        &[&[Future, Blocking], &[Blocking, Buffered], &[Dropped]],
        false,
    );
}

#[test]
fn a_log_turns_to_its_next_segment_between_syncs() {
    use How::{Blocking, Buffered, Future};
    check_all(&[&[Future, Buffered], &[Blocking]], true);
}

#[test]
fn a_waker_may_append_again_whoever_calls_it() {
    for delay in DELAYS {
        for fault in [Fault::None, Fault::Fails(1), Fault::Fails(2)] {
            check(move || {
                let rig = Rig::new(WIDE, delay, fault);
                let driver = SyncDriver::new();
                let (other, its_driver) = (Arc::clone(&rig), driver.clone());
                let appender = thread::spawn(move || append_again(&other, &its_driver));
                rig.roll();
                appender.join().unwrap();
                drop(driver);
                assert_eq!(rig.queue.appends(), 0, "a place was not given back");
                rig.check_view();
            });
        }
    }
}

#[test]
fn what_nobody_waits_for_becomes_durable_and_is_shown() {
    use How::Buffered;
    for delay in DELAYS {
        check(move || {
            let rig = Rig::new(WIDE, delay, Fault::None);
            run(&rig, &[&[Buffered, Buffered], &[Buffered]], false);
            assert_eq!(*hold(&rig.shown), 3);
        });
    }
}

#[test]
fn places_go_to_those_in_line_whoever_leaves_it() {
    check(|| {
        let queue = Arc::new(AppendQueue::new(QueueLimit::new(2, 3)));
        let threads = (1..=3_u64).map(|bytes| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let place = queue.enter(bytes);
                assert!(queue.appends() <= 2);
                // Somebody who gives up, in the line or with a place that it never saw.
                let leaves = pin!(queue.enter_async(4 - bytes));
                let _ = leaves.poll(&mut Context::from_waker(Waker::noop()));
                drop(place);
            })
        });
        let threads = threads.collect::<Vec<_>>();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(queue.appends(), 0);
        assert!(queue.try_enter(3).is_some(), "its bytes were given back");
    });
}
