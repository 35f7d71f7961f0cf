//! Events of a Kimberlite log as tables of a `SQLite` file, which any SQL tool reads.
//!
//! A [`Mapping`] says which events become which rows. A [`SqliteProjection`] follows a tenant's log by it: the file
//! holds what a prefix of the log says, together with the position where that ends. It can always be derived anew,
//! and is, when the mapping changes, when it is damaged, and after a purge.
//!
//! It is not a second place for data, and nothing is written to it but by events.
//!
//! ```
//! use kimberlite::{Database, Event, ExpectedVersion};
//! use kimberlite_projection_sqlite::{ColumnType, Mapping, Rule, SqliteProjection, Table, Value};
//!
//! let mapping = Mapping::new([Table::new("patients")
//!     .key(["id"])
//!     .column("id", ColumnType::Text, "$stream")
//!     .column("ward", ColumnType::Integer, "/ward")
//!     .column("since_ns", ColumnType::Integer, "$time")
//!     .index(["ward"])
//!     .on(Rule::upsert(["admitted", "moved"]).streams("patient/"))
//!     .on(Rule::delete(["discharged"]).streams("patient/"))])?;
//!
//! # let dir = tempfile::tempdir()?;
//! let db = Database::open(dir.path())?;
//! let clinic = db.tenant("clinic-7")?;
//! let patients = SqliteProjection::open(&clinic, "patients", &mapping)?;
//!
//! let patient = clinic.stream("patient/42")?;
//! let admitted = Event::new("admitted", r#"{"ward": 3}"#);
//! let receipt = patient.append(ExpectedVersion::Any, &[admitted])?;
//!
//! patients.wait_for(receipt.last_position())?; // it runs a little behind the log
//! let answer = patients.query("SELECT ward FROM patients WHERE id = ?1", &["patient/42".into()])?;
//! assert_eq!(answer.rows, [[Value::Integer(3)]]);
//! println!("sqlite3 -readonly {}", patients.path().display());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! * Whatever happens to the process or the machine, the file is what the mapping makes of the events before the
//!   position in its table `_kimberlite`.
//! * An event that does not fit stops nothing. It is counted in `_kimberlite`, and the newest thousand stand in
//!   `_kimberlite_skipped` with the reason.
//! * After a purge the file is derived anew, and the one before is removed.
//!
//! # Limits
//!
//! * The file is **not encrypted**, whatever the database is: making a projection is choosing that.
//! * It is not on the [`Disk`](kimberlite::Disk) that a database was opened with, but where the system has the database's
//!   directory.
//! * `SQLite` has no checksums: a bit that turns in a value is not told.
//! * 64 tables of 200 columns, names of 64 bytes; JSON that is nested 127 deep.

#![forbid(unsafe_code)]

mod error;
mod file;
mod generations;
mod mapping;
mod plan;
mod projection;
mod reader;
mod row;
mod take_in;
mod target;

pub use error::Error;
pub use mapping::{ColumnType, Mapping, MappingError, Rule, Table, TableError};
pub use projection::SqliteProjection;
pub use reader::{Answer, Reader, Value};
