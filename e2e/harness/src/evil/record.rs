//! The memory of the proxy: bounded, and honest about what it forgot.

use super::{Call, Frame};
use anyhow::{Result, ensure};
use tonic::Code;

/// A scenario keeps less; more would be a runaway.
const MAX_RECORDS: usize = 20_000;
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// One thing heard.
#[derive(Clone)]
pub struct Record {
    /// In which call.
    pub call: Call,
    /// What.
    pub said: Said,
}

/// What was heard.
#[derive(Clone)]
pub enum Said {
    /// The request's metadata, as text.
    Metadata(String),
    /// A message, as it came.
    Frame(Frame),
    /// The cloud ended the call: code, ErrorInfo.reason, and the sentence.
    Ended(Code, String, String),
}

impl Record {
    /// The message, if it is one.
    pub fn frame(&self) -> Option<&Frame> {
        if let Said::Frame(frame) = &self.said { Some(frame) } else { None }
    }

    /// The reason with which the cloud ended the call.
    pub fn refusal(&self) -> Option<&str> {
        if let Said::Ended(_, reason, _) = &self.said { Some(reason) } else { None }
    }

    /// All that whoever listens has of it.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.said {
            Said::Metadata(text) => text.clone().into_bytes(),
            Said::Frame(frame) => frame.bytes(),
            Said::Ended(code, reason, sentence) => format!("{code} {reason} {sentence}").into_bytes(),
        }
    }
}

#[derive(Default)]
pub(super) struct Log {
    records: Vec<Record>,
    bytes: usize,
    forgotten: usize,
}

impl Log {
    pub(super) fn add(&mut self, call: Call, said: Said) {
        let record = Record { call, said };
        let size = record.bytes().len();
        if self.records.len() < MAX_RECORDS && self.bytes + size <= MAX_BYTES {
            self.bytes += size;
            self.records.push(record);
        } else {
            self.forgotten += 1;
        }
    }

    /// A list with gaps would prove nothing.
    pub(super) fn all(&self) -> Result<Vec<Record>> {
        ensure!(self.forgotten == 0, "the proxy heard {} messages more than it keeps", self.forgotten);
        Ok(self.records.clone())
    }
}
