//! A data directory: made by `init`, opened by everything else.

use super::admission::Terms;
use super::enrolments::Rolls;
use super::hub::{Hub, News};
use super::keyset::{self, Keys};
use super::{AdminError, challenges::Challenges};
use crate::fault::Faults;
use crate::issuer::Fetcher;
use crate::names::{BadName, quoted};
use crate::settings::{Attesting, Lifetimes};
use crate::store::{Installation, KeysetRow, RowKeys, Store, StoreError, Table, Workspace};
use crate::suite::Suite;
use crate::tls::CertificateAuthority;
use crate::{clock, entropy, names};
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use zeroize::Zeroizing;

const DATABASE: &str = "devcloud.redb";
const MASTER_KEY: &str = "master.key";
const CA: &str = "ca.crt";

/// What `init` is told.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The one organization of this cloud.
    pub organization: String,
    /// Its first workspace, meant wherever none is named.
    pub workspace: String,
    /// Names of the server's certificate beside 127.0.0.1, ::1 and localhost.
    pub tls_names: Vec<String>,
}

/// `init` on a directory that has a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} holds a devcloud already; use it, or give another --data", .0.display())]
pub struct AlreadyInitialised(pub PathBuf);

/// Why a data directory was not made or opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum OpenError {
    #[error(transparent)]
    Already(#[from] AlreadyInitialised),
    #[error("there is no devcloud in {}; make one with: ennote-devcloud --data {} init", .0.display(), .0.display())]
    Missing(PathBuf),
    #[error("cannot use {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{dir} holds a master.key but no devcloud.redb: the key may be the only one that opens a database that was moved or \
         is not mounted. Put devcloud.redb back, or give another --data; if no such database is left: rm {key}",
        dir = .0.display(),
        key = quoted(&.0.join(MASTER_KEY).to_string_lossy())
    )]
    KeyWithoutDatabase(PathBuf),
    #[error(
        "others can write in {}, so it is no place for a master key; close it with: chmod go-w {}",
        .0.display(),
        quoted(&.0.to_string_lossy())
    )]
    OpenToOthers(PathBuf),
    #[error("{} is not a master key: it has to hold 64 hexadecimal digits", .0.display())]
    MasterKey(PathBuf),
    #[error(transparent)]
    Name(#[from] BadName),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot make certificates: {0}")]
    Certificate(String),
}

/// An opened data directory.
pub struct Core {
    pub(super) store: Store<News>,
    /// Fan-out and open streams.
    pub hub: Arc<Hub>,
    /// How long things live.
    pub lives: Lifetimes,
    /// What joins may choose.
    pub suites: Vec<Suite>,
    /// Asks public issuers.
    pub fetcher: Fetcher,
    /// What is broken on purpose.
    pub faults: Faults,
    pub(super) challenges: Challenges,
    pub(super) terms: Arc<Terms>,
    pub(super) master: Zeroizing<[u8; 32]>,
    installation: Installation,
    pub(super) root: SigningKey,
    pub(super) keys: RwLock<Arc<Keys>>,
}

