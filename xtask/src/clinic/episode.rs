//! What happens to a patient: an appointment, an hour in the emergency room, a stay of some days.

use serde_json::json;

use super::chart::Chart;
use super::notes;

const WARDS: [&str; 5] = ["Anchor", "Beacon", "Harbour", "Lantern", "Tide"];
const REASONS: [&str; 7] = [
    "abdominal pain",
    "chest pain",
    "check-up",
    "dizziness",
    "fall at home",
    "fever",
    "wound",
];
const SUBSTANCES: [(&str, i64); 7] = [
    ("Examplicillin", 500),
    ("Fictamol", 1_000),
    ("Inventopril", 5),
    ("Nonexistatin", 20),
    ("Placebex", 100),
    ("Sampletrin", 75),
    ("Specimenol", 40),
];
const ANALYTES: [(&str, &str, i64, i64); 7] = [
    ("creatinine", "umol/L", 45, 110),
    ("crp", "mg/L", 0, 90),
    ("glucose", "mmol/L", 4, 11),
    ("haemoglobin", "g/L", 105, 170),
    ("leucocytes", "10^9/L", 3, 16),
    ("potassium", "mmol/L", 3, 6),
    ("sodium", "mmol/L", 132, 146),
];

pub(super) fn register(chart: &mut Chart<'_>) {
    let name = chart.name();
    let contact = chart.name();
    let number = format!(
        "+00 555 01{:02} {:04}",
        chart.random().number(0..=99),
        chart.patient()
    );
    let born = format!(
        "{}-{:02}",
        chart.random().number(1932..=2018),
        chart.random().number(1..=12)
    );
    let data = json!({
        "name": name,
        "record_number": format!("TEST-{:06}", chart.patient()),
        "born": born,
        "telephone": number,
        "contact": contact,
        "language": "en",
        "consent": true,
    });
    chart.record("registered", data);
    chart.wait_minutes(5..=4_000);
}

pub(super) fn appointment(chart: &mut Chart<'_>) {
    let booking = chart.next_order("APT");
    let lead_minutes = chart.random().number(1_440..=20_000);
    let doctor = chart.staff("doctor");
    let reason = chart.random().choose(&REASONS);
    let booked_for = chart.time_in_minutes(lead_minutes);
    let data = json!({
        "booking": booking,
        "with": doctor,
        "reason": reason,
        "room": format!("consulting-{}", chart.random().number(1..=9)),
        "for": booked_for,
        "minutes": 20,
        "channel": chart.random().choose(&["desk", "portal", "telephone"]),
    });
    chart.record("appointment-booked", data);
    let reminded_ahead = 1_380;
    chart.wait_minutes(lead_minutes - reminded_ahead..=lead_minutes - reminded_ahead);
    let data = json!({
        "booking": booking,
        "by": "text message",
        "answer": "confirmed",
    });
    chart.record("appointment-reminded", data);
    if chart.random().chance(7) {
        chart.wait_minutes(10..=1_000);
        let reason =
            chart
                .random()
                .choose(&["feels better", "no transport", "other duties", "unwell"]);
        let data = json!({
            "booking": booking,
            "by": "patient",
            "reason": reason,
        });
        chart.record("appointment-cancelled", data);
        return;
    }
    chart.wait_minutes(reminded_ahead..=reminded_ahead + 15);
    let data = json!({
        "booking": booking,
        "with": doctor,
        "waited_minutes": chart.random().number(0..=40),
    });
    chart.record("appointment-kept", data);
    chart.wait_minutes(2..=9);
    vital_signs(chart);
    chart.wait_minutes(5..=20);
    note(chart, "doctor", 700);
    if chart.random().chance(45) {
        laboratory(chart);
    }
    if chart.random().chance(30) {
        order_medication(chart);
    }
}

pub(super) fn emergency(chart: &mut Chart<'_>) {
    let visit = arrive(chart, "emergency", "Emergency");
    for _ in 0..chart.random().number(2..=5) {
        vital_signs(chart);
        chart.wait_minutes(15..=70);
    }
    laboratory(chart);
    if chart.random().chance(55) {
        imaging(chart);
    }
    if chart.random().chance(60) {
        let order = order_medication(chart);
        give_medication(chart, &order);
    }
    note(chart, "doctor", 900);
    leave(chart, &visit, "Emergency");
}

