//! Deliveries and tombstones that an agent refuses, each with its reason.

use super::*;

pub(crate) fn refused(suite: Suite, good: &wire::Sealed) -> Vec<Value> {
    let mut all = Vec::new();
    let mut add = |name: &str, reason: &str, sealed: &wire::Sealed| {
        all.push(json!({"name": name, "reason": reason, "sealed": sealed_json(sealed)}));
    };
    let altered = |edit: fn(&mut wire::Sealed)| {
        let mut copy = good.clone();
        edit(&mut copy);
        copy
    };
    let resigned = |edit: fn(&mut wire::Sealed)| {
        let copy = altered(edit);
        envelope::sign_sealed(&payload_key(), copy.header, copy.enc, copy.ciphertext)
    };
    add("a flipped bit in the signature", "BadSignature", &altered(|s| s.signature[0] ^= 1));
    add("a signature of 63 bytes", "BadSignature", &altered(|s| s.signature.truncate(63)));
    add("no signature", "BadSignature", &altered(|s| s.signature.clear()));
    add("a flipped bit in the header", "BadSignature", &altered(|s| s.header[10] ^= 1));
    add("a flipped bit in enc", "BadSignature", &altered(|s| s.enc[0] ^= 1));
    add("a flipped bit in the ciphertext", "BadSignature", &altered(|s| s.ciphertext[0] ^= 1));
    add(
        "a byte moved from ciphertext to enc stays signed, and opens nothing",
        "Undecryptable",
        &altered(|s| {
            s.enc.push(s.ciphertext[0]);
            s.ciphertext.remove(0);
        }),
    );
    add("an unlisted key id", "UnknownKey", &altered(|s| s.key_id[0] ^= 1));
    add("a key id of a wrong length", "UnknownKey", &altered(|s| s.key_id.truncate(31)));
    let by_join = envelope::sign_sealed(&join_key(), good.header.clone(), good.enc.clone(), good.ciphertext.clone());
    add("signed by a JOIN key", "UnknownKey", &by_join);
    for (name, reason, edit) in OTHER_HEADERS.iter().chain(&OTHER_SEALED_HEADERS) {
        let mut header = wire::Header::decode(good.header.as_slice()).unwrap();
        edit(&mut header);
        let header = header.encode_to_vec();
        add(name, reason, &envelope::sign_sealed(&payload_key(), header, good.enc.clone(), good.ciphertext.clone()));
    }
    add("a header that does not decode", "BadPayload", &resigned(|s| s.header = vec![0xff; 8]));
    add("an altered ciphertext under a new signature", "Undecryptable", &resigned(|s| s.ciphertext[0] ^= 1));
    add("an altered tag under a new signature", "Undecryptable", &resigned(|s| *s.ciphertext.last_mut().unwrap() ^= 1));
    add("a ciphertext shorter than a tag", "Undecryptable", &resigned(|s| s.ciphertext.truncate(15)));
    add("an altered enc under a new signature", "Undecryptable", &resigned(|s| s.enc[0] ^= 1));
    add("an enc of order 1", "Undecryptable", &resigned(|s| s.enc.fill(0)));
    let short = if suite == Suite::A { "an enc of 31 bytes" } else { "an enc of 1119 bytes" };
    add(short, "Undecryptable", &resigned(|s| s.enc.truncate(s.enc.len() - 1)));
    if suite == Suite::B {
        add("an enc of suite A", "Undecryptable", &resigned(|s| s.enc.truncate(32)));
        add("an altered X25519 part of enc", "Undecryptable", &resigned(|s| s.enc[1119] ^= 1));
    }
    let to_another = {
        let key = session(suite, 17, 8);
        let other = envelope::seal(&delivery(suite), &key, &[0; 32], b"{}", &payload_key(), &mut Fixed(0x23)).unwrap();
        envelope::sign_sealed(&payload_key(), good.header.clone(), other.enc, other.ciphertext)
    };
    add("sealed to another session key under this one's name", "Undecryptable", &to_another);
    add("a plaintext shorter than the stamp key", "BadPayload", &short_plaintext(suite, good));
    all
}

/// HPKE of 31 bytes to the right key under the right header.
fn short_plaintext(suite: Suite, good: &wire::Sealed) -> wire::Sealed {
    let public = session(suite, 17, 6).public_key;
    let (enc, ciphertext) = suite.seal(&public, b"ennote/sealed/v1", &good.header, &[0; 31], &mut Fixed(0x24)).unwrap();
    envelope::sign_sealed(&payload_key(), good.header.clone(), enc, ciphertext)
}

