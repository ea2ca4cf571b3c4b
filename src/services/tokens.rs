//! API tokens: made, shown once, checked without a look at the disk, ended at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

use super::identity::{Client, Who, is_reserved};
use crate::clock::Clock;
use crate::domain::api_token::{ApiToken, PresentedToken, RANDOM_BYTES, TokenId, matches};
use crate::domain::id::{PrincipalId, TenantId};
use crate::domain::limits;
use crate::domain::scope::{Scope, Scopes};
use crate::entropy::Entropy;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::store::{Actor, Store, StoreError};
use crate::tasks::Tasks;

pub use crate::store::TokenRecord;

/// Between two notes of when tokens were used: "last used" is meant for people.
const USE_INTERVAL: Duration = Duration::from_secs(60);
/// Compared with where there is no such token, so that the answer takes as long.
const NO_HASH: [u8; 32] = [0; 32];

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose things it opens; none for an operator's.
    pub tenant: Option<TenantId>,
    /// Who acts.
    pub principal: PrincipalId,
    /// What for.
    pub scopes: Scopes,
    /// For people.
    pub label: String,
    /// How long it holds; none: until it is revoked.
    pub lifetime: Option<Duration>,
}

/// Every token, cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Clock,
    entropy: Entropy,
    book: RwLock<HashMap<TokenId, Known>>,
    used: Mutex<HashMap<TokenId, i64>>,
}

#[derive(Clone)]
struct Known {
    record: TokenRecord,
    scopes: Scopes,
    ended: CancellationToken,
}

impl Tokens {
    /// Reads every token there is.
    pub async fn load(store: &Store, clock: &Clock, entropy: &Entropy) -> Result<Self, StoreError> {
        let records = store.tokens().await?;
        let book = records
            .into_iter()
            .filter_map(|record| Some((TokenId::parse(&record.token_id).ok()?, Known::new(record))));
        let shared = Shared {
            store: store.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            book: RwLock::new(book.collect()),
            used: Mutex::default(),
        };
        Ok(Tokens { shared: Arc::new(shared) })
    }

