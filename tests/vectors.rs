//! The frozen known answers of `proto/vectors/`, as the agent's side must compute and refuse them. Nothing here writes them.

#![allow(clippy::unwrap_used, reason = "a failing test panics")]

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use ennote_agent::crypto::envelope::{self, Expected, Facts};
use ennote_agent::crypto::session_keys::SessionKey;
use ennote_agent::crypto::signed::{self, Label, SignatureError, VerifyingKeys, hash};
use ennote_agent::crypto::suite::Suite;
use ennote_agent::domain::content::{Fingerprints, StampKey};
use ennote_agent::domain::name::DataKey;
use ennote_agent::domain::reason::Reason;
use ennote_agent::domain::secret_value::{SecretData, SecretValue};
use ennote_agent::identity::join::{Credentials, Join, JoinError};
use ennote_agent::identity::signing_key::AgentKey;
use ennote_agent::identity::trust::{Keyset, Trust, root_of_token};
use ennote_agent::wire;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use std::convert::Infallible;

fn file(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn envelope_of(value: &Value) -> wire::Signed {
    wire::Signed { body: bytes(&value["body"]), key_id: bytes(&value["key_id"]), signature: bytes(&value["signature"]) }
}

fn sealed_of(value: &Value) -> wire::Sealed {
    wire::Sealed {
        header: bytes(&value["header"]),
        enc: bytes(&value["enc"]),
        ciphertext: bytes(&value["ciphertext"]),
        key_id: bytes(&value["key_id"]),
        signature: bytes(&value["signature"]),
    }
}

/// Gives out the given draws, each whole: seeds, nonces, and RFC 9180's ikmE.
struct Draws(Vec<Vec<u8>>);

impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("draws are taken whole")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("draws are taken whole")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.0.remove(0));
        Ok(())
    }
}

impl TryCryptoRng for Draws {}

const LABELS: [Label; 9] = [
    Label::Keyset,
    Label::Challenge,
    Label::Prove,
    Label::Joined,
    Label::Open,
    Label::Ask,
    Label::Beat,
    Label::Sealed,
    Label::Gone,
];

/// The files of one suite.
struct Files {
    suite: Suite,
    offered: &'static [Suite],
    signed: &'static str,
    join: &'static str,
    sealed: &'static str,
}

const SUITES: [Files; 2] = [
    Files { suite: Suite::A, offered: &[Suite::A], signed: "signed.json", join: "join.json", sealed: "sealed.json" },
    Files {
        suite: Suite::B,
        offered: &Suite::OFFERED,
        signed: "signed-b.json",
        join: "join-b.json",
        sealed: "sealed-b.json",
    },
];

#[test]
fn every_label_signs_and_verifies_as_it_did() {
    SUITES.iter().for_each(|suite| signs_and_verifies(&file(suite.signed)));
}

fn signs_and_verifies(file: &Value) {
    let entries = file.as_array().unwrap();
    assert_eq!(entries.len(), LABELS.len());
    for (entry, label) in entries.iter().zip(LABELS) {
        assert_eq!(format!("ennote/{}/v1", text(&entry["label"])), label.text());
        let key = SigningKey::from_bytes(&array(&entry["key"]["seed"]));
        let public = key.verifying_key().to_bytes();
        assert_eq!((public, hash(&public)), (array(&entry["key"]["public_key"]), array(&entry["key"]["key_id"])));
        let parts: Vec<Vec<u8>> = entry["parts"].as_array().unwrap().iter().map(bytes).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let signature = bytes(&entry["signature"]);
        assert_eq!(signed::sign_parts(&key, label, &parts).as_slice(), signature, "{label:?}");
        let mut listed = VerifyingKeys::default();
        listed.add(&public);
        listed.verify(label, &parts, &hash(&public), &signature).unwrap();
        for other in LABELS.into_iter().filter(|other| *other != label) {
            assert!(listed.verify(other, &parts, &hash(&public), &signature).is_err(), "{label:?} counts as {other:?}");
        }
    }
}

/// The join up to and with `prove`, exactly as it was.
fn begun(suite: &Files, file: &Value) -> (Join, wire::BeginResponse, Trust, AgentKey, Credentials, Draws) {
    let mut draws =
        Draws(vec![bytes(&file["agent_key"]["seed"]), bytes(&file["client_nonce"]), bytes(&file["ephemeral_ikm"])]);
    let key = AgentKey::generate(&mut draws);
    let join = Join::offering(suite.offered, &key, &text(&file["build"]), &mut draws);
    assert_eq!(join.request().hello, bytes(&file["hello"]));
    let token = text(&file["bootstrap_token"]);
    assert_eq!(root_of_token(&token), Some(array(&file["root"]["key_id"])));
    let trust = Trust::pin(&[], Some(&token)).unwrap();
    let answer = wire::BeginResponse {
        root_public_key: bytes(&file["root"]["public_key"]),
        keyset: Some(envelope_of(&file["keyset"])),
        challenge: Some(envelope_of(&file["challenge"])),
    };
    (join, answer, trust, key, Credentials { bootstrap_token: token.into(), ..Credentials::default() }, draws)
}

