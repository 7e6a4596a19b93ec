//! `ennote-agent render` as a pipeline uses it: what is printed, where, and with which exit code.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// A value that must be seen nowhere unless it was asked for.
const CANARY: &str = "canary-4711";
/// What it is in a Secret.
const ENCODED: &str = "Y2FuYXJ5LTQ3MTE=";

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the binary in a folder with `binding.yaml` and `payload.json`.
fn render(binding: &str, payload: &str, args: &[&str], stdin: &str) -> Result<Said, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("binding.yaml"), binding)?;
    std::fs::write(dir.path().join("payload.json"), payload)?;
    run(dir.path(), args, stdin)
}

fn run(dir: &Path, args: &[&str], stdin: &str) -> Result<Said, Box<dyn Error>> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ennote-agent"))
        .arg("render")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that does not read its input closes the pipe.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok(Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

const FILES: [&str; 4] = ["--file", "binding.yaml", "--payload", "payload.json"];

fn binding(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ennote.io/v1alpha1\nkind: EnnoteSecretBinding\nmetadata:\n  name: {name}\nspec:\n  source: {{secret: payments db}}\n{spec}"
    )
}

fn payload() -> String {
    format!(r#"{{"keysValues": {{"user": "app", "password": "{CANARY}", "empty": "", "digits": "1234"}}}}"#)
}

#[test]
fn values_are_hidden_and_a_hidden_one_cannot_be_applied() -> Outcome {
    for output in ["yaml", "json"] {
        let said = render(&binding("db", ""), &payload(), &[&FILES[..], &["--output", output]].concat(), "")?;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        let secret: serde_json::Value = serde_yaml::from_str(&said.out)?;
        assert_eq!(secret["metadata"]["name"], "db");
        for key in ["user", "password", "empty", "digits"] {
            assert_eq!(secret["data"][key], "<hidden>", "alike, however long the value is: {}", said.out);
        }
        assert!(data_encoding::BASE64.decode(b"<hidden>").is_err() && secret["stringData"].is_null());
        assert!(!said.out.contains(CANARY) && !said.out.contains(ENCODED), "{}", said.out);
    }
    Ok(())
}

#[test]
fn shown_values_are_the_secret_that_kubectl_takes() -> Outcome {
    for output in ["yaml", "json"] {
        let args = [&FILES[..], &["--show-values", "-o", output, "--secret-prefix", "team-"]].concat();
        let said = render(&binding("db", ""), &payload(), &args, "")?;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        let secret: serde_json::Value = serde_yaml::from_str(&said.out)?;
        let want = serde_json::json!({"user": "YXBw", "password": ENCODED, "empty": "", "digits": "MTIzNA=="});
        assert_eq!(secret["data"], want);
        assert_eq!(
            (&secret["apiVersion"], &secret["kind"], &secret["type"]),
            (&"v1".into(), &"Secret".into(), &"Opaque".into())
        );
        assert_eq!(secret["metadata"]["name"], "team-db");
        assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/managed-by"], "ennote-agent");
        assert_eq!(secret["metadata"]["annotations"], serde_json::json!({"ennote.io/binding": "db"}));
        assert!(secret["metadata"]["ownerReferences"].is_null() && secret["metadata"]["namespace"].is_null());
        serde_json::from_value::<k8s_openapi::api::core::v1::Secret>(secret)?;
    }
    Ok(())
}

#[test]
fn standard_input_serves_the_bindings_or_the_payload() -> Outcome {
    let from_stdin = render("", &payload(), &["-f", "-", "--payload", "payload.json"], &binding("db", ""))?;
    assert_eq!(from_stdin.code, Some(0), "{}", from_stdin.err);
    let other = render(&binding("db", ""), "", &["-f", "binding.yaml", "--payload", "-"], &payload())?;
    assert_eq!((other.code, other.out), (Some(0), from_stdin.out));
    let both = render("", "", &["-f", "-", "--payload", "-"], &payload())?;
    assert_eq!((both.code, both.out.as_str()), (Some(2), ""));
    Ok(())
}

#[test]
fn every_binding_of_a_file_is_rendered_and_other_kinds_are_passed_over() -> Outcome {
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, anything: goes}\n";
    let file = format!("{}---\n{other}---\n{}", binding("db", ""), binding("more", "  target: {name: other}\n"));
    let said = render(&file, &payload(), &FILES, "")?;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let names: Vec<&str> = said.out.lines().filter_map(|line| line.strip_prefix("  name: ")).collect();
    assert_eq!(names, ["db", "other"]);
    Ok(())
}