    /// Keeps "last used" on disk, coarsely, until the gateway stops.
    pub fn start(&self, tasks: &Tasks) {
        let (this, stopping) = (self.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            while !stopping.is_cancelled() {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(USE_INTERVAL) => {}
                    () = stopping.cancelled() => {}
                }
                this.note_used().await;
            }
        });
    }

    async fn note_used(&self) {
        let used = std::mem::take(&mut *self.shared.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return;
        }
        let used = used.into_iter().map(|(id, at_ms)| (id.as_str().to_owned(), at_ms)).collect();
        if let Err(error) = self.shared.store.note_tokens_used(used).await {
            tracing::debug!(error = %error, "when tokens were used was not noted");
        }
    }

    /// Makes a token; its text is in the answer and nowhere else.
    pub async fn create(&self, new: NewToken, by: &Actor) -> Result<(ApiToken, TokenRecord), Problem> {
        check(&new)?;
        let mut random = [0; RANDOM_BYTES];
        self.shared.entropy.fill(&mut random);
        let token = ApiToken::mint(&random);
        random.zeroize();
        let now_ms = self.shared.clock.now_ms();
        let lifetime = new.lifetime.map(|lifetime| now_ms.saturating_add(crate::clock::millis(lifetime)));
        let record = TokenRecord {
            token_id: token.id().to_string(),
            secret_hash: token.secret_hash(),
            tenant: new.tenant.map(|tenant| tenant.to_string()).unwrap_or_default(),
            principal: new.principal.to_string(),
            scopes: new.scopes.to_string(),
            label: new.label,
            created_at_ms: now_ms,
            expires_at_ms: lifetime,
            last_used_at_ms: None,
            revoked_at_ms: None,
        };
        self.shared.store.create_token(&record, by).await?;
        self.write().insert(token.id(), Known::new(record.clone()));
        Ok((token, record))
    }

    /// Every token, the newest first; no secret is in it.
    pub fn list(&self) -> Vec<TokenRecord> {
        let used = self.shared.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let book = self.shared.book.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<TokenRecord> = book
            .iter()
            .map(|(id, known)| {
                let last = used.get(id).copied().or(known.record.last_used_at_ms);
                TokenRecord { last_used_at_ms: last, ..known.record.clone() }
            })
            .collect();
        records.sort_by(|left, right| {
            (right.created_at_ms, &right.token_id).cmp(&(left.created_at_ms, &left.token_id))
        });
        records
    }

    /// Ends a token at once: its open streams too.
    pub async fn revoke(&self, id: &str, by: &Actor) -> Result<TokenRecord, Problem> {
        let not_found =
            || Problem::new(ErrorCode::NotFound, "there is no such token").with("field", "token_id");
        let token_id = TokenId::parse(id).map_err(|_| not_found())?;
        let record = self.shared.store.revoke_token(token_id.as_str(), by).await?.ok_or_else(not_found)?;
        if let Some(known) = self.write().get_mut(&token_id) {
            known.record = record.clone();
            known.ended.cancel();
        }
        Ok(record)
    }

    /// Who bears this token, if it holds now.
    pub(super) fn verify(&self, text: &str) -> Option<Who> {
        let presented = PresentedToken::parse(text)?;
        let known = {
            let book = self.shared.book.read().unwrap_or_else(PoisonError::into_inner);
            book.get(&presented.id).cloned()
        };
        let stored = known.as_ref().map_or(&NO_HASH, |known| &known.record.secret_hash);
        let is_right = matches(stored, &presented.secret_hash);
        let now_ms = self.shared.clock.now_ms();
        let known = known.filter(|known| is_right && known.holds(now_ms))?;
        self.shared.used.lock().unwrap_or_else(PoisonError::into_inner).insert(presented.id, now_ms);
        known.who()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<TokenId, Known>> {
        self.shared.book.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(record: TokenRecord) -> Self {
        let scopes = Scopes::parse_known(&record.scopes);
        let ended = CancellationToken::new();
        if record.revoked_at_ms.is_some() {
            ended.cancel();
        }
        Known { record, scopes, ended }
    }

    fn holds(&self, now_ms: i64) -> bool {
        self.record.revoked_at_ms.is_none() && self.record.expires_at_ms.is_none_or(|end| now_ms < end)
    }

    fn who(self) -> Option<Who> {
        let Known { record, scopes, ended } = self;
        if record.tenant.is_empty() {
            return scopes.allows(Scope::Admin).then_some(Who::Operator { name: record.principal });
        }
        Some(Who::Client(Client {
            tenant: TenantId::parse(&record.tenant).ok()?,
            principal: PrincipalId::parse(&record.principal).ok()?,
            scopes,
            ended,
            until_ms: record.expires_at_ms,
            only: None,
        }))
    }
}

fn check(new: &NewToken) -> Result<(), Problem> {
    let refuse = |field: &str, message: &str| {
        Err(Problem::new(ErrorCode::InvalidRequest, message.to_owned()).with("field", field))
    };
    let is_admin = new.scopes.allows(Scope::Admin);
    if new.scopes.is_empty() {
        return refuse("scopes", "a token without scopes opens nothing: give at least one");
    }
    if is_admin && new.scopes.iter().count() > 1 {
        return refuse("scopes", "admin:* stands alone: operators and clients are never one credential");
    }
    if is_admin && new.tenant.is_some() {
        return refuse("tenant_id", "an operator's token (admin:*) belongs to no tenant: leave it out");
    }
    if !is_admin && new.tenant.is_none() {
        return refuse("tenant_id", "a client's token needs its tenant");
    }
    if is_reserved(&new.principal) {
        return refuse(
            "principal_id",
            "a principal that begins with peer:, operator:, gateway: or address: is no client's",
        );
    }
    if !limits::is_label(&new.label) {
        return refuse("label", &format!("a label {}", limits::LABEL_RULE));
    }
    Ok(())
}
