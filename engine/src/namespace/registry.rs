//! The fold of the registry's rows, on every node.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{NamespaceRecord, RegistryChange, RowError, RowKind, TokenKey, read};
use super::{NamespaceView, not_found, not_set};
use crate::ids::{NamespaceId, Uuid};
use crate::reject::Rejection;

/// All namespaces and token keys.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Registry {
    records: BTreeMap<NamespaceId, (Arc<NamespaceRecord>, Arc<NamespaceView>)>,
    names: BTreeMap<String, NamespaceId>,
    keys: BTreeMap<u32, TokenKey>,
}

impl Registry {
    /// The fold of all rows: (kind, key, value).
    pub fn load(
        rows: impl IntoIterator<Item = (RowKind, bytes::Bytes, bytes::Bytes)>,
    ) -> Result<Registry, RowError> {
        let mut registry = Registry::default();
        for (kind, key, value) in rows {
            registry.apply(&RegistryChange { kind, key, value: Some(value) })?;
        }
        Ok(registry)
    }

    /// Takes one change over. An unreadable one changes nothing; the replica must stop.
    pub fn apply(&mut self, change: &RegistryChange) -> Result<(), RowError> {
        let error = RowError { kind: change.kind };
        match change.kind {
            RowKind::Namespace => {
                let id = Uuid::from_slice(&change.key).ok_or(error)?;
                let record = change.value.as_ref().map(|bytes| read(change.kind, bytes));
                self.set(id, record.transpose()?);
            }
            RowKind::TokenKey => {
                let number = change.key.as_ref().try_into().map_err(|_| error)?;
                let number = u32::from_be_bytes(number);
                match &change.value {
                    Some(bytes) => self.keys.insert(number, read(change.kind, bytes)?),
                    None => self.keys.remove(&number),
                };
            }
        }
        Ok(())
    }

    fn set(&mut self, id: NamespaceId, record: Option<NamespaceRecord>) {
        if let Some((old, _)) = self.records.remove(&id)
            && self.names.get(&old.name) == Some(&id)
        {
            self.names.remove(&old.name);
        }
        if let Some(record) = record {
            self.names.insert(record.name.clone(), id);
            let view = Arc::new(record.view());
            self.records.insert(id, (Arc::new(record), view));
        }
    }

    /// The view of a namespace by id.
    pub fn view(&self, id: NamespaceId) -> Option<Arc<NamespaceView>> {
        self.records.get(&id).map(|(_, view)| view.clone())
    }

    /// The view of a namespace by name, in whatever state.
    pub fn view_by_name(&self, name: &str) -> Option<Arc<NamespaceView>> {
        self.view(*self.names.get(name)?)
    }

    /// The view that a request's `namespace` means, or the refusal.
    pub fn find(&self, name: &str) -> Result<Arc<NamespaceView>, Rejection> {
        if name.is_empty() {
            return Err(not_set());
        }
        self.view_by_name(name).ok_or_else(|| not_found(name))
    }

    /// The stored form by id.
    pub fn record(&self, id: NamespaceId) -> Option<&NamespaceRecord> {
        self.records.get(&id).map(|(record, _)| &**record)
    }

    /// The stored form by name, or the refusal.
    pub fn record_by_name(&self, name: &str) -> Result<&NamespaceRecord, Rejection> {
        if name.is_empty() {
            return Err(not_set());
        }
        self.names.get(name).and_then(|id| self.record(*id)).ok_or_else(|| not_found(name))
    }

    /// All of them behind `after`, by name.
    pub fn by_name(&self, after: &str) -> impl Iterator<Item = &NamespaceRecord> {
        use std::ops::Bound::{Excluded, Unbounded};
        let bounds = (Excluded(after), Unbounded);
        self.names.range::<str, _>(bounds).filter_map(|(_, id)| self.record(*id))
    }

    /// How many namespaces there are, deleted ones that still exist included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none: before the first start.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The keys that open tokens, by number.
    pub fn token_keys(&self) -> &BTreeMap<u32, TokenKey> {
        &self.keys
    }

    /// The key that seals tokens.
    pub fn sealing_key(&self) -> Option<&TokenKey> {
        self.keys.last_key_value().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: u8, name: &str) -> RegistryChange {
        let (id, name) = (vec![id; 16], name.to_owned());
        RegistryChange::put(&NamespaceRecord { id, name, ..NamespaceRecord::default() })
    }

    #[test]
    fn rows_may_come_in_any_order() {
        // A name goes from 1 to 2. Whichever row is written first, the name is 2's in the end.
        for order in [[0, 1], [1, 0]] {
            let mut registry = Registry::default();
            assert_eq!(registry.apply(&named(1, "x")), Ok(()));
            let changes = [named(1, "x-deleted"), named(2, "x")];
            for at in order {
                assert_eq!(registry.apply(&changes[at]), Ok(()));
            }
            assert_eq!(registry.find("x").map(|view| view.id), Ok(Uuid([2; 16])));
            assert_eq!(registry.by_name("").count(), 2);
        }
    }

    #[test]
    fn an_unreadable_row_changes_nothing() {
        let mut registry = Registry::default();
        assert_eq!(registry.apply(&named(1, "x")), Ok(()));
        let before = registry.clone();
        let mut bad = named(1, "y");
        bad.value = Some(bytes::Bytes::from_static(&[0, 1, 2]));
        assert!(registry.apply(&bad).is_err());
        bad.key = bytes::Bytes::from_static(b"short");
        assert!(registry.apply(&bad).is_err());
        assert_eq!(registry, before);
    }

    #[test]
    fn a_view_is_handed_out_without_a_copy() {
        let mut registry = Registry::default();
        assert_eq!(registry.apply(&named(1, "x")), Ok(()));
        let (a, b) = (registry.find("x"), registry.find("x"));
        assert!(a.ok().zip(b.ok()).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b)));
    }
}
