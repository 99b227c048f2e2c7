//! Generates Temporal's messages from the descriptors of the crate `temporalio-protos`.
//!
//! Three things come out, in `OUT_DIR`: a file of messages per package, the tables that
//! `src/walk.rs` reads (`shapes.rs`), and the descriptors that are left (`descriptors.bin`), from
//! which the crate `api` generates its services.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// The bodies that users fill. They stay encoded: see `src/opaque.rs`.
const OPAQUE: [(&str, &str); 5] = [
    ("temporal.api.common.v1", "Payload"),
    ("temporal.api.common.v1", "Payloads"),
    ("temporal.api.common.v1", "Header"),
    ("temporal.api.common.v1", "Memo"),
    ("temporal.api.failure.v1", "Failure"),
];

/// The made-up package of the structured twins of the opaque bodies.
const DECODED: &str = "decoded";

fn main() -> Fallible<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH");
    let published = variable("DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH")?;
    println!("cargo:rerun-if-changed={}", published.display());
    let out = variable("OUT_DIR")?;

    let mut files = wanted(FileDescriptorSet::decode(fs::read(published)?.as_slice())?.file);
    files.iter_mut().for_each(quiet);
    let descriptors = out.join("descriptors.bin");
    fs::write(&descriptors, FileDescriptorSet { file: files.clone() }.encode_to_vec())?;
    println!("cargo:descriptor_path={}", descriptors.display());

    let messages = all_messages(&files);
    fs::write(out.join("shapes.rs"), shapes(&messages)?)?;
    files.push(decoded(&messages)?);
    generate(files, &out)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a build script is configured by variables and nothing else"
)]
fn variable(name: &str) -> Fallible<PathBuf> {
    Ok(std::env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))?.into())
}

/// The files of Temporal's server API and all that they import, imports first.
fn wanted(files: Vec<FileDescriptorProto>) -> Vec<FileDescriptorProto> {
    let served = |package: &str| {
        package.starts_with("temporal.api.")
            && !package.starts_with("temporal.api.cloud.")
            && !package.starts_with("temporal.api.testservice.")
    };
    let mut keep = BTreeSet::new();
    // An import stands before its importer: one pass from the back finds imports of imports, too.
    for file in files.iter().rev() {
        if served(file.package()) || keep.contains(file.name()) {
            keep.insert(file.name().to_owned());
            keep.extend(file.dependency.iter().cloned());
        }
    }
    files.into_iter().filter(|file| keep.contains(file.name())).collect()
}

/// Drops comments, which only slow the compiler down, and marks of deprecation: a server goes on
/// filling the fields that old SDKs read.
fn quiet(file: &mut FileDescriptorProto) {
    file.source_code_info = None;
    file.enum_type.iter_mut().for_each(quiet_enum);
    file.message_type.iter_mut().for_each(quiet_message);
}

fn quiet_message(message: &mut DescriptorProto) {
    for options in message.field.iter_mut().filter_map(|field| field.options.as_mut()) {
        options.deprecated = None;
    }
    if let Some(options) = &mut message.options {
        options.deprecated = None;
    }
    message.enum_type.iter_mut().for_each(quiet_enum);
    message.nested_type.iter_mut().for_each(quiet_message);
}

fn quiet_enum(values: &mut EnumDescriptorProto) {
    if let Some(options) = &mut values.options {
        options.deprecated = None;
    }
    for options in values.value.iter_mut().filter_map(|value| value.options.as_mut()) {
        options.deprecated = None;
    }
}

/// Every message under its full name with a leading dot, as fields refer to it.
fn all_messages(files: &[FileDescriptorProto]) -> BTreeMap<String, DescriptorProto> {
    fn add(scope: &str, message: &DescriptorProto, into: &mut BTreeMap<String, DescriptorProto>) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| add(&name, nested, into));
        into.insert(name, message.clone());
    }
    let mut messages = BTreeMap::new();
    for file in files {
        let scope = format!(".{}", file.package());
        file.message_type.iter().for_each(|message| add(&scope, message, &mut messages));
    }
    messages
}

