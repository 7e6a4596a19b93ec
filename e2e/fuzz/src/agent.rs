//! What the agent decodes of the cloud's bytes: answers of a join, frames of a stream, deliveries.
//!
//! `..._signed` targets sign the bytes with the cloud's own key first, so that what lies behind the signature is reached: what
//! a broken core could send.

use crate::noise::Noise;
use crate::vectors::{array, bytes, file, key, number, text};
use crate::{Outcome, Target, Verdict, only_if};
use ennote_agent::cloud::inbox::{Inbox, Via, Wanted, Word};
use ennote_agent::crypto::envelope::{authentic, claimed_key};
use ennote_agent::crypto::session_keys::SessionKey;
use ennote_agent::crypto::signed::{Label, hash, hash_parts, join_hashes, sign, sign_parts};
use ennote_agent::crypto::suite::Suite;
use ennote_agent::identity::access_token::Identity;
use ennote_agent::identity::join::{Credentials, Join};
use ennote_agent::identity::signing_key::AgentKey;
use ennote_agent::identity::trust::{Keyset, Trust};
use ennote_agent::wire::{self, cloud_frame::Frame, have::Answer};
use prost::Message;
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// In the order in which an agent meets them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "agent_begin",
        stride: 3,
        seeds: || JOINS.iter().map(|of| of.begin.encode_to_vec()).collect(),
        run: begin,
    },
    Target {
        name: "agent_keyset_signed",
        stride: 3,
        seeds: || JOINS.iter().map(|of| of.keyset().body).collect(),
        run: keyset,
    },
    Target {
        name: "agent_challenge_signed",
        stride: 2,
        seeds: || JOINS.iter().map(|of| of.begin.challenge.clone().unwrap().body).collect(),
        run: challenge,
    },
    Target {
        name: "agent_finish",
        stride: 4,
        seeds: || JOINS.iter().map(|of| of.finish.encode_to_vec()).collect(),
        run: finish,
    },
    Target {
        name: "agent_joined_signed",
        stride: 3,
        seeds: || JOINS.iter().map(|of| of.finish.joined.clone().unwrap().body).collect(),
        run: joined,
    },
    Target { name: "agent_frame", stride: 6, seeds: frames, run: frame },
    Target {
        name: "agent_header_signed",
        stride: 2,
        seeds: || DELIVERIES.iter().map(|of| of.sealed.header.clone()).collect(),
        run: header,
    },
    Target {
        name: "agent_ciphertext_signed",
        stride: 4,
        seeds: || DELIVERIES.iter().map(|of| [&of.sealed.enc[..], &of.sealed.ciphertext].concat()).collect(),
        run: ciphertext,
    },
    Target {
        name: "agent_gone_signed",
        stride: 2,
        seeds: || DELIVERIES.iter().map(|of| of.gone.body.clone()).collect(),
        run: gone,
    },
];

fn signed_of(value: &Value) -> wire::Signed {
    wire::Signed { body: bytes(&value["body"]), key_id: bytes(&value["key_id"]), signature: bytes(&value["signature"]) }
}

/// A join of the vectors.
struct Joining {
    file: Value,
    offered: &'static [Suite],
    begin: wire::BeginResponse,
    finish: wire::FinishResponse,
}

static JOINS: LazyLock<Vec<Joining>> = LazyLock::new(|| {
    [("join.json", &[Suite::A][..]), ("join-b.json", &Suite::OFFERED[..])]
        .map(|(name, offered)| {
            let file = file(name);
            let begin = wire::BeginResponse {
                root_public_key: bytes(&file["root"]["public_key"]),
                keyset: Some(signed_of(&file["keyset"])),
                challenge: Some(signed_of(&file["challenge"])),
            };
            let finish = wire::FinishResponse { joined: Some(signed_of(&file["joined"])) };
            Joining { file, offered, begin, finish }
        })
        .into()
});

impl Joining {
    fn keyset(&self) -> wire::Signed {
        self.begin.keyset.clone().unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::pin(&[array(&self.file["root"]["key_id"])], None).unwrap()
    }

