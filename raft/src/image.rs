//! What a snapshot carries: a promise on the sender, rows on the receiver.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::tables::{Key, meta::AppliedKey};
use holdfast_storage::{Direction, GroupId, Op, StorageError, Store, View};

use crate::rows::{self, GroupState};

/// The data of a snapshot of one group.
#[derive(Clone)]
pub enum Image {
    /// Nothing yet: the rows of `group` in `store`, read when somebody asks for them.
    Local {
        /// The group.
        group: GroupId,
        /// Where its rows are.
        store: Arc<dyn Store>,
    },
    /// Rows that came from a peer, in key order, all read through one view.
    Rows(Vec<(Bytes, Bytes)>),
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Local { group, .. } => write!(f, "Image::Local({group})"),
            Image::Rows(rows) => write!(f, "Image::Rows({})", rows.len()),
        }
    }
}

impl Image {
    /// A promise of the rows of a group.
    pub fn local(group: GroupId, store: Arc<dyn Store>) -> Image {
        Image::Local { group, store }
    }

    /// Reads what was promised through one view of the store.
    pub fn receive(self) -> Result<Received, StorageError> {
        match self {
            Image::Rows(rows) => Ok(Received { rows }),
            Image::Local { group, store } => {
                let mut rows = Vec::new();
                scan_group(store.view().as_ref(), group, |key, value| {
                    rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                })?;
                Ok(Received { rows })
            }
        }
    }
}

/// All rows of a group at one point of its log.
pub struct Received {
    rows: Vec<(Bytes, Bytes)>,
}

impl Received {
    /// The rows, to be sent.
    pub fn into_image(self) -> Image {
        Image::Rows(self.rows)
    }

    /// The state of the group that they show.
    pub fn state(&self, group: GroupId) -> Result<GroupState, StorageError> {
        let key = AppliedKey { group }.encode();
        let row = self.rows.iter().find(|(at, _)| *at == key).map(|(_, value)| value.clone());
        GroupState::from_row(row, group)
    }

    /// The operations that turn what `view` shows of the group into this.
    pub fn install(self, group: GroupId, view: &dyn View) -> Result<Vec<Op>, StorageError> {
        let ranges = rows::ranges(group);
        let own = |key: &Bytes| ranges.iter().any(|range| range.contains(key));
        if let Some((key, _)) = self.rows.iter().find(|(key, _)| !own(key)) {
            let what = format!("group {group}: an image with row {key:?} of another group");
            return Err(StorageError::Corrupt(what));
        }
        let wanted: BTreeSet<&[u8]> = self.rows.iter().map(|(key, _)| &key[..]).collect();
        let mut ops = Vec::new();
        scan_group(view, group, |key, _| {
            if !wanted.contains(key) {
                ops.push(Op::Delete { key: Bytes::copy_from_slice(key) });
            }
        })?;
        drop(wanted);
        ops.extend(self.rows.into_iter().map(|(key, value)| Op::Put { key, value }));
        Ok(ops)
    }
}

/// Visits every row that a snapshot of a group carries.
fn scan_group(
    view: &dyn View,
    group: GroupId,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<(), StorageError> {
    for range in rows::ranges(group) {
        let mut each = |key: &[u8], value: &[u8]| {
            visit(key, value);
            ControlFlow::Continue(())
        };
        view.scan(&range.start, &range.end, Direction::Forward, &mut each)?;
    }
    Ok(())
}
