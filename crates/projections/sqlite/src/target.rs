//! The target that follows the log into the files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite::Position;
use kimberlite::projection::store::{Applied, Identity};
use kimberlite::projection::{Batch, Target, TargetError};

use crate::file::{FileError, SqliteFile};
use crate::generations::Generations;
use crate::plan::Plan;

#[derive(Debug)]
pub(crate) struct SqliteTarget {
    generations: Generations,
    plan: Arc<Plan>,
    identity: Identity,
    /// What is read; none where what was there cannot be gone on with, though it is linked still.
    current: Option<Numbered>,
    /// What will take its place.
    building: Option<Numbered>,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    file: SqliteFile,
}

impl SqliteTarget {
    /// Opens the newest file, and makes one where there is none. One that is derived from something else, or is no
    /// state of this log, or is damaged, is left for reading while another one is built.
    pub(crate) fn open(
        directory: &Path,
        identity: Identity,
        plan: Arc<Plan>,
        is_prefix: &dyn Fn(Applied) -> bool,
    ) -> Result<Self, TargetError> {
        let mut target = Self {
            generations: Generations::new(directory),
            plan,
            identity,
            current: None,
            building: None,
        };
        let linked = target.generations.linked().map_err(told_io)?;
        if let Some(number) = linked {
            target.current = target.usable(number, is_prefix)?;
        }
        if target.current.is_none() {
            target.find_building(linked, is_prefix)?;
        }
        let numbers = [&target.current, &target.building].map(|it| it.as_ref().map(|it| it.number));
        let kept = numbers.into_iter().chain([linked]).flatten();
        let kept = kept.collect::<Vec<_>>();
        target.generations.keep(&kept).map_err(told_io)?;
        Ok(target)
    }

    /// Goes on with what was being built, or begins.
    fn find_building(
        &mut self,
        linked: Option<u64>,
        is_prefix: &dyn Fn(Applied) -> bool,
    ) -> Result<(), TargetError> {
        let numbers = self.generations.all().map_err(told_io)?;
        for number in numbers.into_iter().rev().filter(|it| Some(*it) != linked) {
            self.building = self.usable(number, is_prefix)?;
            if self.building.is_some() {
                break;
            }
        }
        if self.building.is_none() {
            self.building = Some(self.begin()?);
        }
        if linked.is_none() {
            self.switch()?;
        }
        Ok(())
    }

    fn usable(
        &self,
        number: u64,
        is_prefix: &dyn Fn(Applied) -> bool,
    ) -> Result<Option<Numbered>, TargetError> {
        let path = self.generations.path(number);
        // Only then is one that cannot be opened an error.
        if !self.generations.all().map_err(told_io)?.contains(&number) {
            return Ok(None);
        }
        let digest = self.identity.digest();
        match SqliteFile::open(&path, Arc::clone(&self.plan), &digest) {
            Ok(Some(file)) if is_prefix(file.applied()) => Ok(Some(Numbered { number, file })),
            Ok(_) => Ok(None),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(told(path, self.applied(), error)),
        }
    }

    /// Makes the next file.
    fn begin(&self) -> Result<Numbered, TargetError> {
        let numbers = self.generations.all().map_err(told_io)?;
        let number = numbers.last().map_or(1, |last| last.saturating_add(1));
        let path = self.generations.path(number);
        self.generations.make(number).map_err(told_io)?;
        let digest = self.identity.digest();
        let file = SqliteFile::create(&path, Arc::clone(&self.plan), &digest);
        let file = file.map_err(|error| told(path, self.applied(), error))?;
        Ok(Numbered { number, file })
    }

    /// Has what was built take the place of what is read.
    fn switch(&mut self) -> Result<(), TargetError> {
        let Some(building) = self.building.take() else {
            return Ok(());
        };
        let number = building.number;
        // Until it is linked, what was built is tried again.
        let building = self.building.insert(building);
        let applied = building.file.applied();
        let flushed = building.file.flush();
        flushed.map_err(|error| told(building.file.path().to_path_buf(), applied, error))?;
        self.generations.publish(number).map_err(told_io)?;
        // Its connection is closed before its file goes.
        self.current = self.building.take();
        self.generations.keep(&[number]).map_err(told_io)
    }

    fn active(&self) -> Option<&Numbered> {
        self.building.as_ref().or(self.current.as_ref())
    }

    /// Runs `act` on the file that takes in the log.
    fn on_file(
        &mut self,
        act: impl FnOnce(&mut SqliteFile) -> Result<(), FileError>,
    ) -> Result<(), TargetError> {
        let active = self.building.as_mut().or(self.current.as_mut());
        let file = &mut active.expect("a target has one of the two").file;
        let applied = file.applied();
        act(file).map_err(|error| told(file.path().to_path_buf(), applied, error))
    }
}

impl Target for SqliteTarget {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn applied(&self) -> Applied {
        self.active().map_or(BEGINNING, |it| it.file.applied())
    }

    fn readable(&self) -> Position {
        // What cannot be gone on with is linked until another file takes its place.
        let current = self.current.as_ref();
        current.map_or(Position::ZERO, |it| it.file.applied().position)
    }

    fn is_rebuilding(&self) -> bool {
        self.building.is_some()
    }

    fn is_damaged(&self) -> bool {
        // Readers have connections of their own, and SQLite tells the one that comes across it.
        false
    }

    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), TargetError> {
        self.on_file(|file| file.apply(batch.first(), batch.events(), batch.end()))
    }

    fn pending_bytes(&self) -> usize {
        self.active().map_or(0, |it| it.file.pending_bytes())
    }

    fn flush(&mut self) -> Result<(), TargetError> {
        self.on_file(SqliteFile::flush)
    }

    fn rebuild(&mut self, identity: Identity) -> Result<(), TargetError> {
        self.identity = identity;
        let built = self.building.take().map(|it| it.number);
        if let Some(number) = built {
            self.generations.remove(number).map_err(told_io)?;
        }
        self.building = Some(self.begin()?);
        Ok(())
    }

    fn caught_up(&mut self) -> Result<(), TargetError> {
        self.switch()
    }

    fn recover(&mut self) -> Result<(), TargetError> {
        // Whether a commit that failed was one is seen in the file.
        let digest = self.identity.digest();
        let plan = Arc::clone(&self.plan);
        self.on_file(|file| {
            let opened = SqliteFile::open(file.path(), plan, &digest)?;
            *file = opened.ok_or(FileError::Moved)?;
            Ok(())
        })
    }
}

const BEGINNING: Applied = Applied {
    position: Position::ZERO,
    chain: kimberlite::ChainHash::new([0; 32]),
};

/// Tells damage, after which the file is rebuilt, and what passes by itself from what has to be tried again.
fn told(path: PathBuf, applied: Applied, error: FileError) -> TargetError {
    if error.is_damage() {
        return TargetError::Damaged {
            path,
            source: Box::new(error),
        };
    }
    if error.passes() {
        return TargetError::Unavailable {
            path,
            source: Box::new(error),
        };
    }
    TargetError::Failed {
        position: applied.position,
        source: Box::new(error),
    }
}

fn told_io(error: io::Error) -> TargetError {
    TargetError::Failed {
        position: Position::ZERO,
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests;