    /// Whether the two answers make a join.
    fn goes(&self, begin: &wire::BeginResponse, finish: Option<&wire::FinishResponse>) -> bool {
        let draws = ["client_nonce", "ephemeral_ikm"].map(|name| bytes(&self.file[name]));
        let mut rng = Noise::after([vec![bytes(&self.file["agent_key"]["seed"])], draws.to_vec()].concat());
        let key = AgentKey::generate(&mut rng);
        let join = Join::offering(self.offered, &key, &text(&self.file["build"]), &mut rng);
        let (mut trust, shown) = (self.trust(), Credentials::default());
        let Ok((proved, _)) = join.prove(begin, &mut trust, &key, &shown, &mut rng) else { return false };
        finish.is_none_or(|finish| proved.finish(finish, &mut trust).is_ok())
    }
}

/// The worst verdict of all fixtures: a broken promise, else taken by one, else refused.
fn each<T>(fixtures: &[T], run: impl Fn(&T) -> Verdict) -> Verdict {
    let verdicts = fixtures.iter().map(run).collect::<Result<Vec<_>, _>>()?;
    Ok(if verdicts.contains(&Outcome::Taken) { Outcome::Taken } else { Outcome::Refused })
}

fn begin(given: &[u8]) -> Verdict {
    let Ok(answer) = wire::BeginResponse::decode(given) else { return Ok(Outcome::Refused) };
    each(&JOINS, |of| match of.goes(&answer, None) {
        true => only_if(answer == of.begin, "another answer than the signed one is proved to"),
        false => Ok(Outcome::Refused),
    })
}

fn finish(given: &[u8]) -> Verdict {
    let Ok(answer) = wire::FinishResponse::decode(given) else { return Ok(Outcome::Refused) };
    each(&JOINS, |of| match of.goes(&of.begin, Some(&answer)) {
        true => only_if(answer == of.finish, "another answer than the signed one ends a join"),
        false => Ok(Outcome::Refused),
    })
}

fn keyset(given: &[u8]) -> Verdict {
    each(&JOINS, |of| {
        let mut trust = of.trust();
        let signed = sign(&key(&of.file["root"]), Label::Keyset, given.to_vec());
        // Whatever keys it lists, sealing to them goes or does not go.
        let _either = of.goes(&wire::BeginResponse { keyset: Some(signed.clone()), ..of.begin.clone() }, None);
        let Ok(_keys) = trust.accept(&of.begin.root_public_key, &signed) else { return Ok(Outcome::Refused) };
        let said = wire::Keyset::decode(given).map_err(|_| "what does not decode is a keyset".to_owned())?;
        let life = i128::from(said.expires_at_ms) - i128::from(said.issued_at_ms);
        if said.version == 0 || !(1..=30 * 24 * 3_600_000).contains(&life) {
            return Err(format!("a keyset of version {} lives {life} ms", said.version));
        }
        // Versions never go back, here or with the frozen one.
        let known = trust.accept(&of.begin.root_public_key, &of.keyset()).is_ok();
        only_if(known == (said.version <= 7), "an older keyset counts after a newer one")
    })
}

fn challenge(given: &[u8]) -> Verdict {
    each(&JOINS, |of| {
        let signed = Some(sign(&key(&of.file["join_key"]), Label::Challenge, given.to_vec()));
        if !of.goes(&wire::BeginResponse { challenge: signed, ..of.begin.clone() }, None) {
            return Ok(Outcome::Refused);
        }
        let said = wire::Challenge::decode(given).map_err(|_| "what does not decode is a challenge".to_owned())?;
        let answers = said.hello_hash == hash(&bytes(&of.file["hello"])) && said.challenge_id.len() == 16;
        let offered = Suite::of_wire(said.suite).is_some_and(|suite| of.offered.contains(&suite));
        only_if(answers && offered, "a challenge counts that does not answer this hello")
    })
}

fn joined(given: &[u8]) -> Verdict {
    each(&JOINS, |of| {
        let answer =
            wire::FinishResponse { joined: Some(sign(&key(&of.file["join_key"]), Label::Joined, given.to_vec())) };
        if !of.goes(&of.begin, Some(&answer)) {
            return Ok(Outcome::Refused);
        }
        let said = wire::Joined::decode(given).map_err(|_| "what does not decode ends a join".to_owned())?;
        only_if(said.t == bytes(&of.file["t"]) && said.lives_s > 0, "the end of another join counts")
    })
}

/// A delivery of the vectors.
struct Delivered {
    file: Value,
    suite: Suite,
    sealed: wire::Sealed,
    gone: wire::Signed,
    identity: Identity,
    wanted: Wanted,
    keys: Keyset,
}

