//! The binary as a process: what survives kill -9, what lies on disk, how it starts and ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

use data_encoding::{BASE64, HEXLOWER};
use ennote_devcloud::admin::{Client, Failure};
use ennote_devcloud::settings::Lifetimes;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const CANARY: &str = "qvzxkjwpmbhgtfdylrnscae";

fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ennote-devcloud"));
    command.arg("--data").arg(data).args(args).stdin(Stdio::null());
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    command(data, args).output().unwrap()
}

fn ok(data: &Path, args: &[&str]) -> String {
    let out = run(data, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn refused(data: &Path, args: &[&str]) -> String {
    let out = run(data, args);
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

fn initialised() -> tempfile::TempDir {
    let data = empty();
    ok(data.path(), &["init"]);
    data
}

/// Closed to others under any umask.
fn empty() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// A running server; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already where a test ended it.
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Running {
    /// Starts it, and waits until it says where it listens.
    fn start(data: &Path, args: &[&str]) -> (Self, String) {
        let mut command = command(data, &["serve", "--listen", "127.0.0.1:0", "--output", "json"]);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        (Self(child), said["address"].as_str().unwrap().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let data = initialised();
    let mut acknowledged = [0u64; 4];
    for _ in 0..3 {
        let before = acknowledged[0];
        let (mut server, _) = Running::start(data.path(), &[]);
        let client = Client::connect(data.path()).await.unwrap();
        let writers = acknowledged.iter().copied().enumerate().map(|(writer, last)| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut last = last;
                loop {
                    let payload = format!(r#"{{"keysValues":{{"N":"{}"}}}}"#, last + 1);
                    match client.put_secret(None, &format!("s{writer}"), None, payload.into()).await {
                        Ok(put) => last = put.version,
                        Err(Failure::Refused(text)) => panic!("{text}"),
                        Err(_) => return last,
                    }
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let enough = async {
            while client.secret(None, "s0", None).await.map_or(0, |found| found.version) < before + 20 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, enough).await.unwrap();
        server.0.kill().unwrap();
        server.0.wait().unwrap();
        for (writer, task) in writers.into_iter().enumerate() {
            acknowledged[writer] = timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        assert!(acknowledged[0] >= before + 19, "writes were under way");
        let found: serde_json::Value =
            serde_json::from_str(&ok(data.path(), &["secret", "list", "-o", "json"])).unwrap();
        for (writer, last) in acknowledged.iter().enumerate() {
            let version = found[writer]["version"].as_u64().unwrap();
            // One more than acknowledged: it was durable, and its answer was cut off.
            assert!(version == *last || version == last + 1, "s{writer}: acknowledged {last}, found {version}");
        }
        let offline = Client::find(data.path(), Lifetimes::default()).await.unwrap();
        for (writer, last) in acknowledged.iter_mut().enumerate() {
            for number in 1..=*last {
                let found = offline.secret(None, &format!("s{writer}"), Some(number)).await.unwrap();
                assert_eq!(found.payload.as_str(), format!(r#"{{"keysValues":{{"N":"{number}"}}}}"#));
            }
            // The next round counts on from what is there.
            *last = found[writer]["version"].as_u64().unwrap();
        }
    }
}

#[tokio::test]
async fn nothing_on_disk_holds_a_value_a_name_or_a_token_in_clear() {
    let data = initialised();
    let name = format!("name-{CANARY}");
    let (server, _) = Running::start(data.path(), &[]);
    let mut put =
        command(data.path(), &["secret", "put", &name, "--from-file", "key=-"]).stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(CANARY.as_bytes()).unwrap();
    assert!(put.wait().unwrap().success());
    let token = ok(data.path(), &["token", "create", "-q", "--agent", CANARY, "--namespace", CANARY]);
    let secret_part = token.split('.').nth(2).unwrap().to_owned();
    let pat = ok(data.path(), &["pat", "create", "-q", "--name", CANARY]);
    let pat_parts: Vec<String> = pat.trim_end().split('.').skip(1).map(ToOwned::to_owned).collect();
    let stored = ok(data.path(), &["secret", "get", &name]);
    assert_eq!(stored, format!("{{\"keysValues\":{{\"key\":\"{CANARY}\"}}}}\n"));
    drop(server);
    let mut files = 0;
    for entry in fs::read_dir(data.path()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        files += 1;
        let encoded = [
            CANARY.to_owned(),
            BASE64.encode(CANARY.as_bytes()),
            HEXLOWER.encode(CANARY.as_bytes()),
            secret_part.clone(),
        ];
        for text in encoded.iter().chain(&pat_parts) {
            assert!(!bytes.windows(text.len()).any(|w| w == text.as_bytes()), "{} holds {text}", path.display());
        }
    }
    assert!(files >= 3);
    let mode = |name: &str| fs::metadata(data.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("master.key"), mode("devcloud.redb")), (0o600, 0o600));
}

#[tokio::test]
async fn the_database_does_not_open_under_another_master_key() {
    let data = initialised();
    fs::write(data.path().join("master.key"), format!("{}\n", "0".repeat(64))).unwrap();
    assert!(refused(data.path(), &["secret", "list"]).contains("does not open under master.key"));
    fs::write(data.path().join("master.key"), "short").unwrap();
    assert!(refused(data.path(), &["secret", "list"]).contains("64 hexadecimal digits"));
}

#[test]
fn init_keeps_a_key_whose_database_is_elsewhere() {
    let data = initialised();
    ok(data.path(), &["secret", "put", "a", "K=V"]);
    let at = |name: &str| data.path().join(name);
    let key = fs::read(at("master.key")).unwrap();
    fs::rename(at("devcloud.redb"), at("moved.redb")).unwrap();
    let said = refused(data.path(), &["init"]);
    assert!(said.contains("Put devcloud.redb back") && said.contains("rm ") && said.contains("master.key"), "{said}");
    assert_eq!(fs::read(at("master.key")).unwrap(), key);
    fs::rename(at("moved.redb"), at("devcloud.redb")).unwrap();
    assert!(ok(data.path(), &["secret", "get", "a"]).contains("\"K\":\"V\""), "the old database opens");
    assert!(refused(data.path(), &["init"]).contains("holds a devcloud already"));

    let data = empty();
    fs::write(data.path().join("master.key"), "cut sh").unwrap();
    fs::write(data.path().join("devcloud.redb.new"), "cut short").unwrap();
    ok(data.path(), &["init"]);
    ok(data.path(), &["secret", "put", "a", "K=V"]);
}

#[test]
fn init_closes_a_directory_of_its_own_and_leaves_the_mode_of_any_other() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("some where");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    ok(&data.join("new"), &["init"]);
    assert_eq!(mode(&data.join("new")), 0o700);
    for given in [0o777, 0o775, 0o1777] {
        fs::set_permissions(&data, fs::Permissions::from_mode(given)).unwrap();
        let said = refused(&data, &["init"]);
        assert!(said.contains(&format!("chmod go-w '{}'", data.display())), "{said}");
        assert_eq!((mode(&data), data.join("master.key").exists()), (given, false));
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    ok(&data, &["init"]);
    assert_eq!(mode(&data), 0o755);
    for name in ["master.key", "devcloud.redb"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn it_says_where_it_listens_answers_on_its_socket_and_ends_on_sigterm() {
    let data = initialised();
    let file = data.path().join("address");
    fs::write(&file, "127.0.0.1:1\n").unwrap();
    let (mut server, address) = Running::start(data.path(), &["--address-file", file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{address}\n"));
    TcpStream::connect(&address).unwrap();
    let mode = fs::metadata(data.path().join("admin.sock")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(ok(data.path(), &["secret", "put", "a", "K=V"]).contains("version 1"));
    let second = command(data.path(), &["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another process"));
    assert!(ok(data.path(), &["secret", "list"]).contains("KEYS_VALUES"), "the first goes on");
    let killed = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(server.0.wait().unwrap().success());
    assert!(!file.exists() && !data.path().join("admin.sock").exists());
    TcpStream::connect(&address).unwrap_err();
    assert!(
        ok(data.path(), &["secret", "get", "a"]).contains("\"K\":\"V\""),
        "and without a server the database is read itself"
    );
}

#[tokio::test]
async fn a_dead_servers_socket_is_in_nobodys_way() {
    let data = initialised();
    let (mut server, _) = Running::start(data.path(), &[]);
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    assert!(data.path().join("admin.sock").exists());
    ok(data.path(), &["secret", "put", "a", "K=1"]);
    let (_server, _) = Running::start(data.path(), &[]);
    assert!(ok(data.path(), &["secret", "put", "a", "K=2"]).contains("version 2"));
}

#[test]
fn a_personal_access_token_is_made_listed_and_revoked() {
    let data = initialised();
    assert!(ok(data.path(), &["pat", "list"]).contains("pat create --name NAME"));
    let said = ok(data.path(), &["pat", "create", "--name", "ci", "--life", "2h"]);
    let (token, rest) = said.split_once('\n').unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert!(rest.contains("Good for 2h") && rest.contains("ENNOTE_WORKSPACE_ID=default"), "{rest}");
    assert!(refused(data.path(), &["pat", "create", "--name", "ci"]).contains("pat revoke ci"));
    let listed: serde_json::Value = serde_json::from_str(&ok(data.path(), &["pat", "list", "-o", "json"])).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["state"]), (&"ci".into(), &"live".into()));
    assert!(!listed.to_string().contains(token.rsplit('.').next().unwrap()), "a token is shown once");
    assert!(ok(data.path(), &["pat", "revoke", "ci"]).contains("is revoked"));
    assert!(ok(data.path(), &["pat", "list"]).contains("revoked"));
    assert!(refused(data.path(), &["pat", "revoke", "ci"]).contains("no live personal access token"));
}

#[test]
fn errors_say_what_mends_them() {
    let none = tempfile::tempdir().unwrap();
    assert!(
        refused(none.path(), &["secret", "list"])
            .contains(&format!("ennote-devcloud --data {} init", none.path().display()))
    );
    let data = initialised();
    for (args, mend) in [
        (&["init"][..], "give another --data"),
        (&["secret", "get", "none"], "ennote-devcloud secret list"),
        (&["secret", "status", "none"], "ennote-devcloud secret list"),
        (&["secret", "put", "a", "--workspace", "none", "K=V"], "ennote-devcloud workspace create none"),
        (&["secret", "put", "a"], "--from-env-file"),
        (&["token", "create", "--agent", "a", "--namespace", "n", "--life", "3h"], "lives 2h at most"),
        (&["pat", "create", "--name", "a", "--life", "31d"], "lives 30d at most"),
        (&["pat", "create", "--name", "a", "--workspace", "none"], "ennote-devcloud workspace create none"),
        (&["pat", "revoke", "none"], "ennote-devcloud pat list"),
        (&["agent", "revoke", "none"], "ennote-devcloud agent list"),
        (&["agent", "grant", "none", "--namespace", "n"], "ennote-devcloud agent list"),
        (&["serve", "--listen", "0.0.0.0:0", "--plaintext"], "leave --plaintext out"),
        (&["serve", "--access-token-life", "1ms"], "--access-token-life is below 1s"),
        (&["serve", "--keyset-life", "31d"], "above 30d"),
    ] {
        let said = refused(data.path(), args);
        assert!(said.contains(mend), "{args:?}: {said}");
    }
    assert!(!refused(data.path(), &["secret", "put", "a", CANARY]).contains(CANARY), "an error shows a value");
}
