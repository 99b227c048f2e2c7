//! The rows of group 0's registry: a kind, a key, and a value of a version byte and prost.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::enums::{IndexedValueType, NamespaceState};
use prost::Message;

use super::NamespaceView;
use crate::ids::{NamespaceId, Uuid};

/// The version byte of every value.
const VERSION: u8 = 1;

/// What a row is about; the byte is part of the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum RowKind {
    /// A [`NamespaceRecord`], under its 16-byte id.
    Namespace = 1,
    /// A [`TokenKey`], under its number (u32, big endian).
    TokenKey = 2,
}

impl RowKind {
    /// From its byte.
    pub fn from_byte(byte: u8) -> Option<RowKind> {
        match byte {
            1 => Some(RowKind::Namespace),
            2 => Some(RowKind::TokenKey),
            _ => None,
        }
    }
}

/// An absolute put or delete of one row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryChange {
    /// What the row is about.
    pub kind: RowKind,
    /// Its key.
    pub key: Bytes,
    /// Its value; `None` deletes it.
    pub value: Option<Bytes>,
}

impl RegistryChange {
    /// Writes a namespace.
    pub fn put(record: &NamespaceRecord) -> RegistryChange {
        let key = Bytes::copy_from_slice(&record.id);
        RegistryChange { kind: RowKind::Namespace, key, value: Some(value(record)) }
    }

    /// Forgets a namespace.
    pub fn delete(id: NamespaceId) -> RegistryChange {
        let key = Bytes::copy_from_slice(&id.0);
        RegistryChange { kind: RowKind::Namespace, key, value: None }
    }

    /// Writes a token key.
    pub fn put_key(key: &TokenKey) -> RegistryChange {
        let number = Bytes::copy_from_slice(&key.number.to_be_bytes());
        RegistryChange { kind: RowKind::TokenKey, key: number, value: Some(value(key)) }
    }

    /// Forgets a token key.
    pub fn delete_key(number: u32) -> RegistryChange {
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        RegistryChange { kind: RowKind::TokenKey, key, value: None }
    }
}

fn value(message: &impl Message) -> Bytes {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.into()
}

/// Reads a value; it may be damaged, or of a version that this one does not know.
pub(super) fn read<M: Message + Default>(kind: RowKind, bytes: &[u8]) -> Result<M, RowError> {
    let message = bytes.split_first().filter(|(version, _)| **version == VERSION);
    message.and_then(|(_, body)| M::decode(body).ok()).ok_or(RowError { kind })
}

/// A row of the registry that cannot be read: damage, or a version that is too new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowError {
    /// What the row is about.
    pub kind: RowKind,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {:?} row of the registry cannot be read", self.kind)
    }
}

impl std::error::Error for RowError {}

/// A namespace as stored.
#[derive(Clone, PartialEq, Message)]
pub struct NamespaceRecord {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// `NamespaceState`.
    #[prost(enumeration = "NamespaceState", tag = "3")]
    pub state: i32,
    /// Free text.
    #[prost(string, tag = "4")]
    pub description: String,
    /// Free text.
    #[prost(string, tag = "5")]
    pub owner_email: String,
    /// Free text by key.
    #[prost(btree_map = "string, string", tag = "6")]
    pub data: BTreeMap<String, String>,
    /// How long closed runs are kept, in nanoseconds.
    #[prost(uint64, tag = "7")]
    pub retention: u64,
    /// When it was registered.
    #[prost(uint64, tag = "8")]
    pub created_at: u64,
    /// Custom search attributes, in the order of their columns' names.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<CustomAttribute>,
    /// The id of the next custom search attribute; ids are never given again.
    #[prost(uint32, tag = "10")]
    pub next_attribute: u32,
    /// Worker binaries whose decisions are not wanted, by checksum.
    #[prost(btree_map = "string, message", tag = "11")]
    pub bad_binaries: BTreeMap<String, BadBinary>,
}

/// A custom search attribute.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CustomAttribute {
    /// Never given again, so that an index by it could not mistake a new attribute for one that
    /// was removed. Nothing is kept by it yet: runs hold values by name, and those of a removed
    /// attribute are there again when one of the same name is added, as in Temporal.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its type.
    #[prost(enumeration = "IndexedValueType", tag = "3")]
    pub kind: i32,
    /// The reference's column that it would have, as the namespace's config shows it.
    #[prost(string, tag = "4")]
    pub column: String,
}

/// Why a worker binary is not wanted.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BadBinary {
    /// Free text.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// Who said so.
    #[prost(string, tag = "2")]
    pub operator: String,
    /// When.
    #[prost(uint64, tag = "3")]
    pub created_at: u64,
}

/// A key that tokens are MACed with. Secret: not even `Debug` shows it.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct TokenKey {
    /// 1, 2, 3, ..; the greatest seals, all open.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Random bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub secret: Bytes,
    /// When it was made.
    #[prost(uint64, tag = "3")]
    pub created_at: u64,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, secret)", self.number)
    }
}

impl NamespaceRecord {
    /// Its id; nil when the bytes are none.
    pub fn namespace_id(&self) -> NamespaceId {
        Uuid::from_slice(&self.id).unwrap_or(Uuid::NIL)
    }

    /// What decisions see of it.
    pub fn view(&self) -> NamespaceView {
        let custom = self.attributes.iter().map(|a| (a.name.clone(), a.kind()));
        NamespaceView {
            id: self.namespace_id(),
            name: self.name.clone(),
            state: self.state(),
            retention: Duration::from_nanos(self.retention),
            search_attributes: custom.collect(),
        }
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&CustomAttribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let key = TokenKey { number: 7, secret: Bytes::from_static(b"hush"), created_at: 1 };
        assert_eq!(format!("{key:?}"), "TokenKey(7, secret)");
    }

    #[test]
    fn values_carry_their_version() {
        let record = NamespaceRecord { name: "n".into(), ..NamespaceRecord::default() };
        let change = RegistryChange::put(&record);
        let bytes = change.value.expect("put");
        assert_eq!(bytes[0], VERSION);
        assert_eq!(read::<NamespaceRecord>(RowKind::Namespace, &bytes), Ok(record));
        let newer = [&[VERSION + 1], &bytes[1..]].concat();
        assert!(read::<NamespaceRecord>(RowKind::Namespace, &newer).is_err());
        assert!(read::<NamespaceRecord>(RowKind::Namespace, &[]).is_err());
    }

    #[test]
    fn kinds_keep_their_bytes() {
        for (kind, byte) in [(RowKind::Namespace, 1), (RowKind::TokenKey, 2)] {
            assert_eq!(kind as u8, byte);
            assert_eq!(RowKind::from_byte(byte), Some(kind));
        }
        assert_eq!(RowKind::from_byte(0), None);
    }
}
