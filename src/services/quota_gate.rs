//! The quotas tenants are held to, and which of them were refused by one of late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::refusal::quota_exceeded;
use crate::clock::Clock;
use crate::domain::id::TenantId;
use crate::metrics::{Metrics, Reason};
use crate::protocol::problem::Problem;
use crate::store::{QuotaExceeded, Quotas};

/// Tenants remembered; beyond it the one refused longest ago is forgotten.
const TENANTS: usize = 256;

/// Holds tenants to their quotas, cheap to clone.
#[derive(Clone)]
pub struct QuotaGate {
    shared: Arc<Shared>,
}

struct Shared {
    quotas: Quotas,
    clock: Clock,
    metrics: Arc<Metrics>,
    refused: Mutex<HashMap<TenantId, (&'static str, i64)>>,
}

impl QuotaGate {
    /// One set of quotas for every tenant.
    pub fn new(quotas: Quotas, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let refused = Mutex::default();
        QuotaGate { shared: Arc::new(Shared { quotas, clock, metrics, refused }) }
    }

    /// What every tenant is held to.
    pub(super) fn quotas(&self) -> Quotas {
        self.shared.quotas
    }

    /// Notes that a quota is used up, and puts it into the words of the wire.
    pub(super) fn refuse(&self, tenant: &TenantId, exceeded: &QuotaExceeded) -> Problem {
        let now_ms = self.shared.clock.now_ms();
        self.shared.metrics.backpressure.get_or_create(&Reason { reason: "quota" }).inc();
        {
            let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.len() >= TENANTS && !refused.contains_key(tenant) {
                let oldest = refused.iter().min_by_key(|(_, (_, at_ms))| *at_ms);
                if let Some(oldest) = oldest.map(|(oldest, _)| oldest.clone()) {
                    refused.remove(&oldest);
                }
            }
            refused.insert(tenant.clone(), (exceeded.quota, now_ms));
        }
        quota_exceeded(exceeded, now_ms)
    }

    /// Which tenants a quota refused, which one, and when last, in milliseconds since the Unix epoch.
    pub fn refused(&self) -> Vec<(TenantId, &'static str, i64)> {
        let refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().map(|(tenant, (quota, at_ms))| (tenant.clone(), *quota, *at_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // M-03
    #[tokio::test]
    async fn however_many_tenants_are_refused_only_the_latest_are_remembered() {
        let clock = Clock::manual(1000);
        let gate = QuotaGate::new(Quotas::default(), clock.clone(), Arc::default());
        let exceeded = QuotaExceeded { quota: "runs_per_day", limit: 1, used: 1, resets_at_ms: None };
        for number in 0..=TENANTS {
            clock.advance(Duration::from_millis(1));
            let tenant = TenantId::parse(&format!("tnt_{number}")).expect("a tenant");
            gate.refuse(&tenant, &exceeded);
        }
        let refused = gate.refused();
        assert_eq!(refused.len(), TENANTS);
        assert!(refused.iter().all(|(tenant, _, _)| tenant.as_str() != "tnt_0"));
    }
}
