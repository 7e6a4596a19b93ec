//! Whoever owns the network path, in the strongest form: it ends TLS with a certificate that the agent trusts, speaks to
//! the real cloud as a client, and sees every message decoded before it decides what becomes of it.
//!
//! ```text
//! agent == TLS (our CA) ==> EvilProxy == TLS (the cloud's CA) ==> devcloud
//!                              |-- records: every message and status, both ways
//!                              `-- attack: passes, alters, drops, repeats or ends; inject: adds
//! ```

mod frame;
mod listener;
mod record;
mod relay;

pub use frame::{Call, Fate, Frame};
pub use record::{Record, Said};

use crate::dial::dial;
use anyhow::{Context, Result, anyhow};
use ennote_devcloud::tls::CertificateAuthority;
use listener::Listener;
use relay::Shared;
use std::sync::Arc;

/// A man in the middle of one cloud. Dropping it ends it.
pub struct EvilProxy {
    shared: Arc<Shared>,
    listener: Listener,
    ca: String,
}

impl EvilProxy {
    /// Listens on a free loopback port in front of the cloud at `address`, with a CA of its own.
    ///
    /// # Errors
    /// When it cannot listen or dial.
    pub async fn start(address: &str, cloud_ca: &str) -> Result<Self> {
        let authority = CertificateAuthority::generate("the network", &[]).map_err(|error| anyhow!(error))?;
        let config = authority.server_config().map_err(|error| anyhow!(error))?;
        let shared = Arc::new(Shared::new(dial(address, cloud_ca)?));
        let listener = Listener::start(Arc::new(config), shared.clone()).await.context("the proxy cannot listen")?;
        Ok(Self { shared, listener, ca: authority.certificate().to_owned() })
    }

    /// `host:port` that agents dial.
    pub fn address(&self) -> String {
        self.listener.address()
    }

    /// The CA of its certificate, as PEM: whoever trusts it is read.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// From now on this decides what becomes of each message, of whichever call, in the order they are heard.
    pub fn attack(&self, attack: impl FnMut(Call, &Frame) -> Fate + Send + 'static) {
        self.shared.attack(Box::new(attack));
    }

    /// From now on every message passes as it is.
    pub fn honest(&self) {
        self.attack(|_, _| Fate::Pass);
    }

    /// Sends a message of its own on a living stream, to the side that hears such frames; whether the stream lived.
    pub fn inject(&self, stream: u64, frame: Frame) -> bool {
        self.shared.inject(stream, frame)
    }

    /// The number of the last stream that was begun; 0 before the first.
    pub fn newest_stream(&self) -> u64 {
        self.shared.begun().2
    }

    /// How many joins were begun: calls of Begin.
    pub fn joins(&self) -> u64 {
        self.shared.begun().0
    }

    /// Everything heard so far.
    ///
    /// # Errors
    /// When more was heard than is kept.
    pub fn records(&self) -> Result<Vec<Record>> {
        self.shared.records()
    }

    /// What `pick` finds in [`Self::records`].
    ///
    /// # Errors
    /// When more was heard than is kept.
    pub fn find<T>(&self, pick: impl FnMut(&Record) -> Option<T>) -> Result<Vec<T>> {
        Ok(self.records()?.iter().filter_map(pick).collect())
    }

    /// How many connections were accepted whose handshake succeeded.
    pub fn connections(&self) -> usize {
        self.listener.connections()
    }

    /// How the handshakes ended that failed.
    pub fn failed_handshakes(&self) -> Vec<String> {
        self.listener.failed_handshakes()
    }

    /// Cuts every connection of agents.
    pub fn cut(&self) {
        self.listener.cut();
    }

    /// Sends GOAWAY on every connection of agents; what runs on them goes on.
    pub fn go_away(&self) {
        self.listener.go_away();
    }
}
