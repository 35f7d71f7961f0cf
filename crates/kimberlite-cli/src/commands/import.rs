//! `kimberlite import`.
//!
//! Lines are appended in their order: an append holds lines that follow each other and belong to
//! one stream. The metadata of each event names the source and the line, so that an interrupted
//! import finds the last line that is in the log, which all before it precede, and goes on behind
//! it. It also holds a digest of all lines up to this one: another input of the same name is not
//! taken for the rest of the first.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;

use indicatif::ProgressBar;
use kimberlite::{Database, Event, ExpectedVersion, Tenant};
use serde_json::{Map, Value, json};

use crate::args::{Format, Import, OnError};
use crate::exit::Failure;
use crate::output::Output;

/// A line that was read: its number, stream, and event.
struct Line {
    number: u64,
    stream: String,
    event: Event,
}

/// What an import has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Imported {
    pub(crate) events: u64,
    pub(crate) present: u64,
    pub(crate) unreadable: u64,
}

pub(crate) fn run(db: &Path, args: &Import, output: &Output) -> Result<ExitCode, Failure> {
    let (input, bytes) = open(&args.file)?;
    let db = Database::open(db)?;
    let tenant = db.tenant(&args.tenant)?;
    let bar = output.progress(bytes, "bytes");
    let input = &mut BufReader::new(bar.wrap_read(input));
    let imported = import(&tenant, args, input, &bar);
    bar.finish_and_clear();
    let imported = imported?;
    drop(tenant);
    db.close()?;
    let Imported {
        events,
        present,
        unreadable,
    } = imported;
    output.line(
        &format!(
            "imported {events} events; {present} lines were there already, {unreadable} could \
             not be read"
        ),
        &json!({"imported": events, "present": present, "unreadable": unreadable}),
    )?;
    Ok(ExitCode::SUCCESS)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the file is the user's, not the database's"
)]
fn open(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let failed = |source| Failure::Input {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    Ok((Box::new(file), Some(bytes)))
}

/// Imports what `input` holds.
pub(crate) fn import(
    tenant: &Tenant,
    args: &Import,
    input: &mut dyn BufRead,
    bar: &ProgressBar,
) -> Result<Imported, Failure> {
    let format = args.format()?;
    let source = args.source();
    let present = last_line(tenant, &source)?;
    let mut import = Running {
        tenant,
        args,
        source: &source,
        present,
        digest: blake3::Hasher::new(),
        done: Imported::default(),
    };
    let mut batch: Vec<Line> = Vec::new();
    let mut each = |number: u64, object: Result<Map<String, Value>, String>| {
        let Some(line) = import.line(number, object, bar)? else {
            return Ok(());
        };
        let full = u32::try_from(batch.len()).is_ok_and(|lines| lines >= args.batch);
        let first = batch.first();
        if full || first.is_some_and(|first| first.stream != line.stream) {
            import.append(&mut batch)?;
        }
        batch.push(line);
        Ok(())
    };
    let read = match format {
        Format::Jsonl => json_lines(args, input, &mut each),
        Format::Csv => csv_lines(input, &mut each),
    };
    // What stands before a line that stops the import belongs to it.
    import.append(&mut batch)?;
    read?;
    import.finish()
}

type Each<'a> = dyn FnMut(u64, Result<Map<String, Value>, String>) -> Result<(), Failure> + 'a;

fn json_lines(args: &Import, input: &mut dyn BufRead, each: &mut Each<'_>) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let read = input.read_until(b'\n', &mut bytes);
        let read = read.map_err(|source| Failure::Input {
            path: args.file.clone(),
            source,
        })?;
        if read == 0 {
            break;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        each(
            number,
            serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        )?;
    }
    Ok(())
}

fn csv_lines(input: &mut dyn BufRead, each: &mut Each<'_>) -> Result<(), Failure> {
    let mut reader = csv::Reader::from_reader(input);
    let names = reader.headers().cloned();
    let names = names.map_err(|error| Failure::Line {
        line: 1,
        problem: error.to_string(),
    })?;
    let mut number = 1;
    for record in reader.records() {
        number = match &record {
            Ok(record) => record.position().map_or(number + 1, csv::Position::line),
            Err(_) => number + 1,
        };
        let object = record.map_err(|error| error.to_string()).map(|record| {
            let fields = names.iter().zip(record.iter());
            fields
                .map(|(name, field)| (name.to_owned(), Value::from(field)))
                .collect()
        });
        each(number, object)?;
    }
    Ok(())
}

/// What the log holds of a source already.
struct Present {
    /// The last line.
    line: u64,
    /// The digest of all lines up to it.
    digest: String,
}

struct Running<'a> {
    tenant: &'a Tenant,
    args: &'a Import,
    source: &'a str,
    present: Option<Present>,
    /// Of all lines that could be read so far.
    digest: blake3::Hasher,
    done: Imported,
}

