//! A cache bounded by bytes that keeps what is asked for again: SIEVE, as Zhang, Yang, Yue, Vigfusson
//! and Rashmi published it (NSDI 2024).
//!
//! Entries stand in a queue in the order in which they came, the newest at its head. One that is
//! asked for is marked and stays where it is. A hand goes from the tail to the head, and round again:
//! it takes the mark off those that have one, and the first without one has to go. So what is never
//! asked for again leaves soon, and a hit moves nothing.

use std::collections::HashMap;
use std::hash::Hash;

/// A cache of values that weigh so many bytes together at most.
#[derive(Debug)]
pub(crate) struct Sieve<K, V> {
    entries: Vec<Option<Entry<K, V>>>,
    index: HashMap<K, usize>,
    free: Vec<usize>,
    head: Option<usize>,
    tail: Option<usize>,
    hand: Option<usize>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    bytes: usize,
    visited: bool,
    /// The next one towards the head.
    newer: Option<usize>,
    /// The next one towards the tail.
    older: Option<usize>,
}

impl<K: Copy + Eq + Hash, V> Sieve<K, V> {
    /// Makes an empty cache, which takes memory with its first entry only.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            entries: Vec::new(),
            index: HashMap::new(),
            free: Vec::new(),
            head: None,
            tail: None,
            hand: None,
            bytes: 0,
            bytes_max,
        }
    }

    /// Returns the value of a key, and marks it.
    pub(crate) fn find(&mut self, key: &K) -> Option<&V> {
        let at = *self.index.get(key)?;
        let entry = self.entry_mut(at);
        entry.visited = true;
        Some(&entry.value)
    }

    /// Puts a value at the head, and lets go of what no longer fits. A key that is there already, and
    /// a value that alone weighs too much, change nothing.
    pub(crate) fn insert(&mut self, key: K, value: V, bytes: usize) {
        if bytes > self.bytes_max || self.index.contains_key(&key) {
            return;
        }
        while self.bytes + bytes > self.bytes_max {
            self.evict();
        }
        let entry = Entry {
            key,
            value,
            bytes,
            visited: false,
            newer: None,
            older: self.head,
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        if let Some(slot) = self.entries.get_mut(at) {
            *slot = Some(entry);
        }
        match self.head {
            Some(head) => self.entry_mut(head).newer = Some(at),
            None => self.tail = Some(at),
        }
        self.head = Some(at);
        self.index.insert(key, at);
        self.bytes += bytes;
    }

    /// Lets go of the entries whose keys are refused.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        let mut at = self.tail;
        while let Some(this) = at {
            let entry = self.entry_mut(this);
            at = entry.newer;
            if !keep(&entry.key) {
                self.remove(this);
            }
        }
    }

    fn evict(&mut self) {
        let mut at = self.hand.or(self.tail);
        while let Some(this) = at {
            let entry = self.entry_mut(this);
            if !entry.visited {
                self.hand = Some(this);
                self.remove(this);
                return;
            }
            entry.visited = false;
            at = entry.newer.or(self.tail);
        }
    }

    /// Takes an entry out of the queue; a hand that points to it goes on towards the head.
    fn remove(&mut self, at: usize) {
        let entry = self.entries.get_mut(at).and_then(Option::take);
        let entry = entry.expect("the queue holds entries only");
        match entry.newer {
            Some(newer) => self.entry_mut(newer).older = entry.older,
            None => self.head = entry.older,
        }
        match entry.older {
            Some(older) => self.entry_mut(older).newer = entry.newer,
            None => self.tail = entry.newer,
        }
        if self.hand == Some(at) {
            self.hand = entry.newer;
        }
        self.index.remove(&entry.key);
        self.bytes -= entry.bytes;
        self.free.push(at);
    }

    fn entry_mut(&mut self, at: usize) -> &mut Entry<K, V> {
        let entry = self.entries.get_mut(at).and_then(Option::as_mut);
        entry.expect("the queue holds entries only")
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_testkit::Rng;

    use super::*;

    /// The algorithm on a plain list, the newest first, as the paper's pseudocode has it.
    #[derive(Default)]
    struct Model {
        queue: Vec<(u64, usize, bool)>,
        /// The key that the hand points to.
        hand: Option<u64>,
    }

    impl Model {
        fn bytes(&self) -> usize {
            self.queue.iter().map(|&(_, bytes, _)| bytes).sum()
        }

        fn place(&self, key: u64) -> Option<usize> {
            self.queue.iter().position(|&(other, ..)| other == key)
        }

        fn find(&mut self, key: u64) -> bool {
            let place = self.place(key);
            if let Some(place) = place {
                self.queue[place].2 = true;
            }
            place.is_some()
        }

        fn remove(&mut self, place: usize) {
            let (key, ..) = self.queue.remove(place);
            if self.hand == Some(key) {
                self.hand = place.checked_sub(1).map(|newer| self.queue[newer].0);
            }
        }

        fn insert(&mut self, key: u64, bytes: usize, bytes_max: usize) {
            if bytes > bytes_max || self.place(key).is_some() {
                return;
            }
            while self.bytes() + bytes > bytes_max {
                let hand = self.hand.and_then(|key| self.place(key));
                let mut place = hand.unwrap_or(self.queue.len() - 1);
                while self.queue[place].2 {
                    self.queue[place].2 = false;
                    place = place.checked_sub(1).unwrap_or(self.queue.len() - 1);
                }
                self.hand = Some(self.queue[place].0);
                self.remove(place);
            }
            self.queue.insert(0, (key, bytes, false));
        }
    }

    fn contents(sieve: &Sieve<u64, u64>) -> Vec<(u64, usize, bool)> {
        let mut contents = Vec::new();
        let mut at = sieve.head;
        while let Some(entry) = at.map(|at| sieve.entries[at].as_ref().unwrap()) {
            assert_eq!(entry.value, entry.key * 3);
            contents.push((entry.key, entry.bytes, entry.visited));
            at = entry.older;
        }
        contents
    }

    #[test]
    fn it_keeps_what_the_algorithm_on_a_plain_list_keeps() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let bytes_max = usize::try_from(rng.below(200)).unwrap();
            let (mut sieve, mut model) = (Sieve::new(bytes_max), Model::default());
            for step in 0..400 {
                let key = rng.below(1 + seed % 40);
                let bytes = usize::try_from(1 + rng.below(30)).unwrap();
                match rng.below(20) {
                    0 => {
                        sieve.retain(|other| *other % 7 != key % 7);
                        for place in (0..model.queue.len()).rev() {
                            if model.queue[place].0 % 7 == key % 7 {
                                model.remove(place);
                            }
                        }
                    }
                    1..10 => {
                        let found = sieve.find(&key).copied();
                        assert_eq!(found, model.find(key).then_some(key * 3));
                    }
                    _ => {
                        sieve.insert(key, key * 3, bytes);
                        model.insert(key, bytes, bytes_max);
                    }
                }
                assert_eq!(contents(&sieve), model.queue, "seed {seed}, step {step}");
                assert_eq!(sieve.bytes, model.bytes());
                assert!(sieve.bytes <= bytes_max);
                assert_eq!(sieve.index.len(), model.queue.len());
                let hand = sieve.hand.map(|at| sieve.entries[at].as_ref().unwrap().key);
                assert_eq!(hand, model.hand, "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn what_is_asked_for_again_outlives_a_scan() {
        let mut sieve = Sieve::new(10);
        for key in 0..10_u64 {
            sieve.insert(key, key, 1);
        }
        for key in 10..1000 {
            assert!(
                sieve.find(&3).is_some() && sieve.find(&7).is_some(),
                "{key}"
            );
            sieve.insert(key, key, 1);
        }
    }
}
