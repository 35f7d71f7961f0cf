//! Holds what is read against what was appended.

use std::path::Path;

use kimberlite::{Disk as _, Error, ErrorKind, Record, Tenant};

use crate::model::{Expected, Place, TenantModel};
use crate::operation::STREAMS;
use crate::world::{Checked, DIRECTORY, Life, World, told};

/// The watermark itself is written again after any closing, since no other one speaks of it.
const WATERMARK_BYTES: u64 = 112;

/// What stands where an event was put.
#[derive(Debug)]
pub(crate) enum Found {
    Event(Record),
    Purged,
}

impl Found {
    /// Takes what reading an event gave.
    pub(crate) fn take(came: Result<Record, Error>) -> Result<Self, Error> {
        match came {
            Ok(record) => Ok(Self::Event(record)),
            Err(error) if error.kind() == ErrorKind::Purged => Ok(Self::Purged),
            Err(error) => Err(error),
        }
    }

    fn event(&self) -> Option<&Record> {
        match self {
            Self::Event(record) => Some(record),
            Self::Purged => None,
        }
    }
}

/// Whether what is found is the event that is expected, where it is expected.
pub(crate) fn is(found: &Found, expected: &Expected<'_>) -> bool {
    let Found::Event(record) = found else {
        return expected.may_be_purged;
    };
    if expected.is_purged {
        return false;
    }
    let at = expected.place;
    let in_place = at.is_none_or(|Place { position, offset }| {
        (record.position().get(), record.offset().get()) == (position, offset)
    });
    let event = expected.event;
    in_place
        && record.event_type() == event.event_type()
        && record.data() == event.data()
        && record.metadata() == event.metadata()
}

/// Holds all events of a tenant, in their order, against its appends. Returns how many of these
/// are there; the rest is not there at all.
pub(crate) fn count_appends(found: &[Found], model: &TenantModel) -> Checked<usize> {
    let mut rest = found.iter().peekable();
    for (nth, append) in model.appends.iter().enumerate() {
        if rest.peek().is_none() {
            return Ok(nth);
        }
        for expected in append.expected() {
            let Some(record) = rest.next() else {
                return Err(format!("append {nth} is there in part"));
            };
            if !is(record, &expected) {
                return Err(format!("append {nth} is not what was appended: {record:?}"));
            }
        }
    }
    match rest.next() {
        None => Ok(model.appends.len()),
        Some(record) => Err(format!("an event that nobody appended: {record:?}")),
    }
}

fn is_gone(world: &World, name: &str) -> bool {
    let log = Path::new(DIRECTORY).join("tenants").join(name).join("log");
    matches!(world.disk.exists(&log), Ok(false))
}

/// Holds a tenant that was just opened against the model, which from then on knows what was found.
/// `false` when a fault was met on the way.
pub(crate) fn opened(world: &mut World, life: &mut Life, name: &'static str) -> Checked<bool> {
    let came = life.db.tenant(name);
    let what = format!("open {name}");
    if let Err(error) = &came
        && error.kind() == ErrorKind::RolledBack
        && world.is_directory_doubtful
        && is_gone(world, name)
    {
        // With the power, since the sync of a directory above had failed.
        world.tenants.remove(name);
        world.note(format!("{what}: its log is missing"));
        return Ok(false);
    }
    let Some(tenant) = world.expect(&what, came)? else {
        return Ok(false);
    };
    let Some(found) = read_all(world, &tenant)? else {
        return Ok(false);
    };
    let model = world.model(name);
    let count = count_appends(&found, model).map_err(|error| format!("{what}: {error}"))?;
    let required = model.required();
    if count < required {
        return Err(format!(
            "{what}: {count} appends are there, {required} were acknowledged"
        ));
    }
    in_order(&found).map_err(|error| format!("{what}: {error}"))?;
    let was_closed = model.closed;
    let (checkpoint_size, before) = (model.checkpoint_size, model.appends.len());
    model.adopt(count);
    let mut found = found.iter();
    for append in &mut model.appends {
        let events = found.by_ref().take(append.events.len()).zip(0_u64..);
        let known = events.filter_map(|(found, nth)| Some((found.event()?, nth)));
        // What is purged says nothing of its place, which is known then.
        if let Some((record, nth)) = known.last() {
            append.place = Some(Place {
                position: record.position().get() - nth,
                offset: record.offset().get() - nth,
            });
        }
    }
    holds(model, &tenant).map_err(|error| format!("{what}: {error}"))?;
    let report = tenant.open_report();
    let rewritten = report.rewritten_bytes > WATERMARK_BYTES;
    if was_closed && (report.tail_discarded.is_some() || rewritten) {
        return Err(format!("{what}: it was closed, and yet {report:?}"));
    }
    world.trace.counts.torn += u64::from(report.tail_discarded.is_some());
    world.trace.counts.openings += 1;
    let end = tenant.durable_position();
    world.note(format!("{what}: {count} of {before} appends, end {end}"));
    life.open.push(name);
    checkpoint(world, &tenant, name, checkpoint_size)
}

