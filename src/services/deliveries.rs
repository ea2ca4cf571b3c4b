//! Forwards as operators see them, over all tenants: where they go and how that goes, and nothing of what is in
//! them.

use super::list_cursor;
use crate::clock::Clock;
use crate::protocol::problem::Problem;
use crate::store::Store;

pub use crate::store::{DeliveryFilter, DeliveryRecord};

/// A page of deliveries.
#[derive(Debug)]
pub struct DeliveryPage {
    /// Newest first; fewer than asked for, or none, where a filter finds little.
    pub deliveries: Vec<DeliveryRecord>,
    /// Where the next page starts, if there may be one.
    pub next_cursor: Option<String>,
    /// When it was read, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// Lists deliveries.
#[derive(Clone)]
pub struct Deliveries {
    store: Store,
    clock: Clock,
}

impl Deliveries {
    /// Over the forwards of `store`.
    pub fn new(store: Store, clock: Clock) -> Self {
        Deliveries { store, clock }
    }

    /// A page of those that `filter` wants.
    pub async fn list(
        &self,
        filter: DeliveryFilter,
        (cursor, limit): (Option<&str>, u32),
    ) -> Result<DeliveryPage, Problem> {
        let is_place = |place: &str| place.parse().ok().filter(|row: &i64| *row > 0);
        let before = cursor.map(|cursor| list_cursor::open(&self.store, cursor, is_place)).transpose()?;
        let (deliveries, next) = self.store.list_deliveries(filter, before, limit).await?;
        let next_cursor = next.map(|row| list_cursor::make(&self.store, &row.to_string()));
        Ok(DeliveryPage { deliveries, next_cursor, now_ms: self.clock.now_ms() })
    }
}