#[test]
fn what_does_not_fit_is_said_as_the_condition_would_and_nothing_is_printed() -> Outcome {
    let data = "  data:\n    - {key: A, pointer: /keysValues/no}\n    - {key: B, pointer: /keysValues/nor}\n    - {key: C, pointer: /keysValues/user}\n";
    let file = format!("{}---\n{}", binding("good", ""), binding("bad", data));
    let cases = [
        (file, payload(), &["bad: BadMapping", "/keysValues/no ", "/keysValues/nor "][..]),
        (binding("db", ""), format!(r#"{{"a": "{CANARY}", "a": 1}}"#), &["BadPayload", "\"a\" stands twice"]),
        (binding("db", ""), format!("{{{CANARY}"), &["BadPayload", "not JSON"]),
        (binding("db", ""), format!(r#"{{"keysValues": {{"a b": "{CANARY}"}}}}"#), &["BadMapping", "\"a b\""]),
        (binding("DB", ""), payload(), &["BadMapping", "spec.target.name"]),
        (binding("db", "").replace("  name: db", "  generateName: db-"), payload(), &["metadata.name is missing"]),
        (String::new(), payload(), &["binding.yaml holds no EnnoteSecretBinding"]),
    ];
    for (file, payload, wants) in cases {
        let said = render(&file, &payload, &FILES, "")?;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.err);
        for want in wants {
            assert!(said.err.contains(want), "{:?} lacks {want:?}", said.err);
        }
        assert!(!said.err.contains(CANARY), "{}", said.err);
    }
    Ok(())
}

#[test]
fn a_misspelt_field_is_refused_with_its_path_and_bad_yaml_with_its_line() -> Outcome {
    let version = binding("db", "").replace("v1alpha1", "v1");
    for (file, wants) in [
        (binding("db", "  traget: {name: x}\n"), &["unknown field spec.traget"][..]),
        (binding("db", "  target: {nmae: x}\n  dta: []\n"), &["spec.target.nmae", "spec.dta"]),
        (binding("db", "").replace("  name:", "  lables: {}\n  name:"), &["unknown field metadata.lables"]),
        (binding("db", "  data:\n    - {pointer: /a}\n"), &["spec.data[0]: missing field `key`", "line 8"]),
        (binding("db", "  target: [1]\n"), &["spec.target: invalid type"]),
        (binding("db", "  target: {name: a, name: b}\n"), &["duplicate"]),
        (binding("db", " wrong\n"), &["line "]),
        (version, &["apiVersion of a EnnoteSecretBinding is \"ennote.io/v1alpha1\", not \"ennote.io/v1\""]),
    ] {
        let said = render(&file, &payload(), &FILES, "")?;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{file}: {}", said.err);
        for want in wants {
            assert!(said.err.contains(want), "{:?} lacks {want:?}", said.err);
        }
    }
    Ok(())
}

#[test]
fn usage_and_files_have_an_exit_code_of_their_own() -> Outcome {
    let dir = tempfile::tempdir()?;
    let missing = run(dir.path(), &FILES, "")?;
    assert_eq!((missing.code, missing.out.as_str()), (Some(2), ""));
    assert!(missing.err.contains("cannot read binding.yaml"), "{}", missing.err);
    for args in [&["--file", "x"][..], &["--payload", "x"], &["--no-such-flag"]] {
        assert_eq!(run(dir.path(), args, "")?.code, Some(2), "{args:?}");
    }
    Ok(())
}

#[test]
fn examples_render_with_the_payload_that_they_are_written_for() -> Outcome {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let payload = r#"{"keysValues": {"url": "postgres://db/app", "user": "app", "password": "one"}}"#;
    let mut rendered = 0;
    for entry in std::fs::read_dir(&examples)? {
        let path: PathBuf = entry?.path();
        let file = path.display().to_string();
        if path.extension().is_none_or(|e| e != "yaml")
            || !std::fs::read_to_string(&path)?.contains("kind: EnnoteSecretBinding")
        {
            continue;
        }
        let said = run(&examples, &["-f", &file, "--payload", "-"], payload)?;
        assert_eq!(said.code, Some(0), "{file}: {}", said.err);
        rendered += 1;
    }
    assert!(rendered >= 3, "the examples were found");
    Ok(())
}
