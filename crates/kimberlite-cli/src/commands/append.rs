//! `kimberlite append`.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use kimberlite::{AppendOptions, Database, Event, IdempotencyKey};
use serde_json::json;

use crate::args::Append;
use crate::exit::Failure;
use crate::output::Output;

pub(crate) fn run(db: &Path, args: &Append, output: &Output) -> Result<ExitCode, Failure> {
    let mut data = args.data.clone().into_bytes();
    if args.data == "-" {
        data.clear();
        let read = std::io::stdin().read_to_end(&mut data);
        read.map_err(|source| Failure::Input {
            path: "-".into(),
            source,
        })?;
    }
    let db = Database::open(db)?;
    let stream = db.tenant(&args.tenant)?.stream(&args.stream)?;
    let event = Event::new(args.event_type.as_str(), data);
    let mut options = AppendOptions::new();
    if let Some(key) = &args.key {
        options = options.idempotency_key(IdempotencyKey::from_bytes(key.as_bytes()));
    }
    let receipt = stream.append_with(options, &[event])?;
    let (position, offset) = (receipt.first_position().get(), receipt.first_offset().get());
    let duplicate = receipt.is_duplicate();
    let done = if duplicate {
        "was there already"
    } else {
        "appended"
    };
    output.line(
        &format!("{done} at position {position}, offset {offset}"),
        &json!({"position": position, "offset": offset, "duplicate": duplicate}),
    )?;
    drop(stream);
    db.close()?;
    Ok(ExitCode::SUCCESS)
}
