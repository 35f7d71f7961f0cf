//! Every bound of the format and of the public API, checked at the edge where a value comes in.

/// The largest position or offset that is ever assigned.
///
/// The value above it is the stored form of "does not apply".
pub const POSITION_MAX: u64 = u64::MAX - 1;

/// Bytes of a tenant name, which is also a directory name.
pub const TENANT_NAME_BYTES_MAX: usize = 64;

/// Bytes of a stream name.
pub const STREAM_NAME_BYTES_MAX: usize = 1024;

/// Bytes of an event type.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;

/// Bytes of an event's metadata.
pub const METADATA_BYTES_MAX: usize = 64 << 10;

/// Bytes of an event's data.
pub const DATA_BYTES_MAX: usize = 16 << 20;

/// Bytes of one stored payload: an event at its limits with envelope, commitment and tag.
pub const PAYLOAD_BYTES_MAX: usize = DATA_BYTES_MAX + METADATA_BYTES_MAX + (4 << 10);

/// Records of one frame.
pub const FRAME_RECORDS_MAX: usize = 1024;

/// Payload bytes at which a frame is closed and the next one of the same group begun.
///
/// A single payload may be larger; it then has a frame of its own.
pub const FRAME_PAYLOAD_BYTES_TARGET: usize = 4 << 20;

/// Bytes of one frame, header, table and padding included.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + FRAME_PAYLOAD_BYTES_TARGET + (64 << 10);

/// Events of one append.
pub const APPEND_EVENTS_MAX: usize = 65_536;

/// Records from the beginning of an append to the end of the log, while its retry is recognised.
///
/// In positions and not in time, so that replay forgets what the writer forgot.
pub const IDEMPOTENCY_POSITIONS_MAX: u64 = 1_000_000;

/// Appends with a key whose retries are recognised: the newest of them.
///
/// They are in memory, 13 MiB of a tenant that appends with keys alone.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;

/// Bytes of one commit group, which never spans segments.
pub const GROUP_BYTES_MAX: usize = 128 << 20;

/// Sealings under one key session; a new session is opened before the counter would end.
pub const SESSION_SEALINGS_MAX: u64 = 1 << 32;

/// Streams of one tenant.
pub const STREAMS_MAX: usize = 100_000_000;

/// Bytes of the reason for a legal hold or its release.
pub const REASON_BYTES_MAX: usize = 4 << 10;

/// Legal holds of a tenant that are in force at one time.
pub const HOLDS_MAX: usize = 65_536;

/// Shreds of a tenant that were ordered and are not complete.
pub const SHREDS_MAX: usize = 65_536;

/// How far a record's time may lie ahead of its predecessor's: ten years.
///
/// A clock that jumps further is refused, because time in a log never goes back: one record from
/// the far future would date all that follow it.
pub const TIME_JUMP_NS_MAX: u64 = 10 * 366 * 24 * 3600 * 1_000_000_000;

const _: () = assert!(FRAME_BYTES_MAX <= GROUP_BYTES_MAX);
const _: () = assert!(FRAME_RECORDS_MAX <= u16::MAX as usize);
const _: () = assert!(APPEND_EVENTS_MAX as u64 <= IDEMPOTENCY_POSITIONS_MAX);
const _: () = assert!(GROUP_BYTES_MAX <= u32::MAX as usize);