#[test]
fn the_join_is_begun_proved_and_finished_byte_for_byte() {
    SUITES.iter().for_each(is_begun_proved_and_finished);
}

fn is_begun_proved_and_finished(suite: &Files) {
    let file = file(suite.join);
    let (join, answer, mut trust, key, credentials, mut draws) = begun(suite, &file);
    let (proved, finish) = join.prove(&answer, &mut trust, &key, &credentials, &mut draws).unwrap();
    let expected = &file["finish"];
    assert_eq!(finish.challenge_id, bytes(&expected["challenge_id"]));
    assert_eq!(finish.enc, bytes(&expected["enc"]));
    assert_eq!(finish.sealed, bytes(&expected["sealed"]));
    assert_eq!(finish.signature, bytes(&expected["signature"]));
    let joined = wire::FinishResponse { joined: Some(envelope_of(&file["joined"])) };
    let (identity, _) = proved.finish(&joined, &mut trust).unwrap();
    let expected = &file["identity"];
    assert_eq!(identity.agent_id, text(&expected["agent_id"]));
    assert_eq!(identity.organization, text(&expected["organization"]));
    assert_eq!(identity.workspace, text(&expected["workspace"]));
    assert_eq!((identity.epoch, identity.suite), (number(&expected["epoch"]), suite.suite));
    assert_eq!(identity.access_token.as_slice(), bytes(&expected["access_token"]));
    assert_eq!(identity.lives.as_secs(), number(&expected["lives_s"]));
}

#[test]
fn a_join_with_one_bit_of_an_answer_changed_is_refused() {
    let file = file("join-b.json");
    type Edit = fn(&mut wire::BeginResponse);
    let edits: [Edit; 6] = [
        |a| a.root_public_key[0] ^= 1,
        |a| a.keyset.as_mut().unwrap().body[3] ^= 1,
        |a| a.keyset.as_mut().unwrap().signature[0] ^= 1,
        |a| a.challenge.as_mut().unwrap().body[3] ^= 1,
        |a| a.challenge.as_mut().unwrap().signature[0] ^= 1,
        |a| a.challenge.as_mut().unwrap().key_id[0] ^= 1,
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let (join, mut answer, mut trust, key, credentials, mut draws) = begun(&SUITES[1], &file);
        edit(&mut answer);
        let refused: Option<JoinError> = join.prove(&answer, &mut trust, &key, &credentials, &mut draws).err();
        assert!(refused.is_some(), "edit {index}");
    }
}

fn expected(suite: Suite, file: &Value) -> Expected {
    let expected = &file["expected"];
    Expected {
        agent_id: text(&expected["agent_id"]),
        epoch: number(&expected["epoch"]),
        suite,
        stream_nonce: bytes(&expected["stream_nonce"]),
        want_id: number(&expected["want_id"]),
        namespace: text(&expected["namespace"]),
        binding: text(&expected["binding"]),
        binding_uid: text(&expected["binding_uid"]),
        organization: text(&expected["organization"]),
        workspace: text(&expected["workspace"]),
        secret: text(&expected["secret"]),
    }
}

fn session_key(suite: Suite, file: &Value) -> SessionKey {
    let of = &file["session_key"];
    let (key, public) = SessionKey::from_seed(suite, number(&of["index"]), &array(&of["private_key"])).unwrap();
    assert_eq!(public, bytes(&of["public_key"]));
    key
}

/// The keys of the frozen keyset, from which payload keys alone count here.
fn keyset() -> Keyset {
    let file = file("join.json");
    let mut trust = Trust::pin(&[array(&file["root"]["key_id"])], None).unwrap();
    trust.accept(&bytes(&file["root"]["public_key"]), &envelope_of(&file["keyset"])).unwrap()
}

#[test]
fn the_delivery_opens_to_its_stamp_key_and_payload_and_the_tombstone_counts() {
    SUITES.iter().for_each(opens_and_counts);
}

