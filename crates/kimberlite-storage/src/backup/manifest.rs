//! What belongs to a backup: text, a line for each tenant and each file, and a digest at its end.
//!
//! ```text
//! kimberlite-backup-v1
//! time <nanoseconds>
//! tenant <name> <log id> <size> <root> <chain> <origin>
//! file <path> <bytes> <used> <digest> <access>
//! digest <BLAKE3 of all lines before this one>
//! ```
//!
//! Fields are separated by one space, every line ends in a line feed. Numbers are decimal, hashes 64
//! hexadecimal digits in lower case, `access` is `shared` or `private`. Tenants stand in the order of
//! their names, files in the order of their paths, each once. A path is relative, of names that
//! begin with a letter or digit and hold nothing but `a-z 0-9 - _ .`: `keys/root.key`, or one below
//! `keys/<name>/` or `tenants/<name>/` of a tenant that has a line. `used` is how many bytes of
//! the file the digest (BLAKE3) covers; all behind them are zero. There is one text for a manifest.

#![deny(clippy::indexing_slicing)]

use std::fmt::Write as _;

use kimberlite_crypto::{InternalHash, internal_hash};
use kimberlite_disk::Access;
use kimberlite_types::{ChainHash, LogId, Position, RootHash, TenantName, Timestamp};

/// Bytes of a manifest that are read at most.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;

const VERSION_LINE: &str = "kimberlite-backup-v1";

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// When it was made.
    pub time: Timestamp,
    /// The tenants, by name.
    pub tenants: Vec<BackedUpTenant>,
    /// The files, by path.
    pub files: Vec<BackedUpFile>,
}

/// A log in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUpTenant {
    /// The tenant.
    pub name: TenantName,
    /// Which log it is.
    pub log_id: LogId,
    /// How many records it has; a checkpoint in the backup states the same.
    pub size: Position,
    /// The Merkle root over them.
    pub root: RootHash,
    /// The hash chain after the last of them.
    pub chain: ChainHash,
    /// The origin of that checkpoint.
    pub origin: String,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUpFile {
    /// Where it is, below the directory of the backup and of the database alike.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// How many of its first bytes count; all behind them are zero.
    pub used: u64,
    /// BLAKE3 of these.
    pub digest: InternalHash,
    /// Who may read it.
    pub access: Access,
}

/// Why bytes are not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It begins otherwise.
    #[error("it is not a manifest that this release knows")]
    Version,
    /// It was changed or cut.
    #[error("its digest does not match")]
    Digest,
    /// A line is not as it is written.
    #[error("line {line} is not valid")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
}

impl Manifest {
    /// Returns the file's text.
    pub fn encode(&self) -> String {
        let mut text = format!("{VERSION_LINE}\ntime {}\n", self.time.as_nanoseconds());
        let written = "writing to a string succeeds";
        for tenant in &self.tenants {
            let BackedUpTenant {
                name,
                log_id,
                size,
                root,
                chain,
                origin,
            } = tenant;
            writeln!(
                text,
                "tenant {name} {log_id} {size} {root} {chain} {origin}"
            )
            .expect(written);
        }
        for file in &self.files {
            let BackedUpFile {
                path,
                bytes,
                used,
                digest,
                access,
            } = file;
            let access = access_word(*access);
            writeln!(text, "file {path} {bytes} {used} {digest} {access}").expect(written);
        }
        let digest = internal_hash(text.as_bytes());
        writeln!(text, "digest {digest}").expect(written);
        text
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] when the bytes are not the one text of a manifest of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Version)?;
        if text.lines().next() != Some(VERSION_LINE) {
            return Err(ManifestError::Version);
        }
        let (body, digest) = split_digest(text).ok_or(ManifestError::Digest)?;
        if internal_hash(body.as_bytes()).to_string() != digest {
            return Err(ManifestError::Digest);
        }
        let mut manifest = Self {
            time: Timestamp::default(),
            tenants: Vec::new(),
            files: Vec::new(),
        };
        for (index, line) in body.lines().enumerate().skip(1) {
            let bad = ManifestError::Line { line: index + 1 };
            manifest.take(index, line).ok_or(bad)?;
        }
        // One text for one manifest: what was passed over in reading would show here.
        if manifest.encode().as_bytes() != bytes {
            return Err(ManifestError::Line { line: 2 });
        }
        Ok(manifest)
    }

    fn take(&mut self, index: usize, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "time" if index == 1 => {
                self.time = Timestamp::from_nanoseconds(rest.parse().ok()?);
            }
            "tenant" => {
                let tenant = BackedUpTenant::parse(rest)?;
                let after = self
                    .tenants
                    .last()
                    .is_none_or(|last| last.name < tenant.name);
                (after && self.files.is_empty()).then_some(())?;
                self.tenants.push(tenant);
            }
            "file" => {
                let file = BackedUpFile::parse(rest)?;
                let after = self.files.last().is_none_or(|last| last.path < file.path);
                (after && self.may_hold(&file.path)).then_some(())?;
                self.files.push(file);
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether a file is the root key, or belongs to a tenant that is listed.
    fn may_hold(&self, path: &str) -> bool {
        let below = path
            .strip_prefix("keys/")
            .or_else(|| path.strip_prefix("tenants/"));
        let tenant = below.and_then(|below| below.split_once('/'));
        let listed = |name: &str| {
            let found = self
                .tenants
                .binary_search_by(|tenant| tenant.name.as_str().cmp(name));
            found.is_ok()
        };
        path == "keys/root.key" || tenant.is_some_and(|(name, _)| listed(name))
    }

    /// Finds a file by its path.
    pub fn file(&self, path: &str) -> Option<&BackedUpFile> {
        let index = self
            .files
            .binary_search_by(|file| file.path.as_str().cmp(path));
        self.files.get(index.ok()?)
    }
}

impl BackedUpTenant {
    fn parse(text: &str) -> Option<Self> {
        let [name, log_id, size, root, chain, origin] = fields(text)?;
        Some(Self {
            name: TenantName::new(name).ok()?,
            log_id: log_id.parse().ok()?,
            size: Position::new(size.parse().ok()?),
            root: root.parse().ok()?,
            chain: chain.parse().ok()?,
            origin: origin.to_owned(),
        })
    }
}

impl BackedUpFile {
    fn parse(text: &str) -> Option<Self> {
        let [path, bytes, used, digest, access] = fields(text)?;
        let (bytes, used) = (bytes.parse().ok()?, used.parse().ok()?);
        (is_path(path) && used <= bytes).then_some(Self {
            path: path.to_owned(),
            bytes,
            used,
            digest: InternalHash::new(*digest.parse::<ChainHash>().ok()?.as_bytes()),
            access: match access {
                "shared" => Access::Shared,
                "private" => Access::Private,
                _ => return None,
            },
        })
    }
}

fn access_word(access: Access) -> &'static str {
    match access {
        Access::Shared => "shared",
        Access::Private => "private",
    }
}

