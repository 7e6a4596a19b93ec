//! Every lifetime, as a flag with its environment name and default.

use crate::issuer::{Fetcher, Pinned};
use clap::Args;
use humantime::parse_duration;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How long things live. All are settings, so that a scenario sees renewals in seconds.
#[derive(Args, Clone, Debug)]
pub struct Lifetimes {
    /// Life of an access token; an agent renews at half of it
    #[arg(long, env = "ENNOTE_DEVCLOUD_ACCESS_TOKEN_LIFE", default_value = "15m", value_parser = parse_duration, value_name = "TIME")]
    pub access_token_life: Duration,

    /// How long a bootstrap token can be used, from `token create`
    #[arg(long, env = "ENNOTE_DEVCLOUD_BOOTSTRAP_TOKEN_LIFE", default_value = "2h", value_parser = parse_duration, value_name = "TIME")]
    pub bootstrap_token_life: Duration,

    /// How long the agent that spent a bootstrap token may repeat its join
    #[arg(long, env = "ENNOTE_DEVCLOUD_JOIN_RETRY", default_value = "10m", value_parser = parse_duration, value_name = "TIME")]
    pub join_retry: Duration,

    /// How long a challenge can be answered
    #[arg(long, env = "ENNOTE_DEVCLOUD_CHALLENGE_LIFE", default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub challenge_life: Duration,

    /// Life of a keyset (at most 30d); a new one is issued at half of it
    #[arg(long, env = "ENNOTE_DEVCLOUD_KEYSET_LIFE", default_value = "30d", value_parser = parse_duration, value_name = "TIME")]
    pub keyset_life: Duration,

    /// How long a new key of the keyset is listed before it is used
    #[arg(long, env = "ENNOTE_DEVCLOUD_PUBLISH_LEAD", default_value = "15m", value_parser = parse_duration, value_name = "TIME")]
    pub publish_lead: Duration,

    /// Within which more than three agent keys of one agent from two pods are an alarm
    #[arg(long, env = "ENNOTE_DEVCLOUD_EPOCH_WINDOW", default_value = "10m", value_parser = parse_duration, value_name = "TIME")]
    pub epoch_window: Duration,

    /// How long a new agent key has to open its first stream before an older one that stands by may take over
    #[arg(long, env = "ENNOTE_DEVCLOUD_FIRST_STREAM", default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub first_stream: Duration,

    /// How long a signing key that an agent reported does not count for joins, unless a person accepts it
    #[arg(long, env = "ENNOTE_DEVCLOUD_JWKS_WAIT", default_value = "24h", value_parser = parse_duration, value_name = "TIME")]
    pub jwks_wait: Duration,

    /// How long a signing key still counts that its cluster does not list any more
    #[arg(long, env = "ENNOTE_DEVCLOUD_JWKS_LINGER", default_value = "24h", value_parser = parse_duration, value_name = "TIME")]
    pub jwks_linger: Duration,

    /// Between two fetches of a public issuer's keys at least, whatever its Cache-Control says
    #[arg(long, env = "ENNOTE_DEVCLOUD_ISSUER_PAUSE", default_value = "1m", value_parser = parse_duration, value_name = "TIME")]
    pub issuer_pause: Duration,

    /// Between two signed beats of a stream
    #[arg(long, env = "ENNOTE_DEVCLOUD_BEAT_INTERVAL", default_value = "20s", value_parser = parse_duration, value_name = "TIME")]
    pub beat_interval: Duration,

    /// A stream that sent no frame for this long is dead
    #[arg(long, env = "ENNOTE_DEVCLOUD_SILENCE", default_value = "45s", value_parser = parse_duration, value_name = "TIME")]
    pub silence: Duration,

    /// Life of a stream, give or take a fifth; then it is drained
    #[arg(long, env = "ENNOTE_DEVCLOUD_STREAM_LIFE", default_value = "30m", value_parser = parse_duration, value_name = "TIME")]
    pub stream_life: Duration,

    /// How long a drained stream is still served
    #[arg(long, env = "ENNOTE_DEVCLOUD_DRAIN_GRACE", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub drain_grace: Duration,
}

/// How ServiceAccount tokens are judged.
#[derive(Args, Clone, Debug, Default)]
pub struct Attesting {
    /// Host by which agents reach this cloud: their ServiceAccount tokens are made for https://HOST/agent-join. Repeatable [default: the names of the server's certificate]
    #[arg(long = "audience-host", env = "ENNOTE_DEVCLOUD_AUDIENCE_HOST", value_delimiter = ',', value_name = "HOST")]
    pub audience_hosts: Vec<String>,