fn opens_and_counts(suite: &Files) {
    let (suite, file) = (suite.suite, file(suite.sealed));
    let (expected, listed) = (expected(suite, &file), keyset().payload);
    let sealed = sealed_of(&file["sealed"]);
    assert_eq!(envelope::claimed_key(&sealed), Some(number(&file["session_key"]["index"])));
    let opened = envelope::open(sealed, session_key(suite, &file), &expected, &listed).unwrap();
    let committed_at_ms = file["committed_at_ms"].as_i64().unwrap();
    assert_eq!(opened.facts, Facts { version: number(&file["version"]), committed_at_ms });
    assert_eq!(opened.payload.expose(), text(&file["payload"]).as_bytes());
    // A stamp key shows itself only by what it keys.
    let stamp_key = StampKey::new(&array(&file["stamp_key"]));
    let data: SecretData = [(DataKey::parse("PORT").unwrap(), SecretValue::copy_of(b"5432"))].into();
    assert_eq!(Fingerprints::of(&opened.stamp_key, &data), Fingerprints::of(&stamp_key, &data));
    let gone = &file["gone"];
    let facts = envelope::gone(&envelope_of(&gone["signed"]), &expected, &listed).unwrap();
    assert_eq!(facts, Facts { version: number(&gone["version"]), committed_at_ms });
}

#[test]
fn every_altered_delivery_is_refused_for_its_own_reason() {
    for suite in &SUITES {
        let (suite, file) = (suite.suite, file(suite.sealed));
        let (expected, listed) = (expected(suite, &file), keyset().payload);
        let mut reasons = std::collections::BTreeSet::new();
        for case in file["refused"].as_array().unwrap() {
            let refused =
                envelope::open(sealed_of(&case["sealed"]), session_key(suite, &file), &expected, &listed).err();
            let reason = refused.map(|refusal| format!("{:?}", refusal.0));
            assert_eq!(reason.as_deref(), case["reason"].as_str(), "{suite:?}: {}", case["name"]);
            reasons.extend(reason);
        }
        assert_eq!(reasons.len(), 7, "every reason of PROTOCOL.md but Rollback: {reasons:?}");
    }
}

/// What may count against the beats: the core's own answer to this want of this stream, and nothing put in its place.
#[test]
fn only_what_the_core_signed_for_this_want_is_authentic() {
    use wire::have::Answer;
    for suite in &SUITES {
        let (suite, file) = (suite.suite, file(suite.sealed));
        let (expected, listed) = (expected(suite, &file), keyset().payload);
        let version = |answer: &Answer, id, nonce: &[u8]| envelope::authentic(answer, id, nonce, &listed);
        let (id, nonce) = (expected.want_id, expected.stream_nonce.as_slice());
        let sealed = sealed_of(&file["sealed"]);
        let gone = envelope_of(&file["gone"]["signed"]);
        let answers = [
            (Answer::Sealed(sealed.clone()), number(&file["version"])),
            (Answer::Gone(gone.clone()), number(&file["gone"]["version"])),
        ];
        for (answer, of) in answers {
            assert_eq!(version(&answer, id, nonce), Some(of));
            assert_eq!(version(&answer, id + 1, nonce), None, "sent to another want");
            assert_eq!(version(&answer, id, &[0; 32]), None, "of another stream");
            assert_eq!(envelope::authentic(&answer, id, nonce, &VerifyingKeys::default()), None, "not listed any more");
        }
        let mut altered = sealed;
        altered.ciphertext[0] ^= 1;
        let forged = wire::Signed { signature: vec![0; 64], ..gone.clone() };
        assert_eq!(version(&Answer::Sealed(altered), id, nonce), None);
        assert_eq!(version(&Answer::Gone(forged), id, nonce), None);
        assert_eq!(version(&Answer::Denied(wire::Denied::default()), id, nonce), None);
        assert!(envelope::bounded(gone.clone()) == gone);
        let vast = wire::Signed { body: vec![0; 1 << 20], key_id: vec![0; 1 << 20], signature: vec![0; 1 << 20] };
        assert!(envelope::bounded(vast) == wire::Signed::default());
    }
}

#[test]
fn every_altered_tombstone_is_refused_for_its_own_reason() {
    let more = file("gone-refused.json");
    for (suite, more) in SUITES.iter().zip([&more["a"], &more["b"]]) {
        let (suite, file) = (suite.suite, file(suite.sealed));
        let (expected, listed) = (expected(suite, &file), keyset().payload);
        let cases = file["gone_refused"].as_array().unwrap().iter().chain(more.as_array().unwrap());
        for case in cases {
            let refused = envelope::gone(&envelope_of(&case["signed"]), &expected, &listed).err();
            let reason = refused.map(|refusal| format!("{:?}", refusal.0));
            assert_eq!(reason.as_deref(), case["reason"].as_str(), "{suite:?}: {}", case["name"]);
        }
    }
}

