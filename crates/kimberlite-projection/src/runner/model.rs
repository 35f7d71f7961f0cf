//! The pool, its tasks and errands, run under shuttle in many orders.
//!
//! Goal: whoever waits is woken, in every order in which threads can take turns. Method: the runner itself
//! runs with shuttle's locks (see [`crate::sync`]) over a log that grows meanwhile; shuttle reports a thread that nobody wakes
//! as a deadlock. Time stands still unless a history has a clock, which ends ticks at any step; so what must
//! not wait for a tick is shown without one. Run by `cargo xtask model`; a failure prints the schedule by which
//! `shuttle::replay` repeats it.

mod rig;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::atomic::AtomicUsize;
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;
use shuttle::{Config, MaxSteps};

use self::rig::{Clock, LONG, Log, Rig, begin, hold, join, runner, wait_for};
use super::pool::Beside;
use super::{Followers, Runner, WaitError};
use crate::errand::Errand;

/// Schedules of each history, by chance and by few changes of priority each.
const SCHEDULES: usize = 1000;
const PRIORITY_CHANGES: usize = 3;

/// Far beyond what any history takes; with a clock, what nobody wakes is not a deadlock.
const STEPS_MAX: usize = 20_000;

fn check(history: impl Fn() + Send + Sync + Clone + 'static) {
    let mut config = Config::default();
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let random = RandomScheduler::new(SCHEDULES);
    shuttle::Runner::new(random, config.clone()).run(history.clone());
    let pct = PctScheduler::new(PRIORITY_CHANGES, SCHEDULES);
    shuttle::Runner::new(pct, config).run(history);
}

#[test]
fn whoever_waits_for_a_position_is_told() {
    for threads_max in [0, 1, 3] {
        for fails in [0, 2] {
            check(move || {
                let rig = Rig::new(threads_max, fails);
                let clock = Clock::new(&rig.runner.pool);
                let mut threads = vec![rig.append(2, Some(0)), rig.append(1, Some(1))];
                if threads_max > 0 {
                    // What another one appends, and says in time.
                    let projection = Arc::clone(&rig.projections[1]);
                    threads.push(thread::spawn(move || wait_for(&projection, 1)));
                }
                join(threads);
                drop(clock);
                rig.end();
            });
        }
    }
}

#[test]
fn whoever_waits_for_a_position_waits_for_no_tick() {
    for threads_max in [1, 3] {
        for fails in [0, 2] {
            check(move || {
                let rig = Rig::new(threads_max, fails);
                join([rig.append(2, Some(0)), rig.append(1, Some(1))]);
                rig.end();
            });
        }
    }
}

#[test]
fn what_is_noticed_is_taken_in_though_nobody_waits() {
    for threads_max in [1, 3] {
        check(move || {
            let rig = Rig::new(threads_max, 0);
            let clock = Clock::new(&rig.runner.pool);
            let threads = [rig.append(2, None), rig.append(1, None)];
            rig.log.wait_until_taken(..2, 3);
            join(threads);
            drop(clock);
            rig.end();
        });
    }
}

#[test]
fn what_is_there_is_taken_in_though_nobody_says_so() {
    for threads_max in [1, 3] {
        check(move || {
            let log = Log::new(0);
            log.end.store(2, Ordering::SeqCst);
            let rig = Rig::over(log, threads_max);
            rig.log.wait_until_taken(..2, 2);
            rig.end();
        });
    }
}

#[test]
fn what_comes_after_a_quiet_time_waits_for_no_tick() {
    for threads_max in [1, 3] {
        for is_noticed in [true, false] {
            check(move || {
                let rig = Rig::new(threads_max, 0);
                rig.wait_until_quiet();
                rig.log.end.fetch_add(1, Ordering::SeqCst);
                if is_noticed {
                    rig.followers.notice();
                    // The other one is noticed behind the first, which does not wait for that.
                    rig.log.wait_until_taken(..1, 1);
                } else {
                    wait_for(&rig.projections[0], 0);
                }
                rig.end();
            });
        }
    }
}

