//! `.github/workflows`: every action pinned by its commit, every job with the rights of its own work and no others, and the signature
//! that the README tells to ask for is the one that the release makes.
//!
//! `make workflows` asks actionlint and zizmor; this needs neither, and holds what they do not know: which job may do what.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;
type Rights = &'static [(&'static str, &'static str)];

/// What each job may do. A right that is not here is refused; `id-token: write`, which signs in the name of the workflow, stands in
/// the two jobs that sign, and where the release calls the file of one of them.
const RIGHTS: [(&str, &str, Rights); 13] = [
    ("advisories.yml", "advisories", &[("contents", "read")]),
    ("build.yml", "binary", &[("contents", "read")]),
    ("build.yml", "assemble", &[("contents", "read")]),
    ("build.yml", "provenance", &[("attestations", "write"), ("id-token", "write")]),
    ("ci.yml", "test", &[("contents", "read")]),
    ("ci.yml", "verify", &[("contents", "read")]),
    ("release.yml", "tag", &[("contents", "read")]),
    ("release.yml", "ci", &[("contents", "read")]),
    ("release.yml", "build", &[("attestations", "write"), ("contents", "read"), ("id-token", "write")]),
    ("release.yml", "publish", &[("contents", "read"), ("packages", "write")]),
    ("release.yml", "sign", &[("contents", "read"), ("id-token", "write"), ("packages", "write")]),
    ("release.yml", "verify", &[("contents", "read"), ("packages", "read")]),
    ("release.yml", "release", &[("contents", "write")]),
];

const WORKFLOWS: &str = ".github/workflows";
const REPOSITORY: &str = "https://github.com/ennote-io/ennote-agent";

fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn read(of: &str) -> Result<String> {
    std::fs::read_to_string(path(of)).map_err(|e| format!("{of}: {e}").into())
}

/// Every workflow by its file name.
fn workflows() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(path(WORKFLOWS))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let text = read(&format!("{WORKFLOWS}/{name}"))?;
        found.insert(name, text);
    }
    Ok(found)
}

fn parse(text: &str) -> Result<Value> {
    Ok(serde_yaml::from_str(text)?)
}

fn jobs(workflow: &Value) -> Result<&Map<String, Value>> {
    Ok(workflow["jobs"].as_object().ok_or("a workflow has jobs")?)
}

fn steps(job: &Value) -> &[Value] {
    job["steps"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What is wrong with the `uses:` lines of a workflow.
fn unpinned(text: &str) -> Vec<String> {
    let uses = text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("uses:"));
    let is_pinned = |what: &str| {
        let (action, comment) = what.split_once(" # ").unwrap_or((what, ""));
        match (action.strip_prefix("./"), action.split_once('@')) {
            (Some(file), _) => path(file).is_file(),
            // The comment is what a person reads: which version the commit is.
            (None, Some((name, commit))) => name.contains('/') && is_commit(commit) && comment.starts_with('v'),
            (None, None) => false,
        }
    };
    uses.map(str::trim).filter(|what| !is_pinned(what)).map(|what| format!("not pinned: {what}")).collect()
}

/// What is wrong with the rights of a workflow and its jobs.
fn excessive(name: &str, workflow: &Value) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if workflow["permissions"] != json!({}) {
        found.push(format!("{name}: `permissions: {{}}` stands at the top, so that a job has only what it says"));
    }
    for trigger in ["pull_request_target", "workflow_run", "issue_comment"] {
        let of = &workflow["on"];
        let is_there = of.get(trigger).is_some() || of.as_str() == Some(trigger);
        if is_there || of.as_array().is_some_and(|all| all.contains(&json!(trigger))) {
            found.push(format!("{name}: {trigger} runs a stranger's text with rights"));
        }
    }
    for (job, body) in jobs(workflow)? {
        let may = RIGHTS.iter().find(|(file, of, _)| *file == name && of == job);
        let may: Option<Value> =
            may.map(|(_, _, rights)| rights.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect());
        if may.as_ref() != body.get("permissions") {
            found.push(format!("{name}: {job} has {} and not {may:?}", body["permissions"]));
        }
        if !steps(body).is_empty() && body["timeout-minutes"].as_u64().is_none() {
            found.push(format!("{name}: {job} has no timeout-minutes"));
        }
        for step in steps(body) {
            let checks_out = step["uses"].as_str().is_some_and(|uses| uses.starts_with("actions/checkout@"));
            if checks_out && step["with"]["persist-credentials"] != json!(false) {
                found.push(format!("{name}: {job} leaves its token in the checkout"));
            }
        }
    }
    Ok(found)
}

