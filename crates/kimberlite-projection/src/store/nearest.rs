//! Looks up the first entry at or above a key.

use super::Version;
use super::cursor::Cursor;
use super::error::StoreError;
use super::recent::{RunPlace, word_of};
use super::tree::{self, Search};
use super::value::Nearest;

/// Looks up the first entry whose key is `key` or above and begins with `beginning`, as `key` does.
pub(super) fn find<'v>(
    version: &'v Version,
    key: &[u8],
    beginning: &[u8],
) -> Result<Option<Nearest<'v>>, StoreError> {
    let in_tree = match &version.root {
        Some(root) => tree::find_nearest(&version.pages, root, (key, beginning))?,
        None => Search::Nothing,
    };
    let in_tree = match in_tree {
        Search::Found(nearest) => Some(nearest),
        Search::Nothing => None,
        Search::Behind => return by_cursor(version, key, beginning),
    };
    let begins_so = |place: &RunPlace<'_>| place.key().starts_with(beginning);
    let word = word_of(key);
    let mut follows_another = in_tree.as_ref().is_some_and(|it| it.follows_another);
    let mut in_runs: Option<RunPlace<'v>> = None;
    for run in version.recent.newest_first() {
        let index = run.lower_bound((word, key));
        let before = index.checked_sub(1).and_then(|index| run.place(index));
        follows_another |= before.as_ref().is_some_and(begins_so);
        if let Some(place) = run.place(index).filter(begins_so)
            && in_runs.is_none_or(|nearest| place.compare(&nearest).is_lt())
        {
            in_runs = Some(place);
        }
    }
    // What stands before it may have been taken away.
    follows_another &= !version.recent.has_removals();
    let is_in_runs = |place: &RunPlace<'_>| {
        let in_tree = in_tree.as_ref();
        in_tree.is_none_or(|nearest| place.key() <= &nearest.key[..])
    };
    if let Some(place) = in_runs.filter(is_in_runs) {
        let Some(value) = place.held().value() else {
            return by_cursor(version, key, beginning);
        };
        return Ok(Some(Nearest {
            key: place.key().to_vec(),
            value,
            follows_another,
        }));
    }
    Ok(in_tree.map(|nearest| Nearest {
        follows_another,
        ..nearest
    }))
}

fn by_cursor<'v>(
    version: &'v Version,
    key: &[u8],
    beginning: &[u8],
) -> Result<Option<Nearest<'v>>, StoreError> {
    let mut cursor = Cursor::new(version);
    cursor.seek(key)?;
    let entry = cursor.next_entry()?;
    let entry = entry.filter(|entry| entry.key.starts_with(beginning));
    Ok(entry.map(|entry| Nearest {
        key: entry.key.to_vec(),
        value: entry.value,
        follows_another: false,
    }))
}
