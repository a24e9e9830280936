//! A small cache of decoded bases: neighbouring deltas of several generations share them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_format::ids::Address;

/// Bases kept: 8 MiB of blocks.
const BASES_MAX: usize = 128;

#[derive(Debug, Default)]
struct Kept {
    plain: HashMap<Address, Arc<Vec<u8>>>,
    order: VecDeque<Address>,
}

/// Decoded bases, the oldest ones forgotten.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    kept: Mutex<Kept>,
}

impl Bases {
    pub(crate) fn get(&self, address: Address) -> Option<Arc<Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).plain.get(&address).cloned()
    }

    pub(crate) fn put(&self, address: Address, plain: &Arc<Vec<u8>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.plain.insert(address, Arc::clone(plain)).is_some() {
            return;
        }
        kept.order.push_back(address);
        while kept.order.len() > BASES_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.plain.remove(&oldest);
            }
        }
    }
}
