//! Search attributes that a start or an upsert sets: that they exist, that their values fit their
//! types (goldens search_attributes/values_by_type and payload_forms), and their sizes.

use bytes::Bytes;
use holdfast_proto::common::{Payload, SearchAttributes};
use holdfast_proto::decoded;
use serde_json::Value as Json;

use super::is_null;
use crate::limits::Limits;
use crate::namespace::NamespaceView;
use crate::reject::Rejection;
use crate::visibility::attribute::{Kind, system_kind};
use crate::visibility::literal::parse_time;

/// The system attributes that users may set; the others are the server's.
const SETTABLE: [&str; 11] = [
    "BatcherNamespace",
    "BatcherUser",
    "BinaryChecksums",
    "BuildIds",
    "TemporalChangeVersion",
    "TemporalNamespaceDivision",
    "TemporalPauseInfo",
    "TemporalReportedProblems",
    "TemporalSchedulePaused",
    "TemporalScheduledById",
    "TemporalScheduledStartTime",
];

/// The attributes of a start: checked, typed, and without those that are null.
pub(super) fn of_start(
    slot: &mut Option<SearchAttributes>,
    namespace: &NamespaceView,
    limits: &Limits,
) -> Result<(), Rejection> {
    let Some(attributes) = slot else { return Ok(()) };
    values(attributes, namespace, limits)?;
    sizes(attributes, limits)?;
    attributes.indexed_fields.retain(|_, value| !is_null(value));
    if attributes.indexed_fields.is_empty() {
        *slot = None;
    }
    Ok(())
}

/// Checks names and values, and writes the type into the metadata where the caller has not.
pub fn values(
    attributes: &mut SearchAttributes,
    namespace: &NamespaceView,
    limits: &Limits,
) -> Result<(), Rejection> {
    let (count, most) = (attributes.indexed_fields.len(), limits.search_attribute_keys);
    if count > most {
        return Err(Rejection::invalid(format!(
            "number of search attributes {count} exceeds limit {most}"
        )));
    }
    for (name, value) in &mut attributes.indexed_fields {
        let kind = kind_of(name, namespace)?;
        let mut payload = value.decode().unwrap_or_default();
        if !fits(&payload, kind) {
            return Err(Rejection::invalid(format!(
                "invalid value for search attribute {name} of type {kind}: {}",
                shown(&payload)
            )));
        }
        if !payload.metadata.contains_key("type") {
            payload.metadata.insert("type".into(), Bytes::from_static(kind.name().as_bytes()));
            *value = Payload::encode_from(&payload);
        }
    }
    Ok(())
}

/// Checks the size of each value and of all together.
pub fn sizes(attributes: &SearchAttributes, limits: &Limits) -> Result<(), Rejection> {
    let mut total = 0;
    for (name, value) in &attributes.indexed_fields {
        let (size, most) =
            (value.decode().map_or(0, |p| p.data.len()), limits.search_attribute_value_bytes);
        if size > most {
            return Err(Rejection::invalid(format!(
                "search attribute {name} value size {size} exceeds size limit {most}"
            )));
        }
        total += name.len() + size;
    }
    let most = limits.search_attributes_bytes;
    if total > most {
        return Err(Rejection::invalid(format!(
            "total size of search attributes {total} exceeds size limit {most}"
        )));
    }
    Ok(())
}

fn kind_of(name: &str, namespace: &NamespaceView) -> Result<Kind, Rejection> {
    if let Some(kind) = namespace.search_attributes.get(name).copied().and_then(Kind::of) {
        return Ok(kind);
    }
    match system_kind(name) {
        Some(kind) if SETTABLE.contains(&name) => Ok(kind),
        Some(_) => {
            Err(Rejection::invalid(format!("{name} attribute can't be set in SearchAttributes")))
        }
        None => Err(Rejection::invalid(format!(
            "Namespace {} has no mapping defined for search attribute {name}",
            namespace.name
        ))),
    }
}

fn encoding(payload: &decoded::Payload) -> &[u8] {
    payload.metadata.get("encoding").map_or(b"", |encoding| &encoding[..])
}

/// Whether a value has the type: a JSON value of it, a list of one, or nothing at all.
fn fits(payload: &decoded::Payload, kind: Kind) -> bool {
    match encoding(payload) {
        b"binary/null" => true,
        b"json/plain" => match serde_json::from_slice::<Json>(&payload.data) {
            Ok(Json::Null) => true,
            Ok(Json::Array(items)) => match (items.as_slice(), kind) {
                ([], _) => true,
                (items, Kind::KeywordList) => items.iter().all(Json::is_string),
                ([item], _) => is_a(item, kind),
                _ => false,
            },
            Ok(value) => is_a(&value, kind),
            Err(_) => false,
        },
        _ => false,
    }
}

fn is_a(value: &Json, kind: Kind) -> bool {
    match kind {
        Kind::Text | Kind::Keyword => value.is_string(),
        Kind::Int => value.is_i64(),
        Kind::Double => value.is_number(),
        Kind::Bool => value.is_boolean(),
        Kind::Datetime => value.as_str().is_some_and(|text| parse_time(text).is_some()),
        Kind::KeywordList => false,
    }
}