/// What the commands of a workflow name that does not exist, and what they take from outside as text of a script.
fn broken(workflow: &Value, makefile: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let commands = jobs(workflow)?.values().flat_map(steps).filter_map(|step| step["run"].as_str());
    for command in commands {
        if command.contains("${{") {
            found.push(format!("an expression becomes part of a script; hand it over in env: {command}"));
        }
        let mut words = command.split_whitespace().peekable();
        while let Some(word) = words.next() {
            match (word, words.peek()) {
                ("make", Some(target)) if !makefile.contains(&format!("\n{target}:")) => {
                    found.push(format!("the Makefile lacks {target}"));
                }
                (script, _) if script.starts_with("e2e/") && !path(script).is_file() => {
                    found.push(format!("there is no {script}"));
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// `text` with `old` replaced, which must be there: else a counter-example would prove nothing.
fn altered(text: &str, old: &str, new: &str) -> Result<String> {
    if !text.contains(old) {
        return Err(format!("{old:?} is gone from the workflow: find another counter-example").into());
    }
    Ok(text.replacen(old, new, 1))
}

#[test]
fn every_action_is_pinned_by_commit() -> Result {
    for (name, text) in workflows()? {
        assert_eq!(unpinned(&text), Vec::<String>::new(), "{name}");
    }
    let good = "- uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1";
    assert_eq!(unpinned(good), Vec::<String>::new());
    for bad in [
        "- uses: actions/checkout@v7",
        "- uses: actions/checkout@main # v7.0.1",
        "- uses: actions/checkout@3d3c42e # v7.0.1",
        "- uses: actions/checkout",
        "- uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1",
        "- uses: actions/checkout@3D3C42E5AAC5BA805825DA76410C181273BA90B1 # v7.0.1",
        "uses: ./.github/workflows/gone.yml",
        "- uses: docker://alpine:3",
    ] {
        assert_eq!(unpinned(bad).len(), 1, "{bad} is let through");
    }
    Ok(())
}

#[test]
fn no_job_may_more_than_its_work_needs() -> Result {
    let all = workflows()?;
    let mut rows = 0;
    for (name, text) in &all {
        let workflow = parse(text)?;
        rows += jobs(&workflow)?.len();
        assert_eq!(excessive(name, &workflow)?, Vec::<String>::new());
    }
    assert_eq!(rows, RIGHTS.len(), "RIGHTS has a row for each job and for nothing else");
    let release = all.get("release.yml").ok_or("release.yml")?;
    for (old, new) in [
        ("permissions: {}", "permissions: read-all"),
        ("permissions: {}\n", "\n"),
        ("contents: read", "contents: write"),
        ("contents: read\n", "contents: read\n      id-token: write\n"),
        ("packages: read", "packages: write"),
        ("persist-credentials: false", "persist-credentials: true"),
        ("    timeout-minutes: 5\n", ""),
        ("  release:\n", "  another:\n"),
        ("  push:\n", "  pull_request_target:\n  push:\n"),
    ] {
        let wrong = parse(&altered(release, old, new)?)?;
        assert!(!excessive("release.yml", &wrong)?.is_empty(), "{old:?} as {new:?} is let through");
    }
    Ok(())
}

#[test]
fn workflows_run_targets_and_scripts_that_exist() -> Result {
    let (all, makefile) = (workflows()?, read("Makefile")?);
    for (name, text) in &all {
        assert_eq!(broken(&parse(text)?, &makefile)?, Vec::<String>::new(), "{name}");
    }
    for (name, old, new) in [
        ("ci.yml", "make test", "make tset"),
        ("build.yml", "supply-chain/build.sh", "supply-chain/biuld.sh"),
        ("release.yml", "\"$SIGNED_CHART\"", "${{ needs.publish.outputs.chart }}"),
    ] {
        let wrong = parse(&altered(all.get(name).ok_or(name)?, old, new)?)?;
        assert!(!broken(&wrong, &makefile)?.is_empty(), "{new:?} is let through");
    }
    Ok(())
}

/// The file whose job has `id-token: write` and runs sign.sh: cosign's certificate names it.
fn signs(all: &BTreeMap<String, String>) -> Result<Vec<&str>> {
    let mut found = Vec::new();
    for (name, text) in all {
        let workflow = parse(text)?;
        let is_signing = |job: &Value| {
            let runs = |step: &Value| step["run"].as_str().is_some_and(|run| run.contains("supply-chain/sign.sh"));
            job["permissions"]["id-token"] == "write" && steps(job).iter().any(runs)
        };
        if jobs(&workflow)?.values().any(is_signing) {
            found.push(name.as_str());
        }
    }
    Ok(found)
}

/// What follows `before` in a text, up to white space or a quote; each once.
fn after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let ends = |c: char| c.is_whitespace() || c == '"';
    let mut found: Vec<&str> = text.split(before).skip(1).filter_map(|rest| rest.split(ends).next()).collect();
    found.dedup();
    found
}

#[test]
fn the_readme_asks_for_the_workflow_that_signs() -> Result {
    let (all, readme, verify) = (workflows()?, read("README.md")?, read("e2e/supply-chain/verify.sh")?);
    let version = env!("CARGO_PKG_VERSION");
    let [signer] = signs(&all)?[..] else { return Err("one workflow signs".into()) };
    let release = &all[signer];
    let workflow = parse(release)?;

    // Only a tag starts it: at another ref the identity is another one.
    assert_eq!(workflow["on"], json!({"push": {"tags": ["v*"]}}));
    let identity = format!("{REPOSITORY}/{WORKFLOWS}/{signer}@refs/tags/");
    let at_tag = format!("{identity}v{version}");
    assert_eq!(after(&readme, "$ who="), [at_tag.as_str()]);
    // The release asks for the same before it calls itself one.
    assert_eq!(after(release, "--certificate-identity \""), [format!("{identity}$GITHUB_REF_NAME")]);
    let issuer = after(&readme, "$ by=");
    assert_eq!(issuer, ["https://token.actions.githubusercontent.com"]);
    assert_eq!(after(release, "--certificate-oidc-issuer "), issuer);

    // The names that are pushed are the names that are verified, in the version of this tree.
    let env = |name: &str| workflow["env"][name].as_str().unwrap_or_default().to_owned();
    for of in [format!("{}:{version}", env("IMAGE")), format!("{}/ennote-agent:{version}", env("CHARTS"))] {
        assert!(readme.contains(&format!(" {of}\n")), "the README does not verify {of}");
    }
    assert!(
        read("e2e/supply-chain/assemble.sh")?.contains(&format!(":-{}}}", env("IMAGE"))),
        "the chart names the image"
    );

    // Each line of the README is a line of verify.sh, which `make signatures` runs; each says who and by whom, exactly.
    let lines: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("$ cosign ")).collect();
    assert_eq!(lines.len(), 4);
    for line in lines {
        let asks = line.split(" --certificate").next().unwrap_or_default();
        let runs = asks.replace(" --bundle FILE.sigstore.json", "");
        assert!(verify.contains(&format!("\"$cosign\" {runs} \"$@\"")), "verify.sh does not run cosign {runs}");
        assert!(line.contains("--certificate-identity $who --certificate-oidc-issuer $by"), "{line}");
    }
    assert!(!readme.contains("-regexp"), "a pattern takes more than one workflow");

    // Provenance is in the name of the workflow that builds.
    let builder = after(&readme, "--signer-workflow ");
    let attests = |text: &String| text.contains("uses: actions/attest@");
    let named: Vec<String> = all
        .iter()
        .filter(|(_, text)| attests(text))
        .map(|(name, _)| format!("ennote-io/ennote-agent/{WORKFLOWS}/{name}"))
        .collect();
    assert_eq!(builder, named);
    assert_eq!(after(&readme, "--source-ref "), [format!("refs/tags/v{version}")], "no other branch or tag");
    Ok(())
}

#[test]
fn the_workflow_that_signs_is_found_by_what_it_does() -> Result {
    let mut all = workflows()?;
    assert_eq!(signs(&all)?, ["release.yml"]);
    let other = all["release.yml"].clone();
    all.insert("other.yml".to_owned(), other);
    assert_eq!(signs(&all)?, ["other.yml", "release.yml"]);
    let unsigned = altered(&all["release.yml"], "supply-chain/sign.sh", "supply-chain/login.sh")?;
    all.insert("release.yml".to_owned(), unsigned);
    assert_eq!(signs(&all)?, ["other.yml"]);
    Ok(())
}