pub(crate) fn gone_refused(good: &wire::Signed) -> Vec<Value> {
    let mut all = Vec::new();
    let mut add = |name: &str, reason: &str, signed: &wire::Signed| {
        all.push(json!({"name": name, "reason": reason, "signed": envelope_json(signed)}));
    };
    let mut flipped = good.clone();
    flipped.signature[0] ^= 1;
    add("a flipped bit in the signature", "BadSignature", &flipped);
    add("signed under another label", "BadSignature", &signed::sign(&payload_key(), Label::Beat, good.body.clone()));
    add("signed by a JOIN key", "UnknownKey", &signed::sign(&join_key(), Label::Gone, good.body.clone()));
    for (name, reason, edit) in &OTHER_HEADERS {
        let mut header = wire::Header::decode(good.body.as_slice()).unwrap();
        edit(&mut header);
        add(name, reason, &signed::sign(&payload_key(), Label::Gone, header.encode_to_vec()));
    }
    add("a header that does not decode", "BadPayload", &signed::sign(&payload_key(), Label::Gone, vec![0xff; 8]));
    all
}

/// What is refused of a tombstone beyond `gone_refused`, in both suites.
pub(crate) fn more_gone_refused() -> Value {
    const EDITS: [(&str, &str, Edit); 4] = [
        ("another suite", "WrongRecipient", |h| h.suite = 3 - h.suite),
        ("no suite", "WrongRecipient", |h| h.suite = 0),
        ("the index of a session key", "WrongRecipient", |h| h.key_index = 17),
        ("the hash of a session key", "WrongRecipient", |h| h.session_key_hash = vec![0; 32]),
    ];
    let of = |suite: Suite| {
        let refused = EDITS.map(|(name, reason, edit)| {
            let mut header = wire::Header::decode(good_gone(suite).body.as_slice()).unwrap();
            edit(&mut header);
            let signed = signed::sign(&payload_key(), Label::Gone, header.encode_to_vec());
            json!({"name": name, "reason": reason, "signed": envelope_json(&signed)})
        });
        Value::from_iter(refused)
    };
    json!({"a": of(Suite::A), "b": of(Suite::B)})
}

