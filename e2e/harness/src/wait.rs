//! Waiting for a condition: tried again and again in short steps until it holds or its time is over.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(50);

/// Tries `attempt` until it succeeds. An attempt must not hang: each ends by itself or when the time is over.
///
/// # Errors
/// When `limit` has passed: what was waited for, how long, and the last attempt's error.
pub async fn until<T>(what: &str, limit: Duration, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let mut last = None;
    let trying = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(STEP).await;
        }
    };
    match tokio::time::timeout(limit, trying).await {
        Ok(value) => Ok(value),
        Err(_) => {
            let waited = format!("waited {:.1} s for {what}", begun.elapsed().as_secs_f32());
            Err(last.unwrap_or_else(|| anyhow::anyhow!("the first attempt did not end"))).context(waited)
        }
    }
}
