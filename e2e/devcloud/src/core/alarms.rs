//! What a person should look at: kept until newer ones push it out, and in the log as well.

use super::{AdminError, Core, News};
use crate::store::{Alarm, StoreError, Table, Tx};

/// Kept at most. The same one again is counted instead, so that nobody can push others out by repeating one.
const KEPT: usize = 200;

/// An alarm to raise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewAlarm {
    pub(super) kind: Kind,
    /// The agent's name.
    pub(super) agent: String,
}

/// Kinds of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A spent bootstrap token from another key.
    TokenReused,
    /// A ServiceAccount token from another key while the first one's stream lives.
    TokenReplayed,
    /// More agent keys showed one ServiceAccount token than a container restarts.
    TokenShared,
    /// A ServiceAccount that belongs to another agent.
    AlreadyEnrolled,
    /// A key that was only listed turned out to belong to another agent's cluster.
    KeyClaimed,
    /// An agent key came back that another key of the same pod had overtaken.
    PodTwice,
    /// Two agents are enrolled for one ServiceAccount, under different keys.
    AccountShared,
    /// Two pods take turns in one identity.
    Epochs,
    /// R2: the cluster lists a key that was not known.
    KeyReported,
    /// R2: more keys than are kept.
    KeySurplus,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::TokenReused => "TOKEN_REUSED",
            Self::TokenReplayed => "TOKEN_REPLAYED",
            Self::TokenShared => "TOKEN_SHARED",
            Self::AlreadyEnrolled => "ALREADY_ENROLLED",
            Self::KeyClaimed => "KEY_CLAIMED",
            Self::PodTwice => "POD_TWICE",
            Self::AccountShared => "ACCOUNT_SHARED",
            Self::Epochs => "EPOCHS",
            Self::KeyReported => "KEY_REPORTED",
            Self::KeySurplus => "KEY_SURPLUS",
        }
    }

    fn sentence(self, agent: &str) -> String {
        match self {
            Self::TokenReused => format!(
                "a bootstrap token for {agent} that was spent before was shown by another key: someone has a copy of it. If you do not know who joined: ennote-devcloud agent ban {agent}"
            ),
            Self::TokenReplayed => format!(
                "a ServiceAccount token of {agent} was shown by another key while the agent is connected: someone has a copy of it. It was refused; look who can read the pod's files"
            ),
            Self::TokenShared => format!(
                "too many agent keys have shown one ServiceAccount token of {agent}: its container restarts over and over, or someone has a copy. kubectl get pods tells which"
            ),
            Self::AlreadyEnrolled => format!(
                "a bootstrap token for {agent} came with a ServiceAccount that belongs to another agent. It was refused; to give it up there: ennote-devcloud agent revoke NAME"
            ),
            Self::KeyClaimed => format!(
                "a signing key that {agent} had only listed belongs to the cluster of another agent, and was taken from {agent}: its cluster lists keys that are not its own. If you do not know why: ennote-devcloud agent ban {agent}"
            ),
            Self::PodTwice => format!(
                "two agent keys of one pod of {agent} are in use at once, and a pod has one: someone has a copy of its ServiceAccount token, and may be connected in its place. Stop both: ennote-devcloud agent ban {agent}; then delete the pod, so that its token is void, and: ennote-devcloud agent unban {agent}"
            ),
            Self::AccountShared => format!(
                "{agent} and another agent are enrolled for one ServiceAccount under different signing keys: the cluster of one of them says what is not so. For joins only keys count that have signed. See both: ennote-devcloud agent list; ban the wrong one: ennote-devcloud agent ban NAME; to let a new key of the right one count: ennote-devcloud agent keys NAME"
            ),
            Self::KeyReported => format!(
                "{agent} reports a new signing key of its cluster. It counts for renewals; for joins it waits. To see it, and to accept it now: ennote-devcloud agent keys {agent}"
            ),
            Self::KeySurplus => format!(
                "{agent} reports more signing keys of its cluster than are kept, and the last were left out. To say which ones count: ennote-devcloud agent jwks {agent} --file FILE"
            ),
            Self::Epochs => format!(
                "more than three agent keys of {agent} from two pods joined within minutes: two agents share one identity. Run one replica, or give the other an agent name of its own"
            ),
        }
    }
}

/// Keeps an alarm as part of a write.
pub(super) fn raise(tx: &mut Tx<'_, '_, News>, new: &NewAlarm) -> Result<(), StoreError> {
    let (kind, sentence, now) = (new.kind.name(), new.kind.sentence(&new.agent), tx.now_ms());
    tracing::warn!(agent = new.agent, kind, "ALARM: {sentence}");
    let all: Vec<Alarm> = tx.all(Table::Alarms)?;
    let alarm = match all.iter().find(|old| old.kind == kind && old.agent == new.agent) {
        Some(same) => Alarm { at_ms: now, count: same.count + 1, sentence, ..same.clone() },
        None => {
            let oldest = all.iter().min_by_key(|old| old.at_ms).filter(|_| all.len() >= KEPT);
            let slot = oldest.map_or(all.len(), |old| old.slot);
            let agent = new.agent.clone();
            Alarm { slot, kind: kind.to_owned(), agent, sentence, first_ms: now, at_ms: now, count: 1 }
        }
    };
    tx.put(Table::Alarms, &[&alarm.slot.to_string()], &alarm)
}

impl Core {
    /// All that are kept, newest first.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn alarms(&self) -> Result<Vec<Alarm>, AdminError> {
        let mut all: Vec<Alarm> = self.store.view()?.all(Table::Alarms)?;
        all.sort_by_key(|alarm| std::cmp::Reverse(alarm.at_ms));
        Ok(all)
    }
}
