//! `causeway healthcheck`: does a gateway take work? For `HEALTHCHECK` in a Dockerfile, and for scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use url::Url;

use super::client::{Client, Identity};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Output, visible};
use super::settings::Settings;
use crate::domain::base_url;
use crate::http::options::TlsMode;

/// A gateway that needs longer is not well.
const PATIENCE: Duration = Duration::from_secs(2);
/// Asked when a URL names no path.
const READY_PATH: &str = "/readyz";

/// What `causeway healthcheck` takes.
#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// What to ask; without a path, its /readyz. Left out: the address the configuration listens on
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    url: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// Asks once. Every way not to be ready is exit code 1: Docker knows no other.
pub(super) async fn run(args: HealthArgs) -> Outcome {
    let url = target(&args)?;
    let client = match args.url {
        Some(_) => Client::new(url.clone(), Identity::default(), PATIENCE)?,
        // The certificate is for the names that clients use, and this is an address.
        None => Client::unchecked(url.clone(), PATIENCE)?,
    };
    let reply = client.get(url.clone()).await.map_err(|error| Failure::failed(format!("{url}: {error}")))?;
    if reply.is_success() {
        Output::stdout().line("ready")?;
        return Ok(Exit::Done);
    }
    let said =
        reply.complaint().message.map(|message| format!(": {}", visible(&message))).unwrap_or_default();
    Err(Failure::failed(format!("{url} answered {}{said}", reply.status)))
}

fn target(args: &HealthArgs) -> Result<Url, Failure> {
    let Some(text) = &args.url else {
        let config = args.settings.load_or_explain(&[]).map_err(as_failed)?;
        return url_of(config.server.listen, config.server.tls);
    };
    let mut url = base_url::parse(text).map_err(|error| Failure::usage(format!("--url: {error}")))?;
    if matches!(url.path(), "" | "/") {
        url.set_path(READY_PATH);
    }
    Ok(url)
}

/// A gateway whose configuration has mistakes does not run.
fn as_failed(failure: Failure) -> Failure {
    match failure {
        Failure::Told { message, .. } => Failure::failed(message),
        Failure::ReaderGone => failure,
    }
}

/// Where a gateway that listens there can be asked from the same machine.
fn url_of(listen: SocketAddr, tls: TlsMode) -> Result<Url, Failure> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    if listen.port() == 0 {
        return Err(Failure::failed("server.listen has port 0: say where the gateway is with --url"));
    }
    let address = SocketAddr::new(ip, listen.port());
    let scheme = if tls == TlsMode::Own { "https" } else { "http" };
    Url::parse(&format!("{scheme}://{address}{READY_PATH}")).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_address_is_asked_from_this_machine() {
        for (listen, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/readyz"),
            ("0.0.0.0:81", "http://127.0.0.1:81/readyz"),
            ("[::]:81", "http://[::1]:81/readyz"),
        ] {
            let asked = url_of(listen.parse().expect("an address"), TlsMode::None).expect("a URL");
            assert_eq!(asked.as_str(), url);
        }
        assert!(url_of("127.0.0.1:0".parse().expect("an address"), TlsMode::None).is_err());
        let asked = url_of("0.0.0.0:443".parse().expect("an address"), TlsMode::Own).expect("a URL");
        assert_eq!(asked.as_str(), "https://127.0.0.1/readyz");
    }

    #[test]
    fn a_url_without_a_path_means_readiness() {
        let args = |url: &str| HealthArgs { url: Some(url.to_owned()), settings: Settings::default() };
        let asked = |url| target(&args(url)).expect("a URL").to_string();
        assert_eq!(asked("http://127.0.0.1:8080"), "http://127.0.0.1:8080/readyz");
        assert_eq!(asked("http://127.0.0.1:8080/"), "http://127.0.0.1:8080/readyz");
        assert_eq!(asked("http://127.0.0.1:8080/livez"), "http://127.0.0.1:8080/livez");
        assert!(target(&args("ftp://x")).is_err());
    }
}