/// Splits off the last line.
fn split_digest(text: &str) -> Option<(&str, &str)> {
    let lines = text.strip_suffix('\n')?;
    let at = lines.rfind('\n')? + 1;
    let (body, last) = text.split_at_checked(at)?;
    Some((body, last.strip_suffix('\n')?.strip_prefix("digest ")?))
}

fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut fields = [""; N];
    let mut words = text.split(' ');
    for field in &mut fields {
        *field = words.next()?;
    }
    words.next().is_none().then_some(fields)
}

/// Whether a path stays below the directory that it is joined to, and means the same everywhere.
fn is_path(path: &str) -> bool {
    path.split('/').all(|name| {
        name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = |path: &str, access| BackedUpFile {
            path: path.to_owned(),
            bytes: 4096,
            used: 17,
            digest: InternalHash::new([5; 32]),
            access,
        };
        Manifest {
            time: Timestamp::from_nanoseconds(7),
            tenants: vec![BackedUpTenant {
                name: TenantName::new("t").unwrap(),
                log_id: LogId::new([1; 32]),
                size: Position::new(9),
                root: RootHash::new([2; 32]),
                chain: ChainHash::new([3; 32]),
                origin: "t/0101010101010101/1".to_owned(),
            }],
            files: vec![
                file("keys/t/signer.pem", Access::Private),
                file("tenants/t/log/00000000000000000000.seg", Access::Shared),
            ],
        }
    }

    /// Puts the right digest under lines.
    fn signed(body: &str) -> String {
        format!("{body}digest {}\n", internal_hash(body.as_bytes()))
    }

    #[test]
    fn the_text_is_as_documented() {
        let (one, two, three, five) = (
            "01".repeat(32),
            "02".repeat(32),
            "03".repeat(32),
            "05".repeat(32),
        );
        let body = format!(
            "kimberlite-backup-v1\n\
             time 7\n\
             tenant t {one} 9 {two} {three} t/0101010101010101/1\n\
             file keys/t/signer.pem 4096 17 {five} private\n\
             file tenants/t/log/00000000000000000000.seg 4096 17 {five} shared\n"
        );
        assert_eq!(manifest().encode(), signed(&body));
    }

    #[test]
    fn manifests_round_trip_and_every_changed_byte_and_every_cut_is_noticed() {
        let text = manifest().encode().into_bytes();
        assert_eq!(Manifest::decode(&text), Ok(manifest()));
        for at in 0..text.len() {
            let mut changed = text.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            assert!(Manifest::decode(&changed).is_err(), "byte {at}");
            assert!(
                Manifest::decode(text.get(..at).unwrap()).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn lines_that_are_not_as_they_are_written_are_refused_whatever_the_digest_says() {
        let whole = manifest().encode();
        let (body, _) = split_digest(&whole).unwrap();
        assert!(Manifest::decode(signed(body).as_bytes()).is_ok());
        let file = "file keys/t/signer.pem 4096 17";
        for (from, to) in [
            ("keys/t/", "../t/"),
            ("keys/t/", "/keys/t/"),
            ("keys/t/", "keys//t/"),
            ("keys/t/", "keys/./"),
            ("keys/t/", "zeys/t/"),
            ("keys/t/signer.pem", "backup.manifest"),
            ("keys/t/signer.pem", "keys/signer.pem"),
            ("keys/t/", "keys/s/"),
            ("tenants/t/log/", "tenants/u/log/"),
            ("tenants/t/log/", "zenants/t/log/"),
            (file, "file keys/t/signer.pem 4096 4097"),
            (file, "file keys/t/signer.pem 4096 017"),
            (file, "file keys/t/signer.pem 4096  17"),
            ("private", "public"),
            ("time 7", "time +7"),
            ("time 7\n", ""),
            ("tenant t", "tenant ../t"),
        ] {
            let changed = signed(&body.replace(from, to));
            assert!(Manifest::decode(changed.as_bytes()).is_err(), "{changed}");
        }
    }
}
