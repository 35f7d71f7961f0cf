//! The key files beside the log: `keys/root.key`, and for each tenant
//! `keys/<tenant>/{keyring.a, keyring.b, signer.pem}`.
//!
//! **Invariant:** a data key is durable in the keyring before anything is sealed under it. All files
//! are readable by their owner alone, and refused otherwise.
//!
//! A keyring of generation 0 belongs to a log in the making; generation 1 is written once the log's
//! first record is durable. So keys of a later generation without a log mean that the log was lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite_crypto::{
    DataKey, KeyId, KeyProvider, KeyVersion, Keyring, KeyringEntry, RootKey, Signer, Slot,
};
use kimberlite_disk::{Access, Disk, DiskError, OpenMode};
use kimberlite_storage::Entropy;
use kimberlite_types::{LogId, TenantName};
use zeroize::Zeroizing;

use crate::environment::random;
use crate::error::{Error, KeyFileProblem, Problem};

/// Bytes of a key file that are read at most.
const TEXT_BYTES_MAX: u64 = 64 << 10;
const KEYRING_BYTES_MAX: u64 = 64 << 20;

/// The epoch of the key-encryption key: the first.
const EPOCH: u32 = 1;
const FIRST_VERSION: KeyVersion = KeyVersion::new(1);

/// The keys directory of a database.
#[derive(Clone, Debug)]
pub(crate) struct KeyStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    provider: Arc<dyn KeyProvider>,
}

/// The opened keys of one tenant.
#[derive(Debug)]
pub(crate) struct TenantKeys {
    pub(crate) keyring: Keyring,
    pub(crate) data_keys: Vec<(KeyId, KeyVersion, DataKey)>,
    pub(crate) signer: Signer,
}