impl Core {
    /// Makes a data directory: master key, database, root, keyset, certificate authority, organization and workspace.
    ///
    /// Nothing that is there is changed: neither a database, nor a key that may belong to one, nor the mode of the directory.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn init(directory: &Path, options: &InitOptions) -> Result<(), OpenError> {
        let organization = names::plain("organization", &options.organization)?;
        let workspace = names::plain("workspace", &options.workspace)?;
        let authority =
            CertificateAuthority::generate(&organization, &options.tls_names).map_err(OpenError::Certificate)?;
        let path = directory.join(DATABASE);
        let unfinished = directory.join(format!("{DATABASE}.new"));
        prepare(directory, &path, &unfinished)?;
        // The database appears under its name only when it is whole. It is begun before the key is written: a key beside an
        // unfinished database has opened none yet.
        write_private(&unfinished, b"")?;
        let master = Zeroizing::new(entropy::bytes::<32>());
        write_private(&directory.join(MASTER_KEY), format!("{}\n", HEXLOWER.encode(master.as_slice())).as_bytes())?;
        fs::write(directory.join(CA), authority.certificate()).map_err(file(directory))?;
        let store = Store::<News>::open(&unfinished, RowKeys::of(&master), |_| ())?;
        let installation = Installation {
            organization,
            workspace: workspace.clone(),
            tls_names: options.tls_names.clone(),
            root_seed: entropy::bytes(),
            ca_key: authority.key(),
            ca_certificate: authority.certificate().to_owned(),
        };
        store
            .write(move |tx| {
                tx.put(Table::Installation, &["installation"], &installation)?;
                tx.put(
                    Table::Installation,
                    &["keyset"],
                    &keyset::first(tx.now_ms(), Lifetimes::default().keyset_life),
                )?;
                tx.put(
                    Table::Workspaces,
                    &[&workspace],
                    &Workspace { name: workspace.clone(), created_at_ms: tx.now_ms() },
                )
            })
            .await?;
        drop(store);
        fs::rename(&unfinished, &path).map_err(file(&path))?;
        sync_directory(directory)
    }

    /// Opens a data directory for this process alone.
    ///
    /// # Errors
    /// [`OpenError`]; `Store(InUse)` while another process has it.
    pub async fn open(directory: &Path, lives: Lifetimes) -> Result<Arc<Self>, OpenError> {
        Self::open_with(directory, lives, Suite::ALL.to_vec(), &Attesting::default()).await
    }

    /// As [`Core::open`], for joins that choose from these suites only, and whose ServiceAccount tokens are judged so.
    ///
    /// # Errors
    /// As [`Core::open`].
    pub async fn open_with(
        directory: &Path,
        lives: Lifetimes,
        suites: Vec<Suite>,
        attesting: &Attesting,
    ) -> Result<Arc<Self>, OpenError> {
        let path = directory.join(DATABASE);
        if !path.exists() {
            return Err(OpenError::Missing(directory.to_owned()));
        }
        let master = read_master(&directory.join(MASTER_KEY))?;
        let hub = Arc::new(Hub::default());
        let announce = {
            let hub = hub.clone();
            move |news| hub.tell(news)
        };
        let store = Store::open(&path, RowKeys::of(&master), announce)?;
        let shape = || StoreError::Shape(Table::Installation.name());
        let (installation, row) = {
            let view = store.view()?;
            // Row keys are keyed hashes: under another master key, no row is found at all.
            let missing = || StoreError::Sealed(Table::Installation.name());
            let installation: Installation = view.get(Table::Installation, &["installation"])?.ok_or_else(missing)?;
            let row: KeysetRow = view.get(Table::Installation, &["keyset"])?.ok_or_else(missing)?;
            (installation, row)
        };
        let root = SigningKey::from_bytes(&installation.root_seed);
        let lead = clock::millis(lives.publish_lead);
        let keys = Keys::sign(&root, &row, clock::now_ms(), lead).map_err(|_| shape())?;
        fs::write(directory.join(CA), &installation.ca_certificate).map_err(file(directory))?;
        let terms = Terms {
            hub: hub.clone(),
            audiences: attesting.audiences(&installation.tls_names),
            access_token_ms: clock::millis(lives.access_token_life),
            retry_ms: clock::millis(lives.join_retry),
            epochs_ms: clock::millis(lives.epoch_window),
            opening_ms: clock::millis(lives.first_stream),
            rolls: Rolls {
                wait_ms: clock::millis(lives.jwks_wait),
                linger_ms: clock::millis(lives.jwks_linger),
                strict: attesting.jwks_strict,
            },
        };
        let core = Self {
            store,
            hub,
            lives,
            suites,
            faults: Faults::default(),
            terms: Arc::new(terms),
            fetcher: attesting.fetcher(),
            challenges: Challenges::default(),
            master,
            installation,
            root,
            keys: RwLock::new(Arc::new(keys)),
        };
        Ok(Arc::new(core))
    }

    /// The organization.
    pub fn organization(&self) -> &str {
        &self.installation.organization
    }

    /// The workspace that is meant where none is named.
    pub fn default_workspace(&self) -> &str {
        &self.installation.workspace
    }

    /// SHA-256 of the root public key, as it ends bootstrap tokens.
    pub fn root_hash(&self) -> [u8; 32] {
        crate::signed::key_id(&self.root)
    }

    /// The authority that issues the server's certificate.
    ///
    /// # Errors
    /// `Certificate`.
    pub fn authority(&self) -> Result<CertificateAuthority, OpenError> {
        let from = &self.installation;
        CertificateAuthority::load(&from.organization, &from.tls_names, &from.ca_key, &from.ca_certificate)
            .map_err(OpenError::Certificate)
    }

    /// The keys that count now.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Issues the next keyset if it is time, durably, before anyone sees it; and takes keys into use whose time has come.
    /// Else the store is not asked: strangers cause this.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refresh_keyset(&self) -> Result<(), StoreError> {
        let life = self.lives.keyset_life;
        let keys = self.keys();
        if !keys.stale(Self::now_ms(), life) {
            return Ok(());
        }
        let switch = keys.switch_at_ms;
        let row = self
            .store
            .write(move |tx| {
                let shape = || StoreError::Shape(Table::Installation.name());
                let row: KeysetRow = tx.get(Table::Installation, &["keyset"])?.ok_or_else(shape)?;
                let Some(next) = keyset::due(&row, tx.now_ms(), life) else {
                    return Ok(switch.is_some_and(|at| tx.now_ms() >= at).then_some(row));
                };
                tx.put(Table::Installation, &["keyset"], &next)?;
                Ok::<_, StoreError>(Some(next))
            })
            .await?;
        row.map_or(Ok(()), |row| self.use_keyset(&row))
    }

    /// A workspace by name, or the default one.
    pub(super) fn workspace_or_default(&self, given: Option<&str>) -> Result<String, AdminError> {
        let name = names::plain("workspace", given.unwrap_or(self.default_workspace()))?;
        let found: Option<Workspace> = self.store.view()?.get(Table::Workspaces, &[&name])?;
        found.map(|workspace| workspace.name).ok_or(AdminError::NoWorkspace(name))
    }

    /// Makes a workspace.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_workspace(&self, name: &str) -> Result<Workspace, AdminError> {
        let name = names::plain("workspace", name)?;
        self.store
            .write(move |tx| {
                if tx.get::<Workspace>(Table::Workspaces, &[&name])?.is_some() {
                    return Err(AdminError::WorkspaceExists(name));
                }
                let made = Workspace { name: name.clone(), created_at_ms: tx.now_ms() };
                tx.put(Table::Workspaces, &[&name], &made)?;
                Ok(made)
            })
            .await
    }

    /// All workspaces, by name.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn workspaces(&self) -> Result<Vec<Workspace>, AdminError> {
        let mut all: Vec<Workspace> = self.store.view()?.all(Table::Workspaces)?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Now, for what is judged outside a write.
    pub(super) fn now_ms() -> i64 {
        clock::now_ms()
    }
}

