//! SHA-256 of many messages, two at a time.
//!
//! Two lanes take the messages in order. A lane whose message has ended takes the next one, so that
//! messages of different lengths keep both busy up to the last.

use sha2::block_api::compress256;

use super::pair::{Block, compress_pair};
use super::{BLOCK_BYTES, INITIAL, digest_of, padding_of};

/// A message in two parts, `head ‖ body`; the head is shorter than a block.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// A message that a lane works on.
struct Lane<'a> {
    index: usize,
    state: [u32; 8],
    /// Up to one block that holds the head, whole blocks of the body, one or two with the padding.
    parts: Parts<'a>,
}

struct Parts<'a> {
    first: Option<Block>,
    body: &'a [Block],
    last: [Block; 2],
    last_count: usize,
}

/// Hashes all messages, and hands each hash over with the index of its message.
pub(crate) fn hash_many<'a>(
    messages: impl IntoIterator<Item = Message<'a>>,
    mut done: impl FnMut(usize, [u8; 32]),
) {
    let mut waiting = messages.into_iter().enumerate();
    let mut next = || {
        waiting
            .next()
            .map(|(index, message)| Lane::new(index, message))
    };
    let (mut left, mut right) = (next(), next());
    while let (Some(a), Some(b)) = (&mut left, &mut right) {
        let (a_blocks, b_blocks) = (a.parts.next(), b.parts.next());
        let count = a_blocks.len().min(b_blocks.len());
        let (a_blocks, b_blocks) = (&a_blocks[..count], &b_blocks[..count]);
        compress_pair([&mut a.state, &mut b.state], [a_blocks, b_blocks]);
        for lane in [&mut left, &mut right] {
            let ended = lane.as_mut().is_some_and(|lane| lane.parts.advance(count));
            if ended && let Some(lane) = std::mem::replace(lane, next()) {
                done(lane.index, digest_of(lane.state));
            }
        }
    }
    if let Some(mut lane) = left.or(right) {
        loop {
            let blocks = lane.parts.next();
            let count = blocks.len();
            compress256(&mut lane.state, blocks);
            if lane.parts.advance(count) {
                break;
            }
        }
        done(lane.index, digest_of(lane.state));
    }
}

impl<'a> Lane<'a> {
    fn new(index: usize, message: Message<'a>) -> Self {
        Self {
            index,
            state: INITIAL,
            parts: Parts::new(message),
        }
    }
}

impl<'a> Parts<'a> {
    fn new(Message { head, body }: Message<'a>) -> Self {
        assert!(head.len() < BLOCK_BYTES, "a head is shorter than a block");
        let bytes = head.len() + body.len();
        let (mut first, mut body) = (None, body);
        let mut rest_head = head;
        if !head.is_empty()
            && let Some((front, behind)) = body.split_at_checked(BLOCK_BYTES - head.len())
        {
            let mut block = [0; BLOCK_BYTES];
            block[..head.len()].copy_from_slice(head);
            block[head.len()..].copy_from_slice(front);
            first = Some(block);
            body = behind;
            rest_head = &[];
        }
        // With a head left over the body is too short for a whole block.
        let (whole, rest) = if rest_head.is_empty() {
            body.as_chunks()
        } else {
            (&[] as &[Block], body)
        };
        let (last, last_count) = padding_of([rest_head, rest], bytes);
        Self {
            first,
            body: whole,
            last,
            last_count,
        }
    }

    /// Returns the next blocks that stand in one piece; never none.
    fn next(&self) -> &[Block] {
        match &self.first {
            Some(first) => std::slice::from_ref(first),
            None if !self.body.is_empty() => self.body,
            None => &self.last[2 - self.last_count..],
        }
    }

    /// Leaves `count` of the next blocks behind; whether they were the last ones.
    fn advance(&mut self, count: usize) -> bool {
        if self.first.take().is_some() {
            debug_assert_eq!(count, 1);
        } else if let Some(rest) = self.body.get(count..)
            && !self.body.is_empty()
        {
            self.body = rest;
        } else {
            self.last_count -= count;
        }
        self.last_count == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn check(messages: &[(Vec<u8>, Vec<u8>)]) {
        let parts = messages.iter().map(|(head, body)| Message { head, body });
        let mut hashes = vec![None; messages.len()];
        hash_many(parts, |index, hash| {
            let before = hashes[index].replace(hash);
            assert_eq!(before, None, "message {index} ends once");
        });
        for (index, (head, body)) in messages.iter().enumerate() {
            let expected: [u8; 32] = Sha256::new()
                .chain_update(head)
                .chain_update(body)
                .finalize()
                .into();
            assert_eq!(hashes[index], Some(expected), "message {index}");
        }
    }

    fn text(bytes: usize, seed: usize) -> Vec<u8> {
        (0..bytes)
            .map(|at| u8::try_from((at * 31 + seed * 7 + (at >> 8)) % 251).unwrap())
            .collect()
    }

    #[test]
    fn every_length_beside_every_other_hashes_as_it_does_alone() {
        for left in 0..260 {
            for right in [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 200, 1024] {
                check(&[(vec![], text(left, 1)), (vec![], text(right, 2))]);
            }
        }
    }

    #[test]
    fn every_head_before_every_body_is_part_of_the_message() {
        for head in 0..BLOCK_BYTES {
            let bodies = (0..140).map(|body| (text(head, 3), text(body, body)));
            check(&bodies.collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_count_of_messages_is_hashed() {
        for count in 0..20 {
            let messages = (0..count).map(|n| (text(n % 3 * 16, n), text(1000 + n * 37, n)));
            check(&messages.collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn messages_of_any_lengths_hash_as_they_do_alone(
            lengths in prop::collection::vec((0..64_usize, 0..5000_usize), 0..12)
        ) {
            let messages = lengths.iter().enumerate();
            let messages = messages.map(|(n, (head, body))| (text(*head, n), text(*body, n + 1)));
            check(&messages.collect::<Vec<_>>());
        }
    }
}
