//! That no field of a request is dropped without a word. `fields.txt` says what becomes of each;
//! the descriptors say which there are.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

/// The list; for people as much as for this test.
const LIST: &str = include_str!("fields.txt");

/// Where the RPCs are that are built.
const SERVICES: &str = include_str!("mod.rs");

/// Given up by Temporal's server too, which refuses them whatever they say.
const GIVEN_UP: [&str; 7] = [
    "DescribeDeploymentRequest",
    "FetchWorkerConfigRequest",
    "GetCurrentDeploymentRequest",
    "GetDeploymentReachabilityRequest",
    "ListDeploymentsRequest",
    "SetCurrentDeploymentRequest",
    "UpdateWorkerConfigRequest",
];

/// A message of the list: its fields, and which of them lead to a message of the list.
#[derive(Default)]
struct Listed {
    fields: BTreeSet<&'static str>,
    opened: BTreeSet<&'static str>,
}

/// Reads the list.
fn listed() -> BTreeMap<&'static str, Listed> {
    let mut all: BTreeMap<&str, Listed> = BTreeMap::new();
    let mut last = "";
    let body = LIST.lines().skip_while(|line| *line != "GetSystemInfoRequest");
    for line in body.filter(|line| !line.is_empty()) {
        let Some(line) = line.strip_prefix("  ") else {
            assert!(all.insert(line, Listed::default()).is_none(), "{line} twice");
            last = line;
            continue;
        };
        let (class, fields) = line.split_at(2);
        let fields = match class {
            "+ " | "! " => fields,
            "- " => fields.split_once(": ").unwrap_or_else(|| panic!("{line}: no reason")).0,
            other => panic!("{other:?} in {line}"),
        };
        let Some(entry) = all.get_mut(last) else { panic!("{line} belongs to no message") };
        for field in fields.split_whitespace() {
            let name = field.trim_end_matches('>');
            assert!(entry.fields.insert(name), "{last}.{name} twice");
            if field != name {
                entry.opened.insert(name);
            }
        }
    }
    all
}

/// Every message, by its full name with the dot before it.
fn messages() -> BTreeMap<String, DescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let all = set.file.into_iter().flat_map(|file| {
        let package = file.package().to_owned();
        file.message_type.into_iter().map(move |m| (format!(".{package}.{}", m.name()), m))
    });
    all.collect()
}

/// The requests of the RPCs that are built, by their full names.
fn requests() -> BTreeSet<String> {
    let of = |prefix: &'static str, package: &'static str| {
        SERVICES.split(prefix).skip(1).filter_map(move |rest| {
            let name = rest.split('>').next()?;
            (!GIVEN_UP.contains(&name)).then(|| format!(".temporal.api.{package}.v1.{name}"))
        })
    };
    of("Request<rpc::", "workflowservice").chain(of("Request<op::", "operatorservice")).collect()
}

#[test]
fn every_field_of_every_request_is_honoured_refused_or_known_to_be_without_effect() {
    let (listed, messages) = (listed(), messages());
    let mut todo = requests();
    assert!(todo.len() > 35, "{todo:?}");
    let mut seen = BTreeSet::new();
    while let Some(name) = todo.pop_first() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let message = messages.get(&name).unwrap_or_else(|| panic!("no message {name}"));
        let Some(entry) = listed.get(message.name()) else { panic!("{name} is not in the list") };
        let there: BTreeSet<&str> = message.field.iter().map(|field| field.name()).collect();
        let missing: Vec<_> = there.difference(&entry.fields).collect();
        let surplus: Vec<_> = entry.fields.difference(&there).collect();
        assert!(missing.is_empty(), "what becomes of {name}: {missing:?}?");
        assert!(surplus.is_empty(), "{name} has no {surplus:?}");
        let opened = message.field.iter().filter(|field| entry.opened.contains(field.name()));
        todo.extend(opened.map(|field| field.type_name().to_owned()));
    }
    let names: BTreeSet<&str> = seen.iter().filter_map(|name| name.rsplit('.').next()).collect();
    let unused: Vec<_> = listed.keys().filter(|name| !names.contains(*name)).collect();
    assert!(unused.is_empty(), "no request that is built leads to {unused:?}");
}
