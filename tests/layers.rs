//! Reads src/ and holds the architecture: who may import whom, who may touch the world, how long a file may be.
//!
//! To change a rule, change a table below. Test modules are exempt: they may join what the rules keep apart.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

/// Module -> the modules of this crate that it may import, beside itself. `*` = all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("crd", &[]),
    ("wire", &[]),
    ("domain", &["crd"]),
    ("rollout", &["crd", "domain"]),
    ("crypto", &["domain", "hardening", "wire"]),
    ("identity", &["crypto", "domain", "hardening", "locked", "wire"]),
    ("cluster", &["crd", "domain", "rollout"]), // never cloud
    ("cloud", &["clock", "config", "crypto", "domain", "entropy", "health", "identity", "wire"]), // never cluster, never controller
    (
        "controller",
        &[
            "clock",
            "cloud",
            "cluster",
            "config",
            "crd",
            "crypto",
            "domain",
            "entropy",
            "faults",
            "hardening",
            "health",
            "identity",
            "rollout",
        ],
    ),
    ("render", &["config", "crd", "domain"]),
    ("doctor", &["cloud", "cluster", "config", "controller", "crd", "domain", "identity"]),
    ("config", &["faults"]),
    ("faults", &["domain"]),
    ("telemetry", &["config"]),
    ("clock", &["domain"]),
    ("health", &["clock", "config"]),
    ("hardening", &[]),
    ("locked", &[]),
    ("entropy", &[]),
    ("agent", &["*"]),
    ("lib", &["*"]),
    ("main", &["*"]),
];

/// Modules without client, socket, clock, environment, randomness of their own, or tasks.
const PURE: &[&str] = &["crd", "domain", "rollout", "crypto", "identity", "render"];

/// Paths that only these places may name. A place is a module or a file under src/.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("kube::Client", &["cluster"], "only cluster talks to the API server"),
    ("kube::client", &["cluster"], "only cluster talks to the API server"),
    ("kube::Config", &["cluster"], "only cluster talks to the API server"),
    ("kube::Api", &["cluster"], "only cluster talks to the API server"),
    ("kube::api::Api", &["cluster"], "only cluster talks to the API server"),
    ("kube::Error", &["cluster"], "errors of the API server stop at cluster"),
    ("kube", &["agent", "cluster", "controller", "crd"], "kube stays at the edge (crd: the derive)"),
    ("k8s_openapi::api::core::v1::Secret", &["cluster"], "Secrets are read and written by cluster alone"),
    ("tonic", &["cloud", "wire"], "only cloud speaks gRPC"),
    ("std::env", &["config"], "only config reads the environment"),
];

/// The one way to a credential: who may name what, wherever it stands in a path, as a field or as a method. `{` after a name is
/// the making of one. The identity service gathers and publishes; every caller takes the session from its watch.
const CREDENTIALS: &[(&[&str], &[&str])] = &[
    (&["AgentKey"], &["identity/signing_key.rs", "identity/join.rs", "cloud/identity_service.rs"]),
    (&["AgentKey::generate"], &["cloud/identity_service.rs"]),
    (&["ed25519_dalek::SigningKey"], &["identity/signing_key.rs", "crypto/signed.rs"]),
    (&["Discover"], &["cloud/credentials.rs", "cloud/identity_service.rs", "agent.rs"]),
    (&["CredentialSource"], &["cloud/credentials.rs", "cloud/identity_service.rs", "agent.rs", "doctor.rs"]),
    (&["Credentials", "Credential"], &["identity/join.rs", "cloud/credentials.rs", "cloud/identity_service.rs"]),
    (
        &["bootstrap_token", "sa_token", ".gather"],
        &["identity/join.rs", "cloud/credentials.rs", "cloud/identity_service.rs"],
    ),
    (&["TokenText"], &["config.rs", "cloud/credentials.rs"]),
    (
        &["auth_token", "auth_token_file", "sa_token_file", "token_file"],
        &["config.rs", "agent.rs", "cloud/credentials.rs"],
    ),
    (&["access_token"], &["identity/access_token.rs", "identity/join.rs", "identity/mod.rs", "cloud/stream.rs"]),
    (&["IdentityServiceClient", "Session {"], &["cloud/identity_service.rs"]),
    (&["SyncServiceClient", "OpenFrame", "Label::Open"], &["cloud/stream.rs"]),
    (&["Label::Prove"], &["identity/join.rs"]),
];

