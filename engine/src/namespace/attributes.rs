//! Custom search attributes of a namespace: adding, removing, and the aliases of its config.

use std::collections::BTreeMap;

use holdfast_proto::enums::IndexedValueType;

use super::record::{CustomAttribute, NamespaceRecord};
use super::registry::Registry;
use crate::reject::Rejection;
use crate::visibility::attribute::{Kind, column_kind, columns, is_reserved, system_kind};

/// Longest name, also of a namespace, in bytes (`limit.maxIDLength`).
pub const MAX_NAME_BYTES: usize = 1000;

/// The namespace of an operator's request, whose refusal differs in a word.
pub(super) fn namespace(registry: &Registry, name: &str) -> Result<NamespaceRecord, Rejection> {
    if name.is_empty() {
        return Err(Rejection::invalid("Namespace is not set on request."));
    }
    registry.record_by_name(name).cloned()
}

fn none_given() -> Rejection {
    Rejection::invalid("SearchAttributes are not set on request.")
}

fn too_many(limit: usize, kind: &str) -> Rejection {
    Rejection::invalid(format!(
        "Unable to create search attributes: cannot have more than {limit} search attribute of type {kind}."
    ))
}

/// Adds attributes, all or none. One that exists stays what it is, whatever type is asked for.
pub(super) fn add(
    record: &mut NamespaceRecord,
    wanted: &BTreeMap<String, i32>,
) -> Result<(), Rejection> {
    if wanted.is_empty() {
        return Err(none_given());
    }
    for (name, kind) in wanted {
        refuse_name(name)?;
        let Ok(value_type) = IndexedValueType::try_from(*kind) else {
            return Err(Rejection::invalid(format!("Unknown search attribute type: {kind}.")));
        };
        let Some(kind) = Kind::of(value_type) else {
            return Err(too_many(0, "Unspecified"));
        };
        // The reference takes an empty name and makes nothing of it.
        if !name.is_empty() && record.attribute(name).is_none() {
            let free = columns().find(|(column, of)| *of == kind && !in_use(record, column));
            let Some((column, _)) = free else {
                return Err(too_many(kind.per_namespace(), kind.name()));
            };
            insert(record, name, kind, column);
        }
    }
    Ok(())
}

fn refuse_name(name: &str) -> Result<(), Rejection> {
    if is_reserved(name) {
        return Err(Rejection::invalid(format!("Search attribute {name} is reserved by system.")));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Rejection::invalid("Search attribute name length exceeds limit."));
    }
    Ok(())
}

fn in_use(record: &NamespaceRecord, column: &str) -> bool {
    record.attributes.iter().any(|attribute| attribute.column == column)
}

fn insert(record: &mut NamespaceRecord, name: &str, kind: Kind, column: String) {
    let id = record.next_attribute;
    record.next_attribute += 1;
    record.attributes.push(CustomAttribute {
        id,
        name: name.to_owned(),
        kind: kind.value_type().into(),
        column,
    });
    record.attributes.sort_by(|a, b| a.column.cmp(&b.column));
}

/// Removes attributes; unknown ones are no error.
pub(super) fn remove(record: &mut NamespaceRecord, unwanted: &[String]) -> Result<(), Rejection> {
    if unwanted.is_empty() {
        return Err(none_given());
    }
    if let Some(name) = unwanted.iter().find(|name| system_kind(name).is_some()) {
        let text = format!("Unable to remove non-custom search attributes: {name}.");
        return Err(Rejection::invalid(text));
    }
    record.attributes.retain(|attribute| !unwanted.contains(&attribute.name));
    Ok(())
}

/// The config's way: names by column, an empty name takes the column's attribute away.
pub(super) fn alias(
    record: &mut NamespaceRecord,
    aliases: &BTreeMap<String, String>,
) -> Result<(), Rejection> {
    for (column, name) in aliases {
        if name.is_empty() {
            record.attributes.retain(|attribute| attribute.column != *column);
            continue;
        }
        let Some(kind) = column_kind(column) else {
            let text = format!("Custom search attribute field name {column} does not exist.");
            return Err(Rejection::invalid(text));
        };
        if let Some(attribute) = record.attributes.iter().find(|a| a.column == *column) {
            if attribute.name == *name {
                continue;
            }
            let text = "Custom search attribute field name already allocated.";
            return Err(Rejection::invalid(text));
        }
        refuse_name(name)?;
        if record.attribute(name).is_some() {
            let text = format!("Custom search attribute {name} already exists.");
            return Err(Rejection::invalid(text));
        }
        insert(record, name, kind, column.clone());
    }
    Ok(())
}