static DELIVERIES: LazyLock<Vec<Delivered>> = LazyLock::new(|| {
    [(Suite::A, "sealed.json"), (Suite::B, "sealed-b.json")]
        .map(|(suite, name)| {
            let file = file(name);
            let (of, expected) = (&file["sealed"], &file["expected"]);
            let sealed = wire::Sealed {
                header: bytes(&of["header"]),
                enc: bytes(&of["enc"]),
                ciphertext: bytes(&of["ciphertext"]),
                key_id: bytes(&of["key_id"]),
                signature: bytes(&of["signature"]),
            };
            let identity = Identity {
                agent_id: text(&expected["agent_id"]),
                organization: text(&expected["organization"]),
                workspace: "another".into(),
                epoch: number(&expected["epoch"]),
                suite,
                access_token: Vec::new().into(),
                lives: Duration::from_secs(900),
                server_time_ms: 0,
            };
            let wanted = Wanted {
                namespace: text(&expected["namespace"]),
                binding: text(&expected["binding"]),
                binding_uid: text(&expected["binding_uid"]),
                workspace: text(&expected["workspace"]),
                secret: text(&expected["secret"]),
                pin: None,
            };
            let mut keys = Keyset::default();
            keys.payload.add(key(&file["payload_key"]).verifying_key().as_bytes());
            keys.join.add(key(&file["join_key"]).verifying_key().as_bytes());
            let gone = signed_of(&file["gone"]["signed"]);
            Delivered { suite, sealed, gone, identity, wanted, keys, file }
        })
        .into()
});

impl Delivered {
    fn want_id(&self) -> u64 {
        number(&self.file["expected"]["want_id"])
    }

    fn nonce(&self) -> Vec<u8> {
        bytes(&self.file["expected"]["stream_nonce"])
    }

    /// What an inbox that wants the frozen delivery makes of an answer. `None`: it is for nobody, or does not open.
    fn arrives(&self, have: wire::Have) -> Option<Word> {
        let inbox = Inbox::default();
        // Each want gets the next id.
        for _ in 1..self.want_id() {
            inbox.want(&self.wanted, 0, false);
            inbox.unwant(&self.wanted.binding_uid);
        }
        inbox.want(&self.wanted, 0, false);
        let of = &self.file["session_key"];
        let claimed = match &have.answer {
            Some(Answer::Sealed(sealed)) => claimed_key(sealed),
            _ => None,
        };
        let key = claimed.filter(|index| *index == number(&of["index"]));
        let key = key.map(|index| SessionKey::from_seed(self.suite, index, &array(&of["private_key"])).unwrap().0);
        let nonce = self.nonce();
        let via = Via { stream: 1, nonce: &nonce, suite: self.suite };
        // As on a stream where it came first: a denial counts, and whatever else the core has signed.
        let signed = have.answer.as_ref().is_some_and(|answer| match answer {
            Answer::Denied(_) => true,
            other => authentic(other, have.id, &nonce, &self.keys.payload).is_some(),
        });
        inbox.arrived(&via, have, signed, key, &self.identity, &Arc::new(self.keys.payload.clone()))?;
        inbox.take(&self.wanted.binding_uid)?.open().ok()
    }

    fn sealed(&self, sealed: wire::Sealed) -> Option<Word> {
        self.arrives(wire::Have { id: self.want_id(), answer: Some(Answer::Sealed(sealed)) })
    }

    /// The parts, signed by the PAYLOAD key.
    fn signs(&self, header: Vec<u8>, enc: Vec<u8>, ciphertext: Vec<u8>) -> wire::Sealed {
        let parts = join_hashes(hash(&header), hash_parts(&[&enc, &ciphertext]));
        let signer = key(&self.file["payload_key"]);
        let signature = sign_parts(&signer, Label::Sealed, &[&parts]).to_vec();
        wire::Sealed { header, enc, ciphertext, signature, key_id: hash(signer.verifying_key().as_bytes()).to_vec() }
    }

    fn beat(&self) -> wire::Signed {
        let beat =
            wire::Beat { stream_nonce: self.nonce(), seq: 3, haves: 1, wants: 1, server_time_ms: 1_767_225_605_000 };
        sign(&key(&self.file["join_key"]), Label::Beat, beat.encode_to_vec())
    }
}