/// What is refused of the two answers of a join, under the keys and the hello of join-b.json.
pub(crate) fn join_refused() -> Value {
    let (suite, root, join) = (Suite::B, root(), join_key());
    let root_public = |key: &SigningKey| key.verifying_key().to_bytes().to_vec();
    let good_challenge = || signed::sign(&join, Label::Challenge, challenge(suite, |_| ()));
    let keysets = |edit: fn(&mut wire::Keyset)| signed::sign(&root, Label::Keyset, keyset(suite, edit));
    let challenges = |edit: fn(&mut wire::Challenge)| signed::sign(&join, Label::Challenge, challenge(suite, edit));
    let mut begins = Vec::new();
    let mut begin = |name: &str, reason: &str, root: Vec<u8>, keyset: wire::Signed, challenge: wire::Signed| {
        let (keyset, challenge) = (envelope_json(&keyset), envelope_json(&challenge));
        let answer = json!({"root_public_key": hex(root), "keyset": keyset, "challenge": challenge});
        begins.push(json!({"name": name, "reason": reason, "answer": answer}));
    };
    let altered = |signed: wire::Signed, edit: fn(&mut wire::Signed)| {
        let mut signed = signed;
        edit(&mut signed);
        signed
    };
    let (this, good) = (root_public(&root), signed_keyset(suite));
    begin("a root that is not pinned", "WrongRoot", root_public(&signer(8)), good.clone(), good_challenge());
    begin("a root of 31 bytes", "WrongRoot", this[..31].to_vec(), good.clone(), good_challenge());
    for (name, reason, signed) in [
        ("a keyset signed by another root", "BadKeyset", signed::sign(&signer(8), Label::Keyset, good.body.clone())),
        ("a keyset signed by a JOIN key", "BadKeyset", signed::sign(&join, Label::Keyset, good.body.clone())),
        ("a keyset signed under another label", "BadKeyset", signed::sign(&root, Label::Joined, good.body.clone())),
        ("a flipped bit in the keyset", "BadKeyset", altered(good.clone(), |s| s.body[3] ^= 1)),
        ("a flipped bit in the keyset's signature", "BadKeyset", altered(good.clone(), |s| s.signature[9] ^= 1)),
        ("a keyset that does not decode", "BadKeyset", signed::sign(&root, Label::Keyset, vec![0xff; 8])),
        ("a key of no use", "BadKeyset", keysets(|k| k.keys[0].r#use = 0)),
        ("a key of an unknown use", "BadKeyset", keysets(|k| k.keys[0].r#use = 4)),
        ("keyset version 0", "OldKeyset", keysets(|k| k.version = 0)),
        ("a keyset below the one already seen", "OldKeyset", keysets(|k| k.version = 5)),
        ("a keyset that lives longer than 30 days", "Expired", keysets(|k| k.expires_at_ms += 1)),
        ("a keyset that ends before it begins", "Expired", keysets(|k| k.expires_at_ms = k.issued_at_ms)),
        ("a keyset that has expired", "Expired", keysets(|k| k.expires_at_ms = k.issued_at_ms + 1_000)),
        ("a keyset that lists no JOIN key", "UnknownKey", keysets(|k| k.keys[0].r#use = 2)),
        ("a keyset that lists no SEAL key", "Suite", keysets(|k| k.keys.truncate(2))),
        ("a SEAL key under another suite", "Suite", keysets(|k| k.keys[3].suite = 1)),
    ] {
        begin(name, reason, this.clone(), signed, good_challenge());
    }
    for (name, reason, signed) in [
        (
            "a challenge signed by a PAYLOAD key",
            "UnknownKey",
            signed::sign(&payload_key(), Label::Challenge, challenge(suite, |_| ())),
        ),
        (
            "a challenge signed by the root",
            "UnknownKey",
            signed::sign(&root, Label::Challenge, challenge(suite, |_| ())),
        ),
        (
            "a challenge signed under another label",
            "BadSignature",
            signed::sign(&join, Label::Beat, challenge(suite, |_| ())),
        ),
        ("a flipped bit in the challenge", "BadSignature", altered(good_challenge(), |s| s.body[40] ^= 1)),
        ("a challenge that does not decode", "Mismatch", signed::sign(&join, Label::Challenge, vec![0xff; 8])),
        ("a challenge for another hello", "Mismatch", challenges(|c| c.hello_hash[0] ^= 1)),
        (
            "a challenge for the hello of which suite B was struck",
            "Mismatch",
            challenges(|c| c.hello_hash = hash(&[&hello(Suite::A)]).to_vec()),
        ),
        ("a challenge id of 15 bytes", "Mismatch", challenges(|c| c.challenge_id.truncate(15))),
        ("a server time after the keyset's end", "Expired", challenges(|c| c.server_time_ms += 30 * 24 * 3600 * 1000)),
        ("no suite", "Suite", challenges(|c| c.suite = 0)),
        ("a suite that was not offered", "Suite", challenges(|c| c.suite = 3)),
        ("the other suite with the key of this one", "Suite", challenges(|c| c.suite = 1)),
        ("a SEAL key that is not listed", "Suite", challenges(|c| c.seal_key_id[0] ^= 1)),
    ] {
        begin(name, reason, this.clone(), good.clone(), signed);
    }
    let t: [u8; 64] = [hash(&[&hello(suite)]), hash(&[&good_challenge().body])].concat().try_into().unwrap();
    let answers = |edit: fn(&mut wire::Joined)| {
        let mut body = joined(&t);
        edit(&mut body);
        signed::sign(&join, Label::Joined, body.encode_to_vec())
    };
    let good = answers(|_| ());
    let finishes = [
        ("signed by a PAYLOAD key", "UnknownKey", signed::sign(&payload_key(), Label::Joined, good.body.clone())),
        ("signed under another label", "BadSignature", signed::sign(&join, Label::Challenge, good.body.clone())),
        ("a flipped bit", "BadSignature", altered(good.clone(), |s| s.body[3] ^= 1)),
        ("one that does not decode", "Mismatch", signed::sign(&join, Label::Joined, vec![0xff; 8])),
        ("of another join", "Mismatch", answers(|j| j.t[0] ^= 1)),
        ("a transcript of 63 bytes", "Mismatch", answers(|j| j.t.truncate(63))),
        ("no agent id", "Mismatch", answers(|j| j.agent_id.clear())),
        ("a token that lives 0 s", "Mismatch", answers(|j| j.lives_s = 0)),
        ("a server time after the keyset's end", "Expired", answers(|j| j.server_time_ms += 30 * 24 * 3600 * 1000)),
    ]
    .map(|(name, reason, joined)| json!({"name": name, "reason": reason, "joined": envelope_json(&joined)}));
    json!({"seen_keyset_version": 6, "begin": begins, "finish": Value::from_iter(finishes)})
}
