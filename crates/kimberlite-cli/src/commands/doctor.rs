//! `kimberlite doctor`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::{Condition, Database, Symptom};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::Output;

pub(crate) fn run(db: &Path, output: &Output) -> Result<ExitCode, Failure> {
    let diagnosis = Database::builder(db).diagnose()?;
    let mut text = Vec::new();
    tell("database", &diagnosis.database, &mut text);
    let mut tenants = Vec::new();
    for (name, symptoms) in &diagnosis.tenants {
        tell(name.as_str(), symptoms, &mut text);
        let clean = symptoms.is_empty();
        let symptoms = symptoms.iter().map(value).collect::<Vec<_>>();
        tenants.push(json!({"name": name.as_str(), "clean": clean, "symptoms": symptoms}));
    }
    let database = diagnosis.database.iter().map(value).collect::<Vec<_>>();
    let value = json!({
        "worst": diagnosis.worst().map(Condition::name),
        "database": database,
        "tenants": tenants,
    });
    output.line(&text.join("\n"), &value)?;
    Ok(ExitCode::from(match diagnosis.worst() {
        None => 0,
        Some(worst) => exit_code(worst),
    }))
}

/// Returns what opening the database would exit with.
fn exit_code(worst: Condition) -> u8 {
    match worst {
        Condition::KeyFile | Condition::WrongKey => 5,
        Condition::UnfinishedRestore | Condition::RolledBack | Condition::Corrupt => 6,
        Condition::Unreadable => 1,
        _ => 0,
    }
}

fn tell(name: &str, symptoms: &[Symptom], text: &mut Vec<String>) {
    if symptoms.is_empty() {
        text.push(format!("{name}: in order"));
    }
    for symptom in symptoms {
        let condition = symptom.condition;
        let segment = symptom.segment.as_ref();
        let segment = segment.map(|segment| format!(", segment {segment}"));
        let byte = symptom.byte.map(|byte| format!(", byte {byte}"));
        let position = symptom.position;
        let position = position.map(|position| format!(", position {position}"));
        let place = [segment, byte, position].into_iter().flatten();
        text.push(format!(
            "{name}: {}: {}{}\n  means: {}\n  do: {}",
            condition.name(),
            symptom.what,
            place.collect::<String>(),
            condition.meaning(),
            condition.advice(),
        ));
    }
}

fn value(symptom: &Symptom) -> Value {
    json!({
        "condition": symptom.condition.name(),
        "what": symptom.what,
        "segment": symptom.segment,
        "byte": symptom.byte,
        "position": symptom.position.map(kimberlite::Position::get),
        "means": symptom.condition.meaning(),
        "do": symptom.condition.advice(),
    })
}
