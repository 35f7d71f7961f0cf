//! The chart of one patient: a clock that only goes forward, and the events so far.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde_json::Value;

use super::Event;
use super::random::Random;

const GIVEN_NAMES: [&str; 12] = [
    "Alder", "Birch", "Clover", "Daisy", "Elm", "Fern", "Hazel", "Ivy", "Juniper", "Maple",
    "Rowan", "Willow",
];
const FAMILY_NAMES: [&str; 8] = [
    "Dummy",
    "Example",
    "Fictional",
    "Invented",
    "Notreal",
    "Placeholder",
    "Sample",
    "Specimen",
];

#[derive(Debug)]
pub(super) struct Chart<'a> {
    patient: u32,
    now_s: i64,
    orders: u32,
    events: Vec<Event>,
    random: &'a mut Random,
}

impl<'a> Chart<'a> {
    pub(super) fn new(patient: u32, now_s: i64, random: &'a mut Random) -> Self {
        Self {
            patient,
            now_s,
            orders: 0,
            events: Vec::new(),
            random,
        }
    }

    pub(super) fn random(&mut self) -> &mut Random {
        self.random
    }

    /// Seconds since 1970.
    pub(super) fn now_s(&self) -> i64 {
        self.now_s
    }

    pub(super) fn patient(&self) -> u32 {
        self.patient
    }

    pub(super) fn wait_minutes(&mut self, minutes: RangeInclusive<i64>) {
        let (low, high) = minutes.into_inner();
        self.now_s += self.random.number(low * 60..=high * 60);
    }

    /// The time that many minutes from now, as it stands in the data.
    pub(super) fn time_in_minutes(&self, minutes: i64) -> String {
        timestamp(self.now_s + minutes * 60).to_string()
    }

    pub(super) fn record(&mut self, kind: &'static str, data: Value) {
        let time = timestamp(self.now_s);
        self.events.push(Event {
            time,
            patient: self.patient,
            kind,
            data,
        });
    }

    /// A fresh number for something ordered, booked or admitted.
    pub(super) fn next_order(&mut self, prefix: &str) -> String {
        self.orders += 1;
        format!("{prefix}-{:04}-{:04}", self.patient, self.orders)
    }

    pub(super) fn name(&mut self) -> String {
        format!(
            "{} {}",
            self.random.choose(&GIVEN_NAMES),
            self.random.choose(&FAMILY_NAMES)
        )
    }

    /// Somebody who works there.
    pub(super) fn staff(&mut self, role: &str) -> String {
        format!(
            "{role}-{:02} {}",
            self.random.number(1..=24),
            self.random.choose(&FAMILY_NAMES)
        )
    }

    pub(super) fn into_events(self) -> Vec<Event> {
        self.events
    }
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a few years after 1970")
}