pub(super) fn stay(chart: &mut Chart<'_>) {
    let mut ward = chart.random().choose(&WARDS);
    let visit = arrive(chart, "inpatient", ward);
    let mut orders = vec![order_medication(chart)];
    for _ in 0..chart.random().number(2..=9) {
        for _round in 0..3 {
            vital_signs(chart);
            chart.wait_minutes(2..=20);
            for order in &orders {
                give_medication(chart, order);
            }
            chart.wait_minutes(390..=460);
        }
        note(chart, "nurse", 1_200);
        if chart.random().chance(50) {
            laboratory(chart);
        }
        if chart.random().chance(20) && orders.len() < 3 {
            orders.push(order_medication(chart));
        }
        if chart.random().chance(15) {
            imaging(chart);
        }
        if chart.random().chance(12) {
            ward = transfer(chart, &visit, ward);
        }
    }
    letter(chart);
    leave(chart, &visit, ward);
}

fn arrive(chart: &mut Chart<'_>, class: &str, ward: &str) -> String {
    let visit = chart.next_order("VIS");
    let reason = chart.random().choose(&REASONS);
    let doctor = chart.staff("doctor");
    let bed = chart.random().number(1..=32);
    let data = json!({
        "visit": visit,
        "class": class,
        "ward": ward,
        "bed": format!("{ward}-{bed:02}"),
        "reason": reason,
        "admitted_by": doctor,
        "arrival": chart.random().choose(&["ambulance", "own way", "referral"]),
        "allergies": [],
    });
    chart.record("admitted", data);
    chart.wait_minutes(3..=25);
    let nurse = chart.staff("nurse");
    let data = json!({
        "visit": visit,
        "level": chart.random().number(2..=5),
        "scale": "example-5",
        "complaint": reason,
        "pain": chart.random().number(0..=8),
        "triaged_by": nurse,
        "needs_isolation": false,
    });
    chart.record("triaged", data);
    chart.wait_minutes(5..=40);
    visit
}

fn leave(chart: &mut Chart<'_>, visit: &str, ward: &str) {
    chart.wait_minutes(20..=240);
    let doctor = chart.staff("doctor");
    let summary = notes::note(chart.random(), 300);
    let data = json!({
        "visit": visit,
        "from": ward,
        "to": chart.random().choose(&["home", "home with care", "rehabilitation"]),
        "by": doctor,
        "summary": summary,
    });
    chart.record("discharged", data);
}

