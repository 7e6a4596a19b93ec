//! Deliveries and tombstones that an agent refuses, each with its reason.

use super::*;

pub(crate) fn refused(good: &wire::Sealed) -> Vec<Value> {
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
    add("an enc of 31 bytes", "Undecryptable", &resigned(|s| s.enc.truncate(31)));
    let to_another = {
        let key = wire::SessionKey { index: 17, ..session(17, 8) };
        let other = envelope::seal(&delivery(), &key, &[0; 32], b"{}", &payload_key(), &mut Fixed(0x23)).unwrap();
        envelope::sign_sealed(&payload_key(), good.header.clone(), other.enc, other.ciphertext)
    };
    add("sealed to another session key under this one's name", "Undecryptable", &to_another);
    add("a plaintext shorter than the stamp key", "BadPayload", &short_plaintext(good));
    all
}

/// HPKE of 31 bytes to the right key under the right header.
fn short_plaintext(good: &wire::Sealed) -> wire::Sealed {
    use hpke::{Deserializable, Kem, OpModeS, Serializable};
    type X25519 = hpke::kem::X25519HkdfSha256;
    let public = <X25519 as Kem>::PublicKey::from_bytes(&session(17, 6).public_key).unwrap();
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<hpke::aead::AesGcm256, hpke::kdf::HkdfSha256, X25519>(
        &OpModeS::Base,
        &public,
        b"ennote/sealed/v1",
        &[0; 31],
        &good.header,
        &mut Fixed(0x24),
    )
    .unwrap();
    envelope::sign_sealed(&payload_key(), good.header.clone(), enc.to_bytes().to_vec(), ciphertext)
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