fn framed(frame: Frame) -> Vec<u8> {
    wire::CloudFrame { frame: Some(frame) }.encode_to_vec()
}

fn frames() -> Vec<Vec<u8>> {
    let of = DELIVERIES.iter().flat_map(|of| {
        let have = |answer| Frame::Have(wire::Have { id: of.want_id(), answer: Some(answer) });
        [
            have(Answer::Sealed(of.sealed.clone())),
            have(Answer::Gone(of.gone.clone())),
            have(Answer::Denied(wire::Denied {
                reason: wire::denied::Reason::NoGrant as i32,
                grant: "agent grant".into(),
            })),
            Frame::Beat(of.beat()),
            Frame::Greet(wire::Greet { stream_nonce: of.nonce() }),
            Frame::Drain(wire::Drain { grace_s: 30 }),
        ]
    });
    let joins = JOINS.iter().flat_map(|of| [Frame::Begin(of.begin.clone()), Frame::Finish(of.finish.clone())]);
    of.chain(joins).map(framed).collect()
}

fn frame(given: &[u8]) -> Verdict {
    let Ok(wire::CloudFrame { frame: Some(frame) }) = wire::CloudFrame::decode(given) else {
        return Ok(Outcome::Refused);
    };
    match frame {
        Frame::Have(have) => each(&DELIVERIES, |of| {
            let answer = have.answer.clone();
            match (of.arrives(have.clone()), answer) {
                (None, _) => Ok(Outcome::Refused),
                (Some(Word::Payload(..)), Some(Answer::Sealed(sealed))) => {
                    only_if(sealed == of.sealed, "another delivery than the sealed one opens")
                }
                (Some(Word::Gone(..)), Some(Answer::Gone(gone))) => {
                    only_if(gone == of.gone, "another tombstone than the signed one counts")
                }
                (Some(Word::Denied(_)), Some(Answer::Denied(_))) => Ok(Outcome::Taken),
                _ => Err("an answer is taken for one of another kind".to_owned()),
            }
        }),
        Frame::Beat(beat) => each(&DELIVERIES, |of| match of.keys.join.body(Label::Beat, &beat) {
            Ok(body) => only_if(beat == of.beat() && wire::Beat::decode(body).is_ok(), "another beat counts"),
            Err(_) => Ok(Outcome::Refused),
        }),
        Frame::Begin(answer) => begin(&answer.encode_to_vec()),
        Frame::Finish(answer) => finish(&answer.encode_to_vec()),
        Frame::Greet(_) | Frame::Drain(_) => Ok(Outcome::Taken),
    }
}

fn header(given: &[u8]) -> Verdict {
    each(&DELIVERIES, |of| {
        let sealed = of.signs(given.to_vec(), of.sealed.enc.clone(), of.sealed.ciphertext.clone());
        match of.sealed(sealed) {
            Some(_) => only_if(given == of.sealed.header, "a delivery opens under another header than its own"),
            None => Ok(Outcome::Refused),
        }
    })
}

fn ciphertext(given: &[u8]) -> Verdict {
    each(&DELIVERIES, |of| {
        let (enc, ciphertext) = given.split_at(given.len().min(of.sealed.enc.len()));
        let same = enc == of.sealed.enc && ciphertext == of.sealed.ciphertext;
        match of.sealed(of.signs(of.sealed.header.clone(), enc.to_vec(), ciphertext.to_vec())) {
            Some(_) => only_if(same, "another ciphertext opens"),
            None => Ok(Outcome::Refused),
        }
    })
}

/// A header without version, type and time, which the agent does not predict.
fn predicted(body: &[u8]) -> Option<wire::Header> {
    let header = wire::Header::decode(body).ok()?;
    Some(wire::Header { r#type: 0, version: 0, committed_at_ms: 0, ..header })
}

fn gone(given: &[u8]) -> Verdict {
    each(&DELIVERIES, |of| {
        let signed = sign(&key(&of.file["payload_key"]), Label::Gone, given.to_vec());
        match of.arrives(wire::Have { id: of.want_id(), answer: Some(Answer::Gone(signed)) }) {
            Some(Word::Gone(facts, _)) => only_if(
                facts.version > 0 && predicted(given) == predicted(&of.gone.body),
                "a tombstone of another want",
            ),
            Some(_) => Err("a tombstone is taken for something else".to_owned()),
            None => Ok(Outcome::Refused),
        }
    })
}
