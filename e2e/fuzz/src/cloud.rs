//! What devcloud decodes of an agent's bytes: hellos, answers to challenges, credentials, frames of a stream.

use crate::world::{CLUSTER, NONCE, NOW, WORLD, answer, claims, hello};
use crate::{Outcome, Target, Verdict, only_if};
use ennote_devcloud::delivery::{Answer, Delivery, Found, MAX_KEYS, MAX_WANTS_IN_ASK};
use ennote_devcloud::signed::{self, Label, hash, sign, sign_parts};
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire::{self, agent_frame::Frame};
use prost::Message;
use std::convert::Infallible;

/// In the order in which the cloud meets them.
pub const TARGETS: &[Target] = &[
    Target { name: "cloud_hello", stride: 1, seeds: || vec![hello(&WORLD.agent_key).hello, both_suites()], run: begin },
    Target { name: "cloud_finish", stride: 2, seeds: finishes, run: finish },
    Target { name: "cloud_credential_sealed", stride: 5, seeds: credentials, run: credential },
    Target { name: "cloud_frame", stride: 2, seeds: frames, run: frame },
    Target { name: "cloud_open_signed", stride: 1, seeds: || vec![genuine_open().body], run: open },
    Target { name: "cloud_ask_signed", stride: 1, seeds: || vec![ask_message().encode_to_vec()], run: ask },
];

fn both_suites() -> Vec<u8> {
    let one = wire::Hello::decode(hello(&WORLD.agent_key).hello.as_slice()).unwrap();
    wire::Hello { suites: vec![9, Suite::B.on_wire() as i32, Suite::A.on_wire() as i32], ..one }.encode_to_vec()
}

fn begin(given: &[u8]) -> Verdict {
    let Ok((begun, answer)) = WORLD.core.challenge(&wire::BeginRequest { hello: given.to_vec() }, NOW) else {
        return Ok(Outcome::Refused);
    };
    let said = wire::Hello::decode(given).map_err(|_| "what does not decode is a hello".to_owned())?;
    let challenge = wire::Challenge::decode(answer.challenge.unwrap_or_default().body.as_slice()).unwrap_or_default();
    let first = said.suites.iter().find(|offered| Suite::ALL.iter().any(|suite| suite.on_wire() as i32 == **offered));
    let bounded = said.client_nonce.len() == 32 && said.build.len() <= 200;
    let bound = challenge.hello_hash == hash(&[given]) && *begun.agent_key() == said.agent_public_key[..];
    only_if(bounded && bound && first == Some(&challenge.suite), "a challenge for another hello, or another suite")
}

/// A message as an agent would send it; the challenge id is filled in with the one that is meant.
fn finishes() -> Vec<Vec<u8>> {
    let (_, begin) = WORLD.core.challenge(&hello(&WORLD.agent_key), NOW).unwrap();
    vec![answer(&WORLD.core, &WORLD.agent_key, &begin, b"").encode_to_vec()]
}

/// Each challenge is new, so nothing recorded answers one: not as it is, and not when only its signature is made anew.
fn finish(given: &[u8]) -> Verdict {
    let Ok(mut request) = wire::FinishRequest::decode(given) else { return Ok(Outcome::Refused) };
    let (begun, begin) = WORLD.core.challenge(&hello(&WORLD.agent_key), NOW).map_err(|e| e.reason().to_owned())?;
    let body = begin.challenge.unwrap_or_default().body;
    request.challenge_id = wire::Challenge::decode(body.as_slice()).unwrap_or_default().challenge_id;
    if WORLD.core.prove(begun, &request, NOW).is_ok() {
        return Err("an answer to another challenge counts".to_owned());
    }
    let (begun, begin) = WORLD.core.challenge(&hello(&WORLD.agent_key), NOW).map_err(|e| e.reason().to_owned())?;
    let signed = begin.challenge.unwrap_or_default().body;
    request.challenge_id = wire::Challenge::decode(signed.as_slice()).unwrap_or_default().challenge_id;
    let t = [hash(&[&hello(&WORLD.agent_key).hello]), hash(&[&signed])].concat();
    let proof = hash(&[&request.enc, &request.sealed]);
    request.signature = sign_parts(&WORLD.agent_key, Label::Prove, &[&t, &proof]);
    match WORLD.core.prove(begun, &request, NOW) {
        Ok(_) => Err("a credential opens that was sealed for another challenge".to_owned()),
        Err(_) => Ok(Outcome::Refused),
    }
}

fn credentials() -> Vec<Vec<u8>> {
    let header = br#"{"alg":"RS256","kid":"rsa"}"#;
    let credential = wire::Credential {
        bootstrap_token: "ennt1.abc.def.ghi".into(),
        sa_token: CLUSTER.signed(true, header, claims().to_string().as_bytes()),
        issuer: "https://kubernetes.default.svc.cluster.local".into(),
        jwks: CLUSTER.jwks.clone().into_bytes(),
    };
    vec![credential.encode_to_vec(), vec![]]
}

