//! An ext4 in a file that is shut down under a writer, as power loss would: what the page cache held
//! is gone, and mounting it again replays its journal.
//!
//! Acknowledgements come through a pipe, and so stay outside of what is shut down. The writer is
//! stopped meanwhile, between two system calls. With a sync under way one event in six rounds was
//! acknowledged and gone (Linux 6.18, without a flush): its blocks, written for the first time, read
//! as unwritten. That is taken for a sync that the file system, shut down, answered with success,
//! which no power loss does; it was not proved.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::writer::{Writer, acknowledged, check};
use super::{Options, drawn, is_there, scratch};
use crate::Outcome;

const IMAGE_BYTES: u64 = 256 << 20;

/// `EXT4_IOC_SHUTDOWN`, which the interpreter calls so that no unsafe code need be here.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', int(sys.argv[2])))";

/// The journal is written before the file system goes.
const LOG_FLUSH: u32 = 1;
/// It is not.
const NO_LOG_FLUSH: u32 = 2;

/// How many events a writer acknowledges at most before the shutdown.
const EVENTS_MAX: u64 = 600;

/// In so many rounds syncs that do nothing must have been found.
const PROOF_ROUNDS: u32 = 10;

pub(super) fn run(binary: &Path, options: &Options) -> Outcome {
    if let Some(why) = reason_to_skip() {
        println!("shutdown: skipped, {why}");
        return Ok(());
    }
    let folder = scratch("shutdown")?;
    let volume = match Volume::make(&folder) {
        Ok(volume) => volume,
        Err(error) => {
            println!("shutdown: skipped, {error}");
            return Ok(std::fs::remove_dir_all(&folder)?);
        }
    };
    let outcome = if options.prove {
        prove(binary, &volume, options.seed)
    } else {
        rounds(binary, &volume, options)
    };
    volume.unmount()?;
    match outcome {
        Ok(said) => {
            std::fs::remove_dir_all(&folder)?;
            println!("shutdown: {said}");
            Ok(())
        }
        Err(error) => Err(format!("{error} (image in {})", folder.display()).into()),
    }
}

fn reason_to_skip() -> Option<&'static str> {
    let needed = [
        ("mkfs.ext4", "-V", "it needs mkfs.ext4"),
        ("python3", "--version", "it needs python3"),
        ("mount", "--version", "it needs mount"),
    ];
    let missing = needed
        .into_iter()
        .find(|(program, argument, _)| !is_there(program, argument));
    missing.map(|(_, _, why)| why)
}

fn rounds(
    binary: &Path,
    volume: &Volume,
    options: &Options,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut total = 0;
    for round in 0..options.rounds {
        let flags = if round % 2 == 0 {
            NO_LOG_FLUSH
        } else {
            LOG_FLUSH
        };
        let events = drawn(options.seed, round, EVENTS_MAX);
        let in_round =
            |error| format!("round {round}, after {events} events, flags {flags}: {error}");
        let writer = Writer::start(Command::new(binary), &volume.db())?;
        let shut_down = |writer: &Writer| {
            writer.stop()?;
            volume.shut_down(flags)?;
            writer.go_on()
        };
        let told = shut_down_under(writer, volume, events, shut_down)?;
        check(binary, &volume.db(), &told).map_err(in_round)?;
        total += acknowledged(&told);
    }
    let rounds = options.rounds;
    Ok(format!(
        "{rounds} rounds, {total} acknowledged events, none lost"
    ))
}

/// Lets the writer's syncs do nothing: what it acknowledges is lost, and that must be seen.
fn prove(binary: &Path, volume: &Volume, seed: u64) -> Result<String, Box<dyn std::error::Error>> {
    if !is_there("strace", "--version") {
        return Ok("nothing was proved, that needs strace".to_owned());
    }
    for round in 0..PROOF_ROUNDS {
        let mut command = Command::new("strace");
        command.args(["--follow-forks", "--quiet=all", "--output=/dev/null"]);
        command.args([
            "--trace=fdatasync,fsync",
            "--inject=fdatasync,fsync:retval=0",
        ]);
        command.arg(binary);
        let events = 100 + drawn(seed, round, EVENTS_MAX);
        let writer = Writer::start(command, &volume.db())?;
        let shut_down = |_: &Writer| volume.shut_down(NO_LOG_FLUSH);
        let told = shut_down_under(writer, volume, events, shut_down)?;
        if let Err(error) = check(binary, &volume.db(), &told) {
            return Ok(format!(
                "syncs that do nothing were found in round {round}: {error}"
            ));
        }
    }
    Err("syncs that do nothing were not found".into())
}

/// Shuts the file system down under a writer, mounts it again, and returns what the writer told.
fn shut_down_under(
    mut writer: Writer,
    volume: &Volume,
    events: u64,
    shut_down: impl Fn(&Writer) -> Outcome,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let shut_down = writer
        .wait_for(events)
        .map_err(Into::into)
        .and_then(|()| shut_down(&writer));
    if let Err(error) = shut_down {
        writer.kill();
        return Err(error);
    }
    let told = writer.end()?;
    volume.unmount()?;
    volume.mount()?;
    Ok(told)
}

/// A file system in a file.
struct Volume {
    image: PathBuf,
    mount_point: PathBuf,
}

impl Volume {
    fn make(folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let volume = Self {
            image: folder.join("image"),
            mount_point: folder.join("mounted"),
        };
        std::fs::create_dir(&volume.mount_point)?;
        std::fs::File::create_new(&volume.image)?.set_len(IMAGE_BYTES)?;
        done(
            Command::new("mkfs.ext4")
                .args(["-q", "-F"])
                .arg(&volume.image),
        )?;
        volume.mount()?;
        Ok(volume)
    }

    fn db(&self) -> PathBuf {
        self.mount_point.join("db")
    }

    fn mount(&self) -> Outcome {
        let mut mount = Command::new("mount");
        done(
            mount
                .args(["-o", "loop"])
                .arg(&self.image)
                .arg(&self.mount_point),
        )
    }

    fn unmount(&self) -> Outcome {
        done(Command::new("umount").arg(&self.mount_point))
    }

    fn shut_down(&self, flags: u32) -> Outcome {
        let mut python = Command::new("python3");
        python.args(["-c", SHUTDOWN]).arg(&self.mount_point);
        done(python.arg(flags.to_string()))
    }
}

/// Runs a command that says why it fails.
fn done(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().to_string_lossy();
    Err(format!("{program} fails: {}", why.trim()).into())
}
