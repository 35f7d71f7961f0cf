//! Sentences for notes and reports.

use super::random::Random;

const OBSERVATIONS: [&str; 14] = [
    "Slept well and had breakfast.",
    "Reports less pain than yesterday, two out of ten at rest and four when walking.",
    "Walked the length of the corridor twice with a frame, steady on the way back.",
    "Skin intact, no redness at the heels.",
    "The dressing is dry and was not changed.",
    "Drank about a litre since the morning; the fluid chart is up to date.",
    "Asked when the next imaging is planned and was told that the day is not fixed yet.",
    "No shortness of breath when talking, some when climbing one flight of stairs.",
    "Visited by a relative in the afternoon, in good spirits afterwards.",
    "The cannula in the left forearm was replaced without difficulty.",
    "Felt dizzy on standing up, which passed within a minute; pressure taken lying and standing.",
    "Understands the plan and agrees with it, including the change of dose.",
    "Refused the evening meal, took a yoghurt later.",
    "Was advised to ring before getting up during the night.",
];

const FINDINGS: [&str; 8] = [
    "No acute abnormality in the region examined.",
    "The heart is of normal size; the contours of both domes of the diaphragm are smooth.",
    "A small effusion on the right, unchanged when compared with the previous examination.",
    "Alignment is preserved and no fracture line can be followed.",
    "A rounded structure of eight millimetres, smoothly outlined, most likely without meaning.",
    "Degenerative changes as expected at this age.",
    "The image is limited by movement; the statement holds for what can be judged.",
    "Follow-up in three months is suggested, sooner if there are new complaints.",
];

/// Sentences up to about `bytes` in all, at least one.
pub(super) fn note(random: &mut Random, bytes: usize) -> String {
    prose(random, &OBSERVATIONS, bytes)
}

/// As [`note`], in the words of a radiologist.
pub(super) fn report(random: &mut Random, bytes: usize) -> String {
    prose(random, &FINDINGS, bytes)
}

fn prose(random: &mut Random, sentences: &[&str], bytes: usize) -> String {
    let mut text = String::from(random.choose(sentences));
    loop {
        let sentence = random.choose(sentences);
        if text.len() + 1 + sentence.len() > bytes {
            return text;
        }
        text.push(' ');
        text.push_str(sentence);
    }
}