/// A refused value as Temporal's message has it: Go's default form of what it decodes to, or the
/// payload itself when it does not decode.
fn shown(payload: &decoded::Payload) -> String {
    match encoding(payload) {
        b"json/plain" => match serde_json::from_slice::<Json>(&payload.data) {
            Ok(value) => go_value(&value),
            Err(_) => format!("value from <{}>", text_form(payload)),
        },
        b"binary/plain" => {
            let bytes: Vec<String> = payload.data.iter().map(u8::to_string).collect();
            format!("[{}]", bytes.join(" "))
        }
        _ => format!("value from <{}>", text_form(payload)),
    }
}

fn go_value(value: &Json) -> String {
    match value {
        Json::Null => "<nil>".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => number.as_f64().map_or_else(String::new, go_float),
        Json::String(text) => text.clone(),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Json::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", go_value(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

/// Go's `%v` of a float: shortest digits, with an exponent from 1e6 on and below 1e-4.
fn go_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..EXPONENT_FROM).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Go writes a million and more with an exponent.
const EXPONENT_FROM: i32 = 6;

/// The text form of a payload, its metadata in the order of their names.
fn text_form(payload: &decoded::Payload) -> String {
    let mut parts: Vec<String> = payload
        .metadata
        .iter()
        .map(|(key, value)| {
            format!("metadata:{{key:{} value:{}}}", quoted(key.as_bytes()), quoted(value))
        })
        .collect();
    if !payload.data.is_empty() {
        parts.push(format!("data:{}", quoted(&payload.data)));
    }
    parts.join(" ")
}

fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn payload(encoding: &str, data: &str) -> decoded::Payload {
        decoded::Payload {
            metadata: BTreeMap::from([("encoding".to_owned(), Bytes::from(encoding.to_owned()))]),
            data: Bytes::from(data.to_owned()),
            ..decoded::Payload::default()
        }
    }

    /// The values of golden search_attributes/values_by_type with the types that take them, and
    /// how the message shows them to the others.
    const VALUES: [(&str, &[Kind], &str); 20] = {
        use Kind::{Bool, Datetime, Double, Int, Keyword, KeywordList, Text};
        [
            ("\"text\"", &[Keyword, Text], "text"),
            ("\"7\"", &[Keyword, Text], "7"),
            ("7", &[Int, Double], "7"),
            ("-7", &[Int, Double], "-7"),
            ("1.5", &[Double], "1.5"),
            ("2.0", &[Double], "2"),
            ("9223372036854775808", &[Double], "9.223372036854776e+18"),
            ("true", &[Bool], "true"),
            ("null", &Kind::ALL, ""),
            ("[]", &Kind::ALL, ""),
            (
                "\"2020-01-01T01:00:00.123456789+01:00\"",
                &[Keyword, Text, Datetime],
                "2020-01-01T01:00:00.123456789+01:00",
            ),
            ("\"2020-01-01\"", &[Keyword, Text], "2020-01-01"),
            ("[\"x\"]", &[Keyword, Text, KeywordList], "[x]"),
            ("[\"x\",\"y\"]", &[KeywordList], "[x y]"),
            ("[7]", &[Int, Double], "[7]"),
            ("[7,8]", &[], "[7 8]"),
            ("[\"x\",7]", &[], "[x 7]"),
            (
                "[\"2020-01-01T00:00:00Z\"]",
                &[Keyword, Text, Datetime, KeywordList],
                "[2020-01-01T00:00:00Z]",
            ),
            ("{\"a\":1}", &[], "map[a:1]"),
            ("\"\"", &[Keyword, Text], ""),
        ]
    };

    #[test]
    fn values_by_type_as_in_the_golden() {
        for (json, takers, shown_as) in VALUES {
            let payload = payload("json/plain", json);
            for kind in Kind::ALL {
                assert_eq!(fits(&payload, kind), takers.contains(&kind), "{json} as {kind}");
            }
            if takers.len() < Kind::ALL.len() {
                assert_eq!(shown(&payload), shown_as, "{json}");
            }
        }
    }

    #[test]
    fn payload_forms_as_in_the_golden() {
        let bare = decoded::Payload { data: Bytes::from_static(b"7"), ..Default::default() };
        for (payload, expected) in [
            (bare, "value from <data:\"7\">"),
            (payload("binary/plain", "7"), "[55]"),
            (
                payload("json/plain", ""),
                "value from <metadata:{key:\"encoding\" value:\"json/plain\"}>",
            ),
            (
                payload("json/plain", "{"),
                "value from <metadata:{key:\"encoding\" value:\"json/plain\"} data:\"{\">",
            ),
            (decoded::Payload::default(), "value from <>"),
        ] {
            assert!(!fits(&payload, Kind::Int));
            assert_eq!(shown(&payload), expected);
        }
        assert!(fits(&payload("binary/null", ""), Kind::Int));
    }

    #[test]
    fn floats_as_go_prints_them() {
        for (value, text) in [
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.0, "-2"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }
}
