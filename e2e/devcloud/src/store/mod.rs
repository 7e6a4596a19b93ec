//! The embedded database: what is acknowledged is on disk, and what is on disk is sealed.
//!
//! Guarantees: a write that answered survives kill -9 (redb, one fsync for all writes that wait together); a row neither
//! opens nor moves without `master.key`, which is not in the database (AES-256-GCM, aad = table || row key); names do not
//! stand in row keys either, those are keyed hashes. What remains visible: the names of the tables, the number of rows and
//! their sizes.

mod database;
mod enrolment;
mod holding;
mod row;
mod rows;

pub use database::{Store, Tx, View};
pub use enrolment::{Alarm, EnrolledKey, Enrolment, Founded, Origin, PublicIssuer, Shown};
pub use holding::{Holding, Phase, Presence, Standing};
pub use row::RowKeys;
pub use rows::{
    AccessToken, AddedKey, Agent, Grant, Installation, KemRow, KeyUse, KeysetRow, Pat, Secret, Spent, Token, Version,
    Workspace,
};

/// One table of sealed rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// One [`Installation`] row, one [`KeysetRow`], and one [`KemRow`] once `cli.v1` was used.
    Installation,
    /// [`Workspace`] by name.
    Workspaces,
    /// [`Secret`] by workspace and name.
    Secrets,
    /// [`Version`] by workspace, name and version.
    Versions,
    /// [`Token`] by id.
    Tokens,
    /// [`Agent`] by id.
    Agents,
    /// An agent's id by its name.
    AgentNames,
    /// [`Pat`] by the hash of its text.
    Pats,
    /// [`Enrolment`] by agent id.
    Enrolments,
    /// Ids of the agents enrolled for a ServiceAccount, by its subject and UID.
    Accounts,
    /// [`Alarm`] by slot.
    Alarms,
    /// [`Holding`] by agent id and the binding's uid.
    Holdings,
    /// [`Presence`] by agent id.
    Presences,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Installation,
        Self::Workspaces,
        Self::Secrets,
        Self::Versions,
        Self::Tokens,
        Self::Agents,
        Self::AgentNames,
        Self::Pats,
        Self::Enrolments,
        Self::Accounts,
        Self::Alarms,
        Self::Holdings,
        Self::Presences,
    ];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Workspaces => "workspaces",
            Self::Secrets => "secrets",
            Self::Versions => "versions",
            Self::Tokens => "tokens",
            Self::Agents => "agents",
            Self::AgentNames => "agent_names",
            Self::Pats => "pats",
            Self::Enrolments => "enrolments",
            Self::Accounts => "accounts",
            Self::Alarms => "alarms",
            Self::Holdings => "holdings",
            Self::Presences => "presences",
        }
    }
}

/// The database did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds it.
    #[error("the database is in use by another process")]
    InUse,
    /// A row does not open: another master key, or a damaged or moved row.
    #[error(
        "a row of table {0} does not open under master.key: it is not the key this database was made with, or the row is damaged"
    )]
    Sealed(&'static str),
    /// A row opens but does not hold what this program writes.
    #[error("a row of table {0} was written by another version of ennote-devcloud")]
    Shape(&'static str),
    /// The disk.
    #[error("the database cannot be read or written: {0}")]
    Disk(String),
}
