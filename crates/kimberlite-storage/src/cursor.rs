//! Going through a log, in either direction, a few frames at a time.

use std::ops::Range;

use kimberlite_types::Position;

use crate::error::StorageError;
use crate::frame::{Content, FrameHeader, FrameView};
use crate::mapped::Mapped;
use crate::reader::{LogReader, Place, walk_file};
use crate::segment::{Floor, Segment};

/// Bytes of frames that are looked up together when they are read one after another.
const RUN_BYTES: u64 = 64 << 10;

/// Records before the one that is asked for, of which the frames are looked up with its own when
/// they are read backward.
const RUN_RECORDS: u64 = 64;

/// Bytes of frames that are checked together, in the order in which memory brings them fastest, when
/// they are read backward.
const CHECKED_BYTES_MAX: u64 = 256 << 10;

/// Frames of the tail that are looked up together likewise.
const RUN_FRAMES: usize = 16;

/// Finds the frames of a log for one who reads neighbours, without a look-up for each.
#[derive(Debug)]
pub struct FrameCursor {
    reader: LogReader,
    /// Frames that follow on each other.
    run: Vec<FrameView>,
    /// The one that was asked for last.
    nth: usize,
    /// Whether all payloads of the run are known to be what was written.
    checked: bool,
}

/// Where the next frame is likely to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heading {
    Forward,
    Backward,
    Anywhere,
}

impl FrameCursor {
    /// Makes a cursor that has read nothing yet.
    pub fn new(reader: LogReader) -> Self {
        Self {
            reader,
            run: Vec::new(),
            nth: 0,
            checked: false,
        }
    }

    /// Returns the header of the frame that holds `position`, and what is stored of the payload there,
    /// checked; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// As [`LogReader::record`].
    pub fn content(
        &mut self,
        position: Position,
    ) -> Result<Option<(&FrameHeader, Content)>, StorageError> {
        if self.frame(position)?.is_none() {
            return Ok(None);
        }
        let checked = self.checked;
        let frame = self.run.get(self.nth);
        let read = frame.map(|frame| {
            let known = checked.then(|| frame.content_unchecked(position)).flatten();
            let content = known.map_or_else(|| frame.content(position), Ok)?;
            Ok((frame.header(), content))
        });
        read.transpose().map_err(StorageError::Corrupt)
    }

    /// Returns the frame that holds `position`; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// As [`LogReader::frame`].
    pub fn frame(&mut self, position: Position) -> Result<Option<&FrameView>, StorageError> {
        if !self.run_holds(position) {
            let heading = self.heading(position);
            if !self.find_run(position, heading)? {
                return Ok(None);
            }
        }
        Ok(self.run.get(self.nth))
    }

    /// Turns to the frame of the run that holds `position`, if one does.
    fn run_holds(&mut self, position: Position) -> bool {
        let holds = |nth: usize| {
            self.run
                .get(nth)
                .is_some_and(|frame| holds(frame, position))
        };
        let near = [
            Some(self.nth),
            self.nth.checked_add(1),
            self.nth.checked_sub(1),
        ];
        let Some(nth) = near.into_iter().flatten().find(|&nth| holds(nth)) else {
            return false;
        };
        self.nth = nth;
        true
    }

    fn heading(&self, position: Position) -> Heading {
        let last = self.run.last().map(|frame| frame.header().end_position());
        let first = self.run.first().map(|frame| frame.header().base_position);
        if last == Some(position) {
            Heading::Forward
        } else if first.is_some() && first == position.checked_add(1) {
            Heading::Backward
        } else {
            Heading::Anywhere
        }
    }