/// Path prefixes that no pure module may name.
const NOT_PURE: &[&str] = &[
    "async",
    "futures",
    "std::future",
    "tokio",
    "tokio_stream",
    "tokio_rustls",
    "tonic",
    "tower",
    "http",
    "hyper",
    "hyper_util",
    "rustls",
    "rustix",
    "getrandom",
    "rand",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "std::os",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::time::SystemTime",
    "SystemTime",
];

/// The only files that start tasks or threads.
const SPAWNS: &[&str] = &["agent.rs", "controller/triggers.rs"];
/// The only file with unsafe code.
const UNSAFE: &[&str] = &["hardening.rs"];
/// Lines that a file may have before its tests.
const MAX_LINES: usize = 420;

/// A name with its `::`, as written, groups of `use` expanded.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    path: String,
    line: usize,
}

/// Whether `path` is `prefix` or lies inside it.
fn inside(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Tokens without items under `#[cfg(test)]`.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut kept: Vec<TokenTree> = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let attribute = matches!(&token, TokenTree::Punct(p) if p.as_char() == '#');
        let tests = matches!(tokens.peek(), Some(TokenTree::Group(g)) if g.stream().to_string().replace(' ', "") == "cfg(test)");
        if !(attribute && tests) {
            kept.push(token);
            continue;
        }
        // The item ends with its braces or its semicolon.
        for skipped in tokens.by_ref().skip(1) {
            match skipped {
                TokenTree::Group(g) if g.delimiter() == Delimiter::Brace => break,
                TokenTree::Punct(p) if p.as_char() == ';' => break,
                _ => {}
            }
        }
    }
    kept
}

/// Whether a path names `what`: a type or a variant anywhere in it, a field or method at its end (modules have such names too).
fn is_named(path: &str, what: &str) -> bool {
    let segments: Vec<&str> = path.trim_start_matches('.').split("::").collect();
    let wanted: Vec<&str> = what.trim_start_matches('.').split("::").collect();
    let found = segments.windows(wanted.len()).rposition(|part| part == wanted);
    let is_type = what.chars().any(char::is_uppercase);
    found.is_some_and(|at| is_type || at + wanted.len() == segments.len())
        && (path.starts_with('.') || !what.starts_with('.'))
}

/// Where `tokens` make a value of a type by naming its fields, as `Type {`.
fn made(tokens: &[TokenTree], found: &mut BTreeSet<Name>) {
    const NOT_MADE: [&str; 3] = ["struct", "impl", "for"];
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            made(&without_tests(group.stream()), found);
        }
        let braces = matches!(tokens.get(at + 1), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Brace);
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let declared = matches!(before, Some(TokenTree::Ident(i)) if NOT_MADE.iter().any(|not| i == not))
            || matches!(before, Some(TokenTree::Punct(p)) if p.as_char() == '>');
        if let TokenTree::Ident(ident) = token
            && braces
            && !declared
        {
            found.insert(Name { path: format!("{ident} {{"), line: ident.span().start().line });
        }
    }
}

/// Reads one path from the start of `tokens`, after `prefix`; returns how many tokens it took.
fn read_path(tokens: &[TokenTree], prefix: &str, names: &mut BTreeSet<Name>) -> usize {
    let mut path = prefix.to_owned();
    let mut line = 0;
    let mut at = 0;
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        line = ident.span().start().line;
        if !path.is_empty() {
            path.push_str("::");
        }
        path.push_str(&ident.to_string());
        at += 1;
        let colons = |i: usize| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == ':');
        if !(colons(at) && colons(at + 1)) {
            break;
        }
        if let Some(TokenTree::Group(group)) = tokens.get(at + 2)
            && group.delimiter() == Delimiter::Brace
        {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            for part in inner.split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ',')) {
                read_path(part, &path, names);
            }
            return at + 3;
        }
        at += 2;
    }
    if at > 0 {
        names.insert(Name { path, line });
    }
    at.max(1)
}