#[test]
fn what_is_sealed_by_one_suite_is_refused_on_a_stream_of_the_other() {
    let (a, b) = (file("sealed.json"), file("sealed-b.json"));
    let listed = keyset().payload;
    let refused = |suite: Suite, key: Suite, file: &Value| {
        let expected = expected(suite, file);
        envelope::open(sealed_of(&file["sealed"]), session_key(key, file), &expected, &listed).err().map(|r| r.0)
    };
    assert_eq!(refused(Suite::B, Suite::A, &a), Some(Reason::WrongRecipient));
    assert_eq!(refused(Suite::A, Suite::B, &b), Some(Reason::WrongRecipient));
    for (suite, file) in [(Suite::B, &a), (Suite::A, &b)] {
        let gone = envelope::gone(&envelope_of(&file["gone"]["signed"]), &expected(suite, file), &listed);
        assert_eq!(gone.err().map(|r| r.0), Some(Reason::WrongRecipient));
    }
}

/// The name of a refusal of a join, as the vectors have it.
fn name_of(error: JoinError) -> String {
    match error {
        JoinError::Trust(error) => format!("{error:?}"),
        JoinError::Signature(SignatureError::UnknownKey) => "UnknownKey".to_owned(),
        JoinError::Signature(SignatureError::Bad) => "BadSignature".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_altered_answer_of_a_join_is_refused_for_its_own_reason() {
    let (cases, file) = (file("join-refused.json"), file("join-b.json"));
    for case in cases["begin"].as_array().unwrap() {
        let (join, _, mut trust, key, credentials, mut draws) = begun(&SUITES[1], &file);
        trust.require_keyset(number(&cases["seen_keyset_version"]));
        let of = &case["answer"];
        let answer = wire::BeginResponse {
            root_public_key: bytes(&of["root_public_key"]),
            keyset: Some(envelope_of(&of["keyset"])),
            challenge: Some(envelope_of(&of["challenge"])),
        };
        let refused = join.prove(&answer, &mut trust, &key, &credentials, &mut draws).err().map(name_of);
        assert_eq!(refused.as_deref(), case["reason"].as_str(), "begin: {}", case["name"]);
    }
    for case in cases["finish"].as_array().unwrap() {
        let (join, answer, mut trust, key, credentials, mut draws) = begun(&SUITES[1], &file);
        let (proved, _) = join.prove(&answer, &mut trust, &key, &credentials, &mut draws).unwrap();
        let answer = wire::FinishResponse { joined: Some(envelope_of(&case["joined"])) };
        let refused = proved.finish(&answer, &mut trust).err().map(name_of);
        assert_eq!(refused.as_deref(), case["reason"].as_str(), "finish: {}", case["name"]);
    }
}

/// The cloud has another door with another wire format (v1.json); what belongs there is no delivery, not even a signed one.
#[test]
fn a_blob_of_the_published_format_is_no_delivery() {
    SUITES.iter().for_each(|suite| no_blob_opens(suite.suite, &file(suite.sealed)));
}

fn no_blob_opens(suite: Suite, file: &Value) {
    let v1 = self::file("v1.json");
    let (expected, listed) = (expected(suite, file), keyset().payload);
    let signer = SigningKey::from_bytes(&array(&file["payload_key"]["seed"]));
    let (sealed, answer) = (sealed_of(&file["sealed"]), &v1["answer"]);
    let (blob, wrapped) = (bytes(&answer["encrypted_blob"]), bytes(&answer["session_wrapped_key"]));
    let ephemeral = wrapped[16..48].to_vec();
    for (enc, ciphertext) in [
        (sealed.enc.clone(), blob.clone()),
        (ephemeral.clone(), blob.clone()),
        (ephemeral, wrapped[48..].to_vec()),
        (wrapped, blob),
        (Vec::new(), bytes(&v1["upload"]["encrypted_blob"])),
    ] {
        let parts = [hash(&sealed.header), hash(&[&enc[..], &ciphertext].concat())];
        let parts: Vec<&[u8]> = parts.iter().map(<[u8; 32]>::as_slice).collect();
        let signature = signed::sign_parts(&signer, Label::Sealed, &parts).to_vec();
        let signed = wire::Sealed { enc, ciphertext, signature, ..sealed.clone() };
        let refused = envelope::open(signed, session_key(suite, file), &expected, &listed).err();
        assert_eq!(refused.map(|refusal| format!("{:?}", refusal.0)).as_deref(), Some("Undecryptable"));
    }
}
