//! What a tenant must hold: the appends in their order, and what is known of each.

use std::collections::BTreeMap;

use kimberlite::{Event, IdempotencyKey};

/// What is known of an append. In a tenant's list they come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It was acknowledged, and must survive power loss.
    Durable,
    /// It was acknowledged by a writer that had not synced yet: it must survive a kill.
    Written,
    /// It was answered before its sync, or is a future that was not answered: readers need not see it,
    /// and it may go as long as nothing says that it is durable.
    Early,
    /// It failed without a word about its outcome: it may be there, whole.
    Unknown,
}

/// Where the first event of an append stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) offset: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) stream: &'static str,
    pub(crate) events: Vec<Event>,
    /// None while nothing was told about it.
    pub(crate) place: Option<Place>,
    pub(crate) standing: Standing,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) purged: Purged,
}

/// Which events of an append are purged, by their positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purged {
    /// Those below it are, for certain.
    pub(crate) below: u64,
    /// Those below it may be.
    pub(crate) perhaps_below: u64,
}

/// One event of an append, and its place where that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) event: &'a Event,
    pub(crate) place: Option<Place>,
    pub(crate) is_purged: bool,
    pub(crate) may_be_purged: bool,
}

/// How much of a log outlives what happened since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// What is durable.
    #[default]
    Durable,
    /// What was acknowledged, but not early: that was only in memory.
    Written,
    /// Also what was answered early: it is in the file.
    Early,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TenantModel {
    pub(crate) appends: Vec<Append>,
    /// The first so many appends lie below a watermark: nothing may cut them away.
    pub(crate) marked: usize,
    /// The newest checkpoint that was acknowledged has at least this size.
    pub(crate) checkpoint_size: u64,
    /// What nothing that happened since the log was opened last can have lost.
    pub(crate) kept: Kept,
    /// It was closed without an error, and not opened since.
    pub(crate) closed: bool,
    /// Legal holds in force, by their id, and the stream that each covers if not all.
    pub(crate) holds: BTreeMap<u64, Option<&'static str>>,
    /// A hold was put or lifted, and nobody knows the outcome.
    pub(crate) are_holds_doubtful: bool,
    /// Up to where purges of all streams, or of one, were ordered or may have been.
    pub(crate) ordered: BTreeMap<Option<&'static str>, u64>,
}

impl Append {
    pub(crate) fn expected(&self) -> impl Iterator<Item = Expected<'_>> {
        self.events.iter().zip(0..).map(|(event, nth)| {
            let place = self.place.map(|place| Place {
                position: place.position + nth,
                offset: place.offset + nth,
            });
            let Purged {
                below,
                perhaps_below,
            } = self.purged;
            Expected {
                event,
                place,
                is_purged: place.is_some_and(|place| place.position < below),
                may_be_purged: place.map_or(perhaps_below > 0, |it| it.position < perhaps_below),
            }
        })
    }
}

impl TenantModel {
    /// Adds an append, ahead of those that failed: none of them can have been written before it.
    pub(crate) fn push(&mut self, append: Append) {
        debug_assert!(
            self.appends
                .last()
                .is_none_or(|last| last.standing <= append.standing),
            "nothing is acknowledged behind an unknown outcome"
        );
        self.appends.push(append);
    }

    /// What readers of a writer see: what was acknowledged, and not early.
    pub(crate) fn visible(&self) -> impl Iterator<Item = &Append> {
        let known = |append: &&Append| append.standing < Standing::Early;
        self.appends.iter().filter(known)
    }

    /// What stands in the log.
    pub(crate) fn written(&self) -> impl Iterator<Item = &Append> {
        let known = |append: &&Append| append.standing != Standing::Unknown;
        self.appends.iter().filter(known)
    }

    /// Whether readers may see more than is known of.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.visible().count() < self.appends.len()
    }

    pub(crate) fn stream_len(&self, stream: &str) -> u64 {
        let events = self.written().filter(|append| append.stream == stream);
        events.map(|append| append.events.len() as u64).sum()
    }

    /// The position after the last acknowledged event whose place is known.
    pub(crate) fn end(&self) -> u64 {
        self.written()
            .filter_map(|append| Some(append.place?.position + append.events.len() as u64))
            .max()
            .unwrap_or(0)
    }

    /// How many appends must be found.
    pub(crate) fn required(&self) -> usize {
        let is_required = |append: &&Append| match append.standing {
            Standing::Durable => true,
            Standing::Written => self.kept >= Kept::Written,
            Standing::Early => self.kept >= Kept::Early,
            Standing::Unknown => false,
        };
        self.appends.iter().filter(is_required).count()
    }

    pub(crate) fn is_held(&self, stream: &str) -> bool {
        let mut holds = self.holds.values();
        holds.any(|of| of.is_none_or(|of| of == stream))
    }

    /// A purge was tried: what was ordered by then may be gone, but for what is held.
    pub(crate) fn purge_tried(&mut self, stream: Option<&'static str>, until: u64) {
        let ordered = self.ordered.entry(stream).or_default();
        *ordered = until.max(*ordered);
        let bound = |of| self.ordered.get(&of).copied().unwrap_or(0);
        let bounds: Vec<u64> = self
            .appends
            .iter()
            .map(|it| {
                if self.is_held(it.stream) {
                    0
                } else {
                    bound(None).max(bound(Some(it.stream)))
                }
            })
            .collect();
        for (append, bound) in self.appends.iter_mut().zip(bounds) {
            append.purged.perhaps_below = append.purged.perhaps_below.max(bound);
        }
    }

    /// A purge was done.
    pub(crate) fn purge_done(&mut self, stream: Option<&'static str>, until: u64) {
        let holds = self.holds.clone();
        let is_held = |of: &str| holds.values().any(|it| it.is_none_or(|it| it == of));
        for append in &mut self.appends {
            if stream.is_none_or(|it| it == append.stream) && !is_held(append.stream) {
                append.purged.below = append.purged.below.max(until);
            }
        }
    }

    /// Everything that was acknowledged has been synced.
    pub(crate) fn synced(&mut self) {
        for append in &mut self.appends {
            if append.standing < Standing::Unknown {
                append.standing = Standing::Durable;
            }
        }
    }

    /// The log says that everything before a position is durable.
    pub(crate) fn durable_to(&mut self, position: u64) {
        let last = self.appends.iter().rposition(|append| {
            let count = append.events.len() as u64;
            let end = append.place.map(|place| place.position + count);
            end.is_some_and(|end| end <= position)
        });
        let durable = last.map_or(0, |last| last + 1);
        for append in self.appends.iter_mut().take(durable) {
            append.standing = Standing::Durable;
        }
    }

    /// The log says that what was acknowledged has been synced.
    pub(crate) fn mark(&mut self) {
        self.synced();
        self.marked = self.visible().count();
    }

    /// The first `count` appends were found, and no others: what a writer found when it opened the
    /// log is durable.
    pub(crate) fn adopt(&mut self, count: usize) {
        self.appends.truncate(count);
        for append in &mut self.appends {
            append.standing = Standing::Durable;
        }
        self.marked = count;
        self.kept = Kept::Early;
        self.closed = false;
    }
}
