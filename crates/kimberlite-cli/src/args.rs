//! What the command line takes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::exit::Failure;

/// Embedded, verifiable log database.
#[derive(Debug, Parser)]
#[command(
    name = "kimberlite",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 \
    verification found damage or the command line is wrong, 3 not found, 4 in use elsewhere, \
    5 keys cannot be used, 6 the data on disk is damaged or was rolled back."
)]
pub(crate) struct Args {
    /// Directory of the database.
    #[arg(
        long,
        global = true,
        env = "KIMBERLITE_DB",
        default_value = "./kimberlite-data"
    )]
    pub(crate) db: PathBuf,

    /// Write JSON, one value a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append the lines of a file as events; an interrupted import goes on where it stopped.
    Import(Import),
    /// Append one event.
    Append(Append),
    /// Print events.
    Read(Read),
    /// Print the newest events, and with -f those that follow.
    Tail(Tail),
    /// Print the newest event of a stream, now or as of some position.
    Get(Get),
    /// Print the newest event of each stream whose name begins so, now or as of some position.
    Scan(Scan),
    /// Print what the newest event of a stream was, one time after the other, the newest first.
    History(History),
    /// List, verify and rebuild what is derived from the log.
    Projections(Projections),
    /// List the streams of a tenant.
    Streams(Tenant),
    /// Ask the tables that a mapping makes of events something; see docs/howto-sql.md.
    Sql(Sql),
    /// Recompute everything and compare; exits with 2 when something is wrong.
    Verify(Tenant),
    /// Copy all tenants to another directory; a later backup into it copies what is new.
    Backup(Backup),
    /// Restore a backup into an empty directory, as a new incarnation of each log.
    Restore(Restore),
    /// Say what state the database is in and what to do, without changing anything.
    Doctor,
    /// Say what ending a damaged or rolled back log before its damage would lose, and do it with
    /// --accept-loss.
    Repair(Repair),
    /// Read closed segments again, slowly, and exit with 2 when something rotted.
    Scrub(Scrub),
    /// Put a legal hold on a tenant or a stream: nothing of it is purged until it is released.
    Hold(Hold),
    /// Lift a legal hold.
    Release(Release),
    /// List the legal holds in force.
    Holds(Tenant),
    /// Set how old events must be before they may be purged.
    Retain(Retain),
    /// Say what removing the payloads of old events would free, and do it with --yes.
    Purge(Purge),
    /// Sign a checkpoint of everything appended so far.
    Checkpoint(Tenant),
    /// Show segments, keys by id, sessions and checkpoints.
    Inspect(Tenant),
    /// Count records, events, streams and bytes, and what this command asked of its caches.
    Stats(Tenant),
    /// See everything at work on a fresh database.
    Demo(Demo),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Kill a writer over and over, and check that nothing acknowledged is lost.
    KillTest {
        /// How many times.
        #[arg(long, default_value_t = 100)]
        rounds: u32,
        /// Chooses the moments.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    #[command(hide = true)]
    DemoWriter { dir: PathBuf },
    #[command(hide = true)]
    DemoCheck { dir: PathBuf },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Tenant {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// The stream.
    pub(crate) stream: String,
    /// As of the record at this position.
    #[arg(long)]
    pub(crate) at: Option<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Scan {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// What the names of the streams begin with; by default all.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// As of the record at this position.
    #[arg(long)]
    pub(crate) at: Option<u64>,
    /// How many at most.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// The stream.
    pub(crate) stream: String,
    /// How many at most.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Projections {
    #[command(subcommand)]
    pub(crate) act: ProjectionsAct,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectionsAct {
    /// Say what each has, and how far behind it was when it was flushed.
    #[command(visible_alias = "status")]
    List(Tenant),
    /// Read all of one and check each page.
    Verify(NamedProjection),
    /// Remove what one has derived, so that it is derived anew when it runs next.
    Rebuild(NamedProjection),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NamedProjection {
    /// The projection.
    pub(crate) name: String,
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Hold {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// Only this stream; by default all of the tenant.
    #[arg(long, short)]
    pub(crate) stream: Option<String>,
    /// Why; stored encrypted like an event.
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Release {
    /// The id of the hold.
    pub(crate) hold: u64,
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// Why; stored encrypted like an event.
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Retain {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// Only this stream; by default all that have no rule of their own.
    #[arg(long, short)]
    pub(crate) stream: Option<String>,
    /// Days between an event and the newest record of the log.
    #[arg(long, required_unless_present_any = ["records", "none"], value_parser = clap::value_parser!(u64).range(..=100_000))]
    pub(crate) days: Option<u64>,
    /// Records behind an event.
    #[arg(long)]
    pub(crate) records: Option<u64>,
    /// Take the rule away.
    #[arg(long, conflicts_with_all = ["days", "records"])]
    pub(crate) none: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Purge {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// Only this stream; by default all of the tenant.
    #[arg(long, short)]
    pub(crate) stream: Option<String>,
    /// The position before which events are purged.
    #[arg(long)]
    pub(crate) until: u64,
    /// Only say what would be done, as without --yes.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Do it: what is removed cannot be brought back.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Import {
    /// The file, or - for standard input.
    pub(crate) file: PathBuf,
    /// What the file holds; by default what its name ends in.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// The tenant; made when there is none.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// The field that names the stream.
    #[arg(long)]
    pub(crate) stream_by: String,
    /// The field that names the event's type.
    #[arg(long)]
    pub(crate) type_by: String,
    /// Lines that are appended together at most, where they belong to one stream.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// What a line that cannot be read does.
    #[arg(long, value_enum, default_value_t = OnError::Stop)]
    pub(crate) on_error: OnError,
    /// What the input is called in the log, for an interrupted import to go on; by default the name
    /// of the file.
    #[arg(long)]
    pub(crate) source: Option<String>,
}

impl Import {
    pub(crate) fn format(&self) -> Result<Format, Failure> {
        let ending = self.file.extension().and_then(OsStr::to_str);
        match (self.format, ending) {
            (Some(format), _) => Ok(format),
            (None, Some("jsonl" | "ndjson")) => Ok(Format::Jsonl),
            (None, Some("csv")) => Ok(Format::Csv),
            (None, _) => Err(Failure::UnknownFormat {
                path: self.file.clone(),
            }),
        }
    }

    pub(crate) fn source(&self) -> Cow<'_, str> {
        match (&self.source, self.file.file_name()) {
            (Some(source), _) => source.into(),
            (None, Some(name)) => name.to_string_lossy(),
            (None, None) => "-".into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values under a line of field names.
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Stop with the number of the line.
    Stop,
    /// Report the line and go on.
    Keep,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Append {
    /// The tenant; made when there is none.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// The stream.
    #[arg(long, short)]
    pub(crate) stream: String,
    /// The type of the event.
    #[arg(long = "type")]
    pub(crate) event_type: String,
    /// A text of this append alone: the same append under the same key is not appended again.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The data, or - for standard input.
    pub(crate) data: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Read {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// One stream only; --from and --to then count its events.
    #[arg(long, short)]
    pub(crate) stream: Option<String>,
    /// The first position, or offset.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// The position, or offset, to stop before.
    #[arg(long)]
    pub(crate) to: Option<u64>,
    /// Newest first.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// How many at most.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Tail {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// How many of the newest.
    #[arg(long, short = 'n', default_value_t = 10)]
    pub(crate) lines: usize,
    /// Go on with what is appended from now on.
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sql {
    /// The statement; only one that reads is run.
    pub(crate) statement: String,
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// The file that says, as JSON, which events become which rows; by default what the projection was
    /// made by.
    #[arg(long)]
    pub(crate) mapping: Option<PathBuf>,
    /// The name of the projection.
    #[arg(long, default_value = "sql")]
    pub(crate) projection: String,
    /// The tables as they were before this position, derived for this statement alone.
    #[arg(long)]
    pub(crate) as_of: Option<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Backup {
    /// The directory of the backup: empty, or with an earlier backup of the same database.
    pub(crate) to: PathBuf,
    /// Copy the root key too. Whoever has that backup can read everything in it.
    #[arg(long)]
    pub(crate) with_root_key: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Restore {
    /// The directory of the backup.
    pub(crate) from: PathBuf,
    /// The directory of the database; must not exist, or be empty. Not --db.
    pub(crate) to: PathBuf,
    /// The file of the root key, for a backup that was made without it.
    #[arg(long)]
    pub(crate) root_key: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Repair {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// Give up what cannot be read and all that stands behind it. Its bytes are kept.
    #[arg(long)]
    pub(crate) accept_loss: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Scrub {
    /// The tenant.
    #[arg(long, short)]
    pub(crate) tenant: String,
    /// Bytes a second at most, such as 50MiB; as fast as it goes when left out.
    #[arg(long, value_parser = parse_bytes)]
    pub(crate) rate: Option<u64>,
    /// Leave out the segments that end at or before this position.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
}

/// Reads a number of bytes, with KiB, MiB or GiB behind it or without.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let unit = ["KiB", "MiB", "GiB"];
    let unit = (1..).zip(unit).find(|(_, unit)| text.ends_with(unit));
    let (power, digits) = match unit {
        Some((power, unit)) => (power, text.trim_end_matches(unit)),
        None => (0, text),
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(1024_u64.pow(power)));
    let bytes = bytes.filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| "a number of bytes such as 1048576 or 50MiB is wanted".to_owned())
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Demo {
    /// Keep the databases in this directory, which must not exist.
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}