impl KeyStore {
    /// Opens the root key, or makes it where `create` allows. One that an earlier making left behind
    /// is written again: its name may not be durable.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        entropy: &dyn Entropy,
        create: bool,
    ) -> Result<Self, Error> {
        let path = dir.join("root.key");
        let root = match read_private(disk.as_ref(), &path, TEXT_BYTES_MAX)? {
            Some(bytes) => {
                let root = parse_root_key(&path, &bytes)?;
                if create {
                    disk.write_new_atomic(&path, &bytes, Access::Private)?;
                }
                root
            }
            None if create => {
                disk.create_dir_all(dir)?;
                let root = RootKey::generate(random(entropy)?);
                disk.write_new_atomic(&path, root.encode().as_bytes(), Access::Private)?;
                root
            }
            None => return Err(key_file(&path, KeyFileProblem::Missing)),
        };
        let provider: Arc<dyn KeyProvider> = Arc::new(root);
        Ok(Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            provider,
        })
    }

    fn tenant_dir(&self, name: &TenantName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    fn keyring_path(&self, name: &TenantName, slot: Slot) -> PathBuf {
        self.tenant_dir(name).join(match slot {
            Slot::A => "keyring.a",
            Slot::B => "keyring.b",
        })
    }

    /// Makes the signer of a tenant whose log is about to be made.
    pub(crate) fn create_signer(
        &self,
        name: &TenantName,
        entropy: &dyn Entropy,
    ) -> Result<Signer, Error> {
        let dir = self.tenant_dir(name);
        self.disk.create_dir_all(&dir)?;
        let signer = Signer::from_seed(random(entropy)?);
        let pem = signer.to_pem();
        self.disk
            .write_new_atomic(&dir.join("signer.pem"), pem.as_bytes(), Access::Private)?;
        Ok(signer)
    }

    /// Makes the keyring, with its first data key, of a log that is about to be made.
    pub(crate) fn create_keyring(
        &self,
        name: &TenantName,
        log_id: LogId,
        entropy: &dyn Entropy,
    ) -> Result<(), Error> {
        let kek = self
            .provider
            .key_encryption_key(&log_id, EPOCH)
            .map_err(Problem::KeyProvider)?;
        let data_key = DataKey::new(random(entropy)?);
        let key_id = KeyId::new(random(entropy)?);
        let wrapped = kek.wrap(&log_id, &key_id, FIRST_VERSION, &data_key);
        let entry = KeyringEntry {
            key_id,
            version: FIRST_VERSION,
            epoch: EPOCH,
            wrapped,
        };
        let keyring = Keyring {
            log_id,
            generation: 0,
            entries: vec![entry],
        };
        // A keyring of an earlier attempt that never got its log must not win over this one.
        let other = self.keyring_path(name, Slot::B);
        match self.disk.remove(&other) {
            Ok(()) | Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.write_keyring(name, &keyring)
    }

    /// Notes that the log of a keyring exists.
    pub(crate) fn confirm(&self, name: &TenantName, keyring: &Keyring) -> Result<(), Error> {
        if keyring.generation > 0 {
            return Ok(());
        }
        let confirmed = Keyring {
            generation: 1,
            ..keyring.clone()
        };
        self.write_keyring(name, &confirmed)
    }

    /// Writes a generation into its slot; the other slot keeps the one before it.
    fn write_keyring(&self, name: &TenantName, keyring: &Keyring) -> Result<(), Error> {
        let path = self.keyring_path(name, Keyring::slot_for(keyring.generation));
        self.disk
            .write_new_atomic(&path, &keyring.encode(), Access::Private)?;
        Ok(())
    }

    /// Reads the keyring; `None` when the tenant has none.
    pub(crate) fn read_keyring(&self, name: &TenantName) -> Result<Option<Keyring>, Error> {
        let read = |slot| {
            read_private(
                self.disk.as_ref(),
                &self.keyring_path(name, slot),
                KEYRING_BYTES_MAX,
            )
        };
        let (a, b) = (read(Slot::A)?, read(Slot::B)?);
        if a.is_none() && b.is_none() {
            return Ok(None);
        }
        let keyring = Keyring::newest(
            a.as_deref().map(Vec::as_slice),
            b.as_deref().map(Vec::as_slice),
        );
        let path = || self.keyring_path(name, Slot::A);
        keyring
            .map(Some)
            .map_err(|error| key_file(&path(), KeyFileProblem::Keyring(error)))
    }

    /// Opens all keys of a tenant whose log exists.
    pub(crate) fn open_tenant(
        &self,
        name: &TenantName,
        log_id: LogId,
    ) -> Result<TenantKeys, Error> {
        let keyring = self
            .read_keyring(name)?
            .ok_or_else(|| key_file(&self.keyring_path(name, Slot::A), KeyFileProblem::Missing))?;
        let wrong = || {
            Error::from(Problem::WrongRootKey {
                name: name.as_str().to_owned(),
            })
        };
        if keyring.log_id != log_id {
            return Err(wrong());
        }
        let mut data_keys = Vec::with_capacity(keyring.entries.len());
        for entry in &keyring.entries {
            let kek = self.provider.key_encryption_key(&log_id, entry.epoch);
            let kek = kek.map_err(Problem::KeyProvider)?;
            let key = kek.unwrap(&log_id, &entry.key_id, entry.version, &entry.wrapped);
            data_keys.push((entry.key_id, entry.version, key.map_err(|_| wrong())?));
        }
        if data_keys.is_empty() {
            return Err(wrong());
        }
        let path = self.tenant_dir(name).join("signer.pem");
        let pem = read_private(self.disk.as_ref(), &path, TEXT_BYTES_MAX)?
            .ok_or_else(|| key_file(&path, KeyFileProblem::Missing))?;
        let pem =
            std::str::from_utf8(&pem).map_err(|_| key_file(&path, KeyFileProblem::NotText))?;
        let signer = Signer::from_pem(pem)
            .map_err(|error| key_file(&path, KeyFileProblem::Signer(error)))?;
        Ok(TenantKeys {
            keyring,
            data_keys,
            signer,
        })
    }
}

impl TenantKeys {
    /// Returns the key that new sessions come from.
    pub(crate) fn newest(&self) -> &(KeyId, KeyVersion, DataKey) {
        self.data_keys
            .last()
            .expect("opening refuses a keyring without keys")
    }

    pub(crate) fn find(&self, id: &KeyId, version: KeyVersion) -> Option<&DataKey> {
        let key = self
            .data_keys
            .iter()
            .find(|(key_id, key_version, _)| key_id == id && *key_version == version);
        key.map(|(_, _, key)| key)
    }
}

fn parse_root_key(path: &Path, bytes: &[u8]) -> Result<RootKey, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| key_file(path, KeyFileProblem::NotText))?;
    RootKey::decode(text).map_err(|error| key_file(path, KeyFileProblem::RootKey(error)))
}

/// Reads a file that nobody else may read; `None` when there is none.
fn read_private(
    disk: &dyn Disk,
    path: &Path,
    bytes_max: u64,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(DiskError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !file.is_private()? {
        return Err(key_file(path, KeyFileProblem::NotPrivate));
    }
    Ok(Some(Zeroizing::new(disk.read(path, bytes_max)?)))
}

fn key_file(path: &Path, problem: KeyFileProblem) -> Error {
    Problem::KeyFile {
        path: path.to_owned(),
        problem,
    }
    .into()
}