    /// A signing key that an agent reported counts for nothing until a person accepts it: agent keys NAME --accept
    #[arg(long, env = "ENNOTE_DEVCLOUD_JWKS_STRICT")]
    pub jwks_strict: bool,

    /// For tests: the one public issuer that is dialled at an address of its own, as HOST=IP:PORT
    #[arg(long, hide = true, requires = "test_issuer_ca", value_parser = pinned, value_name = "HOST=IP:PORT")]
    pub test_issuer: Option<(String, SocketAddr)>,

    /// For tests: the CA that signed that issuer's certificate
    #[arg(long, hide = true, value_name = "FILE")]
    pub test_issuer_ca: Option<PathBuf>,
}

fn pinned(given: &str) -> Result<(String, SocketAddr), String> {
    let (host, address) = given.split_once('=').ok_or("it has to be HOST=IP:PORT")?;
    Ok((host.to_owned(), address.parse().map_err(|_| "it has to be HOST=IP:PORT")?))
}

impl Attesting {
    /// What asks public issuers.
    pub fn fetcher(&self) -> Fetcher {
        let pinned = self.test_issuer.clone().zip(self.test_issuer_ca.clone());
        Fetcher { pinned: pinned.map(|((authority, address), ca)| Pinned { authority, address, ca }) }
    }

    /// The audiences, for a certificate of these names.
    pub fn audiences(&self, tls_names: &[String]) -> Vec<String> {
        let own = ["127.0.0.1", "localhost", "::1"].into_iter().chain(tls_names.iter().map(String::as_str));
        let hosts: Vec<&str> = match self.audience_hosts.as_slice() {
            [] => own.collect(),
            given => given.iter().map(String::as_str).collect(),
        };
        let host = |host: &&str| match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host.to_lowercase(),
        };
        hosts.iter().map(host).map(|host| format!("https://{host}/agent-join")).collect()
    }
}

/// `keyset_life` at most: PROTOCOL.md, "Trust".
const MAX_KEYSET_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A combination of lifetimes that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLifetimes(pub &'static str);

impl Lifetimes {
    /// Checks what one flag alone cannot say.
    ///
    /// # Errors
    /// [`BadLifetimes`].
    pub fn checked(self) -> Result<Self, BadLifetimes> {
        let second = Duration::from_secs(1);
        let rules = [
            (self.access_token_life >= second, "--access-token-life is below 1s: the wire counts it in whole seconds"),
            (self.beat_interval >= Duration::from_millis(50), "--beat-interval is below 50ms"),
            (self.challenge_life >= second, "--challenge-life is below 1s: an agent could not answer in time"),
            (self.stream_life >= second, "--stream-life is below 1s"),
            (self.silence >= second, "--silence is below 1s"),
            (self.keyset_life <= MAX_KEYSET_LIFE, "--keyset-life is above 30d: agents refuse such a keyset"),
            (
                self.keyset_life >= self.access_token_life.saturating_mul(2),
                "--keyset-life is below twice --access-token-life: agents would hold an expired keyset before they renew",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(self), |(_, why)| Err(BadLifetimes(why)))
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            access_token_life: minutes(15),
            bootstrap_token_life: minutes(120),
            join_retry: minutes(10),
            challenge_life: minutes(1),
            keyset_life: MAX_KEYSET_LIFE,
            publish_lead: minutes(15),
            epoch_window: minutes(10),
            issuer_pause: minutes(1),
            first_stream: minutes(1),
            jwks_wait: minutes(24 * 60),
            jwks_linger: minutes(24 * 60),
            beat_interval: Duration::from_secs(20),
            silence: Duration::from_secs(45),
            stream_life: minutes(30),
            drain_grace: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        lives: Lifetimes,
    }

    #[test]
    fn the_flags_default_to_what_the_protocol_says() {
        let flags = Flags::parse_from(["x"]).lives;
        assert_eq!(format!("{flags:?}"), format!("{:?}", Lifetimes::default()));
        assert!(flags.checked().is_ok());
        let short = Flags::parse_from(["x", "--access-token-life", "2s", "--keyset-life", "1s"]).lives;
        assert!(short.checked().unwrap_err().0.contains("--keyset-life"));
    }

    #[test]
    fn audiences_are_made_of_the_certificates_names_unless_others_are_given() {
        let own = Attesting::default().audiences(&["Cloud.Example".into()]);
        let hosts = ["127.0.0.1", "localhost", "[::1]", "cloud.example"];
        assert_eq!(own, hosts.map(|host| format!("https://{host}/agent-join")));
        let given = Attesting { audience_hosts: vec!["api.example".into()], ..Attesting::default() };
        assert_eq!(given.audiences(&["cloud.example".into()]), ["https://api.example/agent-join"]);
    }
}
