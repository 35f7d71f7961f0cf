use std::collections::BTreeMap;

use kimberlite_testkit::Rng;

use super::super::build::{self, Cell};
use super::super::{PageRef, Slot};
use super::*;

type Leaf = BTreeMap<Vec<u8>, Vec<u8>>;

fn written(leaf: &Leaf) -> Box<Page> {
    let parts: Vec<_> = leaf
        .iter()
        .map(|(key, value)| build::Part {
            key,
            value: Cell::Inline(value),
        })
        .collect();
    build::write(0, &parts)
}

fn all(page: &Page) -> Leaf {
    let layout = Layout::read(page).unwrap();
    assert!(layout.check(page));
    let behind = &page[layout.bytes(page)..];
    assert!(behind.iter().all(|byte| *byte == 0));
    (0..layout.count)
        .map(|index| {
            let key = [layout.prefix(page), layout.suffix(page, index).unwrap()].concat();
            let Some(Slot::Inline(value)) = layout.slot(page, index) else {
                panic!("a value stands elsewhere");
            };
            (key, value.to_vec())
        })
        .collect()
}

type LeafEdit<'a> = (usize, bool, Option<(&'a [u8], &'a [u8])>);

fn edit_leaf(page: &Page, layout: &Layout, edits: &[LeafEdit<'_>]) -> Option<Box<Page>> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for &(at, replaces, new) in edits {
        let edit = |new| Edit { at, replaces, new };
        keys.push(edit(new.map(|(key, _)| key)));
        values.push(edit(new.map(|(_, value)| value)));
    }
    let (keys, values) = (&keys[..], &values[..]);
    edited((page, layout), Edits { keys, values })
}

#[test]
fn a_leaf_that_is_edited_holds_what_one_that_is_made_anew_does() {
    let (mut made, mut refused) = (0, 0);
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let (equal_keys, equal_values) = (rng.chance(1, 2), rng.chance(1, 2));
        let key = |rng: &mut Rng| {
            let mut key = b"prefix/".to_vec();
            let bytes = if equal_keys { 3 } else { rng.index(6) };
            key.extend(rng.bytes(bytes).iter().map(|byte| byte % 4));
            key
        };
        let value = |rng: &mut Rng| {
            let bytes = if equal_values { 20 } else { rng.index(40) };
            rng.bytes(bytes)
        };
        let mut leaf = Leaf::new();
        for _ in 0..=rng.below(50) {
            leaf.insert(key(&mut rng), value(&mut rng));
        }
        let page = written(&leaf);
        let layout = Layout::read(&page).unwrap();
        let changes: BTreeMap<_, _> = (0..rng.below(20))
            .map(|_| (key(&mut rng), rng.chance(2, 3).then(|| value(&mut rng))))
            .collect();
        let prefix = layout.prefix(&page);
        if !changes.keys().all(|key| key.starts_with(prefix)) {
            continue;
        }
        let edits: Vec<_> = changes
            .iter()
            .map(|(key, value)| {
                let (at, replaces) = layout.lower_bound(&page, key);
                let new = value.as_deref().map(|value| (&key[prefix.len()..], value));
                (at, replaces, new)
            })
            .collect();
        for (key, value) in &changes {
            match value {
                Some(value) => leaf.insert(key.clone(), value.clone()),
                None => leaf.remove(key),
            };
        }
        match edit_leaf(&page, &layout, &edits) {
            Some(page) => {
                assert_eq!(all(&page), leaf, "seed {seed}");
                made += 1;
            }
            None => refused += 1,
        }
    }
    assert!(made > 1500 && refused > 0, "{made}, {refused}");
}

#[test]
fn what_does_not_fit_or_has_another_shape_is_not_made() {
    let leaf: Leaf = (0..30_u8).map(|n| (vec![n], vec![n; 100])).collect();
    let page = written(&leaf);
    let layout = Layout::read(&page).unwrap();
    let edit = |key, value| {
        let (at, replaces) = layout.lower_bound(&page, key);
        let new = Some((key, value));
        edit_leaf(&page, &layout, &[(at, replaces, new)])
    };
    assert!(edit(&[40], &[1; 100]).is_some());
    assert!(edit(&[40, 1], &[1; 100]).is_none());
    assert!(edit(&[40], &[1; 101]).is_none());
    let many: Vec<_> = (50..90_u8).map(|n| [n]).collect();
    let edits: Vec<_> = many
        .iter()
        .map(|key| (30, false, Some((&key[..], &[1; 100][..]))))
        .collect();
    assert!(edit_leaf(&page, &layout, &edits[..10]).is_some());
    assert!(edit_leaf(&page, &layout, &edits[..11]).is_none());
}

#[test]
fn a_branch_that_is_edited_has_the_new_children_behind_theirs() {
    let separators: Vec<_> = (0..9_u8).map(|n| vec![7, 10 * n]).collect();
    let places: Vec<_> = (0..9_u8).map(|n| [n; PageRef::BYTES]).collect();
    let parts = separators
        .iter()
        .zip(&places)
        .map(|(key, place)| build::Part {
            key,
            value: Cell::Inline(place),
        });
    let page = build::write(1, &parts.collect::<Vec<_>>());
    let layout = Layout::read(&page).unwrap();
    let new = [90; PageRef::BYTES];
    let edit = |at, replaces, new| Edit { at, replaces, new };
    let keys = [edit(3, false, Some(&[35][..])), edit(8, false, Some(&[85]))];
    let values = [
        edit(3, true, Some(&new[..])),
        edit(4, false, Some(&new)),
        edit(8, true, Some(&new)),
        edit(9, false, Some(&new)),
    ];
    let (keys, values) = (&keys[..], &values[..]);
    let edited = edited((&page, &layout), Edits { keys, values }).unwrap();
    let layout = Layout::read(&edited).unwrap();
    assert!(layout.check(&edited));
    let children: Vec<_> = (0..layout.count)
        .map(|index| layout.child(&edited, index).unwrap().encode()[0])
        .collect();
    assert_eq!(children, [0, 1, 2, 90, 90, 4, 5, 6, 7, 90, 90]);
    for (key, child) in [(0, 0), (34, 3), (35, 4), (40, 5), (84, 9), (85, 10)] {
        assert_eq!(layout.child_index(&edited, &[7, key]), child, "{key}");
    }
}