#[test]
fn what_comes_while_all_grows_quiet_and_is_flushed_is_taken_in() {
    for threads_max in [1, 3] {
        check(move || {
            let rig = Rig::new(threads_max, 0);
            join([rig.append(1, Some(0))]);
            let appends = rig.append(1, None);
            let clock = Clock::new(&rig.runner.pool);
            rig.log.wait_until_taken(..2, 2);
            join([appends]);
            drop(clock);
            rig.wait_until_flushed(..2, 2);
            rig.end();
        });
    }
}

/// Hastens the first projection, once it is let.
struct Hastens(Mutex<()>, Arc<Followers>);

impl Beside for Hastens {
    fn run(&self) {
        drop(hold(&self.0));
        let tasks = self.1.tasks.read().expect("nothing panics");
        let task = tasks.first().map(Arc::clone);
        drop(tasks);
        task.expect("it is there").hasten();
    }
}

#[test]
fn whoever_sleeps_while_another_thread_runs_is_woken_for_what_that_leaves() {
    check(|| {
        let mut rig = Rig::new(2, 0);
        let hastens = Arc::new(Hastens(Mutex::new(()), Arc::clone(&rig.followers)));
        let held = hold(&hastens.0);
        rig.runner
            .pool
            .send(Arc::clone(&hastens) as Arc<dyn Beside>);
        // There is another thread by then, and nobody else who would wake it.
        join([rig.append(1, Some(0))]);
        drop(rig.projections.pop());
        rig.wait_until_quiet();
        let clock = Clock::new(&rig.runner.pool);
        let appends = rig.append(2, None);
        drop(held);
        rig.log.wait_until_taken(..1, 3);
        join([appends]);
        drop(clock);
        rig.wait_until_flushed(..1, 3);
        rig.end();
    });
}

#[test]
fn an_errand_that_takes_long_holds_up_no_projection() {
    check(|| {
        let rig = Rig::new(3, 0);
        let told = Told::new(None);
        let held = hold(&told.runner);
        let clock = Clock::new(&rig.runner.pool);
        let appends = rig.append(1, None);
        rig.runner.pool.send(Arc::clone(&told) as Arc<dyn Beside>);
        rig.log.wait_until_taken(..2, 1);
        drop(held);
        join([appends]);
        drop(clock);
        rig.end();
    });
}

#[test]
fn what_is_tried_again_goes_on_though_nobody_waits() {
    for threads_max in [1, 3] {
        check(move || {
            let rig = Rig::new(threads_max, usize::MAX);
            join([rig.append(2, None)]);
            for projection in &rig.projections {
                let waited = projection.wait_for(begin(1), LONG);
                assert!(matches!(waited, Err(WaitError::Parked(_))));
            }
            rig.log.fails.store(0, Ordering::SeqCst);
            for projection in &rig.projections {
                projection.retry().unwrap();
            }
            rig.log.wait_until_taken(..2, 2);
            rig.end();
        });
    }
}

#[test]
fn one_that_takes_long_holds_up_no_other() {
    check(|| {
        let rig = Rig::new(3, 0);
        rig.log.held_until.store(2, Ordering::SeqCst);
        let clock = Clock::new(&rig.runner.pool);
        let threads = [rig.append(1, None), rig.append(1, None)];
        rig.log.wait_until_taken(..2, 2);
        join(threads);
        drop(clock);
        rig.end();
    });
    check(|| {
        let rig = Rig::new(3, 0);
        rig.log.held_until.store(1, Ordering::SeqCst);
        join([rig.append(1, Some(0)), rig.append(1, Some(1))]);
        rig.end();
    });
}

#[test]
fn a_runner_ends_whatever_is_under_way() {
    for threads_max in [0, 1, 3] {
        for is_first in [true, false] {
            check(move || {
                let mut rig = Rig::new(threads_max, 0);
                let threads = [rig.append(2, None), rig.append(1, None)];
                if is_first {
                    drop(rig.projections.pop());
                    assert_eq!(rig.projections.len(), 1);
                }
                let ending = std::mem::replace(&mut rig.runner, runner(0));
                let pool = Arc::downgrade(&ending.pool);
                drop(ending);
                join(threads);
                rig.end();
                assert!(pool.upgrade().is_none(), "somebody holds the pool");
            });
        }
    }
}

