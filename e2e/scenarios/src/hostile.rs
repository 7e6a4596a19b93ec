//! A world whose agent reaches its cloud through somebody else's hands, and what one looks for in them.

use crate::LATER;
use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ennote_devcloud::wire::{self, cloud_frame};
use ennote_harness::evil::{EvilProxy, Frame, Record};
use ennote_harness::world::{Options, World};
use prost::Message;
use serde_json::json;

/// A world as [`Options`] say, whose agent dials an [`EvilProxy`] that it trusts. The proxy is honest at first.
///
/// # Errors
/// The first thing that did not work.
pub async fn behind_proxy(name: &str, options: Options) -> Result<(World, EvilProxy)> {
    let agent = options.agent;
    let mut world = World::start(name, Options { chart: false, agent: false, ..options }).await?;
    let proxy = EvilProxy::start(&world.cloud.address(), &world.cloud.ca_pem()?).await?;
    dials(&mut world, &proxy.address(), proxy.ca_pem()).await?;
    if agent {
        world.agent.start().await?;
    }
    Ok((world, proxy))
}

/// Installs the chart so that the agent dials this address and trusts this CA alone.
///
/// # Errors
/// What helm said.
pub async fn dials(world: &mut World, address: &str, ca: &str) -> Result<()> {
    world.install(json!({"ennote": {"api": {"url": address, "caCert": ca}}})).await
}

/// A text in every dress in which it could pass: raw, hex, base64 of both alphabets at each alignment.
pub struct Needles(Vec<Vec<u8>>);

impl Needles {
    /// Of a text of at least 8 bytes.
    pub fn of(text: &str) -> Self {
        let mut all = vec![text.as_bytes().to_vec()];
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        all.extend([hex.to_uppercase().into_bytes(), hex.into_bytes()]);
        for before in 0..3 {
            let shifted = [&vec![0; before][..], text.as_bytes()].concat();
            // The first and the last character of a base64 text may mix in bits of what stands before and after.
            let (first, end) = (if before == 0 { 0 } else { before + 1 }, shifted.len() * 8 / 6);
            let clean = |text: String| text.as_bytes()[first..end].to_vec();
            all.extend([clean(STANDARD_NO_PAD.encode(&shifted)), clean(URL_SAFE_NO_PAD.encode(&shifted))]);
        }
        Self(all)
    }

    /// Whether any of them stands in these bytes.
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
    }

    /// How many of the records show the text.
    pub fn seen_in(&self, records: &[Record]) -> usize {
        records.iter().filter(|record| self.are_in(&record.bytes())).count()
    }
}

/// Flips one bit in the middle.
pub fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

/// Waits until the proxy has heard what `pick` looks for, `times` times; gives all of it.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_heard<T>(
    world: &World,
    proxy: &EvilProxy,
    what: &str,
    times: usize,
    pick: impl Fn(&Record) -> Option<T>,
) -> Result<Vec<T>> {
    world
        .eventually(what, LATER, async || {
            let found = proxy.find(&pick)?;
            ensure!(found.len() >= times, "heard {} of {times} times", found.len());
            Ok(found)
        })
        .await
}

/// The version of a delivery to this binding.
pub fn delivered_to(frame: &Frame, binding: &str) -> Option<u64> {
    header(frame).filter(|header| header.binding == binding).map(|header| header.version)
}

/// What stands on a delivery, for everybody to read.
pub fn header(frame: &Frame) -> Option<wire::Header> {
    let Frame::Cloud(cloud_frame::Frame::Have(have)) = frame else { return None };
    let Some(wire::have::Answer::Sealed(sealed)) = &have.answer else { return None };
    wire::Header::decode(sealed.header.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_every_dress() {
        let needles = Needles::of("canary-12345");
        let encode = |text: &str| STANDARD_NO_PAD.encode(text).into_bytes();
        for prefix in ["", "x", "xy", "xyz", "wxyz"] {
            let text = format!("{prefix}canary-12345 and more");
            assert!(needles.are_in(text.as_bytes()));
            assert!(needles.are_in(&encode(&text)), "{prefix:?}");
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert!(needles.are_in(hex.as_bytes()) && needles.are_in(hex.to_uppercase().as_bytes()));
        }
        assert!(!needles.are_in(b"canary-1234") && !needles.are_in(&encode("canary-12355")));
    }
}