    fn find_run(&mut self, position: Position, heading: Heading) -> Result<bool, StorageError> {
        let Some(place) = self.reader.place(position)? else {
            return Ok(false);
        };
        let mut run = std::mem::take(&mut self.run);
        let nth = match place {
            Place::Mapped { mapped, floor } => {
                run.clear();
                match heading {
                    Heading::Backward => self.run_before(&mapped, floor, position, &mut run)?,
                    _ => self.run_from(&mapped, (floor, heading), position, &mut run)?,
                }
            }
            Place::Tail(frame) => {
                let nth;
                (run, nth) = self.tail_run(frame, position, heading);
                nth
            }
            Place::Active {
                segment,
                floor,
                end,
            } => {
                run = vec![file_frame(run.last(), &segment, (floor, end), position)?];
                0
            }
            Place::Closed(closed) => {
                let opened = self.reader.shared.open(&closed)?;
                let end = opened.frames_end;
                let within = (opened.floor(position), end);
                run = vec![file_frame(run.last(), &opened.segment, within, position)?];
                0
            }
        };
        debug_assert!(run.get(nth).is_some_and(|frame| holds(frame, position)));
        let bytes = run
            .iter()
            .map(|frame| frame.header().stored_bytes())
            .sum::<u64>();
        self.checked = heading == Heading::Backward
            && bytes <= CHECKED_BYTES_MAX
            && run.iter().all(FrameView::is_sound);
        (self.run, self.nth) = (run, nth);
        Ok(true)
    }

    /// Collects the frame that is wanted and, where one goes forward, what follows on it.
    fn run_from(
        &self,
        mapped: &Mapped,
        (floor, heading): (Floor, Heading),
        position: Position,
        run: &mut Vec<FrameView>,
    ) -> Result<usize, StorageError> {
        let frame = mapped.frame(floor, position)?;
        let range = frame.at() + frame.header().stored_bytes()..frame.at() + RUN_BYTES;
        run.push(frame);
        if heading == Heading::Forward {
            collect(mapped, range, self.reader.end(), run);
        }
        Ok(0)
    }

    /// Collects the frame that is wanted, and what stands before it.
    fn run_before(
        &self,
        mapped: &Mapped,
        floor: Floor,
        position: Position,
        run: &mut Vec<FrameView>,
    ) -> Result<usize, StorageError> {
        let frame = mapped.frame(floor, position)?;
        let earlier = Position::new(position.get().saturating_sub(RUN_RECORDS));
        let earlier = match self.reader.place(earlier)? {
            Some(Place::Mapped {
                mapped: other,
                floor,
            }) if other.base() == mapped.base() => floor.from,
            _ => floor.from,
        };
        let end = frame.header().base_position;
        collect(mapped, earlier..frame.at(), end, run);
        // What a damaged header or the word of a seal cuts short is left out.
        if run
            .last()
            .is_some_and(|last| last.header().end_position() != end)
        {
            run.clear();
        }
        run.push(frame);
        Ok(run.len() - 1)
    }

    fn tail_run(
        &self,
        frame: FrameView,
        position: Position,
        heading: Heading,
    ) -> (Vec<FrameView>, usize) {
        let view = self.reader.shared.view();
        let run = match heading {
            Heading::Forward => view.tail.around(position, [0, RUN_FRAMES], view.end),
            Heading::Backward => view.tail.around(position, [RUN_FRAMES, 0], view.end),
            Heading::Anywhere => None,
        };
        // The tail may have let go of it since it was found.
        run.unwrap_or_else(|| (vec![frame], 0))
    }
}

/// Collects the frames that stand in `range` and end at position `end` at most.
fn collect(mapped: &Mapped, range: Range<u64>, end: Position, run: &mut Vec<FrameView>) {
    let mut at = range.start;
    while at < range.end
        && let Some(frame) = mapped.frame_at(at)
        && frame.header().end_position() <= end
    {
        at += frame.header().stored_bytes();
        if frame.header().count > 0 {
            run.push(frame);
        }
    }
}

/// Reads a frame of a file, from the end of the last one on where it follows on that.
fn file_frame(
    last: Option<&FrameView>,
    segment: &Segment,
    (floor, end): (Floor, u64),
    position: Position,
) -> Result<FrameView, StorageError> {
    let last = last.filter(|frame| {
        frame.segment() == segment.base() && frame.header().end_position() == position
    });
    if let Some(frame) = last {
        let behind = Floor::at(frame.at() + frame.header().stored_bytes());
        match walk_file(segment, behind, end, position) {
            // The last one may have stood in the file that a purge has replaced since.
            Err(StorageError::Corrupt(_)) => {}
            found => return found,
        }
    }
    walk_file(segment, floor, end, position)
}

fn holds(frame: &FrameView, position: Position) -> bool {
    let header = frame.header();
    header.base_position <= position && position < header.end_position()
}