/// Every path outside tests, and methods as `.name`.
fn names(tokens: &[TokenTree], found: &mut BTreeSet<Name>) {
    let mut at = 0;
    let mut after_dot = false;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(ident) if after_dot => {
                found.insert(Name { path: format!(".{ident}"), line: ident.span().start().line });
                at += 1;
            }
            TokenTree::Ident(_) => at += read_path(&tokens[at..], "", found),
            TokenTree::Group(group) => {
                names(&without_tests(group.stream()), found);
                at += 1;
            }
            _ => at += 1,
        }
        after_dot = matches!(tokens.get(at.wrapping_sub(1)), Some(TokenTree::Punct(p)) if p.as_char() == '.');
    }
}

/// What is wrong with one file of src/. `file` is its path under src/, with slashes.
fn violations(file: &str, source: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let module = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
    let Some((_, may)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        return Ok(vec![format!("src/{file}: module {module} is not in the table MAY_IMPORT of tests/layers.rs")]);
    };
    let tokens: TokenStream = source.parse().map_err(|e| format!("src/{file}: {e}"))?;
    let mut found = BTreeSet::new();
    let tokens = without_tests(tokens);
    names(&tokens, &mut found);
    made(&tokens, &mut found);

    let mut wrong = Vec::new();
    for Name { path, line } in &found {
        let mut say = |what: String| wrong.push(format!("src/{file}:{line}: {path}: {what}"));
        let imported = path.strip_prefix("crate::").or_else(|| path.strip_prefix("ennote_agent::"));
        if let Some(target) = imported.and_then(|rest| rest.split("::").next())
            && target != module
            && !may.contains(&"*")
            && !may.contains(&target)
        {
            say(format!("{module} may not import {target}"));
        }
        let up = if file.ends_with("/mod.rs") { "super" } else { "super::super" };
        if file.contains('/') && inside(path, up) {
            say("write crate::, so that this test can see where it leads".to_owned());
        }
        if let Some((_, places, why)) = ONLY_IN.iter().find(|(prefix, ..)| inside(path, prefix))
            && !places.iter().any(|place| *place == module || *place == file)
        {
            say((*why).to_owned());
        }
        for (secrets, places) in CREDENTIALS {
            if secrets.iter().any(|what| is_named(path, what)) && !places.contains(&file) {
                say(format!("the one way to a credential: only {} may name it", places.join(", ")));
            }
        }
        let last = path.rsplit([':', '.']).next().unwrap_or_default();
        if PURE.contains(&module) {
            if NOT_PURE.iter().any(|prefix| inside(path, prefix)) {
                say(format!("{module} is pure: no client, socket, clock, environment, randomness or task"));
            }
            if (path.contains("::") && last == "now") || path == ".elapsed" {
                say(format!("{module} is pure: time comes in as an argument"));
            }
        }
        if (last == "spawn" || last.starts_with("spawn_")) && !SPAWNS.contains(&file) {
            say(format!("tasks are started in {} alone", SPAWNS.join(" and ")));
        }
        if path == "unsafe" && !UNSAFE.contains(&file) {
            say(format!("unsafe code lives in {} alone", UNSAFE.join(" and ")));
        }
    }
    Ok(wrong)
}