fn transfer(chart: &mut Chart<'_>, visit: &str, from: &str) -> &'static str {
    let to = chart.random().choose(&WARDS);
    let porter = chart.staff("porter");
    let data = json!({
        "visit": visit,
        "from": from,
        "to": to,
        "bed": format!("{to}-{:02}", chart.random().number(1..=32)),
        "by": porter,
        "handover": "complete",
        "belongings_checked": true,
    });
    chart.record("transferred", data);
    chart.wait_minutes(10..=50);
    to
}

fn vital_signs(chart: &mut Chart<'_>) {
    let nurse = chart.staff("nurse");
    let random = chart.random();
    let systolic = random.number(96..=168);
    let data = json!({
        "heart_rate": random.number(54..=112),
        "blood_pressure": { "systolic": systolic, "diastolic": systolic * 62 / 100 },
        "respiration_rate": random.number(11..=24),
        "temperature_c": tenths(random.number(360..=391)),
        "oxygen_saturation_percent": random.number(91..=100),
        "device": format!("monitor-{:02}", random.number(1..=40)),
        "taken_by": nurse,
    });
    chart.record("vital-signs", data);
}

fn laboratory(chart: &mut Chart<'_>) {
    let order = chart.next_order("LAB");
    let doctor = chart.staff("doctor");
    let data = json!({
        "order": order,
        "panel": "example-basic",
        "urgent": chart.random().chance(20),
        "ordered_by": doctor,
    });
    chart.record("lab-ordered", data);
    chart.wait_minutes(25..=180);
    let mut values = Vec::new();
    for (analyte, unit, low, high) in ANALYTES {
        if chart.random().chance(60) {
            let value = tenths(chart.random().number(low * 10..=high * 10));
            values.push(json!({ "analyte": analyte, "value": value, "unit": unit }));
        }
    }
    let analyser = format!("analyser-{}", chart.random().number(1..=3));
    let data = json!({
        "order": order,
        "status": "final",
        "values": values,
        "analyser": analyser,
    });
    chart.record("lab-result", data);
}

fn order_medication(chart: &mut Chart<'_>) -> String {
    let order = chart.next_order("MED");
    let (substance, dose_mg) = chart.random().choose(&SUBSTANCES);
    let doctor = chart.staff("doctor");
    let until = chart.time_in_minutes(7 * 1_440);
    let data = json!({
        "order": order,
        "substance": substance,
        "dose_mg": dose_mg,
        "route": "oral",
        "times_a_day": 3,
        "until": until,
        "ordered_by": doctor,
        "interactions_checked": true,
    });
    chart.record("medication-ordered", data);
    chart.wait_minutes(5..=45);
    order
}

fn give_medication(chart: &mut Chart<'_>, order: &str) {
    let nurse = chart.staff("nurse");
    let late_minutes = chart.random().number(0..=35);
    let due = chart.time_in_minutes(-late_minutes);
    if chart.random().chance(4) {
        let reason = chart
            .random()
            .choose(&["asleep", "nausea", "wants to ask the doctor first"]);
        let data = json!({ "order": order, "due": due, "offered_by": nurse, "reason": reason });
        chart.record("medication-refused", data);
        return;
    }
    let package = format!("lot-test-{:05}", chart.random().number(0..=99_999));
    let data = json!({
        "order": order,
        "due": due,
        "late_minutes": late_minutes,
        "given_by": nurse,
        "witnessed_by": null,
        "wristband_scanned": true,
        "package": package,
        "complete": true,
    });
    chart.record("medication-given", data);
    chart.wait_minutes(1..=6);
}

fn imaging(chart: &mut Chart<'_>) {
    let order = chart.next_order("IMG");
    let modality = chart
        .random()
        .choose(&["computed tomography", "ultrasound", "x-ray"]);
    let doctor = chart.staff("doctor");
    let data = json!({
        "order": order,
        "modality": modality,
        "ordered_by": doctor,
        "question": "as discussed",
    });
    chart.record("imaging-ordered", data);
    chart.wait_minutes(30..=240);
    let radiologist = chart.staff("radiologist");
    let bytes = text_bytes(chart, 400, 1_500);
    let report = notes::report(chart.random(), bytes);
    let data = json!({
        "order": order,
        "modality": modality,
        "reported_by": radiologist,
        "report": report,
    });
    chart.record("imaging-report", data);
    chart.wait_minutes(5..=60);
}

fn note(chart: &mut Chart<'_>, role: &str, bytes_max: i64) {
    let author = chart.staff(role);
    let bytes = text_bytes(chart, 120, bytes_max);
    let text = notes::note(chart.random(), bytes);
    let data = json!({
        "author": author,
        "text": text,
    });
    chart.record("note-added", data);
    chart.wait_minutes(2..=30);
}

/// The long note at the end of a stay.
fn letter(chart: &mut Chart<'_>) {
    let author = chart.staff("doctor");
    let bytes = usize::try_from(chart.random().number(900..=2_000)).expect("a positive size");
    let text = notes::note(chart.random(), bytes);
    chart.record(
        "note-added",
        json!({ "author": author, "kind": "letter", "text": text }),
    );
}

/// Short texts are more frequent than long ones.
fn text_bytes(chart: &mut Chart<'_>, low: i64, high: i64) -> usize {
    let cut = chart.random().number(low..=high);
    usize::try_from(chart.random().number(low..=cut)).expect("a positive size")
}

fn tenths(number: i64) -> f64 {
    f64::from(i32::try_from(number).expect("a small number")) / 10.0
}