fn look_up<'a>(
    messages: &'a BTreeMap<String, DescriptorProto>,
    name: &str,
) -> Fallible<&'a DescriptorProto> {
    Ok(messages.get(name).ok_or_else(|| format!("no descriptor of {name}"))?)
}

/// A file with a structured twin of every opaque body. A twin is one level deep: what it holds is
/// opaque again.
fn decoded(messages: &BTreeMap<String, DescriptorProto>) -> Fallible<FileDescriptorProto> {
    let mut file = FileDescriptorProto {
        name: Some("decoded.proto".to_owned()),
        package: Some(DECODED.to_owned()),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    for (package, name) in OPAQUE {
        let mut twin = look_up(messages, &format!(".{package}.{name}"))?.clone();
        let (inside, moved) = (format!(".{package}.{name}."), format!(".{DECODED}.{name}."));
        for field in &mut twin.field {
            if let Some(nested) = field.type_name().strip_prefix(&inside) {
                field.type_name = Some(format!("{moved}{nested}"));
            }
        }
        file.message_type.push(twin);
    }
    Ok(file)
}

fn generate(files: Vec<FileDescriptorProto>, out: &Path) -> Fallible<()> {
    let mut config = prost_build::Config::new();
    config
        .out_dir(out)
        .bytes(["."])
        .btree_map(["."])
        // An event is held in lists; in place, each would be as large as the largest kind.
        .boxed(".temporal.api.history.v1.HistoryEvent.attributes")
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com");
    for (package, name) in OPAQUE {
        config.extern_path(format!(".{package}.{name}"), format!("crate::opaque::{name}"));
    }
    // The rest (HTTP annotations and the like) describes, and is not sent.
    let sent = |file: &FileDescriptorProto| {
        ["temporal.", "decoded", "google.protobuf"].iter().any(|of| file.package().starts_with(of))
    };
    config.compile_fds(FileDescriptorSet { file: files.into_iter().filter(sent).collect() })?;
    Ok(())
}

/// The tables of the door's walk: for each message reachable from an opaque body, what each of its
/// fields is.
fn shapes(messages: &BTreeMap<String, DescriptorProto>) -> Fallible<String> {
    let mut order: Vec<String> =
        OPAQUE.iter().map(|(package, name)| format!(".{package}.{name}")).collect();
    let mut rows = String::new();
    let mut next = 0;
    while let Some(name) = order.get(next).cloned() {
        let message = look_up(messages, &name)?;
        let mut fields = vec![
            "Kind::Unknown".to_owned();
            1 + usize::try_from(
                message.field.iter().map(FieldDescriptorProto::number).max().unwrap_or(0)
            )?
        ];
        for field in &message.field {
            fields[usize::try_from(field.number())?] = kind(&name, field, &mut order)?;
        }
        writeln!(rows, "    // {name}\n    &[{}],", fields.join(", "))?;
        next += 1;
    }
    let count = order.len();
    let mut text = format!("static SHAPES: [&[Kind]; {count}] = [\n{rows}];\n");
    for (index, (_, name)) in OPAQUE.iter().enumerate() {
        writeln!(text, "pub(crate) const {}: Shape = Shape({index});", name.to_uppercase())?;
    }
    Ok(text)
}

fn kind(message: &str, field: &FieldDescriptorProto, order: &mut Vec<String>) -> Fallible<String> {
    Ok(match field.r#type() {
        Type::Message => {
            let index =
                order.iter().position(|known| known == field.type_name()).unwrap_or_else(|| {
                    order.push(field.type_name().to_owned());
                    order.len() - 1
                });
            format!("Kind::Message(Shape({index}))")
        }
        Type::String => "Kind::Text".to_owned(),
        Type::Bytes => "Kind::Bytes".to_owned(),
        Type::Int32
        | Type::Int64
        | Type::Uint32
        | Type::Uint64
        | Type::Sint32
        | Type::Sint64
        | Type::Bool
        | Type::Enum
            if field.label() != Label::Repeated =>
        {
            "Kind::Varint".to_owned()
        }
        other => {
            return Err(format!(
                "{message}.{}: teach src/walk.rs to walk {other:?}, packed or not",
                field.name()
            )
            .into());
        }
    })
}