/// Says when it is run.
struct Told {
    runner: Mutex<Option<Runner>>,
    has_run: Mutex<bool>,
    ran: Condvar,
}

impl Told {
    fn new(runner: Option<Runner>) -> Arc<Self> {
        Arc::new(Self {
            runner: Mutex::new(runner),
            has_run: Mutex::new(false),
            ran: Condvar::new(),
        })
    }

    fn wait(&self) {
        drop(
            self.ran
                .wait_while(hold(&self.has_run), |has_run| !*has_run),
        );
    }
}

impl Beside for Told {
    fn run(&self) {
        let runner = hold(&self.runner).take();
        drop(runner);
        *hold(&self.has_run) = true;
        self.ran.notify_all();
    }
}

#[test]
fn what_is_sent_is_done_though_nobody_needs_it() {
    for threads_max in [1, 3] {
        for has_clock in [false, true] {
            check(move || {
                let rig = Rig::new(threads_max, 0);
                let clock = has_clock.then(|| Clock::new(&rig.runner.pool));
                let threads = [rig.append(1, None)];
                for _ in 0..2 {
                    let sent = [Told::new(None), Told::new(None)];
                    for told in &sent {
                        rig.runner.pool.send(Arc::clone(told) as Arc<dyn Beside>);
                    }
                    for told in &sent {
                        told.wait();
                    }
                }
                join(threads);
                drop(clock);
                rig.end();
            });
        }
    }
}

#[test]
fn a_runner_may_be_ended_by_a_thread_of_its_own() {
    for threads_max in [1, 3] {
        check(move || {
            let runner = runner(threads_max);
            let pool = Arc::clone(&runner.pool);
            let errand = Arc::new(Errand::new(|| ()));
            pool.send(Arc::clone(&errand) as Arc<dyn Beside>);
            let last = Told::new(Some(runner));
            pool.send(Arc::clone(&last) as Arc<dyn Beside>);
            last.wait();
            errand.stop();
        });
    }
}

/// Who comes to an errand.
#[derive(Clone, Copy, Debug)]
enum Comes {
    Runs,
    Finishes,
    Stops,
}

#[test]
fn an_errand_is_done_once_whoever_comes() {
    use Comes::{Finishes, Runs, Stops};
    for comes in [
        [Runs, Runs, Finishes],
        [Runs, Finishes, Finishes],
        [Runs, Finishes, Stops],
        [Runs, Runs, Stops],
    ] {
        check(move || {
            let (runs, gave) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (held, counted) = (Arc::new(()), Arc::clone(&runs));
            let kept = Arc::clone(&held);
            let errand = Arc::new(Errand::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                drop(kept);
            }));
            let threads = comes.map(|comes| {
                let (errand, gave) = (Arc::clone(&errand), Arc::clone(&gave));
                let held = Arc::downgrade(&held);
                thread::spawn(move || {
                    match comes {
                        Runs => return errand.run(),
                        Finishes => {
                            if errand.finish().is_some() {
                                gave.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        Stops => errand.stop(),
                    }
                    // What it holds is gone by then, also where nobody does it any more.
                    assert_eq!(held.strong_count(), 1, "{comes:?}");
                })
            });
            join(threads);
            let (runs, gave) = (runs.load(Ordering::SeqCst), gave.load(Ordering::SeqCst));
            let (may_stop, may_give) = (
                comes.iter().any(|comes| matches!(comes, Stops)),
                comes.iter().any(|comes| matches!(comes, Finishes)),
            );
            assert!(runs == 1 || (may_stop && runs == 0), "{runs} runs");
            assert!(gave <= runs);
            // It is given once: to one who needs it, unless it was stopped first.
            let is_given = gave == usize::from(may_give) || (may_stop && gave == 0);
            assert!(is_given, "{gave} were given what it gave");
        });
    }
}