/// Makes the directory where there is none, and refuses one in which `init` would do harm.
fn prepare(directory: &Path, database: &Path, unfinished: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file(directory))?;
    let there = |path: &Path| path.try_exists().map_err(file(path));
    if there(database)? {
        return Err(AlreadyInitialised(directory.to_owned()).into());
    }
    if there(&directory.join(MASTER_KEY))? && !there(unfinished)? {
        return Err(OpenError::KeyWithoutDatabase(directory.to_owned()));
    }
    let mode = fs::metadata(directory).map_err(file(directory))?.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(OpenError::OpenToOthers(directory.to_owned()));
    }
    Ok(())
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::File { path, source }
}

fn read_master(path: &Path) -> Result<Zeroizing<[u8; 32]>, OpenError> {
    let text = Zeroizing::new(fs::read(path).map_err(file(path))?);
    let bytes = Zeroizing::new(HEXLOWER.decode(text.trim_ascii()).map_err(|_| OpenError::MasterKey(path.to_owned()))?);
    let master = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| OpenError::MasterKey(path.to_owned()))?;
    Ok(Zeroizing::new(master))
}

/// Writes a file that only its owner can read, durably.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), OpenError> {
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut out| {
        out.set_permissions(Permissions::from_mode(0o600))?;
        out.write_all(bytes)?;
        out.sync_all()
    })
    .map_err(file(path))
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    fs::File::open(directory).and_then(|handle| handle.sync_all()).map_err(file(directory))
}