/// Holds the legal holds of a tenant against the model, or takes them over where nobody knows.
fn holds(model: &mut TenantModel, tenant: &Tenant) -> Checked {
    let came = tenant
        .holds()
        .map_err(|error| format!("no holds: {}", told(&error)))?;
    let mut found = std::collections::BTreeMap::new();
    for hold in came {
        let name = hold
            .stream
            .map(|stream| tenant.stream_name(stream))
            .transpose();
        let name = name.map_err(|error| format!("a hold on no stream: {}", told(&error)))?;
        let known = |name: &kimberlite::StreamName| {
            STREAMS.into_iter().find(|known| *known == name.as_str())
        };
        let stream = name.as_ref().and_then(known);
        found.insert(hold.id.position().get(), stream);
    }
    if model.are_holds_doubtful {
        model.holds = found;
        model.are_holds_doubtful = false;
    } else if model.holds != found {
        return Err(format!("{:?} are in force, not {:?}", found, model.holds));
    }
    Ok(())
}

/// A checkpoint that was acknowledged is there, or a newer one.
fn checkpoint(
    world: &mut World,
    tenant: &Tenant,
    name: &'static str,
    required: u64,
) -> Checked<bool> {
    let newest = tenant.latest_checkpoint();
    let Some(newest) = world.expect("read the newest checkpoint", newest)? else {
        return Ok(true);
    };
    let size = newest.map_or(0, |newest| newest.size());
    if size < required {
        return Err(format!(
            "{name}: the newest checkpoint has {size} records, one of {required} was made"
        ));
    }
    Ok(true)
}

/// Positions and times never go back.
fn in_order(found: &[Found]) -> Checked {
    let events: Vec<&Record> = found.iter().filter_map(Found::event).collect();
    let pairs = events.iter().zip(events.iter().skip(1));
    for (one, next) in pairs {
        if one.position() >= next.position() || one.time() > next.time() {
            return Err(format!("out of order: {one:?}, then {next:?}"));
        }
    }
    Ok(())
}

/// Reads all events of a tenant; `None` when a fault was met.
pub(crate) fn read_all(world: &mut World, tenant: &Tenant) -> Checked<Option<Vec<Found>>> {
    let came = tenant.read_all(..).map(Found::take);
    let came = came.collect::<Result<Vec<_>, _>>();
    world.expect("read all", came)
}

/// Holds everything that a writer shows against the model.
pub(crate) fn visible(world: &mut World, tenant: &Tenant, name: &'static str) -> Checked {
    let Some(found) = read_all(world, tenant)? else {
        return Ok(());
    };
    let model = world.model(name);
    let visible = model.visible().count();
    let count = count_appends(&found, model).map_err(|error| format!("read {name}: {error}"))?;
    // An append that failed under `OnFlush` may have been written, and is then seen; one that was answered
    // early is seen once it is durable.
    if count >= visible {
        return Ok(());
    }
    Err(format!(
        "read {name}: {count} appends are seen, {visible} were acknowledged"
    ))
}

/// Verifies a tenant that nobody damaged.
pub(crate) fn verified(world: &mut World, tenant: &Tenant, name: &'static str) -> Checked {
    let came = tenant.verify();
    let Some(report) = world.expect("verify", came)? else {
        return Ok(());
    };
    world.note(format!("verify {name}: {} records", report.records));
    match report.findings.first() {
        None => Ok(()),
        Some(finding) => Err(format!("verify {name}: {finding:?}")),
    }
}

/// A tenant whose files were spoiled behind the database's back, as it shows itself.
pub(crate) struct Spoiled<'a> {
    pub(crate) model: &'a TenantModel,
    /// Appends that are not below a watermark may be gone without an error: a torn end was cut off,
    /// or the disk lost a write that nothing spoke of.
    pub(crate) may_lose_unmarked: bool,
}

impl Spoiled<'_> {
    /// Nothing is changed or invented, and what is missing is told. Returns whether anything is.
    pub(crate) fn check(&self, tenant: &Tenant) -> Checked<bool> {
        let report = tenant.open_report();
        let reported = !report.damage.is_empty() || report.rolled_back.is_some();
        let (mut found, mut errors) = (Vec::new(), 0);
        for record in tenant.read_all(..).map(Found::take) {
            match record {
                Ok(record) => found.push(record),
                Err(_) => errors += 1,
            }
        }
        let lost = self.lost(&found)?;
        let sound = tenant.verify().is_ok_and(|report| report.is_sound());
        let discarded = report.tail_discarded.is_some();
        let told = errors > 0 || reported;
        if let Some(nth) = lost
            && !told
        {
            let may = nth >= self.model.marked && (self.may_lose_unmarked || discarded);
            if !may {
                return Err(format!("append {nth} is gone, and nobody says so"));
            }
        }
        if told && sound {
            return Err(format!("{errors} errors on reading, and it verifies"));
        }
        Ok(told || discarded || !sound)
    }

    /// The first append that must be there and of which something is not.
    fn lost(&self, found: &[Found]) -> Checked<Option<usize>> {
        let mut rest = found.iter().peekable();
        let mut lost = None;
        for (nth, append) in self.model.appends.iter().enumerate() {
            for expected in append.expected() {
                match rest.peek() {
                    Some(record) if is(record, &expected) => drop(rest.next()),
                    _ if nth < self.model.required() => lost = lost.or(Some(nth)),
                    _ => {}
                }
            }
        }
        match rest.next() {
            None => Ok(lost),
            Some(record) => Err(format!(
                "a changed event passes for what was appended: {record:?}"
            )),
        }
    }
}