fn credential(given: &[u8]) -> Verdict {
    let (begun, begin) = WORLD.core.challenge(&hello(&WORLD.agent_key), NOW).map_err(|e| e.reason().to_owned())?;
    let request = answer(&WORLD.core, &WORLD.agent_key, &begin, given);
    let Ok(proven) = WORLD.core.prove(begun, &request, NOW) else { return Ok(Outcome::Refused) };
    let said = wire::Credential::decode(given).map_err(|_| "what does not decode is a credential".to_owned())?;
    let same = *proven.bootstrap_token == said.bootstrap_token && *proven.sa_token == said.sa_token;
    only_if(
        same && proven.agent_key == *WORLD.agent_key.verifying_key().as_bytes(),
        "another credential than the sealed",
    )
}

fn genuine_open() -> wire::Signed {
    WORLD.open.open.clone().unwrap_or_default()
}

fn ask_message() -> wire::Ask {
    let want = |id, pin| wire::Want {
        id,
        namespace: "shop".into(),
        binding: "db".into(),
        binding_uid: format!("uid-{id}"),
        workspace: String::new(),
        secret: "payments db".into(),
        pin,
        known_version: 0,
    };
    wire::Ask {
        stream_nonce: NONCE.to_vec(),
        seq: 1,
        keys: vec![wire::SessionKey { index: 1, public_key: Suite::A.public(&[7; 32]).unwrap_or_default() }],
        wants: vec![want(1, 0), want(2, 3)],
        unwants: vec![2],
        reports: vec![wire::Report { binding_uid: "uid-1".into(), version: 4, ..Default::default() }],
    }
}

fn frames() -> Vec<Vec<u8>> {
    let ask = sign(&WORLD.agent_key, Label::Ask, ask_message().encode_to_vec());
    let finish = wire::FinishRequest::decode(finishes().remove(0).as_slice()).unwrap_or_default();
    [Frame::Open(WORLD.open.clone()), Frame::Ask(ask), Frame::Begin(hello(&WORLD.agent_key)), Frame::Finish(finish)]
        .map(|frame| wire::AgentFrame { frame: Some(frame) }.encode_to_vec())
        .into()
}

fn frame(given: &[u8]) -> Verdict {
    let Ok(wire::AgentFrame { frame: Some(frame) }) = wire::AgentFrame::decode(given) else {
        return Ok(Outcome::Refused);
    };
    match frame {
        Frame::Open(frame) => match WORLD.core.open_stream(&NONCE, &frame, NOW) {
            Ok(_) => only_if(frame == WORLD.open, "another open than the signed one opens a stream"),
            Err(_) => Ok(Outcome::Refused),
        },
        Frame::Ask(asked) => match signed::body(WORLD.agent_key.verifying_key().as_bytes(), Label::Ask, &asked) {
            Ok(body) => only_if(body == ask_message().encode_to_vec(), "another ask than the signed one counts"),
            Err(_) => Ok(Outcome::Refused),
        },
        Frame::Begin(request) => begin(&request.hello),
        Frame::Finish(request) => finish(&request.encode_to_vec()),
    }
}

fn open(given: &[u8]) -> Verdict {
    let signed = sign(&WORLD.agent_key, Label::Open, given.to_vec());
    let frame = wire::OpenFrame { open: Some(signed), access_token: WORLD.open.access_token.clone() };
    if WORLD.core.open_stream(&NONCE, &frame, NOW).is_err() {
        return Ok(Outcome::Refused);
    }
    let said = wire::Open::decode(given).map_err(|_| "what does not decode opens a stream".to_owned())?;
    let genuine = wire::Open::decode(genuine_open().body.as_slice()).unwrap_or_default();
    only_if(said == genuine, "an open of another stream, agent, epoch, token or suite counts")
}

fn ask(given: &[u8]) -> Verdict {
    let Ok(ask) = wire::Ask::decode(given) else { return Ok(Outcome::Refused) };
    let (keys, wants, seq) = (ask.keys.len(), ask.wants.len(), ask.seq);
    let wrong_key = ask.keys.iter().any(|key| key.public_key.len() != 32);
    let mut delivery = Delivery::new("prod".into(), Suite::A);
    if delivery.ask(ask.clone()).is_err() {
        return Ok(Outcome::Refused);
    }
    if seq != 1 || keys > MAX_KEYS || wants > MAX_WANTS_IN_ASK || wrong_key {
        return Err(format!("ask {seq} with {keys} keys and {wants} wants counts"));
    }
    // Every answer is for a want that stands, and each payload spends one of the keys.
    let mut spent = 0;
    let mut look = |_: &_, _| Ok::<_, Infallible>(Found::Payload((), 100));
    while let Ok(Some(answer)) = delivery.next(&mut look) {
        let Answer::Sealed(wanted, (), _) = answer else { return Err("an answer that nobody gave".to_owned()) };
        spent += 1;
        let stands = ask.wants.iter().any(|want| want.id == wanted.id) && !wanted.workspace.is_empty();
        if !stands || spent > keys {
            return Err("an answer for no want, or without a key".to_owned());
        }
    }
    match delivery.ask(ask) {
        Ok(()) => Err("the same ask counts twice".to_owned()),
        Err(_) => Ok(Outcome::Taken),
    }
}