/// Lines before the tests of a file.
fn code_lines(source: &str) -> usize {
    source.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

/// All .rs files under `dir`, sorted, without build output.
fn rust_files(dir: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// tests.rs, or a file in a folder tests/: there is no code in it, only tests.
fn is_test_file(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs")
}

#[test]
fn modules_keep_to_their_layer() -> Result<(), Box<dyn Error>> {
    let src = root().join("src");
    let files: Vec<PathBuf> = rust_files(&src)?.into_iter().filter(|p| !is_test_file(p)).collect();
    assert!(files.len() > 20, "src/ was not found whole: {files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src)?.to_string_lossy().replace('\\', "/");
        wrong.extend(violations(&name, &std::fs::read_to_string(&file)?)?);
    }
    assert!(wrong.is_empty(), "{} breaches of the layers:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn files_are_short_enough_to_read() -> Result<(), Box<dyn Error>> {
    let mut long = Vec::new();
    for file in ["src", "e2e"].iter().map(|dir| rust_files(&root().join(dir))).collect::<Result<Vec<_>, _>>()?.concat()
    {
        let path = file.strip_prefix(root())?;
        let lines = code_lines(&std::fs::read_to_string(&file)?);
        if lines > MAX_LINES && !is_test_file(path) {
            long.push(format!("{}: {lines} lines before its tests, at most {MAX_LINES}", path.display()));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    Ok(())
}

#[test]
fn no_drawer_is_called_utils() -> Result<(), Box<dyn Error>> {
    const DRAWERS: [&str; 6] = ["utils", "util", "common", "helpers", "manager", "service"];
    let files = ["src", "e2e"].iter().map(|dir| rust_files(&root().join(dir))).collect::<Result<Vec<_>, _>>()?.concat();
    let drawer = |p: &PathBuf| {
        p.strip_prefix(root()).is_ok_and(|p| p.with_extension("").iter().any(|part| DRAWERS.iter().any(|d| part == *d)))
    };
    let found: Vec<PathBuf> = files.into_iter().filter(drawer).collect();
    assert!(found.is_empty(), "put it beside its only user, or name it for what it holds: {found:?}");
    Ok(())
}

/// The checker has teeth: each snippet is refused, for the reason that it was written for.
#[test]
fn the_checker_refuses_what_it_should() -> Result<(), Box<dyn Error>> {
    for (file, source, why) in [
        ("domain/x.rs", "use crate::cluster::Cluster;", "domain may not import cluster"),
        ("domain/x.rs", "use crate::{crd::Source, wire};", "domain may not import wire"),
        ("cluster/x.rs", "fn f() { crate::cloud::connect(); }", "cluster may not import cloud"),
        ("cloud/x.rs", "use crate::cluster;", "cloud may not import cluster"),
        ("cloud/x.rs", "use crate::controller::Context;", "cloud may not import controller"),
        ("rollout/x.rs", "use super::super::cluster::Cluster;", "write crate::"),
        ("cloud/mod.rs", "use super::cluster::Cluster;", "write crate::"),
        ("controller/binding.rs", "use kube::{Client, ResourceExt};", "only cluster talks"),
        ("controller/binding.rs", "fn f(a: kube::api::Api<u8>) {}", "only cluster talks"),
        ("domain/x.rs", "use kube::ResourceExt;", "kube stays at the edge"),
        ("controller/x.rs", "use k8s_openapi::api::core::v1::{ConfigMap, Secret};", "Secrets are read and written"),
        ("controller/x.rs", "fn f(e: kube::Error) {}", "errors of the API server"),
        ("cluster/x.rs", "use tonic::Status;", "only cloud speaks gRPC"),
        ("cloud/x.rs", "fn f() { tokio::spawn(g()); }", "tasks are started in"),
        ("controller/binding.rs", "fn f(s: &mut JoinSet<()>) { s.spawn(g()); }", "tasks are started in"),
        ("cluster/x.rs", "fn f() { tokio::task::spawn_blocking(g); }", "tasks are started in"),
        ("domain/x.rs", "fn f() -> Timestamp { k8s_openapi::jiff::Timestamp::now() }", "time comes in"),
        ("rollout/x.rs", "fn f() { let t = Instant::now(); }", "time comes in"),
        ("rollout/x.rs", "fn f(t: Instant) { t.elapsed(); }", "time comes in"),
        ("identity/x.rs", "use std::time::{Duration, SystemTime};", "identity is pure"),
        ("crypto/x.rs", "fn f() { getrandom::fill(&mut b); }", "crypto is pure"),
        ("domain/x.rs", "use tokio::sync::watch;", "domain is pure"),
        ("domain/x.rs", "fn f() { std::fs::read(\"x\"); }", "domain is pure"),
        ("cluster/x.rs", "fn f() { std::env::var_os(\"X\"); }", "only config reads"),
        ("cluster/x.rs", "fn f() { unsafe { g() } }", "unsafe code lives in"),
        ("helpers/x.rs", "", "not in the table"),
        ("identity/x.rs", "async fn f() {}", "identity is pure"),
        ("identity/x.rs", "fn f() -> futures::future::BoxFuture<'static, ()> { g() }", "identity is pure"),
        // A second path to a credential, in each way that one could be laid.
        ("cloud/link.rs", "use crate::identity::signing_key::AgentKey;", "the one way"),
        ("identity/join.rs", "fn f() { AgentKey::generate(&mut rng()); }", "the one way"),
        ("identity/x.rs", "fn f() { ed25519_dalek::SigningKey::from_bytes(&b); }", "the one way"),
        ("controller/x.rs", "use crate::cloud::credentials::{Files, CredentialSource};", "the one way"),
        ("cloud/link.rs", "fn f(s: &S) { s.source.gather(); }", "the one way"),
        ("cloud/stream.rs", "fn f(c: &C) -> &str { &c.sa_token }", "the one way"),
        ("agent.rs", "fn f(b: String) -> wire::Credential { wire::Credential { issuer: b, ..D } }", "the one way"),
        ("cloud/x.rs", "fn f(c: &C) { let C { bootstrap_token, .. } = c; }", "the one way"),
        ("agent.rs", "use crate::config::TokenText;", "the one way"),
        ("cloud/channel.rs", "fn f(s: &Settings) { std::fs::read(&s.auth_token_file); }", "the one way"),
        ("cloud/inbox.rs", "fn f(i: &Identity) -> &[u8] { &i.access_token }", "the one way"),
        ("controller/x.rs", "fn f(s: &Session) { g(s.identity.access_token.to_vec()); }", "the one way"),
        ("cloud/link.rs", "use crate::wire::identity_service_client::IdentityServiceClient;", "the one way"),
        ("cloud/link.rs", "fn f() -> Arc<Session> { Arc::new(Session { identity, keyset, received }) }", "the one way"),
        ("cloud/link.rs", "fn f() { let it = wire::OpenFrame::default(); }", "the one way"),
        ("cloud/link.rs", "fn f(k: &K) { k.sign(Label::Open, vec![]); }", "the one way"),
        ("cloud/stream.rs", "fn f(k: &K) { k.sign_parts(Label::Prove, &[]); }", "the one way"),
        (
            "domain/x.rs",
            "#[cfg(test)] mod tests { use crate::cloud; } use crate::cloud;",
            "domain may not import cloud",
        ),
    ] {
        let found = violations(file, source)?;
        assert_eq!(found.len(), 1, "src/{file}: {source}: {found:?}");
        assert!(found[0].contains(why), "src/{file}: {source}: {found:?} instead of {why:?}");
    }
    Ok(())
}

#[test]
fn the_checker_lets_pass_what_it_should() -> Result<(), Box<dyn Error>> {
    for (file, source) in [
        ("domain/x.rs", "use crate::domain::name::DataKey; use crate::crd::Source;"),
        ("domain/x.rs", "// tokio::spawn, unsafe\nfn f() { g(\"crate::cloud Timestamp::now()\"); }"),
        ("domain/x.rs", "#[cfg(test)] mod tests { use crate::cloud; fn f() { Instant::now(); } }"),
        ("domain/x.rs", "#[cfg(test)] use crate::cloud; use crate::crd;"),
        ("domain/x.rs", "mod inner { #[cfg(test)] mod tests { use tokio::spawn; } }"),
        ("rollout/x.rs", "fn f(now: Timestamp) -> bool { now.is_zero() }"),
        ("cluster/x.rs", "use kube::{Api, Client}; use crate::rollout::workload::Workload;"),
        ("cluster/x.rs", "use k8s_openapi::api::core::v1::Secret;"),
        ("controller/x.rs", "use k8s_openapi::api::core::v1::SecretReference;"),
        (
            "cloud/x.rs",
            "use super::wire::parse; fn f() { tokio::time::sleep(d); let t = tokio::time::Instant::now(); }",
        ),
        ("agent.rs", "fn f() { tokio::spawn(crate::cloud::run()); }"),
        ("hardening.rs", "fn f() { unsafe { g() } }"),
        ("main.rs", "use ennote_agent::config::Cli;"),
        ("cloud/identity_service.rs", "fn f() { let key = AgentKey::generate(&mut rng()); g(Session { key }); }"),
        (
            "cloud/stream.rs",
            "use crate::identity::access_token::Session; fn f(s: &Session) { g(&s.identity.access_token); }",
        ),
        ("cloud/link.rs", "fn f(s: Option<Session>) -> Session { g(Proved { t }) } impl Session { fn g() {} }"),
    ] {
        assert_eq!(violations(file, source)?, Vec::<String>::new(), "src/{file}: {source}");
    }
    assert_eq!(code_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(code_lines("a\n    #[cfg(test)]\nb\n"), 3);
    Ok(())
}
