//! This node's copy of what group 0 holds: namespaces, their search attributes, token keys.
//! Read from the tables again whenever group 0 has applied something, by leader and followers
//! alike.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_engine::ids::NamespaceId;
use holdfast_engine::namespace::{DEFAULT_RETENTION, NamespaceView, Registry, RowKind};
use holdfast_proto::enums::NamespaceState;
use holdfast_storage::tables::Key;
use holdfast_storage::tables::meta::{self, RegistryKey};
use holdfast_storage::{Direction, StorageError, Store};
use tokio::sync::watch;

/// The group that holds the registry.
pub(crate) const META_GROUP: u32 = 0;

/// A view on the newest copy. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RegistryWatch(watch::Receiver<Arc<Registry>>);

impl RegistryWatch {
    pub(crate) fn new(receiver: watch::Receiver<Arc<Registry>>) -> RegistryWatch {
        RegistryWatch(receiver)
    }

    /// The newest copy.
    pub(crate) fn current(&self) -> Arc<Registry> {
        self.0.borrow().clone()
    }

    /// The newest copy; [`RegistryWatch::changed`] waits for the one after it.
    pub(crate) fn newest(&mut self) -> Arc<Registry> {
        self.0.borrow_and_update().clone()
    }

    /// Waits for a newer copy than the last that was looked at. Never when none will come.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The view of a namespace for a decision of our own; of one that is gone, a view that lets
    /// what is left of it run out.
    pub(crate) fn view(&self, id: &NamespaceId) -> Arc<NamespaceView> {
        let found = self.0.borrow().view(*id);
        found.unwrap_or_else(|| Arc::new(gone(*id)))
    }
}

/// What is left of a namespace that is not in the registry any more.
fn gone(id: NamespaceId) -> NamespaceView {
    NamespaceView {
        id,
        name: id.to_string(),
        state: NamespaceState::Deleted,
        retention: DEFAULT_RETENTION,
        search_attributes: BTreeMap::new(),
    }
}

/// Reads the registry from the tables.
pub(crate) fn read(store: &dyn Store) -> Result<Registry, StorageError> {
    let view = store.view();
    let mut rows = Vec::new();
    for kind in [RowKind::Namespace, RowKind::TokenKey] {
        let all = RegistryKey::range(META_GROUP, kind as u8);
        let mut failed = None;
        view.scan(&all.start, &all.end, Direction::Forward, &mut |key, value| {
            let row = RegistryKey::decode(key).and_then(|key| {
                let value = meta::registry_from_value(Bytes::copy_from_slice(value))?;
                Ok((kind, Bytes::from(key.key), value))
            });
            match row {
                Ok(row) => {
                    rows.push(row);
                    ControlFlow::Continue(())
                }
                Err(why) => {
                    failed = Some(why);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(why) = failed {
            return Err(why);
        }
    }
    Registry::load(rows).map_err(|why| StorageError::Corrupt(format!("registry: {why}")))
}
