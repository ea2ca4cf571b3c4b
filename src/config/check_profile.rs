//! What a profile allows: `dev` believes everybody and so stays on loopback, `prod` allows nothing unsafe.
//!
//! Invariant: whoever fixes every mistake told of `prod` has no other left to find.

use std::net::SocketAddr;

use super::draft::Draft;
use super::error::Origin;
use super::sections::Config;
use crate::domain::policy::FederationMode;
use crate::domain::units::{TextForm, quoted};
use crate::http::options::TlsMode;
use crate::services::options::{GatewayOptions, Profile};

/// What AgentOS calls the protection of metrics.
const METRICS_SWITCH: &str = "AGENTOS_METRICS_REQUIRE_AUTH";
/// Switches of AgentOS that take protection away.
const OPENING_SWITCHES: [&str; 2] = ["AGENTOS_FED_AUTH_DISABLED", "AGENTOS_ALLOW_DEV_HEADERS"];

/// Switches of AgentOS that have no key of their own.
pub(super) const SWITCHES: [&str; 3] = [METRICS_SWITCH, OPENING_SWITCHES[0], OPENING_SWITCHES[1]];

/// Keeps every setting that the profile does not allow, peers aside.
pub(super) fn check(config: &Config, draft: &mut Draft) {
    if draft.is_refused("gateway.profile") {
        return;
    }
    match config.gateway.profile {
        Profile::Dev => check_dev(config, draft),
        Profile::Prod => check_prod(config, draft),
    }
}

fn check_dev(config: &Config, draft: &mut Draft) {
    let server = &config.server;
    for (key, address) in
        [("server.listen", Some(server.listen)), ("server.admin_listen", server.admin_listen)]
    {
        if let Some(address) = address.filter(|address| !is_loopback(*address)) {
            let message = format!(
                "{address} is not allowed: under profile dev anyone who can connect is believed, so it must \
                 be a loopback address such as 127.0.0.1:{}",
                address.port()
            );
            draft.refuse_checked(key, &message);
        }
    }
    if draft.has_switch(METRICS_SWITCH) && server.admin_listen.is_none() {
        let message = "under profile dev metrics are for anyone who can connect: set gateway.profile to \
                       \"prod\", where they are for operators, or give them an address of their own with \
                       server.admin_listen";
        draft.refuse(Origin::Variable(METRICS_SWITCH.to_owned()), "", message);
    }
}

fn check_prod(config: &Config, draft: &mut Draft) {
    let Config { gateway, server, policy, .. } = config;
    let is_plain = server.tls == TlsMode::None && !draft.is_refused("server.tls");
    let mut refuse = |key: &str, message: &str| {
        draft.refuse_checked(key, &format!("{message} (profile prod)"));
    };
    if gateway.stack_id == GatewayOptions::default().stack_id {
        let message = format!(
            "{} is what a gateway is called that has no name: give this one a name of its own",
            quoted(gateway.stack_id.as_str())
        );
        refuse("gateway.stack_id", &message);
    }
    if let Some(tenant) = &gateway.default_tenant {
        let message = format!(
            "{} is not allowed: whose a request is, its credential says; leave the key out",
            quoted(tenant.as_str())
        );
        refuse("gateway.default_tenant", &message);
    }
    if !is_loopback(server.listen) && is_plain {
        let message = format!(
            "{} is not allowed without TLS: set server.tls to \"own\" or \"terminated-upstream\", or listen on \
             loopback",
            server.listen
        );
        refuse("server.listen", &message);
    }
    if let Some(address) = server.admin_listen.filter(|address| !is_loopback(*address)) {
        let message = format!(
            "{address} is not allowed: metrics and admin paths are served without TLS, so it must be a loopback \
             address such as 127.0.0.1:{}",
            address.port()
        );
        refuse("server.admin_listen", &message);
    }
    if let Some(all) = server.trusted_proxies.iter().find(|range| range.write().ends_with("/0")) {
        let message = format!("{all} is not allowed: it makes everybody a proxy whose word is believed");
        refuse("server.trusted_proxies", &message);
    }
    if policy.federation_mode == FederationMode::Open {
        let message = "\"open\" is not allowed: it takes peers of every domain; write \"bridging\" and name the \
                       domains in policy.allowed_foreign_domains or as bridges";
        refuse("policy.federation_mode", message);
    }
    for name in OPENING_SWITCHES.into_iter().filter(|name| draft.has_switch(name)).collect::<Vec<_>>() {
        let message = "profile prod asks every caller for a credential: unset it";
        draft.refuse(Origin::Variable(name.to_owned()), "", message);
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
