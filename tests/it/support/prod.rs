//! A gateway under profile prod: it believes nobody, so that the first token comes by its control socket.

use causeway::app::CONTROL_SOCKET;
use causeway::config::Config;
use causeway::services::options::Profile;
use causeway::services::peer_options::PeerOptions;
use serde_json::json;

use super::ears::{read, socket_client};
use super::gateway::{TestGateway, test_config};

/// Every scope that a client may have.
pub(crate) const CLIENT_SCOPES: [&str; 5] =
    ["runs:forward", "runs:read", "runs:cancel", "events:read", "events:ingest"];
/// An operator's.
pub(crate) const ADMIN: &str = "admin:*";

/// The gateway, and the way to it for whoever may use its data directory.
pub(crate) struct Prod {
    /// The gateway.
    pub(crate) gateway: TestGateway,
    control: reqwest::Client,
}

/// A token, and its public name.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// The name.
    pub(crate) id: String,
    /// The credential.
    pub(crate) text: String,
}

/// A configuration for tests, strict: no default tenant, and failed logins are not counted.
pub(crate) fn prod_config() -> Config {
    let mut config = test_config();
    config.gateway.profile = Profile::Prod;
    config.gateway.default_tenant = None;
    config.limits.failed_logins = None;
    config
}

impl Prod {
    /// Starts one with these peers.
    pub(crate) async fn start(config: Config, peers: Vec<PeerOptions>) -> Self {
        let gateway = TestGateway::start_with(config, peers).await;
        let socket = gateway.data_dir().join(CONTROL_SOCKET);
        Prod { gateway, control: socket_client(socket) }
    }

    /// Makes a token: a client's for its tenant, an operator's for none.
    pub(crate) async fn token(&self, tenant: Option<&str>, scopes: &[&str]) -> Token {
        self.token_for(tenant, scopes, None).await
    }

    /// The same, for a time.
    pub(crate) async fn token_for(
        &self,
        tenant: Option<&str>,
        scopes: &[&str],
        lifetime: Option<&str>,
    ) -> Token {
        let body = json!({ "tenant_id": tenant, "principal_id": "svc_test", "scopes": scopes, "lifetime": lifetime });
        let request = self.control.post("http://localhost/v1/federation/tokens");
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = read(request.send().await.expect("the gateway answers on its control socket")).await;
        let field = |name: &str| {
            answer.json["token"][name].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
        };
        Token { id: field("token_id"), text: field("token") }
    }

    /// Revokes a token.
    pub(crate) async fn revoke(&self, token: &Token) {
        let url = format!("http://localhost/v1/federation/tokens/{}", token.id);
        let answer = read(self.control.delete(url).send().await.expect("an answer")).await;
        assert!(answer.status < 300, "{}", answer.text);
    }
}
