//! devcloud's runner: what it acknowledged survives, and values never reach a command line.

use anyhow::{Context, Result};
use ennote_harness::devcloud::{DevCloud, Options};
use ennote_harness::ports::is_taken;
use std::net::TcpStream;

#[tokio::test]
async fn it_keeps_its_port_and_its_data_over_kill9_and_restart() -> Result<()> {
    let cloud =
        DevCloud::start(Options { serve: vec!["--access-token-life=6s".to_owned()], ..Options::default() }).await?;
    let address = cloud.address();
    assert!(cloud.ca_pem()?.starts_with("-----BEGIN CERTIFICATE-----"));
    let token = cloud.token_create("agent", &["shop"]).await?;
    assert!(token.starts_with("ennt1."), "a token has another form");
    cloud.put("payments db", &[("url", "first")]).await?;
    cloud.put("payments db", &[("url", "no\nto")]).await?;

    cloud.kill9().await?;
    cloud.up().await?;
    assert_eq!(cloud.address(), address);
    TcpStream::connect(&address)?;
    let (status, _) = cloud.stop().await?;
    assert_eq!(status.code(), Some(0));
    cloud.up().await?;

    let versions = cloud.cli(&["secret", "versions", "payments db"]).await?;
    assert_eq!(versions.as_array().context("no list")?.len(), 2, "{versions}");
    let payload = cloud.run(&["secret", "get", "payments db"]).await?.ok()?;
    assert!(payload.contains(r"no\nto") || payload.contains("no\nto"));
    cloud.rm("payments db").await?;
    cloud.run(&["secret", "get", "payments db"]).await?.refused()?;

    let port: u16 = address.rsplit(':').next().context("no port")?.parse()?;
    let pid = cloud.pid().context("it does not run")?;
    drop(cloud);
    assert!(!is_taken(port));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}
