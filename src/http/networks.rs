//! How many connections may be open from one network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::services::rates::RateKey;

/// Open connections by network.
#[derive(Clone)]
pub(super) struct Networks {
    most: usize,
    pub(super) open: Arc<Mutex<HashMap<RateKey, usize>>>,
}

/// One connection of a network; dropping it gives the place back.
pub(super) struct NetworkPlace {
    networks: Networks,
    key: RateKey,
}

impl Networks {
    /// At most so many from each.
    pub(super) fn new(most: usize) -> Self {
        Networks { most, open: Arc::default() }
    }

    /// Takes a place for a connection from `address`, if its network has one left.
    pub(super) fn enter(&self, address: IpAddr) -> Option<NetworkPlace> {
        let key = RateKey::address(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(NetworkPlace { networks: self.clone(), key })
    }
}

impl Drop for NetworkPlace {
    fn drop(&mut self) {
        let mut open = self.networks.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}
