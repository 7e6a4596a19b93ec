//! What is written down twice is equal: the CRD, the chart's copy of it, version numbers, the list of reasons.

use ennote_agent::domain::reason::{Phase, Reason};
use std::error::Error;
use std::path::Path;

fn read(path: &str) -> Result<String, Box<dyn Error>> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&full).map_err(|e| format!("{path}: {e}").into())
}

#[test]
fn the_crd_is_what_the_types_produce() -> Result<(), Box<dyn Error>> {
    let want = ennote_agent::crd::manifest()?;
    for path in ["crds/ennotesecretbindings.yaml", "charts/ennote-agent/files/ennotesecretbindings.yaml"] {
        assert!(read(path)? == want, "{path} is stale: run `make generate` and commit the result");
    }
    Ok(())
}

#[test]
fn chart_and_agent_have_one_version() -> Result<(), Box<dyn Error>> {
    let chart: serde_json::Value = serde_yaml::from_str(&read("charts/ennote-agent/Chart.yaml")?)?;
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field} of charts/ennote-agent/Chart.yaml");
    }
    Ok(())
}

/// Rows of the first table: reason, meaning, turn, remedy.
fn reason_rows(text: &str) -> Vec<[String; 4]> {
    let cells = |line: &str| -> Option<[String; 4]> {
        let inner = line.strip_prefix("| `")?.strip_suffix('|')?.replace("\\|", "\u{1}");
        let cells: Vec<String> = inner.split('|').map(|c| c.trim().replace('\u{1}', "|")).collect();
        cells
            .try_into()
            .ok()
            .map(|[name, meaning, turn, remedy]: [String; 4]| [name.replace('`', ""), meaning, turn, remedy])
    };
    text.lines().filter_map(cells).collect()
}

#[test]
fn every_reason_is_explained() -> Result<(), Box<dyn Error>> {
    let rows = reason_rows(&read("docs/reasons.md")?);
    let documented: Vec<&str> = rows.iter().map(|[name, ..]| name.as_str()).collect();
    let known: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(documented, known, "docs/reasons.md has one row for each Reason of src/domain/reason.rs, in its order");
    for (reason, [_, meaning, turn, remedy]) in Reason::ALL.into_iter().zip(&rows) {
        assert!(meaning.ends_with('.') && !turn.is_empty(), "{reason}: say what it means and whose turn it is");
        if reason.phase() == Phase::Stalled {
            let person = ["You", "Cluster admin", "Cloud admin"].iter().any(|who| turn.contains(who));
            assert!(person, "{reason} waits for a person: say for whom, not {turn:?}");
            assert!(
                remedy.contains('`'),
                "{reason} waits for a person: name the command that mends it, not {remedy:?}"
            );
        }
    }
    Ok(())
}

/// The whole list: a variant that is not in `ALL` would escape the test above.
#[test]
fn the_list_of_reasons_is_whole() -> Result<(), Box<dyn Error>> {
    let source = read("src/domain/reason.rs")?;
    let body = source.split("pub enum Reason {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let variants: Vec<&str> =
        body.lines().map(str::trim).filter(|l| l.ends_with(',')).map(|l| l.trim_end_matches(',')).collect();
    assert_eq!(variants, Reason::ALL.iter().map(ToString::to_string).collect::<Vec<_>>());
    Ok(())
}

/// Names of the form `some_test_name` in a page.
fn test_names(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        // Series have names like tests, and a test of their own.
        !word.starts_with("ennote_binding_")
            && word.matches('_').count() >= 2
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    text.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn the_pages_name_tests_and_targets_that_exist() -> Result<(), Box<dyn Error>> {
    fn sources(dir: &Path, text: &mut String) -> std::io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                sources(&path, text)?;
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&std::fs::read_to_string(&path)?);
            }
        }
        Ok(())
    }
    let mut code = String::new();
    for dir in ["src", "tests", "e2e"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut code)?;
    }
    let makefile = read("Makefile")?;
    let mut pages =
        vec![("ARCHITECTURE.md".to_owned(), 20), ("README.md".to_owned(), 8), ("CONTRIBUTING.md".to_owned(), 0)];
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"))? {
        pages.push((format!("docs/{}", entry?.file_name().to_string_lossy()), 0));
    }
    for (page, at_least) in pages {
        let text = read(&page)?;
        let names = test_names(&text);
        assert!(names.len() >= at_least, "{page} names a test for each thing that it promises: {names:?}");
        let gone: Vec<&str> = names.into_iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert_eq!(gone, Vec::<&str>::new(), "{page} names tests that are gone");
        let targets = text.split("make ").skip(1).filter_map(|rest| rest.split([' ', '`', '\n', ':', ',', '.']).next());
        let missing: Vec<&str> = targets
            .filter(|t| !t.is_empty() && text.contains(&format!("`make {t}")))
            .filter(|t| !makefile.contains(&format!("\n{t}:")))
            .collect();
        assert_eq!(missing, Vec::<&str>::new(), "{page} names targets that the Makefile lacks");
    }
    Ok(())
}

/// What is promised against an attacker names the test that proves it, or says that none does.
#[test]
fn every_line_of_the_threat_model_names_its_proof() -> Result<(), Box<dyn Error>> {
    let text = read("docs/threat-model.md")?;
    let (promised, open) = text.split_once("## Not stopped").ok_or("the page says what is not stopped")?;
    let rows = |text: &str| -> Vec<Vec<String>> {
        let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attacker")).map(cells).collect()
    };
    for row in rows(promised) {
        let [attacker, _, gets, stopped, proof] = row.as_slice() else {
            return Err(format!("five cells: {row:?}").into());
        };
        assert!(!gets.is_empty() && !stopped.is_empty(), "{attacker}: say what it gets, and what stops the rest");
        let named = !test_names(proof).is_empty() || proof.contains("*not proved yet*");
        assert!(named, "{attacker}: {proof:?} names no test");
    }
    for row in rows(open) {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "say what it means and what to do: {row:?}");
    }
    assert!(rows(promised).len() > 25 && rows(open).len() > 5);
    Ok(())
}
