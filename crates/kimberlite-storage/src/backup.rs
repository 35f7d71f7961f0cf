//! Copies of logs that can be trusted: what is copied is recomputed, what was copied is read back, and
//! a [`Manifest`] that is written last says what belongs to the copy.
//!
//! Segments only grow, so a file of a backup is described by its first bytes: those of a later
//! backup begin with those of an earlier one, and a manifest stays true while the next backup into the
//! same directory is under way.

mod files;
mod manifest;
mod parts;

pub use files::{FileContent, copy_file, file_matches, sync_names, write_file};
pub use manifest::{BackedUpFile, BackedUpTenant, MANIFEST_BYTES_MAX, Manifest, ManifestError};
pub use parts::{SegmentContent, SegmentPart};