impl Running<'_> {
    /// Takes in a line; returns it when it is to be appended.
    fn line(
        &mut self,
        number: u64,
        object: Result<Map<String, Value>, String>,
        bar: &ProgressBar,
    ) -> Result<Option<Line>, Failure> {
        // Before the first line behind it that can be read is taken in.
        self.check_present(number - 1)?;
        let line = object.and_then(|object| self.event(number, object));
        let present = self.present.as_ref().map_or(0, |present| present.line);
        match line {
            Ok(line) if number > present => Ok(Some(line)),
            Ok(_) => {
                self.done.present += 1;
                Ok(None)
            }
            Err(problem) if self.args.on_error == OnError::Stop => Err(Failure::Line {
                line: number,
                problem,
            }),
            Err(problem) => {
                self.done.unreadable += 1;
                bar.suspend(|| Output::warning(&format!("line {number}: {problem}")));
                Ok(None)
            }
        }
    }

    /// Compares what was read with what is in the log, once all lines up to `number` were.
    fn check_present(&mut self, number: u64) -> Result<(), Failure> {
        let reached = self.present.take_if(|present| present.line <= number);
        match reached {
            Some(present) if present.digest != self.digest() => Err(Failure::OtherSource {
                source_name: self.source.to_owned(),
                line: present.line,
            }),
            _ => Ok(()),
        }
    }

    fn digest(&self) -> String {
        self.digest.finalize().to_hex().chars().take(32).collect()
    }

    fn event(&mut self, number: u64, object: Map<String, Value>) -> Result<Line, String> {
        let field = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(format!("the field {name:?} is neither text nor a number")),
            None => Err(format!("there is no field {name:?}")),
        };
        let (stream, event_type) = (field(&self.args.stream_by)?, field(&self.args.type_by)?);
        kimberlite::StreamName::new(&stream).map_err(|error| error.to_string())?;
        kimberlite::EventType::new(&event_type).map_err(|error| error.to_string())?;
        let event = Event::json(event_type, &Value::Object(object));
        let event = event.map_err(|error| error.to_string())?;
        // With its length before it, so that lines cannot be divided in another way.
        self.digest
            .update(&(event.data().len() as u64).to_le_bytes());
        self.digest.update(event.data());
        let metadata = json!({"source": self.source, "line": number, "digest": self.digest()});
        Ok(Line {
            number,
            stream,
            event: event.with_metadata(metadata.to_string()),
        })
    }

    fn append(&mut self, batch: &mut Vec<Line>) -> Result<(), Failure> {
        let Some(first) = batch.first() else {
            return Ok(());
        };
        debug_assert!(batch.is_sorted_by_key(|line| line.number));
        let stream = self.tenant.stream(&first.stream)?;
        let events = batch.drain(..).map(|line| line.event).collect::<Vec<_>>();
        stream.append(ExpectedVersion::Any, &events)?;
        self.done.events += u64::try_from(events.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// An input that ends before what is in the log is another one, too.
    fn finish(mut self) -> Result<Imported, Failure> {
        self.check_present(u64::MAX)?;
        Ok(self.done)
    }
}

/// Finds the last line of this source that is in the log.
fn last_line(tenant: &Tenant, source: &str) -> Result<Option<Present>, Failure> {
    for record in tenant.read_all(..).rev() {
        let metadata = record?.metadata().clone();
        let Ok(metadata) = serde_json::from_slice::<Value>(&metadata) else {
            continue;
        };
        let text = |name| metadata.get(name).and_then(Value::as_str);
        let line = metadata.get("line").and_then(Value::as_u64);
        if let (Some(name), Some(line), Some(digest)) = (text("source"), line, text("digest"))
            && name == source
        {
            let digest = digest.to_owned();
            return Ok(Some(Present { line, digest }));
        }
    }
    Ok(None)
}
