//! The one door: who calls, and whether they may. Every request goes through here and nowhere else.
//!
//! Profile `dev` believes the caller's headers, which is why it only listens on loopback.

use crate::domain::id::{PrincipalId, TenantId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::headers;
use crate::protocol::problem::Problem;

/// What a request shows of its caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// `X-Tenant-Id`.
    pub tenant: Option<&'a str>,
    /// `X-Principal-Id`.
    pub principal: Option<&'a str>,
}

/// Who calls, proven as far as the profile proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose things the caller may see.
    pub tenant: TenantId,
    /// Who acts.
    pub principal: PrincipalId,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Create a run, here or at a peer.
    CreateRun,
    /// Look at runs and forwards.
    ReadRuns,
    /// Cancel a run.
    CancelRun,
    /// Follow events.
    ReadEvents,
    /// Push events.
    IngestEvents,
    /// Look at peers.
    ReadPeers,
}

/// The door.
#[derive(Debug, Clone)]
pub struct Admission {
    default_tenant: Option<TenantId>,
}

impl Admission {
    /// Profile `dev`: without a header a caller belongs to `default_tenant`, if there is one.
    pub fn dev(default_tenant: Option<TenantId>) -> Self {
        Admission { default_tenant }
    }

    /// Decides who calls and whether they may. `claimed_tenant` is what the body says: where the request
    /// carries no tenant of its own it is believed, elsewhere it must agree.
    pub fn admit(
        &self,
        credentials: Credentials<'_>,
        claimed_tenant: Option<&str>,
        _action: Action,
    ) -> Result<Caller, Problem> {
        let given = match credentials.tenant {
            Some(tenant) => Some(parse_tenant(tenant, headers::TENANT)?),
            None => self.default_tenant.clone(),
        };
        let claimed = claimed_tenant
            .filter(|claimed| !claimed.is_empty())
            .map(|claimed| parse_tenant(claimed, "auth.tenant_id"))
            .transpose()?;
        let tenant = match (given, claimed) {
            (Some(given), Some(claimed)) if given != claimed => {
                return Err(Problem::new(
                    ErrorCode::TenantMismatch,
                    format!("the body names tenant `{claimed}`, the request belongs to `{given}`"),
                )
                .with("field", "auth.tenant_id"));
            }
            (Some(tenant), _) | (None, Some(tenant)) => tenant,
            (None, None) => {
                return Err(Problem::new(
                    ErrorCode::Unauthorized,
                    "the request names no tenant: send X-Tenant-Id, or set gateway.default_tenant",
                )
                .with("header", headers::TENANT));
            }
        };
        let principal = credentials.principal.unwrap_or("anonymous");
        let principal = PrincipalId::parse(principal).map_err(|error| {
            Problem::new(ErrorCode::InvalidRequest, format!("X-Principal-Id {error}"))
                .with("field", headers::PRINCIPAL)
        })?;
        Ok(Caller { tenant, principal })
    }
}

fn parse_tenant(text: &str, field: &str) -> Result<TenantId, Problem> {
    TenantId::parse(text).map_err(|error| {
        Problem::new(ErrorCode::InvalidRequest, format!("the tenant {error}")).with("field", field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(default: Option<&str>, header: Option<&str>, claim: Option<&str>) -> Result<String, ErrorCode> {
        let admission = Admission::dev(default.map(|tenant| TenantId::parse(tenant).expect("a tenant")));
        let credentials = Credentials { tenant: header, principal: None };
        admission
            .admit(credentials, claim, Action::CreateRun)
            .map(|caller| caller.tenant.to_string())
            .map_err(|problem| problem.code)
    }

    #[test]
    fn the_tenant_comes_from_the_caller_and_the_body_must_agree() {
        // defect 14
        assert_eq!(admit(None, Some("a"), Some("a")), Ok("a".into()));
        assert_eq!(admit(None, Some("a"), Some("b")), Err(ErrorCode::TenantMismatch));
        assert_eq!(admit(Some("d"), None, Some("b")), Err(ErrorCode::TenantMismatch));
        assert_eq!(admit(Some("d"), None, None), Ok("d".into()));
        assert_eq!(admit(Some("d"), Some("a"), None), Ok("a".into()));
        assert_eq!(admit(None, None, Some("b")), Ok("b".into()));
        assert_eq!(admit(None, None, None), Err(ErrorCode::Unauthorized));
        assert_eq!(admit(None, Some("a b"), None), Err(ErrorCode::InvalidRequest));
    }
}
